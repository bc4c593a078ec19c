-- The verbs of schedules: create, change, pause, resume, trigger, backfill, drop, and list.

begin;
select plan(100);

select the_time_is('2030-01-01 12:00:00.5+00');

create function pg_temp.tick(name text) returns text
language plpgsql
as $$
begin
    return case when take('ada', '{$sql}') <> '[]' then run_task('$schedule/' || name,
    '$hook/$schedule', token_of('ada')) end;
end
$$;

create function pg_temp.jobs_of(name text) returns text[]
language plpgsql
as $$
begin
    return array(select substr(j.id, length(name) + 2) from jobs as j where j.headers ->> 'schedule' = name order by j.id);
end
$$;

-- create_schedule.

select is(
    create_schedule('n', 'research', '0 9 * * mon-fri', time_zone => 'Europe/Berlin', args => '{"query": null}'),
    '2030-01-02 08:00+00', 'create_schedule() returns the first due time in its zone');
select is(
    entity_get('$schedule/n'), '{
        "workflow": "research", "cron": "0 9 * * mon-fri", "time_zone": "Europe/Berlin", "args": {"query": null},
        "catch_up": "last", "overlap": "allow", "queue": "default",
        "priority": 5}', 'the memory of a schedule has its definition');
select is(
    create_schedule('n', 'research', '0 9 * * mon-fri', time_zone => 'Europe/Berlin', args => '{"query": null}'),
    '2030-01-02 08:00+00', 'a repeated create_schedule() gets the same answer [P12]');
select is(the_job('$schedule/n') -> 'version', '1', 'a repeated create_schedule() changes nothing');
select is(
    create_schedule('n', 'research', '30 9 * * *', time_zone => 'Europe/Berlin'), '2030-01-02 08:30+00',
    'create_schedule() replaces another definition');
select is(the_job('$schedule/n') -> 'version', '2', 'a replaced definition makes a version of the memory');
select is(
    (select array_agg(h.argument ->> 'cron' order by h.version) from entity_history('$schedule/n') as h),
    '{0 9 * * mon-fri,30 9 * * *}',
    'the history has both definitions');
select given(entity_set('$schedule/n', '"Jane"', 'owner'));
select given(create_schedule('n', 'research', '45 9 * * *', time_zone => 'Europe/Berlin'));
select is(entity_get('$schedule/n', 'owner'), '"Jane"', 'create_schedule() keeps other values of the memory');
select is(entity_get('$schedule/n', 'args'), '[]', 'create_schedule() resets options that it does not name');
select is(tasks_of('$schedule/n'), '{$hook/$schedule}', 'a schedule has one task');
select ok(
    (select s.name = 'n' and s.workflow = 'research' and s.cron = '45 9 * * *' and s.every is null and not s.paused
            and s.next_due_at = '2030-01-02 08:45+00' and s.last_job is null and s.waits_for ~ '^its time: '
       from schedules as s), 'the view schedules shows a schedule');

select is(
    create_schedule('i', 'w', every => '1 h'), '2030-01-01 13:00+00',
    'an interval counts from the creation, in whole seconds');
select time_passes('10 min');
select is(create_schedule('i', 'w', every => '1 h'), '2030-01-01 13:00+00',
          'a repeated create_schedule() keeps the start of an interval');
select is(
    create_schedule('i', 'w', every => '1 h', queue => 'q'), '2030-01-01 13:00+00',
    'another option keeps the start of an interval');
select is(create_schedule('i', 'w', every => '2 h'), '2030-01-01 14:10+00', 'another interval starts anew');
select is(
    create_schedule('i', 'w', every => '2 h', starts_at => '2030-01-01 00:00+00'), '2030-01-01 14:00+00',
    'an interval may have a start');
select is(
    create_schedule('i', 'w', every => '2 h', starts_at => '2031-01-01 00:00+00'), '2031-01-01 00:00+00',
    'the start of an interval may be its first due time');
select is(
    create_schedule('i', 'w', '@hourly', starts_at => '2031-01-01 00:00+00'), '2031-01-01 00:00+00',
    'the start of a cron schedule may be its first due time');
