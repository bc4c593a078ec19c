-- Retention: deleting jobs that nobody needs any more, each as a whole, with its memory, history and messages. [P13]

-- A live task asks again for what it has begun when it runs again. Its inbox or journal shows that a child has answered.
-- Of a detached child nothing is told: only the job itself shows that it was begun. [P1]
create function @extschema@.is_at_work(id text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (select from tasks as t where t.job_id = is_at_work.id)
        or exists (select from jobs as child where child.parent = is_at_work.id and child.status = 'running')
        or exists (
            select
              from (select c.parent, c.asked_as from jobs as c where c.id = is_at_work.id offset 0) as j
             cross join unnest(possible_askers(j.asked_as)) as a (task)
             cross join lateral (select from tasks as t where t.job_id = j.parent and t.task = a.task offset 0) as t
             where not is_answered(j.parent, a.task, substr(j.asked_as, length(a.task) + 2)));
end
$$;
comment on function @extschema@.is_at_work(text) is
    'Tell whether a job has a live task, or a running child whose answer would go to the next job of this id; or whether a live task asked for it and would begin it again.';


create function @extschema@.forget_jobs(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform forget_all_messages(forget_jobs.ids);
    perform forget_items(forget_jobs.ids);
    perform forget_journals(forget_jobs.ids);
    perform forget_snapshots(forget_jobs.ids);
    perform forget_job_rows(forget_jobs.ids);
end
$$;
comment on function @extschema@.forget_jobs(text[]) is
    'Delete locked jobs without tasks, with all that belongs to them.';


-- A deferred constraint of a user is checked now. The delete that this is tried on is undone, and so is the effect on
-- other constraints of the caller.
create function @extschema@.may_be_forgotten(ids text[]) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform forget_jobs(may_be_forgotten.ids);
    set constraints all immediate;
    raise savepoint_exception;
exception
    when savepoint_exception then
        return true;
    when foreign_key_violation or restrict_violation then
        return false;
end
$$;
comment on function @extschema@.may_be_forgotten(text[]) is
    'Tell whether locked jobs can be deleted, by deleting them and undoing that: false if a foreign key of a user keeps any of them.';


-- A foreign key that does not say what happens when the job is deleted means that the job must stay.
create function @extschema@.forget_unless_kept(ids text[]) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    unkept text[] := forget_unless_kept.ids;
begin
    if exists (select from pg_trigger as t where t.tgrelid = 'jobs'::regclass and t.tgconstrrelid <> 0)
        and not may_be_forgotten(forget_unless_kept.ids) then
        unkept := array(select id from unnest(forget_unless_kept.ids) as id where may_be_forgotten(array[id]));
    end if;
    perform forget_jobs(unkept);
    return unkept;
end
$$;
comment on function @extschema@.forget_unless_kept(text[]) is
    'Delete those of some locked jobs without tasks that no foreign key of a user keeps; return which.';


create function @extschema@.forget(id text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if not lock_to_forget(forget.id) then
        return false;
    end if;
    if is_at_work(forget.id) then
        raise exception 'job % is at work', quote_literal(forget.id)
            using errcode = 'PD407',
                  detail = 'A task of it is alive and would lose its memory; or a child of it runs; or the task that began it is alive and would begin it again.',
                  hint = 'Wait until they have finished, or terminate() them first.';
    end if;
    perform forget_jobs(array[forget.id]);
    return true;
end
$$;
comment on function @extschema@.forget(text) is
    'Delete a finished job or an entity with its memory and its whole history; return false if there is none. Errors: PD407 (a task or child of it is alive, or the task that asked for it is alive and has no answer). A foreign key of yours may refuse it, as any delete.';


-- Nothing is sorted: even a plan that was made while there were few jobs follows the index by age.
create function @extschema@.forget_finished(
    before    timestamptz,
    entity    text     default null,
    max_jobs  integer  default 1000
) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_sort = off
as $$
declare
    found_now text[];
    reached_at timestamptz := '-infinity'::timestamptz;
    passed text[] := '{}'::text[];
    forgotten text[];
begin
    perform check_rows(forget_finished.max_jobs);
    -- An age that was added to the time, not subtracted, would delete everything.
    if forget_finished.before > clock() + interval '1 day' and forget_finished.before < 'infinity' then
        raise exception 'the time % is in the future', forget_finished.before
            using errcode = 'PD107',
                  detail = 'All jobs that have finished would be forgotten.',
                  hint = 'Subtract the age from the present. If you mean all jobs, give infinity.';
    end if;
    -- A loop: a page of which nothing is deleted is not the last one, and the next begins where it ends. Jobs that began
    -- later than the given time have not finished before it, so the index by age ends the search. A job that somebody has
    -- locked, or refers to in an open transaction, is skipped until the next time.
    loop
        found_now := array(
            select j.id
              from jobs as j
             where j.workflow is not null
               and j.created_at >= reached_at
               and j.created_at < forget_finished.before
               and j.finished_at < forget_finished.before
               and (forget_finished.entity is null or j.entity = forget_finished.entity)
               and j.id <> all(passed)
               and not is_at_work(j.id)
             order by j.created_at
             limit least(forget_finished.max_jobs, 10000)
               for update skip locked);
        -- Checked again under the locks: a hook may have begun meanwhile.
        forgotten := forget_unless_kept(array(select id from unnest(found_now) as id where not is_at_work(id)));
        exit when found_now = '{}' or forgotten <> '{}';
        -- Of jobs that began at the same time, some may have been passed and others not.
        passed := passed || found_now;
        reached_at := (select max(j.created_at) from jobs as j where j.id = any(found_now));
        passed := array(select j.id from jobs as j where j.id = any(passed) and j.created_at = reached_at);
    end loop;
    return cardinality(forgotten);
end
$$;
comment on function @extschema@.forget_finished(timestamptz, text, integer) is
    'Delete jobs that finished before a time, oldest first, at most max_jobs; return how many. Call it again until it returns 0. It keeps entities, jobs with a live task or a running child, jobs that would be begun again, and jobs that a foreign key of yours refers to. Errors: PD107 (also if the time is more than a day in the future, and not infinity).';
