-- Tasks, continued: the coordinator of the next run replaces the one before, with its queue, its asker and its deadline.
-- Nothing else of a run outlives it.

create function @extschema@.continue_coordinators(turns @extschema@.turn[], continued_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queues text[];
begin
    with continued as (
        insert into tasks as n (job_id, task, kind, name, queue, priority, due_at, attempt, paused, limit_key, pinned_version,
                                 awaits, asker_job, asker_task, asker_key, failure, fingerprint)
        select t.job_id, next_run(t.task), t.kind, t.name, t.queue, t.priority,
               case when c.is_open then continue_coordinators.continued_at
                    else coalesce(r.until, continue_coordinators.continued_at) end,
               case when r.failure is null then 0 else t.attempt + 1 end, t.paused, t.limit_key,
               t.pinned_version, case when c.is_open then '{}'::text[] end, t.asker_job, t.asker_task, t.asker_key, r.failure,
               t.fingerprint
          from unnest(continue_coordinators.turns) as r
          join tasks as t on t.job_id = any(array[r.job]) and t.task = r.task
         cross join lateral (select cancel_is_open(r.job, r.task) as is_open offset 0) as c
        returning n.queue
    )
    select array_agg(distinct n.queue) into queues from continued as n;
    return queues;
end
$$;
comment on function @extschema@.continue_coordinators(@extschema@.turn[], timestamptz) is
    'Insert the coordinators of the next runs; return their queues. One that is asked to cancel is due at once.';


create function @extschema@.continue_deadlines(turns @extschema@.turn[], continued_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into tasks (job_id, task, kind, name, queue, priority, due_at)
    select t.job_id, next_run(t.task) || '/$deadline', t.kind, t.name, t.queue, t.priority,
           case when t.token is null and t.stuck_reason is null then t.due_at else continue_deadlines.continued_at end
      from unnest(continue_deadlines.turns) as r
      join tasks as t on t.job_id = any(array[r.job]) and t.task = r.task || '/$deadline';
end
$$;
comment on function @extschema@.continue_deadlines(@extschema@.turn[], timestamptz) is
    'Move the deadlines of jobs to their next runs; a deadline that is claimed or stuck has passed.';


create function @extschema@.set_position(
    job         text,
    place       integer,
    started_at  timestamptz,
    told_at     timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update tasks as t
       set position = set_position.place, started_at = set_position.started_at, told_at = set_position.told_at
     where t.job_id = set_position.job
       and t.task = '1/main';
end
$$;
comment on function @extschema@.set_position(text, integer, timestamptz, timestamptz) is
    'Let the coordinator of a new job continue from a position in its journal, in the workflow time of that position.';
