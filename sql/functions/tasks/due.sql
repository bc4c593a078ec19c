-- Tasks, due: which tasks of queues may be claimed now, and when the next may be.

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
    'Return how often a task is claimed without a successful turn before it is parked as stuck.';


create function @extschema@.poison_reason() returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD305', 'TooManyDeliveries',
        format('the task was claimed %s times without a successful turn', max_deliveries()),
        'Each time its worker died or lost its lease.', 'Fix what kills the worker, then resume() the task.');
end
$$;
comment on function @extschema@.poison_reason() is 'Return the reason for parking a task that was delivered too often.';


-- One exact index range for each queue and priority in use, best first; the scan stops when it has enough. Steps from
-- priority to priority find the ranges: most queues have one. A step walks over all dead rows of a priority, so above a
-- low-water mark there are no steps: there every priority has its range.
create function @extschema@.find_due(
    queues         text[],
    max_tasks      integer,
    since          timestamptz,
    now_at         timestamptz,
    skip_suspects  boolean,
    out due        @extschema@.due_task[],
    out suspects   integer
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    steps boolean := find_due.since = '-infinity';
begin
    with recursive ranges as (
        select q.queue, q.place, p.priority, case when steps then 'infinity' else find_due.since end as due_at
          from unnest(find_due.queues) with ordinality as q (queue, place)
         cross join unnest(case when steps then '{-1}' else '{0,1,2,3,4,5,6,7,8,9}' end::smallint[]) as p (priority)
         union all
        select r.queue, r.place, f.*
          from ranges as r
         cross join lateral (
            select t.priority, t.due_at
              from tasks as t
             where t.queue = r.queue
               and t.priority > r.priority
               and t.due_at < 'infinity'
               and not t.paused
               and not t.in_line
             order by t.priority, t.due_at
             limit 1
         ) as f
         where steps
    )
    select coalesce(array_agg(f.task), '{}'), count(*) filter (where f.is_suspect)
      into due, suspects
      from (select d.*
              from (select * from ranges as r where r.due_at <= find_due.now_at order by r.priority, r.place) as r
             cross join lateral (
                select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, t.token is not null,
                        t.ctid)::due_task as task,
                       t.is_suspect
                  from tasks as t
                 where t.queue = r.queue
                   and t.priority = r.priority
                   and t.due_at >= r.due_at
                   and t.due_at <= find_due.now_at
                   and t.due_at < 'infinity'
                   and not t.paused
                   and not t.in_line
                   and not (t.is_suspect and find_due.skip_suspects)
                 order by t.due_at
                 limit find_due.max_tasks
                   for no key update skip locked
             ) as d
             limit find_due.max_tasks) as f;
end
$$;
comment on function @extschema@.find_due(text[], integer, timestamptz, timestamptz, boolean) is
    'Lock what is due on queues without limits, best first; return it, and how many suspects are among it, which with skip_suspects are not even searched.';


-- A statement of its own, after those that have locked: it sees the rows as they are now, so their places are still
-- right. A task that was delivered too often without progress is parked instead of given out, and blocks nobody. [P10]
create function @extschema@.lease_due(
    chosen       @extschema@.due_task[],
    worker       text,
    token        uuid,
    lease_for    interval,
    leased_at    timestamptz,
    out claimed  @extschema@.claimed_task[],
    out parked   integer
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    with taking as (
        update tasks as t
           set token = case when not d.is_poisoned then lease_due.token end,
               worker = case when not d.is_poisoned then lease_due.worker end,
               due_at = case when d.is_poisoned then 'infinity' else lease_due.leased_at + lease_due.lease_for end,
               deliveries = t.deliveries + 1,
               in_line = false,
               started_at = coalesce(t.started_at, lease_due.leased_at),
               stuck_reason = case when d.is_poisoned then poison_reason() end
          from (select c.place, c.due_at, c.deliveries > 0 and c.deliveries >= max_deliveries() as is_poisoned
                  from unnest(lease_due.chosen) as c
                offset 0) as d
         where t.ctid = d.place
        returning (t.job_id, t.task, t.kind, t.name, t.queue, t.position, t.args, t.deliveries, t.attempt, t.asked,
                   case when t.started_at <> lease_due.leased_at then coalesce(t.awaits, '{}') else t.awaits end,
                   t.accept_changes, t.pinned_version, t.signal, t.asker_job, t.asker_task, t.asker_key, t.started_at,
                   t.told_at, coalesce(t.last_worker = t.worker, false), d.due_at, t.progress)::claimed_task as task,
                  t.priority, d.due_at, d.is_poisoned
    )
    select array_agg(g.task order by g.priority, g.due_at) filter (where not g.is_poisoned),
           count(*) filter (where g.is_poisoned)
      into claimed, parked
      from taking as g;
end
$$;
comment on function @extschema@.lease_due(@extschema@.due_task[], text, uuid, interval, timestamptz) is
    'Lease tasks that were locked; return them, and how many were parked instead.';


-- If a step finds what is already due, it continues behind it, in the same priority. A task that has become due since the
-- caller's look is the next one.
create function @extschema@.next_due_at(queues text[], looked_at timestamptz default null) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := coalesce(next_due_at.looked_at, clock());
    restricted text[] := restricted_queues(next_due_at.queues);
    unpaused text[] := case when restricted = '{}' then next_due_at.queues else unpaused_queues(next_due_at.queues) end;
    due_at timestamptz;
begin
    if suspect_is_due(unpaused, now_at) then
        return now_at + interval '50 ms';
    end if;
    due_at := (
        with recursive ranges as (
            select q.queue, (-1)::smallint as priority, 'infinity'::timestamptz as due_at
              from unnest(unpaused) as q (queue)
             union all
            select r.queue, f.*
              from ranges as r
             cross join lateral (
                select t.priority, t.due_at
                  from tasks as t
                 where t.queue = r.queue
                   and (t.priority, t.due_at) > (case when r.due_at <= now_at then r.priority else r.priority + 1 end, now_at)
                   and t.due_at < 'infinity'
                   and not t.paused
                   and not t.in_line
                 order by t.priority, t.due_at
                 limit 1
             ) as f
        )
        -- After the year 9999 not every language has a date, and nobody would wait for it.
        select min(r.due_at) from ranges as r where r.due_at > now_at and r.due_at < '10000-01-01 00:00+00');
    if restricted = '{}' then
        return due_at;
    end if;
    return least(due_at, next_admission_at(restricted, now_at));
end
$$;
comment on function @extschema@.next_due_at(text[], timestamptz) is
    'Return when time alone requires to look for tasks of these queues again, after a look at a time or now; null if it does not.';
