-- Cron: the fields of an expression, and its due times, also when the clocks change.

begin;
select plan(128);

-- Reading.

select is(to_jsonb(parse_cron(expression)) -> field, numbers, format('%s: %s', expression, field))
  from (values
        ('*/20 * * * *', 'minutes', '[0, 20, 40]'::jsonb),
        ('5-10/2,1 * * * *', 'minutes', '[1, 5, 7, 9]'),
        ('*/59 * * * *', 'minutes', '[0, 59]'),
        ('50/3 * * * *', 'minutes', '[50, 53, 56, 59]'),
        ('7,7,7 * * * *', 'minutes', '[7]'),
        ('0 8-18/5 * * *', 'hours', '[8, 13, 18]'),
        ('0 0 1,15,31 * *', 'days', '[1, 15, 31]'),
        ('0 0 1 jan,Jun-AUG *', 'months', '[1, 6, 7, 8]'),
        ('0 0 * * 0,7', 'weekdays', '[0]'),
        ('0 0 * * 5-7', 'weekdays', '[0, 5, 6]'),
        ('0 0 * * fri-sun', 'weekdays', '[0, 5, 6]'),
        ('0 0 * * MON-fri', 'weekdays', '[1, 2, 3, 4, 5]'),
        ('0 0 * * 1/2', 'weekdays', '[0, 1, 3, 5]'),
        (E'  0\t0   1 1 * ', 'months', '[1]'),
        ('@hourly', 'minutes', '[0]'),
        ('@daily', 'hours', '[0]'),
        ('@Weekly', 'weekdays', '[0]'),
        ('@monthly', 'days', '[1]'),
        ('@yearly', 'months', '[1]')) as cases (expression, field, numbers);

select is(parse_cron(macro), parse_cron(expression), format('%s is %s', macro, expression))
  from (values ('@midnight', '0 0 * * *'), ('@annually', '@yearly')) as cases (macro, expression);

select throws_ok(
    format('select parse_cron(%L)', expression), 'PD110', null,
    format('%s is not a cron expression', quote_nullable(expression)))
  from unnest(array[
       null, '', '* * * *', '* * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *',
       '* * * 13 *',
       '* * * * 8', '* * * * mo', '* * * foo *', '5-1 * * * *', '*/0 * * * *', '*/60 * * * *', '1,,2 * * * *',
       ', * * * *',
       '-1 * * * *', '1- * * * *', '*-5 * * * *', '*x * * * *', '*/ * * * *', '1.5 * * * *', 'jan * * * *', '* * L * *',
       '0 0 */31 * *', '5-0 * * * *', '0 0 * 5-0 *',
       '* * * * 1#2', '? * * * *',
       '99999999999 * * * *', '@reboot', '@', '0 0 30 2 *', '0 0 31 4,6,9,11 *', '0 0 31 feb */2',
       repeat('1,', 5000) || '1 * * * *'
       ]) as expression;

-- Days.

select is(
    next_cron_time(expression, 'UTC', '2030-01-01 12:00+00'), due_at::timestamptz,
    format('%s is due at %s', expression, due_at))
  from (values
        ('* * * * *', '2030-01-01 12:01+00'),
        ('0 12 * * *', '2030-01-02 12:00+00'),
        ('30 9 * * mon-fri', '2030-01-02 09:30+00'),
        ('0 0 13 * fri', '2030-01-04 00:00+00'),
        ('0 0 */13 * fri', '2030-02-01 00:00+00'),
        ('0 0 31 * *', '2030-01-31 00:00+00'),
        ('0 0 29 2 *', '2032-02-29 00:00+00'),
        ('0 0 29 2 */6', '2032-02-29 00:00+00'),
        ('59 23 31 12 *', '2030-12-31 23:59+00')) as cases (expression, due_at);

select is(
    next_cron_time('0 0 29 2 *', 'UTC', '2096-03-01'), '2104-02-29 00:00+00',
    '2100 has no leap day, so the next is eight years later');
select is(
    next_cron_time('0 0 29 2 */7', 'UTC', '2088-03-01'), '2128-02-29 00:00+00',
    'a leap day that is a Sunday may be forty years away');
select is(
    next_cron_time('*/15 9 * * mon', 'UTC', '2030-01-06 09:05+00'), '2030-01-07 09:00+00',
    'an hour of a day that is not named is not due');
select throws_ok(
    $$ select next_cron_time('@daily', 'UTC', '10000-01-01 00:00+00') $$, 'PD110', null,
    'a time after the year 9999 is refused');
select is(
    next_cron_time('0 0 29 2 *', 'UTC', '2031-01-01 00:00:00.000001+00'), '2032-02-29 00:00+00',
    'parts of a second are ignored');
