-- Jobs: a workflow and its memory. Users query and index this table with ordinary SQL.

create table @extschema@.jobs (
    id              text collate "C"       not null,
    entity          text collate "C",
    workflow        text,
    status          @extschema@.job_state,
    context         @extschema@.document   not null default '{}',
    version         @extschema@.version    not null default 0,
    run             integer                not null default 1,
    watched         boolean                not null default false,
    paused          boolean                not null default false,
    args            jsonb,
    result          jsonb,
    error           jsonb,
    parent          text collate "C",
    asked_as        text collate "C",
    on_parent_end   @extschema@.fate,
    headers         jsonb,
    pinned_version  text,
    start_key       text,
    queue           text,
    priority        @extschema@.priority,
    limit_key       text,
    timeout         @extschema@.timeout,
    forked_from     jsonb,
    started_at      timestamptz,
    created_at      timestamptz            not null default clock_timestamp(),
    updated_at      timestamptz            not null default clock_timestamp(),
    finished_at     timestamptz,

    constraint one_job_per_id primary key (id),
    constraint status_belongs_to_a_workflow check ((workflow is null) = (status is null)),
    constraint finished_when_not_running check ((finished_at is null) = ((status <> 'running') is not true)),
    constraint result_only_when_completed check (result is null or status = 'completed'),
    -- A job that has finished has failed or was cancelled, unless it is completed.
    constraint error_when_failed_or_cancelled check ((error is null) = (finished_at is null or status = 'completed')),
    constraint asked_for_by_a_parent
        check (case when asked_as is null then on_parent_end is null else parent is not null end)
) with (fillfactor = 70);

comment on table @extschema@.jobs is
    'One row for each job: a workflow and its memory. A plain entity is a job without a workflow.';
comment on column @extschema@.jobs.id is 'The id that the user chose; the id of a child is parent/...';
comment on column @extschema@.jobs.entity is 'The type of the memory.';
comment on column @extschema@.jobs.workflow is 'The name of the coordinator; null for a plain entity.';
comment on column @extschema@.jobs.status is 'running, completed, failed or cancelled; null for a plain entity.';
comment on column @extschema@.jobs.context is 'The memory: one JSON object, changed by commands.';
comment on column @extschema@.jobs.version is
    'How many commands were applied to the memory. It rises by one, without gaps.';
comment on column @extschema@.jobs.run is 'The number of the current run of this id; task names begin with it.';
comment on column @extschema@.jobs.watched is
    'Whether somebody waits for a change of the memory: a task with a condition, or a listener.';
comment on column @extschema@.jobs.paused is 'Whether the tasks are kept from workers until the job is resumed.';
comment on column @extschema@.jobs.args is
    'The arguments of the coordinator: an array by position or an object by name.';
comment on column @extschema@.jobs.result is 'What the coordinator returned.';
comment on column @extschema@.jobs.error is 'Why the job failed or was cancelled: type, message, traceback.';
comment on column @extschema@.jobs.parent is 'The job that asked for this child.';
comment on column @extschema@.jobs.asked_as is
    'The request that made this child, written as a task: asker/key. It belongs to the asker, as all tasks beneath it.';
comment on column @extschema@.jobs.on_parent_end is
    'What happens to the child when the task that asked for it ends: continue, cancel or terminate; null if it has no parent, or was already asked to cancel.';
comment on column @extschema@.jobs.headers is
    'What the starter passes along beside the arguments, such as a trace context or tenant.';
comment on column @extschema@.jobs.pinned_version is 'The version of the code that this run is pinned to.';
comment on column @extschema@.jobs.start_key is
    'The key of the start that began this run. The same start may be repeated.';
comment on column @extschema@.jobs.queue is 'The queue of the coordinator, for the next run; null for a plain entity.';
comment on column @extschema@.jobs.priority is 'The priority of the coordinator, for the next run.';
comment on column @extschema@.jobs.limit_key is 'The limit key of the coordinator, for the next run.';
comment on column @extschema@.jobs.timeout is
    'How long the job may take from its start, with all runs that begin by themselves; null for no limit.';
comment on column @extschema@.jobs.forked_from is
    'Whose journal the first run of a fork has: a list of jobs and tasks, each with the position up to which it was copied.';
comment on column @extschema@.jobs.started_at is
    'When the coordinator of the last finished run was first claimed. For a live coordinator, its task has this time.';
comment on column @extschema@.jobs.created_at is 'When the job was started, or its memory created.';
comment on column @extschema@.jobs.updated_at is 'When the row was last written.';
comment on column @extschema@.jobs.finished_at is 'When the run ended.';

create index jobs_of_a_parent on @extschema@.jobs (parent, asked_as) where parent is not null;
comment on index @extschema@.jobs_of_a_parent is
    'Finds the children of a job, or of one of its tasks. Neither column changes during a run.';

create index jobs_by_age on @extschema@.jobs (created_at) where workflow is not null;
comment on index @extschema@.jobs_by_age is
    'Finds jobs that may be old enough to be deleted. The column never changes, so the end of a job costs no more.';

create index unsuccessful_jobs on @extschema@.jobs (created_at) where error is not null;
comment on index @extschema@.unsuccessful_jobs is
    'Finds jobs that have failed or were cancelled. The column stays null when a job completes, so that this end costs no more.';

create index jobs_of_an_entity on @extschema@.jobs (entity, id) where entity is not null;
comment on index @extschema@.jobs_of_an_entity is
    'Finds the memories of an entity in order of id. Neither column ever changes, so updates cost no more.';
