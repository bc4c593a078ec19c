-- Finishing: a worker without a journal claims activities and hooks, tells how far it is, and ends them. [P4] [P6] [P10] [P12]

begin;
select plan(55);

select the_time_is('2030-01-01 12:00+00');

-- Tells the token of whoever holds a task in these tests.
create function by(worker text) returns uuid
language plpgsql
as $$
begin
    return token_of(by.worker);
end
$$;

create function have_asked(job text, kind text default 'activity') returns void
language plpgsql
as $$
begin
    perform have_held_job(have_asked.job);
    perform tell(a_turn(have_asked.job, state => 'park', requests => jsonb_build_array(jsonb_build_object(
        'key', 'x', 'kind', have_asked.kind, 'name', 'count', 'queue', 'far ' || have_asked.job, 'args', '[1]'::jsonb))));
    perform take('psql', array['far ' || have_asked.job]);
end
$$;

create function is_awake(job text) returns boolean
language plpgsql
as $$
begin
    return (the_task(is_awake.job) ->> 'due_at')::timestamptz <= clock();
end
$$;

-- Done.

select have_asked('a');
select is(the_task('a', '1/main/x') ->> 'worker', 'psql', 'an activity is claimed from its queue by whoever comes');
select is(
    extend(jsonb_build_array(a_turn('a', '1/main/x', worker => 'psql')))::jsonb #>> '{0,state}',
    'held',
    'it is kept as any lease');
select is(
    finish_task('a', '1/main/x', by('psql'), '{"n": 1}'), 'done', 'who holds an activity ends it with its result');
