-- Verbs on many jobs at once: those that find() finds and that run, a page at a time, in order of id. A page is one
-- transaction; its jobs are locked up front, and judged again under their locks.

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
    running jsonb := jsonb_build_object('$status', 'running', '$id', jsonb_build_object('$gt', lock_found.after));
    locked text[];
begin
    perform check_conditions(lock_found.conditions);
    locked := lock_jobs(array(
        select f.id
          from find(lock_found.entity, jsonb_build_object('$and', jsonb_build_array(lock_found.conditions, running)),
                    '["$id"]', lock_found.max_jobs) as f), waiting => true);
    return array(select j.id from jobs as j where j.id = any(locked) and j.status = 'running' order by j.id);
end
$$;
comment on function @extschema@.lock_found(text, jsonb, text, integer) is
    'Lock the first running jobs after an id whose memories meet conditions; returns their ids in order. PD101, PD104, PD107.';


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
    'Send a signal to the running jobs of an entity whose memories meet conditions, as find() reads them; returns each id, and false where the key has been seen. Page with the last id: after => id. PD101, PD104, PD107, PD30x. [P5]';


create function @extschema@.cancel_found(
    entity      text,
    conditions  jsonb,
    reason      text     default null,
    after       text     default '',
    max_jobs    integer  default 1000
) returns table (id text, is_new boolean)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select f.job, cancel(f.job, cancel_found.reason)
      from unnest(lock_found(cancel_found.entity, cancel_found.conditions, cancel_found.after, cancel_found.max_jobs)) as f (job);
end
$$;
comment on function @extschema@.cancel_found(text, jsonb, text, text, integer) is
    'Ask the running jobs of an entity whose memories meet conditions to cancel; returns each id, and false where it was asked before. Page with the last id: after => id. PD101, PD104, PD107.';
