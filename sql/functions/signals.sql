-- Signals: messages to a job, queued under a name until something waits for it. [P5]

create function @extschema@.signal_failure(id text, status text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- Tasks that the database runs by itself wait for no signal.
    if signal_failure.status = 'running'
        or exists (select from tasks as t where t.job_id = signal_failure.id and left(t.name, 1) <> '$') then
        return null;
    end if;
    return make_failure(
        'PD403', 'JobFinished', format('job %s takes no signals', quote_literal(signal_failure.id)),
        format('Its status is %s and no hook of it is alive.', coalesce(signal_failure.status, 'that of a plain entity')),
        'Change its memory with a command instead, or start a new run.');
end
$$;
comment on function @extschema@.signal_failure(text, text) is 'Return why a job takes no signal (PD403), or null.';


create function @extschema@.signal(
    id       text,
    name     text,
    payload  jsonb default null,
    key      text default null
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(signal.id);
    sent_at timestamptz := clock();
begin
    perform check_name(signal.name, 'a signal');
    perform check_value(signal.payload, 'the payload');
    if signal.key is not null then
        perform check_name(signal.key, 'a key');
        if signal_was_sent(signal.id, signal.key) then
            return false;
        end if;
    end if;
    perform raise_failure(signal_failure(held.id, held.status));
    perform insert_signal(signal.id, signal.name, signal.payload, signal.key, sent_at);
    perform notify_listeners(wake_tasks(array[signal.id], sent_at));
    return true;
end
$$;
comment on function @extschema@.signal(text, text, jsonb, text) is
    'Send a signal to a job; return false if its key was used before. Errors: PD103, PD104, PD30x, PD401 (no such job), PD403 (nobody can ever take the signal). [P5]';
