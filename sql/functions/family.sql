-- Families: children whose parent has ended, and the descendants of a job.

create function @extschema@.cancel_children(children text[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    child record;
    queues text[] := '{}'::text[];
begin
    -- A loop: each job's message needs its own identity.
    for child in
        select j.id, array[j.run::text || '/main'] as coordinator
          from jobs as j
         where j.id = any(cancel_children.children)
           and j.status = 'running'
           and j.on_parent_end = 'cancel'
         order by j.id
    loop
        perform insert_cancel_requests(child.id, child.coordinator, '"the parent has ended"', cancel_children.asked_at);
        queues := queues || lift_pause(child.id) || wake_cancelled(child.id, child.coordinator, cancel_children.asked_at);
    end loop;
    perform clear_on_parent_end(cancel_children.children);
    return queues;
end
$$;
comment on function @extschema@.cancel_children(text[], timestamptz) is
    'Ask those of these locked jobs to cancel that are to be cancelled with their parent, once; return the queues of what was woken.';


create function @extschema@.terminate_children(children text[], ended_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn[] := array(
        select terminated_turn(j.id, j.run, 'the parent has ended')
          from jobs as j
         where j.id = any(terminate_children.children)
           and j.status = 'running'
           and j.on_parent_end = 'terminate');
    freed text[] := '{}'::text[];
begin
    if ended <> '{}' then
        ended := ended || turns_of_earlier_runs(ended);
        freed := freed_queues(ended, terminate_children.ended_at);
        perform end_tasks(ended, terminate_children.ended_at);
    end if;
    return freed || array(
        select distinct t.topic || r.job from unnest(ended) as r cross join unnest('{$job/,$memory/}'::text[]) as t (topic));
end
$$;
comment on function @extschema@.terminate_children(text[], timestamptz) is
    'End those of these locked jobs that are to be terminated with their parent; return whom to notify.';


-- The parent is locked first, then as many children as nobody else has locked, so that no second lock is waited for.
-- Children that were missed are looked for again. Their parent is read under their locks: a child may have ended, and its
-- id may now belong to a child of another job. No task of the locked parent can have asked for it.
create function @extschema@.end_children(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    parent text := substr(end_children.task, length('$parent_end/') + 1);
    children text[];
    held turn;
    ended_at timestamptz;
begin
    perform lock_jobs(array[end_children.job], waiting => true);
    children := lock_jobs(children_to_end(end_children.job, parent, 100), waiting => false);
    children := still_children(children, end_children.job);
    held := lock_held_task(end_children.job, end_children.task, end_children.token);
    ended_at := clock();
    if held.job is null then
        return 'gone';
    end if;
    perform notify_listeners(cancel_children(children, ended_at) || terminate_children(children, ended_at));
    if children_to_end(held.job, parent, 1) <> '{}' then
        perform give_back_task(held, ended_at + case when children = '{}' then interval '1 s' else '0 s' end);
        return 'retry';
    end if;
    perform delete_tasks(array[held]);
    return 'done';
end
$$;
comment on function @extschema@.end_children(text, text, uuid) is
    'Cancel or terminate up to a hundred children of a task that has ended; return done if that was all, else retry, or gone. [P6] [P12]';


-- A job that was forgotten may exist again beneath one of its own former children.
create function @extschema@.family(id text, max_rows integer default 10000) returns setof @extschema@.relative
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    head memory := read_job(family.id);
begin
    perform check_rows(family.max_rows);
    return query
    with recursive descendants as (
        select j.id, array[j.id] as ancestry
          from jobs as j
         where j.id = head.id
        union all
        select c.id, l.ancestry || c.id
          from descendants as l
          join jobs as c on c.parent = l.id
         where c.id <> all(l.ancestry)
    )
    select j.id, j.parent, cardinality(l.ancestry) - 1, j.workflow, j.status::text, j.asked_as, j.on_parent_end::text,
           j.created_at, j.finished_at
      from descendants as l
      join jobs as j on j.id = l.id
     order by l.ancestry
     limit family.max_rows;
end
$$;
comment on function @extschema@.family(text, integer) is
    'Return a job and all its descendants, each after its parent, with the request that made it and what happens to it at its parent''s end. Errors: PD107, PD401.';
