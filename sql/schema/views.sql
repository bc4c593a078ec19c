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
