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
     cross join lateral (select is_answered(p.job_id, p.task, p.key) as answered) as a
     where p.is_open and (t.task is null or a.answered)
        or not p.is_open and t.task is not null and not a.answered;
end
$$;
comment on function @extschema@.broken_items() is
    'Find open items of tasks that are gone or already answered, and resolved items of which a live task was not told (I17).';
