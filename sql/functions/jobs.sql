-- Jobs: their rows.

create function @extschema@.first_per_id(wanted @extschema@.new_job[]) returns @extschema@.new_job[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if cardinality(first_per_id.wanted) <= 1 then
        return first_per_id.wanted;
    end if;
    if cardinality(first_per_id.wanted) = (select count(distinct w.id) from unnest(first_per_id.wanted) as w) then
        return first_per_id.wanted;
    end if;
    return array(
        select distinct on ((first_per_id.wanted[place]).id collate "C") first_per_id.wanted[place]
          from generate_subscripts(first_per_id.wanted, 1) as place
         order by (first_per_id.wanted[place]).id collate "C", place);
end
$$;
comment on function @extschema@.first_per_id(@extschema@.new_job[]) is
    'Keep the first of several requests for the same id: it gets the job.';


-- A child is never older than its parent, also if the clock was set back: this is how a child is recognized.
create function @extschema@.insert_jobs(wanted @extschema@.new_job[], started_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    made text[];
begin
    with inserted as (
        insert into jobs as j (id, entity, workflow, status, context, version, args, parent, asked_as, on_parent_end,
                               headers, pinned_version, start_key, queue, priority, limit_key, timeout, created_at, updated_at)
        select w.id, w.entity, w.workflow, case when w.workflow is not null then 'running' end, w.context,
               case when w.context = '{}' then 0 else 1 end, w.args, w.parent,
               nullif(concat_ws('/', w.asker_task, w.asker_key), ''), w.on_parent_end, w.headers, w.pinned_version, w.key,
               case when w.workflow is not null then w.queue end, case when w.workflow is not null then w.priority end,
               w.limit_key, w.timeout,
               greatest(insert_jobs.started_at, (select p.created_at from jobs as p where p.id = w.parent)),
               insert_jobs.started_at
          from unnest(insert_jobs.wanted) as w
         order by w.id collate "C"
            on conflict on constraint one_job_per_id do nothing
        returning j.id
    )
    select array_agg(i.id) into made from inserted as i;
    return coalesce(made, '{}');
end
$$;
comment on function @extschema@.insert_jobs(@extschema@.new_job[], timestamptz) is
    'Insert the jobs whose ids are free, in order of id; return the ids that are new. [P1]';


create function @extschema@.was_started_by(id text, key text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (select from jobs as j where j.id = was_started_by.id and j.start_key = was_started_by.key)
        or exists (
        select
          from journal as f
         where f.job_id = was_started_by.id
           and f.task = '$run'
           and f.value ->> 'key' = was_started_by.key);
end
$$;
comment on function @extschema@.was_started_by(text, text) is
    'Tell whether a job, or any run of it, was begun by the call with this key, so that the call may be repeated. [P12]';


create function @extschema@.read_job(id text) returns @extschema@.memory
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    found_job memory;
begin
    select j.id, j.status, j.context, j.version, j.run, j.entity, j.watched
      into found_job
      from jobs as j
     where j.id = read_job.id;
    if not found then
        raise exception 'job % does not exist', quote_literal(left(read_job.id, 200))
            using errcode = 'PD401', detail = 'No job and no entity has this id.', hint = 'Check the id.';
    end if;
    return found_job;
end
$$;
comment on function @extschema@.read_job(text) is 'Read one job without a lock. Errors: PD401.';


create function @extschema@.write_memory(
    held          @extschema@.memory,
    written_at    timestamptz,
    is_unchanged  boolean default false
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if write_memory.is_unchanged then
        -- A large document, which is stored out of line, is not rewritten if the statement does not name it.
        update jobs as j
           set version = held.version, watched = held.watched, updated_at = write_memory.written_at
         where j.id = held.id;
        return;
    end if;
    update jobs as j
       set context = held.context, version = held.version, watched = held.watched, updated_at = write_memory.written_at
     where j.id = held.id;
end
$$;
comment on function @extschema@.write_memory(@extschema@.memory, timestamptz, boolean) is
    'Write the memory of a locked job once, for any number of commands; the document only if it changed.';


create function @extschema@.watch_jobs(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j set watched = true where j.id = any(watch_jobs.ids) and not j.watched;
end
$$;
comment on function @extschema@.watch_jobs(text[]) is
    'Let every writer of these memories check for those who wait for a change; the jobs are locked.';


create function @extschema@.finish_jobs(turns @extschema@.turn[], finished_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j
       set status = case r.state when 'done' then 'completed' else r.state end,
           result = case r.state when 'done' then r.value end,
           error = case when r.state <> 'done' then coalesce(r.value, '{}') end,
           started_at = (select t.started_at from tasks as t where t.job_id = r.job and t.task = r.task),
           finished_at = finish_jobs.finished_at,
           updated_at = finish_jobs.finished_at
      from unnest(finish_jobs.turns) as r
     where j.id = any(array[r.job]);
end
$$;
comment on function @extschema@.finish_jobs(@extschema@.turn[], timestamptz) is
    'Write how runs ended; their tasks are not deleted yet.';


create function @extschema@.pin_job(id text, version text) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    before text := (select j.pinned_version from jobs as j where j.id = pin_job.id);
begin
    update jobs as j
       set pinned_version = case when j.workflow is not null then pin_job.version end
     where j.id = pin_job.id;
    return before;
end
$$;
comment on function @extschema@.pin_job(text, text) is
    'Record to which version of the code the runs of a locked job are pinned; return the version before.';


create function @extschema@.pause_job(id text, paused boolean) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j set paused = pause_job.paused where j.id = pause_job.id and j.paused <> pause_job.paused;
    return found;
end
$$;
comment on function @extschema@.pause_job(text, boolean) is
    'Record that a locked job is paused, or not any more; return false if nothing changes.';


create function @extschema@.forget_job_rows(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from jobs as j where j.id = any(forget_job_rows.ids);
end
$$;
comment on function @extschema@.forget_job_rows(text[]) is 'Delete jobs that nothing else belongs to any more.';


create function @extschema@.refuse_new_id() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(make_failure(
        'PD107', 'InvalidArgument', format('the id of job %s cannot be changed', quote_literal(left(old.id, 200))),
        'Its history, its tasks and its children are found by its id.',
        'Create another job with fork(), or a memory with another id with entity_create().'));
    return null;
end
$$;
comment on function @extschema@.refuse_new_id() is 'Refuse a plain UPDATE of the id of a job (PD107).';


-- forget() deletes a job last, when nothing is left of it; a batch of such jobs costs one look for each. A user's own
-- DELETE runs with the user's settings, so they are set here, as on the entry points of the app.
create function @extschema@.refuse_delete() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    id text := (
        select d.id
          from deleted as d
         where exists (select from journal as f where f.job_id = d.id offset 0)
            or exists (select from tasks as t where t.job_id = d.id offset 0)
         limit 1);
begin
    if id is not null then
        perform raise_failure(make_failure(
            'PD107', 'InvalidArgument', format('job %s cannot be deleted as a row', quote_literal(left(id, 200))),
            'Its history and its tasks would remain, and belong to the next job with this id.',
            'Call forget() when it has ended; terminate() ends it.'));
    end if;
    return null;
end
$$;
comment on function @extschema@.refuse_delete() is 'Refuse a plain DELETE of jobs to which something belongs (PD107).';
