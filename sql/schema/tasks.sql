-- Tasks: the right to run one coordinator, hook or activity of a job. Hot and small: live work only. A sleep, a retry, a
-- lease and a crash are one thing here: a task that is due later.

create table @extschema@.tasks (
    job_id          text collate "C"       not null,
    task            text collate "C"       not null,
    kind            @extschema@.task_kind  not null,
    name            text                   not null,
    queue           text collate "C"       not null,
    priority        @extschema@.priority   not null default 5,
    due_at          timestamptz            not null,
    token           uuid,
    last_token      uuid,
    worker          text,
    last_worker     text,
    position        @extschema@.counter    not null default 0,
    asked           @extschema@.counter    not null default 0,
    deliveries      @extschema@.counter    not null default 0,
    attempt         @extschema@.counter    not null default 0,
    paused          boolean                not null default false,
    limit_key       text collate "C"       not null default '',
    in_line         boolean                not null default false,
    pinned_version  text,
    args            jsonb,
    awaits          text[],
    until           timestamptz,
    signal          text,
    detached        boolean                not null default false,
    accept_changes  boolean                not null default false,
    asker_job       text collate "C",
    asker_task      text collate "C",
    asker_key       text collate "C",
    progress        jsonb,
    failure         jsonb,
    stuck_reason    jsonb,
    started_at      timestamptz,
    told_at         timestamptz,
    is_suspect      boolean                not null generated always as (deliveries >= 5) stored,
    fingerprint     text,

    constraint one_task_per_name primary key (job_id, task),
    constraint asker_is_whole check ((asker_job is null) = all(array[asker_task is null, asker_key is null])),
    constraint pinned_task_stands_on_the_queue_of_its_version
        check (pinned_version is not distinct from substr(queue, nullif(strpos(queue, '@'), 0) + 1)),
    constraint detached_when_nobody_asked check (not detached or asker_job is null),
    constraint held_by_a_worker check ((token is null) = (worker is null)),
    constraint held_task_is_not_in_line check (token is null or not in_line),
    constraint held_task_is_due check (token is null or due_at < 'infinity'),
    constraint stuck_task_is_parked check (stuck_reason is null or due_at = 'infinity')
) with (fillfactor = 70);

comment on table @extschema@.tasks is
    'The live tasks. A task is the right to run one coordinator, hook or activity of a job; workers claim it.';
comment on column @extschema@.tasks.job_id is 'The job whose memory the task maintains.';
comment on column @extschema@.tasks.task is
    'The name of the task: run/main for the coordinator, asker/key for what a task asked for, $hook/key for a hook from outside or a detached one.';
comment on column @extschema@.tasks.kind is 'coordinator, hook or activity.';
comment on column @extschema@.tasks.name is 'The name of the function to run.';
comment on column @extschema@.tasks.queue is
    'The queue on which workers look for the task; for a pinned task with @ and its version at the end.';
comment on column @extschema@.tasks.priority is '0 (first) to 9 (last).';
comment on column @extschema@.tasks.due_at is
    'When a worker may claim the task; for a held task, the end of its lease; infinity if it waits for a message.';
comment on column @extschema@.tasks.token is 'Proof that the holder may advance this task. Each claim brings its own.';
comment on column @extschema@.tasks.last_token is
    'The token that parked the task, so that its holder may repeat a call whose reply was lost.';
comment on column @extschema@.tasks.worker is 'The worker that holds the task.';
comment on column @extschema@.tasks.last_worker is
    'The worker that parked the task last and may still have it in memory.';
comment on column @extschema@.tasks.position is 'How many rows the journal of this task has.';
comment on column @extschema@.tasks.asked is 'How many operations the code had asked for at its last turn.';
comment on column @extschema@.tasks.deliveries is 'How often the task was claimed since its last successful turn.';
comment on column @extschema@.tasks.attempt is 'How many attempts have failed and were followed by another.';
comment on column @extschema@.tasks.paused is 'Whether the task is kept from workers because its job is paused.';
comment on column @extschema@.tasks.limit_key is
    'The key under which a limit per key counts the task; empty if it has none.';
