-- Cron: expressions of five fields, read and followed as Vixie's cron does. A text and a time in, a time out. Days and
-- hours are those of the clock of a time zone. When that clock is put forward or back: an expression that names its
-- minutes and hours is due once for each time that it names, at the first moment that the clock shows it; a time that is
-- skipped is due at the end of the gap. An expression whose minute or hour begins with a star counts elapsed time: it is
-- due whenever the clock shows what it names, twice if that is shown twice, never if it is skipped.

create function @extschema@.invalid_cron(cron text, detail text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD110', 'InvalidSchedule', format('this is not a cron expression: %s', quote_nullable(left(invalid_cron.cron, 100))),
        detail, 'Write minute, hour, day, month and weekday: */15 9-17 * * mon-fri; or @hourly, @daily, @weekly, @monthly, @yearly.');
end
$$;
comment on function @extschema@.invalid_cron(text, text) is
    'Return what is wrong with a cron expression, as a failure (PD110).';


create function @extschema@.cron_number(written text, low integer, names text[]) returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when cron_number.written ~ '^[0-9]' then cron_number.written::integer
                else cron_number.low + array_position(cron_number.names, cron_number.written) - 1 end;
end
$$;
comment on function @extschema@.cron_number(text, integer, text[]) is
    'Read a number or a name of a cron field, whose first name stands for the lowest number; null if it is neither.';


create function @extschema@.parse_cron_part(part text, low integer, high integer, names text[]) returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    pieces text[] := regexp_match(
        parse_cron_part.part, '^(?:[*]|([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?)(?:/([0-9]{1,4}))?$');
    first integer := case when left(part, 1) = '*' then low else cron_number(pieces[1], low, names) end;
    last integer := case when pieces[2] is not null then cron_number(pieces[2], low, names)
                         when left(part, 1) = '*' or pieces[3] is not null then high
                         else first end;
    step integer := coalesce(pieces[3]::integer, 1);
begin
    -- Sunday is the first day and the last: fri-sun is three days.
    if high = 7 and last = 0 and first > 0 then
        last := 7;
    end if;
    if (pieces is not null and first between low and last and last <= high and step between 1 and high - low) is not true then
        return null;
    end if;
    return array(select generate_series(first, last, step));
end
$$;
comment on function @extschema@.parse_cron_part(text, integer, integer, text[]) is
    'Read one part of a cron field: a star, a number, a name or a range, perhaps with a step; null if it is none of these.';


create function @extschema@.parse_cron_field(field text, low integer, high integer, names text[] default null)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select case when bool_and(p.numbers is not null) then array(
                   select distinct case when parse_cron_field.high = 7 then n.number % 7 else n.number end
                     from unnest(string_to_array(parse_cron_field.field, ',')) as w (part)
                    cross join unnest(parse_cron_part(w.part, low, high, names)) as n (number)
                    order by 1) end
          from unnest(string_to_array(parse_cron_field.field, ',')) as w (part)
         cross join parse_cron_part(w.part, low, high, names) as p (numbers));
end
$$;
comment on function @extschema@.parse_cron_field(text, integer, integer, text[]) is
    'Read a cron field, a list of parts: return its numbers in order; 7 is 0 for weekdays. Null if a part cannot be read.';


-- By months, and by days within one: the 29th of February may be eight years away, on a given weekday forty.
create function @extschema@.next_cron_day(it @extschema@.cron, from_day date) returns date
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    month date := make_date(extract(year from from_day)::integer, extract(month from from_day)::integer, 1);
    found_day date;
begin
    for ahead in 0..492 loop
        if extract(month from month)::integer = any(it.months) then
            select min(d.day)
              into found_day
              from (select greatest(month, from_day) + n as day from generate_series(0, 30) as n) as d
             cross join lateral (
                select extract(day from d.day)::integer = any(it.days) as is_day,
                       extract(dow from d.day)::integer = any(it.weekdays) as is_weekday) as m
             where d.day < month + interval '1 month'
               and case when it.matches_either then m.is_day or m.is_weekday else m.is_day and m.is_weekday end;
            exit when found_day is not null;
        end if;
        month := month + interval '1 month';
    end loop;
    return found_day;
end
$$;
comment on function @extschema@.next_cron_day(@extschema@.cron, date) is
    'Find the first day, from a date on, that a cron expression names; null if there is none.';


