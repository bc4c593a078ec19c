-- How a turn may end: keep, park, done, failed, cancelled, retry, stuck, release.

begin;
select plan(112);

select the_time_is('2030-01-01 12:00+00');

-- keep: the task is still held.

select have_held_job('keep');
create temporary table before_it as select the_task('keep') as task;
select is(tell(a_turn('keep')), '{"state": "keep"}', 'an empty turn keeps its task');
select is(the_task('keep'), (select task from before_it), 'an empty turn changes nothing');
select is(
    tell(a_turn('keep', facts => '[{"kind": "activity", "key": "a", "value": 1}]') || '{"asked": 3}'),
    '{"state": "keep"}',
    'a turn with facts keeps its task');
select is(
    the_task('keep'),
    (select task || jsonb_build_object('deliveries', 0, 'position', 1, 'asked', 3, 'told_at', clock())
       from before_it),
    'facts change the position, the time and the number of requests');
select is(
    (the_task('keep') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a turn does not move the end of a lease');
select given(tell(a_turn('keep') || '{"asked": 1}'));
select is(the_task('keep') -> 'asked', '3', 'the number of requests never falls');

-- park: until a signal, an answer, or a time.

select have_held_job('park');
select is(
    tell(a_turn('park', state => 'park', awaits => '{go,stop}')) ->> 'state',
    'parked',
    'a task without messages parks');
select is(
    the_task('park') - '{asked,job_id,kind,name,queue,task}'::text[],
    jsonb_build_object('priority', 5, 'due_at', 'infinity', 'token', null, 'last_token', token_of('ada'),
                       'worker', null, 'last_worker', 'ada', 'position', 0, 'deliveries', 0, 'attempt', 0,
                       'paused', false, 'in_line', false, 'progress', null, 'limit_key', '',
                       'pinned_version', null, 'args', null,
                       'awaits', '{go,stop}'::text[], 'until', null, 'signal', null, 'detached', false,
                       'accept_changes', false, 'asker_job', null, 'asker_task', null, 'asker_key', null,
                       'failure', null, 'stuck_reason', null, 'started_at', clock(), 'told_at', null,
                       'is_suspect', false, 'fingerprint', null),
    'a parked task has no holder, remembers the last one, and has no due time');
select is(take('ada', '{park}'), '[]', 'a parked task is not claimed');
select time_passes('10 years');
select is(take('ada', '{park}'), '[]', 'a task that waits for a signal waits without a limit');
select is(signal('park', 'other'), true, 'a signal that nobody awaits yet is accepted');
select is(take('ada', '{park}'), '[]', 'a signal of another name does not wake the task');
select given(signal('park', 'stop'));
select is(take('ada', '{park}') #>> '{0,messages,0,name}', 'stop', 'an awaited signal wakes the task [P5]');

select have_held_job('nap');
select is(
    tell(a_turn('nap', state => 'park', until => clock() + interval '1 h')) ->> 'state',
    'parked',
    'a task may park until a time');
select is(
    jsonb_build_array(the_task('nap') -> 'due_at', the_task('nap') -> 'until', the_task('nap') -> 'awaits'),
    jsonb_build_array(clock() + interval '1 h', clock() + interval '1 h', '{}'::text[]),
    'a sleeping task is due when its time comes');
select time_passes('59 min 59 s');
select is(take('ada', '{nap}'), '[]', 'a task does not wake before its time [P7]');
select time_passes('1 s');
select is(
    take('ada', '{nap}') #>> '{0,deliveries}',
    '1',
    'a task wakes at its time, and that counts as a first delivery [P7]');
select is(take('ada', '{nap}', claim_as => 'again'), '[]', 'a task wakes once [P7]');

select have_held_job('both');
select given(tell(a_turn('both', state => 'park', awaits => '{go}', until => clock() + interval '1 h')));
select given(signal('both', 'go'));
select is(take('ada', '{both}') #>> '{0,job}', 'both', 'a signal wakes a task before its time');

-- A park with an open message keeps the task.

select have_held_job('mail');
select given(signal('mail', 'go', '{"n": 1}', 'k'));
select is(
    tell(a_turn('mail', state => 'park', awaits => '{go}', until => clock() + interval '1 h')) #- '{messages,0,id}',
    jsonb_build_object('state', 'keep', 'again', null, 'answers', null, 'error', null, 'messages',
                       jsonb_build_array(jsonb_build_object('key', null, 'name', 'go', 'fingerprint', null, 'ok', true,
                                                            'payload', '{"n": 1}'::jsonb, 'sent_at', clock()))),
    'a park with an open message keeps the task and returns the message [P5]');
select is(
    jsonb_build_array(the_task('mail') -> 'token', the_task('mail') -> 'worker', the_task('mail') -> 'due_at'),
    jsonb_build_array(token_of('ada'), 'ada', clock() + interval '30 s'),
    'a park with an open message does not change the lease');
select is(
    tell(a_turn('mail', state => 'park', awaits => '{stop}')) ->> 'state',
    'parked',
    'a message with another name does not keep a task from parking');
select have_held_job('ask');
select given(signal('ask', 'go', '1'));
select is(
    tell(a_turn('ask', awaits => '{go}')) #>> '{messages,0,payload}',
    '1',
    'a turn that keeps its task may ask for messages');
select is(
    tell(a_turn('ask', awaits => '{}')) -> 'messages',
    null,
    'a turn that keeps its task and awaits nothing gets no messages');
select is(tell(a_turn('ask')), '{"state": "keep"}', 'a turn that does not ask for messages gets none');

-- A park that nothing would end is refused.

select have_held_job(id)
  from unnest('{bare,hook,child,until,item,answer,detached,withdrawn,childless,alone}'::text[]) as id;
select given(tell(a_turn(id, requests => jsonb_build_array(request))))
  from (values
        ('hook',      '{"key": "h", "kind": "hook", "name": "h", "queue": "bare"}'::jsonb),
        ('child',     '{"key": "c", "kind": "job", "name": "w", "queue": "bare"}'),
        ('until',     '{"key": "u", "kind": "until", "condition": "$.n > 1"}'),
        ('item',      '{"key": "i", "kind": "item", "name": "sign"}'),
        ('answer',    '{"key": "h", "kind": "hook", "name": "h", "queue": "answered"}'),
        ('detached',  '{"key": "h", "kind": "hook", "name": "h", "queue": "bare", "detached": true}'),
        ('withdrawn', '{"key": "u", "kind": "until", "condition": "$.n > 1"}'),
        ('childless', '{"key": "c", "kind": "job", "name": "w", "id": "grown up", "queue": "grown up"}'),
        ('alone',     '{"key": "c", "kind": "job", "name": "w", "queue": "bare", "detached": true}')
       ) as asked (id, request);
select given(take('bob', '{answered}'));
select given(tell(a_turn('answer', '1/main/h', 'done', worker => 'bob', touches => '{answer}')));
select given(take('bob', '{grown up}'));
select given(tell(a_turn('grown up', state => 'done', worker => 'bob', touches => '{childless}')));
select given(tell(a_turn('childless', facts => (
    select jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'c', 'message', i.id))
      from inbox as i
     where i.job_id = 'childless'))));
select is(
    tell(a_turn(id, state => 'park', facts => facts, cancels => cancels)) #> '{error,code}',
    '"PD107"',
    format('a task does not park %s (I3)', about))
  from (values
        ('bare', 'without a request', null::jsonb, null::jsonb),
        ('detached', 'for a detached hook', null, null),
        ('withdrawn', 'for a condition that it withdraws', null, '["u"]'),
        ('childless', 'for a child that has answered', null, null),
        ('alone', 'for a detached child', null, null),
        ('answer', 'for an answer that it consumes',
         (select jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'h', 'message', i.id))
            from inbox as i where i.job_id = 'answer'), null)
       ) as cases (id, about, facts, cancels);