set local intervalstyle = 'iso_8601';
set local timezone = 'Europe/Berlin';
select given(create_schedule('i', 'w', every => '90 min', starts_at => '2030-01-01 00:00+01'));
set local intervalstyle = 'sql_standard';
set local timezone = 'UTC';
select given(create_schedule('i', 'w', every => '90 min', starts_at => '2029-12-31 23:00+00'));
select is(the_job('$schedule/i') -> 'version', '7', 'settings of the session do not change the definition');
set local intervalstyle = 'postgres';
select given(drop_schedule('i'));

select isnt(create_schedule(repeat('x', 150), 'w', '@daily'), null, 'the name of a schedule may have 150 bytes');
select given(drop_schedule(repeat('x', 150)));

-- Bad input.

select throws_ok(format('select create_schedule(%s)', given), code, null, format('%s: %s', given, code))
  from (values
        ($$ 'x', 'w' $$, 'PD110'),
        ($$ 'x', 'w', '* * * *' $$, 'PD110'),
        ($$ 'x', 'w', '0 0 30 2 *' $$, 'PD110'),
        ($$ 'x', 'w', '@daily', every => '1 h' $$, 'PD110'),
        ($$ 'x', 'w', every => '0 s' $$, 'PD110'),
        ($$ 'x', 'w', every => case when current_setting('server_version_num')::integer < 170000 then '-1 s'
                               else 'infinity' end::interval $$, 'PD110'),
        ($$ 'x', 'w', '@daily', time_zone => 'Mars' $$, 'PD110'),
        ($$ 'x', 'w', '@daily', catch_up => 'everything' $$, 'PD110'),
        ($$ 'x', 'w', '@daily', overlap => 'cancel' $$, 'PD110'),
        ($$ 'x', 'w', '@daily', headers => '[]' $$, 'PD110'),
        ($$ 'x', 'w', '@daily', args => '1' $$, 'PD103'),
        ($$ 'x', '', '@daily' $$, 'PD104'),
        ($$ 'x', null, '@daily' $$, 'PD104'),
        ($$ '', 'w', '@daily' $$, 'PD104'),
        ($$ null, 'w', '@daily' $$, 'PD104'),
        ($$ '$x', 'w', '@daily' $$, 'PD104'),
        ($$ repeat('x', 151), 'w', '@daily' $$, 'PD104'),
        ($$ repeat('é', 76), 'w', '@daily' $$, 'PD104'),
        ($$ 'x', 'w', '@daily', priority => 11 $$, 'PD107'),
        ($$ 'x', 'w', '@daily', pinned_version => '' $$, 'PD104'),
        ($$ 'n', 'w', '@never' $$, 'PD110')) as cases (given, code);
select is(the_job('$schedule/x'), null, 'a refused schedule leaves nothing');
select is(entity_get('$schedule/n', 'cron'), '"45 9 * * *"', 'a refused change does not change the schedule');
select throws_ok(statement, 'PD410', null, format('%s: no such schedule', statement))
  from unnest('{select pause_schedule($$x$$),select resume_schedule($$x$$),select trigger_schedule($$x$$),
                select pause_schedule(null)}'::text[]) as statement;

-- Reserved names.

select throws_ok(statement, 'PD104', null, format('%s is refused', statement))
  from unnest(array[
       $$ select start('w', id => '$schedule/mine') $$, $$ select entity_create('$schedule/mine', 'note') $$,
       $$ select entity_create('mine', '$schedule') $$, $$ select start('w', entity => '$schedule') $$]) as statement;

-- Pauses.

select is(create_schedule('n', 'w', '0 * * * *', catch_up => 'all', queue => 'q'), '2030-01-01 13:00+00',
          'create_schedule() returns the next due time');
select ok(pause_schedule('n') and not pause_schedule('n'), 'a schedule can be paused, and not twice');
select is(
    (select array[s.paused::text, s.next_due_at::text, s.waits_for] from schedules as s where s.name = 'n'),
    '{true,NULL,somebody to resume it}', 'the view schedules shows the pause');
select is_empty('select * from assert_invariants()', 'a paused schedule breaks no invariant');
select time_passes('2 h');
select is(pg_temp.tick('n'), null, 'no worker gets the task of a paused schedule');
select is(
    create_schedule('n', 'w', '0 * * * *', catch_up => 'all', queue => 'p'), null,
    'create_schedule() does not end a pause');
