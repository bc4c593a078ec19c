-- Tasks: the right to run one coordinator, hook or activity of a job. Hot and small: live work only.
-- A sleep, a retry, a lease and a crash are one thing here: a task that is due later.

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

comment on table @extschema@.tasks is 'The right to run one coordinator, hook or activity of a job: what workers claim.';
comment on column @extschema@.tasks.job_id is 'The job whose memory the task maintains.';
comment on column @extschema@.tasks.task is
    'run/main for the coordinator, asker/key for what a task asked for, $hook/key for a hook from outside or detached.';
comment on column @extschema@.tasks.kind is 'coordinator, hook or activity.';
comment on column @extschema@.tasks.name is 'The name of the function to run.';
comment on column @extschema@.tasks.queue is 'Where workers look for it; of a pinned task with @ and its version behind.';
comment on column @extschema@.tasks.priority is '0 (first) to 9 (last).';
comment on column @extschema@.tasks.due_at is 'When a worker may claim it; for a held task the end of its lease; infinity: when something arrives.';
comment on column @extschema@.tasks.token is 'Proof that the holder may advance this task; each claim brings its own.';
comment on column @extschema@.tasks.last_token is 'The token that parked the task: its holder may repeat a call whose reply was lost.';
comment on column @extschema@.tasks.worker is 'Who holds the task.';
comment on column @extschema@.tasks.last_worker is 'Who parked the task last, and may still have it in memory.';
comment on column @extschema@.tasks.position is 'How many rows the journal of this task has.';
comment on column @extschema@.tasks.asked is 'How many operations the code had asked for at its last turn.';
comment on column @extschema@.tasks.deliveries is 'Claims since the last turn that succeeded.';
comment on column @extschema@.tasks.attempt is 'How often the function has failed and was tried again.';
comment on column @extschema@.tasks.paused is 'Whether the task is kept from workers because its job is paused.';
comment on column @extschema@.tasks.limit_key is 'The key under which a per-key limit counts the task; empty where none was given.';
comment on column @extschema@.tasks.in_line is 'Whether it stands in line under its key: a claim of a queue with a limit per key has put it there when it was due.';
comment on column @extschema@.tasks.pinned_version is 'The version of the code that may run it.';
comment on column @extschema@.tasks.args is 'Arguments of a hook or activity; a coordinator''s stand in jobs.';
comment on column @extschema@.tasks.awaits is 'Names of signals that a parked task waits for; empty: answers only; null: it waits for nothing.';
comment on column @extschema@.tasks.until is 'The deadline with which the task was parked.';
comment on column @extschema@.tasks.signal is 'The signal by which a hook answers its asker early.';
comment on column @extschema@.tasks.detached is 'Whether the task outlives the one that asked for it, and answers nobody.';
comment on column @extschema@.tasks.accept_changes is 'Whether replay may accept changed arguments, as an operator said.';
comment on column @extschema@.tasks.asker_job is 'The job of the task that waits for the answer.';
comment on column @extschema@.tasks.asker_task is 'The task that waits for the answer.';
comment on column @extschema@.tasks.asker_key is 'The request that is answered.';
comment on column @extschema@.tasks.progress is 'What the task last said of how far it is.';
comment on column @extschema@.tasks.failure is 'What the last failed attempt said.';
comment on column @extschema@.tasks.stuck_reason is 'Why the task is parked until somebody resumes it, or other code comes.';
comment on column @extschema@.tasks.started_at is 'The first claim: workflow time begins here.';
comment on column @extschema@.tasks.told_at is 'The time of the last fact.';
-- A column, so that an index can ask for it without taking note of each delivery. The number is that of suspicious_deliveries().
comment on column @extschema@.tasks.is_suspect is 'Whether it was claimed so often without a turn that it may be what kills its workers.';
comment on column @extschema@.tasks.fingerprint is 'A hash of what the asker has asked for; it stands at the answer again, by which changed code is noticed.';

create index due_tasks on @extschema@.tasks (queue, priority, due_at)
    where due_at < 'infinity' and not paused and not in_line;
comment on index @extschema@.due_tasks is 'One exact range for each queue and priority; a task that nobody may claim stands in no range.';

create index held_tasks on @extschema@.tasks (queue, limit_key, due_at) where worker is not null;
comment on index @extschema@.held_tasks is 'Counts the slots that are taken of a queue, and of each key; finds the leases that have ended. Whoever asks for a token means one task, and never reads this.';

create index suspect_tasks on @extschema@.tasks (queue, priority, due_at) where is_suspect;
comment on index @extschema@.suspect_tasks is 'Finds what may have killed its workers: hardly ever a row.';

-- What is stuck is at infinity. Only who says so finds this: resume() goes through the tasks of its job, in order of their names.
create index stuck_tasks on @extschema@.tasks (queue) where stuck_reason is not null and due_at = 'infinity';
comment on index @extschema@.stuck_tasks is 'Finds what other code may be able to run.';

create index tasks_in_line on @extschema@.tasks (queue, priority, limit_key, due_at) where in_line and not paused;
comment on index @extschema@.tasks_in_line is 'Lets a claim step from key to key, however many tasks wait under each.';

create index tasks_of_other_jobs on @extschema@.tasks (asker_job, asker_task) where asker_job <> job_id;
comment on index @extschema@.tasks_of_other_jobs is 'Finds the children that a task waits for, however many it has had.';

create index waiting_tasks on @extschema@.tasks (job_id, task) where token is null and awaits is not null;
comment on index @extschema@.waiting_tasks is 'Finds the parked tasks of a job among its thousand running hooks.';
