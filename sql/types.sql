-- Shapes: the rows that functions hand to each other. They gain attributes only, and only at the end.

create type @extschema@.outcome as (
    context  jsonb,
    answer   jsonb,
    failure  jsonb
);
comment on type @extschema@.outcome is
    'What one command makes of a document: the new document and a small answer, or a failure and no new document.';

create type @extschema@.started as (
    id      text,
    is_new  boolean
);
comment on type @extschema@.started is 'The id of a job, and whether this call made it, or began its run.';

create type @extschema@.job_result as (
    status  text,
    result  jsonb,
    error   jsonb
);
comment on type @extschema@.job_result is 'How a job ended; its result and error are null while it runs.';

create type @extschema@.job_status as (
    id           text,
    entity       text,
    workflow     text,
    status       text,
    version      bigint,
    run          integer,
    waiting_for  text,
    created_at   timestamptz,
    updated_at   timestamptz,
    finished_at  timestamptz
);
comment on type @extschema@.job_status is 'Where a job stands, with what it waits for in words.';

create type @extschema@.relative as (
    id             text,
    parent         text,
    depth          integer,
    workflow       text,
    status         text,
    asked_as       text,
    on_parent_end  text,
    created_at     timestamptz,
    finished_at    timestamptz
);
comment on type @extschema@.relative is 'A job of a family: how far beneath its head, and by which request it came to be.';

create type @extschema@.memory as (
    id        text,
    status    text,
    context   jsonb,
    version   bigint,
    run       integer,
    entity    text,
    watched   boolean
);
comment on type @extschema@.memory is 'What a function needs of a job that it has locked.';

create type @extschema@.change as (
    version   bigint,
    at        timestamptz,
    task      text,
    op        text,
    path      text,
    argument  jsonb,
    answer    jsonb,
    key       text
);
comment on type @extschema@.change is 'A version of a memory: who made it, when, by which command.';

create type @extschema@.difference as (
    path    text,
    change  text,
    old     jsonb,
    new     jsonb
);
comment on type @extschema@.difference is 'A place in which two documents differ: added, removed or changed.';

create type @extschema@.authorship as (
    path     text,
    value    jsonb,
    version  bigint,
    at       timestamptz,
    task     text,
    op       text
);
comment on type @extschema@.authorship is 'A value of a memory, with the command that wrote it last.';

create type @extschema@.written_place as (
    place          text[],
    version        bigint,
    whole_version  bigint
);
comment on type @extschema@.written_place is 'A place of a memory, with the last command that wrote there, and the last that wrote all beneath it too.';

create type @extschema@.author as (
    leaf     text[],
    version  bigint
);
comment on type @extschema@.author is 'A leaf of a memory, with the version that wrote it last.';

create type @extschema@.log_item as (
    version  bigint,
    place    integer,
    item     jsonb,
    at       timestamptz,
    task     text
);
comment on type @extschema@.log_item is 'An item of a log: the version that added it, and its place among those of that version.';

create type @extschema@.stream_item as (
    version  bigint,
    place    integer,
    item     jsonb,
    at       timestamptz,
    source   text,
    attempt  text
);
comment on type @extschema@.stream_item is
    'An item of a stream: of which version and where in it, by whom, in which attempt. At place 0 the stream ends.';

create type @extschema@.large_read as (
    seq    bigint,
    value  jsonb
);
comment on type @extschema@.large_read is 'What a task was told when it read something large, by its place in the journal.';

create type @extschema@.command as (
    op        text,
    path      text[],
    argument  jsonb
);
comment on type @extschema@.command is 'A command as it was given: what to do, where, with what.';

create type @extschema@.new_job as (
    id              text,
    workflow        text,
    entity          text,
    args            jsonb,
    context         jsonb,
    queue           text,
    priority        integer,
    due_at          timestamptz,
    headers         jsonb,
    pinned_version  text,
    key             text,
    if_exists       text,
    parent          text,
    asker_task      text,
    asker_key       text,
    limit_key       text,
    on_parent_end   text,
    timeout         interval
);
comment on type @extschema@.new_job is 'A job that somebody wants to start: a client, or a parent that asks for a child.';

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
    is_held     boolean
);
comment on type @extschema@.due_task is
    'A task of a queue with limits that may be claimed: one for which there is room, or one that is held and whose lease has ended.';

create type @extschema@.queue_limits as (
    queue            text,
    max_running      integer,
    max_per_key      integer,
    rate_per_second  numeric,
    burst            numeric,
    tokens           numeric,
    claimed_at       timestamptz,
    last_key         text
);
comment on type @extschema@.queue_limits is 'What a claim needs of a queue with limits that it has locked.';

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
    burst            numeric
);
comment on type @extschema@.queue_depth is
    'How much work a queue has: ready for a worker, held back by its limits or a pause, leased, and not due.';