select ok(resume_schedule('n') and not resume_schedule('n'), 'a schedule can be resumed, and not twice');
select given(pg_temp.tick('n'));
select is(pg_temp.jobs_of('n'), '{2030-01-01T13:00:00Z,2030-01-01T14:00:00Z}', 'a resumed schedule catches up');
select is(the_task('n/2030-01-01T13:00:00Z') ->> 'queue', 'p',
          'the missed jobs have the present options of the schedule');
select given(entity_set('$schedule/n', 'true', 'paused'));
select given(pg_temp.tick('n'));
select is((the_task('$schedule/n', '$hook/$schedule') ->> 'due_at'), 'infinity',
          'a command on the memory may pause a schedule');
select given(entity_set('$schedule/n', '"junk"', 'cron'));
select given(pg_temp.tick('n'));
select throws_ok($$ select resume_schedule('n') $$, 'PD110', null,
                 'a schedule with a wrong definition cannot be resumed');
select throws_ok($$ select trigger_schedule('n') $$, 'PD110', null,
                 'a schedule with a wrong definition cannot be triggered');
select given(entity_set('$schedule/n', 'false', 'paused'));
select ok(pause_schedule('n'), 'a schedule with a wrong definition can be paused');
select given(create_schedule('n', 'w', '0 * * * *'));
select given(entity_set('$schedule/n', '10', 'priority'));
select throws_ok($$ select resume_schedule('n') $$, 'PD107', null,
                 'a schedule whose jobs cannot be started cannot be resumed');
select given(create_schedule('n', 'w', '0 * * * *'));
select ok(resume_schedule('n'), 'a repaired schedule can be resumed');

-- A change at the very time at which a job is due.

select given(create_schedule('punctual', 'w', every => '1 h', starts_at => '2030-01-01 00:00+00'));
select time_passes((the_task('$schedule/punctual', '$hook/$schedule') ->> 'due_at')::timestamptz - clock());
select is(create_schedule('punctual', 'w', every => '1 h', starts_at => '2030-01-01 00:00+00', queue => 'p'), clock(),
          'a schedule that is changed when it is due stays due');
select given(drop_schedule('punctual'));

-- trigger_schedule.

select given(create_schedule('n', 'w', '0 * * * *', pinned_version => '7'));
select is(the_job((trigger_schedule('n')).id) ->> 'pinned_version', '7',
          'a triggered job has the version of its schedule');
select given(create_schedule('n', 'w', '0 * * * *'));
select is(the_job((trigger_schedule('n')).id) ->> 'pinned_version', null,
          'a triggered job has no version if its schedule has none');
select given(pause_schedule('n'));
select is(trigger_schedule('n', 'k'), ('n/now-k', true)::started, 'a paused schedule can be triggered');
select throws_ok($$ select trigger_schedule('n', '') $$, 'PD104', null, 'trigger_schedule() refuses an empty key');
select is(the_job('n/now-k') -> 'headers', '{"schedule": "n"}', 'a triggered job has no due time in its headers');
select is(trigger_schedule('n', 'k'), ('n/now-k', false)::started, 'a repeated key triggers one job [P1] [P12]');
select isnt((trigger_schedule('n')).id, (trigger_schedule('n')).id, 'without a key each call triggers a job');
select throws_ok($$ select trigger_schedule('n', repeat('k', 200)) $$, 'PD104', null,
                 'trigger_schedule() refuses a key that is too long');
select is(
    (select s.last_job from schedules as s where s.name = 'n'), 'n/2030-01-01T14:00:00Z',
    'the last job of a schedule is one of a due time');

-- backfill_schedule.

select given(create_schedule('past', 'w', '0 9 * * mon-fri', time_zone => 'Europe/Berlin', priority => 2,
                             overlap => 'skip', queue => 'past', args => '["wind"]'));
select results_eq(
    $$ select * from backfill_schedule('past', '2026-03-27 08:00+00', '2026-03-31 07:00+00') $$,
    $$ values ('past/2026-03-27T08:00:00Z', true), ('past/2026-03-30T07:00:00Z', true) $$,
    'a backfill starts each due time from the first on and before the last, also over a change of the clock');
