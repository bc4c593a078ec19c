-- Times: schedules by interval, the last of many due times, and the due times that were missed.

begin;
select plan(85);

create function pg_temp.due_after(every interval, time_zone text, starts_at timestamptz, after timestamptz) returns text
language plpgsql
as $$
declare
    here timestamptz := after;
    shown text[];
begin
    for n in 1..3 loop
        here := next_interval_time(every, time_zone, starts_at, here);
        shown := shown || to_char(here at time zone time_zone, 'YYYY-MM-DD HH24:MI:SS');
    end loop;
    return array_to_string(shown, ', ');
end
$$;

select is(
    pg_temp.due_after(every::interval, time_zone, starts_at::timestamptz, after::timestamptz), due,
    format('every %s in %s from %s, after %s', every, time_zone, starts_at, after))
  from (values
        ('1 s', 'UTC', '2030-01-01 00:00+00', '2030-06-01 12:00:00.5+00',
         '2030-06-01 12:00:01, 2030-06-01 12:00:02, 2030-06-01 12:00:03'),
        ('90 s', 'UTC', '2030-01-01 00:00+00', '2030-01-01 00:00+00',
         '2030-01-01 00:01:30, 2030-01-01 00:03:00, 2030-01-01 00:04:30'),
        ('90 s', 'UTC', '2030-01-01 00:00+00', '2029-01-01 00:00+00',
         '2030-01-01 00:00:00, 2030-01-01 00:01:30, 2030-01-01 00:03:00'),
        ('7 min', 'UTC', '1970-01-01 00:00+00', '2199-12-31 23:59+00',
         '2200-01-01 00:05:00, 2200-01-01 00:12:00, 2200-01-01 00:19:00'),
        -- 24 hours are time that passes; 1 day keeps the time on the clock.
        ('24 hours', 'Europe/Berlin', '2030-03-29 09:00+01', '2030-03-29 09:00+01',
         '2030-03-30 09:00:00, 2030-03-31 10:00:00, 2030-04-01 10:00:00'),
        ('1 day', 'Europe/Berlin', '2030-03-29 09:00+01', '2030-03-29 09:00+01',
         '2030-03-30 09:00:00, 2030-03-31 09:00:00, 2030-04-01 09:00:00'),
        ('1 day', 'Europe/Berlin', '2030-03-29 02:30+01', '2030-03-29 02:30+01',
         '2030-03-30 02:30:00, 2030-03-31 03:00:00, 2030-04-01 02:30:00'),
        ('1 day', 'Europe/Berlin', '2030-10-25 02:30+02', '2030-10-26 12:00+02',
         '2030-10-27 02:30:00, 2030-10-28 02:30:00, 2030-10-29 02:30:00'),
        ('1 week', 'America/New_York', '2030-01-07 08:00-05', '2030-03-05 00:00-05',
         '2030-03-11 08:00:00, 2030-03-18 08:00:00, 2030-03-25 08:00:00'),
        ('3 days', 'UTC', '2000-01-01 00:00+00', '2030-01-02 00:00+00',
         '2030-01-05 00:00:00, 2030-01-08 00:00:00, 2030-01-11 00:00:00'),
        -- The last day of a month returns after a short month.
        ('1 month', 'UTC', '2030-01-31 12:00+00', '2030-01-31 12:00+00',
         '2030-02-28 12:00:00, 2030-03-31 12:00:00, 2030-04-30 12:00:00'),
        ('3 months', 'UTC', '2029-11-30 00:00+00', '2030-01-15 00:00+00',
         '2030-02-28 00:00:00, 2030-05-30 00:00:00, 2030-08-30 00:00:00'),
        ('1 year', 'UTC', '2028-02-29 00:00+00', '2030-01-15 00:00+00',
         '2030-02-28 00:00:00, 2031-02-28 00:00:00, 2032-02-29 00:00:00'),
        ('1 month', 'Europe/Berlin', '2030-01-31 02:30+01', '2030-03-01 00:00+01',
         '2030-03-31 03:00:00, 2030-04-30 02:30:00, 2030-05-31 02:30:00')
       ) as cases (every, time_zone, starts_at, after, due);

