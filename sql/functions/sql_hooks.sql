-- Hooks in SQL: functions of the database that run as hooks. Their tasks stand on the queue `$sql`, which every worker
-- serves: it claims a task like any other and calls run_task(). What the function does, its commands and the end of the
-- task are one transaction. The claim is one before it, so that a function which takes its backend down is counted. [P10]

create function @extschema@.register_sql_hook(
    name      text,
    function  regproc,
    attempts  integer   default 1,
    retry_in  interval  default '1 s'
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    known text[] := (
        select array[n.nspname, p.proname]::text[]
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         where p.oid = register_sql_hook.function
           and p.proargtypes = '25 3802'
           and p.prorettype in ('jsonb'::regtype, 'void'::regtype)
           and p.prokind = 'f'
           and not p.proretset);
begin
    perform check_name(register_sql_hook.name, 'a hook');
    if known is null or left(register_sql_hook.name, 1) = '$' then
        raise exception 'function % cannot be the hook %', register_sql_hook.function, quote_literal(register_sql_hook.name)
            using errcode = 'PD107',
                  detail = 'A hook in SQL is a function (text, jsonb) that returns jsonb or void; its name does not begin with $.',
                  hint = 'Let it take the id of the job and the arguments of the hook.';
    end if;
    if (register_sql_hook.attempts > 0 and register_sql_hook.retry_in > '0 s') is not true then
        raise exception 'the hook % cannot be tried % times with a pause of %', quote_literal(register_sql_hook.name),
              coalesce(register_sql_hook.attempts::text, 'null'), coalesce(register_sql_hook.retry_in::text, 'null')
            using errcode = 'PD107',
                  detail = 'It runs once at least, and a pause is longer than nothing.',
                  hint = 'Give attempts and retry_in that are greater than zero.';
    end if;
    insert into sql_hooks (name, schema, function, attempts, retry_in)
    values (register_sql_hook.name, known[1], known[2], register_sql_hook.attempts, register_sql_hook.retry_in)
        on conflict on constraint one_row_per_sql_hook
        do update set schema = excluded.schema, function = excluded.function, attempts = excluded.attempts,
                      retry_in = excluded.retry_in;
end
$$;
comment on function @extschema@.register_sql_hook(text, regproc, integer, interval) is
    'Let a function (job text, args jsonb) returns jsonb be a hook, run in the database as often as attempts when it fails. PD104, PD107.';


create function @extschema@.drop_sql_hook(name text) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from sql_hooks as h where h.name = drop_sql_hook.name;
    return found;
end
$$;
comment on function @extschema@.drop_sql_hook(text) is
    'Let a function be a hook no more; false when it was none. What asks for it from now on fails.';


create function @extschema@.call_sql_hook(name text, job text, args jsonb) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    known record;
    answer jsonb;
begin
    select h.schema, h.function into known from sql_hooks as h where h.name = call_sql_hook.name;
    if not found then
        perform raise_failure(make_failure(
            'PD406', 'UnknownFunction', format('no hook in SQL is named %s', quote_literal(call_sql_hook.name)),
            'Its task stood on the queue $sql.', 'Call register_sql_hook() first, or name another queue.'));
    end if;
    execute format('select case when pg_typeof(r) <> %L::regtype then to_jsonb(r) end from %I.%I($1, $2) as r',
                   'void', known.schema, known.function)
       into answer
      using call_sql_hook.job, call_sql_hook.args;
    return answer;
end
$$;
comment on function @extschema@.call_sql_hook(text, text, jsonb) is 'Call the function of a hook in SQL; PD406 when none is registered.';


-- Serialization failures and deadlocks go to the caller, who repeats the call; all else is the hook's own failure. What
-- it left for its commit is checked here: a deferred constraint would else fail the transaction after all was said.
create function @extschema@.try_sql_hook(inout held @extschema@.turn)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    it record;
    detail text;
    hint text;
begin
    select t.name, t.args into it from tasks as t where t.job_id = held.job and t.task = held.task;
    held.state := 'done';
    held.value := call_sql_hook(it.name, held.job, it.args);
    perform check_value(held.value, 'the result');
    set constraints all immediate;
exception
    when serialization_failure or deadlock_detected then
        raise;
    when others or assert_failure then
        get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
        held.state := 'failed';
        held.value := make_failure(sqlstate, 'DatabaseError', sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.try_sql_hook(@extschema@.turn) is
    'Run a hook in SQL; what it did is undone when it fails, and its failure is the answer.';


create function @extschema@.run_sql_hook(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held turn;
    policy record;
begin
    perform lock_jobs(array[run_sql_hook.job], waiting => true);
    held := hold_task(run_sql_hook.job, run_sql_hook.task, run_sql_hook.token);
    if held.job is null then
        return 'gone';
    end if;
    if cancel_is_open(held.job, held.task) then
        held.state := 'cancelled';
        held.value := make_failure('PD602', 'JobCancelled', 'the hook was asked to cancel', 'It had not begun.', 'Ask again.');
    else
        held := try_sql_hook(held);
        select h.retry_in * power(2, least(t.attempt, 16)) as pause, t.attempt + 1 < h.attempts as is_left
          into policy
          from tasks as t
          join sql_hooks as h on h.name = t.name
         where t.job_id = held.job
           and t.task = held.task
           and t.token = held.token;
        if held.state = 'failed' and policy.is_left then
            perform put_off_task(held, clock() + policy.pause, held.value);
            return 'retry';
        end if;
    end if;
    -- The function may have ended the job, and its own task with it.
    if hold_task(held.job, held.task, held.token) is null then
        return 'gone';
    end if;
    return give_outcome(held, held.state, held.value);
end
$$;
comment on function @extschema@.run_sql_hook(text, text, uuid) is
    'Run a hook in SQL whose task is held; tells what became of it: done, failed, cancelled, retry or gone.';


create function @extschema@.run_task(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    name text := (select t.name from tasks as t where t.job_id = run_task.job and t.task = run_task.task);
begin
    return case name
        when '$deadline' then run_deadline(run_task.job, run_task.task, run_task.token)
        when '$schedule' then run_schedule(run_task.job, run_task.task, run_task.token)
        when '$parent_end' then end_children(run_task.job, run_task.task, run_task.token)
        else run_sql_hook(run_task.job, run_task.task, run_task.token) end;
end
$$;
comment on function @extschema@.run_task(text, text, uuid) is
    'Run a claimed task of the queue $sql inside the database, in this transaction: done, failed, cancelled, retry, waiting, stuck, or gone when it is not held any more. [P6] [P10]';


create function @extschema@.take_sql_task(worker text, token uuid) returns @extschema@.claimed_task
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    return (take_due(array['$sql'], take_sql_task.worker, take_sql_task.token, 1, '30 s', '-infinity'))[1];
end
$$;
comment on function @extschema@.take_sql_task(text, uuid) is
    'Lease the next due task of the queue $sql; null when none is. [P10]';


-- A procedure, since it commits each claim before the function runs: a function that takes its backend down has been
-- counted, is tried again when its lease has ended, and is stuck in the end. What commits can have no settings of its own,
-- so every name here is written in full.
create procedure @extschema@.run_sql_hooks(max_tasks integer default 100, inout ran integer default 0)
language plpgsql
as $$
declare
    token uuid;
    taken @extschema@.claimed_task;
begin
    ran := 0;
    for turn in 1 .. run_sql_hooks.max_tasks loop
        token := pg_catalog.gen_random_uuid();
        taken := @extschema@.take_sql_task('run_sql_hooks', token);
        commit;
        exit when taken.job is null;
        perform @extschema@.run_task(taken.job, taken.task, token);
        commit;
        ran := turn;
    end loop;
end
$$;
comment on procedure @extschema@.run_sql_hooks(integer, integer) is
    'Run up to max_tasks due tasks of the queue $sql, each in a transaction of its own; tells how many ran. For pg_cron and psql, where no worker is. [P10]';
