-- Instances: a copy of an app executes nothing until its owner adopts it and says what becomes of its timers. [P7]
-- [P13]

begin;
select plan(48);

create function pg_temp.echo(job text, args jsonb) returns jsonb language sql as 'select args';

-- Makes this app a copy of an app elsewhere, three hours old.
create function pg_temp.be_copied() returns void
language plpgsql
as $$
begin
    update settings set value = value || '{"database": 1}' where name = 'place';
    perform time_passes('3 h');
end
$$;

create function pg_temp.due_in(job text, task text default '1/main') returns interval
language plpgsql
as $$
begin
    return (select t.due_at - clock() from tasks as t where t.job_id = due_in.job and t.task = due_in.task);
end
$$;

-- Everything that an app may wait for, at noon.

select the_time_is('2030-01-01 12:00+00');
select have_held_job('sleeper');
select given(tell(a_turn('sleeper', state => 'park', until => clock() + interval '1 h')));
select have_held_job('listener');
select given(tell(a_turn('listener', state => 'park', awaits => '{go}', until => clock() + interval '5 h')));
select have_held_job('asker');
select given(tell(a_turn('asker', state => 'park', requests => jsonb_build_array(jsonb_build_object(
    'key', 'a', 'kind', 'item', 'name', 'approve', 'expires_at', clock() + interval '2 h')))));
select given(start('w', id => 'limited', queue => 'limited', timeout => '2 h'));
select given(start('w', id => 'later', queue => 'later', due_at => clock() + interval '1 h'));
select given(start('w', id => 'ready', queue => 'ready'));
select have_held_job('held');
select given(create_schedule('nightly', 'w', cron => '30 12 * * *', queue => 'nightly'));
select register_sql_hook('echo', 'pg_temp.echo');
select given(entity_create('note', 'note'));
select given(hook('note', 'echo', '[1]', queue => '$sql', key => 'h'));

