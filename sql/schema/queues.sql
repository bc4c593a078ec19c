-- Queues: their limits, and what a claim records about them and about their keys. A queue without a row has no limits.

create table @extschema@.queues (
    queue            text collate "C"  not null,
    paused           boolean           not null default false,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    rate_per_key     numeric,
    burst_per_key    numeric,
    tokens           numeric,
    has_claimed      boolean           not null default false,
    claimed_at       timestamptz,
    last_key         text collate "C"  not null default '',

    constraint one_row_per_queue primary key (queue),
    constraint limits_are_positive check (max_running > 0 and max_per_key > 0),
    constraint rate_is_a_number check (rate_per_second >= 0.000000001 and rate_per_second <= 1000000),
    constraint burst_holds_a_token check (burst >= 1 and burst <= 1000000),
    constraint rate_per_key_is_a_number check (rate_per_key >= 0.000000001 and rate_per_key <= 1000000),
    constraint burst_per_key_holds_a_token check (burst_per_key >= 1 and burst_per_key <= 1000000),
    constraint rate_per_key_has_a_burst check ((rate_per_key is null) = (burst_per_key is null)),
    constraint rate_has_tokens check (num_nulls(rate_per_second, burst, tokens) in (0, 3)),
    constraint tokens_are_not_spent_twice check (tokens >= 0),
    constraint tokens_were_counted check (tokens is null or claimed_at is not null)
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
comment on column @extschema@.queues.rate_per_key is 'The same as rate_per_second, for each limit_key.';
comment on column @extschema@.queues.burst_per_key is 'How many tokens each key keeps at most.';
comment on column @extschema@.queues.tokens is 'How many tokens it had when they were last counted.';
comment on column @extschema@.queues.has_claimed is 'Whether tasks were claimed since its limits were set.';
comment on column @extschema@.queues.claimed_at is 'When its tokens were last counted: tasks were claimed or put in line.';
comment on column @extschema@.queues.last_key is 'The key that was served last; the next claim begins behind it.';

-- A key that has as many tokens as it may keep needs no row, so there are as few rows as there are keys in use.
create table @extschema@.key_tokens (
    queue       text collate "C"  not null,
    limit_key   text collate "C"  not null,
    tokens      numeric           not null,
    counted_at  timestamptz       not null,
    full_at     timestamptz       not null,

    constraint keys_are_counted_once primary key (queue, limit_key),
    constraint tokens_of_keys_are_not_spent_twice check (tokens >= 0)
);
comment on table @extschema@.key_tokens is
    'The tokens of keys in queues with a rate per key. A key without a row has as many as it may keep.';
comment on column @extschema@.key_tokens.queue is 'The name of the queue, for all versions.';
comment on column @extschema@.key_tokens.limit_key is 'The key.';
comment on column @extschema@.key_tokens.tokens is 'How many tokens the key had when they were last counted.';
comment on column @extschema@.key_tokens.counted_at is 'When its tasks were last claimed and its tokens counted.';
comment on column @extschema@.key_tokens.full_at is 'When it has as many tokens as it may keep, and the row can go.';

create index full_keys on @extschema@.key_tokens (queue, full_at, limit_key);
comment on index @extschema@.full_keys is 'Finds keys that need no row any more.';

-- Written under the lock of the queue only, by claims and set_queue(). The rest leaves lines as they are: a claim that
-- comes to an empty one removes it.
create table @extschema@.lines (
    queue      text collate "C"      not null,
    priority   @extschema@.priority  not null,
    limit_key  text collate "C"      not null,
    turn_at    timestamptz           not null,

    constraint keys_stand_in_one_line primary key (queue, priority, limit_key)
);
comment on table @extschema@.lines is
    'The tasks of one priority that stand in line under one key of a queue with a rate per key, and when it is their turn.';
comment on column @extschema@.lines.queue is 'The name of the queue, with its version for pinned tasks.';
comment on column @extschema@.lines.priority is 'The priority of the tasks.';
comment on column @extschema@.lines.limit_key is 'Their key.';
comment on column @extschema@.lines.turn_at is
    'From when on a claim looks at the line: not before the key has a token. The line that waits longest is first.';

create index next_turns on @extschema@.lines (queue, priority, turn_at, limit_key);
comment on index @extschema@.next_turns is
    'Leads a claim to the keys that may have a token, however many have none.';
