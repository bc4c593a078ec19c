-- Finishing: a worker without a journal, in any language, reports that an activity or hook it holds is done or has
-- failed. It is the same as a turn of advance() for one task, with plain arguments. [P6]

create function @extschema@.lock_to_finish(job text, task text, token uuid) returns @extschema@.turn
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held turn;
begin
    perform check_instance(null);
    perform check_task(lock_to_finish.job, lock_to_finish.task);
    perform lock_jobs(array[lock_to_finish.job], waiting => true);
    held := lock_held_task(lock_to_finish.job, lock_to_finish.task, lock_to_finish.token);
    if held.kind = 'coordinator' then
        raise exception 'task % of job % is a coordinator', quote_literal(held.task), quote_literal(held.job)
            using errcode = 'PD107',
                  detail = 'It ends with its run, which has a journal and may have a parent.',
                  hint = 'Send its last turn with advance().';
    end if;
    perform raise_failure(reserved_task_failure((select t.name from tasks as t where t.job_id = held.job and t.task = held.task)));
    return held;
end
$$;
comment on function @extschema@.lock_to_finish(text, text, uuid) is
    'Lock a hook or activity that is held under a token, and its job; null if it is not held. Errors: PD107 (a coordinator, or a task that no worker runs), PD115.';


create function @extschema@.answer_gone(job text, task text) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if task_exists(answer_gone.job, answer_gone.task) then
        perform refuse_non_holder(answer_gone.job, answer_gone.task);
    end if;
    return 'gone';
end
$$;
comment on function @extschema@.answer_gone(text, text) is
    'Answer a caller who does not hold a task: gone if the task has ended, else refuse (PD001).';


create function @extschema@.end_held_task(held @extschema@.turn, state text, value jsonb) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn := end_held_task.held;
    ended_at timestamptz := clock();
    freed text[];
begin
    ended.state := end_held_task.state;
    ended.value := end_held_task.value;
    freed := freed_queues(array[ended], ended_at);
    perform end_tasks(array[ended], ended_at);
    perform notify_listeners(freed || wake_tasks(array_remove(array[ended.asker_job], null), ended_at));
    return ended.state;
end
$$;
comment on function @extschema@.end_held_task(@extschema@.turn, text, jsonb) is
    'End a held task, leave its answer, wake the task that asked, and notify who waits for its slot; return the state.';


create function @extschema@.finish_task(
    job    text,
    task   text,
    token  uuid,
    value  jsonb  default null
) returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held turn := lock_to_finish(finish_task.job, finish_task.task, finish_task.token);
begin
    perform check_value(finish_task.value, 'the result');
    if held.job is null then
        return answer_gone(finish_task.job, finish_task.task);
    end if;
    return end_held_task(held, 'done', finish_task.value);
end
$$;
comment on function @extschema@.finish_task(text, text, uuid, jsonb) is
    'End a held activity or hook with its result; return done, or gone if it has ended before, perhaps by this very call. Errors: PD001, PD107, PD115, PD30x. [P6] [P12]';


create function @extschema@.fail_task(
    job       text,
    task      text,
    token     uuid,
    failure   jsonb        default null,
    retry_at  timestamptz  default null
) returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held turn := lock_to_finish(fail_task.job, fail_task.task, fail_task.token);
    reported jsonb := case when jsonb_typeof(fail_task.failure) = 'object' then fail_task.failure
                           else jsonb_build_object('type', 'Failure',
                                                   'message', coalesce(fail_task.failure #>> '{}', 'the task has failed')) end;
begin
    perform raise_failure(coalesce(value_failure(reported, 'the failure'), due_failure(fail_task.retry_at)));
    if held.job is null then
        if task_was_given_back(fail_task.job, fail_task.task, fail_task.token) then
            return 'retry';
        end if;
        return answer_gone(fail_task.job, fail_task.task);
    end if;
    if cancel_is_open(held.job, held.task) then
        return end_held_task(held, 'cancelled', reported);
    end if;
    if fail_task.retry_at is null then
        return end_held_task(held, 'failed', reported);
    end if;
    perform give_back_task(held, fail_task.retry_at, reported);
    perform notify_listeners(queues_of(array[held]));
    return 'retry';
end
$$;
comment on function @extschema@.fail_task(text, text, uuid, jsonb, timestamptz) is
    'End an attempt of a held activity or hook with a failure; return retry if it is due again at retry_at, else failed, cancelled (if that was asked) or gone. Errors: PD001, PD107, PD115, PD30x. [P6] [P10] [P12]';
