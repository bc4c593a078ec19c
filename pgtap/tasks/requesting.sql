-- Requests: hooks and activities that a task requests, once per key; their answers come as messages.

begin;
select plan(85);

select the_time_is('2030-01-01 12:00+00');

-- The rows of a request.

select have_held_job('j');
select is(
    tell(a_turn('j',
                requests => '[
    {"key": "plain#1", "name": "plain"},
    {"key": "hook#1", "kind": "hook", "name": "h", "args": {"page": 1}, "queue": "agents", "priority": 1,
     "due_at": "2030-01-01T13:00:00Z", "signal": "done", "pinned_version": "v2", "limit_key": "t"},
    {"key": "act#1", "kind": "activity", "name": "a", "args": ["x"]},
    {"key": "free#1", "kind": "hook", "name": "f", "detached": true}]')),
    '{"state": "keep"}',
    'a turn may request hooks and activities (C55)');
select is(
    tasks_of('j'),
    '{$hook/1:main:free#1,1/main,1/main/act#1,1/main/hook#1,1/main/plain#1}',
    'a requested task is named after its asker and its key; a detached one is beside its asker');
select is(
    jsonb_build_object('kind', t -> 'kind', 'name', t -> 'name', 'args', t -> 'args', 'queue', t -> 'queue',
                       'priority', t -> 'priority', 'due_at', (t ->> 'due_at')::timestamptz, 'signal', t -> 'signal',
                       'pinned_version', t -> 'pinned_version', 'limit_key', t -> 'limit_key',
                       'detached', t -> 'detached',
                       'asker', jsonb_build_array(t -> 'asker_job', t -> 'asker_task', t -> 'asker_key')),
    jsonb_build_object('kind', 'hook', 'name', 'plain', 'args', '[]'::jsonb, 'queue', 'default', 'priority', 5,
                       'due_at', clock(), 'signal', null, 'pinned_version', null, 'limit_key', '', 'detached', false,
                       'asker', '["j", "1/main", "plain#1"]'::jsonb) || wanted,
    format('%s has the options of its request', task))
  from (values
        ('1/main/plain#1', '{}'::jsonb),
        ('1/main/hook#1',
         jsonb_build_object('name', 'h', 'args', '{"page": 1}'::jsonb, 'queue', 'agents@v2', 'priority', 1,
                            'due_at', '2030-01-01 13:00+00'::timestamptz, 'signal', 'done', 'pinned_version', 'v2',
                            'limit_key', 't', 'asker', '["j", "1/main", "hook#1"]'::jsonb)),
        ('1/main/act#1', '{"kind": "activity", "name": "a", "args": ["x"], "asker": ["j", "1/main", "act#1"]}'),
        ('$hook/1:main:free#1', '{"name": "f", "detached": true, "asker": [null, null, null]}')
       ) as cases (task, wanted)
 cross join lateral the_task('j', task) as t;

-- A key requests once: while the task lives, while its answer is open, after the answer was consumed or dropped.

create function ask(task text, key text) returns text[]
language plpgsql
as $$
begin
    perform tell(a_turn('once', ask.task, requests => jsonb_build_array(jsonb_build_object(
        'key', ask.key, 'name', 'h', 'queue', 'once'))));
    return tasks_of('once');
end
$$;

select have_held_job('once');
select is(ask('1/main', 'h1'), '{1/main,1/main/h1}', 'a request makes a task');
select is(ask('1/main', 'h1'), '{1/main,1/main/h1}',
          'a repeated request makes no other task while the first lives [P12]');
select given(take('ada', '{once}'));
select is(ask('1/main', 'h1'), '{1/main,1/main/h1}', 'a repeated request makes no other task while the first is held');
select given(tell(a_turn('once', '1/main/h1', 'done', value => '1')));
select is(ask('1/main', 'h1'), '{1/main}', 'a repeated request makes no task while its answer is open [P4]');
select given(tell(a_turn('once',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'h1',
                                                                       'message', message_of('once', 'h1'))))));
