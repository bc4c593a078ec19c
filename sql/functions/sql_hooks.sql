-- Hooks in SQL, run: their tasks are on the queue `$sql`, which every worker serves: it claims a task like any other and
-- calls run_task(). The function, its commands and the end of the task are one transaction. The claim is another one
-- before it, so that a function which kills its backend is counted. [P10]

create function @extschema@.run_sql_hook(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held turn;
    too_late jsonb;
begin
    perform lock_jobs(array[run_sql_hook.job], waiting => true);
    held := lock_held_task(run_sql_hook.job, run_sql_hook.task, run_sql_hook.token);
    if held.job is null then
        return 'gone';
    end if;
    if cancel_is_open(held.job, held.task) then
        return end_held_task(held, 'cancelled', make_failure(
            'PD602', 'JobCancelled', 'the hook was asked to cancel', 'It had not begun.', 'Start it again if it is needed.'));
    end if;
    select hook_overdue_failure(h.within, h.name, t.attempt, t.failure)
      into too_late
      from tasks as t
      join sql_hooks as h on h.name = t.name
     where t.job_id = held.job
       and t.task = held.task
       and time_after(t.started_at, h.within) <= clock();
    if too_late is not null then
        return end_held_task(held, 'failed', too_late);
    end if;
    return end_sql_hook_attempt(try_sql_hook(held));
end
$$;
comment on function @extschema@.run_sql_hook(text, text, uuid) is
    'Run a hook in SQL whose task is held; return what became of it: done, failed, cancelled, retry or gone.';


-- Tried as a hook in SQL, a coordinator or a hook of somebody's code would have no function, and would fail.
create function @extschema@.check_sql_task(job text, task text, token uuid) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queue text := (
        select t.queue
          from tasks as t
         where t.job_id = check_sql_task.job
           and t.task = check_sql_task.task
           and t.token = check_sql_task.token);
begin
    perform check_task(check_sql_task.job, check_sql_task.task);
    if queue <> '$sql' then
        raise exception 'task % of job % is not run by the database', quote_literal(left(check_sql_task.task, 200)),
              quote_literal(left(check_sql_task.job, 200))
            using errcode = 'PD107',
                  detail = format('It is on the queue %s, not on $sql.', queue),
                  hint = 'Run its code, and report the outcome with advance(), finish_task() or fail_task().';
    end if;
end
$$;
comment on function @extschema@.check_sql_task(text, text, uuid) is
    'Refuse a held task that the database does not run itself (PD107), or to which the role that logged in has no access (PD115).';


create function @extschema@.time_out_task(job text, task text, token uuid) returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held turn;
    name text;
begin
    perform check_sql_task(time_out_task.job, time_out_task.task, time_out_task.token);
    perform lock_jobs(array[time_out_task.job], waiting => true);
    held := lock_held_task(time_out_task.job, time_out_task.task, time_out_task.token);
    if held.job is null then
        return 'gone';
    end if;
    name := (select t.name from tasks as t where t.job_id = held.job and t.task = held.task);
    perform raise_failure(reserved_task_failure(name));
    held.state := 'failed';
    held.value := attempt_overdue_failure(name, 'It was interrupted, and is undone.');
    return end_sql_hook_attempt(held);
end
$$;
comment on function @extschema@.time_out_task(text, text, uuid) is
    'Report that run_task() was interrupted because a hook in SQL took longer than its timeout; return retry, failed, cancelled (if that was asked), or gone if it had ended. Errors: PD107, PD115. [P6] [P10] [P12]';


create function @extschema@.run_task(job text, task text, token uuid) returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    name text := (select t.name from tasks as t where t.job_id = run_task.job and t.task = run_task.task);
begin
    perform check_instance(null);
    perform check_sql_task(run_task.job, run_task.task, run_task.token);
    return case name
        when '$deadline' then run_deadline(run_task.job, run_task.task, run_task.token)
        when '$schedule' then run_schedule(run_task.job, run_task.task, run_task.token)
        when '$parent_end' then end_children(run_task.job, run_task.task, run_task.token)
        else run_sql_hook(run_task.job, run_task.task, run_task.token) end;
end
$$;
comment on function @extschema@.run_task(text, text, uuid) is
    'Run a claimed task of the queue $sql in the database; return done, failed, cancelled, retry, waiting, stuck, or gone if it is not held any more. Give it a transaction of its own: deferred constraints are immediate from here on. Errors: PD107, PD115. [P6] [P10]';


create function @extschema@.take_sql_task(worker text, token uuid) returns @extschema@.claimed_task
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform raise_failure(coalesce(
        name_failure(take_sql_task.worker, 'a worker'),
        case when take_sql_task.token is null then make_failure(
            'PD107', 'InvalidArgument', 'a lease needs a token', 'It was given null.', 'Generate a uuid for each call.') end));
    perform check_instance(null);
    perform check_queues('{$sql}', take_sql_task.worker);
    return (claim_due(array['$sql'], take_sql_task.worker, take_sql_task.token, 1, '30 s', '-infinity'))[1];
end
$$;
comment on function @extschema@.take_sql_task(text, uuid) is
    'Lease the next due task of the queue $sql; return null if none is due. Errors: PD003, PD104, PD107, PD115, PD505. [P10]';


-- A procedure, since it commits each claim before the function runs: a function that kills its backend has been counted,
-- is tried again when its lease has ended, and becomes stuck in the end. A procedure that commits cannot have settings of
-- its own, so every name here is written in full.
create procedure @extschema@.run_sql_hooks(max_tasks integer default 100, inout ran integer default 0)
language plpgsql
as $$
declare
    token uuid;
    claimed @extschema@.claimed_task;
begin
    ran := 0;
    if run_sql_hooks.max_tasks operator(pg_catalog.<) 0 then
        raise exception 'the number asked for must not be negative'
            using errcode = 'PD107',
                  detail = pg_catalog.format('It was asked for %s.', run_sql_hooks.max_tasks),
                  hint = 'Give the highest number that you want, or null.';
    end if;
    for turn in 1 .. coalesce(run_sql_hooks.max_tasks, 2147483647) loop
        token := pg_catalog.gen_random_uuid();
        claimed := @extschema@.take_sql_task('run_sql_hooks', token);
        commit;
        exit when claimed.job is null;
        perform @extschema@.run_task(claimed.job, claimed.task, token);
        commit;
        ran := turn;
    end loop;
end
$$;
comment on procedure @extschema@.run_sql_hooks(integer, integer) is
    'Run up to max_tasks due tasks of the queue $sql (null for all), each in its own transaction; report how many ran. For pg_cron and psql, where no worker runs. Errors: PD107. [P10]';
