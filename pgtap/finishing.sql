-- Finishing: a worker without a journal claims activities and hooks, reports their progress and ends them. [P4] [P6]
-- [P10] [P12]

begin;
select plan(56);

select the_time_is('2030-01-01 12:00+00');

-- Returns the token of a worker.
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
        'key', 'x', 'kind', have_asked.kind, 'name', 'count', 'queue', 'far ' || have_asked.job, 'args',
        '[1]'::jsonb))));
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

-- finish_task.

select have_asked('a');
select is(the_task('a', '1/main/x') ->> 'worker', 'psql',
          'a worker without a journal claims an activity from its queue');
select is(
    extend(jsonb_build_array(a_turn('a', '1/main/x', worker => 'psql')))::jsonb #>> '{0,state}',
    'held',
    'extend() renews the lease of an activity');
select is(
    finish_task('a', '1/main/x', by('psql'), '{"n": 1}'), 'done', 'finish_task() ends an activity with its result');
select is(mail_of('a'), '[["1/main", "x", true, {"n": 1}]]', 'the asker gets the result as its answer');
select ok(is_awake('a'), 'the asker wakes');
select is(tasks_of('a'), '{1/main}', 'a finished activity is gone');
select is(finish_task('a', '1/main/x', by('psql'), '{"n": 1}'), 'gone', 'a repeated call does nothing [P12]');
select is(finish_task('a', '1/main/x', by('psql'), '{"n": 2}'), 'gone',
          'a repeated call with another result does nothing');
select is(mail_of('a'), '[["1/main", "x", true, {"n": 1}]]', 'the result is recorded once [P4]');
select given(take('ada', '{a}'));
select given(tell(a_turn('a', state => 'keep', requests => '[{"key": "x", "kind": "activity", "name": "count"}]')));
select is(tasks_of('a'), '{1/main}', 'a request of a finished activity does not run it again [P4]');
select have_asked('h', 'hook');
select is(finish_task('h', '1/main/x', by('psql')), 'done', 'finish_task() ends a hook, even without a result');
select is(mail_of('h'), '[["1/main", "x", true, null]]', 'a hook that ends without a result answers with null');
select given(hook('h', 'alone', queue => 'far h', key => 'k'));
select given(take('psql', '{far h}'));
select is(finish_task('h', '$hook/k', by('psql'), '5'), 'done', 'finish_task() ends a hook from outside');
select is(journal_of('h', '$hook/k') #> '{0}', '[1, "end", null, true, 5]',
          'the end of a hook from outside is in its journal');

-- fail_task.

