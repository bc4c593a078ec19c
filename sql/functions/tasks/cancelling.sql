-- Tasks, asked to cancel. A task that has begun hears of it, and may clean up. A hook that has not begun, and an activity
-- that nobody holds, have nothing to clean up: they end at once, without taking a slot of their queue, a token or a worker.

create function @extschema@.end_tasks_without_cleanup(
    job       text,
    tasks     text[],
    reason    text,
    ended_at  timestamptz
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn[] := array(
        select ending_turn(
                   t.job_id, t.task, 'cancelled',
                   make_failure('PD602', 'CancelledError', coalesce(end_tasks_without_cleanup.reason, format('the %s was cancelled', t.kind)),
                                'No code of it was running.', 'Start it again if it is needed.'),
                   t.kind, t.position, t.asker_job, t.asker_task, t.asker_key, t.fingerprint,
                   case when t.asker_job is not null then t.signal end)
          from tasks as t
         where t.job_id = end_tasks_without_cleanup.job
           and t.task = any(end_tasks_without_cleanup.tasks)
           and (t.kind = 'activity' and t.token is null or t.kind = 'hook' and t.started_at is null)
         order by t.task
           for no key update);
begin
    if ended <> '{}' then
        perform end_tasks(ended, end_tasks_without_cleanup.ended_at);
    end if;
    return array(select r.task from unnest(ended) as r);
end
$$;
comment on function @extschema@.end_tasks_without_cleanup(text, text[], text, timestamptz) is
    'End those of these tasks of a locked job that are hooks that have not begun or activities that no worker holds; return which. [P6]';


create function @extschema@.ask_to_cancel(job text, tasks text[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended text[] := end_tasks_without_cleanup(ask_to_cancel.job, ask_to_cancel.tasks, null, ask_to_cancel.asked_at);
    others text[] := array(
        select a.task from unnest(ask_to_cancel.tasks) as a (task)
        except
        select e.task from unnest(ended) as e (task)
         order by 1);
begin
    perform insert_cancel_requests(ask_to_cancel.job, others, null, ask_to_cancel.asked_at);
    return wake_cancelled(ask_to_cancel.job, others, ask_to_cancel.asked_at);
end
$$;
comment on function @extschema@.ask_to_cancel(text, text[], timestamptz) is
    'Ask tasks of a locked job to cancel, on behalf of their askers; those without code that could clean up end at once. Return whom to notify.';


-- A key names a hook or activity beneath the task, or a child: the coordinator whose asker is this request.
create function @extschema@.cancel_requests(turns @extschema@.turn[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    target record;
    queues text[] := '{}'::text[];
begin
    -- A loop: cancelling is rare, and each job's message needs its own identity.
    for target in
        select t.job_id, array_agg(t.task) as tasks, bool_or(t.kind = 'coordinator') as is_child
          from unnest(cancel_requests.turns) as r
         cross join jsonb_array_elements_text(r.cancels) as c (key)
         cross join lateral (
            select r.job, requested_task(r.task, c.key, false) as task
             union all
            select j.id, j.run::text || '/main'
              from jobs as j
             where j.parent = r.job
               and j.asked_as = r.task || '/' || c.key
            offset 0) as n
         cross join lateral (
            select a.job_id, a.task, a.kind
              from tasks as a
             where a.job_id = any(array[n.job])
               and a.task = n.task
               and a.asker_job = r.job
               and a.asker_task = r.task
               and a.asker_key = c.key
            offset 0) as t
         group by t.job_id
         order by t.job_id
    loop
        if target.is_child then
            queues := queues || lift_pause(target.job_id);
        end if;
        queues := queues || ask_to_cancel(target.job_id, target.tasks, cancel_requests.asked_at);
    end loop;
    return queues;
end
$$;
comment on function @extschema@.cancel_requests(@extschema@.turn[], timestamptz) is
    'Ask the requests of a task to cancel; return the queues of what was woken.';


-- A task that was asked to cancel, and has not heard of it, can pass that on only later, and only to what it waits for.
-- So what it asks for meanwhile begins cancelled, unless it is shielded. A child that existed before, and is busy, hears
-- of it from the task.
create function @extschema@.cancel_new_requests(turns @extschema@.turn[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    unaware turn[] := array(
        select r
          from unnest(cancel_new_requests.turns) as r
         where r.requests is not null
           and exists (
            select
              from inbox as i
             where i.job_id = r.job
               and i.task = r.task
               and i.key = '$cancel'
               and i.consumed_at is null
            offset 0));
    children text[];
    target record;
    queues text[] := '{}'::text[];
begin
    if unaware = '{}' then
        return queues;
    end if;
    -- Before their tasks are looked at: a child that existed before may just have ended.
    children := lock_requested(unaware);
    -- A loop: this is rare, and each job's message needs its own identity.
    for target in
        select n.job, array_agg(n.task) as tasks
          from unnest(unaware) as r
         cross join jsonb_to_recordset(r.requests) as q (key text, kind text, detached boolean, shielded boolean)
         cross join lateral (
            select r.job, requested_task(r.task, q.key, coalesce(q.detached, false)) as task
             where coalesce(q.kind, 'hook') in ('hook', 'activity')
            union all
            select j.id, j.run::text || '/main'
              from jobs as j
             where q.kind = 'job'
               and j.id = any(children)
               and j.parent = r.job
               and j.asked_as = r.task || '/' || q.key) as n
         where q.shielded is not true
           and task_exists(n.job, n.task)
         group by n.job
         order by n.job
    loop
        queues := queues || ask_to_cancel(target.job, target.tasks, cancel_new_requests.asked_at);
    end loop;
    return queues;
end
$$;
comment on function @extschema@.cancel_new_requests(@extschema@.turn[], timestamptz) is
    'Ask hooks, activities and children to cancel that a task requests before it has heard that it was itself asked to cancel.';
