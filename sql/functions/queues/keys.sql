-- Keys of queues with a rate per key, and their tokens. A key that has as many tokens as it may keep has no row. All of it
-- happens under the lock of the queue. [P6]

create function @extschema@.change_key_rate(
    before         @extschema@.queue_limits,
    rate_per_key   numeric,
    burst_per_key  numeric,
    changed_at     timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    is_changed boolean := (before.rate_per_key, before.burst_per_key) <> (change_key_rate.rate_per_key, change_key_rate.burst_per_key);
begin
    if change_key_rate.rate_per_key is null then
        delete from key_tokens as k where k.queue = before.queue;
        return;
    end if;
    if is_changed then
        update key_tokens as k
           set tokens = c.tokens,
               counted_at = change_key_rate.changed_at,
               full_at = tokens_come_at(change_key_rate.burst_per_key, c.tokens, change_key_rate.rate_per_key,
                                        change_key_rate.changed_at)
          from (select f.limit_key,
                       least(change_key_rate.burst_per_key,
                             tokens_at(f.tokens, before.rate_per_key, before.burst_per_key, f.counted_at,
                                       change_key_rate.changed_at)) as tokens
                  from key_tokens as f
                 where f.queue = before.queue) as c
         where k.queue = before.queue
           and k.limit_key = c.limit_key;
    end if;
    if is_changed or before.claimed_at > change_key_rate.changed_at then
        perform recount_turns(before.queue, change_key_rate.rate_per_key, change_key_rate.burst_per_key,
                              change_key_rate.changed_at);
    end if;
    delete from key_tokens as k where k.queue = before.queue and k.full_at <= change_key_rate.changed_at;
    perform remove_lines_of_old_versions(before.queue);
end
$$;
comment on function @extschema@.change_key_rate(@extschema@.queue_limits, numeric, numeric, timestamptz) is
    'Count the tokens of all keys of a locked queue under its rate per key before it gets another, or forget them if it gets none; forget also what keys and versions have left that are in use no more.';


create function @extschema@.spend_key_tokens(
    limits    @extschema@.queue_limits[],
    chosen    @extschema@.due_task[],
    claimed   @extschema@.claimed_task[],
    spent_at  timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (select from unnest(spend_key_tokens.limits) as l where l.rate_per_key is not null) then
        return;
    end if;
    insert into key_tokens (queue, limit_key, tokens, counted_at, full_at)
    select g.queue, g.limit_key, g.tokens, spend_key_tokens.spent_at,
           tokens_come_at(g.burst_per_key, g.tokens, g.rate_per_key, spend_key_tokens.spent_at)
      from (select l.queue, c.limit_key, l.rate_per_key, l.burst_per_key,
                   tokens_of_key(l.queue, c.limit_key, l.rate_per_key, l.burst_per_key, spend_key_tokens.spent_at)
                       - count(*) as tokens
              from unnest(spend_key_tokens.claimed) as t
              join unnest(spend_key_tokens.chosen) as c on c.job = t.job and c.task = t.task
              join unnest(spend_key_tokens.limits) as l on l.queue = split_part(c.queue, '@', 1)
             where not c.is_held
               and l.rate_per_key is not null
             group by l.queue, c.limit_key, l.rate_per_key, l.burst_per_key) as g
        on conflict on constraint keys_are_counted_once do update
           set tokens = excluded.tokens, counted_at = excluded.counted_at, full_at = excluded.full_at;
    perform place_line(c.queue, c.priority, c.limit_key, tokens_come_at(
                1, tokens_of_key(l.queue, c.limit_key, l.rate_per_key, l.burst_per_key, spend_key_tokens.spent_at),
                l.rate_per_key, spend_key_tokens.spent_at))
       from (select distinct d.queue, d.priority, d.limit_key from unnest(spend_key_tokens.chosen) as d where not d.is_held) as c
       join unnest(spend_key_tokens.limits) as l on l.queue = split_part(c.queue, '@', 1)
      where l.rate_per_key is not null;
    -- More rows are forgotten than are written, so what a busy time leaves behind becomes less.
    delete from key_tokens as k
     using unnest(spend_key_tokens.limits) as l
     cross join lateral (
        select f.ctid as place
          from key_tokens as f
         where f.queue = l.queue
           and f.full_at <= spend_key_tokens.spent_at
         order by f.full_at, f.limit_key
         limit 2 * cardinality(spend_key_tokens.claimed)) as d
     where k.ctid = d.place;
end
$$;
comment on function @extschema@.spend_key_tokens(@extschema@.queue_limits[], @extschema@.due_task[], @extschema@.claimed_task[], timestamptz) is
    'Record which tokens of keys were taken by tasks that were claimed, and when it is the turn of their lines again; forget keys that have all their tokens.';
