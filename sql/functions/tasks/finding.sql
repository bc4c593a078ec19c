-- Tasks, found: the due tasks of a queue with limits. They are locked, and skipped if somebody else has locked them. In a
-- queue with a limit per key, due tasks stand in line under their keys, and are found by them.

create function @extschema@.find_expired(queue text, max_tasks integer, now_at timestamptz)
returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, true, t.ctid)::due_task
          from tasks as t
         where t.queue = find_expired.queue
           and t.worker is not null
           and t.due_at <= find_expired.now_at
           and not t.is_suspect
           and not t.paused
         order by t.priority, t.due_at
         limit find_expired.max_tasks
           for no key update skip locked);
end
$$;
comment on function @extschema@.find_expired(text, integer, timestamptz) is
    'Lock tasks of a queue whose leases have ended and that are no suspects, best first: they still have their slots.';


create function @extschema@.find_free(queue text, max_tasks integer, now_at timestamptz)
returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select d.task
          from generate_series(0, 9) as p (priority)
         cross join lateral (
            select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, false, t.ctid)::due_task as task
              from tasks as t
             where t.queue = find_free.queue
               and t.priority = p.priority
               and t.due_at <= find_free.now_at
               and t.due_at < 'infinity'
               and not t.paused
               and not t.in_line
               and t.token is null
             order by t.due_at
             limit find_free.max_tasks
               for no key update skip locked
         ) as d
         limit find_free.max_tasks);
end
$$;
comment on function @extschema@.find_free(text, integer, timestamptz) is
    'Lock tasks of a queue that are due and that nobody holds, best first.';


-- A task that has become due is put in line once, a thousand at a time, best first; from then on, claims find it by its
-- key, or by its line. Two statements: a single one would update rows as they were before they were locked, and check
-- constraints with that.
create function @extschema@.put_in_line(queue text, limits @extschema@.queue_limits, now_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    due due_task[] := find_free(put_in_line.queue, 1000, put_in_line.now_at);
begin
    if due <> '{}' then
        -- One look-up by primary key for each, whatever the statistics say: locked rows are found by their places.
        with found as materialized (
            select f.place
              from unnest(due) as d
             cross join lateral (
                select h.ctid as place
                  from tasks as h
                 where h.job_id = d.job
                   and h.task = d.task
                   for no key update
             ) as f
        )
        update tasks as t set in_line = true from found as f where t.ctid = f.place;
        perform open_lines(due, put_in_line.now_at) where limits.rate_per_key is not null;
        perform touch_queue(put_in_line.queue, put_in_line.now_at);
    end if;
end
$$;
comment on function @extschema@.put_in_line(text, @extschema@.queue_limits, timestamptz) is
    'Put due tasks of a queue with limits per key in line under their keys.';


create function @extschema@.take_out_of_line(queue text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- In order: whoever ends or pauses a job locks its tasks too.
    perform
       from tasks as t
      where t.in_line
        and (t.queue = take_out_of_line.queue or t.queue > take_out_of_line.queue || '@' and t.queue < take_out_of_line.queue || 'A')
      order by t.job_id, t.task
        for no key update;
    update tasks as t
       set in_line = false
     where t.in_line
       and (t.queue = take_out_of_line.queue or t.queue > take_out_of_line.queue || '@' and t.queue < take_out_of_line.queue || 'A');
    perform remove_lines(take_out_of_line.queue);
end
$$;
comment on function @extschema@.take_out_of_line(text) is
    'Let the tasks of a queue without a limit per key be found by their time again.';


-- Keys take turns: the walk begins behind the key that was served last, steps from key to key by the index, and returns
-- to where it began. It ends as soon as enough is found; a key without room costs one step.
create function @extschema@.find_by_key(
    queue      text,
    limits     @extschema@.queue_limits,
    level      smallint,
    chosen     @extschema@.due_task[],
    max_tasks  integer
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        with recursive walk as (
            select limits.last_key collate "C" as limit_key, 0 as lap, false as is_there
             union all
            select n.limit_key, n.lap, true
              from walk as w
             cross join lateral (
                (select t.limit_key, w.lap
                   from tasks as t
                  where t.queue = find_by_key.queue
                    and t.priority = find_by_key.level
                    and t.limit_key > w.limit_key
                    and t.in_line
                    and not t.paused
                  order by t.limit_key
                  limit 1)
                 union all
                (select t.limit_key, 1
                   from tasks as t
                  where w.lap = 0
                    and t.queue = find_by_key.queue
                    and t.priority = find_by_key.level
                    and t.in_line
                    and not t.paused
                  order by t.limit_key
                  limit 1)
                 order by lap
                 limit 1) as n
             where n.lap = 0
                or n.limit_key <= limits.last_key
        )
        select d.task
          from walk as w
         cross join lateral (
            select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, false, t.ctid)::due_task as task
              from tasks as t
             where t.queue = find_by_key.queue
               and t.priority = find_by_key.level
               and t.limit_key = w.limit_key
               and t.in_line
               and not t.paused
             order by t.due_at
             limit greatest(0, limits.max_per_key - slots_taken_by_key(limits.queue, w.limit_key, limits.max_per_key)
                               - (select count(*) from unnest(find_by_key.chosen) as c where c.limit_key = w.limit_key))
               for no key update skip locked
         ) as d
         where w.is_there
         limit find_by_key.max_tasks);
end
$$;
comment on function @extschema@.find_by_key(text, @extschema@.queue_limits, smallint, @extschema@.due_task[], integer) is
    'Lock tasks of one priority that stand in line and for whose keys there is room.';
