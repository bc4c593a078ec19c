-- Results: how a job ended, and waiting for that. A turn that ends a job holds a lock on its end until it commits, so
-- that waiters notice the end at once. The turn itself never waits for that lock.

create function @extschema@.result(id text) returns @extschema@.job_result
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended job_result;
begin
    select j.status, j.result, j.error into ended from jobs as j where j.id = result.id;
    if not found then
        raise exception 'job % does not exist', quote_literal(left(result.id, 200))
            using errcode = 'PD401', detail = 'No job has this id.', hint = 'Check the id, or start() the workflow first.';
    end if;
    return ended;
end
$$;
comment on function @extschema@.result(text) is
    'Return how a job ended; result and error are null while it runs. Errors: PD401.';


create function @extschema@.end_lock_key(id text) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return hashtextextended(end_lock_key.id, 'jobs'::regclass::oid::bigint);
end
$$;
comment on function @extschema@.end_lock_key(text) is
    'Return the number of the advisory lock on the end of a job of this app.';


-- Only for a few: locks take space in a shared table of the server. If many jobs end at once, waiters look again instead.
create function @extschema@.lock_ends(turns jsonb) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_array_length(lock_ends.turns) > 4 then
        return;
    end if;
    for place in 0 .. jsonb_array_length(lock_ends.turns) - 1 loop
        if lock_ends.turns -> place ->> 'state' in ('done', 'failed', 'cancelled') then
            perform pg_try_advisory_xact_lock(end_lock_key(lock_ends.turns -> place ->> 'job'));
        end if;
    end loop;
end
$$;
comment on function @extschema@.lock_ends(jsonb) is
    'Hold the lock on the end of each job that turns are to end, until the transaction ends, if they are few and nobody else has it.';


-- The lock is released at once, by rolling back what took it: it must not last as long as the transaction of the waiter.
-- A transaction that has written, or has locked rows, does not wait: the turn might wait for it, and would be ended as a
-- deadlock.
create function @extschema@.wait_for_end(id text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set lock_timeout = '20 ms'
as $$
begin
    if pg_current_xact_id_if_assigned() is null then
        perform pg_advisory_xact_lock_shared(end_lock_key(wait_for_end.id));
        raise lock_not_available;
    end if;
exception
    when lock_not_available then
        return;
end
$$;
comment on function @extschema@.wait_for_end(text) is
    'Wait a moment for a transaction that is about to end a job, if there is one.';


-- Volatile, since each look must see what was committed meanwhile. A transaction with one snapshot for all its statements
-- would wait in vain, so it gets at once what its snapshot shows. It is not refused: the answer is true, and the next
-- transaction sees more. The server sleeps whole milliseconds, rounded up: a thousandth of a second, which is not exact
-- in binary, would be two of them.
create function @extschema@.await_result(id text, timeout interval default '10 s') returns @extschema@.job_result
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    seconds double precision := extract(epoch from await_result.timeout);
    ended job_result := result(await_result.id);
    waited double precision := 0;
    pause double precision;
begin
    if (seconds between 0 and 60) is not true then
        raise exception 'the timeout is longer than a minute, or negative'
            using errcode = 'PD107',
                  detail = format('It is %s. Vacuum has to wait as long.', coalesce(await_result.timeout::text, 'null')),
                  hint = 'Give at most a minute, and call again if needed. A number without a unit means seconds.';
    end if;
    while ended.status = 'running' and waited < seconds and sees_commits() loop
        pause := least(greatest(waited / 8, 0.0009), seconds - waited);
        perform pg_sleep(pause);
        waited := waited + pause;
        perform wait_for_end(await_result.id);
        ended := result(await_result.id);
    end loop;
    return ended;
end
$$;
comment on function @extschema@.await_result(text, interval) is
    'Wait for the end of a job, a minute at most; return what result() returns, at the end or when the time is up. Under REPEATABLE READ it returns at once. Errors: PD107, PD401.';
