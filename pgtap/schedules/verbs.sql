-- The verbs of schedules: made, changed, paused, resumed, triggered, dropped, and looked at.

begin;
select plan(81);

select the_time_is('2030-01-01 12:00:00.5+00');

create function pg_temp.tick(name text) returns text
language plpgsql
as $$
begin
    return case when take('ada', '{$sql}') <> '[]' then run_task('$schedule/' || name, '$hook/$schedule', token_of('ada')) end;
end
$$;

create function pg_temp.jobs_of(name text) returns text[]
language plpgsql
as $$
begin
    return array(select substr(j.id, length(name) + 2) from jobs as j where j.headers ->> 'schedule' = name order by j.id);
end
$$;

-- Making.

select is(
    create_schedule('n', 'research', '0 9 * * mon-fri', time_zone => 'Europe/Berlin', args => '{"query": null}'),
    '2030-01-02 08:00+00', 'a schedule is made, and due at its time in its zone');
select is(
    entity_get('$schedule/n'), '{
        "workflow": "research", "cron": "0 9 * * mon-fri", "time_zone": "Europe/Berlin", "args": {"query": null},
        "catch_up": "last", "overlap": "allow", "queue": "default",
        "priority": 5}', 'its memory says what was asked for');
select is(
    create_schedule('n', 'research', '0 9 * * mon-fri', time_zone => 'Europe/Berlin', args => '{"query": null}'),
    '2030-01-02 08:00+00', 'to make it again gives the same answer [P12]');
select is(the_job('$schedule/n') -> 'version', '1', 'and changes nothing');
select is(
    create_schedule('n', 'research', '30 9 * * *', time_zone => 'Europe/Berlin'), '2030-01-02 08:30+00',
    'another is put in its place');
select is(the_job('$schedule/n') -> 'version', '2', 'as a version of the memory');
select is(
    (select array_agg(h.argument ->> 'cron' order by h.version) from entity_history('$schedule/n') as h),
    '{0 9 * * mon-fri,30 9 * * *}',
    'the history tells both');
select given(entity_set('$schedule/n', '"Jane"', 'owner'));
select given(create_schedule('n', 'research', '45 9 * * *', time_zone => 'Europe/Berlin'));
select is(entity_get('$schedule/n', 'owner'), '"Jane"', 'what others keep in the memory stays');
select is(entity_get('$schedule/n', 'args'), '[]', 'what is not said any more goes');
select is(tasks_of('$schedule/n'), '{$hook/$schedule}', 'it has one task');
select ok(
    (select s.name = 'n' and s.workflow = 'research' and s.cron = '45 9 * * *' and s.every is null and not s.paused
            and s.next_due_at = '2030-01-02 08:45+00' and s.last_job is null and s.waits_for ~ '^its time: '
       from schedules as s), 'the view tells all about it');

select is(
    create_schedule('i', 'w', every => '1 h'), '2030-01-01 13:00+00',
    'an interval counts from when it was made, in whole seconds');
select time_passes('10 min');
select is(create_schedule('i', 'w', every => '1 h'), '2030-01-01 13:00+00', 'and goes on when it is made again');
select is(
    create_schedule('i', 'w', every => '1 h', queue => 'q'), '2030-01-01 13:00+00', 'also with something else changed');
select is(create_schedule('i', 'w', every => '2 h'), '2030-01-01 14:10+00', 'another interval counts anew');
select is(
    create_schedule('i', 'w', every => '2 h', starts_at => '2030-01-01 00:00+00'), '2030-01-01 14:00+00',
    'or from where one says');
select is(
    create_schedule('i', 'w', every => '2 h', starts_at => '2031-01-01 00:00+00'), '2031-01-01 00:00+00',
    'which may be the first time');
select is(
    create_schedule('i', 'w', '@hourly', starts_at => '2031-01-01 00:00+00'), '2031-01-01 00:00+00', 'for cron too');
set local intervalstyle = 'iso_8601';
set local timezone = 'Europe/Berlin';
select given(create_schedule('i', 'w', every => '90 min', starts_at => '2030-01-01 00:00+01'));
set local intervalstyle = 'sql_standard';
set local timezone = 'UTC';
select given(create_schedule('i', 'w', every => '90 min', starts_at => '2029-12-31 23:00+00'));
select is(the_job('$schedule/i') -> 'version', '7', 'what a session is set to makes no other schedule');
set local intervalstyle = 'postgres';
select given(drop_schedule('i'));

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
        ($$ 'x', 'w', '@daily', priority => 11 $$, 'PD107'),
        ($$ 'x', 'w', '@daily', pinned_version => '' $$, 'PD104'),
        ($$ 'n', 'w', '@never' $$, 'PD110')) as cases (given, code);
select is(the_job('$schedule/x'), null, 'what is refused leaves nothing behind');
select is(entity_get('$schedule/n', 'cron'), '"45 9 * * *"', 'nor does it change what is there');
select throws_ok(statement, 'PD410', null, format('%s: there is none', statement))
  from unnest('{select pause_schedule($$x$$),select resume_schedule($$x$$),select trigger_schedule($$x$$),
                select pause_schedule(null)}'::text[]) as statement;