select is(
    (select count(distinct next_interval_time(every::interval, 'Europe/Berlin', '2029-03-31 02:30+02', asked_at))
       from generate_series('2029-03-31 02:30+02', '2031-03-31 02:30+02'::timestamptz, '5 hours') as asked_at),
    due, format('every %s for two years: %s times, whenever one asks', every, due))
  from (values ('1 day', 731::bigint), ('1 month', 25), ('7 days', 105)) as cases (every, due);

select is(interval_failure(every::interval) ->> 'code', 'PD110', format('an interval of %s is refused', every))
  from unnest('{0 s,-1 s,500 ms,1.5 s,1 day 1 s,1 month 1 day,-1 day,1 month -1 day,1 day -1 hour,101 years,
                1 hour -1 month}'::text[]) as every;
select is(interval_failure(every::interval), null, format('an interval of %s is accepted', every))
  from unnest('{1 s,90 min,24 hours,1 day,2 weeks,1 month,1 year,100 years}'::text[]) as every;

-- Definitions of schedules.

select is(
    schedule_failure('n', about.definition::jsonb) ->> 'code', about.code,
    format('%s: %s', about.definition, coalesce(about.code, 'good')))
  from (values
        ('{"workflow": "w", "cron": "@daily"}', null),
        ('{"workflow": "w", "every": "1 day", "starts_at": "2030-01-01T00:00:00Z", "timeout": "1 h"}', null),
        ('{}', 'PD110'),
        ('{"workflow": "w"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "every": "1 day", "starts_at": "2030-01-01T00:00:00Z"}', 'PD110'),
        ('{"workflow": "w", "every": "1 day"}', 'PD110'),
        ('{"workflow": "w", "every": "a while", "starts_at": "2030-01-01T00:00:00Z"}', 'PD110'),
        ('{"workflow": "w", "cron": 5}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "time_zone": "Moon/Crater"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "time_zone": "right/UTC"}', 'PD110'),
        ('{"workflow": "w", "every": "1 day", "starts_at": "2030-01-01T00:00:00Z", "time_zone": "right/UTC"}', 'PD110'),
        ('{"workflow": "w", "cron": "0 9 20 3 *", "time_zone": "A167B-167,J69,J300"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "starts_at": "infinity"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "starts_at": [1]}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "starts_at": "2200-01-02T00:00:00Z"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "catch_up": "some"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "overlap": "queue"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "paused": "maybe"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "headers": [1]}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "priority": "high"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "timeout": "-1 s"}', 'PD110'),
        ('{"workflow": "w", "cron": "@daily", "timeout": "0 s"}', 'PD110'),
        ('{"workflow": "", "cron": "@daily"}', 'PD104'),
        ('{"workflow": "w", "cron": "@daily", "priority": 10}', 'PD107'),
        ('{"workflow": "w", "cron": "@daily", "args": 1}', 'PD103'),
        ('{"workflow": "w", "cron": "@daily", "entity": "$schedule"}', 'PD104')) as about (definition, code);

set local timezone = 'Pacific/Apia';
select is(
    (read_schedule('{"starts_at": "02/01/2030 12:00Z"}')).starts_at, '2030-02-01 12:00:00+00',
    format('the start of a schedule is read the same in every session: %s', style))
  from (values ('ISO, MDY'), ('SQL, DMY'), ('German')) as s (style)
 cross join lateral set_config('datestyle', s.style, true) as setting
 where setting <> '';
set local datestyle = 'ISO, MDY';
select is(
    (read_schedule('{"starts_at": "2030-01-01 12:00:00.75"}')).starts_at, '2030-01-01 12:00:00+00',
    'a start without a zone is in UTC in every session, and parts of a second are cut off');
select is((scheduled_job('n', read_schedule('{"workflow": "w"}'), '2030-01-01 12:00+00')).id, 'n/2030-01-01T12:00:00Z',
          'the id of a job has its due time in UTC in every session');
