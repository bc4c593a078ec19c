-- Queues: their limits. A queue without a row has none.

create table @extschema@.queues (
    queue            text         not null,
    paused           boolean      not null default false,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,

    constraint one_row_per_queue primary key (queue),
    constraint limits_are_positive check (max_running > 0 and max_per_key > 0 and rate_per_second > 0)
);
comment on table @extschema@.queues is 'Limits of a queue; a queue without a row has none.';
comment on column @extschema@.queues.queue is 'The name of the queue.';
comment on column @extschema@.queues.paused is 'Whether its tasks are kept from workers.';
comment on column @extschema@.queues.max_running is 'How many of its tasks may be admitted at a time.';
comment on column @extschema@.queues.max_per_key is 'How many of them for each limit_key.';
comment on column @extschema@.queues.rate_per_second is 'How many may be admitted each second.';
