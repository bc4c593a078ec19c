-- Jobs that jobs have asked for: what becomes of running children when the task that asked for them has ended.

create function @extschema@.children_to_end(job text, task text, max_jobs integer) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select j.id
          from jobs as j
         where j.parent = children_to_end.job
           and j.asked_as > children_to_end.task || '/'
           and j.asked_as < children_to_end.task || '0'
           and j.status = 'running'
           and j.on_parent_end in ('cancel', 'terminate')
           and not exists (
            select
              from tasks as t
             where t.job_id = j.parent
               and t.task > children_to_end.task || '/'
               and t.task < children_to_end.task || '0'
               and starts_with(j.asked_as, t.task || '/')
            offset 0)
         limit children_to_end.max_jobs);
end
$$;
comment on function @extschema@.children_to_end(text, text, integer) is
    'Return the running children that must not continue because a task has ended: those that it asked for, or that ended tasks beneath it asked for.';


create function @extschema@.still_children(ids text[], job text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- By their ids first: a parent may have had many more.
    return array(
        select c.id
          from (select j.id, j.parent from jobs as j where j.id = any(still_children.ids) offset 0) as c
         where c.parent = still_children.job);
end
$$;
comment on function @extschema@.still_children(text[], text) is
    'Keep those of the locked jobs that are children of a job: before the lock, an id may have become that of another job.';


create function @extschema@.lock_requested(turns @extschema@.turn[]) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return lock_jobs(array(
        select c.id
          from unnest(lock_requested.turns) as r
         cross join jsonb_to_recordset(r.requests) as q (key text, kind text)
         cross join lateral (
            select j.id from jobs as j where j.parent = r.job and j.asked_as = r.task || '/' || q.key offset 0) as c
         where q.kind = 'job'), waiting => false);
end
$$;
comment on function @extschema@.lock_requested(@extschema@.turn[]) is
    'Lock the children that turns ask for and that nobody else has locked; return their ids.';


create function @extschema@.clear_on_parent_end(children text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j
       set on_parent_end = null
     where j.id = any(clear_on_parent_end.children)
       and j.on_parent_end = 'cancel';
end
$$;
comment on function @extschema@.clear_on_parent_end(text[]) is
    'Record that these jobs were asked to cancel because their parent has ended, so that they are not asked again.';


create function @extschema@.possible_askers(asked_as text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    parts text[] := string_to_array(possible_askers.asked_as, '/');
begin
    return array(select array_to_string(parts[:n], '/') from generate_series(2, cardinality(parts) - 1) as n);
end
$$;
comment on function @extschema@.possible_askers(text) is
    'Return the tasks that a request may come from, given its name: the part before any of its slashes, since keys may contain slashes.';
