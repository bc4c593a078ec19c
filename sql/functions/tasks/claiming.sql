-- Tasks, claimed: how they come to be, and how workers take them. Claiming sets due_at to the end of the lease, so a
-- crash needs no recovery: the task is due again.

create function @extschema@.insert_coordinators(
    wanted      @extschema@.new_job[],
    made        text[],
    started_at  timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into tasks (job_id, task, kind, name, queue, priority, due_at, pinned_version, limit_key, paused, asker_job,
                       asker_task, asker_key)
    select w.id, j.run || '/main', 'coordinator', w.workflow, versioned_queue(w.queue, w.pinned_version), w.priority,
           coalesce(w.due_at, insert_coordinators.started_at), w.pinned_version, coalesce(w.limit_key, ''),
           j.paused,
           case when w.asker_key is not null then w.parent end,
           case when w.asker_key is not null then w.asker_task end, w.asker_key
      from unnest(insert_coordinators.wanted) as w
      join unnest(insert_coordinators.made) as n (id) on n.id = w.id
      join jobs as j on j.id = w.id
     where w.workflow is not null;
    -- Beneath the coordinator, so that it ends with the run; a run that goes on takes it along.
    insert into tasks (job_id, task, kind, name, queue, due_at)
    select w.id, j.run || '/main/$deadline', 'hook', '$deadline', '$sql',
           coalesce(w.due_at, insert_coordinators.started_at) + w.timeout
      from unnest(insert_coordinators.wanted) as w
      join unnest(insert_coordinators.made) as n (id) on n.id = w.id
      join jobs as j on j.id = w.id
     where w.timeout is not null;
end
$$;
comment on function @extschema@.insert_coordinators(@extschema@.new_job[], text[], timestamptz) is
    'Make the first task of each run that was begun, and its deadline.';


create function @extschema@.queues_of_starts(wanted @extschema@.new_job[]) returns text[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select versioned_queue(w.queue, w.pinned_version) from unnest(queues_of_starts.wanted) as w
         union
        select '$sql' from unnest(queues_of_starts.wanted) as w where w.timeout is not null);
end
$$;
comment on function @extschema@.queues_of_starts(@extschema@.new_job[]) is
    'Name the queues on which starts leave something: those of coordinators, and that of deadlines.';


create function @extschema@.insert_hook(
    id              text,
    task            text,
    name            text,
    args            jsonb,
    queue           text,
    priority        integer,
    due_at          timestamptz,
    limit_key       text,
    pinned_version  text
) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into tasks (job_id, task, kind, name, queue, priority, due_at, args, detached, pinned_version, limit_key, paused)
    values (insert_hook.id, insert_hook.task, 'hook', insert_hook.name,
            versioned_queue(insert_hook.queue, insert_hook.pinned_version), insert_hook.priority, insert_hook.due_at,
            insert_hook.args, true, insert_hook.pinned_version, coalesce(insert_hook.limit_key, ''),
            left(insert_hook.name, 1) <> '$' and is_paused(insert_hook.id))
        on conflict on constraint one_task_per_name do nothing;
    return found;
end
$$;
comment on function @extschema@.insert_hook(text, text, text, jsonb, text, integer, timestamptz, text, text) is
    'Make the task of a hook from outside; false when it exists.';


create function @extschema@.max_deliveries() returns integer
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce((select s.value::integer from settings as s where s.name = 'max_deliveries'), 20);
end
$$;
comment on function @extschema@.max_deliveries() is
    'Tell how often a task is claimed without a successful turn before it is parked as stuck.';


create function @extschema@.poison_reason() returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD305', 'TooManyDeliveries',
        format('the task was claimed %s times without a successful turn', max_deliveries()),
        'Each time its worker died or lost its lease.', 'Mend what kills the worker, then resume() the task.');
end
$$;
comment on function @extschema@.poison_reason() is 'Say why a task is parked that was delivered too often.';


-- One exact index range for each priority and queue, best first; the scan stops when it has enough. Where a queue has limits,
-- it is chosen before what may be claimed. A task that was delivered too often without progress is parked instead of given
-- out: it blocks nobody. [P10]
create function @extschema@.take_due(
    queues     text[],
    worker     text,
    token      uuid,
    max_tasks  integer,
    lease_for  interval,
    since      timestamptz
) returns @extschema@.claimed_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    restrained text[] := restrained_queues(take_due.queues);
    limits queue_limits[] := lock_limits(restrained);
    open text[] := case when restrained = '{}' then take_due.queues else '{}' end;
    taken_at timestamptz := clock();
    most integer := max_deliveries();
    chosen due_task[] := '{}'::due_task[];
    parked integer;
    taken claimed_task[];
