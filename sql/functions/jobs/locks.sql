-- Jobs, locked: the row lock that serializes everything about one job. Law: a mutator locks its jobs first, in order of
-- id, in a statement of its own; then it reads the clock; then it reads.

create function @extschema@.lock_job(id text) returns @extschema@.memory
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held memory;
begin
    select j.id, j.status, j.context, j.version, j.run, j.entity, j.watched
      into held
      from jobs as j
     where j.id = lock_job.id
       for no key update;
    if not found then
        raise exception 'job % does not exist', quote_literal(left(lock_job.id, 200))
            using errcode = 'PD401',
                  detail = 'No job and no entity has this id.',
                  hint = 'Check the id, or start() the workflow or entity_create() the entity first.';
    end if;
    return held;
end
$$;
comment on function @extschema@.lock_job(text) is 'Lock one job and read it. Errors: PD401.';


-- The answer to a request belongs to the task that made it, and only the holder of that task takes it. So the lock of
-- the task is enough, as it is for facts alone. A signal may go to any task of the job, and a request to cancel counts
-- for the tasks beneath it, too. A message that is gone was taken, maybe by this same turn, and is not taken again.
create function @extschema@.jobs_with_shared_messages(turns jsonb, known jsonb) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select r.turn ->> 'job'
          from jsonb_path_query(jobs_with_shared_messages.turns, '$[*] ? (@.state == "keep")') as r (turn)
         cross join lateral jsonb_path_query(r.turn, '$.facts[*].message ? (@ != null)') as m (id)
         cross join lateral (
            select i.job_id, i.task, i.key
              from inbox as i
             where i.id = case when m.id #>> '{}' ~ '^[0-9]{1,18}$' then (m.id #>> '{}')::bigint end
            offset 0) as a
         where (jobs_with_shared_messages.known ? (r.turn ->> 'job')) is not true
           and (a.job_id = r.turn ->> 'job' and a.task = r.turn ->> 'task' and a.key <> '$cancel') is not true);
end
$$;
comment on function @extschema@.jobs_with_shared_messages(jsonb, jsonb) is
    'Return the jobs, but the known ones, of turns that keep their tasks and take other messages than answers to requests of these.';


create function @extschema@.touched_jobs(turns jsonb) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    names jsonb :=
        jsonb_path_query_array(touched_jobs.turns,
            '$[*] ? (@.state != "keep" || exists(@.requests) || exists(@.cancels) || exists(@.facts[*].op)
                     || exists(@.facts[*].signal)).job')
        || jsonb_path_query_array(touched_jobs.turns, '$[*].touches[*]')
        || jsonb_path_query_array(touched_jobs.turns, '$[*].facts[*].target');
begin
    if touched_jobs.turns @? '$[*] ? (@.state == "keep").facts[*].message ? (@ != null)' then
        names := names || array_to_json(jobs_with_shared_messages(touched_jobs.turns, names))::jsonb;
    end if;
    if touched_jobs.turns @? '$[*].cancels' then
        names := names || array_to_json(array(
            select j.id
              from jsonb_path_query(touched_jobs.turns, '$[*] ? (exists(@.cancels))') as r (turn)
             cross join lateral jsonb_path_query(r.turn, '$.cancels[*]') as k (key)
             cross join lateral (
                select c.id
                  from jobs as c
                 where c.parent = r.turn ->> 'job'
                   and c.asked_as = (r.turn ->> 'task') || '/' || (k.key #>> '{}')
                offset 0) as j))::jsonb;
    end if;
    return array(select distinct name from jsonb_array_elements_text(names) as name where name is not null);
end
$$;
comment on function @extschema@.touched_jobs(jsonb) is
    'Return the jobs that turns touch: their own, unless they only append facts and take answers of their own, and those that they signal, cancel or answer.';


-- Asked for each turn of a batch if only some of its jobs could be locked. Nearly all turns are decided at a glance.
create function @extschema@.touches_any(turn jsonb, jobs text[]) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if touches_any.turn ->> 'job' = any(touches_any.jobs) then
        if touches_any.turn ->> 'state' <> 'keep' or touches_any.turn @? '$.facts[*].op' then
            return true;
        end if;
    elsif not (touches_any.turn ?| '{touches,cancels}'::text[] or touches_any.turn @? '$.facts[*].target') then
        return false;
    end if;
    return touches_any.jobs && touched_jobs(jsonb_build_array(touches_any.turn));
end
$$;
comment on function @extschema@.touches_any(jsonb, text[]) is 'Tell whether a turn touches one of these jobs.';


create function @extschema@.lock_jobs(ids text[], waiting boolean) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if lock_jobs.ids = '{}' then
        return lock_jobs.ids;
    end if;
    if lock_jobs.waiting then
        return array(select j.id from jobs as j where j.id = any(lock_jobs.ids) order by j.id for no key update);
    end if;
    return array(
        select j.id from jobs as j where j.id = any(lock_jobs.ids) order by j.id for no key update skip locked);
end
$$;
comment on function @extschema@.lock_jobs(text[], boolean) is
    'Lock jobs in order of id, waiting for those that another session holds or skipping them; return the ids that are locked.';


-- A row of a user that refers to a job, in an open transaction, holds a share lock on its key. A delete of the job waits
-- for that. So it is waited for at once, and not while holding a lock that the transaction may ask for next.
create function @extschema@.lock_to_forget(id text) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform from jobs as j where j.id = lock_to_forget.id for update;
    return found;
end
$$;
comment on function @extschema@.lock_to_forget(text) is
    'Lock a job that is to be deleted, also against foreign keys of users; return false if there is none.';


create function @extschema@.missed_jobs(ids text[], locked text[]) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if cardinality(missed_jobs.ids) = cardinality(missed_jobs.locked) then
        return '{}'::text[];
    end if;
    return array(
        select j.id from jobs as j where j.id = any(missed_jobs.ids) and j.id <> all(missed_jobs.locked));
end
$$;
comment on function @extschema@.missed_jobs(text[], text[]) is
    'Return the jobs that exist and are not locked: held by others, or started meanwhile.';


-- A task that nobody asked for, or a request to cancel, changes no row that existed before: an older snapshot would neither
-- see it nor collide with it.
create function @extschema@.touch_job(id text, touched_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j set updated_at = touch_job.touched_at where j.id = touch_job.id;
end
$$;
comment on function @extschema@.touch_job(text, timestamptz) is
    'Write the row of a locked job, so that a session that locks it with an older snapshot is refused (40001). [P5]';
