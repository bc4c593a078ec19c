-- The journal: what each task has been told, fact by fact. Written once, never updated. Its rows are replay record,
-- audit trail, time travel and change feed at once.

create table @extschema@.journal (
    job_id       text collate "C"  not null,
    task         text collate "C"  not null,
    seq          bigint            not null,
    kind         text              not null,
    key          text,
    name         text,
    fingerprint  text,
    ok           boolean           not null default true,
    value        jsonb,
    version      bigint,
    op           text,
    path         text[],
    argument     jsonb,
    at           timestamptz       not null,

    constraint one_fact_per_place primary key (job_id, task, seq),
    constraint version_belongs_to_a_command check (version is null or op is not null)
);

comment on table @extschema@.journal is 'What each task has been told, in order; append-only.';
comment on column @extschema@.journal.job_id is 'The job.';
comment on column @extschema@.journal.task is 'The task that was told; $outside for commands of nobody''s task, $run for how later runs began.';
comment on column @extschema@.journal.seq is 'The place in the task''s journal, from 1; for $outside the version, for $run the run.';
comment on column @extschema@.journal.kind is
    'activity, attempt, command, read, send, signal, answer, dropped, cancel, timer, patch, note, end or run.';
comment on column @extschema@.journal.key is 'The operation that was told: lineage/name#occurrence; or the caller''s key.';
comment on column @extschema@.journal.name is 'The name of the activity, hook or signal; of an item of a stream, who published it.';
comment on column @extschema@.journal.fingerprint is 'A hash of the arguments, by which changed code is noticed; of all commands of one call of entity_apply() where it has a key.';
comment on column @extschema@.journal.ok is 'False: the value is a failure.';
comment on column @extschema@.journal.value is 'What the code was told; null for a large value that was read: it is read again from the history.';
comment on column @extschema@.journal.version is 'The version of the memory that this command made.';
comment on column @extschema@.journal.op is 'The command.';
comment on column @extschema@.journal.path is 'Where in the memory.';
comment on column @extschema@.journal.argument is 'What the command was given; for a read the version that was read, and the size of what is large.';
comment on column @extschema@.journal.at is 'When it was told: workflow time.';

create unique index one_command_per_version on @extschema@.journal (job_id, version) where version is not null;
comment on index @extschema@.one_command_per_version is 'Each version of a memory was made by one command.';

create unique index one_command_per_key on @extschema@.journal (job_id, key)
    where task = '$outside' and key is not null;
comment on index @extschema@.one_command_per_key is 'A caller''s key stands for one command.';

-- Without what was refused: among that are paths too long for any index.
create index items_of_a_log on @extschema@.journal (job_id, path, version) where op = 'log' and version is not null;
comment on index @extschema@.items_of_a_log is 'Reads a log as a list, from any version on.';
