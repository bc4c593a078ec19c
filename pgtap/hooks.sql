-- Hooks from outside: work on a memory that no coordinator requested.

begin;
select plan(57);

select the_time_is('2030-01-01 12:00+00');

select given(entity_create('e', 'note', '{"n": 1}'));
select is(
    hook('e', 'tidy', '["x"]', 'agents', 'k', 2, clock() + interval '1 h', 'tenant t'),
    '$hook/k',
    'a hook may be run on a plain entity');
select is(
    the_task('e', '$hook/k') - '{job_id,task}'::text[],
    jsonb_build_object('kind', 'hook', 'name', 'tidy', 'queue', 'agents', 'priority', 2,
                       'due_at', clock() + interval '1 h', 'token', null, 'last_token', null, 'worker', null,
                       'last_worker', null, 'position', 0, 'asked', 0, 'deliveries', 0, 'attempt', 0,
                       'paused', false, 'in_line', false, 'progress', null, 'limit_key', 'tenant t',
                       'pinned_version', null, 'args', '["x"]'::jsonb,
                       'awaits', null, 'until', null, 'signal', null, 'detached', true, 'accept_changes', false,
                       'asker_job', null, 'asker_task', null, 'asker_key', null, 'failure', null,
                       'stuck_reason', null, 'started_at', null, 'told_at', null, 'is_suspect', false,
                       'fingerprint', null),
    'a hook from outside has its arguments, and no asker');
select given(hook('e', 'tidy', queue => 'agents', key => 'pinned', pinned_version => '2'));
select is(
    jsonb_build_array(the_task('e', '$hook/pinned') -> 'queue', the_task('e', '$hook/pinned') -> 'pinned_version'),
    '["agents@2", "2"]',
    'a hook may be pinned to a version of the code');
select is(take('ada', '{agents}'), '[]', 'a worker of no version does not get a pinned hook');
select is(take('ada', '{agents@2}') #>> '{0,pinned_version}', '2',
          'a worker of that version gets the pinned hook, with its version');
select is(error_of(format($$ select hook('e', 'tidy', %s) $$, options)), code, about)
  from (values ('pinned_version => ''''', 'PD104', 'a hook with an empty version is refused'),
               ('queue => ''$sql'', pinned_version => ''2''', 'PD107', 'a hook in SQL with a version is refused'))
    as cases (options, code, about);
select given(tell(a_turn('e', '$hook/pinned', 'done')));
select matches(hook('e', 'tidy'), '^\$hook/[0-9a-f-]{36}$', 'each hook without a key gets its own');
select is(
    (select jsonb_build_array(t.queue, t.priority, t.due_at, t.args)
       from tasks as t
      where t.job_id = 'e' and t.task <> '$hook/k'),
    jsonb_build_array('default', 5, clock(), '[]'::jsonb),
    'a hook needs nothing but a job and a name');

-- Jobs of any status.

select have_held_job('running');
select have_held_job('over');
select given(tell(a_turn('over', state => 'failed')));
select is(hook(id, 'tidy', key => 'k'), '$hook/k', format('a hook may be run on %s', about))
  from (values ('a running job', 'running'), ('a finished job', 'over')) as cases (about, id);
select given(take('ada', max_tasks => 10));
select is(
    tell(a_turn(id, '$hook/k', 'done', value => '1',
                facts => '[{"op": "set", "path": ["tidy"], "value": true}]')) ->> 'state',
    'done',
    format('a hook changes the memory of %s (C41)', about))
  from (values ('a running job', 'running'), ('a finished job', 'over')) as cases (about, id);
select is(
    jsonb_build_array(the_job('over') -> 'status', the_job('over') -> 'context'),
    '["failed", {"tidy": true}]',
    'a hook changes the memory of a finished job, and not its status');
select is(tasks_of('running'), '{1/main}', 'a hook from outside that has ended is gone');

