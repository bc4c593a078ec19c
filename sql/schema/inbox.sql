-- The inbox: signals and answers on their way. Whoever holds the lock of the job may write it. The task that is told
-- moves a row into its journal in the turn that takes it, for which the lock of the task is enough if it is an answer.

create table @extschema@.inbox (
    job_id       text collate "C"  not null,
    id           bigint            not null generated always as identity,
    task         text collate "C",
    key          text collate "C",
    name         text,
    ok           boolean           not null default true,
    payload      jsonb,
    sender       text,
    dedupe_key   text collate "C",
    sent_at      timestamptz       not null,
    consumed_at  timestamptz,
    fingerprint  text,

    constraint one_message_per_id primary key (id),
    constraint answer_or_signal
        check (case when task is null then key is null and name is not null else key is not null end)
);

comment on table @extschema@.inbox is 'Signals and answers on their way to the tasks of a job.';
comment on column @extschema@.inbox.job_id is 'The job that receives the message.';
comment on column @extschema@.inbox.id is
    'The order of acceptance. It is drawn under the lock of the job and never issued twice.';
comment on column @extschema@.inbox.task is
    'The task that is answered; null for a signal, which any task that waits for its name may take; $taken if the signal is gone and only its key is left.';
comment on column @extschema@.inbox.key is
    'The request that is answered; $cancel for a request to cancel; for $taken the key of the caller again.';
comment on column @extschema@.inbox.name is 'The name of the signal.';
comment on column @extschema@.inbox.ok is 'Whether the payload is a result; if false, it is a failure.';
comment on column @extschema@.inbox.payload is 'The content of the message.';
comment on column @extschema@.inbox.sender is 'The job and task that sent the message; null if it came from outside.';
comment on column @extschema@.inbox.dedupe_key is 'The key of the caller: a signal with the same key is accepted once.';
comment on column @extschema@.inbox.sent_at is 'When it was accepted.';
comment on column @extschema@.inbox.consumed_at is
    'When a task took the message. Only a request to cancel and the key of a signal stay.';
comment on column @extschema@.inbox.fingerprint is
    'The hash of the request that is answered: code that runs again compares it with its request.';

create unique index answered_once on @extschema@.inbox (job_id, task, key);
comment on index @extschema@.answered_once is
    'Ensures that a request has one answer on its way, which a repeated request finds; signals, which answer no request, stand behind.';

create unique index signalled_once on @extschema@.inbox (job_id, dedupe_key) where dedupe_key is not null;
comment on index @extschema@.signalled_once is 'Ensures that a key of a caller stands for one signal.';
