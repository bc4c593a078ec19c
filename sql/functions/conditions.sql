-- Conditions: a task waits until its memory meets a condition. The writer that makes the condition true answers the task
-- at that moment, under the lock of the job. So the condition counts even if it is false again before the task wakes.
-- [P8]

-- The operator hides most errors, but not all: times with and without zones cannot be compared, and a path may be too
-- deep. A condition that cannot be evaluated is not met, and the writer of the memory never sees the error.
create function @extschema@.fulfils(context jsonb, condition jsonpath) returns boolean
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(fulfils.context @@ fulfils.condition, false);
exception
    when data_exception or feature_not_supported or undefined_object or program_limit_exceeded then
        return false;
end
$$;
comment on function @extschema@.fulfils(jsonb, jsonpath) is 'Tell whether a document meets a condition; never raises.';


create function @extschema@.meet_conditions(held @extschema@.memory, met_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    tasks text[];
    keys text[];
    fingerprints text[];
begin
    with met as (
        delete from conditions as c
         where c.job_id = held.id
           and fulfils(held.context, c.condition)
        returning c.task, c.key, c.fingerprint
    )
    select array_agg(m.task order by m.task, m.key), array_agg(m.key order by m.task, m.key),
           array_agg(m.fingerprint order by m.task, m.key)
      into tasks, keys, fingerprints
      from met as m;
    if tasks is null then
        return;
    end if;
    perform answer_conditions(held, tasks, keys, fingerprints, meet_conditions.met_at);
    perform notify_listeners(wake_tasks(array[held.id], meet_conditions.met_at));
end
$$;
comment on function @extschema@.meet_conditions(@extschema@.memory, timestamptz) is
    'Answer the tasks whose conditions are met by the memory of a locked job with its version, and wake them.';


create function @extschema@.notify_watchers(held @extschema@.memory, changed_at timestamptz) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_snapshot(array[held.id]);
    perform meet_conditions(held, notify_watchers.changed_at);
    perform notify_listeners(array['$memory/' || held.id]);
    if held.entity = '$schedule' then
        perform notify_listeners(wake_task(held.id, '$hook/$schedule', notify_watchers.changed_at));
        return true;
    end if;
    return exists (select from conditions as c where c.job_id = held.id)
        or is_listened_for('$memory/' || held.id, null, notify_watchers.changed_at - interval '1 hour');
end
$$;
comment on function @extschema@.notify_watchers(@extschema@.memory, timestamptz) is
    'Notify those who wait for a change of a locked memory, including the task of a schedule; return whether anybody still waits.';


create function @extschema@.await_conditions(turns @extschema@.turn[], asked_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    waiting_jobs text[];
begin
    with wanted as (
        insert into conditions as c (job_id, task, key, condition, asked_at, fingerprint)
        select r.job, r.task, q.key, q.condition::jsonpath, await_conditions.asked_at, q.fingerprint
          from unnest(await_conditions.turns) as r
         cross join jsonb_to_recordset(r.requests) as q (key text, kind text, condition text, fingerprint text)
         where q.kind = 'until'
           and not is_answered(r.job, r.task, q.key)
           and not exists (
            select from items as p where p.job_id = r.job and p.task = r.task and p.key = q.key and p.is_open offset 0)
           and not is_requested(r.job, r.task, q.key)
            on conflict on constraint one_row_per_condition do nothing
        returning c.job_id
    )
    select array_agg(distinct w.job_id) into waiting_jobs from wanted as w;
    if waiting_jobs is not null then
        perform watch_jobs(waiting_jobs);
        perform meet_conditions(read_job(job), await_conditions.asked_at) from unnest(waiting_jobs) as job;
    end if;
end
$$;
comment on function @extschema@.await_conditions(@extschema@.turn[], timestamptz) is
    'Let tasks wait for conditions on their memories. A condition that is already met is answered at once. A repeated request changes nothing, and neither does one under the key of another request. [P12]';


create function @extschema@.withdraw_conditions(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from conditions as c
     using unnest(withdraw_conditions.turns) as r
     where c.job_id = any(array[r.job])
       and c.task = r.task
       and r.cancels ? c.key;
end
$$;
comment on function @extschema@.withdraw_conditions(@extschema@.turn[]) is
    'Delete conditions that tasks no longer wait for.';


create function @extschema@.forget_conditions(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from conditions as c
     using unnest(forget_conditions.turns) as r
     where c.job_id = any(array[r.job])
       and c.task >= r.task
       and c.task < r.task || '0'
       and (c.task = r.task or c.task > r.task || '/')
       and not exists (select from tasks as t where t.job_id = c.job_id and t.task = c.task offset 0);
end
$$;
comment on function @extschema@.forget_conditions(@extschema@.turn[]) is
    'Delete the conditions of ended tasks and of all tasks beneath them.';