select is(
    tell(a_turn('bare', state => 'park', requests => '[{"key": "h", "name": "h", "queue": "bare", "detached": true}]'))
        #> '{error,code}',
    '"PD107"',
    'a task does not park for a detached hook that it requests (I3)');
select is(
    tell(a_turn('bare', state => 'park', cancels => '["u"]',
                requests => '[{"key": "u", "kind": "until", "condition": "$.n > 1"}]')) #> '{error,code}',
    '"PD107"',
    'a task does not park for a condition that it requests and withdraws (I3)');
select is(tell(a_turn(id, state => 'park')) ->> 'state', 'parked', format('a task parks for an open %s', id))
  from unnest('{hook,child,until,item}'::text[]) as id;
select is(tell(a_turn('answer', state => 'park')) ->> 'state', 'keep', 'an open answer keeps a task from parking [P5]');
select is((the_task('bare') ->> 'token'), token_of('ada')::text,
          'a refused turn does not change the holder of its task');

-- done, failed, cancelled: the end of a run.

select have_held_job('done', '{"n": 1}');
select time_passes('1 min');
select is(
    tell(a_turn('done', state => 'done', value => '{"answer": 42}',
                facts => '[{"op": "set", "path": ["n"], "value": 2}]')) - '{again,messages,error}'::text[],
    '{"state": "done", "answers": [[1, true, 2]]}',
    'the last turn may change the memory');
