-- Invariants between tasks and what they wait for: requests, families, shared queues, and schedules. [P8]

create function @extschema@.broken_parked_tasks() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return query
    select 'I3', t.job_id, t.task, 'the task waits for nothing that exists'
      from tasks as t
     where t.due_at = 'infinity'
       and t.stuck_reason is null
       and t.name <> '$schedule'
       and t.awaits is null
    union all
    -- Many thousands may wait. What they wait for is joined in one pass, and even a plan that takes them one by one has an
    -- index: that of the job, or that of tasks of other jobs.
    select 'I3', t.job_id, t.task, 'the task waits for nothing that exists'
      from tasks as t
     where t.due_at = 'infinity'
       and t.stuck_reason is null
       and t.name <> '$schedule'
       and t.awaits = '{}'
       and not exists (
        select
          from tasks as asked
         where asked.job_id = t.job_id
           and asked.asker_job = t.job_id
           and asked.asker_task = t.task
           and not (asked.signal is not null and is_answered(asked.asker_job, asked.asker_task, asked.asker_key)))
       and not exists (
        select
          from tasks as child
         where child.asker_job = t.job_id
           and child.asker_task = t.task
           and child.asker_job <> child.job_id)
       and not exists (select from conditions as c where c.job_id = t.job_id and c.task = t.task)
       and not exists (select from items as p where p.job_id = t.job_id and p.task = t.task and p.is_open)
    union all
    select 'I5', t.job_id, t.task, 'a parked task has open messages'
      from tasks as t
     where t.token is null
       and t.stuck_reason is null
       and t.due_at > now_at
       and (t.awaits is not null and open_messages(t.job_id, t.task, t.awaits) is not null
            or not (t.awaits is null and lacked_code_or_key(t.failure))
               and exists (
                select
                  from inbox as i
                 where i.job_id = t.job_id and i.task = t.task and i.key = '$cancel' and i.consumed_at is null));
end
$$;
comment on function @extschema@.broken_parked_tasks() is
    'Find tasks that wait for nothing (I3), or sleep although messages are open (I5).';


create function @extschema@.broken_families() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I12', j.id, null::text,
           format('the task of job %s that asked for it has ended, and nothing is left to %s it', j.parent, j.on_parent_end)
      from jobs as j
     where j.status = 'running'
       and j.on_parent_end in ('cancel', 'terminate')
       and not exists (
        select
          from tasks as t
         where t.job_id = j.parent
           and (starts_with(j.asked_as, t.task || '/') or starts_with('$parent_end/' || j.asked_as, t.task || '/')));
end
$$;
comment on function @extschema@.broken_families() is
    'Find children that should have ended with the task that asked for them, and that nobody will end (I12).';


create function @extschema@.broken_queues() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I16', t.job_id, t.task, case when t.paused then 'a task is paused but its job is not'
                                         else 'a job is paused but its task is not' end
      from tasks as t
      join jobs as j on j.id = t.job_id
     where t.paused <> j.paused
       and not (j.paused and left(t.name, 1) = '$' and t.name <> '$schedule')
    union all
    select 'I13', t.job_id, t.task,
           case when q.rate_per_key is null then format('the task stands in line, but queue %s has no limit per key', t.queue)
                else format('the task stands in line under key %s, which has no line', quote_literal(t.limit_key)) end
      from tasks as t
      left join queues as q on q.queue = versioned_queue(t.queue, null)
     where t.in_line
       and case when q.rate_per_key is null then q.max_per_key is null
                else not t.paused
                     and not exists (
                        select
                          from lines as l
                         where l.queue = t.queue
                           and l.priority = t.priority
                           and l.limit_key = t.limit_key) end
    union all
    select 'I15', null, null, format('queue %s has %s slots, but %s tasks are held', q.queue, q.max_running, count(*))
      from queues as q
      join tasks as t on versioned_queue(t.queue, null) = q.queue and t.token is not null
     where q.has_claimed
     group by q.queue
    having count(*) > q.max_running;
end
$$;
comment on function @extschema@.broken_queues() is
    'Find tasks whose pause differs from that of their job (I16) or that no claim finds (I13), and queues that have given out more slots than they have since their limits were set (I15).';


create function @extschema@.broken_schedules() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return query
    select 'I23', coalesce(s.id, t.job_id), t.task,
           case when t.task is null then 'a schedule has no task'
                when s.id is null then 'a task follows a schedule that does not exist'
                when not s.watched then 'the writers of a schedule do not check it'
                else format('a schedule sleeps until %s over what is due at %s', t.due_at, t.until) end
      from (select j.id, j.context, j.watched from jobs as j where j.entity = '$schedule') as s
      full join (select * from tasks as k where k.name = '$schedule') as t on s.id = t.job_id
     where t.task is null
        or s.id is null
        or not s.watched
        or t.token is null
           and t.stuck_reason is null
           and (s.context -> 'paused' = 'true') is not true
           and (t.due_at > now_at and t.due_at > t.until) is not false;
end
$$;
comment on function @extschema@.broken_schedules() is
    'Find schedules without a task, tasks without a schedule, and schedules that would sleep past their due time (I23).';
