-- The clock: the one place where time is read [P7].

begin;
select plan(8);

create temporary table first_look as
select clock() as at, clock_timestamp() as by_server;
select cmp_ok(clock(), '>', (select at from first_look), 'the clock advances during a transaction [P7]');
select cmp_ok(abs(extract(epoch from at - by_server)), '<', 5::numeric, 'the clock shows the time of the server')
  from first_look;

-- A test may stop the clock. Everything reads the stopped clock.

select the_time_is('2000-01-01 00:00+00');
select is(clock(), '2000-01-01 00:00+00', 'a stopped clock does not advance');
select time_passes('1 day 2 hours');
select is(clock(), '2000-01-02 02:00+00', 'a test moves a stopped clock');
select have_held_job('j', '{"n": 1}');
select given(entity_set('j', '2', 'n'));
select given(signal('j', 'go'));
select given(hook('j', 'h', key => 'h'));
select given(tell(a_turn('j', facts => '[{"kind": "note"}, {"op": "set", "path": ["n"], "value": 3}]',
                         requests => '[{"key": "c", "kind": "job", "name": "c", "context": {"n": 1}}]')));
select is_empty($$
    select 'jobs', created_at from jobs where created_at <> clock() or updated_at <> clock()
    union all select 'journal', at from journal where at <> clock()
    union all select 'inbox', sent_at from inbox where sent_at <> clock()
    union all select 'tasks', started_at from tasks where started_at <> clock()
    union all select 'tasks', due_at from tasks where due_at not in (clock(), clock() + interval '30 s')
$$, 'every stored time is read from the clock [P7]');
select given(terminate('j'));
select is((the_job('j') ->> 'finished_at')::timestamptz, clock(), 'the end of a job is read from the clock');

-- Times in the far future.

select the_time_is('9999-12-31 23:00+00');
select have_held_job('late');
select is(
    tell(a_turn('late', state => 'park', until => clock() + interval '1000 years')) ->> 'state',
    'parked',
    'a task may sleep for a thousand years');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