select is(
    the_job('done') - '{args,created_at,entity,headers,id,parent,pinned_version}'::text[]
        - '{asked_as,forked_from,limit_key,on_parent_end,paused,priority,queue,run,start_key,timeout,watched,
            workflow}'::text[],
    jsonb_build_object('status', 'completed', 'context', '{"n": 2}'::jsonb, 'version', 2,
                       'result', '{"answer": 42}'::jsonb, 'error', null, 'updated_at', clock(),
                       'started_at', clock() - interval '1 min', 'finished_at', clock()),
    'a completed job has its memory and its result (C12)');
select is(tasks_of('done'), '{}', 'a completed job has no tasks');
select is(jsonb_array_length(journal_of('done')), 1, 'the journal stays when its task has ended (C72)');

select have_held_job('null');
select given(tell(a_turn('null', state => 'done')));
select is(
    jsonb_build_array(the_job('null') -> 'status', the_job('null') -> 'result'),
    '["completed", null]',
    'a coordinator may return nothing');

select have_held_job('failed');
select is(
    tell(a_turn('failed', state => 'failed', value => '{"type": "ValueError", "message": "no pages"}')),
    '{"state": "failed"}',
    'a run may fail');
select is(
    jsonb_build_array(the_job('failed') -> 'status', the_job('failed') -> 'error', the_job('failed') -> 'result',
                      the_job('failed') -> 'finished_at'),
    jsonb_build_array('failed', '{"type": "ValueError", "message": "no pages"}'::jsonb, null, clock()),
    'a failed job has its error (C64)');
select have_held_job('mute');
select given(tell(a_turn('mute', state => 'failed')));
select is(the_job('mute') -> 'error', '{}', 'a run may fail without an error');

select have_held_job('cancelled');
select is(
    tell(a_turn('cancelled', state => 'cancelled', value => '{"message": "enough"}')),
    '{"state": "cancelled"}',
    'a run may end as cancelled (E2)');
select is(
    jsonb_build_array(the_job('cancelled') -> 'status', the_job('cancelled') -> 'error'),
    '["cancelled", {"message": "enough"}]',
    'a cancelled job has its error');

-- retry: the next attempt of the same task.

select given(entity_create('e', 'note'));
select given(hook('e', 'h', key => 'h', queue => 'retry'));
select given(take('ada', '{retry}'));
select is(
    tell(a_turn('e', '$hook/h', 'retry', until => clock() + interval '10 s', value => '{"message": "timeout"}')),
    '{"state": "retry"}',
    'a turn may end as retry');
select is(take('ada', '{retry}'), '[]', 'the next attempt is not claimed before it is due (E4)');
select is(
    (select jsonb_build_array(w.state, w.waits_for) from waiting as w where w.job_id = 'e') ->> 0,
    'retrying',
    'the view waiting shows the task as retrying');
select time_passes('10 s');
select is(
    (select jsonb_build_array(t -> 'attempt', t -> 'deliveries')
       from jsonb_array_elements(take('bob', '{retry}')) as t),
    '[1, 1]',
    'a retry counts as the next attempt and as a first delivery (E4)');
select is(
    the_task('e', '$hook/h') -> 'failure',
    '{"message": "timeout"}',
    'a retried task keeps its last failure');
