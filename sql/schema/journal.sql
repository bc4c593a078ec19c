-- The journal: what each task has been told, fact by fact. Written once, never updated. Its rows are replay record, audit
-- trail, time travel and change feed at once.

create table @extschema@.journal (
    job_id       text collate "C"  not null,
    task         text collate "C"  not null,
    seq          bigint            not null,
    kind         text              not null,
    key          text collate "C",
    name         text,
    fingerprint  text,
    ok           boolean           not null default true,
    value        jsonb,
    version      bigint,
    op           text,
    path         text[] collate "C",
    argument     jsonb,
    at           timestamptz       not null,
    is_answer    boolean           not null default false,

    constraint one_fact_per_place primary key (job_id, task, seq),
    constraint version_belongs_to_a_command check (version is null or op is not null)
);

comment on table @extschema@.journal is 'What each task was told, in order; append-only.';
comment on column @extschema@.journal.job_id is 'The job.';
comment on column @extschema@.journal.task is
    'The task that was told; $outside for commands that came from no task, $run for how later runs began.';
comment on column @extschema@.journal.seq is
    'The position in the journal of the task, from 1; for $outside the version, for $run the number of the run.';
comment on column @extschema@.journal.kind is
    'activity, attempt, command, read, send, signal, answer, dropped, cancel, timer, patch, note, end or run.';
comment on column @extschema@.journal.key is 'The operation: lineage/name#occurrence, or the key of the caller.';
comment on column @extschema@.journal.name is
    'The name of the activity, hook or signal; for an item of a stream, who published it.';
comment on column @extschema@.journal.fingerprint is
    'A hash of the arguments, by which changed code is noticed; for entity_apply() with a key, of all its commands.';
comment on column @extschema@.journal.ok is 'Whether the value is a result; if false, it is a failure.';
comment on column @extschema@.journal.value is
    'What the code was told; null for a large value that was read, which is read again from the history.';
comment on column @extschema@.journal.version is 'The version of the memory that this command made.';
comment on column @extschema@.journal.op is 'The command.';
comment on column @extschema@.journal.path is 'Where in the memory.';
comment on column @extschema@.journal.argument is
    'What the command was given; for a read, the version that was read, and its size if it is large.';
comment on column @extschema@.journal.at is 'When the task was told, in workflow time.';
comment on column @extschema@.journal.is_answer is 'Whether the inbox answered a request of the task with it.';

create unique index told_once on @extschema@.journal (job_id, task, key) where is_answer;
comment on index @extschema@.told_once is
    'Ensures that a task is told the answer to a request once, and finds it when the request is repeated. [P4] [P5]';

create unique index one_command_per_version on @extschema@.journal (job_id, version) where version is not null;
comment on index @extschema@.one_command_per_version is 'Ensures that one command made each version of a memory.';

create unique index one_command_per_key on @extschema@.journal (job_id, key)
    where task = '$outside' and key is not null;
comment on index @extschema@.one_command_per_key is 'Ensures that a key of a caller stands for one command.';

-- Without refused commands: some of those have paths too long for any index.
create index items_of_a_log on @extschema@.journal (job_id, path, version) where op = 'log' and version is not null;
comment on index @extschema@.items_of_a_log is 'Reads a log as a list, from any version on.';