select is(
    next_cron_time('*/5 * * * *', 'UTC', '2030-01-01 12:04:59.999999+00'), '2030-01-01 12:05+00',
    'parts of a second before a minute are ignored');

-- Changes of the clocks: four due times in local time, with UTC in parentheses.

create function pg_temp.due(expression text, time_zone text, after timestamptz) returns text
language plpgsql
as $$
declare
    here timestamptz := after;
    shown text[];
begin
    for n in 1..4 loop
        here := next_cron_time(expression, time_zone, here);
        shown := shown || to_char(here at time zone time_zone, 'DD HH24:MI')
                 || to_char(here at time zone 'UTC', '(HH24:MI)');
    end loop;
    return array_to_string(shown, ' ');
end
$$;

select is(
    pg_temp.due(expression, time_zone, after::timestamptz), due, format('%s in %s, %s', expression, time_zone, about))
  from (values
        -- 2030-03-31 02:00 becomes 03:00, 2030-10-27 03:00 becomes 02:00.
        ('30 2 * * *', 'Europe/Berlin', '2030-03-30 12:00+00', 'a skipped time is due at the end of the gap',
         '31 03:00 (01:00) 01 02:30 (00:30) 02 02:30 (00:30) 03 02:30 (00:30)'),
        ('10,50 2 * * *', 'Europe/Berlin', '2030-03-30 12:00+00', 'several skipped times are due once',
         '31 03:00 (01:00) 01 02:10 (00:10) 01 02:50 (00:50) 02 02:10 (00:10)'),
        ('30 2 * * *', 'Europe/Berlin', '2030-10-26 12:00+00', 'a repeated time is due once, the first time',
         '27 02:30 (00:30) 28 02:30 (01:30) 29 02:30 (01:30) 30 02:30 (01:30)'),
        ('30 2 * * *', 'Europe/Berlin', '2030-10-27 01:10+00', 'a repeated time is not due the second time',
         '28 02:30 (01:30) 29 02:30 (01:30) 30 02:30 (01:30) 31 02:30 (01:30)'),
        ('*/30 2-3 * * *', 'Europe/Berlin', '2030-03-30 12:00+00', 'stars leave out a gap',
         '31 03:00 (01:00) 31 03:30 (01:30) 01 02:00 (00:00) 01 02:30 (00:30)'),
        ('30 * * * *', 'Europe/Berlin', '2030-10-26 23:45+00', 'every hour means every hour that passes',
         '27 02:30 (00:30) 27 02:30 (01:30) 27 03:30 (02:30) 27 04:30 (03:30)'),
        ('0 12 * * *', 'Europe/Berlin', '2030-10-26 07:00+00', 'a later hour of a day with a repeated one',
         '26 12:00 (10:00) 27 12:00 (11:00) 28 12:00 (11:00) 29 12:00 (11:00)'),
        ('0 9 * * *', 'Europe/Berlin', '2030-03-30 07:00+00', 'the hour stays that of the local clock',
         '30 09:00 (08:00) 31 09:00 (07:00) 01 09:00 (07:00) 02 09:00 (07:00)'),
        -- 2030-03-10 02:00 becomes 03:00, 2030-11-03 02:00 becomes 01:00.
        ('15 2 * * *', 'America/New_York', '2030-03-09 12:00+00', 'a skipped time in spring',
         '10 03:00 (07:00) 11 02:15 (06:15) 12 02:15 (06:15) 13 02:15 (06:15)'),
        ('15 1 * * *', 'America/New_York', '2030-11-02 12:00+00', 'a repeated time in autumn',
         '03 01:15 (05:15) 04 01:15 (06:15) 05 01:15 (06:15) 06 01:15 (06:15)'),
        -- 2030-10-06 02:00 becomes 02:30, 2030-04-07 02:00 becomes 01:30.
        ('10 2 * * *', 'Australia/Lord_Howe', '2030-10-05 12:00+00', 'a gap of half an hour',
         '06 02:30 (15:30) 07 02:10 (15:10) 08 02:10 (15:10) 09 02:10 (15:10)'),
        ('45 1 * * *', 'Australia/Lord_Howe', '2030-04-06 12:00+00', 'a repeated half hour',
         '07 01:45 (14:45) 08 01:45 (15:15) 09 01:45 (15:15) 10 01:45 (15:15)'),
        ('*/15 1 * * *', 'Australia/Lord_Howe', '2030-04-06 14:20+00', 'a repeated half hour, with stars',
         '07 01:30 (14:30) 07 01:45 (14:45) 07 01:30 (15:00) 07 01:45 (15:15)'),
        -- 2010-11-07 00:01 became 23:01 of the day before.
        ('3 */12 * * *', 'America/St_Johns', '2010-11-07 02:29:30+00', 'a change of the clocks within an hour',
         '07 00:03 (03:33) 07 12:03 (15:33) 08 00:03 (03:33) 08 12:03 (15:33)'),
        ('30 23 * * sat', 'America/St_Johns', '2010-11-06 12:00+00', 'a repeated time before midnight is due once',
         '06 23:30 (02:00) 13 23:30 (03:00) 20 23:30 (03:00) 27 23:30 (03:00)'),
        ('*/30 23 * * sat', 'America/St_Johns', '2010-11-07 01:00+00',
        'stars are due again in a repeated hour before midnight',
         '06 23:00 (01:30) 06 23:30 (02:00) 06 23:30 (03:00) 13 23:00 (02:30)'),
        -- 2030-09-29 02:45 becomes 03:45, 2030-04-07 03:45 becomes 02:45.
        ('*/15 * * * *', 'Pacific/Chatham', '2030-09-28 13:50+00', 'a gap from one hour into the next',
         '29 03:45 (14:00) 29 04:00 (14:15) 29 04:15 (14:30) 29 04:30 (14:45)'),
        ('*/5 2 * * *', 'Pacific/Chatham', '2030-04-06 13:07+00', 'a repeated part of two hours',
         '07 02:55 (13:10) 07 02:45 (14:00) 07 02:50 (14:05) 07 02:55 (14:10)'),
        ('0 * * * *', 'Asia/Kolkata', '2030-01-01 12:00+00', 'a zone of half an hour',
         '01 18:00 (12:30) 01 19:00 (13:30) 01 20:00 (14:30) 01 21:00 (15:30)'),
        ('30 2 * * *', 'UTC', '2030-03-30 12:00+00', 'a zone without changes',
         '31 02:30 (02:30) 01 02:30 (02:30) 02 02:30 (02:30) 03 02:30 (02:30)')
       ) as cases (expression, time_zone, after, about, due);

