-- Verbs on many jobs at once: the running jobs that find() finds, a page at a time, in order of id. A page is one
-- transaction. Its jobs are locked up front and checked again under their locks, since they may have changed meanwhile.

-- Volatile, though it only reads: its argument is what the same statement has just locked, and a stable function would see
-- the jobs as they were before the wait for these locks.
create function @extschema@.still_found(
    entity      text,
    conditions  jsonb,
    after       text,
    locked      text[]
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    place text := still_found.after;
    page text[];
    met text[] := '{}'::text[];
begin
    if still_found.locked = '{}' then
        return met;
    end if;
    -- A loop: others, which are not locked, may be between them by now.
    loop
        page := find_running(still_found.entity, still_found.conditions, place, locked[cardinality(locked)], 1000);
        met := met || array(select id from unnest(page) as id where id = any(locked));
        exit when cardinality(page) < 1000;
        place := page[1000];
    end loop;
    return met;
end
$$;
comment on function @extschema@.still_found(text, jsonb, text, text[]) is
    'Check again, after locking them, which of the jobs found after an id still run and meet the conditions; return their ids.';


create function @extschema@.lock_found(
    entity      text,
    conditions  jsonb,
    after       text,
    max_jobs    integer
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    place text := coalesce(lock_found.after, '');
    found_now text[];
    met text[];
begin
    -- A loop: a page of which nothing is left, because all jobs were forgotten or have changed, is not the last one.
    loop
        found_now := find_running(lock_found.entity, lock_found.conditions, place, null, lock_found.max_jobs);
        met := still_found(lock_found.entity, lock_found.conditions, place, lock_jobs(found_now, waiting => true));
        exit when found_now = '{}' or met <> '{}';
        place := found_now[cardinality(found_now)];
    end loop;
    return met;
end
$$;
comment on function @extschema@.lock_found(text, jsonb, text, integer) is
    'Lock the first running jobs after an id whose memories meet conditions; return their ids in order. Errors: PD101, PD104, PD107.';


create function @extschema@.signal_found(
    entity      text,
    conditions  jsonb,
    name        text,
    payload     jsonb    default null,
    key         text     default null,
    after       text     default '',
    max_jobs    integer  default 1000
) returns table (id text, is_new boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_name(signal_found.name, 'a signal');
    return query
    select f.job, signal(f.job, signal_found.name, signal_found.payload, signal_found.key)
      from unnest(lock_found(signal_found.entity, signal_found.conditions, signal_found.after, signal_found.max_jobs)) as f (job);
end
$$;
comment on function @extschema@.signal_found(text, jsonb, text, jsonb, text, text, integer) is
    'Send a signal to the running jobs of an entity whose memories meet conditions, as find() reads them; return each id, with false if the key was used before. For the next page, give the last id as after. Errors: PD101, PD104, PD107, PD30x. [P5]';


create function @extschema@.cancel_found(
    entity      text,
    conditions  jsonb,
    reason      text     default null,
    after       text     default '',
    max_jobs    integer  default 1000
) returns table (id text, is_new boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_value(to_jsonb(cancel_found.reason), 'the reason');
    return query
    select f.job, cancel(f.job, cancel_found.reason)
      from unnest(lock_found(cancel_found.entity, cancel_found.conditions, cancel_found.after, cancel_found.max_jobs)) as f (job);
end
$$;
comment on function @extschema@.cancel_found(text, jsonb, text, text, integer) is
    'Ask the running jobs of an entity whose memories meet conditions to cancel; return each id, with false if the job was asked before. For the next page, give the last id as after. Errors: PD101, PD104, PD107, PD301.';