-- Keys: a hook runs once per key, even after it has ended.

select is(hook('running', 'tidy', key => 'k'), '$hook/k', 'a repeated key returns the same hook');
select is(tasks_of('running'), '{1/main}', 'a hook that has ended does not run again [P12]');
select is(
    journal_of('running', '$hook/k') -> 1,
    '[2, "end", null, true, 1]',
    'the journal of a hook from outside has its end');
select is(hook('running', 'other', '["y"]', key => 'k2'), '$hook/k2', 'another key makes another hook');
select is(hook('running', 'another', key => 'k2'), '$hook/k2', 'a repeated key names the hook that first used it');
select is(the_task('running', '$hook/k2') ->> 'name', 'other', 'a repeated call changes nothing [P12]');
select is(hook('e', 'tidy', key => 'k2'), '$hook/k2', 'a key belongs to one job');
select is(tasks_of('e') @> '{$hook/k,$hook/k2}', true, 'and is another hook there');
select given(take('ada', max_tasks => 10, claim_as => 'x'));
select given(tell(a_turn('running', '$hook/k2', 'failed', value => '{"message": "m"}', worker => 'x')));
select is(
    journal_of('running', '$hook/k2'),
    '[[1, "end", null, false, {"message": "m"}]]',
    'the journal of a hook from outside has its failure [P10]');
select given(hook('running', 'other', key => 'k2'));
select is(tasks_of('running'), '{1/main}', 'a hook that has failed does not run again');

-- A hook from outside outlives the run.

select given(hook('running', 'long', key => 'long'));
select given(tell(a_turn('running', state => 'done')));
select is(tasks_of('running'), '{$hook/long}', 'the end of a coordinator ends no hook from outside');
select given(hook('e', 'stays', key => 'stays'));
select have_held_job('t');
select given(hook('t', 'stays', key => 'stays'));
select given(terminate('t'));
select is(tasks_of('t'), '{$hook/stays}', 'terminate() ends no hook from outside');

-- A hook from outside requests, waits and is answered, as any task.

select given(entity_create('f', 'note'));
select given(hook('f', 'h', queue => 'f', key => 'h'));
select given(take('ada', '{f}'));
select given(tell(a_turn('f', '$hook/h', requests => '[{"key": "a", "kind": "activity", "name": "a", "queue": "f"}]')));
select given(take('ada', '{f}'));
select is(
    tell(a_turn('f', '$hook/h', 'park', awaits => '{go}')) ->> 'state',
    'parked',
    'a hook from outside may wait (C40)');
