-- Versions: to which code a job is pinned.

create function @extschema@.repin(id text, version text) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(repin.id);
    moved_at timestamptz := clock();
    queues text[];
begin
    if repin.version is not null then
        perform check_name(repin.version, 'a version');
    end if;
    queues := repin_tasks(held.id, pin_job(held.id, repin.version), repin.version, moved_at);
    -- By the time after the locks of tasks: more may have become due since.
    perform notify_listeners(queues || queues_that_want_slots(queues, clock()));
    return cardinality(queues);
end
$$;
comment on function @extschema@.repin(text, text) is
    'Pin a job, with what it has asked for in its version, to another version of the code, or with null to none, and fence whoever holds such a task. Return how many tasks have moved. Errors: PD104, PD401. [P6]';
