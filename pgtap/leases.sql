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
select is(take('bob', '{c}') #>> '{0,job}', 'c', 'a task whose lease was not renewed is');
select is(
    extend(jsonb_build_array(a_turn('b'), a_turn('c'), a_turn('nobody')))::jsonb,
    '[
    {"job": "b", "task": "1/main", "state": "held", "cancel": false},
    {"job": "c", "task": "1/main", "state": "lost", "cancel": false},
    {"job": "nobody", "task": "1/main", "state": "lost", "cancel": false}]',
    'a lease that was lost is told as lost [P6]');
select is(
    (the_task('c') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'the lease of the new holder is as it was [P6]');
select time_passes('1 h');
select is(
    extend(jsonb_build_array(a_turn('b')))::jsonb #>> '{0,state}',
    'held',
    'a lease that has ended can be renewed while nobody has claimed the task');
select is(the_task('b') ->> 'deliveries', '1', 'a heartbeat is no progress');
select given(tell(a_turn('b', state => 'park', awaits => '{go}')));
select is(extend(jsonb_build_array(a_turn('b')))::jsonb #>> '{0,state}', 'lost', 'a parked task has no lease to renew');
select is((the_task('b') ->> 'due_at')::timestamptz, 'infinity', 'a late heartbeat moves no parked task [P6]');
select is(extend('[]')::jsonb, '[]', 'no lease is no error');
select is(
    error_of(format($$ select extend('[]', %s) $$, lease_for)),
    'PD107',
    format('no lease is renewed for %s', lease_for))
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
    'a repeated release is answered alike [P12]');
select is(
    take('bob', '{x}') #> '{0,journal,0,2}',
    '"n"',
    'a task that was given back is claimed with what it was told');
select is(
    release(jsonb_build_array(a_turn('x')))::jsonb #>> '{0,state}',
    'lost',
    'a task that another has claimed cannot be given back [P6]');
select is(the_task('x') ->> 'worker', 'bob', 'the new holder keeps it [P6]');
select is(
    verdict_of(a_turn('y', facts => '[{"op": "set", "path": ["n"], "value": 1}]')),
    'parked',
    'who has given a task back cannot advance it [P6]');
select is(the_job('y') ->> 'version', '0', 'nothing of it is applied');
select is(release('[]')::jsonb, '[]', 'to give back nothing is no error');

-- What is no lease: who writes a worker in a language of his own is told so, and not that another has the task.

select is(
    error_of(format('select %s(%L)', verb, jsonb_build_array(a_turn('x'), turn))),
    'PD107',
    format('%s() refuses %s', verb, about))
  from unnest('{extend,release}'::text[]) as verb
 cross join (values ('a token that is no uuid', a_turn('y') || '{"token": "mine"}'),
                    ('what has no token', a_turn('y') - 'token'),
                    ('what has no job', a_turn('y') - 'job')) as cases (about, turn);

-- Progress: how far a task is, kept with its lease.

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
    'with its lease a task may tell how far it is (E20)');
select is(the_task('p') -> 'progress', '{"page": 3}', 'that is kept');
select is((status('p')).waiting_for, 'worker ada, at {"page": 3}', 'the status of the job tells it');
select is(
    (select w.progress from waiting as w where w.job_id = 'p'), '{"page": 3}', 'and the view of what is waited for');
select given(extend(jsonb_build_array(a_turn('p'))));
select is(the_task('p') -> 'progress', '{"page": 3}', 'a heartbeat that says nothing changes nothing');
select is(
    extend(with_progress(a_turn('p'), progress))::jsonb #>> '{0,error,code}', code, format('%s is not kept', about))
  from (values ('what is too large', to_jsonb(repeat('x', 10001)), 'PD301'),
               ('what is too deep', (repeat('[', 110) || repeat(']', 110))::jsonb, 'PD302'),
               ('a number that nobody can read', ('[' || repeat('9', 400) || ']')::jsonb, 'PD304')
       ) as cases (about, progress, code);
select is(the_task('p') -> 'progress', '{"page": 3}', 'what is refused changes nothing');
select time_passes('20 s');
select is(
    (extend(with_progress(a_turn('p'), to_jsonb(repeat('x', 10001)))) -> 0)::jsonb ->> 'state',
    'held',
    'the lease is renewed all the same');
select time_passes('31 s');
select is(take('bob', '{p}') #> '{0,progress}', '{"page": 3}', 'the next holder is told how far the task was');
select is(
    extend(with_progress(a_turn('p'), '{"page": 9}'))::jsonb #>> '{0,state}', 'lost',
    'who has lost the lease tells nothing any more [P6]');
select given(release(with_progress(a_turn('p'), '{"page": 9}')));
select is(the_task('p') -> 'progress', '{"page": 3}', 'nor when he gives it back [P6]');
select given(release(with_progress(a_turn('p', worker => 'bob'), '{"page": 4}')));
select is(the_task('p') -> 'progress', '{"page": 4}', 'who gives it back may tell');
select given(take('ada', '{p}'));
select given(release(with_progress(a_turn('p'), to_jsonb(repeat('x', 10001)))));
select is(
    jsonb_build_array(the_task('p') -> 'progress', the_task('p') -> 'token'),
    '[{"page": 4}, null]',
    'with what cannot be kept it is given back all the same');

-- Mail that came while the task was held is not lost when it is given back.

select have_held_job('mail');
select given(signal('mail', 'go', '1'));
select given(tell(a_turn('mail', awaits => '{other}')));
select given(release(jsonb_build_array(a_turn('mail'))));
select is(the_task('mail') -> 'awaits', 'null', 'a task that was given back waits for nothing but a worker');
select given(take('bob', '{mail}'));
select is(
    tell(a_turn('mail', state => 'park', awaits => '{go}', worker => 'bob')) #> '{messages,0,payload}',
    '1',
    'mail survives the release of a lease [P5]');

-- Days have 24 hours, wherever the worker is: the clocks of Berlin are set back in the night, or on in that of spring.

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
select is_empty('select * from assert_invariants()', 'which is as long as one may last [P8]');
select time_passes('1 min');
select given(extend(jsonb_build_array(a_turn('fall')), '1 day'));
select is(pg_temp.ends_in('fall'), '1 day', 'renewed, too');
select the_time_is('2031-03-29 12:00+00');
select given(take('bob', '{fall}', lease_for => '1 day'));
select is(pg_temp.ends_in('fall'), '1 day', 'also where a day is short');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
set local timezone = 'UTC';

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