set local timezone = 'UTC';

-- The due times that are owed at noon, if no worker has run since the given time.

create function pg_temp.owed(cron text, catch_up text, owed text, since text default null) returns text
language plpgsql
as $$
declare
    times timestamptz[] := owed_times(
        read_schedule(jsonb_build_object('workflow', 'w', 'cron', cron, 'catch_up', catch_up)),
        ('2030-01-01 ' || owed || '+00')::timestamptz,
        ('2030-01-01 ' || since || '+00')::timestamptz, '2030-01-01 12:00:30+00');
begin
    return array_to_string(array(select to_char(t at time zone 'UTC', 'HH24:MI') from unnest(times) as t), ' ');
end
$$;

select is(pg_temp.owed(cron, catch_up, owed, since), due, about)
  from (values
        ('0 * * * *', 'all', '08:00', null, '08:00 09:00 10:00 11:00 12:00', 'all: every missed time is owed'),
        ('0 * * * *', 'last', '08:00', null, '12:00', 'last: the last missed time is owed'),
        ('0 * * * *', 'none', '08:00', null, '12:00', 'none: a time of half a minute ago was not missed'),
        ('50 * * * *', 'none', '08:50', null, '', 'none: a time of more than a minute ago was missed'),
        ('50 * * * *', 'last', '08:50', null, '11:50', 'last: the last missed time may be older'),
        ('30 8 * * *', 'last', '08:30', null, '08:30', 'last: a single missed time is owed'),
        ('30 8 * * *', 'none', '08:30', null, '', 'none: a single missed time is not owed'),
        ('0 * * * *', 'all', '08:30', '10:30', '08:30 11:00 12:00', 'all: a new timetable counts from its edit'),
        ('0 * * * *', 'last', '08:30', '10:30', '12:00', 'last: a new timetable counts from its edit'),
        ('0 23 * * *', 'last', '08:30', '10:30', '08:30', 'last: a time that was due before the edit is owed')
       ) as cases (cron, catch_up, owed, since, due, about);
select is(
    owed_times(read_schedule('{"cron": "0 12 * * *", "catch_up": "none"}'), '2030-01-01 12:00+00', null, looked_at),
    due, format('none: a time that is looked at %s is owed %s', looked_at, due))
  from (values ('2030-01-01 12:01+00'::timestamptz, array['2030-01-01 12:00+00'::timestamptz]),
               ('2030-01-01 12:01:01+00', '{}')) as cases (looked_at, due);
select is(
    to_jsonb(read_schedule('{"catch_up": null}')) - '{workflow,cron,every,entity,headers,pinned_version}'::text[]
        - '{starts_at,limit_key,timeout}'::text[],
    '{"args": [], "time_zone": "UTC", "catch_up": "last", "overlap": "allow", "queue": "default", "priority": 5,
      "paused": false}',
    'a schedule has defaults for what its memory lacks');
select is(
    timetable_of('{"workflow": "w", "cron": "@daily", "every": 1, "time_zone": 2, "starts_at": 3, "queue": "q"}'),
    '{"cron": "@daily", "every": 1, "time_zone": 2, "starts_at": 3}',
    'all that says when a schedule is due is its timetable');
select is(
    array_length(string_to_array(pg_temp.owed('* * * * *', 'all', '00:00'), ' '), 1), 100,
    'at most a hundred times are owed at once');
select is(
    last_due_time(read_schedule(about.definition), '1990-01-01 00:00+00', '2030-01-01 12:00:30+00'),
    about.due_at::timestamptz,
    format('forty years of %s: %s', about.definition, about.due_at))
  from (values
        ('{"every": "1 s", "starts_at": "1970-01-01T00:00:00Z"}'::jsonb, '2030-01-01 12:00:30+00'),
        ('{"cron": "* * * * *"}', '2030-01-01 12:00+00'),
        ('{"cron": "0 0 29 2 *"}', '2028-02-29 00:00+00')) as about (definition, due_at);

select finish();
rollback;