-- The session does not matter.

set local timezone = 'Pacific/Apia';
set local intervalstyle = 'iso_8601';
set local datestyle = 'SQL, DMY';
select is(
    next_cron_time('30 2 * * *', 'Europe/Berlin', '2030-03-30T12:00Z'), '2030-03-31T01:00Z'::timestamptz,
    'the time zone of the session does not change due times');
select is(
    next_cron_time('0 12 * * *', 'Pacific/Apia', '2011-12-30T09:00Z'), '2011-12-30T10:00Z'::timestamptz,
    'the time zone of the session may skip the same day');

-- The collation does not matter: lower case and digits depend on it. Tried are the collations that this server has.

create function weekdays_in(collation name, cron text) returns text
language plpgsql
as $$
declare
    weekdays text;
begin
    execute format('select (parse_cron(%L collate %I)).weekdays', weekdays_in.cron, weekdays_in.collation) into weekdays;
    return weekdays;
exception
    when others then
        return sqlstate;
end
$$;
select is_empty(
    format($$ select c.collname
                from pg_collation as c
               where c.collname in ('C', 'tr-x-icu', 'pg_unicode_fast')
                 and weekdays_in(c.collname, %L) is distinct from %L $$, cron, weekdays),
    format('%s is %s in any language', cron, weekdays))
  from (values ('0 9 * * MON-FRI', '{1,2,3,4,5}'), ('0 9 * * ١', 'PD110')) as cases (cron, weekdays);

-- Times and zones without a next due time are refused.

set local statement_timeout = '10 s';
select is(
    error_of(format('select next_cron_time(%L, %s, %s)', cron, time_zone, after)), 'PD110',
    format('after %s in zone %s the next time is refused: %s', after, time_zone, cron))
  from unnest(array['* * * * *', '0 9 29 2 *', '@daily']) as cron
 cross join (values
        ('''Europe/Berln''', '''2030-01-01'''), ('''right/UTC''', '''2030-01-01'''),
        ('''right/Europe/Berlin''', '''2030-01-01'''),
        ('''UTC''', '''infinity'''), ('''UTC''', '''-infinity'''),
        ('''UTC''', '''294276-12-31 23:59Z'''), ('''UTC''', '''4713-01-01 00:00Z BC'''), ('''UTC''', 'null'),
        ('null', '''2030-01-01''')
       ) as cases (time_zone, after);
select isnt(next_cron_time('0 9 29 2 *', 'UTC', after::timestamptz), null,
            format('after %s there is a next time', after))
  from unnest(array['0001-01-01 00:00Z', '9999-12-31 00:00Z']) as after;

select is(
    next_cron_time('0 9 20 3 *', 'A167B-167,J69,J300', '2030-01-01 00:00Z'), null,
    'a local time that a zone never shows is never due');

select finish();
rollback;