select is(mail_of('a'), '[["1/main", "x", true, {"n": 1}]]', 'who asked gets the result as the answer');
select ok(is_awake('a'), 'and wakes');
select is(tasks_of('a'), '{1/main}', 'the activity is gone');
select is(finish_task('a', '1/main/x', by('psql'), '{"n": 1}'), 'gone', 'a repeated call does nothing more [P12]');
select is(finish_task('a', '1/main/x', by('psql'), '{"n": 2}'), 'gone', 'whatever it says');
select is(mail_of('a'), '[["1/main", "x", true, {"n": 1}]]', 'the result is recorded once [P4]');
select given(take('ada', '{a}'));
select given(tell(a_turn('a', state => 'keep', requests => '[{"key": "x", "kind": "activity", "name": "count"}]')));
select is(tasks_of('a'), '{1/main}', 'a repeated request does not make it again [P4]');
select have_asked('h', 'hook');
select is(finish_task('h', '1/main/x', by('psql')), 'done', 'a hook is ended alike, also with nothing');
select is(mail_of('h'), '[["1/main", "x", true, null]]', 'that is an answer');
select given(hook('h', 'alone', queue => 'far h', key => 'k'));
select given(take('psql', '{far h}'));
select is(finish_task('h', '$hook/k', by('psql'), '5'), 'done', 'so is a hook for which nobody waits');
select is(journal_of('h', '$hook/k') #> '{0}', '[1, "end", null, true, 5]', 'its end stands in its journal');

-- Failed.

select have_asked('f');
select is(
    fail_task('f', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'),
    'retry',
    'an attempt may fail');
select is(
    jsonb_build_array(the_task('f', '1/main/x') -> 'attempt', the_task('f', '1/main/x') #> '{failure,message}',
                      (the_task('f', '1/main/x') ->> 'due_at')::timestamptz, the_task('f', '1/main/x') -> 'token'),
    jsonb_build_array(1, 'no connection', clock() + interval '1 min', null),
    'it is counted, and the next one is due at its time');
select is(
    fail_task('f', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'), 'retry',
    'a repeated call is answered alike [P12]');
select is(the_task('f', '1/main/x') ->> 'attempt', '1', 'and is no other attempt');
select is(
    error_of($$ select finish_task('f', '1/main/x', by('psql'), '1') $$),
    'PD001',
    'who has given it back ends nothing');
select is(mail_of('f'), '[]', 'nobody is told of an attempt that is not the last');
select time_passes('1 min');
select is(take('node', '{far f}') #>> '{0,attempt}', '1', 'another worker makes the next attempt');
select is(
    error_of(format('select %s(%L, %L, %L)', verb, 'f', '1/main/x', by('psql'))),
    'PD001',
    format('%s is fenced [P6]', verb))
  from unnest('{finish_task,fail_task}'::text[]) as verb;
select is(
    fail_task('f', '1/main/x', by('node'), '{"type": "ValueError", "message": "no", "code": 7}'), 'failed',
    'without another attempt it has failed');
select is(
    mail_of('f'), '[["1/main", "x", false, {"type": "ValueError", "message": "no", "code": 7}]]',
    'who asked is told [P10]');
select is(fail_task('f', '1/main/x', by('node')), 'gone', 'a repeated call does nothing more [P12]');
select have_asked('plain');
select is(fail_task('plain', '1/main/x', by('psql')), 'failed', 'a failure needs no words');
select is(
    mail_of('plain'), '[["1/main", "x", false, {"type": "Failure", "message": "the task has failed"}]]',
    'they are made for it');

-- What a hook had listened for in an earlier turn, as a worker with a journal, wakes no attempt that is to come later.

select have_asked('w', 'hook');
select given(tell(a_turn('w', '1/main/x', state => 'park', worker => 'psql', awaits => '{go}',
                         until => clock() + interval '1 min')));
select time_passes('1 min');
select given(take('psql', '{far w}'));
select given(signal('w', 'go'));
select is(
    fail_task('w', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'), 'retry',
    'an attempt fails while mail lies open that was listened for');
select is_empty('select * from assert_invariants()', 'it sleeps over nothing [P8]');
select given(signal('w', 'go'));
select is(
    (the_task('w', '1/main/x') ->> 'due_at')::timestamptz, clock() + interval '1 min',
    'the next attempt is due at its time, whatever comes');

-- A lease that ends.

select have_asked('l');
select time_passes('31 s');
select is(
    finish_task('l', '1/main/x', by('psql')), 'done', 'a lease that has ended counts until somebody claims the task');
select have_asked('m');
select time_passes('31 s');
select given(take('node', '{far m}'));
select is(error_of($$ select finish_task('m', '1/main/x', by('psql'), '1') $$), 'PD001', 'then it counts no more [P6]');
select is(finish_task('m', '1/main/x', by('node'), '2'), 'done', 'that of the new holder does');
select is(mail_of('m'), '[["1/main", "x", true, 2]]', 'one result is recorded');

-- A cancel.

select have_asked('c');
select given(cancel('c'));
select given(take('ada', '{c}'));
select given(tell(a_turn('c', state => 'keep', cancels => '["x"]')));
select is(
    (extend(jsonb_build_array(a_turn('c', '1/main/x', worker => 'psql'))) -> 0)::jsonb ->> 'cancel', 'true',
    'a heartbeat hears that it is asked to cancel');
select is(
    fail_task('c', '1/main/x', by('psql'), '"stopped"', clock() + interval '1 min'), 'cancelled',
    'then a failure is the end, and there is no other attempt');
select is(
    (select i.ok from inbox as i where i.job_id = 'c' and i.key = 'x'), false, 'who asked is told');
select have_asked('t');
select given(terminate('t'));
select is(finish_task('t', '1/main/x', by('psql'), '1'), 'gone', 'with its job the task is gone');

-- What is refused.

select have_held_job('r');
select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a coordinator', $$ select finish_task('r', '1/main', by('ada'), '1') $$, 'PD107'),
        ('a coordinator that fails', $$ select fail_task('r', '1/main', by('ada')) $$, 'PD107'),
        ('a result that is too large',
         $$ select finish_task('r', 'none', by('ada'), to_jsonb(repeat('x', 1048577))) $$, 'PD301'),
        ('a failure that is too large',
         $$ select fail_task('r', 'none', by('ada'), to_jsonb(repeat('x', 1048577))) $$, 'PD301'),
        ('an attempt that never comes', $$ select fail_task('r', 'none', by('ada'), retry_at => 'infinity') $$, 'PD107')
       ) as cases (about, statement, code);
select is(finish_task('nobody', '1/main/x', by('ada')), 'gone', 'of a job that is not there nothing is held');

-- What belongs to the database is ended by no worker: a schedule would end with it.

select given(create_schedule('s', 'w', '@daily'));
select given(start('w', id => 'timed', queue => 'timed', timeout => '1 day'));
select the_time_is('2031-01-01 00:00+00');
select given(take('clock', '{$sql}', 2));
select is(error_of(format('select %s(%L, %L, by(''clock''))', verb, job, task)), 'PD107',
          format('%s does not end %s', verb, task))
  from (values ('$schedule/s', '$hook/$schedule'), ('timed', '1/main/$deadline')) as own (job, task)
 cross join unnest('{finish_task,fail_task,time_out_task}'::text[]) as verb;
select is(tell(a_turn(job, task, state => 'done', worker => 'clock')) #>> '{error,code}', 'PD107',
          format('no turn ends %s', task))
  from (values ('$schedule/s', '$hook/$schedule'), ('timed', '1/main/$deadline')) as own (job, task);
delete from tasks where job_id = '$schedule/s';
select is(create_schedule('s', 'w', '@daily'), '2031-01-02 00:00+00',
          'a schedule that lost its task is begun again with the next call');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
