-- The verbs of queues: limits and pauses. Each locks the row of the queue, as a claim does.

create function @extschema@.rate_failure(rate numeric, burst numeric, of_what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        case when not (coalesce(rate_failure.rate, 1) >= 0.000000001 and coalesce(rate_failure.rate, 1) <= 1000000) then make_failure(
            'PD107', 'InvalidArgument', format('%s a second is not a valid rate%s', rate_failure.rate, rate_failure.of_what),
            'A rate is at least 0.000000001 (one in thirty years) and at most 1000000.', 'Use null for no limit.') end,
        case when not (coalesce(rate_failure.burst, 1) between 1 and 1000000) then make_failure(
            'PD107', 'InvalidArgument', format('%s is not a valid burst%s', rate_failure.burst, rate_failure.of_what),
            'A burst is at least 1 and at most 1000000.', 'Leave it out to use what comes in a second.') end,
        case when rate_failure.burst is not null and rate_failure.rate is null then make_failure(
            'PD107', 'InvalidArgument', format('a burst%s needs a rate', rate_failure.of_what), 'No rate was given.',
            format('Give %s too.', case rate_failure.of_what when '' then 'rate_per_second' else 'rate_per_key' end)) end);
end
$$;
comment on function @extschema@.rate_failure(numeric, numeric, text) is
    'Return what is wrong with a rate or its burst (PD107), or null.';


create function @extschema@.limits_failure(
    queue            text,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    rate_per_key     numeric,
    burst_per_key    numeric
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        queue_failure(limits_failure.queue),
        case when least(limits_failure.max_running, limits_failure.max_per_key) < 1 then make_failure(
            'PD107', 'InvalidArgument', 'a limit of a queue must be at least 1',
            'The given limit is less.', 'Use null for no limit, or pause_queue() to let no task begin.') end,
        rate_failure(limits_failure.rate_per_second, limits_failure.burst, ''),
        rate_failure(limits_failure.rate_per_key, limits_failure.burst_per_key, ' per key'));
end
$$;
comment on function @extschema@.limits_failure(text, integer, integer, numeric, numeric, numeric, numeric) is
    'Return what is wrong with the limits of a queue: its name (PD104), or a number (PD107); or null.';


create function @extschema@.set_queue(
    queue            text,
    max_running      integer  default null,
    max_per_key      integer  default null,
    rate_per_second  numeric  default null,
    burst            numeric  default null,
    rate_per_key     numeric  default null,
    burst_per_key    numeric  default null
) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    full_burst numeric := case when set_queue.rate_per_second is not null
                               then coalesce(set_queue.burst, greatest(set_queue.rate_per_second, 1)) end;
    full_burst_per_key numeric := case when set_queue.rate_per_key is not null
                                       then coalesce(set_queue.burst_per_key, greatest(set_queue.rate_per_key, 1)) end;
    before queue_limits;
    limits_set_at timestamptz;
    tokens_left numeric;
begin
    perform raise_failure(limits_failure(set_queue.queue, set_queue.max_running, set_queue.max_per_key,
                                         set_queue.rate_per_second, set_queue.burst, set_queue.rate_per_key,
                                         set_queue.burst_per_key));
    before := lock_queue(set_queue.queue);
    limits_set_at := clock();
    -- A caller that sets the same limits again at each start gets no new tokens by that.
    tokens_left := coalesce(tokens_at(before.tokens, before.rate_per_second, before.burst, before.claimed_at, limits_set_at), full_burst);
    update queues as q
       set max_running = set_queue.max_running,
           max_per_key = set_queue.max_per_key,
           rate_per_second = set_queue.rate_per_second,
           burst = full_burst,
           rate_per_key = set_queue.rate_per_key,
           burst_per_key = full_burst_per_key,
           tokens = case when full_burst is not null then tokens_left end,
           has_claimed = false,
           claimed_at = limits_set_at
     where q.queue = set_queue.queue;
    perform change_key_rate(before, set_queue.rate_per_key, full_burst_per_key, limits_set_at);
    -- Claims find tasks in another way: those that stand in line must be found again.
    if (before.rate_per_key is null) <> (set_queue.rate_per_key is null)
        or coalesce(set_queue.max_per_key, set_queue.rate_per_key) is null and before.max_per_key is not null then
        perform take_out_of_line(set_queue.queue);
    end if;
    perform notify_listeners(array[set_queue.queue]);
