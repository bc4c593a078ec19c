-- Pausing a job: its tasks are kept from workers, whatever happens to them, until somebody resumes or cancels it (E13).

begin;
select plan(46);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.taken(queue text, worker text default 'bob') returns text[]
language plpgsql
as $$
begin
    return array(select t ->> 'task' from jsonb_array_elements(take(worker, array[queue], 10)) as t order by 1);
end
$$;

-- What waits.

select given(start('w', id => 'new', queue => 'new'));
select ok(pause('new'), 'a job can be paused');
select ok(not pause('new'), 'once');
select is(pg_temp.taken('new'), '{}', 'no worker gets a task of it');
select is(next_due_at('{new}'), null, 'and none looks for it');
select is((status('new')).waiting_for, 'somebody to resume it: its job is paused', 'its status says so');
select is((select state from waiting where job_id = 'new'), 'paused', 'and so does its task');
select is((select paused_tasks from queue_depths('new')), 1::bigint, 'a depth counts it');
select is(resume('new'), 1, 'a paused job can be resumed, which tells how many tasks go on');
select is(resume('new'), 0, 'once');
select is(pg_temp.taken('new'), '{1/main}', 'then a worker gets it');

-- What is held.

select have_held_job('held');
select ok(pause('held'), 'a job that is worked on can be paused');
select is(
    tell(a_turn('held', facts => '[{"op": "set", "path": ["n"], "value": 1}]')) ->> 'state', 'keep',
    'who holds it goes on');
select is((status('held')).waiting_for, 'worker ada', 'a status tells who holds it');
select is(jsonb_array_length(claim('{held}', 'ada', token_of('ada'), again => true)::jsonb -> 'tasks'), 1,
          'a claim that is repeated gets it, though it was paused meanwhile [P12]');
select is(
    tell(a_turn('held', state => 'park', until => clock() + interval '10 s',
                requests => '[{"key": "h", "name": "h", "queue": "held"},
                              {"key": "d", "name": "h", "queue": "held", "detached": true}]')) ->> 'state',
    'parked', 'it ends its turn');
select given(hook('held', 'h', queue => 'held', key => 'outside'));
select is(pg_temp.taken('held'), '{}', 'what is asked for by it, or of it, is paused too');
select given(signal('held', 'go'));
select time_passes('10 s');
select is(pg_temp.taken('held'), '{}', 'no deadline ends a pause');
select is(resume('held', '1/main'), 0, 'to resume one task is for one that is stuck');
select is(resume('held'), 4, 'all its tasks go on together');
select is(pg_temp.taken('held'), '{$hook/1:main:d,$hook/outside,1/main,1/main/h}',
          'what was asked for and what has become due meanwhile comes at once [P7]');

-- Mail.

select have_held_job('mail');
select given(tell(a_turn('mail', state => 'park', awaits => '{go}')));
select given(pause('mail'));
select ok(signal('mail', 'go', '1'), 'a paused job gets its mail');
select is(pg_temp.taken('mail'), '{}', 'but nobody reads it');
select given(resume('mail'));
select is(take('bob', '{mail}') #> '{0,messages,0,payload}', '1', 'until it is resumed [P5]');

-- A worker that is lost.

select have_held_job('lost');
select given(pause('lost'));
select time_passes('31 s');
select is(pg_temp.taken('lost'), '{}', 'a lease that ends is nobody''s while the job is paused');
select given(resume('lost'));
select is(pg_temp.taken('lost'), '{1/main}', 'then it is claimed again');

-- A memory alone.

select given(entity_create('note', 'note'));
select ok(pause('note'), 'a memory without a workflow can be paused');
select given(hook('note', 'h', queue => 'note', key => 'k'));
select is(pg_temp.taken('note'), '{}', 'its hooks wait');
select is(resume('note'), 1, 'until it is resumed');
select is(pg_temp.taken('note'), '{$hook/k}', 'then they run');

-- Stuck tasks.

select have_held_job('stuck');
select given(pause('stuck'));
select given(tell(a_turn('stuck', state => 'stuck', value => '{"message": "odd"}')));
select is((status('stuck')).waiting_for, 'somebody to resume it: odd', 'what is stuck says why, paused or not');
select is(resume('stuck'), 1, 'to resume a job lifts its pause and lets what is stuck try again, each counted once');
select is(pg_temp.taken('stuck'), '{1/main}', 'by one call');

-- Ending.

select have_held_job('told');
select given(tell(a_turn('told', state => 'park', awaits => '{go}')));
select given(pause('told'));
select ok(cancel('told'), 'a paused job can be cancelled');
select is(take('bob', '{told}') #>> '{0,messages,0,key}', '$cancel', 'which ends the pause: it is to clean up');
select have_held_job('ended');
select given(tell(a_turn('ended', requests => '[{"key": "d", "name": "h", "queue": "ended", "detached": true}]')));
select given(pause('ended'));
select ok(terminate('ended'), 'a paused job can be terminated');
select is(pg_temp.taken('ended'), '{}', 'which does not end the pause of what outlives the run');
select is(resume('ended'), 1, 'that is done by resuming it');
select have_held_job('parent');
select given(tell(a_turn('parent', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "child"}]')));
select given(pause('parent/c'));
select given(tell(a_turn('parent', cancels => '["c"]')));
select is(take('bob', '{child}') #>> '{0,messages,0,key}', '$cancel', 'a paused child can be cancelled, too');

select have_held_job('leaving');
select given(tell(a_turn('leaving', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "left",
                                                   "on_parent_end": "cancel"}]')));
select given(pause(id)) from unnest('{leaving,leaving/c}'::text[]) as id;
select is(tell(a_turn('leaving', state => 'done')) ->> 'state', 'done', 'a paused job may end');
select is(
    (select t.paused from tasks as t where t.job_id = 'leaving' and t.name = '$parent_end'), false,
    'what the database does by itself is not paused');
select given(take('bob', '{$sql}', 10));
select given(run_task('leaving', t.task, token_of('bob'))) from tasks as t where t.job_id = 'leaving';
select is(
    take('bob', '{left}') #>> '{0,messages,0,key}', '$cancel', 'so a child hears of the end, though it was paused');

select have_held_job('again');
select given(pause('again'));
select given(terminate('again'));
select given(retry('again'));
select is(the_task('again', '2/main') ->> 'paused', 'true', 'the next run of a paused job begins paused');
select is(resume('again'), 1, 'until somebody resumes it');
select is(error_of(statement), 'PD401', format('%s needs a job', statement))
  from unnest('{"select pause(''nobody'')","select resume(''nobody'')"}'::text[]) as statement;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
