-- Views: for people and dashboards. Nothing in the code depends on them.

create or replace view @extschema@.history as
select f.job_id, f.version, f.at, f.task, f.op, f.path, f.argument, f.value, f.key
  from @extschema@.journal as f
 where f.version is not null;
comment on view @extschema@.history is 'Every change of every memory: which task made which version, when, and how.';

create or replace view @extschema@.waiting as
select t.job_id, t.task, t.kind, t.name, t.queue,
       @extschema@.task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason) as state,
       t.due_at,
       @extschema@.task_reason(t.job_id, t.task) as waits_for,
       t.worker, t.deliveries, t.attempt
  from @extschema@.tasks as t;
comment on view @extschema@.waiting is 'Every live task with its state and what it waits for, in words.';

create or replace view @extschema@.indexes as
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
