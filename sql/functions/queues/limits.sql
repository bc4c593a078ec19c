-- Queues and their limits, as claims read them. A slot of a queue is a held task, nothing else: so there is no counter
-- that could be wrong, and a dead worker keeps its slots only until its tasks are claimed again. A claim from a queue
-- with limits locks the row of the queue, counts the held tasks, and takes as many as there is room for. It never waits
-- for that lock: a claim that misses it leaves the queue to the other claim. [P6] [P8]

-- Tokens that were counted later than now were counted before the clock was set back: one token comes at once, and the
-- claim that takes it counts anew. Otherwise the queue would have none until the clock has caught up.
create function @extschema@.tokens_at(
    tokens           numeric,
    rate_per_second  numeric,
    burst            numeric,
    counted_at       timestamptz,
    at               timestamptz
) returns numeric
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return least(tokens_at.burst, tokens_at.tokens + case
        when tokens_at.at < tokens_at.counted_at then 1
        else tokens_at.rate_per_second * extract(epoch from tokens_at.at - tokens_at.counted_at) end);
end
$$;
comment on function @extschema@.tokens_at(numeric, numeric, numeric, timestamptz, timestamptz) is
    'Return how many tokens a queue or a key has at a time, given how many it had when they were counted; null if its rate is not limited.';


-- Rounded up: at that time the tokens are there. No time holds what the lowest rate takes to fill the highest burst.
create function @extschema@.tokens_come_at(
    wanted           numeric,
    tokens           numeric,
    rate_per_second  numeric,
    at               timestamptz
) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    seconds numeric := greatest(0, tokens_come_at.wanted - tokens_come_at.tokens) / tokens_come_at.rate_per_second;
begin
    return case when seconds > 10000000000 then 'infinity'
                else tokens_come_at.at + ceil(seconds * 1000000) * interval '1 microsecond' end;
end
$$;
comment on function @extschema@.tokens_come_at(numeric, numeric, numeric, timestamptz) is
    'Return from when on there are as many tokens as are wanted, given how many there are at a time.';


create function @extschema@.tokens_of_key(
    queue          text,
    limit_key      text,
    rate_per_key   numeric,
    burst_per_key  numeric,
    at             timestamptz
) returns numeric
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        (select tokens_at(k.tokens, tokens_of_key.rate_per_key, tokens_of_key.burst_per_key, k.counted_at, tokens_of_key.at)
           from key_tokens as k
          where k.queue = tokens_of_key.queue
            and k.limit_key = tokens_of_key.limit_key),
        tokens_of_key.burst_per_key);
end
$$;
comment on function @extschema@.tokens_of_key(text, text, numeric, numeric, timestamptz) is
    'Return how many tokens a key of a queue has at a time; null if the queue has no rate per key.';


create function @extschema@.lock_queue(queue text) returns @extschema@.queue_limits
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into queues (queue) values (lock_queue.queue) on conflict on constraint one_row_per_queue do nothing;
    return (
        select (q.queue, q.max_running, q.max_per_key, q.rate_per_second, q.burst, q.rate_per_key, q.burst_per_key,
                q.tokens, q.claimed_at, q.last_key)::queue_limits
          from queues as q
         where q.queue = lock_queue.queue
           for no key update);
end
$$;
comment on function @extschema@.lock_queue(text) is
    'Lock the row of a queue, creating it if needed, and read its limits.';


create function @extschema@.restricted_queues(queues text[]) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- Most apps have no limits at all, which one look shows.
    if not exists (
        select
          from queues as q
         where q.paused
            or coalesce(q.max_running, q.max_per_key, q.rate_per_second, q.rate_per_key) is not null) then
        return '{}'::text[];
    end if;
    return array(
        select u.queue
          from unnest(restricted_queues.queues) as u (queue)
          join queues as q on q.queue = split_part(u.queue, '@', 1)
         where q.paused
            or coalesce(q.max_running, q.max_per_key, q.rate_per_second, q.rate_per_key) is not null);
end
$$;
comment on function @extschema@.restricted_queues(text[]) is
    'Return those of these queues, of any version, that are paused or have limits.';


create function @extschema@.unpaused_queues(queues text[]) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select u.queue
          from unnest(unpaused_queues.queues) as u (queue)
         where not exists (select from queues as q where q.queue = split_part(u.queue, '@', 1) and q.paused));
end
$$;
comment on function @extschema@.unpaused_queues(text[]) is
    'Return those of these queues, of any version, that are not paused.';


create function @extschema@.lock_limits(queues text[]) returns @extschema@.queue_limits[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if lock_limits.queues = '{}' then
        return '{}'::queue_limits[];
    end if;
    return array(
        select (q.queue, q.max_running, q.max_per_key, q.rate_per_second, q.burst, q.rate_per_key, q.burst_per_key,
                q.tokens, q.claimed_at, q.last_key)::queue_limits
          from queues as q
         where q.queue = any(array(select split_part(u.queue, '@', 1) from unnest(lock_limits.queues) as u (queue)))
           and not q.paused
         order by q.queue
           for no key update skip locked);
end
$$;
comment on function @extschema@.lock_limits(text[]) is
    'Lock the rows of queues that are not paused, skipping those that another claim has locked; return their limits.';


-- Limits that are set with an older snapshot, which does not see who stands in line, are refused with 40001. A line that is
-- opened has the time of the clock, so whoever finds the clock set back must see it by the queue.
create function @extschema@.touch_queue(queue text, touched_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update queues as q
       set tokens = tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, touch_queue.touched_at),
           claimed_at = touch_queue.touched_at
     where q.queue = versioned_queue(touch_queue.queue, null);
end
$$;
comment on function @extschema@.touch_queue(text, timestamptz) is
    'Record in the locked row of a queue, of any version, that its lines have changed, and count its tokens.';


-- Written even if no tokens are counted: a claim with an older snapshot, which does not see what this one takes, is
-- refused with 40001.
create function @extschema@.record_claims(
    limits      @extschema@.queue_limits[],
    chosen      @extschema@.due_task[],
    claimed     @extschema@.claimed_task[],
    claimed_at  timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update queues as q
       set tokens = tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, record_claims.claimed_at) - g.used,
           has_claimed = true,
           claimed_at = record_claims.claimed_at,
           last_key = g.last_key
      from (select l.queue, count(*) as used, (array_agg(c.limit_key order by c.ordinality desc))[1] as last_key
              from unnest(record_claims.claimed) as t
              join unnest(record_claims.chosen) with ordinality as c on c.job = t.job and c.task = t.task
              join unnest(record_claims.limits) as l on l.queue = split_part(c.queue, '@', 1)
             where not c.is_held
             group by l.queue) as g
     where q.queue = g.queue;
end
$$;
comment on function @extschema@.record_claims(@extschema@.queue_limits[], @extschema@.due_task[], @extschema@.claimed_task[], timestamptz) is
    'Record what was claimed from queues with limits: the tokens that were taken, and which keys take turns.';
