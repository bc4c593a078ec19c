-- Timeouts of jobs: a deadline is a task beneath the coordinator, which the database runs when time is up.

begin;
select plan(30);

create function pg_temp.time_is_up(job text, task text default '1/main/$deadline') returns text
language plpgsql
as $$
begin
    perform take('clock', '{$sql}', 100);
    return run_task(time_is_up.job, time_is_up.task, token_of('clock'));
end
$$;

select the_time_is('2030-01-01 12:00+00');

select given(start('w', id => 'j', queue => 'j', timeout => '1 h'));
select given(take('ada', '{j}'));
select given(tell(a_turn('j', requests => '[{"key": "h#1", "name": "h", "queue": "j"}]')));
select given(take('bob', '{j}'));
select given(hook('j', 'outside', key => 'k'));
select is(
    the_task('j', '1/main/$deadline') - '{job_id,task}'::text[]
        @> jsonb_build_object('name', '$deadline', 'queue', '$sql', 'due_at', clock() + interval '1 h', 'detached',
                              false),
    true,
    'a job with a timeout has a deadline');
select time_passes('59 min 59 s');
select is(take('clock', '{$sql}'), '[]', 'a deadline is not due before its time [P7]');
select time_passes('1 s');
select is(pg_temp.time_is_up('j'), 'done', 'a worker runs the deadline when it is due');
select is(
    jsonb_build_array(the_job('j') -> 'status', the_job('j') #> '{error,type}', the_job('j') #> '{error,message}'),
    '["failed", "TimeoutError", "the job took longer than 01:00:00"]',
    'a job that exceeds its timeout has failed [P10]');
select is(tasks_of('j'), '{$hook/k}', 'a timeout ends all tasks of the run, but no hook from outside');
select is(verdict_of(a_turn('j', worker => who, task => task)), 'gone', format('the holder of %s is fenced [P6]', task))
  from (values ('ada', '1/main'), ('bob', '1/main/h#1')) as cases (who, task);
select is(run_task('j', '1/main/$deadline', token_of('clock')), 'gone',
          'a repeated run of the deadline does nothing [P12]');

-- The timeout of a child.

select have_held_job('p');
select given(tell(a_turn('p', requests => '[{"key": "c", "kind": "job", "name": "w", "queue": "c", "timeout": "90 s",
    "due_at": "2030-01-01T14:00:00Z"}]')));
select given(tell(a_turn('p', state => 'park')));
select is(
    (the_task('p/c', '1/main/$deadline') ->> 'due_at')::timestamptz,
    '2030-01-01 14:01:30+00'::timestamptz,
    'a timeout counts from when the job may begin');
select the_time_is('2030-01-01 14:01:30+00');
select is(pg_temp.time_is_up('p/c'), 'done', 'a child can exceed its timeout');
select is(
    take('ada', '{p}') #>> '{0,messages,0,payload,type}',
    'TimeoutError',
    'the parent wakes and receives the error [P8] [P10]');

-- A day of a timeout is 24 hours long, even if the clocks go forward on that day.

set local timezone = 'America/New_York';
select given(start('w', id => 'spring', queue => 'spring', due_at => '2030-03-09 12:00+00', timeout => '1 day'));
set local timezone = 'UTC';
select is((the_task('spring', '1/main/$deadline') ->> 'due_at')::timestamptz, '2030-03-10 12:00+00'::timestamptz,
          'the time zone of the caller does not change a timeout');

-- A timeout does not begin before the job could.

select given(start('w', id => 'late ' || n, queue => 'late', due_at => due_at, timeout => '1 h'))
  from (values (1, clock() - interval '2 h'), (2, '-infinity')) as cases (n, due_at);
select is((the_task('late ' || n, '1/main/$deadline') ->> 'due_at')::timestamptz, clock() + interval '1 h',
          'a timeout counts from the start if the job was due earlier')
  from generate_series(1, 2) as n;

-- A deadline ends with its job, and outlives its runs.

select given(start('w', id => 'd', queue => 'd', timeout => '1 h'));
select given(take('ada', '{d}'));
select given(tell(a_turn('d', state => 'done')));
select is(tasks_of('d'), '{}', 'a deadline ends with its job');
select given(start('w', id => 't', timeout => '1 h'));
select given(terminate('t'));
select is_empty($$ select from journal as f where f.job_id = 't' $$,
                'the deadline of a job that is terminated leaves no journal');
select given(start('w', id => 'l', queue => 'l', timeout => '1 h'));
select given(take('ada', '{l}'));
select time_passes('1 h');
select given(take('clock', '{$sql}'));
select given(tell(a_turn('l', state => 'continue')));
select is(
    run_task('l', '1/main/$deadline', token_of('clock')),
    'gone',
    'the deadline of an earlier run does not end the next [P6]');
select is(
    (the_task('l', '2/main/$deadline') ->> 'due_at')::timestamptz,
    clock(),
    'a deadline that was claimed is due at once in the next run');
select is(pg_temp.time_is_up('l', '2/main/$deadline'), 'done', 'a new run gets no more time');
select is(the_job('l') ->> 'status', 'failed', 'a timeout covers all runs of a job');

-- Wrong timeouts.

select is(
    error_of(format('select start(''w'', timeout => %L)', timeout)),
    code,
    format('a timeout of %s is refused', timeout))
  from (values ('0', 'PD107'), ('-1 s', 'PD107'), ('1001 years', 'PD107')) as cases (timeout, code);
select have_held_job('bad');
select is(
    tell(a_turn('bad', requests => jsonb_build_array(jsonb_build_object('key', 'c', 'kind', 'job', 'name', 'w',
                                                                        'timeout', timeout))))
        #>> '{error,code}',
    'PD107',
    format('a child with a timeout of %s is refused, its neighbours are not', timeout))
  from unnest(array['soon', '0', '-1 s', '99999999999999999 years']) as timeout;
select is(verdict_of(a_turn('bad', state => 'done')), 'done', 'a parent whose child was refused goes on');

-- Hooks in SQL share the queue of deadlines.
select given(entity_create('memory', 'e'));
select given(hook('memory', 'recount', queue => '$sql', key => n::text)) from generate_series(1, 3) as n;
select given(start('w', id => 'late', timeout => '1 s'));
select time_passes('1 s');
select is(
    take('clock', '{$sql}') #>> '{0,job}',
    'late',
    'a deadline is claimed before hooks in SQL that were due before it');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
