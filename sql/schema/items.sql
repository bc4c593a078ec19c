-- Items: what jobs ask of people. An open item waits for somebody; a resolved one says who decided what, as long as its
-- job exists.

create table @extschema@.items (
    id           text collate "C"  not null default gen_random_uuid()::text,
    job_id       text collate "C"  not null,
    task         text collate "C"  not null,
    key          text collate "C"  not null,
    name         text              not null,
    payload      jsonb,
    assignee     text collate "C",
    priority     smallint          not null default 5,
    asked_at     timestamptz       not null,
    expires_at   timestamptz,
    claimed_by   text,
    claimed_at   timestamptz,
    resolution   jsonb,
    resolved_by  text,
    resolved_at  timestamptz,
    is_open      boolean           not null generated always as (resolved_at is null) stored,
    fingerprint  text,

    constraint one_item_per_id primary key (id),
    constraint item_priority_is_0_to_9 check (priority between 0 and 9),
    constraint claimed_by_somebody check ((claimed_by is null) = (claimed_at is null)),
    constraint resolution_of_a_resolved_item
        check (resolved_at is not null or num_nonnulls(resolution, resolved_by) = 0)
);

comment on table @extschema@.items is
    'What jobs ask of people. An open item waits for somebody; a resolved one says who decided what.';
comment on column @extschema@.items.id is 'The id of the item, drawn when it is asked.';
comment on column @extschema@.items.job_id is 'The job that asks.';
comment on column @extschema@.items.task is 'The task that waits for the resolution.';
comment on column @extschema@.items.key is 'The request that is answered with the resolution.';
comment on column @extschema@.items.name is 'What is to be done.';
comment on column @extschema@.items.payload is 'What a person needs to know to resolve the item.';
comment on column @extschema@.items.assignee is 'The person or group that should resolve it; null for anybody.';
comment on column @extschema@.items.priority is '0 (first) to 9 (last).';
comment on column @extschema@.items.asked_at is 'When it was asked.';
comment on column @extschema@.items.expires_at is 'When the task that asked stops waiting.';
comment on column @extschema@.items.claimed_by is 'Who has claimed it.';
comment on column @extschema@.items.claimed_at is 'When it was claimed.';
comment on column @extschema@.items.resolution is 'The answer.';
comment on column @extschema@.items.resolved_by is 'Who resolved it.';
comment on column @extschema@.items.resolved_at is 'When it was resolved; null while it is open.';
comment on column @extschema@.items.is_open is 'Whether it is not yet resolved.';
comment on column @extschema@.items.fingerprint is
    'A hash of the request; it is copied to the answer, so that changed code is noticed.';

create unique index one_open_item_per_request on @extschema@.items (job_id, task, key) where is_open;
comment on index @extschema@.one_open_item_per_request is
    'Ensures that a request asks people once; a repeated request finds its item.';

create index items_of_a_job on @extschema@.items (job_id);
comment on index @extschema@.items_of_a_job is 'Finds the items of a job.';

create index items_of_all on @extschema@.items (is_open, priority, asked_at, id);
comment on index @extschema@.items_of_all is 'Lists open items, or resolved ones, most urgent first.';

create index items_of_an_assignee on @extschema@.items (is_open, assignee, priority, asked_at, id);
comment on index @extschema@.items_of_an_assignee is 'Lists the items of an assignee.';
