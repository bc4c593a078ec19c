-- Tasks under REPEATABLE READ or SERIALIZABLE, where all statements of a transaction have one snapshot. The lock of a job
-- does not refresh it. What a message leaves behind shows that it is too old: who sends one from a task writes the row of
-- that task, who changes a memory, requests a hook or asks to cancel writes the row of the job, and who resolves an item
-- writes the item. A signal leaves nothing.

create function @extschema@.sees_commits() returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return current_setting('transaction_isolation') not in ('repeatable read', 'serializable');
end
$$;
comment on function @extschema@.sees_commits() is
    'Tell whether a statement of this transaction sees what others have committed since the statement before.';


-- A task that has parked since the snapshot has not written the row of the job, but its own row. To lock that row is
-- refused with 40001, and the caller tries again with a new snapshot.
create function @extschema@.check_snapshot(jobs text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if sees_commits() then
        return;
    end if;
    perform
       from tasks as t
      where t.job_id = any(check_snapshot.jobs)
      order by t.job_id, t.task
        for no key update;
end
$$;
comment on function @extschema@.check_snapshot(text[]) is
    'Refuse to wake tasks with a snapshot that is older than the last change of a task of these jobs: 40001. [P5]';


-- The answer of a child leaves nothing behind in the rows of its parent, and an older snapshot does not show it. But the
-- task that the child had is gone, and to lock it is refused with 40001.
create function @extschema@.check_children(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform
       from unnest(check_children.turns) as r
      cross join lateral (
        select
          from tasks as c
         where c.asker_job = r.job
           and c.asker_task >= r.task
           and c.asker_task < r.task || '0'
           and (c.asker_task = r.task or c.asker_task > r.task || '/')
           and c.asker_job <> c.job_id
           for key share) as w;
end
$$;
comment on function @extschema@.check_children(@extschema@.turn[]) is
    'Refuse to end tasks with a snapshot that does not show the answer of a child that they, or tasks beneath them, wait for: 40001. [P5]';


-- Whoever sends a signal to a held task writes no row but that of the signal. A later statement of the parking transaction
-- would not see it either.
create function @extschema@.refuse_blind_park(turns @extschema@.turn[], arrivals @extschema@.arrival[]) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    blind record;
begin
    select r.job, r.task, case r.state when 'done' then 'end' else 'park' end as deed
      into blind
      from unnest(refuse_blind_park.turns) as r
     where (r.state = 'park' or r.state = 'done' and r.kind = 'coordinator' and r.awaits <> '{}')
       and not exists (select from unnest(refuse_blind_park.arrivals) as a where a.turn = r.number)
     limit 1;
    if found then
        perform raise_failure(make_failure(
            'PD107', 'InvalidArgument',
            format('task %s of job %s cannot %s in this transaction', quote_literal(blind.task), quote_literal(blind.job), blind.deed),
            'Its transaction has one snapshot: a message that was sent since would not be seen, and nobody would take it.',
            format('Keep the task, and let it %s in a transaction that is READ COMMITTED.', blind.deed)));
    end if;
end
$$;
comment on function @extschema@.refuse_blind_park(@extschema@.turn[], @extschema@.arrival[]) is
    'Refuse to park a task for which nothing has arrived, or to end a job unless a signal has come, in a transaction with one snapshot for all its statements (PD107). [P5]';