create type @extschema@.turn as (
    number      integer,
    job         text,
    task        text,
    token       uuid,
    position    integer,
    state       text,
    facts       jsonb,
    requests    jsonb,
    cancels     jsonb,
    awaits      text[],
    until       timestamptz,
    value       jsonb,
    asked       integer,
    kind        text,
    signal      text,
    asker_job   text,
    asker_task  text,
    asker_key   text,
    told_at     timestamptz,
    verdict     text,
    failure     jsonb
);
comment on type @extschema@.turn is 'A turn of advance() with the row of the task that it holds, and the verdict on it.';

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
    expects      bigint
);
comment on type @extschema@.fact is 'A row of the journal on its way, with what it does besides being told.';

create type @extschema@.asked_item as (
    id           text,
    job          text,
    task         text,
    key          text,
    name         text,
    payload      jsonb,
    assignee     text,
    priority     integer,
    status       text,
    asked_at     timestamptz,
    expires_at   timestamptz,
    claimed_by   text,
    claimed_at   timestamptz,
    resolution   jsonb,
    resolved_by  text,
    resolved_at  timestamptz,
    place        jsonb
);
comment on type @extschema@.asked_item is
    'What a job asks of people, and what became of it; its place is where the next page of a list begins.';

create type @extschema@.arrival as (
    turn      integer,
    messages  jsonb
);
comment on type @extschema@.arrival is 'The open messages of a task that goes on.';

create type @extschema@.recording as (
    job             text,
    task            text,
    name            text,
    entity          text,
    queue           text,
    parent          text,
    headers         jsonb,
    pinned_version  text,
    run             integer,
    args            jsonb,
    attempt         integer,
    asked           integer,
    accept_changes  boolean,
    position        integer,
    started_at      timestamptz,
    status          text,
    result          jsonb,
    forked_from     jsonb
);
comment on type @extschema@.recording is
    'What a replay of a coordinator needs beside its journal; when it has ended, its queue and position are null, and all was asked for.';

create type @extschema@.cron as (
    minutes         integer[],
    hours           integer[],
    days            integer[],
    months          integer[],
    weekdays        integer[],
    matches_either  boolean,
    is_elapsed      boolean
);
comment on type @extschema@.cron is
    'A cron expression that was read: its five fields, whether a day or a weekday is enough, and whether time is counted or read from the clock on the wall.';

create type @extschema@.schedule as (
    workflow        text,
    args            jsonb,
    cron            text,
    every           interval,
    time_zone       text,
    starts_at       timestamptz,
    catch_up        text,
    overlap         text,
    paused          boolean,
    entity          text,
    queue           text,
    priority        integer,
    headers         jsonb,
    limit_key       text,
    timeout         interval,
    pinned_version  text
);
comment on type @extschema@.schedule is 'What the memory of a schedule says: which workflow to start, when and how.';

create type @extschema@.broken_invariant as (
    code    text,
    job     text,
    task    text,
    detail  text
);
comment on type @extschema@.broken_invariant is 'A law of the tables that a row breaks.';

create type @extschema@.schema_part as (
    step    text[],
    value   jsonb,
    schema  jsonb
);
comment on type @extschema@.schema_part is
    'A schema inside of a schema: the steps that lead to it, and the part of a value that it is held against, where there is one.';

create type @extschema@.broken_rule as (
    path    text[],
    rule    text,
    found   text,
    wanted  text
);
comment on type @extschema@.broken_rule is 'The rule of a schema that a value breaks, and where; what was found there and what was wanted, in words.';

create type @extschema@.broken_contract as (
    id       text,
    path     text,
    rule     text,
    message  text
);
comment on type @extschema@.broken_contract is 'A memory that does not fit a contract: where, and which rule it breaks.';

create type @extschema@.order_key as (
    expression   text,
    kind         text,
    descending   boolean,
    is_optional  boolean
);
comment on type @extschema@.order_key is 'By what find() orders: an expression of a row, as what it is compared, and whether it may be missing.';

create type @extschema@.found_job as (
    id          text,
    entity      text,
    status      text,
    version     bigint,
    context     jsonb,
    created_at  timestamptz,
    updated_at  timestamptz,
    place       jsonb
);
comment on type @extschema@.found_job is 'A job that find() found; its place is where the next page begins.';

create type @extschema@.timeline_item as (
    kind   text,
    at     timestamptz,
    task   text,
    body   jsonb,
    place  jsonb
);
comment on type @extschema@.timeline_item is
    'Something that belongs to a job: the job itself, a fact, a task, a message or an item; its place is where the next page begins.';
