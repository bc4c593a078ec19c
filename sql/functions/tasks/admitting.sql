-- Tasks, admitted: for which tasks of queues with limits there is room. A slot is a held task, so parking, finishing or
-- giving back a task frees its slot, and nothing else has to record that. The row of the queue is locked before.

create function @extschema@.choose_best(due @extschema@.due_task[], queues text[], max_tasks integer)
returns @extschema@.due_task[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (d.job, d.task, d.queue, d.priority, d.due_at, d.limit_key, d.deliveries, d.is_held, d.place)::due_task
          from unnest(choose_best.due) with ordinality as d
         order by d.priority, array_position(choose_best.queues, d.queue), d.due_at, d.ordinality
         limit choose_best.max_tasks);
end
$$;
comment on function @extschema@.choose_best(@extschema@.due_task[], text[], integer) is
    'Choose among tasks of several queues: by priority, then in the order of the queues, then by time.';


create function @extschema@.find_admissible(
    limits  @extschema@.queue_limits,
    queues  text[],
    room    integer,
    now_at  timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    by_key boolean := coalesce(limits.max_per_key, limits.rate_per_key) is not null;
    chosen due_task[] := '{}'::due_task[];
    missing integer;
    served text;
begin
    foreach served in array find_admissible.queues loop
        if not by_key then
            chosen := chosen || find_free(served, find_admissible.room, find_admissible.now_at);
        else
            perform put_in_line(served, limits, find_admissible.now_at);
        end if;
    end loop;
    if not by_key then
        return choose_best(chosen, find_admissible.queues, find_admissible.room);
    end if;
    if limits.rate_per_key is not null and limits.claimed_at > find_admissible.now_at then
        perform recount_turns(limits.queue, limits.rate_per_key, limits.burst_per_key, find_admissible.now_at);
        perform touch_queue(limits.queue, find_admissible.now_at);
    end if;
    -- Loops: tasks with a better priority take the slots of their key first.
    for level in 0 .. 9 loop
        foreach served in array find_admissible.queues loop
            missing := find_admissible.room - cardinality(chosen);
            exit when missing <= 0;
            chosen := chosen || case when limits.rate_per_key is null
                                     then find_by_key(served, limits, level::smallint, chosen, missing)
                                     else find_in_turn(served, limits, level::smallint, chosen, missing,
                                                       find_admissible.now_at) end;
        end loop;
    end loop;
    return chosen;
end
$$;
comment on function @extschema@.find_admissible(@extschema@.queue_limits, text[], integer, timestamptz) is
    'Lock tasks for which a queue with limits has room, of the versions that are served.';


create function @extschema@.choose_due(
    queues      text[],
    restricted  text[],
    limits      @extschema@.queue_limits[],
    max_tasks   integer,
    now_at      timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    chosen due_task[] := '{}'::due_task[];
    -- A queue that is named twice would be searched twice, and pay twice.
    named text[] := array(
        select u.queue from unnest(choose_due.queues) with ordinality as u (queue, place) group by u.queue order by min(u.place));
    locked text[] := array(select l.queue from unnest(choose_due.limits) as l);
    it queue_limits;
    room integer;
    served text;
begin
    -- Loops: each queue with limits has room of its own; queues without limits compete with them.
    foreach it in array choose_due.limits loop
        room := least(choose_due.max_tasks, it.max_running - slots_taken(it.queue, it.max_running),
                      floor(tokens_at(it.tokens, it.rate_per_second, it.burst, it.claimed_at, choose_due.now_at)));
        if room > 0 then
            chosen := chosen || find_admissible(
                it, array(select q from unnest(named) as q where split_part(q, '@', 1) = it.queue),
                room, choose_due.now_at);
        end if;
    end loop;
    foreach served in array named loop
        if served <> all(choose_due.restricted) then
            chosen := chosen || find_free(served, choose_due.max_tasks, choose_due.now_at);
        elsif split_part(served, '@', 1) <> all(locked) then
            continue;
        end if;
        chosen := chosen || find_expired(served, choose_due.max_tasks, choose_due.now_at);
    end loop;
    return choose_best(chosen, named, choose_due.max_tasks);
end
$$;
comment on function @extschema@.choose_due(text[], text[], @extschema@.queue_limits[], integer, timestamptz) is
    'Choose the best tasks that may be claimed if some queues are paused or have limits: those for which there is room, and those that still have their slots.';


-- All versions of a queue share its slots, so the one that becomes free may be wanted by workers of another version. Those
-- for which somebody listens are looked at; the queues themselves are told in any case, since a worker may begin to listen
-- until the call ends.
create function @extschema@.queues_that_want_slots(queues text[], freed_at timestamptz) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (select from queues as q where coalesce(q.max_running, q.max_per_key) is not null) then
        return '{}'::text[];
    end if;
    return array(
        select v.queue
          from (select distinct split_part(u.queue, '@', 1) as queue
                  from unnest(queues_that_want_slots.queues) as u (queue)) as f
          join queues as q on q.queue = f.queue
         cross join lateral (
            select f.queue
             union
            select u.queue
              from unnest(queues_that_want_slots.queues) as u (queue)
             where split_part(u.queue, '@', 1) = f.queue
             union
            select l.topic from listeners as l where l.topic > f.queue || '@' and l.topic < f.queue || 'A') as v
         where coalesce(q.max_running, q.max_per_key) is not null
           and has_due_task(v.queue, queues_that_want_slots.freed_at)
         order by v.queue);
end
$$;
comment on function @extschema@.queues_that_want_slots(text[], timestamptz) is
    'Return the queues, of any version, of which tasks are due that may wait for a slot of these queues.';


create function @extschema@.freed_queues(turns @extschema@.turn[], freed_at timestamptz) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (select from queues as q where coalesce(q.max_running, q.max_per_key) is not null) then
        return '{}'::text[];
    end if;
    return queues_that_want_slots(array(
        select distinct h.queue
          from unnest(freed_queues.turns) as r
         cross join lateral (
            select t.queue
              from tasks as t
             where t.job_id = r.job
               and t.task >= r.task
               and t.task < r.task || '0'
               and t.token is not null
               and (t.task = r.task
                    or r.state in ('done', 'failed', 'cancelled', 'continue') and t.task > r.task || '/')
            offset 0) as h
         where r.state <> 'keep'), freed_queues.freed_at);
end
$$;
comment on function @extschema@.freed_queues(@extschema@.turn[], timestamptz) is
    'Return the queues, of any version, of which tasks may wait for slots that turns free; called before the turns are applied.';


create function @extschema@.next_token_at(queues text[], now_at timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select min(case when (l.tokens < 1) is not true then next_turn_at(l.queue, next_token_at.now_at)
                        when has_due_task(l.queue, next_token_at.now_at)
                        then tokens_come_at(1, l.tokens, l.rate_per_second, next_token_at.now_at) end)
          from (select u.queue, q.rate_per_second, q.rate_per_key,
                       slots_taken(q.queue, q.max_running) >= q.max_running as is_full,
                       tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, next_token_at.now_at) as tokens
                  from unnest(next_token_at.queues) as u (queue)
                  join queues as q on q.queue = split_part(u.queue, '@', 1)
                 where not q.paused) as l
         where l.tokens < 1
            or l.rate_per_key is not null and l.is_full is not true);
end
$$;
comment on function @extschema@.next_token_at(text[], timestamptz) is
    'Return when the next token, of a queue or of a key, comes for which tasks of these queues wait; null if none wait for one.';


-- Ten milliseconds: another claim has locked the row of the queue, and may leave something; or a token has come since
-- this claim counted them.
create function @extschema@.next_admission_at(queues text[], now_at timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return least(
        next_token_at(next_admission_at.queues, next_admission_at.now_at),
        (select next_admission_at.now_at + interval '10 ms'
           from unnest(next_admission_at.queues) as u (queue)
           join queues as q on q.queue = split_part(u.queue, '@', 1)
          where not q.paused
            and coalesce(q.max_running, q.max_per_key, q.rate_per_second, q.rate_per_key) is not null
            and (slots_taken(q.queue, q.max_running) < q.max_running) is not false
            and (tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, next_admission_at.now_at) >= 1) is not false
            and case when q.rate_per_key is not null
                     then has_free_task(u.queue, next_admission_at.now_at)
                          or has_ready_line(u.queue, q.max_per_key, next_admission_at.now_at)
                     when q.max_per_key is not null
                     then has_admissible_task(u.queue, q.max_per_key, next_admission_at.now_at)
                     else has_due_task(u.queue, next_admission_at.now_at) end
          limit 1));
end
$$;
comment on function @extschema@.next_admission_at(text[], timestamptz) is
    'Return when time alone will give queues with limits room for what is due; null if it will not.';