-- Names of its own.

select throws_ok(statement, 'PD104', null, format('%s is refused', statement))
  from unnest(array[
       $$ select start('w', id => '$schedule/mine') $$, $$ select entity_create('$schedule/mine', 'note') $$,
       $$ select entity_create('mine', '$schedule') $$, $$ select start('w', entity => '$schedule') $$]) as statement;

-- A pause.

select is(create_schedule('n', 'w', '0 * * * *', catch_up => 'all', queue => 'q'), '2030-01-01 13:00+00', 'a schedule');
select ok(pause_schedule('n') and not pause_schedule('n'), 'is paused once');
select is(
    (select array[s.paused::text, s.next_due_at::text, s.waits_for] from schedules as s where s.name = 'n'),
    '{true,NULL,somebody to resume it}', 'says so');
select is_empty('select * from assert_invariants()', 'and breaks no law');
select time_passes('2 h');
select is(pg_temp.tick('n'), null, 'nobody takes it');
select is(
    create_schedule('n', 'w', '0 * * * *', catch_up => 'all', queue => 'p'), null,
    'it stays paused when it is made again');
select ok(resume_schedule('n') and not resume_schedule('n'), 'it is resumed once');
select given(pg_temp.tick('n'));
select is(pg_temp.jobs_of('n'), '{2030-01-01T13:00:00Z,2030-01-01T14:00:00Z}', 'and catches up');
select is(the_task('n/2030-01-01T13:00:00Z') ->> 'queue', 'p', 'as it says now');
select given(entity_set('$schedule/n', 'true', 'paused'));
select given(pg_temp.tick('n'));
select is((the_task('$schedule/n', '$hook/$schedule') ->> 'due_at'), 'infinity', 'a command on the memory pauses too');
select given(entity_set('$schedule/n', '"junk"', 'cron'));
select given(pg_temp.tick('n'));
select throws_ok($$ select resume_schedule('n') $$, 'PD110', null, 'what nobody can follow is not resumed');
select given(create_schedule('n', 'w', '0 * * * *'));
select ok(resume_schedule('n'), 'mended, it is');

-- By hand.

select given(create_schedule('n', 'w', '0 * * * *', pinned_version => '7'));
select is(the_job((trigger_schedule('n')).id) ->> 'pinned_version', '7', 'a job is pinned as its schedule is');
select given(create_schedule('n', 'w', '0 * * * *'));
select is(the_job((trigger_schedule('n')).id) ->> 'pinned_version', null, 'and no more when the schedule is not');
select given(pause_schedule('n'));
select is(trigger_schedule('n', 'k'), ('n/now-k', true)::started, 'a start by hand is not held up by a pause');
select throws_ok($$ select trigger_schedule('n', '') $$, 'PD104', null, 'nor is a key nothing');
select is(the_job('n/now-k') -> 'headers', '{"schedule": "n"}', 'it is for no due time');
select is(trigger_schedule('n', 'k'), ('n/now-k', false)::started, 'the same key starts once [P1] [P12]');
select isnt((trigger_schedule('n')).id, (trigger_schedule('n')).id, 'without a key each call does');
select throws_ok($$ select trigger_schedule('n', repeat('k', 200)) $$, 'PD104', null, 'a key is a name');
select is(
    (select s.last_job from schedules as s where s.name = 'n'), 'n/2030-01-01T14:00:00Z',
    'the last job is that of a due time');

-- Dropping.

select throws_ok($$ select forget('$schedule/n') $$, 'PD407', null, 'a schedule is not forgotten by accident');
select ok(not terminate('$schedule/n') and not cancel('$schedule/n'), 'nor terminated');
select given(hook('$schedule/n', 'h', key => 'own', queue => 'own'));
select throws_ok($$ select drop_schedule('n') $$, 'PD407', null, 'while a hook runs on its memory it is not dropped');
select given(take('ada', '{own}'));
select given(tell(a_turn('$schedule/n', '$hook/own', state => 'done')));
select ok(drop_schedule('n'), 'it is dropped');
select ok(not drop_schedule('n') and not drop_schedule(null), 'once');
select is(the_job('n/now-k') ->> 'status', 'running', 'its jobs stay');
select is(create_schedule('n', 'w', '@daily'), '2030-01-02 00:00+00', 'its name is free');
select is(the_job('$schedule/n') -> 'version', '1', 'and begins again');

-- Numbers, as they are written.

select given(create_schedule('digits', 'w', '@daily', args => args))
  from (values ('[1]'::jsonb), ('[1.0]')) as written (args);
select is(entity_get('$schedule/digits', 'args')::text, '[1.0]', 'a number that is written otherwise is another');
select given(create_schedule('digits', 'w', '@daily', args => '[1.0]'));
select is(the_job('$schedule/digits') -> 'version', '2', 'and the same is the same');

select is_empty('select * from assert_invariants()', 'no law is broken');
select finish();
rollback;
