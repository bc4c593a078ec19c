-- Tasks of parents that end: a task ends while children run that it asked for. Their jobs are not locked at that moment,
-- and no second lock is waited for: the transaction that ends the task inserts another task that sees to them. [P8]

create function @extschema@.insert_parent_ends(turns @extschema@.turn[], ended_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queues text[];
begin
    with inserted as (
        insert into tasks as t (job_id, task, kind, name, queue, priority, due_at, detached)
        select r.job, '$parent_end/' || r.task, 'hook', '$parent_end', '$sql', 0, insert_parent_ends.ended_at, true
          from (select e.*
                  from unnest(insert_parent_ends.turns) as e
                 where exists (
                    select
                      from jobs as j
                     where j.parent = e.job
                       and j.asked_as > e.task || '/'
                       and j.asked_as < e.task || '0'
                       and j.status = 'running'
                    offset 0)
                offset 0) as r  -- rare: one look at an index tells
         where children_to_end(r.job, r.task, 1) <> '{}'
            on conflict on constraint one_task_per_name do nothing
        returning t.queue
    )
    select array_agg(distinct l.queue) into queues from inserted as l;
    return coalesce(queues, '{}');
end
$$;
comment on function @extschema@.insert_parent_ends(@extschema@.turn[], timestamptz) is
    'Insert a task for each ended task whose running children are not to continue; return the queues.';
