-- Steering jobs from outside: cancel asks a job to end, terminate ends it at once, pause keeps it from workers, and
-- resume lets a paused job continue and a stuck one try again.

create function @extschema@.cancel(id text, reason text default null) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(cancel.id);
    asked_at timestamptz := clock();
    coordinator text[] := array[held.run::text || '/main'];
begin
    perform check_value(to_jsonb(cancel.reason), 'the reason');
    if held.status is distinct from 'running' then
        return false;
    end if;
    if not insert_cancel_requests(held.id, coordinator, to_jsonb(cancel.reason), asked_at) then
        return false;
    end if;
    perform notify_listeners(lift_pause(held.id) || wake_cancelled(held.id, coordinator, asked_at));
    return true;
end
$$;
comment on function @extschema@.cancel(text, text) is
    'Ask a job to cancel: its coordinator wakes at once, also if the job is paused, may clean up, and cancels what it awaits. Return false if the job is finished or was asked before. Errors: PD301, PD401.';


create function @extschema@.cancel_hook(id text, task text, reason text default null) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(cancel_hook.id);
    asked_at timestamptz := clock();
    known text[] := array(
        select t.task
          from tasks as t
         where t.job_id = held.id
           and t.task = cancel_hook.task
           and t.kind <> 'coordinator'
           and left(t.name, 1) <> '$');
begin
    perform check_value(to_jsonb(cancel_hook.reason), 'the reason');
    if end_tasks_without_cleanup(held.id, known, cancel_hook.reason, asked_at) <> '{}' then
        perform notify_listeners(wake_tasks(array[held.id], asked_at));
        return true;
    end if;
    if known = '{}' or not insert_cancel_requests(held.id, known, to_jsonb(cancel_hook.reason), asked_at) then
        return false;
    end if;
    perform notify_listeners(wake_cancelled(held.id, known, asked_at));
    return true;
end
$$;
comment on function @extschema@.cancel_hook(text, text, text) is
    'Ask a hook or activity of a job to cancel, by the name of its task; a hook that has not begun and an activity that no worker holds end at once. Return false if it has ended, was asked before, or does not exist. Errors: PD301, PD401.';


create function @extschema@.terminated_turn(id text, run integer, reason text) returns @extschema@.turn
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return ending_turn(
        terminated_turn.id, terminated_turn.run::text || '/main', 'cancelled',
        make_failure('PD602', 'Terminated', coalesce(terminated_turn.reason, 'the job was terminated'),
                     'It was ended from outside, without cleaning up.', 'Start a new job.'),
        'coordinator');
end
$$;
comment on function @extschema@.terminated_turn(text, integer, text) is
    'Write the last turn of a job that is ended at once, without the name of the task that waits for it.';


create function @extschema@.asker_of(
    id               text,
    out asker_job    text,
    out asker_task   text,
    out asker_key    text,
    out fingerprint  text
)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    select t.asker_job, t.asker_task, t.asker_key, t.fingerprint
      into asker_job, asker_task, asker_key, fingerprint
      from tasks as t
     where t.job_id = asker_of.id
       and t.kind = 'coordinator';
end
$$;
comment on function @extschema@.asker_of(text) is
    'Return which task waits for the end of a job, and the fingerprint of its request; nulls if none does.';


create function @extschema@.turns_of_earlier_runs(ended @extschema@.turn[]) returns @extschema@.turn[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select ending_turn(t.job_id, t.task, 'cancelled', null, t.kind, t.position, t.asker_job, t.asker_task,
                           t.asker_key, t.fingerprint)
          from unnest(turns_of_earlier_runs.ended) as r
          join tasks as t on t.job_id = any(array[r.job])
         where t.task ~ '^[0-9]+/'
           and split_part(t.task, '/', 1) <> split_part(r.task, '/', 1));
end
$$;
comment on function @extschema@.turns_of_earlier_runs(@extschema@.turn[]) is
    'Write the last turns of tasks of earlier runs that still clean up, in jobs that are ended at once.';


create function @extschema@.end_run(ended @extschema@.turn, ended_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    last turn := end_run.ended;
    asker record := asker_of(last.job);
    others turn[] := turns_of_earlier_runs(array[last]);
    topics text[] := freed_queues(last || others, end_run.ended_at) || array['$job/' || last.job, '$memory/' || last.job];
begin
    last.asker_job := asker.asker_job;
    last.asker_task := asker.asker_task;
    last.asker_key := asker.asker_key;
    last.fingerprint := asker.fingerprint;
    perform end_tasks(last || others, end_run.ended_at);
    perform notify_listeners(topics || wake_tasks(array_remove(array[asker.asker_job], null), end_run.ended_at));
end
$$;
comment on function @extschema@.end_run(@extschema@.turn, timestamptz) is
    'End the run of a job at once, without running more of its code, and answer the task that asked for it; both jobs are locked. [P6]';


create function @extschema@.terminate(id text, reason text default null) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    asker record := asker_of(terminate.id);
    known record;
    held memory;
begin
    perform check_value(to_jsonb(terminate.reason), 'the reason');
    perform lock_jobs(array_remove(array[terminate.id, asker.asker_job], null), waiting => true);
    held := lock_job(terminate.id);
    if held.status is distinct from 'running' then
        return false;
    end if;
    -- The asker of a run never changes, but the job may have been started while this call waited for its lock.
    known := asker_of(terminate.id);
    if known.asker_job <> coalesce(asker.asker_job, '') and lock_jobs(array[known.asker_job], waiting => false) = '{}' then
        raise exception 'job % is just being started', quote_literal(terminate.id)
            using errcode = '40001', detail = 'Its parent is locked.', hint = 'Call again.';
    end if;
    perform end_run(terminated_turn(held.id, held.run, terminate.reason), clock());
    return true;
end
$$;
comment on function @extschema@.terminate(text, text) is
    'End a job at once: delete its tasks and fence the workers that hold them. Return false if the job is finished. Errors: PD301, PD401. [P6]';


create function @extschema@.pause(id text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(pause.id);
begin
    if not pause_job(held.id, true) then
        return false;
    end if;
    perform pause_tasks(held.id);
    return true;
end
$$;
comment on function @extschema@.pause(text) is
    'Keep all tasks of a job from workers until it is resumed or cancelled; a task that a worker holds ends its turn. Return false if the job was paused before. Errors: PD401.';


create function @extschema@.resume(
    id              text,
    task            text default null,
    accept_changes  boolean default false
) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(resume.id);
    queues text[] := '{}'::text[];
begin
    if resume.task is null then
        queues := lift_pause(held.id);
    end if;
    queues := queues || resume_tasks(held.id, resume.task, resume.accept_changes, clock());
    perform notify_listeners(queues);
    return cardinality(queues);
end
$$;
comment on function @extschema@.resume(text, text, boolean) is
    'End the pause of a job and let its stuck tasks try again, with changed arguments accepted if accept_changes is true; return how many tasks continue. Errors: PD401. [P9]';
