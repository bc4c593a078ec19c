-- Lines: the turns of keys in queues with a rate per key. A claim must not walk over the keys that have no token, of which
-- there may be many more than it takes tasks. So the tasks of one priority under a key make a line, the line knows from
-- when on its key may have a token, and claims read lines by that time. The claim that finds a line too early puts it
-- where it belongs, and removes it if it is empty. All of it happens under the lock of the queue. [P6] [P8]
--
-- Lines are read by the index of their turns, whatever the statistics say: to sort them, all would be read first.

create function @extschema@.is_in_line(queue text, priority smallint, limit_key text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from tasks as t
         where t.queue = is_in_line.queue
           and t.priority = is_in_line.priority
           and t.limit_key = is_in_line.limit_key
           and t.in_line
           and not t.paused);
end
$$;
comment on function @extschema@.is_in_line(text, smallint, text) is 'Tell whether tasks of a priority stand in line under a key.';


create function @extschema@.open_lines(due @extschema@.due_task[], opened_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into lines (queue, priority, limit_key, turn_at)
    select distinct d.queue, d.priority, d.limit_key, open_lines.opened_at
      from unnest(open_lines.due) as d
        on conflict on constraint keys_stand_in_one_line do nothing;
end
$$;
comment on function @extschema@.open_lines(@extschema@.due_task[], timestamptz) is
    'Give a line to tasks that were put in line, if there is none: it is its turn after those that were there before.';


create function @extschema@.remove_lines(queue text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from lines as l
     where l.queue = remove_lines.queue
        or l.queue > remove_lines.queue || '@' and l.queue < remove_lines.queue || 'A';
end
$$;
comment on function @extschema@.remove_lines(text) is
    'Remove all lines of a queue, of all versions, whose tasks are taken out of line.';


-- Nobody may claim for an old version again and remove what its tasks have left, once they were repinned or have ended.
create function @extschema@.remove_lines_of_old_versions(queue text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wanted text[] := array(
        select distinct t.queue
          from tasks as t
         where t.queue > remove_lines_of_old_versions.queue || '@'
           and t.queue < remove_lines_of_old_versions.queue || 'A'
           and t.in_line
           and not t.paused);
begin
    delete from lines as l
     where l.queue > remove_lines_of_old_versions.queue || '@'
       and l.queue < remove_lines_of_old_versions.queue || 'A'
       and l.queue <> all(wanted);
end
$$;
comment on function @extschema@.remove_lines_of_old_versions(text) is
    'Remove the lines of those versions of a queue of which no task stands in line.';


create function @extschema@.place_line(queue text, priority smallint, limit_key text, turn_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if is_in_line(place_line.queue, place_line.priority, place_line.limit_key) then
        update lines as l
           set turn_at = place_line.turn_at
         where l.queue = place_line.queue
           and l.priority = place_line.priority
           and l.limit_key = place_line.limit_key;
    else
        delete from lines as l
         where l.queue = place_line.queue
           and l.priority = place_line.priority
           and l.limit_key = place_line.limit_key;
    end if;
end
$$;
comment on function @extschema@.place_line(text, smallint, text, timestamptz) is
    'Say when it is the turn of a line again, or remove it if it is empty.';


create function @extschema@.recount_turns(
    queue          text,
    rate_per_key   numeric,
    burst_per_key  numeric,
    counted_at     timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update lines as l
       set turn_at = tokens_come_at(
               1, tokens_of_key(recount_turns.queue, l.limit_key, recount_turns.rate_per_key, recount_turns.burst_per_key,
                                recount_turns.counted_at),
               recount_turns.rate_per_key, recount_turns.counted_at)
     where l.turn_at > recount_turns.counted_at
       and (l.queue = recount_turns.queue or l.queue > recount_turns.queue || '@' and l.queue < recount_turns.queue || 'A');
end
$$;
comment on function @extschema@.recount_turns(text, numeric, numeric, timestamptz) is
    'Say anew when it is the turn of the lines of a queue, of all versions, after a change of the rate or of the clock.';


create function @extschema@.take_turn(
    queue      text,
    limits     @extschema@.queue_limits,
    level      smallint,
    limit_key  text,
    chosen     @extschema@.due_task[],
    max_tasks  integer,
    now_at     timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    tokens numeric := tokens_of_key(limits.queue, take_turn.limit_key, limits.rate_per_key, limits.burst_per_key, take_turn.now_at);
    before bigint := (select count(*) from unnest(take_turn.chosen) as c where c.limit_key = take_turn.limit_key);
    taken due_task[];
begin
    taken := array(
        select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, false, t.ctid)::due_task
          from tasks as t
         where t.queue = take_turn.queue
           and t.priority = take_turn.level
           and t.limit_key = take_turn.limit_key
           and t.in_line
           and not t.paused
         order by t.due_at
         limit greatest(0, least(take_turn.max_tasks, floor(tokens) - before,
                                 limits.max_per_key - before
                                 - slots_taken_by_key(limits.queue, take_turn.limit_key, limits.max_per_key)))
           for no key update skip locked);
    if taken = '{}' then
        perform place_line(take_turn.queue, take_turn.level, take_turn.limit_key,
                           tokens_come_at(1, tokens, limits.rate_per_key, take_turn.now_at))
          where tokens < 1
             or not is_in_line(take_turn.queue, take_turn.level, take_turn.limit_key);
    end if;
    return taken;
end
$$;
comment on function @extschema@.take_turn(text, @extschema@.queue_limits, smallint, text, @extschema@.due_task[], integer, timestamptz) is
    'Lock tasks of a line for which its key has tokens and slots; if there are none, say when it is its turn again.';


create function @extschema@.find_in_turn(
    queue      text,
    limits     @extschema@.queue_limits,
    level      smallint,
    chosen     @extschema@.due_task[],
    max_tasks  integer,
    now_at     timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    return array(
        select d
          from (select l.limit_key
                  from lines as l
                 where l.queue = find_in_turn.queue
                   and l.priority = find_in_turn.level
                   and l.turn_at <= find_in_turn.now_at
                 order by l.turn_at, l.limit_key) as l
         cross join lateral unnest(take_turn(find_in_turn.queue, limits, find_in_turn.level, l.limit_key, find_in_turn.chosen,
                                             find_in_turn.max_tasks, find_in_turn.now_at)) as d
         limit find_in_turn.max_tasks);
end
$$;
comment on function @extschema@.find_in_turn(text, @extschema@.queue_limits, smallint, @extschema@.due_task[], integer, timestamptz) is
    'Lock tasks of one priority that stand in line and whose keys have tokens and slots, those first whose turn has come first.';


create function @extschema@.has_ready_line(queue text, max_per_key integer, now_at timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    return (
        select count(*) > 0
          from (select
                  from generate_series(0, 9) as p (priority)
                 cross join lateral (
                    select
                      from lines as l
                     where l.queue = has_ready_line.queue
                       and l.priority = p.priority
                       and l.turn_at <= has_ready_line.now_at
                       and is_in_line(l.queue, l.priority, l.limit_key)
                       and (has_ready_line.max_per_key is null
                            or slots_taken_by_key(versioned_queue(l.queue, null), l.limit_key, has_ready_line.max_per_key)
                               < has_ready_line.max_per_key)
                     order by l.turn_at, l.limit_key
                     limit 1
                 ) as r
                 limit 1) as w);
end
$$;
comment on function @extschema@.has_ready_line(text, integer, timestamptz) is
    'Tell whether it is the turn of a line whose key has a slot.';


-- Of a hundred lines the last counts even if it is empty, so that nobody reads all lines that a mass of ended jobs has
-- left: a claim at that time removes these.
create function @extschema@.next_turn_at(queue text, now_at timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    return (
        select min(f.turn_at)
          from generate_series(0, 9) as p (priority)
         cross join lateral (
            select n.turn_at
              from (select l.*, row_number() over (order by l.turn_at, l.limit_key) as place
                      from lines as l
                     where l.queue = next_turn_at.queue
                       and l.priority = p.priority
                       and l.turn_at > next_turn_at.now_at
                     order by l.turn_at, l.limit_key
                     limit 100) as n
             where n.place = 100
                or is_in_line(n.queue, n.priority, n.limit_key)
             order by n.turn_at
             limit 1
         ) as f);
end
$$;
comment on function @extschema@.next_turn_at(text, timestamptz) is
    'Return when the next key of a queue gets a token for which its tasks wait in line; null if none wait for one.';
