-- Times: what the memory of a schedule says, and when it is due. Nothing here writes, or asks what time it is.

create function @extschema@.invalid_schedule(message text, detail text, hint text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure('PD110', 'InvalidSchedule', message, detail, hint);
end
$$;
comment on function @extschema@.invalid_schedule(text, text, text) is
    'Return what is wrong with a schedule, as a failure (PD110).';


create function @extschema@.read_schedule(definition jsonb) returns @extschema@.schedule
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
as $$
declare
    it schedule := jsonb_populate_record(null::schedule, read_schedule.definition);
begin
    it.args := coalesce(it.args, '[]');
    it.time_zone := coalesce(it.time_zone, 'UTC');
    it.starts_at := date_trunc('second', it.starts_at);
    it.catch_up := coalesce(it.catch_up, 'last');
    it.overlap := coalesce(it.overlap, 'allow');
    it.paused := coalesce(it.paused, false);
    it.queue := coalesce(it.queue, 'default');
    it.priority := coalesce(it.priority, 5);
    return it;
end
$$;
comment on function @extschema@.read_schedule(jsonb) is
    'Read the settings of a schedule from its memory; an error of class 22 if a member has another type.';


create function @extschema@.interval_failure(every interval) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    counted interval := case when isfinite(every) then every end;  -- PostgreSQL 17 knows an infinite one
    months integer := 12 * extract(year from counted) + extract(month from counted);
    days integer := extract(day from counted);
    seconds numeric := extract(epoch from counted - make_interval(months => months, days => days));
begin
    if counted is null
        or num_nonnulls(nullif(months, 0), nullif(days, 0), nullif(seconds, 0)) <> 1
        or least(months, days, seconds) < 0
        or seconds <> trunc(seconds)
        or every > interval '100 years' then
        return invalid_schedule(
            format('a schedule cannot be due every %s', quote_literal(every::text)),
            'An interval is a number of months, of days, or of whole seconds, and at most 100 years.',
            'Write 15 min, 24 hours, 1 day, 2 weeks or 3 months.');
    end if;
    return null;
end
$$;
comment on function @extschema@.interval_failure(interval) is
    'Return why an interval cannot be followed (PD110), or null.';


create function @extschema@.next_interval_time(
    every      interval,
    time_zone  text,
    starts_at  timestamptz,
    after      timestamptz
) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    months integer := 12 * extract(year from every) + extract(month from every);
    days integer := extract(day from every);
    first timestamp := starts_at at time zone next_interval_time.time_zone;
    here timestamp := after at time zone next_interval_time.time_zone;
    count integer;
begin
    if after < starts_at then
        return starts_at;
    end if;
    if months = 0 and days = 0 then
        return starts_at + make_interval(
            secs => (div(extract(epoch from after - starts_at), extract(epoch from every)) + 1) * extract(epoch from every));
    end if;
    count := floor(case when months > 0 then 12 * (extract(year from here) - extract(year from first))
                                             + extract(month from here) - extract(month from first)
                        else here::date - first::date end / greatest(months, days));
    return (
        select min(m.moment)
          from generate_series(count, count + 1) as n
         cross join lateral (
            select moment_of(first + make_interval(months => n * months, days => n * days), next_interval_time.time_zone)
                   as moment offset 0) as m
         where m.moment > after);
end
$$;
comment on function @extschema@.next_interval_time(interval, text, timestamptz, timestamptz) is
    'Return when something with an interval is due next after a time, counted from its start; days and months follow the calendar of a time zone.';


create function @extschema@.next_due_time(it @extschema@.schedule, after timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if it.cron is null then
        return next_interval_time(it.every, it.time_zone, it.starts_at, next_due_time.after);
    end if;
    return next_cron_time(it.cron, it.time_zone, greatest(next_due_time.after, it.starts_at - interval '1 s'));
end
$$;
comment on function @extschema@.next_due_time(@extschema@.schedule, timestamptz) is
    'Return when a schedule is due next after a time.';


create function @extschema@.due_times(
    it     @extschema@.schedule,
    since  timestamptz,
    until  timestamptz
) returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    times timestamptz[] := '{}'::timestamptz[];
    here timestamptz;
begin
    if (since between '1970-01-01 00:00+00' and '2200-01-01 00:00+00') is not true then
        raise exception 'a schedule cannot be followed from % on', coalesce(since::text, 'null')
            using errcode = 'PD107',
                  detail = 'It can be due between 1970 and 2200.',
                  hint = 'Give the first time that you want.';
    end if;
    -- A loop: each time is found from the one before.
    here := next_due_time(it, since - interval '1 microsecond');
    while here < until loop
        if cardinality(times) = 10000 then
            raise exception 'the schedule is due more than 10000 times'
                using errcode = 'PD107',
                      detail = format('The 10000th time after %s is %s.', since, times[10000]),
                      hint = 'Ask for a shorter time, and then for the rest.';
        end if;
        times := times || here;
        here := next_due_time(it, here);
    end loop;
    return times;
end
$$;
comment on function @extschema@.due_times(@extschema@.schedule, timestamptz, timestamptz) is
    'Return the due times of a schedule from a time on and before another, at most 10000. Errors: PD107.';


-- Halving finds it in some twenty steps, however many times were missed; each due time that is found is a jump.
create function @extschema@.last_due_time(it @extschema@.schedule, after timestamptz, until timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    last_at timestamptz;
    low timestamptz := last_due_time.after;
    high timestamptz := last_due_time.until;
    middle timestamptz := low;
    due_at timestamptz;
begin
    -- A loop: each look halves the rest, and after `high` nothing is due.
    loop
        due_at := next_due_time(it, middle);
        if due_at <= last_due_time.until then
            last_at := due_at;
            low := due_at;
        else
            high := middle;
        end if;
        exit when high - low < interval '1 s';
        middle := low + (high - low) / 2;
    end loop;
    return last_at;
end
$$;
comment on function @extschema@.last_due_time(@extschema@.schedule, timestamptz, timestamptz) is
    'Find the last time at which a schedule was due, after one time and until another; null if there is none.';


-- A schedule that was looked at a minute late has missed nothing: workers are busy, servers restart.
create function @extschema@.owed_times(
    it     @extschema@.schedule,
    owed   timestamptz,
    since  timestamptz,
    until  timestamptz
) returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    missed_at timestamptz := owed_times.until - interval '1 min';
    here timestamptz := greatest(owed, since, case when it.catch_up = 'none' then missed_at end);
    times timestamptz[] := case when it.catch_up <> 'none' or owed >= missed_at then array[owed] else '{}' end;
begin
    if it.catch_up = 'last' then
        return array[coalesce(last_due_time(it, here, owed_times.until), owed)];
    end if;
    -- A loop: each time is found from the one before.
    loop
        here := next_due_time(it, here);
        exit when (here <= owed_times.until) is not true or cardinality(times) = 100;
        times := times || here;
    end loop;
    return times;
end
$$;
comment on function @extschema@.owed_times(@extschema@.schedule, timestamptz, timestamptz, timestamptz) is
    'Return the due times for which jobs must be started: the one that is owed, and those since the schedule was last changed, as far as its catch_up says; at most 100.';


create function @extschema@.timetable_of(definition jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_build_object('cron', definition -> 'cron', 'every', definition -> 'every',
                              'time_zone', definition -> 'time_zone', 'starts_at', definition -> 'starts_at');
end
$$;
comment on function @extschema@.timetable_of(jsonb) is
    'Return the part of the memory of a schedule that says when it is due.';
