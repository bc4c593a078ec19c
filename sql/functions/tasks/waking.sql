-- Tasks, woken. Law: waking moves only a parked task. A held task looks at its inbox when it parks, under the lock of the
-- job; meanwhile its worker gets a hint if it listens, so that the task may look before. Updates of many tasks at once go
-- through the index, in order of their names, and not by a bitmap scan, which has the order of their places.

create function @extschema@.wake_tasks(jobs text[], woken_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    woken text[];
begin
    perform check_snapshot(wake_tasks.jobs);
    with asleep as materialized (
        select t.job_id, t.task
          from tasks as t
         where t.job_id = any(wake_tasks.jobs)
           and t.token is null
           and t.awaits is not null
           and t.due_at > wake_tasks.woken_at
           and t.stuck_reason is null
           and (exists (
                    select from inbox as i where i.job_id = t.job_id and i.task = t.task and i.consumed_at is null offset 0)
                or exists (
                    select
                      from inbox as i
                     where i.job_id = t.job_id
                       and i.task is null
                       and i.name = any(t.awaits)
                    offset 0))
         order by t.job_id, t.task
           for no key update
    ), moved as (
        update tasks as t
           set due_at = wake_tasks.woken_at
          from asleep as a
         where t.job_id = any(array[a.job_id])
           and t.task = a.task
        returning t.queue
    ), topics as (
        select m.queue as topic
          from moved as m
         union all
        select l.topic
          from tasks as t
         cross join lateral (
            select h.topic from listeners as h where h.topic = any(array['$messages/' || t.worker]) offset 0) as l
         where t.job_id = any(wake_tasks.jobs)
           and t.token is not null
           and (exists (
                    select
                      from inbox as i
                     where i.job_id = t.job_id
                       and i.task = t.task
                       and i.sent_at >= wake_tasks.woken_at
                    offset 0)
                or exists (
                    select
                      from inbox as i
                     where i.job_id = t.job_id
                       and i.task is null
                       and i.sent_at >= wake_tasks.woken_at
                    offset 0))
    )
    select array_agg(distinct w.topic) into woken from topics as w;
    return coalesce(woken, '{}');
end
$$;
comment on function @extschema@.wake_tasks(text[], timestamptz) is
    'Make parked tasks due that have messages; return whom to notify: their queues, and the workers that hold other tasks to which something was sent just now. Waking moves only a parked task.';


create function @extschema@.wake_cancelled(job text, tasks text[], woken_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
as $$
declare
    woken text[];
begin
    perform check_snapshot(array[wake_cancelled.job]);
    with moved as (
        update tasks as t
           set due_at = case when t.stuck_reason is null then least(t.due_at, wake_cancelled.woken_at) else t.due_at end,
               awaits = coalesce(t.awaits, '{}')
         where t.job_id = wake_cancelled.job
           and t.task = any(wake_cancelled.tasks)
           and t.token is null
        returning t.queue
    ), topics as (
        select m.queue as topic
          from moved as m
         union all
        select '$messages/' || t.worker
          from tasks as t
         where t.job_id = wake_cancelled.job
           and t.task = any(wake_cancelled.tasks)
           and t.token is not null
    )
    select array_agg(distinct w.topic) into woken from topics as w;
    return coalesce(woken, '{}');
end
$$;
comment on function @extschema@.wake_cancelled(text, text[], timestamptz) is
    'Make tasks due that are asked to cancel, also if they wait for nothing; return whom to notify: their queues, and the workers that hold others.';


create function @extschema@.wake_to_cancel(turns @extschema@.turn[], woken_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update tasks as t
       set due_at = least(t.due_at, wake_to_cancel.woken_at),
           awaits = coalesce(t.awaits, '{}')
      from unnest(wake_to_cancel.turns) as r
     where r.state in ('retry', 'release')
       and not (r.state = 'release' and lacked_code_or_key(r.value))
       and t.job_id = any(array[r.job])
       and t.task = r.task
       and exists (
        select
          from inbox as i
         where i.job_id = t.job_id
           and i.task = t.task
           and i.key = '$cancel'
           and i.consumed_at is null
        offset 0);
end
$$;
comment on function @extschema@.wake_to_cancel(@extschema@.turn[], timestamptz) is
    'Make tasks due that were given back while a request to cancel them was open, so that they do not sleep through it, unless no worker here could hear it.';


create function @extschema@.resume_tasks(
    job             text,
    task            text,
    accept_changes  boolean,
    resumed_at      timestamptz
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
as $$
declare
    resumed text[];
begin
    with moved as (
        update tasks as t
           set due_at = resume_tasks.resumed_at,
               stuck_reason = null,
               deliveries = 0,
               accept_changes = resume_tasks.accept_changes
         where t.job_id = resume_tasks.job
           and (resume_tasks.task is null or t.task = resume_tasks.task)
           and t.stuck_reason is not null
        returning t.queue
    )
    select array_agg(m.queue) into resumed from moved as m;
    return coalesce(resumed, '{}');
end
$$;
comment on function @extschema@.resume_tasks(text, text, boolean, timestamptz) is
    'Make stuck tasks due again; return a queue for each.';


create function @extschema@.wake_task(job text, task text, woken_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    woken text[];
begin
    with moved as (
        update tasks as t
           set due_at = wake_task.woken_at,
               stuck_reason = null,
               deliveries = 0
         where t.job_id = wake_task.job
           and t.task = wake_task.task
           and t.token is null
           and t.due_at > wake_task.woken_at
        returning t.queue
    )
    select array_agg(m.queue) into woken from moved as m;
    return coalesce(woken, '{}');
end
$$;
comment on function @extschema@.wake_task(text, text, timestamptz) is
    'Make a parked task due that must look at its memory again, also if it is stuck; return its queue.';