select given(tell(a_turn('f', '$hook/h/a', 'done', value => '"answer"')));
select is(take('ada', '{f}') #>> '{0,messages,0,payload}', 'answer', 'a hook from outside gets its answers');
select is(signal('f', 'go', '2'), true, 'a hook from outside takes signals (C43)');
select given(tell(a_turn('f', '$hook/h', 'done')));
select throws_ok(
    $$ select signal('f', 'go') $$,
    'PD403',
    null,
    'a plain entity without hooks takes no signals');

-- Keys that look like paths.

select given(entity_create('paths', 'note'));
select lives_ok(
    $$ select hook('paths', 'h', queue => 'paths', key => key) from unnest('{doc,doc-1}'::text[]) as key $$,
    'keys of hooks may share a prefix');
select given(take('ada', '{paths}', 2));
select given(tell(a_turn('paths', '$hook/doc-1',
                         requests => '[{"key": "a", "kind": "activity", "name": "a", "queue": "paths"}]')));
select given(take('ada', '{paths}'));
select given(tell(a_turn('paths', '$hook/doc-1/a', 'done', value => '"kept"')));
select given(tell(a_turn('paths', '$hook/doc', 'done')));
select is(
    tell(a_turn('paths', '$hook/doc-1', 'park')) #>> '{messages,0,payload}',
    'kept',
    'the end of a hook does not touch a hook whose key has the same prefix [P5]');
select is(
    error_of($$ select hook('paths', 'h', key => 'doc/1') $$),
    'PD104',
    'a key that would be beneath another hook is refused');

-- The answer of a hook.

select have_held_job('asked');
select given(hook('asked', 'reply', queue => 'asked', key => key))
  from (values ('answers'), ('says nothing'), ('fails'), ('is cancelled'), ('is finished')) as cases (key);
select is(
    to_jsonb(hook_result('asked', '$hook/answers')),
    '{"status": "running", "result": null, "error": null}',
    'a hook that waits for a worker has no result yet');
select given(take('ada', '{asked}', 10));
select is(to_jsonb(hook_result('asked', '$hook/answers')) ->> 'status', 'running',
          'a hook that is held has no result yet');
select given(tell(a_turn('asked', '$hook/answers', 'done', facts => '[{"op": "increment", "path": ["n"], "value": 2}]',
                         value => '{"n": 2}')));
select given(tell(a_turn('asked', '$hook/says nothing', 'done')));
select given(tell(a_turn('asked', '$hook/fails', 'failed', value => '{"type": "ValueError", "message": "no"}')));
select given(tell(a_turn('asked', '$hook/is cancelled', 'cancelled', value => '{"type": "CancelledError"}')));
select given(finish_task('asked', '$hook/is finished', token_of('ada'), '3'));
select is(
    to_jsonb(hook_result('asked', '$hook/' || key)),
    jsonb_build_object('status', status, 'result', result, 'error', error),
    format('hook_result() returns what a hook that %s answers', key))
  from (values ('answers', 'completed', '{"n": 2}'::jsonb, null),
               ('says nothing', 'completed', null, null),
               ('fails', 'failed', null, '{"type": "ValueError", "message": "no"}'::jsonb),
               ('is cancelled', 'cancelled', null, '{"type": "CancelledError"}'),
               ('is finished', 'completed', '3', null)) as cases (key, status, result, error);
select is(hook('asked', 'reply', queue => 'asked', key => 'answers'), '$hook/answers',
          'a repeated hook() returns the same hook');
select is((hook_result('asked', '$hook/answers')).result, '{"n": 2}',
          'a repeated hook() leaves the answer as it was [P12]');
select given(tell(a_turn('asked', requests => '[{"key": "k#1", "name": "k", "queue": "asked"},
                                                 {"key": "k#2", "name": "k", "queue": "asked", "detached": true}]')));
select is(
    (hook_result('asked', '$hook/1:main:k#2')).status,
    'running',
    'hook_result() finds a detached hook of a coordinator');
select is(error_of(format('select hook_result(%L, %L)', id, task)), code, format('hook_result() refuses %s', about))
  from (values ('asked', '1/main/k#1', 'PD412', 'a hook that answers its coordinator'),
               ('asked', '1/main', 'PD412', 'a coordinator'),
               ('asked', '$hook/nobody', 'PD412', 'a hook that does not exist'),
               ('asked', null, 'PD412', 'no hook'),
               ('nobody', '$hook/k', 'PD401', 'a job that does not exist')) as cases (id, task, code, about);

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a hook on nobody',       $$ select hook('nobody', 'h') $$,              'PD401'),
        ('a hook without a name',  $$ select hook('e', null) $$,                  'PD104'),
        ('a hook without a queue', $$ select hook('e', 'h', queue => null) $$,    'PD104'),
        ('priority 10',            $$ select hook('e', 'h', priority => 10) $$,   'PD107'),
        ('priority null',          $$ select hook('e', 'h', priority => null) $$, 'PD107'),
        ('a hook that is never due', $$ select hook('e', 'h', due_at => 'infinity') $$, 'PD107'),
        ('an argument that is not a list', $$ select hook('e', 'h', '"x"') $$,       'PD103')
       ) as cases (about, statement, code);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
