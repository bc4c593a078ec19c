-- Jobs, asked for by jobs: what becomes of those that run when who asked for them has ended.

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
    'Name children that run and are not to go on when a task has ended that asked for them, or beneath which they were asked for by who has ended too.';


create function @extschema@.part_from_parent(children text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j
       set on_parent_end = null
     where j.id = any(part_from_parent.children)
       and j.on_parent_end = 'cancel';
end
$$;
comment on function @extschema@.part_from_parent(text[]) is
    'Take note that these jobs were asked to cancel because their parent has ended: they are not asked again.';


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
    'Name the tasks that a request may come from, given its name: what stands before any of its slashes, since keys may have some.';