select results_eq(
    $$ select * from backfill_schedule('past', '2026-03-30Z', '2026-04-01Z', priority => null) $$,
    $$ values ('past/2026-03-30T07:00:00Z', false), ('past/2026-03-31T07:00:00Z', true) $$,
    'a backfill that is repeated starts only what is missing [P1] [P12]');
select is(
    array(select j.priority || (j.headers ->> 'due_at') from jobs as j where j.id ~ '^past/' order by j.id),
    '{92026-03-27T08:00:00Z,92026-03-30T07:00:00Z,22026-03-31T07:00:00Z}',
    'the jobs of a backfill go last, or have the priority of the schedule');
select is(
    (select count(*) from backfill_schedule('past', clock() - interval '7 days', clock() + interval '1 year')),
    5::bigint,
    'a backfill leaves the due times in the future to the schedule');
select is_empty($$ select backfill_schedule('past', clock() - interval '1 s', clock() - interval '1 day') $$,
                'a backfill of no time starts nothing');
select given(create_schedule('past', 'w', every => '1 day', starts_at => '2029-12-30 06:00+00'));
select is(
    array(select b.id from backfill_schedule('past', '2029-12-01Z', clock()) as b),
    '{past/2029-12-30T06:00:00Z,past/2029-12-31T06:00:00Z,past/2030-01-01T06:00:00Z}',
    'a schedule was never due before its first time');
select given(pause_schedule('past'));
select is((select count(*) from backfill_schedule('past', '2029-12-31Z')), 2::bigint,
          'a paused schedule can be backfilled, without an end up to now');
select throws_ok(statement, code, null, format('%s: %s', code, statement))
  from (values
        ($$ select backfill_schedule('nobody', '2026-01-01Z', '2026-01-02Z') $$, 'PD410'),
        ($$ select backfill_schedule('past', null, '2026-01-02Z') $$, 'PD107'),
        ($$ select backfill_schedule('past', '-infinity', '2026-01-02Z') $$, 'PD107'),
        ($$ select backfill_schedule('past', '2029-12-01Z', clock(), priority => 10) $$, 'PD107'),
        ($$ select create_schedule('past', 'w', '* * * * *'), backfill_schedule('past', '2029-12-01Z') $$, 'PD107'),
        ($$ select entity_set('$schedule/past', '"no"', 'cron'), backfill_schedule('past', '2029-12-01Z') $$, 'PD110')
       ) as cases (statement, code);
select given(drop_schedule('past'));

-- drop_schedule.

select throws_ok($$ select forget('$schedule/n') $$, 'PD407', null, 'forget() refuses a schedule');
select ok(not terminate('$schedule/n') and not cancel('$schedule/n'), 'terminate() and cancel() refuse a schedule');
select given(hook('$schedule/n', 'h', key => 'own', queue => 'own'));
select throws_ok($$ select drop_schedule('n') $$, 'PD407', null, 'a schedule with a hook on its memory is not dropped');
select given(take('ada', '{own}'));
select given(tell(a_turn('$schedule/n', '$hook/own', state => 'done')));
select ok(drop_schedule('n'), 'a schedule can be dropped');
select ok(not drop_schedule('n') and not drop_schedule(null), 'a schedule can be dropped only once');
select is(the_job('n/now-k') ->> 'status', 'running', 'the jobs of a dropped schedule stay');
select is(create_schedule('n', 'w', '@daily'), '2030-01-02 00:00+00', 'the name of a dropped schedule can be reused');
select is(the_job('$schedule/n') -> 'version', '1', 'a new schedule of the same name begins with version 1');

-- Numbers keep their spelling.

select given(create_schedule('digits', 'w', '@daily', args => args))
  from (values ('[1]'::jsonb), ('[1.0]')) as written (args);
select is(entity_get('$schedule/digits', 'args')::text, '[1.0]', 'another spelling of a number is another definition');
select given(create_schedule('digits', 'w', '@daily', args => '[1.0]'));
select is(the_job('$schedule/digits') -> 'version', '2', 'the same spelling is the same definition');

select is_empty('select * from assert_invariants()', 'no invariant is broken');
select finish();
rollback;
