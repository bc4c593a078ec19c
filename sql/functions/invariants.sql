-- Invariants: the laws of the tables, checked at any moment in one snapshot. No row means that all of them hold. [P8]

create function @extschema@.broken_memories() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I1', j.id, null::text,
           format('version %s, but %s commands in the journal, the latest %s', j.version, v.commands, v.latest)
      from jobs as j
     cross join lateral (
        select count(*) as commands, coalesce(max(f.version), 0) as latest
          from journal as f
         where f.job_id = j.id
           and f.version is not null) as v
     where j.version <> v.commands
        or j.version <> v.latest
    union all
    select 'I2', j.id, null, format('%s snapshots up to version %s', k.kept, j.version)
      from jobs as j
     cross join lateral (
        select count(*) as kept, coalesce(bool_and(s.version % 100 = 0 and s.version <= j.version), true) as fit
          from snapshots as s
         where s.job_id = j.id) as k
     where k.kept <> j.version / 100
        or not k.fit
    union all
    -- Unpacked by #>, since the stored value is compressed.
    select 'I14', j.id, null, format('the memory has %s bytes', pg_column_size(j.context #> '{}'))
      from jobs as j
     where pg_column_size(j.context #> '{}') > 8388608;
end
$$;
comment on function @extschema@.broken_memories() is
    'Find memories whose version is not the number of their commands (I1), that lack a snapshot (I2), or are too large (I14).';


create function @extschema@.broken_runs() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I3', j.id, null::text, 'a running job has no coordinator'
      from jobs as j
     where j.status = 'running'
       and not exists (select from tasks as t where t.job_id = j.id and t.task = j.run::text || '/main' and t.kind = 'coordinator')
    union all
    select 'I4', t.job_id, t.task, 'the run of a task has ended'
      from tasks as t
      join jobs as j on j.id = t.job_id
     where t.task ~ '^[0-9]+/'
       and not is_cleaning_up(t.job_id, t.task, split_part(t.task, '/', 1) || '/main')
       and (j.finished_at is not null or split_part(t.task, '/', 1) <> j.run::text)
    union all
    select 'I7', j.id, null, format('the job has a timeout of %s, but no deadline', j.timeout)
      from jobs as j
     where j.status = 'running'
       and j.timeout is not null
       and not exists (select from tasks as t where t.job_id = j.id and t.task = j.run::text || '/main/$deadline')
    union all
    select 'I18', j.id, null, format('the beginnings of %s later runs are recorded, but the last is run %s', k.recorded, j.run)
      from jobs as j
     cross join lateral (
        select count(*) as recorded
          from journal as f
         where f.job_id = j.id
           and f.task = '$run'
           and f.seq between 2 and j.run) as k
     where j.run > 1
       and k.recorded <> j.run - 1
    union all
    select 'I24', t.job_id, t.task, format('its version is %s, that of its job %s', t.pinned_version, j.pinned_version)
      from tasks as t
      join jobs as j on j.id = t.job_id
     where t.kind = 'coordinator'
       and t.pinned_version is distinct from j.pinned_version
    union all
    select 'I4', i.job_id, i.task, format('message %s is addressed to a task that is gone', i.id)
      from inbox as i
     where i.task <> '$taken'
       and not exists (select from tasks as t where t.job_id = i.job_id and t.task = i.task)
    union all
    select 'I20', o.job_id, o.task, format('a row of %s belongs to a job that does not exist', o.place)
      from (select 'tasks' as place, t.job_id, t.task from tasks as t
             union all select 'inbox', i.job_id, i.task from inbox as i
             union all select 'journal', f.job_id, f.task from journal as f
             union all select 'items', p.job_id, p.task from items as p
             union all select 'snapshots', s.job_id, null from snapshots as s) as o
     where not exists (select from jobs as j where j.id = o.job_id);
end
$$;
comment on function @extschema@.broken_runs() is
    'Find running jobs without a coordinator (I3) or deadline (I7), remains of runs that have ended (I4), runs without a record of how they began (I18), coordinators of another version than their job (I24), and rows without a job (I20).';


create function @extschema@.broken_waits() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I6', c.job_id, c.task,
           case when t.task is null then 'a condition is awaited by a task that is gone'
                when not j.watched then 'a condition is awaited, but the writers of the memory do not check it'
                else format('a condition holds and its task was not told: %s', c.condition) end
      from conditions as c
      left join jobs as j on j.id = c.job_id
      left join tasks as t on t.job_id = c.job_id and t.task = c.task
     where t.task is null
        or j.watched is not true
        or fulfils(j.context, c.condition);
end
$$;
comment on function @extschema@.broken_waits() is
    'Find conditions that nobody waits for, that writers overlook, or that are already met (I6).';


create function @extschema@.broken_tasks() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return query
    select 'I8', t.job_id, t.task, format('the lease of %s ends at %s: no lease is that long', t.worker, t.due_at)
      from tasks as t
     where t.token is not null
       and t.due_at > now_at + interval '24 hours'
    union all
    select 'I9', t.job_id, t.task, format('%s deliveries without progress', t.deliveries)
      from tasks as t
     where t.deliveries > max_deliveries() + 1
       and t.stuck_reason is null
    union all
    select 'I10', t.job_id, t.task, format('position %s, but %s rows in the journal up to %s', t.position, v.facts, v.latest)
      from tasks as t
     cross join lateral (
        select count(*) as facts, coalesce(max(f.seq), 0) as latest
          from journal as f
         where f.job_id = t.job_id
           and f.task = t.task) as v
     where t.position <> v.facts
        or t.position <> v.latest
    union all
    select 'I11', t.job_id, t.task, 'nobody waits for the answer: its asker is gone'
      from tasks as t
     where t.asker_job = t.job_id
       and not exists (select from tasks as a where a.job_id = t.asker_job and a.task = t.asker_task)
       and not is_cleaning_up(t.job_id, t.task, t.asker_task);
end
$$;
comment on function @extschema@.broken_tasks() is
    'Find tasks that are leased longer than a lease may be (I8), are delivered too often (I9), have a position that is not the length of their journal (I10), or have lost their asker (I11).';


-- Whatever the statistics say, no plan may read a table once for each row of another.
create function @extschema@.assert_invariants() returns setof @extschema@.broken_invariant
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set enable_nestloop = off
set jit = off
as $$
begin
    return query
    select * from broken_memories()
    union all
    select * from broken_runs()
    union all
    select * from broken_waits()
    union all
    select * from broken_tasks()
    union all
    select * from broken_parked_tasks()
    union all
    select * from broken_schedules()
    union all
    select * from broken_items()
    union all
    select * from broken_families()
    union all
    select * from broken_queues()
    union all
    select * from broken_messages()
    union all
    select * from broken_tables();
end
$$;
comment on function @extschema@.assert_invariants() is
    'Return every broken invariant of the tables with its code; no row means that all is well. Reads one snapshot and locks nothing. [P8]';


create function @extschema@.broken_history(id text) returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    document jsonb := '{}'::jsonb;
    here bigint := 0::bigint;
    kept record;
begin
    -- A loop: the document at one snapshot is made of that at the snapshot before.
    for kept in
        select 'I2' as code, s.version, (nearest_snapshot(s.job_id, s.version)).context
          from snapshots as s
         where s.job_id = broken_history.id
         union all
        select 'I1', j.version, j.context from jobs as j where j.id = broken_history.id
         order by 2, 1 desc
    loop
        document := replay_commands(document, broken_history.id, here, kept.version);
        here := greatest(here, kept.version);
        if document::text <> kept.context::text then
            return next (kept.code, broken_history.id, null, format(
                'the commands up to version %s do not make the document that stands there', kept.version))::broken_invariant;
        end if;
    end loop;
exception
    when data_corrupted then
        return next ('I1', broken_history.id, null, sqlerrm)::broken_invariant;
end
$$;
comment on function @extschema@.broken_history(text) is
    'Recompute a memory from its first command; return which snapshots (I2), or whether the present document (I1), differ.';


create function @extschema@.assert_histories(after text default '', max_jobs integer default 1000)
returns setof @extschema@.broken_invariant
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform check_rows(assert_histories.max_jobs);
    return query
    select b.*
      from (select j.id
              from jobs as j
             where j.id > coalesce(assert_histories.after, '')
             order by j.id
             limit assert_histories.max_jobs) as page
     cross join lateral broken_history(page.id) as b;
end
$$;
comment on function @extschema@.assert_histories(text, integer) is
    'Return the memories of a page of jobs, in order of id, that are not the sum of their commands; no row means that all of them are. For the next page, give the last id of a page. Errors: PD107. [P3]';