select is((select s.value from settings as s where s.name = 'place'), current_place(), 'an app records its place');
select given(register_worker('eve', '{q}', instance => (select (s.value #>> '{}')::uuid from settings as s
                                                         where s.name = 'instance')));

-- A copy.

create temporary table original as select s.value #>> '{}' as instance from settings as s where s.name = 'instance';
select pg_temp.be_copied();
select throws_ok(call, 'PD003', 'this app is a copy that nobody has adopted', 'a copy refuses ' || refused)
  from (values
        ('a worker''s hello', $$ select register_worker('ada', '{q}') $$),
        ('a claim', $$ select claim('{ready}', 'ada') $$),
        ('a claim of tasks that the database runs', $$ select claim('{$sql}', 'ada') $$),
        ('a turn, from a holder in the original', $$ select advance(jsonb_build_array(a_turn('held'))) $$),
        ('a claim with turns', $$ select advance('[]', '{ready}', 'ada', max_tasks => 1) $$),
        ('run_sql_hooks(), with all schedules and deadlines',
         $$ select take_sql_task('run_sql_hooks', gen_random_uuid()) $$),
        ('a task that the database runs', $$ select run_task('note', '$hook/h', token_of('ada')) $$),
        ('an end, from a holder in the original', $$ select finish_task('held', '1/main', token_of('ada')) $$))
    as c (refused, call);
select is((the_task('ready') ->> 'deliveries')::integer, 0, 'a refused claim delivers nothing');
select is(entity_increment('note', 'n'), '1'::jsonb, 'the memories of a copy can be changed');
select isnt(signal('listener', 'go'), null, 'the jobs of a copy can be signalled');
select is(pg_temp.due_in('listener'), '0 s', 'a signal makes a task of a copy due');
select given(start('w', id => 'new', queue => 'new', due_at => clock() + interval '1 h'));
select is((status('sleeper')).status, 'running', 'the jobs of a copy can be read');
select is_empty('select * from assert_invariants()', 'no invariant is broken in a copy [P8]');

-- A copy that is adopted as it is.

select throws_ok(
    $$ select adopt_instance(clock() + interval '1 s') $$, 'PD107', null, 'the time of a copy cannot be in the future');
select throws_ok(
    $$ select adopt_instance('-infinity') $$, 'PD107', null, 'the time of a copy cannot be infinite');
create temporary table adopted as select adopt_instance() as instance;
select isnt(a.instance::text, o.instance, 'adopting a copy gives it another instance')
  from adopted as a, original as o;
select is(register_worker('bob', '{q}') ->> 'instance', a.instance::text,
          'a worker learns the new instance when it registers')
  from adopted as a;
select throws_ok(format(call, o.instance), 'PD003', null, 'a worker of the original is refused a ' || refused)
  from original as o,
       (values
        ('registration', $$ select register_worker('ada', '{q}', instance => %L) $$),
        ('claim', $$ select claim('{ready}', 'ada', instance => %L) $$),
        ('turn', $$ select advance(jsonb_build_array(a_turn('held')), instance => %L) $$)) as c (refused, call);
select is(pg_temp.due_in('sleeper'), '-2 h', 'timers that became due in the meantime are due [P7]');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- A copy that is adopted as if no time had passed.

select given(adopt_instance(clock() - interval '3 h'));
select is(pg_temp.due_in('sleeper'), '1 h', 'a sleep has as long to go as in the original');
select is(the_task('sleeper') ->> 'until', the_task('sleeper') ->> 'due_at', 'the limit of a sleep moves with it');
select is(the_task('asker') ->> 'due_at', 'infinity', 'a wait without a limit stays without one');
select is((select i.expires_at - clock() from items as i), '2 h', 'an item expires as much later');
select is(pg_temp.due_in('limited', '1/main/$deadline'), '2 h', 'the deadline of a job is put off');
select is(pg_temp.due_in('later'), '1 h', 'a delayed start is put off');
select is(pg_temp.due_in('ready'), '-3 h', 'a task that was due stays due');
select is(pg_temp.due_in('held'), '-3 h'::interval + '30 s', 'a lease is not put off');
select is(pg_temp.due_in('listener'), '0 s', 'a task with a message in its inbox is not put off');
select is(pg_temp.due_in('new'), '1 h', 'a task that was started in the copy is not put off');
select is(pg_temp.due_in('$schedule/nightly', '$hook/$schedule'), '-2 h -30 min', 'a schedule keeps to its timetable');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- The adopted copy executes what is due.

select is(
    jsonb_array_length(take('bob', '{sleeper,listener,limited,later,ready,held}', 10)), 4,
    'tasks that are due are claimed');
select is(tell(a_turn('held')) ->> 'state', 'fenced', 'the holder of a task in the original is fenced [P6]');
select given(take('clock', '{$sql}', 10));
select is(run_task('$schedule/nightly', '$hook/$schedule', token_of('clock')), 'waiting',
          'a schedule makes up for the times that it missed');
select is((select count(*) from jobs as j where j.id like 'nightly/%'), 1::bigint,
          'a schedule that catches up starts one job');
select set_queue('line', max_per_key => 1);
select given(start('w', id => 'line ' || n, queue => 'line', limit_key => 'k', due_at => clock() + interval '10 s'))
  from generate_series(1, 2) as n;
select time_passes('1 min');
select given(take('ada', '{line}', 2));
select given(adopt_instance(clock() - interval '55 s'));
select is(pg_temp.due_in('line 2'), '-50 s', 'a task that stands in line under its key is not put off');

-- A day is 24 hours long, even if the clocks go forward on that day.

set local timezone = 'America/New_York';
select the_time_is('2030-03-05 12:00+00');
select given(start('w', id => 'dawn', queue => 'dawn', due_at => clock() + interval '24 h'));
select have_held_job('people');
select given(tell(a_turn('people', state => 'park', requests => jsonb_build_array(jsonb_build_object(
    'key', 'a', 'kind', 'item', 'name', 'approve', 'expires_at', clock() + interval '24 h')))));
select the_time_is('2030-03-15 12:00+00');
select given(adopt_instance('2030-03-05 12:00+00'));
select is((the_task('dawn') ->> 'due_at')::timestamptz, '2030-03-16 12:00+00', 'a wait is put off by whole hours');
select is((select i.expires_at from items as i where i.job_id = 'people'), '2030-03-16 12:00+00',
          'an item is put off by whole hours');
set local timezone = 'UTC';

select is(error_of($$ select adopt_instance('1969-12-31 23:59+00') $$), 'PD107',
          'a copy cannot be older than time stamps of the server');

-- Logical replication copies rows, but not sequences.

select given(signal('dawn', 'go', to_jsonb(n))) from generate_series(1, 3) as n;
select given(setval('inbox_id_seq', (select max(i.id) from inbox as i), false));
select is(array(select distinct code from assert_invariants()), '{I21}',
          'a sequence that lags behind its rows breaks I21');
select given(adopt_instance());
select is(signal('dawn', 'go', '4'), true, 'an adopted copy takes messages');
select is(
    (select jsonb_agg(i.payload order by i.id) from inbox as i where i.job_id = 'dawn'), '[1, 2, 3, 4]',
    'messages of an adopted copy keep their order [P5]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