end
$$;
comment on function @extschema@.set_queue(text, integer, integer, numeric, numeric, numeric, numeric) is
    'Limit how many tasks of a queue run at a time, and how many are claimed each second, both in total and for each limit_key. A limit that is left out is removed. Errors: PD104, PD107.';


create function @extschema@.pause_queue(queue text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform raise_failure(queue_failure(pause_queue.queue));
    perform lock_queue(pause_queue.queue);
    update queues as q set paused = true where q.queue = pause_queue.queue and not q.paused;
    return found;
end
$$;
comment on function @extschema@.pause_queue(text) is
    'Keep the tasks of a queue from workers; a task that is held continues. Return false if the queue was paused before. Errors: PD104.';


create function @extschema@.resume_queue(queue text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    update queues as q set paused = false where q.queue = resume_queue.queue and q.paused;
    if not found then
        return false;
    end if;
    perform notify_listeners(array[resume_queue.queue]);
    return true;
end
$$;
comment on function @extschema@.resume_queue(text) is
    'Give the tasks of a queue to workers again; return false if it was not paused.';


create function @extschema@.queue_depths(queue text default null) returns setof @extschema@.queue_depth
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return query
    with by_key as (
        select versioned_queue(t.queue, null) as queue, t.limit_key,
               count(*) filter (where t.token is not null) as leased,
               count(*) filter (where t.token is null and not t.paused and t.due_at <= now_at) as due,
               count(*) filter (where t.token is null and not t.paused and t.due_at > now_at and t.awaits is not null
                                  and t.stuck_reason is null) as waiting,
               count(*) filter (where t.token is null and not t.paused and t.due_at > now_at and t.awaits is null
                                  and t.stuck_reason is null) as delayed,
               count(*) filter (where t.token is null and not t.paused and t.stuck_reason is not null) as stuck,
               count(*) filter (where t.token is null and t.paused) as paused,
               -- A task that is due at -infinity is shown with a time for which each language has a date.
               min(greatest(t.due_at, '0001-01-02 00:00+00'))
                   filter (where t.token is null and not t.paused and t.due_at <= now_at) as oldest_due_at
          from tasks as t
         where queue_depths.queue is null
            or versioned_queue(t.queue, null) = queue_depths.queue
         group by 1, 2
    ), by_queue as (
        select k.queue, sum(k.leased)::bigint as leased, sum(k.due)::bigint as due, sum(k.waiting)::bigint as waiting,
               sum(k.delayed)::bigint as delayed, sum(k.stuck)::bigint as stuck, sum(k.paused)::bigint as paused,
               min(k.oldest_due_at) as oldest_due_at,
               sum(least(k.due, case when q.max_per_key is not null then greatest(q.max_per_key - k.leased, 0) end,
                         floor(tokens_of_key(k.queue, k.limit_key, q.rate_per_key, q.burst_per_key, now_at))))::bigint as within_keys
          from by_key as k
          left join queues as q on q.queue = k.queue
         group by k.queue
    )
    select coalesce(q.queue, d.queue), coalesce(q.paused, false), r.ready, coalesce(d.due, 0) - r.ready,
           coalesce(d.leased, 0), coalesce(d.waiting, 0), coalesce(d.delayed, 0), coalesce(d.stuck, 0),
           coalesce(d.paused, 0), d.oldest_due_at, q.max_running, q.max_per_key, q.rate_per_second, q.burst,
           q.rate_per_key, q.burst_per_key
      from by_queue as d
      full join (select * from queues as p where queue_depths.queue is null or p.queue = queue_depths.queue) as q
        on q.queue = d.queue
     cross join lateral (
        select case when q.paused then 0
                    else greatest(0, least(coalesce(d.within_keys, 0), q.max_running - coalesce(d.leased, 0),
                                           floor(tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, now_at))))::bigint end as ready) as r
     order by 1;
end
$$;
comment on function @extschema@.queue_depths(text) is
    'Count the tasks of each queue, or of one: those a worker could claim now, those held back by limits or a pause, those leased, waiting, delayed, stuck or paused; with the limits of the queue.';
