-- Conditions on a memory for which a task waits. The writer that makes one true turns it into an answer.

create table @extschema@.conditions (
    job_id       text collate "C"  not null,
    task         text collate "C"  not null,
    key          text collate "C"  not null,
    condition    jsonpath          not null,
    asked_at     timestamptz       not null,
    fingerprint  text,

    constraint one_row_per_condition primary key (job_id, task, key)
);
comment on table @extschema@.conditions is
    'Conditions on memories that tasks wait for. A row is deleted when its condition is met or no longer awaited.';
comment on column @extschema@.conditions.job_id is 'The job whose memory is watched.';
comment on column @extschema@.conditions.task is 'The task that waits.';
comment on column @extschema@.conditions.key is 'The request that is answered with the version that met the condition.';
comment on column @extschema@.conditions.condition is 'A JSON path predicate on the document.';
comment on column @extschema@.conditions.asked_at is 'When the wait began.';
comment on column @extschema@.conditions.fingerprint is
    'A hash of the request; it is copied to the answer, so that changed code is noticed.';
