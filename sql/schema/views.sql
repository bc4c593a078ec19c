-- Views: for people and dashboards. Nothing in the code depends on them.

create or replace view @extschema@.history with (security_barrier = true) as
select f.job_id, f.version, f.at, f.task, f.op, f.path, f.argument, f.value, f.key
  from @extschema@.journal as f
 where f.version is not null;
comment on view @extschema@.history is 'Every change of every memory: which task made which version, when, and how.';

create or replace view @extschema@.waiting with (security_barrier = true) as
select t.job_id, t.task, t.kind, t.name, @extschema@.versioned_queue(t.queue, null) as queue, t.pinned_version,
       @extschema@.task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason, t.paused) as state,
       t.due_at,
       @extschema@.task_reason(t.job_id, t.task) as waits_for,
       t.worker, t.deliveries, t.attempt, t.progress
  from @extschema@.tasks as t;
comment on view @extschema@.waiting is 'Every live task with its state and what it waits for, in words, and how far it is.';

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
    'Every schedule: what it starts and when, its next due time, the job it has started last for one, and what it waits for, in words.';

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
    'Every index on memories that is wanted, with what the catalogue says of it: valid, building, invalid or missing; how large it is and how often it was used.';