comment on column @extschema@.tasks.in_line is
    'Whether the task stands in line under its key: the claim of a queue with a limit per key put it there when it was due.';
comment on column @extschema@.tasks.pinned_version is 'The version of the code that may run the task; null for any.';
comment on column @extschema@.tasks.args is 'The arguments of a hook or activity. Those of a coordinator are in jobs.';
comment on column @extschema@.tasks.awaits is
    'Names of signals that a parked task waits for; empty if it waits for answers only; null if it waits for nothing.';
comment on column @extschema@.tasks.until is 'The deadline with which the task was parked.';
comment on column @extschema@.tasks.signal is 'The signal by which a hook may answer its asker early.';
comment on column @extschema@.tasks.detached is
    'Whether the task outlives the one that asked for it, and answers nobody.';
comment on column @extschema@.tasks.accept_changes is 'Whether an operator allowed replay to accept changed arguments.';
comment on column @extschema@.tasks.asker_job is 'The job of the task that waits for the answer.';
comment on column @extschema@.tasks.asker_task is 'The task that waits for the answer.';
comment on column @extschema@.tasks.asker_key is 'The request that is answered.';
comment on column @extschema@.tasks.progress is 'The progress that the task reported last.';
comment on column @extschema@.tasks.failure is 'The failure of the last failed attempt.';
comment on column @extschema@.tasks.stuck_reason is
    'Why the task is parked until somebody resumes it, or other code arrives.';
comment on column @extschema@.tasks.started_at is 'When the task was first claimed: workflow time begins here.';
comment on column @extschema@.tasks.told_at is 'The time of the last fact.';
-- A generated column, so that an index can select by it without being updated at each delivery. The number is that of
-- suspect_threshold().
comment on column @extschema@.tasks.is_suspect is
    'Whether the task was claimed so often without a turn that it may be what kills its workers.';
comment on column @extschema@.tasks.fingerprint is
    'A hash of the request of the asker; it is copied to the answer, so that changed code is noticed.';

create index due_tasks on @extschema@.tasks (queue, priority, due_at)
    where due_at < 'infinity' and not paused and not in_line;
comment on index @extschema@.due_tasks is
    'Gives a claim one exact range for each queue and priority. A task that nobody may claim is in no range.';

create index held_tasks on @extschema@.tasks (queue, limit_key, due_at) where worker is not null;
comment on index @extschema@.held_tasks is
    'Counts the slots in use of a queue and of each key, and finds leases that have ended. To check a token, one task is read by its key instead.';

create index suspect_tasks on @extschema@.tasks (queue, priority, due_at) where is_suspect;
comment on index @extschema@.suspect_tasks is
    'Finds tasks that may have killed their workers; it has hardly ever a row.';

-- A stuck task is due at infinity. Only queries that name this condition use the index: resume() goes through the tasks
-- of its job, in order of their names.
create index stuck_tasks on @extschema@.tasks (queue) where stuck_reason is not null and due_at = 'infinity';
comment on index @extschema@.stuck_tasks is 'Finds tasks that other code may be able to run.';

create index tasks_in_line on @extschema@.tasks (queue, priority, limit_key, due_at) where in_line and not paused;
comment on index @extschema@.tasks_in_line is 'Lets a claim step from key to key, however many tasks wait under each.';

create index tasks_of_other_jobs on @extschema@.tasks (asker_job, asker_task) where asker_job <> job_id;
comment on index @extschema@.tasks_of_other_jobs is
    'Finds the children that a task waits for, however many it has had.';

create index waiting_tasks on @extschema@.tasks (job_id, task) where token is null and awaits is not null;
comment on index @extschema@.waiting_tasks is 'Finds the parked tasks of a job, even beside a thousand running hooks.';
