-- Hooks in SQL, attempts: what each does, and what becomes of it. [P10]

-- Its own statements are planned with the usual settings, not with those of the core, which it would inherit.
create function @extschema@.call_sql_hook(name text, job text, args jsonb) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = auto
set enable_seqscan = on
as $$
declare
    known record;
    answer jsonb;
begin
    select h.schema, h.function into known from sql_hooks as h where h.name = call_sql_hook.name;
    if not found then
        perform raise_failure(make_failure(
            'PD406', 'UnknownFunction', format('no hook in SQL is named %s', quote_literal(call_sql_hook.name)),
            'Its task was on the queue $sql.', 'Call register_sql_hook() first, or name another queue.'));
    end if;
    -- If exactly this function is gone, the call would take another one that fits, whoever made it.
    perform format('%I.%I(text, jsonb)', known.schema, known.function)::regprocedure;
    perform raise_failure(function_owner_failure(known.schema, known.function));
    execute format('select case when pg_typeof(r) <> %L::regtype then to_jsonb(r) end from %I.%I($1, $2) as r',
                   'void', known.schema, known.function)
       into answer
      using call_sql_hook.job, call_sql_hook.args;
    return answer;
end
$$;
comment on function @extschema@.call_sql_hook(text, text, jsonb) is
    'Call the function of a hook in SQL. Errors: PD107 (it belongs to somebody else by now), PD406 (none is registered).';


create function @extschema@.attempt_overdue_failure(name text, detail text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure('PD604', 'TimeoutError', format('hook %s took longer than %s', h.name, h.timeout), attempt_overdue_failure.detail,
                            'Let it do less at a time, or register it with another timeout.')
          from sql_hooks as h
         where h.name = attempt_overdue_failure.name);
end
$$;
comment on function @extschema@.attempt_overdue_failure(text, text) is
    'Return the failure of an attempt of a hook in SQL that took longer than its timeout.';


create function @extschema@.hook_overdue_failure(within interval, name text, made integer, last jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD604', 'TimeoutError', format('hook %s was not done within %s', hook_overdue_failure.name, hook_overdue_failure.within),
        format('It was tried %s times; the last failed with: %s', hook_overdue_failure.made, coalesce(last ->> 'message', 'nothing')),
        'Give it more time, or find out why it fails.');
end
$$;
comment on function @extschema@.hook_overdue_failure(interval, text, integer, jsonb) is
    'Return the failure of a hook in SQL that was not done within its time, with its last failure if it had one.';


-- Serialization failures and deadlocks go to the caller, who repeats the call; all else is the hook's own failure. What
-- the hook deferred to its commit is checked here: otherwise a deferred constraint would fail the transaction after its
-- answer. An attempt that takes too long cannot be interrupted from within: it is undone when it returns.
create function @extschema@.try_sql_hook(inout held @extschema@.turn)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    it record;
    ends_at timestamptz;
    detail text;
    hint text;
begin
    select t.name, t.args into it from tasks as t where t.job_id = held.job and t.task = held.task;
    ends_at := time_after(clock(), sql_hook_timeout(it.name));
    held.state := 'done';
    held.value := call_sql_hook(it.name, held.job, it.args);
    perform check_value(held.value, 'the result');
    set constraints all immediate;
    perform raise_failure(case when clock() > ends_at then attempt_overdue_failure(it.name, 'It was undone when it had come to its end.') end);
exception
    when serialization_failure or deadlock_detected then
        raise;
    when others or assert_failure then
        get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
        held.state := 'failed';
        -- As much of each as a worker reports (MAX_MESSAGE in errors.py).
        held.value := make_failure(sqlstate, case sqlstate when 'PD604' then 'TimeoutError' else 'DatabaseError' end,
                                   left(sqlerrm, 10000), left(detail, 10000), left(hint, 10000));
end
$$;
comment on function @extschema@.try_sql_hook(@extschema@.turn) is
    'Run a hook in SQL. If it fails or takes too long, what it did is undone, and its failure is the answer.';


create function @extschema@.end_sql_hook_attempt(held @extschema@.turn) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn := end_sql_hook_attempt.held;
    again_at timestamptz;
    policy record;
begin
    -- In seconds: a long interval cannot be doubled sixteen times.
    select least(make_interval(secs => least(extract(epoch from h.retry_in)::float8 * power(2, least(t.attempt, 16)), 1e11)),
                 interval '1000 years') as pause,
           t.attempt + 1 as made, h.attempts, h.within, h.name, time_after(t.started_at, h.within) as ends_at
      into policy
      from tasks as t
      join sql_hooks as h on h.name = t.name
     where t.job_id = held.job
       and t.task = held.task
       and t.token = held.token;
    -- While the function ran it held the lock of its job, and whoever asks to cancel waited for that.
    if ended.state = 'failed' and cancel_is_open(held.job, held.task) then
        ended.state := 'cancelled';
    elsif ended.state = 'failed' and policy.made < policy.attempts then
        again_at := time_after(clock(), policy.pause);
        if (again_at >= policy.ends_at) is not true then
            perform give_back_task(held, again_at, ended.value);
            return 'retry';
        end if;
        ended.value := hook_overdue_failure(policy.within, policy.name, policy.made, ended.value);
    end if;
    -- The function may have ended the job, and its own task with it.
    if lock_held_task(held.job, held.task, held.token) is null then
        return 'gone';
    end if;
    return end_held_task(held, ended.state, ended.value);
end
$$;
comment on function @extschema@.end_sql_hook_attempt(@extschema@.turn) is
    'Put a failed hook in SQL off to its next attempt, if it has one left within its time and was not asked to cancel, or else end it; return which.';
