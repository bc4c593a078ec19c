-- Tasks, pinned: a task that is pinned to a version of the code is on a queue of that version, which only workers of it
-- serve. So a claim remains a few exact ranges, and no worker sees a task that it must not run.

create function @extschema@.versioned_queue(queue text, version text) returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return split_part(versioned_queue.queue, '@', 1) || coalesce('@' || versioned_queue.version, '');
end
$$;
comment on function @extschema@.versioned_queue(text, text) is
    'Return the name of a queue for a version, given its name for any version; without a version, the queue itself.';


create function @extschema@.served_queues(queues text[], version text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select s.queue
          from unnest(served_queues.queues) with ordinality as q (queue, place)
         cross join lateral (
            select versioned_queue(q.queue, served_queues.version) as queue, 0 as is_any
             where served_queues.version is not null
               and not starts_with(q.queue, '$')
             union all
            select q.queue, 1) as s
         order by q.place, s.is_any);
end
$$;
comment on function @extschema@.served_queues(text[], text) is
    'Return the queues from which a worker of a version claims: for each of its queues, first what is pinned to that version.';


-- The holder of such a task is fenced: code of the version before has no effect any more, and neither has what it would
-- ask for. [P6]
create function @extschema@.repin_tasks(
    job           text,
    from_version  text,
    to_version    text,
    moved_at      timestamptz
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queues text[];
begin
    with pinned as materialized (
        select t.job_id, t.task, t.token is not null as is_held
          from tasks as t
         where t.job_id = repin_tasks.job
           and (t.kind = 'coordinator' or t.pinned_version = repin_tasks.from_version)
           and t.pinned_version is distinct from repin_tasks.to_version
         order by t.job_id, t.task
           for no key update
    ), moved as (
        update tasks as t
           set queue = versioned_queue(t.queue, repin_tasks.to_version),
               pinned_version = repin_tasks.to_version,
               in_line = false,
               token = null,
               worker = null,
               last_token = case when not p.is_held then t.last_token end,
               awaits = case when not p.is_held then t.awaits end,
               deliveries = case when p.is_held then 0 else t.deliveries end,
               due_at = case when p.is_held then repin_tasks.moved_at else t.due_at end
          from pinned as p
         where t.job_id = any(array[p.job_id])
           and t.task = p.task
        returning t.queue
    )
    select array_agg(m.queue) into queues from moved as m;
    return coalesce(queues, '{}');
end
$$;
comment on function @extschema@.repin_tasks(text, text, text, timestamptz) is
    'Pin a coordinator, and what was pinned like it, to another version or to none; return a queue for each task. [P6]';
