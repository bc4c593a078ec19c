-- Watching: clients ask to be told of each change of a memory. A notification is a hint; the history is the truth. [P11]

create function @extschema@.entity_watch(id text, listener text) returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set lock_timeout = '100 ms'
as $$
declare
    topic text := '$memory/' || entity_watch.id;
    held memory := read_job(entity_watch.id);
begin
    perform check_name(entity_watch.listener, 'a listener');
    perform check_primary();
    -- Before the lock: who asked within half an hour is known. The mark stays while anybody asked within the hour.
    if held.watched and is_listened_for(topic, entity_watch.listener, clock() - interval '30 min') then
        return held.version;
    end if;
    held := lock_job(entity_watch.id);
    perform watch_jobs(array[held.id]);
    perform listen_for(topic, entity_watch.listener);
    return held.version;
exception
    when lock_not_available then
        return null;
end
$$;
comment on function @extschema@.entity_watch(text, text) is
    'Ask for a NOTIFY at each change of a memory, until stop_listening() or for an hour; return its version, or null while an open transaction holds the memory (ask again). LISTEN first, then read entity_history() from the version that you have. A standby refuses this, as all writes (25006). Errors: PD104, PD115 (the name of a worker of others), PD401.';
