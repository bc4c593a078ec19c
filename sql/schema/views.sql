-- Views: for people and dashboards. Nothing in the code depends on them.

create or replace view @extschema@.history with (security_barrier = true) as
select f.job_id, f.version, f.at, f.task, f.op, f.path, f.argument, f.value, f.key
  from @extschema@.journal as f
 where f.version is not null;
comment on view @extschema@.history is 'Every change of every memory: which task made which version, when, and how.';
comment on column @extschema@.history.job_id is 'The job whose memory was changed.';
comment on column @extschema@.history.version is
    'The version that the change made. Versions rise by one, without gaps.';
comment on column @extschema@.history.at is 'When the change was made; for a task, in workflow time.';
comment on column @extschema@.history.task is 'The task that made the change; $outside if it came from no task.';
comment on column @extschema@.history.op is 'The command: set, merge, append and others.';
comment on column @extschema@.history.path is 'The path in the memory, as keys; empty for the whole memory.';
comment on column @extschema@.history.argument is 'What the command was given.';
comment on column @extschema@.history.value is 'What the command returned.';
comment on column @extschema@.history.key is
    'The operation of the task, lineage/name#occurrence, or the key of the caller.';

create or replace view @extschema@.waiting with (security_barrier = true) as
select t.job_id, t.task, t.kind, t.name, @extschema@.versioned_queue(t.queue, null) as queue, t.pinned_version,
       @extschema@.task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason, t.paused) as state,
       nullif(t.due_at, 'infinity') as due_at,
       @extschema@.task_reason(t.job_id, t.task) as waits_for,
       @extschema@.task_needs(t.job_id, t.task) as needs,
       t.worker, t.deliveries, t.attempt, t.progress
  from @extschema@.tasks as t;
comment on view @extschema@.waiting is 'Every live task with its state, its progress, and in words what it waits for.';
comment on column @extschema@.waiting.job_id is 'The job.';
comment on column @extschema@.waiting.task is 'The task with its run: 1/main is the coordinator of the first run.';
comment on column @extschema@.waiting.kind is 'coordinator, hook or activity.';
comment on column @extschema@.waiting.name is 'The function that it runs.';
comment on column @extschema@.waiting.queue is
    'The queue on which workers look for it, without the version that it is pinned to.';
comment on column @extschema@.waiting.pinned_version is 'The version of the code that may run it; null for any.';
comment on column @extschema@.waiting.state is 'ready, leased, waiting, delayed, retrying, paused or stuck.';
comment on column @extschema@.waiting.due_at is
    'When a worker may claim it; for a held task, the end of its lease; null if it waits for no time.';
comment on column @extschema@.waiting.waits_for is 'What has to happen before it continues, in words.';
comment on column @extschema@.waiting.needs is
    'What it needs that does not come by itself: resume, resume_queue, resume_schedule or worker; null if nothing.';
comment on column @extschema@.waiting.worker is 'The worker that holds it; null if none does.';
comment on column @extschema@.waiting.deliveries is 'How often it was claimed since its last successful turn.';
comment on column @extschema@.waiting.attempt is 'How many attempts have failed and were followed by another.';
comment on column @extschema@.waiting.progress is 'The progress that it reported last.';

create or replace view @extschema@.schedules with (security_barrier = true) as
select s.name,
       s.context ->> 'workflow' as workflow,
       s.context ->> 'cron' as cron,
       s.context ->> 'every' as every,
       coalesce(s.context ->> 'time_zone', 'UTC') as time_zone,
       coalesce(s.context ->> 'catch_up', 'last') as catch_up,
       coalesce(s.context ->> 'overlap', 'allow') as overlap,
       coalesce(s.context -> 'paused' = 'true', false) or s.paused as paused,
       case when t.due_at < 'infinity' and not s.paused then t.until end as next_due_at,
       l.id as last_job,
       l.created_at as last_started_at,
       @extschema@.task_reason(t.job_id, t.task) as waits_for
  from (select j.id, j.context, j.paused, @extschema@.schedule_name(j.id) as name
          from @extschema@.jobs as j
         where j.entity = '$schedule') as s
  left join @extschema@.tasks as t on s.id = t.job_id and t.task = '$hook/$schedule'
  left join lateral (
    select j.id, j.created_at
      from @extschema@.jobs as j
     where j.id > s.name || '/'
       and j.id < s.name || '/:'
       and j.parent is null
       and j.headers ->> 'schedule' = s.name
     order by j.id desc
     limit 1) as l on true;
comment on view @extschema@.schedules is
    'Every schedule: what it starts and when, its next due time, the last job it started, and in words what it waits for.';
comment on column @extschema@.schedules.name is 'The name of the schedule: the id of its memory without the prefix.';
comment on column @extschema@.schedules.workflow is 'The workflow that it starts.';
comment on column @extschema@.schedules.cron is 'The cron expression; null if it has an interval.';
comment on column @extschema@.schedules.every is 'The interval; null if it has a cron expression.';
comment on column @extschema@.schedules.time_zone is 'The time zone in which cron expressions and days are read.';
comment on column @extschema@.schedules.catch_up is 'Which missed due times get a job: none, the last or all.';
comment on column @extschema@.schedules.overlap is
    'What happens while a job of it still runs: allow another, or skip the due time.';
comment on column @extschema@.schedules.paused is 'Whether it starts nothing until it is resumed.';
comment on column @extschema@.schedules.next_due_at is
    'When it is due next; null while it is paused or its task is at work.';
comment on column @extschema@.schedules.last_job is
    'The id of the last job that it started for a due time; null if there is none, or it was forgotten.';
comment on column @extschema@.schedules.last_started_at is 'When that job was started.';
comment on column @extschema@.schedules.waits_for is 'What its task waits for, in words; null if it has no task.';

create or replace view @extschema@.indexes with (security_barrier = true) as
select w.entity,
       case when w.path = '{}' then '' else @extschema@.write_path(w.path) end as path,
       w.kind,
       @extschema@.index_state(w.name) as state,
       coalesce(pg_relation_size(c.oid), 0) as bytes,
       coalesce(s.idx_scan, 0) as scans,
       w.name
  from @extschema@.wanted_indexes as w
  left join pg_class as c on w.name = c.relname and c.relnamespace = '@extschema@'::regnamespace
  left join pg_stat_all_indexes as s on c.oid = s.indexrelid;
comment on view @extschema@.indexes is
    'Every index on memories that is wanted, with its state in the catalogue (valid, building, invalid or missing), its size and its use.';
comment on column @extschema@.indexes.entity is 'The entity whose memories are indexed.';
comment on column @extschema@.indexes.path is 'The path that is indexed, as text; empty for the whole memory.';
comment on column @extschema@.indexes.kind is
    'How the value is read: text, number, boolean or time; contains for all that is in it, search for the words of its texts, vector(n) for n numbers.';
comment on column @extschema@.indexes.state is
    'The state: valid, building, invalid (its build was interrupted) or missing.';
comment on column @extschema@.indexes.bytes is 'Its size on disk.';
comment on column @extschema@.indexes.scans is 'How often it was used since statistics were reset.';
comment on column @extschema@.indexes.name is 'Its name in the catalogue, a hash.';
