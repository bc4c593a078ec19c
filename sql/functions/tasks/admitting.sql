-- Tasks, admitted: for which tasks of queues with limits there is room. A slot is a task that is held, so parking, finishing
-- or giving back a task sets its slot free, and nothing else has to remember it. The row of the queue is locked before.

create function @extschema@.find_admissible(
    limits     @extschema@.queue_limits[],
    queues     text[],
    max_tasks  integer,
    now_at     timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    all_chosen due_task[] := '{}'::due_task[];
    chosen due_task[];
    it queue_limits;
    place bigint;
    level smallint;
    room integer;
begin
    -- Loops: each queue has room of its own, and what waits with a better priority takes the slots of its key first.
    foreach it in array find_admissible.limits loop
        place := array_position(find_admissible.queues, it.queue);
        room := least(find_admissible.max_tasks, it.max_running - slots_taken(it.queue, it.max_running),
                      floor(tokens_at(it.tokens, it.rate_per_second, it.burst, it.claimed_at, find_admissible.now_at)));
        chosen := '{}';
        if room > 0 and it.max_per_key is null then
            chosen := find_free(it.queue, place, room, find_admissible.now_at);
        elsif room > 0 then
            perform stand_in_line(it.queue, find_admissible.now_at);
            foreach level in array priorities_in_line(it.queue) loop
                exit when cardinality(chosen) >= room;
                chosen := chosen || find_by_key(it, place, level, chosen, room - cardinality(chosen));
            end loop;
        end if;
        all_chosen := all_chosen || chosen || find_ended(it.queue, place, find_admissible.max_tasks, find_admissible.now_at);
    end loop;
    return all_chosen;
end
$$;
comment on function @extschema@.find_admissible(@extschema@.queue_limits[], text[], integer, timestamptz) is
    'Lock tasks of queues with limits that may be claimed now: those for which there is room, and those whose leases have ended.';


create function @extschema@.choose_due(
    queues      text[],
    restrained  text[],
    limits      @extschema@.queue_limits[],
    max_tasks   integer,
    now_at      timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    chosen due_task[] := find_admissible(limits, choose_due.queues, choose_due.max_tasks, choose_due.now_at);
    open record;
begin
    -- A loop: queues without limits are looked at as those with limits are, and compete with them.
    for open in
        select q.queue, q.place
          from unnest(choose_due.queues) with ordinality as q (queue, place)
         where q.queue <> all(choose_due.restrained)
         order by q.place
    loop
        chosen := chosen || find_free(open.queue, open.place, choose_due.max_tasks, choose_due.now_at)
                         || find_ended(open.queue, open.place, choose_due.max_tasks, choose_due.now_at);
    end loop;
    return array(
        select (c.job, c.task, c.queue, c.priority, c.place, c.due_at, c.limit_key, c.deliveries, c.is_held)::due_task
          from unnest(chosen) with ordinality as c
         order by c.priority, c.place, c.due_at, c.ordinality
         limit choose_due.max_tasks);
end
$$;
comment on function @extschema@.choose_due(text[], text[], @extschema@.queue_limits[], integer, timestamptz) is
    'Choose among the tasks that are due in several queues, some of which are paused or have limits: by priority, then in the order of the queues.';


create function @extschema@.freed_queues(turns @extschema@.turn[], freed_at timestamptz) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (select from queues as q where coalesce(q.max_running, q.max_per_key) is not null) then
        return '{}'::text[];
    end if;
    return array(
        select f.queue
          from (select distinct t.queue
                  from unnest(freed_queues.turns) as r
                  join tasks as t
                    on t.job_id = r.job
                   and t.token is not null
                   and (t.task = r.task or (r.state in ('done', 'failed', 'cancelled', 'continue')
                                            and t.task > r.task || '/' and t.task < r.task || '0'))
                 where r.state <> 'keep') as f
          join queues as q on q.queue = f.queue
         where coalesce(q.max_running, q.max_per_key) is not null
           and is_wanted(f.queue, freed_queues.freed_at));
end
$$;
comment on function @extschema@.freed_queues(@extschema@.turn[], timestamptz) is
    'Name the queues with limits of which turns set a slot free while somebody waits for one; before the turns are applied.';


create function @extschema@.next_token_at(queues text[], now_at timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select min(next_token_at.now_at + (1 - l.tokens) / l.rate_per_second * interval '1 s')
          from (select q.queue, q.rate_per_second,
                       tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, next_token_at.now_at) as tokens
                  from queues as q
                 where q.queue = any(next_token_at.queues)
                   and not q.paused) as l
         where l.tokens < 1
           and is_wanted(l.queue, next_token_at.now_at));
end
$$;
comment on function @extschema@.next_token_at(text[], timestamptz) is
    'Tell when the next token comes for which tasks of these queues wait; null when none wait for one.';


-- Ten milliseconds: another claim has the row of the queue locked, and may leave something.
create function @extschema@.next_admission_at(queues text[], now_at timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return least(
        next_token_at(next_admission_at.queues, next_admission_at.now_at),
        (select next_admission_at.now_at + interval '10 ms'
           from queues as q
          where q.queue = any(next_admission_at.queues)
            and not q.paused
            and q.max_per_key is null
            and coalesce(q.max_running, q.rate_per_second) is not null
            and (slots_taken(q.queue, q.max_running) < q.max_running) is not false
            and (tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, next_admission_at.now_at) >= 1) is not false
            and is_wanted(q.queue, next_admission_at.now_at)
          limit 1));
end
$$;
comment on function @extschema@.next_admission_at(text[], timestamptz) is
    'Tell when queues with limits will have room for what is due, as far as time alone decides; null when it does not.';