create function @extschema@.parse_cron(cron text) returns @extschema@.cron
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written text := lower(trim(parse_cron.cron, E' \t\n') collate "C");
    fields text[] := regexp_split_to_array(
        case written
            when '@yearly' then '0 0 1 1 *'
            when '@annually' then '0 0 1 1 *'
            when '@monthly' then '0 0 1 * *'
            when '@weekly' then '0 0 * * 0'
            when '@daily' then '0 0 * * *'
            when '@midnight' then '0 0 * * *'
            when '@hourly' then '0 * * * *'
            else left(written, 1000) end, '[[:space:]]+');
    it cron := (
        parse_cron_field(fields[1], 0, 59), parse_cron_field(fields[2], 0, 23), parse_cron_field(fields[3], 1, 31),
        parse_cron_field(fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'),
        parse_cron_field(fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}'),
        left(fields[3], 1) <> '*' and left(fields[5], 1) <> '*', left(fields[1], 1) = '*' or left(fields[2], 1) = '*')::cron;
    wrong text := case
        when (cardinality(fields) = 5) is not true then format('It has %s fields, not five.', coalesce(cardinality(fields), 0))
        when it.minutes is null then format('%s is not a minute: 0-59.', quote_literal(fields[1]))
        when it.hours is null then format('%s is not an hour: 0-23.', quote_literal(fields[2]))
        when it.days is null then format('%s is not a day: 1-31.', quote_literal(fields[3]))
        when it.months is null then format('%s is not a month: 1-12 or jan-dec.', quote_literal(fields[4]))
        when it.weekdays is null then format('%s is not a weekday: 0-7 or sun-sat.', quote_literal(fields[5]))
        when it.days[1] > 28 and next_cron_day(it, '2000-01-01') is null then 'It names a day that does not exist.'
    end;
begin
    if wrong is not null then
        perform raise_failure(invalid_cron(parse_cron.cron, wrong));
    end if;
    return it;
end
$$;
comment on function @extschema@.parse_cron(text) is
    'Parse a cron expression. Errors: PD110 (it cannot be read, or names a day that never comes).';


create function @extschema@.next_named_moment(it @extschema@.cron, time_zone text, after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    here timestamp := next_named_moment.after at time zone next_named_moment.time_zone;
    day date := next_cron_day(it, here::date);
    found_moment timestamptz;
begin
    -- On the first of these days all times may be over. If a named time has no moment on a hundred more days, the zone is
    -- at fault.
    for ahead in 0..100 loop
        exit when day is null;
        -- Later times of a day come at later moments: the first that fits ends the search.
        select c.moment
          into found_moment
          from (select day + make_time(h.hour, m.minute, 0) as wall
                  from unnest(it.hours) as h (hour)
                 cross join unnest(it.minutes) as m (minute)
                 order by 1) as w
         cross join lateral (select moment_of(w.wall, next_named_moment.time_zone) as moment offset 0) as c
         where w.wall > here
           and c.moment > next_named_moment.after
         order by w.wall
         limit 1;
        exit when found_moment is not null;
        day := next_cron_day(it, day + 1);
    end loop;
    return found_moment;
end
$$;
comment on function @extschema@.next_named_moment(@extschema@.cron, text, timestamptz) is
    'Find the next time after a time at which an expression with named minutes and hours is due, each once; null if no clock shows it.';


create function @extschema@.next_counted_moment(it @extschema@.cron, time_zone text, after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wall timestamp := next_counted_moment.after at time zone next_counted_moment.time_zone;
    moment timestamptz := after + (date_trunc('minute', wall) + interval '1 min' - wall);
    today date;
    day date;
    block_end timestamptz;
    found_moment timestamptz;
begin
    -- A loop over hours as they pass, over days if none is due.
    loop
        wall := moment at time zone next_counted_moment.time_zone;
        if today is distinct from wall::date then
            today := wall::date;
            day := next_cron_day(it, today);
            exit when day is null;
        end if;
        block_end := moment + interval '1 min' * (60 - extract(minute from wall));
        if block_end at time zone next_counted_moment.time_zone - wall <> block_end - moment then
            -- The clock is put forward or back before the hour is over, and then shows another hour, or another day.
            block_end := (
                select min(m.passed)
                  from generate_series(moment, block_end, interval '1 min') as m (passed)
                 where m.passed at time zone next_counted_moment.time_zone - wall <> m.passed - moment);
        elsif day > today then
            block_end := greatest(block_end, moment_of(day, next_counted_moment.time_zone));
        end if;
        if day = today and extract(hour from wall)::integer = any(it.hours) then
            select min(m.moment)
              into found_moment
              from generate_series(moment, block_end - interval '1 min', interval '1 min') as m (moment)
             where extract(minute from m.moment at time zone next_counted_moment.time_zone)::integer = any(it.minutes);
            exit when found_moment is not null;
        end if;
        moment := block_end;
    end loop;
    return found_moment;
end
$$;
comment on function @extschema@.next_counted_moment(@extschema@.cron, text, timestamptz) is
    'Find the next time after a time at which an expression with a star in its minute or hour is due: whenever the clock of the zone shows what it names.';


create function @extschema@.next_cron_time(cron text, time_zone text, after timestamptz) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    it cron := parse_cron(next_cron_time.cron);
begin
    if num_nulls(next_cron_time.time_zone, next_cron_time.after) > 0
        or not next_cron_time.after between '0001-01-01 00:00+00' and '9999-12-31 00:00+00' then
        perform raise_failure(make_failure(
            'PD110', 'InvalidSchedule', 'next_cron_time() needs a time and a time zone',
            format('The time is %s, the zone %s.', coalesce(next_cron_time.after::text, 'null'),
                   coalesce(quote_literal(left(next_cron_time.time_zone, 200)), 'null')),
            'Give a time between the years 1 and 9999, and a time zone.'));
    end if;
    perform raise_failure(zone_failure(next_cron_time.time_zone));
    if it.is_elapsed then
        return next_counted_moment(it, next_cron_time.time_zone, next_cron_time.after);
    end if;
    return next_named_moment(it, next_cron_time.time_zone, next_cron_time.after);
end
$$;
comment on function @extschema@.next_cron_time(text, text, timestamptz) is
    'Return when a cron expression is due next after a time, by the clock of a time zone; null if never. Errors: PD110.';
