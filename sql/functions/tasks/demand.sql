-- Tasks, in demand: whether something waits in a queue, and whether its limits have room for it. Nothing is locked: the
-- answer says when to look, and whom to notify.

create function @extschema@.priorities_in_line(queue text) returns smallint[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select l.priority
          from generate_series(0, 9) as p (priority)
         cross join lateral (
            select t.priority
              from tasks as t
             where t.queue = priorities_in_line.queue
               and t.priority = p.priority
               and t.in_line
               and not t.paused
             order by t.limit_key
             limit 1
         ) as l
         order by p.priority);
end
$$;
comment on function @extschema@.priorities_in_line(text) is
    'Return the priorities of tasks of a queue that stand in line, best first.';


-- One exact range for each priority, as a claim reads them; a plain `exists` is planned as a hash of all that wait.
create function @extschema@.has_free_task(queue text, now_at timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select count(*) > 0
          from (select
                  from generate_series(0, 9) as p (priority)
                 cross join lateral (
                    select
                      from tasks as t
                     where t.queue = has_free_task.queue
                       and t.priority = p.priority
                       and t.due_at <= has_free_task.now_at
                       and t.due_at < 'infinity'
                       and not t.paused
                       and not t.in_line
                       and t.token is null
                     order by t.due_at
                     limit 1
                 ) as d
                 limit 1) as w);
end
$$;
comment on function @extschema@.has_free_task(text, timestamptz) is
    'Tell whether a task of a queue is due that nobody holds and that stands in no line.';


create function @extschema@.has_due_task(queue text, now_at timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return priorities_in_line(has_due_task.queue) <> '{}' or has_free_task(has_due_task.queue, has_due_task.now_at);
end
$$;
comment on function @extschema@.has_due_task(text, timestamptz) is
    'Tell whether a task of a queue is due that nobody holds.';


-- Tasks that are pinned to a version are on a queue of their own, directly behind in the order of names: `llm`, `llm@v2`.
create function @extschema@.slots_taken(queue text, max_slots integer) returns integer
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if slots_taken.max_slots is null then
        return null;
    end if;
    return (
        select count(*)
          from (select from tasks as t where t.queue = slots_taken.queue and t.worker is not null
                 union all
                select
                  from tasks as t
                 where t.queue > slots_taken.queue || '@'
                   and t.queue < slots_taken.queue || 'A'
                   and t.worker is not null
                 limit slots_taken.max_slots) as h);
end
$$;
comment on function @extschema@.slots_taken(text, integer) is
    'Count the held tasks of a queue, of all versions, up to as many as matter; null if any number may be held.';


create function @extschema@.slots_taken_by_key(queue text, limit_key text, max_slots integer) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if slots_taken_by_key.max_slots is null then
        return null;
    end if;
    return (
        select count(*)
          from (select
                  from tasks as t
                 where t.queue = slots_taken_by_key.queue
                   and t.limit_key = slots_taken_by_key.limit_key
                   and t.worker is not null
                 union all
                select
                  from tasks as t
                 where t.queue > slots_taken_by_key.queue || '@'
                   and t.queue < slots_taken_by_key.queue || 'A'
                   and t.limit_key = slots_taken_by_key.limit_key
                   and t.worker is not null
                 limit slots_taken_by_key.max_slots) as h);
end
$$;
comment on function @extschema@.slots_taken_by_key(text, text, integer) is
    'Count the held tasks of a queue under a limit key, of all versions, up to as many as matter; null if any number may be held.';


-- From key to key by the index, to the first with room. A due task that stands in no line yet counts as one: the next
-- claim puts it in line.
create function @extschema@.has_admissible_task(queue text, max_per_key integer, now_at timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return has_free_task(has_admissible_task.queue, has_admissible_task.now_at) or (
        with recursive walk as (
            select f.*
              from generate_series(0, 9) as p (priority)
             cross join lateral (
                select t.priority, t.limit_key
                  from tasks as t
                 where t.queue = has_admissible_task.queue
                   and t.priority = p.priority
                   and t.in_line
                   and not t.paused
                 order by t.limit_key
                 limit 1
             ) as f
             union all
            select n.*
              from walk as w
             cross join lateral (
                select t.priority, t.limit_key
                  from tasks as t
                 where t.queue = has_admissible_task.queue
                   and t.priority = w.priority
                   and t.limit_key > w.limit_key
                   and t.in_line
                   and not t.paused
                 order by t.limit_key
                 limit 1
             ) as n
        )
        select count(*) > 0
          from (select
                  from walk as w
                 where slots_taken_by_key(versioned_queue(has_admissible_task.queue, null), w.limit_key,
                                          has_admissible_task.max_per_key) < has_admissible_task.max_per_key
                 limit 1) as r);
end
$$;
comment on function @extschema@.has_admissible_task(text, integer, timestamptz) is
    'Tell whether a task of a queue with a limit per key is due that nobody holds and for whose key there is room.';
