-- Shapes: jobs, how they begin, and what is told of them.

create type @extschema@.started as (
    id      text,
    is_new  boolean
);
comment on type @extschema@.started is 'The id of a job, and whether this call made it or began its run.';

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
    timeout         interval,
    fingerprint     text
);
comment on type @extschema@.new_job is 'A job to be started, by a client or by a parent that asks for a child.';

create type @extschema@.job_result as (
    status  text,
    result  jsonb,
    error   jsonb
);
comment on type @extschema@.job_result is 'How a job ended; result and error are null while it runs.';

create type @extschema@.job_status as (
    id           text,
    entity       text,
    workflow     text,
    status       text,
    version      bigint,
    run          integer,
    waiting_for  text,
    needs        text,
    created_at   timestamptz,
    updated_at   timestamptz,
    finished_at  timestamptz,
    stuck        text,
    failure      text
);
comment on type @extschema@.job_status is
    'Where a job stands: what it waits for in words; what it needs that does not come by itself (resume, resume_queue, resume_schedule or worker); which task is stuck and why; why it has failed or was cancelled.';

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
comment on type @extschema@.relative is
    'A job of a family: how far it is beneath the first job, and which request made it.';

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
    'An item, and what became of it; place is where the next page of a list begins.';

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
    forked_from     jsonb,
    asked_as        text,
    open            jsonb
);
comment on type @extschema@.recording is
    'What a replay of a coordinator needs beside its journal. After its end, queue and position are null, everything was asked for, and nothing is open.';

create type @extschema@.timeline_item as (
    kind   text,
    at     timestamptz,
    task   text,
    body   jsonb,
    place  jsonb
);
comment on type @extschema@.timeline_item is
    'Something that belongs to a job: the job itself, a fact, a task, a message or an item; place is where the next page begins.';

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
    'A parsed cron expression: its five fields, whether a day or a weekday is enough, and whether it is due by elapsed time or by the clock of a zone.';

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
comment on type @extschema@.schedule is
    'The settings of a schedule, as its memory holds them: which workflow to start, when and how.';

create type @extschema@.broken_invariant as (
    code    text,
    job     text,
    task    text,
    detail  text
);
comment on type @extschema@.broken_invariant is 'An invariant of the tables that a row breaks.';

create type @extschema@.job_origin as (
    id        text,
    sources   text[],
    parent    text,
    asked_as  text
);
comment on type @extschema@.job_origin is
    'The jobs that a job comes from: those it was forked from, the oldest last, and its parent with the task that asked.';
