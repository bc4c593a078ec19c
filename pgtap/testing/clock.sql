-- The clock of a test: its owner moves it forward, it advances from there, and it can skip to the next due task [P7].

begin;
select plan(32);

create function pg_temp.distance(one timestamptz, other timestamptz) returns interval
language plpgsql
as $$
begin
    return date_trunc('minute', distance.one - distance.other + interval '30 s');
end
$$;
create function pg_temp.source_of_the_clock() returns text
language plpgsql
as $$
begin
    return (select regexp_replace(p.prosrc, '\s+', ' ', 'g') || p.proacl::text || p.proconfig::text || obj_description(p.oid, 'pg_proc')
              from pg_proc as p where p.oid = 'perdure.clock'::regproc);
end
$$;
create temporary table before_it as select pg_temp.source_of_the_clock() as plain;

-- Moving the clock forward.

select is(pg_temp.distance(move_clock('2 days'), clock_timestamp()), interval '2 days', 'the clock can be moved');
select is(pg_temp.distance(move_clock('1 hour'), clock_timestamp()), interval '2 days 1 hour',
          'a second move adds to the first');
create temporary table first_look as select clock() as at;
select cmp_ok(clock(), '>', at, 'a moved clock advances') from first_look;
select cmp_ok(move_clock('0 s'), '>', at, 'the clock may be moved by zero') from first_look;
select is(error_of(statement), 'PD107', format('%s is refused', about))
  from (values
        ('a move back',      $$ select move_clock('-1 s') $$),
        ('a move by null',   $$ select move_clock(null) $$),
        ('a move too far',   $$ select move_clock('1001 years') $$)
       ) as cases (about, statement);
select is(pg_temp.distance(clock(), clock_timestamp()), interval '2 days 1 hour',
          'a refused move does not move the clock');
set local timezone = 'Europe/Berlin';
select is(pg_temp.distance(clock(), clock_timestamp()), interval '2 days 1 hour',
          'the moved clock shows the same time in every zone');
set local timezone = 'UTC';
select given(entity_create('e', 'note'));
select is(
    pg_temp.distance((the_job('e') ->> 'created_at')::timestamptz, clock_timestamp()), interval '2 days 1 hour',
    'new rows have the moved time');

-- skip_time.

select is(skip_time(), null, 'skip_time() skips nothing if no task will be due');
select given(hook('e', 'h', key => 'now'));
select is(skip_time(), null, 'skip_time() skips nothing for a task that is due already');
select given(hook('e', 'h', key => 'later', due_at => clock() + interval '10 days'));
select given(hook('e', 'h', key => 'sooner', due_at => clock() + interval '3 days', queue => 'other'));
select is(skip_time(up_to => clock() + interval '2 days'), null, 'skip_time() skips nothing beyond up_to');
select is(pg_temp.distance(skip_time(), clock_timestamp()), interval '5 days 1 hour',
          'skip_time() skips to the next due task');
select is(
    skip_time(up_to => clock() + interval '8 days') is not null, true,
    'skip_time() skips to the next task although another is due');
select cmp_ok(
    clock(), '>=', (the_task('e', '$hook/later') ->> 'due_at')::timestamptz,
    'skip_time() does not skip short of the due time');
select is(
    pg_temp.distance(skip_time(since => clock() - interval '9 days'), clock()), interval '0',
    'skip_time() does not skip what has become due since the last look');
select given(take('ada', '{default,other}', 3));
select is(skip_time(), null, 'skip_time() does not skip to the end of a lease');
select given(hook('e', 'h', key => 'last', due_at => clock() + interval '1 day'));
select is(skip_time(), null, 'skip_time() skips nothing while a task is held');
select given(move_clock('1 min'));
select isnt(skip_time(), null, 'skip_time() ignores a task whose lease has ended');
select given(start('w', id => 'strange', queue => 's'));
select given(take('bob', '{s}'));
select given(tell(a_turn('strange', state => 'release', value => '{"code": "PD406"}', worker => 'bob')));
select is(skip_time(up_to => clock() + interval '1 h'), null, 'skip_time() waits for no task without code');
select given(start('w', id => 'sleeps', queue => 'sleeps', due_at => clock() + interval '20 min'));
select given(move_clock('1 min'));
select given(take('bob', '{s}'));
select is(skip_time(up_to => clock() + interval '1 h'), null, 'skip_time() skips nothing while such a task is held');
select given(terminate('sleeps'));
select given(terminate('strange'));
select given(start('w', id => 'waits', queue => 'q'));
select given(take('bob', '{q}'));
select given(tell(a_turn('waits', state => 'park', until => clock() + interval '30 days', worker => 'bob')));
select is(
    pg_temp.distance(skip_time(), (the_task('waits') ->> 'due_at')::timestamptz), interval '0',
    'skip_time() skips to the time of a parked task');
select given(start('w', id => 'stays', queue => 'q', due_at => clock() + interval '1 day'));
select given(pause('stays'));
select is(skip_time(), null, 'skip_time() ignores a paused task');
select set_queue('rate', rate_per_second => 1.0 / 86400);
select given(start('w', id => 'rate-' || n, queue => 'rate')) from generate_series(1, 2) as n;
select given(release(jsonb_build_array(a_turn(t ->> 'job')))) from jsonb_array_elements(take('ada', '{rate}')) as t;
create temporary table before_the_token as select clock() as at;
select is(pg_temp.distance(skip_time(), at), interval '1 day', 'skip_time() skips to the next token of a rate')
  from before_the_token;
select given(terminate(id)) from unnest('{rate-1,rate-2}'::text[]) as id;

-- The clock never goes back, although a time was computed before the clock was locked.

select given(move_clock('0 s'));
create temporary table last_look as select clock() as at;
select cmp_ok(set_clock(at - interval '1 day'), '>', at, 'set_clock() with an earlier time moves nothing')
  from last_look;

-- reset_clock.

select throws_like(
    $$ select reset_clock() $$, '%cannot be reset%', 'reset_clock() is refused while a task knows a later time');
select given(terminate('waits'));
select given(terminate('stays'));
delete from tasks where job_id = 'e';
select is(pg_temp.distance(reset_clock(), clock_timestamp()), interval '0', 'reset_clock() restores the real time');
select is(pg_temp.source_of_the_clock(), plain, 'reset_clock() restores the plain function') from before_it;
select is(pg_temp.distance(reset_clock(), clock_timestamp()), interval '0', 'reset_clock() may be repeated');
select is((select count(*) from settings where name = 'clock_ahead'), 0::bigint, 'reset_clock() removes its setting');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