select given(tell(a_turn('e', '$hook/h', 'retry', worker => 'bob')));
select is(take('ada', '{retry}', claim_as => 'third') #>> '{0,attempt}', '2', 'a retry without a time is due at once');

-- stuck: until an operator resumes the task.

select have_held_job('stuck');
select is(
    tell(a_turn('stuck', state => 'stuck',
                value => '{"code": "PD201", "message": "the code asks for b, the journal tells a"}')),
    '{"state": "stuck"}',
    'a turn may end as stuck [P9]');
select is(
    jsonb_build_array(the_task('stuck') -> 'due_at', the_task('stuck') -> 'token',
                      the_task('stuck') #> '{stuck_reason,code}', the_job('stuck') -> 'status'),
    '["infinity", null, "PD201", "running"]',
    'a stuck task has its reason, and its job stays running [P9]');
select matches(
    (status('stuck')).waiting_for,
    'the code asks for b, the journal tells a',
    'the status of a stuck job shows the reason [P9]');
select given(signal('stuck', 'go'));
select is(take('ada', '{stuck}'), '[]', 'a signal does not wake a stuck task');

-- release: the lease is given back.

select have_held_job('release');
select is(
    tell(a_turn('release', state => 'release', facts => '[{"kind": "note", "key": "n"}]')) ->> 'state',
    'released',
    'a turn may give its task back');
select is(
    take('bob', '{release}') #> '{0,journal,0,1}',
    '"note"',
    'a task that was given back is claimed at once, with its last facts');
select given(tell(a_turn('release', state => 'release', until => clock() + interval '1 min', worker => 'bob')));
select is(take('bob', '{release}', claim_as => 'x'), '[]', 'a task may be given back for later');
select have_held_job('forgets');
select given(tell(a_turn('forgets', awaits => '{go}')));
select is(the_task('forgets') -> 'awaits', 'null', 'a task that asks for messages is not parked and awaits nothing');
select given(tell(a_turn('forgets', state => 'park', awaits => '{go}', until => clock())));
select is(the_task('forgets') -> 'awaits', '["go"]', 'a parked task has the signals that it awaits');
select given(take('ada', '{forgets}'));
select given(tell(a_turn('forgets', state => 'release', until => clock() + interval '1 min')));
select is(the_task('forgets') -> 'awaits', 'null', 'a task that was given back awaits no signals');
select given(signal('forgets', 'go'));
select is(take('ada', '{forgets}'), '[]', 'a signal does not wake a task that was given back for later');
select have_held_job('to ' || state) from unnest('{retry,release}'::text[]) as state;
select given(signal('to ' || state, 'go')) from unnest('{retry,release}'::text[]) as state;
select given(tell(a_turn('to ' || state, state => state, awaits => '{go}', until => clock() + interval '1 min')))
  from unnest('{retry,release}'::text[]) as state;
select is(the_task('to ' || state) -> 'awaits', 'null', format('a %s that names a signal does not await it', state))
  from unnest('{retry,release}'::text[]) as state;

-- Turns that are refused.

select have_held_job('odd');
select is(
    tell(a_turn('odd', state => state)) - 'error' || jsonb_build_object('code', tell(a_turn('odd',
                                                                                            state => state))
                                                                            #> '{error,code}'),
    '{"state": "refused", "again": null, "answers": null, "messages": null, "code": "PD107"}',
    format('a turn cannot end as %s', coalesce(state, 'null')))
  from unnest(array['finished', '', 'KEEP', null]) as state;
select is(verdict_of(a_turn('odd', requests => request)), 'refused', format('a request with %s is refused', about))
  from (values
        ('an unknown kind', '[{"key": "k", "name": "h", "kind": "daemon"}]'::jsonb),
        ('the kind of a coordinator', '[{"key": "k", "name": "h", "kind": "coordinator"}]'),
        ('priority 10',              '[{"key": "k", "name": "h", "priority": 10}]'),
        ('a priority that is a fraction',    '[{"key": "k", "name": "h", "priority": 2.5}]'),
        ('a priority that is too large',    '[{"key": "k", "name": "h", "priority": 1000000000000}]'),
        ('a queue with a control character',  '[{"key": "k", "name": "h", "queue": "a\tb"}]'),
        ('an id with a control character',    '[{"key": "k", "name": "h", "kind": "job", "id": "a\tb"}]'),
        ('a misspelt field',         '[{"key": "k", "name": "h", "queu": "q"}]'),
        ('an infinite time',  '[{"key": "k", "name": "h", "due_at": "infinity"}]'),
        ('another spelling of an infinite time',
        '[{"key": "k", "name": "h", "kind": "job", "due_at": " +Infinity"}]')
       ) as cases (about, request);
select is(
    verdict_of(a_turn('odd', state => state, until => 'infinity')), 'refused',
    format('a %s until infinity is refused', state))
  from unnest('{retry,release,continue}'::text[]) as state;
select is(verdict_of(a_turn('odd', state => 'keep', until => 'infinity')), 'keep',
          'a turn that keeps its task may have a time of infinity');
select is(
    verdict_of(a_turn('odd', state => 'park', until => 'infinity')), 'refused',
    'a park that only infinity ends is refused [P8]');
select is(
    tell(a_turn('odd', state => 'park', awaits => awaits)) #> '{error,code}',
    '"PD104"',
    format('a park that awaits a name of %s is refused [P8]', about))
  from (values
        ('nothing', '{""}'::text[]),
        ('null', '{go,NULL}'),
        ('201 bytes', array[repeat('x', 201)])
       ) as cases (about, awaits);
select is(
    verdict_of(a_turn('odd', awaits => '{""}')), 'refused',
    'a turn that keeps its task and awaits an empty name is refused');
select is(
    tell(a_turn('odd') || stranger) #>> '{error,code}',
    'PD107',
    format('a turn with a field like %s is refused', stranger))
  from unnest('{"{\"fact\": []}","{\"timeout\": null}"}'::jsonb[]) as stranger;
select is(
    tell(a_turn('odd', facts => jsonb_build_array('{"kind": "note", "key": "n"}'::jsonb, fact))) #>> '{error,code}',
    'PD107',
    format('a turn with a fact like %s is refused', fact))
  from (values
        ('{"kind": "activity", "key": "a", "valu": 1}'::jsonb),
        ('{"op": "increment", "path": ["n"], "by": 1}'),
        (jsonb_build_object('kind', 'activity', 'key', 'a', 'value', repeat('x', 300), 'results', 1))
       ) as cases (fact);
select is(
    (tell(a_turn('odd', facts => '[{"kind": "a", "key": "a", "valu": 1}]')) -> 'error') - '{code,type}'::text[],
    '{"message": "the fact a has no field ''valu''", "hint": "Correct the name of the field.",
      "detail": "Known fields: kind, key, name, fingerprint, ok, value, at, op, path, message, signal, target, expected_version."}',
    'the error of a misspelt field lists the known fields');
select is(journal_of('odd'), '[]', 'a refused turn writes no facts');
select have_held_job('longs');
select is(
    tell(a_turn('longs', state => 'park', awaits => '{go}', until => 'infinity')) ->> 'state', 'parked',
    'a park for a signal may have a time of infinity');
select is((status('longs')).waiting_for, 'signal go', 'the status does not show infinity as a deadline');
select is(
    error_of(format('select advance(%L)', turns)),
    'PD107',
    format('%s is refused as a list of turns', coalesce(turns, 'null')))
  from unnest(array['{}', '"x"', 'null', null]) as turns;
select is(advance('[]')::jsonb -> 'turns', '[]', 'an empty list of turns is no error');

-- Values are judged as they will be read: a boolean or a number may be a text, and a key a number. [P8]

select have_held_job('forms');
select given(tell(a_turn('forms', requests => '[{"key": 7, "kind": "until", "condition": "$.n > 1"}]')));
select given(signal('forms', 'go'));
select is(verdict_of(turn), 'refused', format('a task cannot park %s', about))
  from (values
        ('for a hook that is detached, as text',
         a_turn('forms', state => 'park', cancels => '["7"]',
                requests => '[{"key": "h#1", "name": "x", "detached": "true"}]',
                facts => jsonb_build_array(jsonb_build_object('message', message_of('forms', 'go'))))),
        ('for a condition that it withdraws, by a number',
         a_turn('forms', state => 'park', cancels => '[7]',
                facts => jsonb_build_array(jsonb_build_object('message', message_of('forms', 'go'))))),
        ('on a signal that it consumes, as text',
         a_turn('forms', state => 'park', cancels => '["7"]',
                facts => jsonb_build_array(jsonb_build_object('message', message_of('forms', 'go')::text)))),
        ('for a signal with a control character in its name',
         a_turn('forms', state => 'park', awaits => array[E'a\x07b']))
       ) as cases (about, turn);
select is(
    tell(a_turn('forms', requests => '[{"key": "5/b#1", "name": "x"}, {"key": 5, "name": "x"}]')) #>> '{error,code}',
    'PD104',
    'a key that leads beneath a key that is a number is refused');
select is(the_task('odd') -> 'token', to_jsonb(token_of('ada')), 'a task whose turn was refused is still held');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
