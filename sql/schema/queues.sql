-- Queues: their limits, and what a claim records about them. A queue without a row has no limits.

create table @extschema@.queues (
    queue            text collate "C"  not null,
    paused           boolean           not null default false,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    tokens           numeric,
    set_at           timestamptz,
    claimed_at       timestamptz,
    last_key         text collate "C"  not null default '',

    constraint one_row_per_queue primary key (queue),
    constraint limits_are_positive check (max_running > 0 and max_per_key > 0),
    constraint rate_is_a_number check (rate_per_second >= 0.000000001 and rate_per_second <= 1000000),
    constraint burst_holds_a_token check (burst >= 1 and burst <= 1000000),
    constraint rate_has_tokens check (num_nulls(rate_per_second, burst, tokens) in (0, 3)),
    constraint tokens_are_not_spent_twice check (tokens >= 0),
    constraint tokens_were_counted check (tokens is null or claimed_at is not null),
    constraint limits_were_set check (num_nonnulls(max_running, max_per_key, rate_per_second) = 0 or set_at is not null)
);
comment on table @extschema@.queues is 'The limits of queues. A queue without a row has no limits.';
comment on column @extschema@.queues.queue is 'The name of the queue.';
comment on column @extschema@.queues.paused is 'Whether the tasks of the queue are kept from workers.';
comment on column @extschema@.queues.max_running is 'How many of its tasks may be held at a time; null for no limit.';
comment on column @extschema@.queues.max_per_key is
    'How many of its tasks may be held at a time for each limit_key; null for no limit.';
comment on column @extschema@.queues.rate_per_second is
    'How many tokens it gets each second; the claim of a task takes one.';
comment on column @extschema@.queues.burst is 'How many tokens it keeps at most.';
comment on column @extschema@.queues.tokens is 'How many tokens it had when they were last counted.';
comment on column @extschema@.queues.set_at is 'When its limits were set.';
comment on column @extschema@.queues.claimed_at is 'When its tasks were last claimed and its tokens counted.';
comment on column @extschema@.queues.last_key is 'The key that was served last; the next claim begins behind it.';
