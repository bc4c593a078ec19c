-- Shapes: tasks, what workers claim of queues, and what they say in turns.

create type @extschema@.claimed_task as (
    job             text,
    task            text,
    kind            text,
    name            text,
    queue           text,
    position        integer,
    args            jsonb,
    deliveries      integer,
    attempt         integer,
    asked           integer,
    awaits          text[],
    accept_changes  boolean,
    pinned_version  text,
    signal          text,
    asker_job       text,
    asker_task      text,
    asker_key       text,
    started_at      timestamptz,
    told_at         timestamptz,
    is_cached       boolean,
    was_due_at      timestamptz,
    progress        jsonb
);
comment on type @extschema@.claimed_task is 'A task that a worker has just claimed.';

create type @extschema@.due_task as (
    job         text,
    task        text,
    queue       text,
    priority    smallint,
    due_at      timestamptz,
    limit_key   text,
    deliveries  integer,
    is_held     boolean,
    place       tid
);
comment on type @extschema@.due_task is
    'A task that was found and locked for a claim, with its place: it has room in its queue, or it is held and its lease has ended.';

create type @extschema@.queue_limits as (
    queue            text,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    rate_per_key     numeric,
    burst_per_key    numeric,
    tokens           numeric,
    claimed_at       timestamptz,
    last_key         text
);
comment on type @extschema@.queue_limits is 'What a claim needs to know of a queue with limits that it has locked.';

create type @extschema@.queue_depth as (
    queue            text,
    paused           boolean,
    ready            bigint,
    held_back        bigint,
    leased           bigint,
    waiting          bigint,
    delayed          bigint,
    stuck            bigint,
    paused_tasks     bigint,
    oldest_due_at    timestamptz,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    rate_per_key     numeric,
    burst_per_key    numeric
);
comment on type @extschema@.queue_depth is
    'How many tasks a queue has: ready for a worker, held back by limits or a pause, leased, and not due.';

create type @extschema@.turn as (
    number       integer,
    job          text,
    task         text,
    token        uuid,
    position     integer,
    state        text,
    facts        jsonb,
    requests     jsonb,
    cancels      jsonb,
    awaits       text[],
    until        timestamptz,
    value        jsonb,
    asked        integer,
    kind         text,
    signal       text,
    asker_job    text,
    asker_task   text,
    asker_key    text,
    told_at      timestamptz,
    verdict      text,
    failure      jsonb,
    fingerprint  text
);
comment on type @extschema@.turn is 'A turn of advance() with the row of its task and the verdict on it.';

create type @extschema@.fact as (
    turn         integer,
    job          text,
    task         text,
    seq          bigint,
    kind         text,
    key          text,
    name         text,
    fingerprint  text,
    ok           boolean,
    value        jsonb,
    version      bigint,
    op           text,
    path         text[],
    argument     jsonb,
    at           timestamptz,
    message      bigint,
    signal       text,
    target       text,
    is_untimely  boolean,
    expects      bigint,
    is_answer    boolean
);
comment on type @extschema@.fact is
    'A row of the journal before it is written, with what it does beside being recorded.';

create type @extschema@.arrival as (
    turn      integer,
    messages  jsonb
);
comment on type @extschema@.arrival is 'The open messages of a task that continues.';
