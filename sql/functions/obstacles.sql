-- Obstacles: what keeps a task from continuing by itself, since its requests are stopped or nobody runs them.

create function @extschema@.queue_is_paused(queue text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from queues as q
         where q.queue = versioned_queue(queue_is_paused.queue, null)
           and q.paused);
end
$$;
comment on function @extschema@.queue_is_paused(text) is 'Tell whether a queue, of any version, is paused.';


-- A task that was given back for lack of code needs a worker that has its function; others need any worker of the queue.
create function @extschema@.lacks_worker(queue text, version text, kind text, name text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if lacks_worker.kind is not null then
        return not has_worker(lacks_worker.queue, lacks_worker.version, lacks_worker.kind, lacks_worker.name);
    end if;
    return not exists (select from workers as w where w.queues @> array[lacks_worker.queue]);
end
$$;
comment on function @extschema@.lacks_worker(text, text, text, text) is
    'Tell whether no worker of a queue has registered, or, if a function is named, none that has it.';


create function @extschema@.worker_wanted(queue text, version text, kind text, name text) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return concat('a worker ', 'of version ' || worker_wanted.version || ' ',
                  'on queue ' || versioned_queue(worker_wanted.queue, null),
                  ' that has the ' || worker_wanted.kind || ' ' || worker_wanted.name,
                  case when lacks_worker(worker_wanted.queue, worker_wanted.version, worker_wanted.kind, worker_wanted.name)
                       then ' (none has registered)' end);
end
$$;
comment on function @extschema@.worker_wanted(text, text, text, text) is
    'Return in words which worker a task needs: of its queue, or, if a function is named, one that has it; and that none has registered, if that is so.';


-- A task that waits for room, for its next attempt, or is at work continues by itself. So do tasks that the database runs,
-- since callers of run_sql_hooks() do not register.
create function @extschema@.live_requests(job text, task text, only_stopped boolean)
returns table (
    key         text,
    needs       text,
    stopped_by  text,
    is_due      boolean,
    queue       text,
    version     text,
    kind        text,
    name        text
)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
rows 10
as $$
declare
    now_at timestamptz := clock();
    -- Read once, for a task may have asked for thousands.
    paused_queues text[] := array(select q.queue from queues as q where q.paused);
begin
    return query
    select t.asker_key, s.needs,
           case when t.stuck_reason is not null then left(coalesce(t.stuck_reason ->> 'message', t.stuck_reason::text), 200)
                when t.paused then 'its job is paused'
                when s.needs is not null then 'its queue is paused' end,
           t.token is null and t.queue <> '$sql' and t.due_at <= now_at,
           t.queue, t.pinned_version, case when s.lacks_code then t.kind::text end, case when s.lacks_code then t.name end
      from tasks as t
     cross join lateral (
        select case when t.stuck_reason is not null or t.paused then 'resume'
                    when t.token is null and t.due_at <= now_at and split_part(t.queue, '@', 1) = any(paused_queues)
                    then 'resume_queue' end as needs,
               t.token is null and t.queue <> '$sql' and t.failure ->> 'code' = 'PD406' as lacks_code
        offset 0) as s
     where t.asker_job = live_requests.job
       and t.asker_task = live_requests.task
       and t.job_id = any(array(select live_requests.job union all
                                select j.id from jobs as j where j.parent = live_requests.job))
       and (s.needs is not null or not live_requests.only_stopped)
     limit 10;
end
$$;
comment on function @extschema@.live_requests(text, text, boolean) is
    'Return hooks and children, or those of them that are stopped, at most ten, whose answers a task waits for: what they need, what stops them, and, for lack of code, the function that they lack.';


create function @extschema@.stopped_requests(job text, task text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select format('somebody to resume %s: %s', r.key, r.stopped_by)
          from live_requests(stopped_requests.job, stopped_requests.task, true) as r
         order by r.key);
end
$$;
comment on function @extschema@.stopped_requests(text, text) is
    'Return in words which requests of a parked task are stuck or paused, and why.';


-- If many ask for the same, one worker is looked for.
create function @extschema@.missing_workers(job text, task text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select worker_wanted(w.queue, w.version, w.kind, w.name) as worker
          from (select distinct r.queue, r.version, r.kind, r.name
                  from live_requests(missing_workers.job, missing_workers.task, false) as r
                 where r.needs is null
                   and (r.is_due or r.kind is not null)) as w
         where lacks_worker(w.queue, w.version, w.kind, w.name)
         order by worker);
end
$$;
comment on function @extschema@.missing_workers(text, text) is
    'Return in words which workers the requests of a parked task need of which none has registered.';