select is(ask('1/main', 'h1'), '{1/main}', 'a repeated request makes no task after its answer was consumed [P4]');
select is(jsonb_array_length(mail_of('once')), 0, 'a repeated request is not answered again');
select given(ask('1/main', 'h2'));
select given(take('ada', '{once}'));
select given(tell(a_turn('once', '1/main/h2', 'failed', value => '{"message": "m"}')));
select given(tell(a_turn('once',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'dropped', 'key', 'h2',
                                                                       'message', message_of('once', 'h2'))))));
select is(ask('1/main', 'h2'), '{1/main}', 'a repeated request makes no task after its answer was dropped');
select is(
    tell(a_turn('once', state => 'park', requests => '[{"key": "h1", "name": "h"}]')) #>> '{error,code}',
    'PD107',
    'a task cannot be parked for the answer of a request that was answered before [P5]');
select have_held_job('begun');
select given(tell(a_turn('begun', requests => '[{"key": "c#1", "kind": "job", "name": "w", "detached": true}]')));
select is(
    tell(a_turn('begun',
                state => 'park', requests => '[{"key": "c#1", "kind": "job", "name": "w"}]')) #>> '{error,code}',
    'PD107',
    'a task cannot be parked for the answer of a child that was detached [P5]');

-- The coordinator crashed after its hook had finished, and before it got the answer.
select time_passes('31 s');
select given(take('bob', '{once}'));
select is(
    tell(a_turn('once', requests => '[{"key": "h1", "name": "h"}, {"key": "h2", "name": "h"}]',
                worker => 'bob')) ->> 'state',
    'keep',
    'a coordinator that runs again repeats its requests');
select is(tasks_of('once'), '{1/main}', 'a hook that has finished does not run again (C4) [P4]');

-- A detached request answers no one, and is made once too.

select have_held_job('free');
create temporary table freely as
select '[{"key": "d", "name": "h", "queue": "free", "detached": true}]'::jsonb as asked;
select given(tell(a_turn('free', requests => asked))) from freely;
select given(take('ada', '{free}'));
select given(tell(a_turn('free', '$hook/1:main:d', 'failed', value => '{"message": "m"}',
                         facts => '[{"kind": "note", "key": "n"}]')));
select is(mail_of('free'), '[]', 'a detached hook sends no answer');
select is(
    journal_of('free', '$hook/1:main:d'),
    '[[1, "note", "n", true, null], [2, "end", null, false, {"message": "m"}]]',
    'the journal of a detached hook has its end [P10]');
select given(tell(a_turn('free', requests => asked))) from freely;
select is(tasks_of('free'), '{1/main}', 'a detached hook that has ended does not run again');

-- Requests of hooks.

select have_held_job('deep');
select given(tell(a_turn('deep', requests => '[{"key": "h", "name": "h", "queue": "deep"}]')));
select given(take('ada', '{deep}'));
select given(tell(a_turn('deep', '1/main/h',
                         requests => '[{"key": "a", "kind": "activity", "name": "a", "queue": "deep"}]')));
select is(
    take('ada', '{deep}') #> '{0,asker}',
    '{"job": "deep", "task": "1/main/h", "key": "a"}',
    'a hook may request an activity');
