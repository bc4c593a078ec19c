-- Ending work from outside: cancel() asks, terminate() ends a job at once, and resume() lets a stuck task try again
-- (E2).

begin;
select plan(71);

select the_time_is('2030-01-01 12:00+00');

-- cancel: a request that wakes the job at once.

select have_held_job('sleeper');
select given(tell(a_turn('sleeper', state => 'park', until => clock() + interval '1 year')));
select is(cancel('sleeper', 'enough'), true, 'a running job can be asked to cancel');
select is((the_task('sleeper') ->> 'due_at')::timestamptz, clock(), 'a request to cancel wakes a sleeper at once (E2)');
select is(cancel('sleeper', 'again'), false, 'a second request to cancel does nothing');
select is(
    (take('ada', '{sleeper}') #> '{0,messages,0}') - 'id',
    jsonb_build_object('key', '$cancel', 'name', null, 'fingerprint', null, 'ok', false, 'payload', 'enough',
                       'sent_at', clock()),
    'the coordinator receives the request with its reason');
select is((the_job('sleeper') ->> 'status'), 'running', 'a request to cancel ends nothing by itself');
select given(tell(a_turn('sleeper',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'cancel', 'key', '$cancel',
                                                                       'message', message_of('sleeper',
                                                                                             '$cancel'))))));
select is(cancel('sleeper'), false, 'a job that has consumed the request is not asked again');
select is(
    tell(a_turn('sleeper', state => 'park', until => clock() + interval '1 h',
                facts => '[{"op": "set", "path": ["cleaned"], "value": true}]')) ->> 'state',
    'parked',
    'a job that was asked to cancel may clean up and sleep (E2)');
select given(terminate('sleeper'));

select have_held_job('waiter');
select given(tell(a_turn('waiter', state => 'park', awaits => '{go}')));
select given(cancel('waiter'));
select is(
    take('ada', '{waiter}') #>> '{0,messages,0,key}',
    '$cancel',
    'a request to cancel wakes a job that waits for a signal');
