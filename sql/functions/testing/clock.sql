-- The clock of a test: it runs like that of the server, and can be moved forward. Moving it replaces the function
-- clock(), so only the owner may, and an app whose clock was never moved keeps the plain one.

create function @extschema@.lock_clock() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- A loop: whoever resets the clock deletes the row, perhaps before it is locked here.
    loop
        insert into settings (name, value) values ('clock_ahead', '0') on conflict on constraint one_row_per_setting do nothing;
        perform from settings as s where s.name = 'clock_ahead' for no key update;
        exit when found;
    end loop;
end
$$;
comment on function @extschema@.lock_clock() is
    'Lock the setting that says how far the clock of this app is ahead, before it is moved or reset.';


-- A time that has passed meanwhile is no error: the clock is where it was asked to be, and never goes back.
create function @extschema@.set_clock(at timestamptz) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    seconds_ahead numeric := greatest(extract(epoch from set_clock.at - clock()), 0);
    now_at timestamptz;
begin
    update settings as s set value = to_jsonb(s.value::numeric + seconds_ahead) where s.name = 'clock_ahead';
    create or replace function @extschema@.clock() returns timestamptz
    language plpgsql
    volatile
    parallel safe
    set search_path = pg_catalog, @extschema@, pg_temp
    as $clock$
    begin
        return clock_timestamp() + make_interval(secs => (
            select s.value::double precision from settings as s where s.name = 'clock_ahead'));
    end
    $clock$;
    now_at := clock();
    perform notify_listeners(array(
        select distinct t.queue from tasks as t where t.due_at <= now_at and not t.paused));
    return now_at;
end
$$;
comment on function @extschema@.set_clock(timestamptz) is
    'Move the locked clock of this app to a time, from which it continues; idle workers hear of what is due now.';


create function @extschema@.move_clock(by interval) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if (move_clock.by between '0 s' and '1000 years') is not true then
        raise exception 'the clock cannot be moved by %', coalesce(move_clock.by::text, 'null')
            using errcode = 'PD107',
                  detail = 'It goes forward only, by a thousand years at most.',
                  hint = 'Give a length of time: move_clock(''2 days'').';
    end if;
    perform lock_clock();
    return set_clock(clock() + move_clock.by);
end
$$;
comment on function @extschema@.move_clock(interval) is
    'Move the clock of this app forward, for tests; only the owner may call it. Return the new time, and notify idle workers of what is due then. Errors: PD107. [P7]';


-- What becomes due between the last look for work and this call has not been claimed yet, and is not to be skipped. A
-- token that came meanwhile is no different; tokens of more than an hour ago are those of now.
create function @extschema@.skip_time(
    up_to   timestamptz default 'infinity',
    since   timestamptz default null
) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    now_at timestamptz;
    since_at timestamptz;
    is_at_work boolean;
    next_at timestamptz;
begin
    perform lock_clock();
    now_at := clock();
    since_at := least(skip_time.since, now_at);
    select coalesce(bool_or(t.token is not null), false), min(t.due_at)
      into is_at_work, next_at
      from tasks as t
     where t.due_at > since_at
       and t.due_at < 'infinity'
       and not t.paused
       and not (t.token is null and t.awaits is null and lacked_code_or_key(t.failure));
    next_at := least(next_at, next_token_at(
        array(select distinct t.queue from tasks as t), greatest(since_at, now_at - interval '1 hour')));
    -- A worker that holds a task may be about to report something; and a test must not end a lease.
    if is_at_work or (next_at <= skip_time.up_to) is not true then
        return null;
    end if;
    return set_clock(next_at);
end
$$;
comment on function @extschema@.skip_time(timestamptz, timestamptz) is
    'Move the clock of this app to the time when the next task is due, or the next token comes for which tasks wait. A task that no worker can run is not waited for. Return null, and move nothing, if nothing will be due, or not before up_to, or while a worker holds a task. With since, the time of a look that found no work, what has become due after it is next.';


create function @extschema@.reset_clock() returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    late record;
begin
    perform lock_clock();
    delete from settings as s where s.name = 'clock_ahead';
    select t.job_id, t.task, greatest(t.told_at, t.started_at) as at
      into late
      from tasks as t
     where greatest(t.told_at, t.started_at) > clock_timestamp()
     limit 1;
    if found then
        raise exception 'the clock cannot be reset while live jobs have seen a later time'
            using errcode = 'PD107',
                  detail = format('Task %s of job %s was told something at %s.', late.task, late.job_id, late.at),
                  hint = 'End these jobs first, or use a new app for the next test.';
    end if;
    create or replace function @extschema@.clock() returns timestamptz
    language plpgsql
    volatile
    parallel safe
    set search_path = pg_catalog, @extschema@, pg_temp
    as $clock$
    begin
        return clock_timestamp();
    end
    $clock$;
    return clock();
end
$$;
comment on function @extschema@.reset_clock() is
    'Give this app the clock of the server again; only the owner may call it. Errors: PD107 (a live job has seen a later time).';