select is(tell(a_turn('deep', '1/main/h', 'park')) ->> 'state', 'parked', 'a hook may wait for an activity');
select given(tell(a_turn('deep', '1/main/h/a', 'done', value => '"found"')));
select is(take('ada', '{deep}') #>> '{0,messages,0,payload}', 'found', 'the answer wakes the hook that asked');
select given(tell(a_turn('deep', '1/main/h',
                         requests => '[{"key": "b", "name": "b"}, {"key": "c", "name": "c", "detached": true}]')));
select given(tell(a_turn('deep', '1/main/h', 'done', value => '1')));
select is(
    tasks_of('deep'),
    '{$hook/1:main:h:c,1/main}',
    'the end of a hook ends its requests, except detached ones [P8]');
select is(
    mail_of('deep'),
    '[["1/main", "h", true, 1]]',
    'the asker has the answer of the hook, and no other message is left');

-- Early answers: a hook answers by a signal with the name that its asker gave it (C47).

select have_held_job('early');
select given(tell(a_turn('early', state => 'park',
                         requests => '[{"key": "h", "name": "h", "queue": "early", "signal": "done"}]')));
select given(take('bob', '{early}'));
select is(
    tell(a_turn('early', '1/main/h', facts => '[{"signal": "done", "key": "s", "value": {"n": 1}}]',
                worker => 'bob')) -> 'answers',
    '[[1, true, null]]',
    'a hook may answer before it ends (C47)');
select is(
    mail_of('early'),
    '[["1/main", "h", true, {"n": 1}]]',
    'the signal with the name of a hook is the answer to its asker (C45)');
select is(take('ada', '{early}') #>> '{0,messages,0,key}', 'h', 'an early answer wakes the asker');
select given(tell(a_turn('early', '1/main/h', facts => '[{"signal": "done", "key": "s2", "value": "again"}]',
                         worker => 'bob')));
select given(tell(a_turn('early', '1/main/h', 'done', value => '"returned"', worker => 'bob')));
select is(
    mail_of('early'),
    '[["1/main", "h", true, {"n": 1}]]',
    'later answers of a hook are ignored (C47)');
select given(tell(a_turn('early',
                         requests => '[{"key": "e", "name": "h", "queue": "early", "signal": "done"},
                                       {"key": "o", "name": "h", "queue": "early"}]')));
select given(take('bob', '{early}', 2));
select given(tell(a_turn('early', '1/main/e', facts => '[{"signal": "done", "key": "s"}]', worker => 'bob'),
                  a_turn('early', '1/main/o', facts => '[{"signal": "done", "key": "s", "value": 5}]',
                         worker => 'bob')));
select is(mail_of('early') -> 1, '["1/main", "e", true, null]', 'a hook may complete with an empty payload (C47)');
select is(
    mail_of('early') -> 2,
    '[null, "done", true, 5]',
    'the same name is an ordinary signal from another hook (C52)');
select have_held_job('other');
select given(tell(a_turn('early', '1/main/e',
                         facts => '[{"signal": "done", "key": "s", "target": "other", "value": 6}]',
                         worker => 'bob')));
select is(mail_of('other'), '[[null, "done", true, 6]]', 'the same name is an ordinary signal for another job (C52)');
select given(tell(a_turn('early',
                         requests => '[{"key": "d", "name": "h", "queue": "early", "signal": "milestone",
                                        "detached": true}]')));
select given(take('bob', '{early}', claim_as => 'bob again'));
select given(tell(a_turn('early', '$hook/1:main:d', facts => '[{"signal": "milestone", "key": "s", "value": 7}]',
                         worker => 'bob again')));
select is(
    mail_of('early') -> 3,
    '[null, "milestone", true, 7]',
    'a detached hook may signal [P5]');

-- A hook that was asked to cancel may clean up after its asker has ended (E2).

select have_held_job(id) from unnest('{clean,quick}'::text[]) as id;
select given(tell(a_turn(id, requests => jsonb_build_array(
    jsonb_build_object('key', 'h', 'name', 'h', 'queue', id || 1), jsonb_build_object('key', 'i', 'name', 'h')))))
  from unnest('{clean,quick}'::text[]) as id;
select given(take('bob', '{clean1,quick1}', 2));
select given(tell(a_turn(id, '1/main/h', worker => 'bob', requests => '[
    {"key": "x", "name": "x", "queue": "deepest"}, {"key": "u", "kind": "until", "condition": "$.n == 7"}]')))
  from unnest('{clean,quick}'::text[]) as id;
select given(tell(a_turn(id, cancels => '["h"]'))) from unnest('{clean,quick}'::text[]) as id;
select given(tell(a_turn('clean', state => 'cancelled', value => '{"type": "C"}')));
select is(the_job('clean') ->> 'status', 'cancelled', 'a job ends with its coordinator');
select is(tasks_of('clean'), '{1/main/h,1/main/h/x}',
          'a hook that was asked to cancel outlives its coordinator, with its own requests');
select is(
    tell(a_turn('clean', '1/main/h', 'park', worker => 'bob', awaits => '{}',
                facts => '[{"op": "set", "path": ["n"], "value": 7}]')) #> '{messages}' @@ '$[*].key == "u"',
    true,
    'a hook that cleans up may write and get messages');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is(
    extend(jsonb_build_array(a_turn('clean', '1/main/h', worker => 'bob')))::jsonb #> '{0,cancel}',
    'true',
    'a hook that cleans up learns of the request to cancel with its heartbeat');
select throws_ok($$ select forget('clean') $$, 'PD407', null, 'a job with a hook that cleans up is not forgotten');
select given(tell(a_turn('clean', '1/main/h', 'cancelled', worker => 'bob')));
select is(jsonb_build_array(tasks_of('clean'), mail_of('clean')), '[[], []]',
          'nothing is left when the hook has ended');
select given(hook('clean', 'h', queue => 'outside', key => 'k'));
select given(take('bob', '{outside}'));
select given(tell(a_turn('clean', '$hook/k', worker => 'bob',
                         requests => '[{"key": "x", "name": "x", "queue": "deeper"}]')));
select given(take('bob', '{deeper}'));
select given(tell(a_turn('clean', '$hook/k/x', 'release', worker => 'bob')));
select given(tell(a_turn('clean', '$hook/k', 'done', worker => 'bob', cancels => '["x"]')));
select is(tasks_of('clean'), '{$hook/k/x}', 'a hook of a hook from outside may clean up too');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is(
    take('bob', '{deeper}') @@ '$[*].messages[*].key == "$cancel"', true,
    'the hook that cleans up receives the request to cancel');
select given(tell(a_turn('clean', '$hook/k/x', 'done', worker => 'bob')));
select given(terminate('quick'));
select is(tasks_of('quick'), '{}', 'terminate() ends hooks that clean up');

-- The end of a coordinator ends its hooks, except detached ones and those beneath them.

select have_held_job('end');
select given(tell(a_turn('end',
                         requests => '[{"key": "h", "name": "h", "queue": "end"},
                                       {"key": "d", "name": "d", "queue": "end", "detached": true},
                                       {"key": "h2", "name": "h"}]')));
select given(take('ada', '{end}', 2));
select given(tell(a_turn('end', '1/main/h', requests => '[{"key": "x", "name": "x"}]'),
                  a_turn('end', '$hook/1:main:d', requests => '[{"key": "x", "name": "x", "queue": "x"}]')));
select given(signal('end', 'go', '1'));
select given(tell(a_turn('end', state => 'done', value => '1')));
select is(
    tasks_of('end'),
    '{$hook/1:main:d,$hook/1:main:d/x}',
    'the end of a coordinator ends its requests, except detached ones and theirs [P8]');
select is(verdict_of(a_turn('end', '1/main/h', 'done')), 'gone', 'a hook that was ended is fenced [P6]');
select is(mail_of('end'), '[[null, "go", true, 1]]', 'signals stay open for a hook that outlives the run');
select is(
    tell(a_turn('end', '$hook/1:main:d', 'park', facts => '[{"op": "set", "path": ["n"], "value": 1}]')) ->> 'state',
    'parked',
    'a detached hook may write after the run (C41)');
select given(take('ada', '{x}'));
select given(tell(a_turn('end', '$hook/1:main:d/x', 'done', value => '"found"')));
select is(
    take('ada', '{end}') #>> '{0,messages,0,payload}',
    'found',
    'a detached hook gets its answers after the run');
select given(tell(a_turn('end', '$hook/1:main:d', 'done')));
select is(tasks_of('end'), '{}', 'a detached hook that has ended is gone');

-- A detached hook keeps its messages when its asker ends.

select have_held_job('mail');
select given(tell(a_turn('mail', requests => '[{"key": "h", "name": "h", "queue": "mail"}]')));
select given(take('ada', '{mail}'));
select given(tell(a_turn('mail', '1/main/h',
                         requests => '[{"key": "d", "name": "d", "queue": "mail", "detached": true}]')));
select given(take('ada', '{mail}'));
select given(tell(a_turn('mail', '$hook/1:main:h:d', requests => '[{"key": "x", "name": "x", "queue": "mail"}]')));
select given(take('ada', '{mail}'));
select given(tell(a_turn('mail', '$hook/1:main:h:d/x', 'done', value => '"kept"')));
select given(tell(a_turn('mail', '1/main/h', 'done')));
select is(
    tell(a_turn('mail', '$hook/1:main:h:d', 'park')) #>> '{messages,0,payload}',
    'kept',
    'the end of a hook keeps the messages of a detached one [P5]');

-- A task ends with everything beneath it, so no key may lead beneath another request.

select have_held_job('slash');
select is(
    tell(a_turn('slash', requests => jsonb_build_array(
        '{"key": "a", "kind": "hook", "name": "h"}'::jsonb,
        jsonb_build_object('key', key, 'kind', kind,
                           case kind when 'until' then 'condition' else 'name' end,
                           case kind when 'until' then '$.n > 1' else 'f' end)))) #>> '{error,code}',
    code, format('a %s under the key %s is %s', kind, key, case when code is null then 'made' else 'refused' end))
  from (values
        ('hook',     'a/b',       'PD104'),
        ('activity', 'a#1/b#1',   'PD104'),
        ('job',      'a/b',       'PD104'),
        ('until',    '/a',        'PD104'),
        ('item',     'a/b#x',     'PD104'),
        ('hook',     '.a#1/b#1',  null),
        ('hook',     'pack/b#12', null)
       ) as cases (kind, key, code);
select is(
    tasks_of('slash'),
    '{1/main,1/main/.a#1/b#1,1/main/a,1/main/pack/b#12}',
    'a refused turn makes no task');

-- Fields that a kind of request does not have are refused, not ignored.

select have_held_job('stray');
select is(
    tell(a_turn('stray', requests => jsonb_build_array(
        jsonb_build_object('key', 'a', 'kind', kind, case kind when 'until' then 'condition' else 'name' end,
                           case kind when 'until' then '$.n > 1' else 'f' end)
        || jsonb_build_object(field, given::jsonb)))) #>> '{error,message}',
    message, format('a request of the kind %s with %s %s', kind, field, given))
  from (values
        ('activity', 'timeout',   '"1 s"',  'a request of the kind activity has no field ''timeout'''),
        ('activity', 'signal',    '"s"',    'a request of the kind activity has no field ''signal'''),
        ('hook',     'headers',   '{}',     'a request of the kind hook has no field ''headers'''),
        ('until',    'args',      '[]',     'a request of the kind until has no field ''args'''),
        ('until',    'expires_at', '"2031-01-01T00:00Z"', 'a request of the kind until has no field ''expires_at'''),
        ('item',     'queue',     '"q"',    'a request of the kind item has no field ''queue'''),
        ('job',      'condition', '"$.n"',  'a request of the kind job has no field ''condition'''),
        ('hook',     'timeout',   'null',   null)
       ) as cases (kind, field, given, message);

-- A due time must leave room for a timeout.

select have_held_job('far');
select is(
    tell(a_turn('far', requests => jsonb_build_array(jsonb_build_object(
        'key', 'c', 'kind', 'job', 'name', 'w', 'due_at', due_at, 'timeout', '1000 years')))) #>> '{error,code}',
    'PD107',
    format('a child due at %s is refused', due_at))
  from unnest('{infinity,+Infinity,10000-01-01T00:00:00Z,294270-01-01T00:00:00Z}'::text[]) as due_at;

-- The expiry of an item must be a time that clients can read.

select is(
    tell(a_turn('far', requests => jsonb_build_array(jsonb_build_object(
        'key', 'i', 'kind', 'item', 'name', 'x', 'expires_at', expires_at)))) #>> '{error,code}',
    'PD107',
    format('an item that expires at %s is refused', expires_at))
  from unnest('{infinity,-infinity,10000-01-01T00:00:00Z,0001-01-01T00:00:00Z}'::text[]) as expires_at;
select is(
    tell(a_turn('far', requests => '[{"key": "i", "kind": "item", "name": "x", "expires_at": "9999-12-30T00:00:00Z"}]'))
        ->> 'state', 'keep', 'an item that expires in the year 9999 is accepted');

-- Every answer has the fingerprint of its request.

select have_held_job('print');
select given(tell(a_turn('print',
                         requests => '[
    {"key": "h", "name": "h", "queue": "print", "fingerprint": "1"},
    {"key": "s", "name": "s", "queue": "print", "signal": "done", "fingerprint": "2"},
    {"key": "c", "kind": "job", "name": "w", "id": "print child", "fingerprint": "3"},
    {"key": "t", "kind": "job", "name": "w", "id": "far", "fingerprint": "4"},
    {"key": "u", "kind": "until", "condition": "$.n == 1", "fingerprint": "5"},
    {"key": "i", "kind": "item", "name": "sign", "fingerprint": "6"},
    {"key": "n", "name": "n", "queue": "print"}]')));
select given(tell(a_turn('print',
                         requests => '[{"key": "h", "name": "h", "queue": "print", "fingerprint": "other"}]')));
select given(take('bob', '{print}', max_tasks => 9));
select given(tell(a_turn('print', '1/main/s', facts => '[{"signal": "done", "key": "k"}]', worker => 'bob')));
select given(tell(a_turn('print', '1/main/h', 'done', worker => 'bob'),
                  a_turn('print', '1/main/n', 'failed', value => '{"message": "m"}', worker => 'bob')));
select given(terminate('print child'));
select given(entity_set('print', '1', 'n'));
select given(resolve_item(i.id, '"yes"')) from items as i where i.job_id = 'print';
select is(
    (select jsonb_object_agg(m ->> 'key', m -> 'fingerprint')
       from jsonb_array_elements(tell(a_turn('print', awaits => '{}')) -> 'messages') as m),
    '{"h": "1", "s": "2", "c": "3", "t": "4", "u": "5", "i": "6", "n": null}',
    'an answer has the fingerprint of the first request [P9]');
select is(
    tell(a_turn('print',
                requests => jsonb_build_array(jsonb_build_object('key', 'x', 'name', 'h', 'fingerprint', given))))
        #>> '{error,code}',
    'PD104',
    format('a fingerprint of %s is refused', left(given, 10)))
  from (values (''), (repeat('x', 201)), (E'a\nb')) as cases (given);
select is(
    tell(a_turn('print', requests => '[{"key": "z", "name": "h", "queue": "print", "fingerprint": null}]')) ->> 'state',
    'keep',
    'a fingerprint may be missing');

select have_held_job('twice');
select is(
    tell(a_turn('twice', requests => format('[{"key": "k", "name": "h"}, {"key": "k", %s}]', other)::jsonb))
        #>> '{error,message}',
    'several requests of the turn have the key ''k''',
    format('a turn cannot make another request under the same key: %s [P10]', other))
  from (values ('"name": "other"'), ('"kind": "item", "name": "h"')) as cases (other);
select is(
    tell(a_turn('twice', requests => '[{"key": "k", "name": "h"}, {"name": "h", "key": "k"}]')) ->> 'state',
    'keep',
    'the same request written twice is one request [P4]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
