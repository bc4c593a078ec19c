-- Leases: renewed by heartbeats, or given back by a worker that stops.

create function @extschema@.refuse_leases(tasks jsonb) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(failure_among(j.failure, 'task', h.place, jsonb_array_length(refuse_leases.tasks),
                                        concat_ws(' of job ', h.held ->> 'task', h.held ->> 'job')))
       from jsonb_array_elements(refuse_leases.tasks) with ordinality as h (held, place)
      cross join lateral coalesce(unnamed_task_failure(h.held, 'a task'),
                                  unreadable_failure(jsonb_build_object('token', h.held -> 'token'), 'a task')) as j (failure)
      where j.failure is not null
      order by h.place;
end
$$;
comment on function @extschema@.refuse_leases(jsonb) is
    'Return which of some leases names no job, task or token, or cannot be read (PD107).';


-- Which one it is is looked up only if there is one; nothing is written in this block.
create function @extschema@.check_leases(tasks jsonb) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_list(check_leases.tasks, 'tasks');
    perform check_tasks(check_leases.tasks);
    perform
       from jsonb_to_recordset(check_leases.tasks) as h (job text, task text, token uuid)
      where num_nulls(h.job, h.task, h.token) > 0;
    if found then
        perform refuse_leases(check_leases.tasks);
    end if;
exception
    when data_exception then
        perform refuse_leases(check_leases.tasks);
        raise;
end
$$;
comment on function @extschema@.check_leases(jsonb) is
    'Refuse what is not an array of objects, or contains no valid lease (PD107), or a queue that the role that logged in does not serve (PD115).';


create function @extschema@.extend(tasks jsonb, lease_for interval default '30 s') returns json
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform check_lease(extend.lease_for);
    perform check_leases(extend.tasks);
    perform mark_workers_seen(array(
        select distinct t.worker
          from jsonb_to_recordset(extend.tasks) as h (job text, task text, token uuid)
          join tasks as t on t.job_id = any(array[h.job]) and t.task = h.task and t.token = h.token));
    return renew_leases(extend.tasks, time_after(clock(), extend.lease_for));
end
$$;
comment on function @extschema@.extend(jsonb, interval) is
    'Renew the leases of [{job, task, token, progress}]; return for each held, busy (locked now, still held) or lost, whether it is asked to cancel, and an error if the progress cannot be stored (PD30x). Errors: PD107, PD115.';


create function @extschema@.release(tasks jsonb) returns json
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    queues text[];
begin
    perform check_leases(release.tasks);
    queues := give_back_tasks(release.tasks, clock());
    -- By the time after the locks: more may have become due since.
    perform notify_listeners(queues || queues_that_want_slots(queues, clock()));
    return coalesce((
        select json_agg(json_build_object('job', g.job, 'task', g.task,
                                          'state', case when t.last_token = g.token and t.token is null then 'released'
                                                        else 'lost' end) order by g.ordinality)
          from rows from (jsonb_to_recordset(release.tasks) as (job text, task text, token uuid)) with ordinality as g
          left join tasks as t on t.job_id = any(array[g.job]) and t.task = g.task), '[]');
end
$$;
comment on function @extschema@.release(jsonb) is
    'Give back the leases of [{job, task, token, progress}], so that others may claim the tasks at once; return released or lost for each. Errors: PD107, PD115.';
