-- Tasks, leased: renewed by heartbeats, or given back by a worker that stops. Both may report the progress of a task,
-- which the next holder gets if this one is lost.

create function @extschema@.progress_failure(progress jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if octet_length(progress_failure.progress::text) > 10000 then
        return make_failure(
            'PD301', 'ValueTooLarge', 'the progress is too large',
            format('It has %s bytes as JSON; at most 10000 are allowed.', octet_length(progress_failure.progress::text)),
            'Report a place to continue from, and keep results in the memory.');
    end if;
    return value_failure(progress_failure.progress, 'the progress');
end
$$;
comment on function @extschema@.progress_failure(jsonb) is
    'Return what is wrong with the progress of a task (PD301 size, PD302 depth, PD304 number), or null.';


create function @extschema@.renew_leases(tasks jsonb, lease_until timestamptz) returns json
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    renewed json;
begin
    with given as materialized (
        select h.job, h.task, h.token, h.progress, progress_failure(h.progress) as failure, h.ordinality as place
          from rows from (jsonb_to_recordset(renew_leases.tasks) as (job text, task text, token uuid, progress jsonb))
               with ordinality as h
    ), held as materialized (
        select t.job_id, t.task, a.place, case when a.failure is null then a.progress end as progress
          from given as a
         cross join lateral (
            select g.job_id, g.task
              from tasks as g
             where g.job_id = a.job
               and g.task = a.task
               and g.token = a.token
               for no key update skip locked
         ) as t
    ), moved as (
        update tasks as t
           set due_at = renew_leases.lease_until,
               progress = coalesce(h.progress, t.progress)
          from held as h
         where t.job_id = any(array[h.job_id])
           and t.task = h.task
        returning h.place
    )
    select coalesce(json_agg(jsonb_build_object(
               'job', a.job, 'task', a.task,
               'state', case when m.place is not null then 'held' when t.token = a.token then 'busy' else 'lost' end,
               'cancel', exists (select
                                   from inbox as i
                                  where i.job_id = a.job and i.task = a.task and i.key = '$cancel' and i.consumed_at is null
                                 offset 0))
               || case when a.failure is null then '{}' else jsonb_build_object('error', a.failure) end
               order by a.place), '[]')
      into renewed
      from given as a
      left join moved as m on m.place = a.place
      left join tasks as t on t.job_id = any(array[a.job]) and t.task = a.task;
    return renewed;
end
$$;
comment on function @extschema@.renew_leases(jsonb, timestamptz) is
    'Extend leases that are still held, and record the progress of their tasks; rows that somebody else has locked are skipped and stay held.';


create function @extschema@.give_back_tasks(tasks jsonb, given_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queues text[];
begin
    with held as materialized (
        select t.job_id, t.task, case when progress_failure(h.progress) is null then h.progress end as progress
          from (select *
                  from jsonb_to_recordset(give_back_tasks.tasks) as said (job text, task text, token uuid, progress jsonb)
                 order by said.job collate "C", said.task collate "C") as h
         cross join lateral (
            select g.job_id, g.task
              from tasks as g
             where g.job_id = h.job
               and g.task = h.task
               and g.token = h.token
               for no key update
         ) as t
    ), moved as (
        update tasks as t
           set due_at = give_back_tasks.given_at,
               deliveries = 0,
               last_token = t.token,
               token = null,
               worker = null,
               awaits = null,
               progress = coalesce(h.progress, t.progress)
          from held as h
         where t.job_id = any(array[h.job_id])
           and t.task = h.task
        returning t.queue
    )
    select array_agg(m.queue) into queues from moved as m;
    return coalesce(queues, '{}');
end
$$;
comment on function @extschema@.give_back_tasks(jsonb, timestamptz) is
    'End leases before their time, and record the progress of their tasks; return a queue for each task that was given back.';


create function @extschema@.task_was_given_back(job text, task text, token uuid) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from tasks as t
         where t.job_id = task_was_given_back.job
           and t.task = task_was_given_back.task
           and t.last_token = task_was_given_back.token
           and t.token is null);
end
$$;
comment on function @extschema@.task_was_given_back(text, text, uuid) is
    'Tell whether a holder has given a task back and nobody has claimed it since, so that the call may be repeated. [P12]';


create function @extschema@.give_back_task(
    held     @extschema@.turn,
    due_at   timestamptz,
    failure  jsonb default null
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update tasks as t
       set due_at = give_back_task.due_at,
           attempt = t.attempt + case when give_back_task.failure is null then 0 else 1 end,
           failure = coalesce(give_back_task.failure, t.failure),
           deliveries = 0,
           last_token = t.token,
           token = null,
           worker = null,
           awaits = null
     where t.job_id = held.job
       and t.task = held.task;
end
$$;
comment on function @extschema@.give_back_task(@extschema@.turn, timestamptz, jsonb) is
    'Give a held task back until a time; with a failure if that was an attempt of it.';


create function @extschema@.park_schedule_task(
    job           text,
    task          text,
    due_at        timestamptz,
    until         timestamptz,
    args          jsonb,
    stuck_reason  jsonb
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update tasks as t
       set due_at = park_schedule_task.due_at,
           until = coalesce(park_schedule_task.until, t.until),
           args = coalesce(park_schedule_task.args, t.args),
           stuck_reason = park_schedule_task.stuck_reason,
           in_line = false,
           deliveries = 0,
           last_token = coalesce(t.token, t.last_token),
           token = null,
           worker = null
     where t.job_id = park_schedule_task.job
       and t.task = park_schedule_task.task;
end
$$;
comment on function @extschema@.park_schedule_task(text, text, timestamptz, timestamptz, jsonb, jsonb) is
    'Let a task of the database itself wait for a time, or for somebody to resume it, and fence its holder. Nulls leave its deadline and arguments as they are. [P6]';