select have_held_job('worker');
select given(cancel('worker'));
select is(
    (the_task('worker') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a request to cancel does not move a lease');
select is(
    extend(jsonb_build_array(a_turn('worker')))::jsonb #> '{0,cancel}',
    'true',
    'the holder of a task learns of the request with its heartbeat (E2)');
select is(
    tell(a_turn('worker', state => 'park')) #>> '{messages,0,key}',
    '$cancel',
    'a job does not park before it has received a request to cancel');
select given(start('w', id => 'tomorrow', queue => 'tomorrow', due_at => clock() + interval '1 day'));
select given(cancel('tomorrow'));
select is(
    take('ada', '{tomorrow}') #>> '{0,messages,0,key}',
    '$cancel',
    'a request to cancel wakes a job that has not begun');
select have_held_job('retried');
select given(tell(a_turn('retried', state => 'retry', until => clock() + interval '1 h')));
select given(cancel('retried'));
select is(
    take('ada', '{retried}') #>> '{0,messages,0,key}',
    '$cancel',
    'a request to cancel wakes a task that waits for its next attempt');

select given(entity_create('e', 'note'));
select is(cancel(id), false, format('%s cannot be asked to cancel', about))
  from (values ('a job that was terminated', 'sleeper'), ('a plain entity', 'e')) as cases (about, id);
select throws_ok($$ select cancel('nobody') $$, 'PD401', null, 'a job that does not exist cannot be asked to cancel');

-- cancels: a task passes a request on to the tasks that it has requested.

select have_held_job('parent');
select given(tell(a_turn('parent',
                         requests => '[{"key": "h1", "name": "h", "queue": "hooks"},
                                       {"key": "h2", "name": "h", "queue": "hooks"},
                                       {"key": "h3", "name": "h", "queue": "hooks"},
                                                  {"key": "d", "name": "h", "queue": "later", "detached": true}]')));
select given(take('bob', '{hooks}', 3));
select given(tell(a_turn('parent', '1/main/h1', 'park', awaits => '{go}', worker => 'bob'),
                  a_turn('parent', '1/main/h2', 'done', worker => 'bob')));
select is(
    tell(a_turn('parent', cancels => '["h1", "h2", "h3", "d", "nothing"]')),
    '{"state": "keep"}',
    'a task may ask its hooks to cancel');
select is(
    (select jsonb_agg(m -> 0) from jsonb_array_elements(mail_of('parent')) as m where m ->> 1 = '$cancel'),
    '["1/main/h1", "1/main/h3"]',
    'hooks that are alive and awaited are asked; ended, detached and unknown ones are not');
select is(
    take('bob', '{hooks}', 3, claim_as => 'b2') #>> '{0,task}',
    '1/main/h1',
    'a request to cancel wakes a parked hook (E2)');
select is(
    extend(jsonb_build_array(a_turn('parent', '1/main/h3', worker => 'bob')))::jsonb #> '{0,cancel}',
    'true',
    'the holder of a hook learns of the request with its heartbeat (E2)');
select given(tell(a_turn('parent', cancels => '["h1", "h3"]')));
select is(
    (select count(*) from jsonb_array_elements(mail_of('parent')) as m where m ->> 1 = '$cancel'),
    2::bigint,
    'a hook is asked to cancel only once [P12]');
select given(tell(a_turn('parent', '1/main/h3', 'cancelled', value => '{"message": "enough"}', worker => 'bob')));
select is(
    mail_of('parent') #> '{-1}',
    '["1/main", "h3", false, {"message": "enough"}]',
    'a cancelled hook answers its asker');

-- What has nothing to clean up ends at once, without a slot, token or worker: a hook that has not begun, and an activity
-- that nobody holds.

select have_held_job('asker');
select given(tell(a_turn('asker', requests => '[
    {"key": "queued", "kind": "activity", "name": "a", "queue": "aa"},
    {"key": "held", "kind": "activity", "name": "a", "queue": "ab"},
    {"key": "failed", "kind": "activity", "name": "a", "queue": "ac"},
    {"key": "hook", "name": "a", "queue": "aa", "signal": "early"},
    {"key": "begun", "name": "a", "queue": "ad"}]')));
select given(take('bob', '{ab,ac,ad}', 3));
select given(tell(a_turn('asker', '1/main/failed', 'retry', until => clock() + interval '1 h', worker => 'bob')));
select given(tell(a_turn('asker', '1/main/begun', 'release', worker => 'bob')));
select given(tell(a_turn('asker', cancels => '["queued", "held", "failed", "hook", "begun"]')));
select is(
    tasks_of('asker'),
    '{1/main,1/main/begun,1/main/held}',
    'a request to cancel ends activities that nobody holds and hooks that have not begun, and no others');
select is(
    (select jsonb_agg(m -> 1) from jsonb_array_elements(mail_of('asker')) as m where m ->> 0 = '1/main'),
    '["failed", "hook", "queued"]',
    'a hook or activity that was ended so has answered its asker [P10]');
select is(
    (select m #>> '{3,message}' from jsonb_array_elements(mail_of('asker')) as m where m ->> 1 = 'hook'),
    'the hook was cancelled',
    'the answer says what was cancelled');
select is((select i.name from inbox as i where i.job_id = 'asker' and i.key = 'hook'), 'early',
          'the answer wakes an asker that waits for the early answer of the hook');
select is(
    verdict_of(a_turn('asker', '1/main/held', 'done', worker => 'bob')), 'done',
    'the holder of another activity may finish it');
select given(tell(a_turn('asker', requests => '[{"key": "queued", "kind": "activity", "name": "a", "queue": "aa"}]')));
select is(
    tasks_of('asker'), '{1/main,1/main/begun}',
    'an activity that was cancelled and is requested again does not begin [P12]');

-- cancel_hook: cancels one hook, from outside.

select have_held_job('h');
select given(tell(a_turn('h', state => 'park', requests => '[
    {"key": "a", "name": "h", "queue": "hh"}, {"key": "b", "kind": "activity", "name": "b", "queue": "hh"},
    {"key": "d", "name": "h", "queue": "hd", "detached": true}]')));
select given(take('bob', '{hh}'));
select given(tell(a_turn('h', '1/main/a', 'park', awaits => '{go}', worker => 'bob')));
select is(cancel_hook('h', task, 'enough'), wanted, format('%s %s', about, case when wanted then 'is asked to cancel'
                                                                               else 'cannot be asked to cancel' end))
  from (values
        ('a parked hook', '1/main/a', true),
        ('a hook that was already asked', '1/main/a', false),
        ('a dispatched activity', '1/main/b', true),
        ('a detached hook that has not begun', '$hook/1:main:d', true),
        ('a hook that has ended', '$hook/1:main:d', false),
        ('a coordinator', '1/main', false),
        ('a task that does not exist', '$hook/x', false),
        ('no task', null, false)
       ) as cases (about, task, wanted);
select is(
    take('bob', '{hh,hd}', 3, claim_as => 'b2') #>> '{0,messages,0,payload}',
    'enough',
    'a hook that is asked from outside wakes and receives the reason');
select given(tell(a_turn('h', '1/main/a', 'cancelled', value => '{"message": "enough"}', worker => 'b2')));
select is(
    take('ada', '{h}') #> '{0,messages,1,payload}',
    '{"message": "enough"}',
    'its asker learns that the hook was cancelled [P10]');
select is(
    jsonb_path_query_first(mail_of('h'), 'strict $[*] ? (@[1] == "b")[3]') - '{code,detail,hint}'::text[],
    '{"type": "CancelledError", "message": "enough"}',
    'the activity that nobody held has ended, and its asker knows');
select throws_ok(
    $$ select cancel_hook('nobody', '1/main/a') $$, 'PD401', null, 'a job that does not exist has no hooks');

-- terminate: ends a job at once.

select have_held_job('t', '{"n": 1}');
select given(tell(a_turn('t', facts => '[{"kind": "note", "key": "n"}]',
                         requests => '[
    {"key": "h", "name": "h", "queue": "t"},
    {"key": "d", "name": "d", "queue": "t", "detached": true},
    {"key": "c", "kind": "job", "name": "c", "queue": "tc"}]')));
select given(take('bob', '{t}', 2));
select given(signal('t', 'go'));
select is(terminate('t', 'by hand'), true, 'a running job can be terminated');
select is((the_job('t') - 'watched') ->> key, wanted, format('a terminated job shows its %s', key))
  from (values
        ('status', 'cancelled'),
        ('result', null),
        ('version', '1'),
        ('finished_at', to_jsonb(clock()) #>> '{}')
       ) as cases (key, wanted);
select is(the_job('t') -> 'context', '{"n": 1}', 'the memory of a terminated job stays (C25)');
select is(
    jsonb_build_array(the_job('t') #> '{error,code}', the_job('t') #> '{error,message}'),
    '["PD602", "by hand"]',
    'the error of a terminated job gives the reason');
select is(
    tasks_of('t'),
    '{$hook/1:main:d,$parent_end/1/main}',
    'of a terminated job, only detached hooks and the task that ends its children are left');
select is(
    verdict_of(a_turn('t', '1/main/h', 'done', worker => 'bob')),
    'gone',
    'the holder of a hook of a terminated job is fenced [P6]');
select is(verdict_of(a_turn('t', state => 'done')), 'gone',
          'the holder of the coordinator of a terminated job is fenced [P6]');
select is(the_job('t/c') ->> 'status', 'running', 'terminate() itself does not end the children');
select is(terminate('t'), false, 'a job that was terminated cannot be terminated again');
select is(jsonb_array_length(journal_of('t')), 1, 'the journal of a terminated job stays (C72)');
select given(terminate('t/c'));
select is(the_job('t/c') #>> '{error,message}', 'the job was terminated', 'a job may be terminated without a reason');

select have_held_job('stuck');
select given(tell(a_turn('stuck', state => 'stuck', value => '{"message": "m"}')));
select is(terminate('stuck'), true, 'a stuck job can be terminated');
select have_held_job('parked');
select given(tell(a_turn('parked', state => 'park', awaits => '{go}')));
select is(terminate('parked'), true, 'a parked job can be terminated');
select is(terminate(id), false, format('%s cannot be terminated', about))
  from (values ('a job that has ended', 'parked'), ('a plain entity', 'e')) as cases (about, id);
select throws_ok($$ select terminate('nobody') $$, 'PD401', null, 'a job that does not exist cannot be terminated');

-- Tasks beneath one that ends.

select have_held_job('tidy');
select given(tell(a_turn('tidy', requests => '[{"key": "h#1", "name": "h", "queue": "h"},
                                               {"key": "h#2", "name": "h", "queue": "h"}]')));
select given(take('bob', '{h}', 2));
select given(tell(a_turn('tidy', '1/main/h#1', worker => 'bob',
                         requests => '[{"key": "a#1", "name": "a", "queue": "a"}]')));
select given(tell(a_turn('tidy', '1/main/' || key, worker => 'bob',
                         requests => '[{"key": "i#1", "kind": "item", "name": "sign"}]')))
  from unnest('{h#1,h#2}'::text[]) as key;
select given(take('cid', '{a}'));
select given(tell(a_turn('tidy', '1/main/h#1/a#1', 'done', worker => 'cid')));
select given(cancel_hook('tidy', '1/main/h#2'));
select given(tell(a_turn('tidy', state => 'done')));
select is(tasks_of('tidy'), '{1/main/h#2}',
          'a held task that was asked to cancel outlives its asker; one that has other messages does not');
select is((select array_agg(i.task) from items as i where i.job_id = 'tidy'), '{1/main/h#2}',
          'its open items stay, and those of the others are forgotten');

-- resume: lets stuck tasks try again.

select have_held_job('r');
select given(tell(a_turn('r', requests => '[{"key": "h", "name": "h", "queue": "r"}]')));
select given(take('ada', '{r}'));
select given(tell(a_turn('r', state => 'stuck', value => '{"message": "m"}'),
                  a_turn('r', '1/main/h', 'stuck', value => '{"message": "m"}')));
select time_passes('1 day');
select is(resume('r', '1/main/h'), 1, 'one stuck task can be resumed');
select is(take('ada', '{r}', 2) #>> '{0,task}', '1/main/h', 'a resumed task is claimed at once [P9]');
select is(the_task('r') #>> '{stuck_reason,message}', 'm', 'the other stuck task stays stuck');
select is(resume('r', accept_changes => true), 1, 'without the name of a task, every stuck task of the job is resumed');
select is(
    take('ada', '{r}', 2, claim_as => 'x') #> '{0,accept_changes}',
    'true',
    'an operator may accept changed arguments [P9]');
select is(resume('r'), 0, 'a task that is not stuck is not resumed');
select is((the_task('r') ->> 'due_at')::timestamptz, clock() + interval '30 s', 'resume does not move a lease');
select is(resume('e'), 0, 'a plain entity has nothing to resume');
select throws_ok($$ select resume('nobody') $$, 'PD401', null, 'a job that does not exist cannot be resumed');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