begin
    -- A loop: where all that was found had to be parked, others may be due behind it.
    loop
        if restrained <> '{}' then
            chosen := choose_due(take_due.queues, restrained, limits, take_due.max_tasks, taken_at);
        end if;
        with found as materialized (
            select d.job_id, d.task, d.due_at, d.deliveries
              from (select p.priority, q.queue
                      from generate_series(0, 9) as p (priority)
                     cross join unnest(open) with ordinality as q (queue, place)
                     order by p.priority, q.place) as r
             cross join lateral (
                select t.job_id, t.task, t.due_at, t.deliveries
                  from tasks as t
                 where t.queue = r.queue
                   and t.priority = r.priority
                   and t.due_at >= take_due.since
                   and t.due_at <= taken_at
                   and t.due_at < 'infinity'
                   and not t.paused
                   and not t.in_line
                 order by t.due_at
                 limit take_due.max_tasks
                   for no key update skip locked
             ) as d
             limit take_due.max_tasks
        ), due as materialized (
            select f.*, f.deliveries >= most as is_poisoned from found as f
             union all
            select c.job, c.task, c.due_at, c.deliveries, c.deliveries >= most from unnest(chosen) as c
        ), taking as (
            update tasks as t
               set token = case when not d.is_poisoned then take_due.token end,
                   worker = case when not d.is_poisoned then take_due.worker end,
                   due_at = case when d.is_poisoned then 'infinity' else taken_at + take_due.lease_for end,
                   deliveries = t.deliveries + 1,
                   in_line = false,
                   started_at = coalesce(t.started_at, taken_at),
                   stuck_reason = case when d.is_poisoned then poison_reason() end
              from due as d
             where t.job_id = d.job_id
               and t.task = d.task
            returning t.*, d.due_at as was_due_at
        )
        select array_agg((g.job_id, g.task, g.kind, g.name, g.queue, g.position, g.args, g.deliveries, g.attempt, g.asked,
                          g.awaits, g.accept_changes, g.pinned_version, g.signal, g.asker_job, g.asker_task, g.asker_key,
                          g.started_at, g.told_at, coalesce(g.last_worker = g.worker, false), g.was_due_at,
                          g.progress)::claimed_task
                         order by g.priority, g.was_due_at)
               filter (where g.token is not null),
               count(*) filter (where g.token is null)
          into taken, parked
          from taking as g;
        exit when taken is not null or parked = 0;
    end loop;
    if limits <> '{}' and taken is not null then
        perform note_claims(limits, chosen, taken, taken_at);
    end if;
    return taken;
end
$$;
comment on function @extschema@.take_due(text[], text, uuid, integer, interval, timestamptz) is
    'Lease to a worker the tasks that are due, best first, within the limits of their queues.';


create function @extschema@.taken_before(queues text[], token uuid) returns @extschema@.claimed_task[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (t.job_id, t.task, t.kind, t.name, t.queue, t.position, t.args, t.deliveries, t.attempt, t.asked, t.awaits,
                t.accept_changes, t.pinned_version, t.signal, t.asker_job, t.asker_task, t.asker_key, t.started_at,
                t.told_at, false, null, t.progress)::claimed_task
          from tasks as t
         where t.queue = any(taken_before.queues)
           and t.token = taken_before.token);
end
$$;
comment on function @extschema@.taken_before(text[], uuid) is
    'Find what an earlier call with this token took and still holds. [P12]';


create function @extschema@.next_due_at(queues text[]) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
    restrained text[] := restrained_queues(next_due_at.queues);
    asleep text[] := case when restrained = '{}' then restrained else paused_queues(restrained) end;
    due_at timestamptz;
begin
    due_at := (
        select min(d.due_at)
          from unnest(next_due_at.queues) as q (queue)
         cross join generate_series(0, 9) as p (priority)
         cross join lateral (
            select t.due_at
              from tasks as t
             where t.queue = q.queue
               and t.priority = p.priority
               and t.due_at > now_at
               and t.due_at < 'infinity'
               and not t.paused
               and not t.in_line
             order by t.due_at
             limit 1
         ) as d
         where q.queue <> all(asleep));
    if restrained = '{}' then
        return due_at;
    end if;
    return least(due_at, next_admission_at(restrained, now_at));
end
$$;
comment on function @extschema@.next_due_at(text[]) is
    'Tell when to look for tasks of these queues again, as far as time alone decides; null when it does not.';
