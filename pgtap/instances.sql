-- Instances: a copy of an app executes nothing until it is adopted; what waits in it waits as its owner says. [P7] [P13]

begin;
select plan(46);

create function pg_temp.echo(job text, args jsonb) returns jsonb language sql as 'select args';

-- Makes this app a copy of one that stands somewhere else, and is three hours old.
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

-- What an app may wait for, at noon.

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

select is((select s.value from settings as s where s.name = 'place'), current_place(), 'an app knows where it stands');
select given(register_worker('eve', '{q}', instance => (select (s.value #>> '{}')::uuid from settings as s
                                                         where s.name = 'instance')));

-- A copy.

create temporary table original as select s.value #>> '{}' as instance from settings as s where s.name = 'instance';
select pg_temp.be_copied();
select throws_ok(call, 'PD003', 'this app is a copy that nobody has adopted', 'a copy refuses ' || refused)
  from (values
        ('a worker''s hello', $$ select register_worker('ada', '{q}') $$),
        ('a claim', $$ select claim('{ready}', 'ada') $$),
        ('a claim of what the database runs', $$ select claim('{$sql}', 'ada') $$),
        ('a turn, of who held its task in the original', $$ select advance(jsonb_build_array(a_turn('held'))) $$),
        ('a claim with turns', $$ select advance('[]', '{ready}', 'ada', max_tasks => 1) $$),
        ('run_sql_hooks(), with all schedules and deadlines',
         $$ select take_sql_task('run_sql_hooks', gen_random_uuid()) $$),
        ('what the database runs itself', $$ select run_task('note', '$hook/h', token_of('ada')) $$),
        ('an end, of who held its task in the original', $$ select finish_task('held', '1/main', token_of('ada')) $$))
    as c (refused, call);
select is((the_task('ready') ->> 'deliveries')::integer, 0, 'a refused claim delivers nothing');
select is(entity_increment('note', 'n'), '1'::jsonb, 'its memories can be changed');
select isnt(signal('listener', 'go'), null, 'its jobs can be signalled');
select is(pg_temp.due_in('listener'), '0 s', '… and are due then, for who may execute');
select given(start('w', id => 'new', queue => 'new', due_at => clock() + interval '1 h'));
select is((status('sleeper')).status, 'running', 'its jobs can be looked at');
select is_empty('select * from assert_invariants()', 'no invariant is broken in a copy [P8]');

-- Adopted as it is.

select throws_ok(
    $$ select adopt_instance(clock() + interval '1 s') $$, 'PD107', null, 'a copy was not made in the future');
select throws_ok(
    $$ select adopt_instance('-infinity') $$, 'PD107', null, 'a copy was made at some time');
create temporary table adopted as select adopt_instance() as instance;
select isnt(a.instance::text, o.instance, 'who adopts a copy makes another instance of it')
  from adopted as a, original as o;
select is(register_worker('bob', '{q}') ->> 'instance', a.instance::text, 'a worker is told which one')
  from adopted as a;
select throws_ok(format(call, o.instance), 'PD003', null, 'a worker of the original is refused a ' || refused)
  from original as o,
       (values
        ('hello', $$ select register_worker('ada', '{q}', instance => %L) $$),
        ('claim', $$ select claim('{ready}', 'ada', instance => %L) $$),
        ('turn', $$ select advance(jsonb_build_array(a_turn('held')), instance => %L) $$)) as c (refused, call);
select is(pg_temp.due_in('sleeper'), '-2 h', 'timers that became due meanwhile are due [P7]');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- Adopted as if no time had passed.

select given(adopt_instance(clock() - interval '3 h'));
select is(pg_temp.due_in('sleeper'), '1 h', 'a sleep is as long as it was');
select is(the_task('sleeper') ->> 'until', the_task('sleeper') ->> 'due_at', '… and so is its deadline');
select is(the_task('asker') ->> 'due_at', 'infinity', 'who waits without a limit waits');
select is((select i.expires_at - clock() from items as i), '2 h', 'people have as much time as they had');
select is(pg_temp.due_in('limited', '1/main/$deadline'), '2 h', 'a job has as much time as it had');
select is(pg_temp.due_in('later'), '1 h', 'a start is put off');
select is(pg_temp.due_in('ready'), '-3 h', 'what was due is due');
select is(pg_temp.due_in('held'), '-3 h'::interval + '30 s', 'a lease ends when it would have');
select is(pg_temp.due_in('listener'), '0 s', 'who has mail is not put off');
select is(pg_temp.due_in('new'), '1 h', 'what was asked for in the copy is not put off');
select is(pg_temp.due_in('$schedule/nightly', '$hook/$schedule'), '-2 h -30 min', 'a schedule keeps to its timetable');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- What is due is done.

select is(
    jsonb_array_length(take('bob', '{sleeper,listener,limited,later,ready,held}', 10)), 4, 'what is due is claimed');
select is(tell(a_turn('held')) ->> 'state', 'fenced', 'who held a task in the original is fenced [P6]');
select given(take('clock', '{$sql}', 10));
select is(run_task('$schedule/nightly', '$hook/$schedule', token_of('clock')), 'waiting', 'a schedule catches up');
select is((select count(*) from jobs as j where j.id like 'nightly/%'), 1::bigint, '… with one job');
-- A day is 24 hours long, also where clocks were put forward in it.

set local timezone = 'America/New_York';
select the_time_is('2030-03-05 12:00+00');
select given(start('w', id => 'dawn', queue => 'dawn', due_at => clock() + interval '24 h'));
select have_held_job('people');
select given(tell(a_turn('people', state => 'park', requests => jsonb_build_array(jsonb_build_object(
    'key', 'a', 'kind', 'item', 'name', 'approve', 'expires_at', clock() + interval '24 h')))));
select the_time_is('2030-03-15 12:00+00');
select given(adopt_instance('2030-03-05 12:00+00'));
select is((the_task('dawn') ->> 'due_at')::timestamptz, '2030-03-16 12:00+00', 'what waits is put off by whole hours');
select is((select i.expires_at from items as i where i.job_id = 'people'), '2030-03-16 12:00+00', '… and so are items');
set local timezone = 'UTC';

-- Logical replication copies rows, and no sequence.

select given(signal('dawn', 'go', to_jsonb(n))) from generate_series(1, 3) as n;
select given(setval('inbox_id_seq', (select max(i.id) from inbox as i), false));
select is(array(select distinct code from assert_invariants()), '{I21}', 'ids of messages would be issued again');
select given(adopt_instance());
select is(signal('dawn', 'go', '4'), true, 'who adopts a copy can be sent messages');
select is(
    (select jsonb_agg(i.payload order by i.id) from inbox as i where i.job_id = 'dawn'), '[1, 2, 3, 4]',
    '… in their order [P5]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
