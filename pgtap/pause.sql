-- Pausing a job: no worker gets its tasks, whatever happens to them, until somebody resumes or cancels it (E13).

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

-- A job that waits for a worker.

select given(start('w', id => 'new', queue => 'new'));
select ok(pause('new'), 'a job can be paused');
select ok(not pause('new'), 'a paused job cannot be paused again');
select is(pg_temp.taken('new'), '{}', 'no worker gets a task of a paused job');
select is(next_due_at('{new}'), null, 'a paused job has no next due time');
select is((status('new')).waiting_for, 'somebody to resume it: its job is paused',
          'the status of a paused job says that it is paused');
select is((select state from waiting where job_id = 'new'), 'paused', 'the view waiting shows the task as paused');
select is((select paused_tasks from queue_depths('new')), 1::bigint, 'queue_depths() counts paused tasks');
select is(resume('new'), 1, 'a paused job can be resumed, and resume() counts its tasks');
select is(resume('new'), 0, 'a resumed job cannot be resumed again');
select is(pg_temp.taken('new'), '{1/main}', 'a worker gets the task of a resumed job');

-- A job whose task is held.

select have_held_job('held');
select ok(pause('held'), 'a job whose task is held can be paused');
select is(
    tell(a_turn('held', facts => '[{"op": "set", "path": ["n"], "value": 1}]')) ->> 'state', 'keep',
    'the holder of a task of a paused job goes on');
select is((status('held')).waiting_for, 'worker ada', 'the status of a paused job names the holder of its task');
select is(jsonb_array_length(claim('{held}', 'ada', token_of('ada'), again => true)::jsonb -> 'tasks'), 1,
          'a repeated claim gets its task, although the job was paused meanwhile [P12]');
select is(
    tell(a_turn('held', state => 'park', until => clock() + interval '10 s',
                requests => '[{"key": "h", "name": "h", "queue": "held"},
                              {"key": "d", "name": "h", "queue": "held", "detached": true}]')) ->> 'state',
    'parked', 'the holder parks the task of the paused job');
select given(hook('held', 'h', queue => 'held', key => 'outside'));
select is(pg_temp.taken('held'), '{}', 'hooks of a paused job are paused, those from outside too');
select given(signal('held', 'go'));
select time_passes('10 s');
select is(pg_temp.taken('held'), '{}', 'neither a deadline nor a signal ends a pause');
select is(resume('held', '1/main'), 0, 'resume() of one task does not end a pause');
select is(resume('held'), 4, 'resume() lets all tasks of a job go on');
select is(pg_temp.taken('held'), '{$hook/1:main:d,$hook/outside,1/main,1/main/h}',
          'tasks that were requested or became due during the pause are claimed at once [P7]');

-- Messages.

select have_held_job('mail');
select given(tell(a_turn('mail', state => 'park', awaits => '{go}')));
select given(pause('mail'));
select ok(signal('mail', 'go', '1'), 'a paused job accepts signals');
select is(pg_temp.taken('mail'), '{}', 'a signal does not end a pause');
select given(resume('mail'));
select is(take('bob', '{mail}') #> '{0,messages,0,payload}', '1', 'a resumed job receives its signals [P5]');

-- A lost worker.

select have_held_job('lost');
select given(pause('lost'));
select time_passes('31 s');
select is(pg_temp.taken('lost'), '{}', 'a task whose lease has ended is not claimed while its job is paused');
select given(resume('lost'));
select is(pg_temp.taken('lost'), '{1/main}', 'a task whose lease has ended is claimed after its job is resumed');

-- A memory without a workflow.

select given(entity_create('note', 'note'));
select ok(pause('note'), 'a memory without a workflow can be paused');
select given(hook('note', 'h', queue => 'note', key => 'k'));
select is(pg_temp.taken('note'), '{}', 'the hooks of a paused memory wait');
select is(resume('note'), 1, 'resume() counts the hooks of a memory');
select is(pg_temp.taken('note'), '{$hook/k}', 'the hooks of a resumed memory run');

-- Stuck tasks.

select have_held_job('stuck');
select given(pause('stuck'));
select given(tell(a_turn('stuck', state => 'stuck', value => '{"message": "odd"}')));
select is((status('stuck')).waiting_for, 'somebody to resume it: odd',
          'the status of a stuck task gives its reason, paused or not');
select is(resume('stuck'), 1, 'resume() ends a pause and lets stuck tasks try again, and counts each task once');
select is(pg_temp.taken('stuck'), '{1/main}', 'a worker gets the task that was paused and stuck');

-- Cancelled, terminated and ended jobs.

select have_held_job('told');
select given(tell(a_turn('told', state => 'park', awaits => '{go}')));
select given(pause('told'));
select ok(cancel('told'), 'a paused job can be cancelled');
select is(take('bob', '{told}') #>> '{0,messages,0,key}', '$cancel',
          'a request to cancel ends a pause, so that the job can clean up');
select have_held_job('ended');
select given(tell(a_turn('ended', requests => '[{"key": "d", "name": "h", "queue": "ended", "detached": true}]')));
select given(pause('ended'));
select ok(terminate('ended'), 'a paused job can be terminated');
select is(pg_temp.taken('ended'), '{}', 'terminate() does not end the pause of a detached hook');
select is(resume('ended'), 1, 'resume() ends the pause of a terminated job');
select have_held_job('parent');
select given(tell(a_turn('parent', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "child"}]')));
select given(pause('parent/c'));
select given(tell(a_turn('parent', cancels => '["c"]')));
select is(take('bob', '{child}') #>> '{0,messages,0,key}', '$cancel', 'a request to cancel ends the pause of a child');

select have_held_job('leaving');
select given(tell(a_turn('leaving', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "left",
                                                   "on_parent_end": "cancel"}]')));
select given(pause(id)) from unnest('{leaving,leaving/c}'::text[]) as id;
select is(tell(a_turn('leaving', state => 'done')) ->> 'state', 'done', 'a paused job may end');
select is(
    (select t.paused from tasks as t where t.job_id = 'leaving' and t.name = '$parent_end'), false,
    'a task that the database runs is not paused');
select given(take('bob', '{$sql}', 10));
select given(run_task('leaving', t.task, token_of('bob'))) from tasks as t where t.job_id = 'leaving';
select is(
    take('bob', '{left}') #>> '{0,messages,0,key}', '$cancel',
    'a paused child receives the request to cancel at the end of its parent');

select have_held_job('again');
select given(pause('again'));
select given(terminate('again'));
select given(retry('again'));
select is(the_task('again', '2/main') ->> 'paused', 'true', 'the next run of a paused job begins paused');
select is(resume('again'), 1, 'the next run of a paused job can be resumed');
select is(error_of(statement), 'PD401', format('%s needs a job', statement))
  from unnest('{"select pause(''nobody'')","select resume(''nobody'')"}'::text[]) as statement;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
