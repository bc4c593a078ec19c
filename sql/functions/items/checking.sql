-- Items, checked: somebody waits for an open item, and the task was told of a resolved one. [P8]

create function @extschema@.broken_items() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I17', p.job_id, p.task,
           format(case when t.task is null then 'item %s was asked by a task that is gone'
                       when p.is_open then 'item %s is open, but has an answer'
                       else 'item %s is resolved, but its task was not told' end, p.id)
      from items as p
      left join tasks as t on t.job_id = p.job_id and t.task = p.task
     where case when t.task is null then p.is_open else p.is_open = is_answered(p.job_id, p.task, p.key) end;
end
$$;
comment on function @extschema@.broken_items() is
    'Find open items of tasks that are gone or already answered, and resolved items of which a live task was not told (I17).';
