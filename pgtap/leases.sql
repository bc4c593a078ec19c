-- Leases: renewed by heartbeats, or given back.

begin;
select plan(55);

select the_time_is('2030-01-01 12:00+00');

-- extend

select have_held_job(id) from unnest('{a,b,c}'::text[]) as id;
select time_passes('20 s');
select is(
    extend(jsonb_build_array(a_turn('a'), a_turn('b')))::jsonb,
    '[
    {"job": "a", "task": "1/main", "state": "held", "cancel": false},
    {"job": "b", "task": "1/main", "state": "held", "cancel": false}]',
    'leases are renewed in one call, and answered in order');
select is(
    (the_task('a') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a renewed lease is as long as a new one');
select is(
    (the_task('c') ->> 'due_at')::timestamptz,
    clock() + interval '10 s',
    'a lease that is not named is not renewed');
select given(extend(jsonb_build_array(a_turn('a')), '5 min'));
select is((the_task('a') ->> 'due_at')::timestamptz, clock() + interval '5 min', 'a lease may be renewed for longer');
select time_passes('10 s');
select is(take('bob', '{b}'), '[]', 'a task whose lease was renewed is not claimed by another');
select is(take('bob', '{c}') #>> '{0,job}', 'c', 'a task whose lease has ended is claimed by another');
select is(
    extend(jsonb_build_array(a_turn('b'), a_turn('c'), a_turn('nobody')))::jsonb,
    '[
    {"job": "b", "task": "1/main", "state": "held", "cancel": false},
    {"job": "c", "task": "1/main", "state": "lost", "cancel": false},
    {"job": "nobody", "task": "1/main", "state": "lost", "cancel": false}]',
    'extend() answers that a lease is lost [P6]');
select is(
    (the_task('c') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a late heartbeat does not move the lease of the new holder [P6]');
select time_passes('1 h');
select is(
    extend(jsonb_build_array(a_turn('b')))::jsonb #>> '{0,state}',
    'held',
    'a lease that has ended can be renewed while nobody has claimed the task');
select is(the_task('b') ->> 'deliveries', '1', 'a heartbeat does not count as a delivery');
select given(tell(a_turn('b', state => 'park', awaits => '{go}')));
select is(extend(jsonb_build_array(a_turn('b')))::jsonb #>> '{0,state}', 'lost', 'a parked task has no lease to renew');
select is((the_task('b') ->> 'due_at')::timestamptz, 'infinity', 'a late heartbeat moves no parked task [P6]');
select is(extend('[]')::jsonb, '[]', 'extend() of no leases is no error');
select is(
    error_of(format($$ select extend('[]', %s) $$, lease_for)),
    'PD107',
    format('a renewal for %s is refused', lease_for))
  from unnest(array['null', '''-1 s''', '''99 ms''', '''25 h''']) as lease_for;

-- release

select have_held_job(id) from unnest('{x,y}'::text[]) as id;
select given(tell(a_turn('x', facts => '[{"kind": "note", "key": "n"}]')));
select is(release(jsonb_build_array(a_turn('x'), a_turn('y'), a_turn('c'), a_turn('nobody')))::jsonb, '[
    {"job": "x", "task": "1/main", "state": "released"},
    {"job": "y", "task": "1/main", "state": "released"},
    {"job": "c", "task": "1/main", "state": "lost"},
    {"job": "nobody", "task": "1/main", "state": "lost"}]', 'leases are given back in one call, and answered in order');
select is(
    jsonb_build_array(the_task('y') -> 'token', the_task('y') -> 'worker', (the_task('y') ->> 'due_at')::timestamptz,
                      the_task('y') -> 'deliveries'),
    jsonb_build_array(null, null, clock(), 0),
    'a task that was given back is due at once, and its delivery does not count');
select is(
    release(jsonb_build_array(a_turn('x')))::jsonb #>> '{0,state}',
    'released',
    'a repeated release gets the same answer [P12]');
select is(
    take('bob', '{x}') #> '{0,journal,0,2}',
    '"n"',
    'a task that was given back keeps its journal');
select is(
    release(jsonb_build_array(a_turn('x')))::jsonb #>> '{0,state}',
    'lost',
    'a task that another has claimed cannot be given back [P6]');
select is(the_task('x') ->> 'worker', 'bob', 'a late release does not take a task from its new holder [P6]');
select is(
    verdict_of(a_turn('y', facts => '[{"op": "set", "path": ["n"], "value": 1}]')),
    'parked',
    'a worker that has given a task back cannot advance it [P6]');
select is(the_job('y') ->> 'version', '0', 'nothing of a refused turn is applied');
select is(release('[]')::jsonb, '[]', 'release() of no leases is no error');

-- Wrong leases: the error must help an author of a worker in another language, and not say that another worker has the
-- task.

select is(
    error_of(format('select %s(%L)', verb, jsonb_build_array(a_turn('x'), turn))),
    'PD107',
    format('%s() refuses %s', verb, about))
  from unnest('{extend,release}'::text[]) as verb
 cross join (values ('a token that is not a uuid', a_turn('y') || '{"token": "mine"}'),
                    ('a lease without a token', a_turn('y') - 'token'),
                    ('a lease without a job', a_turn('y') - 'job')) as cases (about, turn);

-- Progress of a task, kept with its lease.

create function with_progress(turn jsonb, progress jsonb) returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(jsonb_build_object(
        'job', turn -> 'job', 'task', turn -> 'task', 'token', turn -> 'token', 'progress', with_progress.progress));
end
$$;

select have_held_job('p');
select is(
    extend(with_progress(a_turn('p'), '{"page": 3}'))::jsonb,
    '[{"job": "p", "task": "1/main", "state": "held", "cancel": false}]',
    'a heartbeat may report progress (E20)');
select is(the_task('p') -> 'progress', '{"page": 3}', 'the task keeps its progress');
select is((status('p')).waiting_for, 'worker ada, at {"page": 3}', 'the status of a job shows the progress');
select is(
    (select w.progress from waiting as w where w.job_id = 'p'), '{"page": 3}', 'the view waiting shows the progress');
select given(extend(jsonb_build_array(a_turn('p'))));
select is(the_task('p') -> 'progress', '{"page": 3}', 'a heartbeat without progress keeps the old progress');
select is(
    extend(with_progress(a_turn('p'), progress))::jsonb #>> '{0,error,code}', code,
    format('progress with %s is refused', about))
  from (values ('a value that is too large', to_jsonb(repeat('x', 10001)), 'PD301'),
               ('a value that is too deep', (repeat('[', 110) || repeat(']', 110))::jsonb, 'PD302'),
               ('a number that is too large', ('[' || repeat('9', 400) || ']')::jsonb, 'PD304')
       ) as cases (about, progress, code);
select is(the_task('p') -> 'progress', '{"page": 3}', 'refused progress keeps the old progress');
select time_passes('20 s');
select is(
    (extend(with_progress(a_turn('p'), to_jsonb(repeat('x', 10001)))) -> 0)::jsonb ->> 'state',
    'held',
    'refused progress does not prevent the renewal of the lease');
select time_passes('31 s');
select is(take('bob', '{p}') #> '{0,progress}', '{"page": 3}', 'the next holder gets the progress');
select is(
    extend(with_progress(a_turn('p'), '{"page": 9}'))::jsonb #>> '{0,state}', 'lost',
    'a worker that has lost its lease cannot report progress [P6]');
select given(release(with_progress(a_turn('p'), '{"page": 9}')));
select is(the_task('p') -> 'progress', '{"page": 3}',
          'a release by a worker that has lost its lease does not change the progress [P6]');
select given(release(with_progress(a_turn('p', worker => 'bob'), '{"page": 4}')));
select is(the_task('p') -> 'progress', '{"page": 4}', 'a release may report progress');
select given(take('ada', '{p}'));
select given(release(with_progress(a_turn('p'), to_jsonb(repeat('x', 10001)))));
select is(
    jsonb_build_array(the_task('p') -> 'progress', the_task('p') -> 'token'),
    '[{"page": 4}, null]',
    'refused progress does not prevent a release');

-- Messages that arrived while a task was held survive its release.

select have_held_job('mail');
select given(signal('mail', 'go', '1'));
select given(tell(a_turn('mail', awaits => '{other}')));
select given(release(jsonb_build_array(a_turn('mail'))));
select is(the_task('mail') -> 'awaits', 'null', 'a task that was given back waits only for a worker');
select given(take('bob', '{mail}'));
select is(
    tell(a_turn('mail', state => 'park', awaits => '{go}', worker => 'bob')) #> '{messages,0,payload}',
    '1',
    'messages survive the release of a lease [P5]');

-- A day of a lease has 24 hours in every time zone, even if the clocks of Berlin go back or forward on that day.

set local timezone = 'Europe/Berlin';
create function pg_temp.ends_in(id text) returns interval
language plpgsql
as $$
begin
    return justify_hours((the_task(ends_in.id) ->> 'due_at')::timestamptz - clock());
end
$$;
select the_time_is('2030-10-26 12:00+00');
select given(start('w', id => 'fall', queue => 'fall'));
select given(take('ada', '{fall}', lease_for => '1 day'));
select is(pg_temp.ends_in('fall'), '1 day', 'a lease of a day lasts 24 hours');
select is_empty('select * from assert_invariants()', 'a lease of a day is not too long [P8]');
select time_passes('1 min');
select given(extend(jsonb_build_array(a_turn('fall')), '1 day'));
select is(pg_temp.ends_in('fall'), '1 day', 'a renewed lease of a day lasts 24 hours');
select the_time_is('2031-03-29 12:00+00');
select given(take('bob', '{fall}', lease_for => '1 day'));
select is(pg_temp.ends_in('fall'), '1 day', 'a lease of a day lasts 24 hours when the clocks go forward');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
set local timezone = 'UTC';

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