select have_asked('f');
select is(
    fail_task('f', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'),
    'retry',
    'fail_task() with a time ends only the attempt');
select is(
    jsonb_build_array(the_task('f', '1/main/x') -> 'attempt', the_task('f', '1/main/x') #> '{failure,message}',
                      (the_task('f', '1/main/x') ->> 'due_at')::timestamptz, the_task('f', '1/main/x') -> 'token'),
    jsonb_build_array(1, 'no connection', clock() + interval '1 min', null),
    'a failed attempt is counted, and the next is due at the given time');
select is(
    fail_task('f', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'), 'retry',
    'a repeated failure gets the same answer [P12]');
select is(the_task('f', '1/main/x') ->> 'attempt', '1', 'a repeated failure counts as one attempt');
select is(
    error_of($$ select finish_task('f', '1/main/x', by('psql'), '1') $$),
    'PD001',
    'a worker that has given a task back cannot finish it');
select is(
    error_of($$ select fail_task('f', '1/main/x', by('node'), null, clock()) $$), 'PD001',
    'a worker is fenced before the next attempt too, if another one has given the task back [P6]');
select is(mail_of('f'), '[]', 'an attempt that is not the last sends no answer');
select time_passes('1 min');
select is(take('node', '{far f}') #>> '{0,attempt}', '1', 'another worker makes the next attempt');
select is(
    error_of(format('select %s(%L, %L, %L)', verb, 'f', '1/main/x', by('psql'))),
    'PD001',
    format('%s is fenced [P6]', verb))
  from unnest('{finish_task,fail_task}'::text[]) as verb;
select is(
    fail_task('f', '1/main/x', by('node'), '{"type": "ValueError", "message": "no", "code": 7}'), 'failed',
    'fail_task() without a time ends the task');
select is(
    mail_of('f'), '[["1/main", "x", false, {"type": "ValueError", "message": "no", "code": 7}]]',
    'the asker receives the failure [P10]');
select is(fail_task('f', '1/main/x', by('node')), 'gone', 'a repeated end does nothing [P12]');
select have_asked('plain');
select is(fail_task('plain', '1/main/x', by('psql')), 'failed', 'fail_task() needs no failure');
select is(
    mail_of('plain'), '[["1/main", "x", false, {"type": "Failure", "message": "the task has failed"}]]',
    'a failure without details gets a default message');

-- A hook with a journal awaited a signal in an earlier turn. That signal must not wake its next attempt early.

select have_asked('w', 'hook');
select given(tell(a_turn('w', '1/main/x', state => 'park', worker => 'psql', awaits => '{go}',
                         until => clock() + interval '1 min')));
select time_passes('1 min');
select given(take('psql', '{far w}'));
select given(signal('w', 'go'));
select is(
    fail_task('w', '1/main/x', by('psql'), '"no connection"', clock() + interval '1 min'), 'retry',
    'an attempt may fail while an awaited signal is in the inbox');
select is_empty('select * from assert_invariants()',
                'a message in the inbox of a failed attempt breaks no invariant [P8]');
select given(signal('w', 'go'));
select is(
    (the_task('w', '1/main/x') ->> 'due_at')::timestamptz, clock() + interval '1 min',
    'another signal does not move the next attempt');

-- Leases that have ended.

select have_asked('l');
select time_passes('31 s');
select is(
    finish_task('l', '1/main/x', by('psql')), 'done',
    'a worker whose lease has ended may finish its task until another claims it');
select have_asked('m');
select time_passes('31 s');
select given(take('node', '{far m}'));
select is(error_of($$ select finish_task('m', '1/main/x', by('psql'), '1') $$), 'PD001',
          'a worker whose task was claimed by another cannot finish it [P6]');
select is(finish_task('m', '1/main/x', by('node'), '2'), 'done', 'the new holder finishes the task');
select is(mail_of('m'), '[["1/main", "x", true, 2]]', 'only the result of the new holder is recorded');

-- Requests to cancel.

select have_asked('c');
select given(cancel('c'));
select given(take('ada', '{c}'));
select given(tell(a_turn('c', state => 'keep', cancels => '["x"]')));
select is(
    (extend(jsonb_build_array(a_turn('c', '1/main/x', worker => 'psql'))) -> 0)::jsonb ->> 'cancel', 'true',
    'the heartbeat of an activity returns the request to cancel');
select is(
    fail_task('c', '1/main/x', by('psql'), '"stopped"', clock() + interval '1 min'), 'cancelled',
    'a failure after a request to cancel ends the task without another attempt');
select is(
    (select i.ok from inbox as i where i.job_id = 'c' and i.key = 'x'), false, 'the asker gets an answer');
select have_asked('t');
select given(terminate('t'));
select is(finish_task('t', '1/main/x', by('psql'), '1'), 'gone', 'a task of a terminated job is gone');

-- What finish_task() and fail_task() refuse.

select have_held_job('r');
select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a coordinator', $$ select finish_task('r', '1/main', by('ada'), '1') $$, 'PD107'),
        ('a coordinator that fails', $$ select fail_task('r', '1/main', by('ada')) $$, 'PD107'),
        ('a result that is too large',
         $$ select finish_task('r', 'none', by('ada'), to_jsonb(repeat('x', 1048577))) $$, 'PD301'),
        ('a failure that is too large',
         $$ select fail_task('r', 'none', by('ada'), to_jsonb(repeat('x', 1048577))) $$, 'PD301'),
        ('an attempt that is never due', $$ select fail_task('r', 'none', by('ada'), retry_at => 'infinity') $$,
        'PD107')
       ) as cases (about, statement, code);
select is(finish_task('nobody', '1/main/x', by('ada')), 'gone',
          'finish_task() on a job that does not exist answers gone');

-- No worker can end a task of the database: it would end a schedule.

select given(create_schedule('s', 'w', '@daily'));
select given(start('w', id => 'timed', queue => 'timed', timeout => '1 day'));
select the_time_is('2031-01-01 00:00+00');
select given(take('clock', '{$sql}', 2));
select is(error_of(format('select %s(%L, %L, by(''clock''))', verb, job, task)), 'PD107',
          format('%s refuses %s', verb, task))
  from (values ('$schedule/s', '$hook/$schedule'), ('timed', '1/main/$deadline')) as own (job, task)
 cross join unnest('{finish_task,fail_task,time_out_task}'::text[]) as verb;
select is(tell(a_turn(job, task, state => 'done', worker => 'clock')) #>> '{error,code}', 'PD107',
          format('a turn that ends %s is refused', task))
  from (values ('$schedule/s', '$hook/$schedule'), ('timed', '1/main/$deadline')) as own (job, task);
delete from tasks where job_id = '$schedule/s';
select is(create_schedule('s', 'w', '@daily'), '2031-01-02 00:00+00',
          'create_schedule() repairs a schedule that lost its task');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
