-- Running a failed or cancelled job again from outside, and deleting the journals of old runs.

create function @extschema@.retry(
    id       text,
    args     jsonb     default null,
    key      text      default null,
    timeout  interval  default null
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(retry.id);
    wanted new_job;
begin
    perform raise_failure(optional_name_failure(retry.key, 'a key'));
    if was_started_by(held.id, retry.key) then
        return true;
    elsif (held.status in ('failed', 'cancelled')) is not true then
        return false;
    end if;
    wanted := (
        select (j.id, j.workflow, j.entity, coalesce(retry.args, j.args), '{}', j.queue, j.priority, null, j.headers,
                j.pinned_version, retry.key, null, j.parent, null, null, j.limit_key, j.on_parent_end,
                coalesce(retry.timeout, j.timeout), null)::new_job
          from jobs as j
         where j.id = held.id);
    perform raise_failure(coalesce(
        call_failure('a workflow', wanted.workflow, coalesce(wanted.args, '[]'), wanted.queue, wanted.priority),
        timeout_failure(wanted.timeout)));
    perform restart(array[wanted], 'retry', clock());
    perform notify_listeners(queues_of_starts(array[wanted]));
    return true;
end
$$;
comment on function @extschema@.retry(text, jsonb, text, interval) is
    'Run a job that has failed or was cancelled again, with its last arguments or others; return false if it runs or has completed. The same key retries once; the key of an earlier start retries nothing. Errors: PD103, PD104, PD107, PD30x, PD401. [P12]';


create function @extschema@.forget_old_runs(id text, max_rows integer default 10000) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(forget_old_runs.id);
    forgotten integer;
begin
    perform check_rows(forget_old_runs.max_rows);
    forgotten := forget_runs(held.id, held.run, forget_old_runs.max_rows);
    return forgotten + forget_keys(held.id, clock() - interval '1 day', forget_old_runs.max_rows - forgotten);
end
$$;
comment on function @extschema@.forget_old_runs(text, integer) is
    'Delete the journals of all runs of a job but the last, and the keys of signals that were taken more than a day ago: at most max_rows; return how many. Call it again until it returns 0. Changes of the memory stay. Errors: PD107, PD401.';
