-- The journal of a job that runs again: how its runs began, and what earlier runs were told.

-- The result of the run before is stored nowhere else once the row of the job describes the next run.
create function @extschema@.append_runs(
    ids      text[],
    reasons  text[],
    before   jsonb[],
    at       timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, name, value, argument, at)
    select j.id, '$run', j.run, 'run', b.reason, b.before, j.args, append_runs.at
      from unnest(append_runs.ids, append_runs.reasons, append_runs.before) as b (id, reason, before)
      join jobs as j on j.id = any(array[b.id]);
end
$$;
comment on function @extschema@.append_runs(text[], text[], jsonb[], timestamptz) is
    'Record in the journal that runs have begun: why, with which arguments, and how the runs before them ended.';


create function @extschema@.forget_runs(id text, run integer, max_rows integer) returns integer
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    forgotten integer;
begin
    delete from journal as f
     where f.job_id = forget_runs.id
       and (f.task, f.seq) in (
        select g.task, g.seq
          from journal as g
         where g.job_id = forget_runs.id
           and g.version is null
           and g.task ~ '^[0-9]+/'
           and split_part(g.task, '/', 1)::integer < forget_runs.run
           and not exists (select from tasks as t where t.job_id = g.job_id and t.task = g.task offset 0)
         limit forget_runs.max_rows);
    get diagnostics forgotten = row_count;
    return forgotten;
end
$$;
comment on function @extschema@.forget_runs(text, integer, integer) is
    'Delete part of the journal of the runs before a run. Commands stay, since the memory is made of them, and so does the journal of a hook that still cleans up.';


create function @extschema@.journal_length(job text, task text) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce((select max(f.seq) from journal as f where f.job_id = journal_length.job and f.task = journal_length.task), 0);
end
$$;
comment on function @extschema@.journal_length(text, text) is 'Return how many facts a task was told.';


-- A copied command is not a command of the new job: its effect is in the document that the job begins with. Large values
-- that were read are written out, since the new job has another history.
create function @extschema@.copy_journal(
    job      text,
    task     text,
    new_job  text,
    upto     bigint
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, key, name, fingerprint, ok, value, op, path, argument, at, is_answer)
    select copy_journal.new_job, '1/main', f.seq, f.kind, f.key, f.name, f.fingerprint, f.ok, coalesce(f.value, r.value),
           f.op, f.path, case when f.kind <> 'read' then f.argument end, f.at, f.is_answer
      from journal as f
      left join large_reads(copy_journal.job, copy_journal.task, 0, copy_journal.upto::integer) as r on r.seq = f.seq
     where f.job_id = copy_journal.job
       and f.task = copy_journal.task
       and f.seq <= copy_journal.upto;
end
$$;
comment on function @extschema@.copy_journal(text, text, text, bigint) is
    'Copy the journal of a coordinator up to a position to the coordinator of a new job.';


-- They keep the names of those who wrote them, but not the keys: those would keep the fork from writing its own.
create function @extschema@.copy_logs(
    job        text,
    upto       bigint,
    held       @extschema@.memory,
    copied_at  timestamptz
) returns bigint
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    copied bigint;
begin
    insert into journal (job_id, task, seq, kind, name, value, version, op, path, argument, at)
    select held.id, '$outside', held.version + g.place, 'command', coalesce(g.name, g.task), to_jsonb(held.version + g.place),
           held.version + g.place, 'log', g.path, g.argument, copy_logs.copied_at
      from (select f.name, nullif(f.task, '$outside') as task, f.path, f.argument, row_number() over (order by f.version) as place
              from journal as f
             where f.job_id = copy_logs.job
               and f.op = 'log'
               and f.version <= copy_logs.upto) as g;
    get diagnostics copied = row_count;
    return held.version + copied;
end
$$;
comment on function @extschema@.copy_logs(text, bigint, @extschema@.memory, timestamptz) is
    'Give the memory of a locked job the logs that another had at a version; return the version that it then has.';
