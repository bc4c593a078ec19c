-- Small tables whose verbs come with their features: the shape is part of the first installation, so that no table
-- has to be added under a running system.

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

create table @extschema@.schedules (
    schedule   text         not null,
    workflow   text         not null,
    args       jsonb        not null default '[]',
    queue      text         not null default 'default',
    cron       text,
    every      interval,
    time_zone  text         not null default 'UTC',
    catch_up   text         not null default 'last',
    paused     boolean      not null default false,
    due_at     timestamptz  not null,

    constraint one_row_per_schedule primary key (schedule),
    constraint cron_or_interval check (num_nulls(cron, every) = 1),
    constraint catch_up_is_known check (catch_up in ('none', 'last', 'all'))
);
comment on table @extschema@.schedules is 'Workflows that start by the clock.';
comment on column @extschema@.schedules.schedule is 'The name of the schedule.';
comment on column @extschema@.schedules.workflow is 'The coordinator to start.';
comment on column @extschema@.schedules.args is 'Its arguments.';
comment on column @extschema@.schedules.queue is 'Its queue.';
comment on column @extschema@.schedules.cron is 'Five fields: minute, hour, day, month, weekday.';
comment on column @extschema@.schedules.every is 'Or a fixed distance.';
comment on column @extschema@.schedules.time_zone is 'Where the cron fields are read.';
comment on column @extschema@.schedules.catch_up is 'What happens to times missed: none, last or all.';
comment on column @extschema@.schedules.paused is 'Whether it starts nothing for now.';
comment on column @extschema@.schedules.due_at is 'The next start.';
