-- Facts: everything that a task has been told, in one ordered list, with commands, signals and messages.

begin;
select plan(52);

select the_time_is('2030-01-01 12:00+00');

-- The first turn after a claim is the most frequent: it resets the count of deliveries.

select have_held_job('cheap');
create temporary table hot as select pg_stat_get_xact_tuples_hot_updated('tasks'::regclass) as before;
select given(tell(a_turn('cheap', facts => '[{"kind": "note", "key": "first"}]')));
select is(
    pg_stat_get_xact_tuples_hot_updated('tasks'::regclass) - hot.before, 1::bigint,
    'a turn that keeps its task updates no index of tasks')
  from hot;

-- Facts of a worker are stored as they are.

select have_held_job('told');
select is(
    tell(a_turn('told',
                facts => '[
    {"kind": "activity", "key": "search#1", "name": "search", "fingerprint": "ab12",
     "value": {"found": [1, 1.50, null]}},
    {"kind": "activity", "key": "search#2", "name": "search", "ok": false,
     "value": {"type": "ValueError", "message": "no"}},
    {"kind": "attempt",  "key": "search#3", "ok": false, "value": {"message": "timeout"}},
    {"kind": "patch",    "key": "patch#1", "name": "new-prompt", "value": true},
    {"kind": "note",     "key": "deadline", "value": "2030-01-02T00:00:00Z"},
    {"kind": "activity", "key": "null#1"},
    {"key": "plain"}]')),
    '{"state": "keep"}',
    'facts without a question get no answers');
select is(journal_of('told'), '[
    [1, "activity", "search#1", true, {"found": [1, 1.50, null]}],
    [2, "activity", "search#2", false, {"type": "ValueError", "message": "no"}],
    [3, "attempt", "search#3", false, {"message": "timeout"}],
    [4, "patch", "patch#1", true, true],
    [5, "note", "deadline", true, "2030-01-02T00:00:00Z"],
    [6, "activity", "null#1", true, null],
    [7, "note", "plain", true, null]]', 'the journal has each fact in its place, as it was reported [P4]');
select is(
    read_journal('told', '1/main')::jsonb -> 0,
    jsonb_build_array(1, 'activity', 'search#1', 'search', 'ab12', true, '{"found": [1, 1.50, null]}'::jsonb, clock(),
                      null, null),
    'replay reads each fact with its name, its fingerprint and its time [P9]');
select given(tell(a_turn('told', facts => '[{"kind": "note", "key": "next"}]')));
select is(journal_of('told') -> 7, '[8, "note", "next", true, null]', 'later facts follow the earlier ones');
select is(the_task('told') -> 'position', '8', 'the position counts the facts');

-- Commands and reads are answered in their order.

select have_held_job('cmd', '{"n": 1}');
select is(tell(a_turn('cmd', facts => '[
    {"kind": "command", "key": "c1", "op": "increment", "path": ["n"], "value": 4},
    {"kind": "read",    "key": "r1", "op": "get", "path": ["n"]},
    {"kind": "command", "key": "c2", "op": "append", "path": ["n"], "value": [1]},
    {"kind": "command", "key": "c3", "op": "merge", "path": [], "value": {"a": {"b": 1}}},
    {"kind": "read",    "key": "r2", "op": "get"},
    {"kind": "read",    "key": "r3", "op": "get", "path": ["nothing"]},
    {"kind": "command", "key": "c4", "op": "remove", "path": ["l"], "value": 0},
    {"kind": "command", "key": "c5", "op": "delete", "path": ["a"]}]')) -> 'answers' #- '{2,2}' #- '{6,2}', '[
    [1, true, 5],
    [2, true, 5],
    [3, false],
    [4, true, 3],
    [5, true, {"n": 5, "a": {"b": 1}}],
    [6, true, null],
    [7, false],
    [8, true, {"b": 1}]]', 'each command and read is answered with its place, and sees what came before it [P3]');
select is(jsonb_build_array(the_job('cmd') -> 'context', the_job('cmd') -> 'version'), '[{"n": 5}, 4]',
          'a refused command does not undo its neighbours, and makes no version');
select is(
    jsonb_path_query_array(journal_of('cmd'), '$[*][4].code'),
    '["PD102", "PD102"]',
    'a refused command is a fact with its failure');
select is((select jsonb_agg(f -> 4) from jsonb_array_elements(journal_of('cmd')) as f where f -> 3 = 'true'),
          '[5, 5, 3, {"n": 5, "a": {"b": 1}}, null, {"b": 1}]',
          'the replayed answer equals the live one (C4) (C35)');
select is(
    jsonb_path_query_array(journal_of('cmd'), '$[*][1]'),
    '["command", "read", "command", "command", "read", "read", "command", "command"]',
    'the journal distinguishes commands from reads');
select is(
    (select jsonb_agg(jsonb_build_array(h.version, h.task, h.op, h.path, h.argument, h.key) order by h.version)
       from history as h
      where h.job_id = 'cmd'),
    '[
    [1, "$outside", "set", [], {"n": 1}, null],
    [2, "1/main", "increment", ["n"], 4, "c1"],
    [3, "1/main", "merge", [], {"a": {"b": 1}}, "c3"],
    [4, "1/main", "delete", ["a"], null, "c5"]]',
    'the history has the task of each change (C21) (E9)');
select is((the_job('cmd') ->> 'updated_at')::timestamptz, clock(), 'a command sets the time of the memory');

-- Sent signals.

select have_held_job('from');
select have_held_job('to', worker => 'bob');
select have_held_job('over', worker => 'bob');
select given(tell(a_turn('over', state => 'done', worker => 'bob')));
create temporary table sent as
select tell(a_turn('from', facts => '[
    {"kind": "send", "key": "s1", "signal": "go", "target": "to", "value": {"n": 1}},
    {"kind": "send", "key": "s2", "signal": "self"},
    {"kind": "send", "key": "s3", "signal": "go", "target": "nobody"},
    {"kind": "send", "key": "s4", "signal": "go", "target": "over"},
    {"kind": "send", "key": "s5", "signal": "a\tb", "target": "to"},
    {"kind": "send", "key": "s6", "signal": "go", "target": "to", "value": null}]')) -> 'answers' as answers;
select is(
    (select jsonb_agg(jsonb_build_array(a -> 0, a -> 1, a #> '{2,code}'))
       from sent, jsonb_array_elements(answers) as a),
    '[
    [1, true, null], [2, true, null], [3, false, "PD401"], [4, false, "PD403"], [5, false, "PD104"], [6, true, null]]',
    'a signal that cannot be delivered is answered with its failure, and harms no other');
select is(
    mail_of('to'),
    '[[null, "go", true, {"n": 1}], [null, "go", true, null]]',
    'a signal is in the inbox of the job to which it was sent [P5]');
select is(mail_of('from'), '[[null, "self", true, null]]', 'a signal without a target goes to the own job (C36) (C43)');
select is(
    (select i.sender from inbox as i where i.job_id = 'to' order by i.id limit 1),
    'from 1/main',
    'a signal has its sender');
select is(
    jsonb_path_query_array(journal_of('from'), '$[*][1]'),
    '["send", "send", "send", "send", "send", "send"]',
    'sent signals are in the journal');

-- Consumed messages: the journal has the contents of the inbox.

select given(signal('to', 'late', '"first"'));
select given(signal('to', 'late', '"second"'));
select time_passes('1 s');
select given(tell(a_turn('to', worker => 'bob',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'signal', 'key', 'late#1',
                                                                       'name', 'late',
                                                                       'message', message_of('to', 'late'),
                                                                       'value', '"a lie"'::jsonb, 'ok', false)))));
select is(
    journal_of('to'),
    '[[1, "signal", "late#1", true, "first"]]',
    'a consumed signal is recorded as it was sent [P5]');
select is(
    (select count(*) from inbox as i where i.job_id = 'to' and i.payload = '"first"'),
    0::bigint,
    'a consumed signal is gone: a job that takes many does not search among them for the next');
select is(mail_of('to') -> 2, '[null, "late", true, "second"]', 'the next signal of that name is still open');
select given(signal('to', 'keyed', '"third"', 'k1'));
select given(tell(a_turn('to', worker => 'bob', facts => jsonb_build_array(jsonb_build_object(
    'kind', 'signal', 'key', 'keyed#1', 'name', 'keyed', 'message', message_of('to', 'keyed'))))));
select is(
    (select jsonb_agg(jsonb_build_array(i.task, i.key, i.name, i.payload, i.consumed_at = clock()))
       from inbox as i where i.dedupe_key = 'k1'),
    '[["$taken", "k1", "keyed", null, true]]',
    'of a consumed signal with a key only the key stays [P12]');

-- A worker that does not replay names the message, and nothing else.

select have_held_job('plain');
select given(tell(a_turn('plain', requests => '[{"key": "i1", "kind": "item", "name": "ask"},
                                                {"key": "i2", "kind": "item", "name": "ask"}]')));
select given(resolve_item(i.id, '1')) from items as i where i.job_id = 'plain';
select given(signal('plain', 'go', '2'));
select given(cancel('plain'));
create temporary table takes as
select a_turn('plain', facts => jsonb_build_array(
    jsonb_build_object('message', message_of('plain', 'i1')),
    jsonb_build_object('message', message_of('plain', 'go')),
    jsonb_build_object('message', message_of('plain', '$cancel')),
    jsonb_build_object('message', message_of('plain', 'i2'), 'kind', 'taken'))) as turn;
select given(tell(turn)) from takes;
select is(
    (select jsonb_agg(jsonb_build_array(f.kind, f.key, f.name) order by f.seq)
       from journal as f
      where f.job_id = 'plain'),
    '[["answer", "i1", null], ["signal", null, "go"], ["cancel", "$cancel", null], ["taken", "i2", null]]',
    'a fact that names a message says by itself of which kind it is, and to which request it belongs');
select given(tell(a_turn('plain', facts => '[{"kind": "timer", "key": "i1"}, {"kind": "timer", "key": "i2"}]')));
select is_empty($$ select * from assert_invariants() where job = 'plain' $$,
                'an answer that is taken under a kind of the worker itself is neither lost nor told twice [P8]');
select is((select tell(turn) -> 'again' from takes), 'true',
          'a turn that names nothing but messages can be repeated [P12]');

select have_held_job('asks');
select given(tell(a_turn('asks',
                         requests => '[{"key": "h1", "name": "h", "queue": "hooks"},
                                       {"key": "h2", "name": "h", "queue": "hooks"},
                                       {"key": "h3", "name": "h", "queue": "hooks"}]')));
select given(take('bob', '{hooks}', 3));
select given(tell(a_turn('asks', '1/main/h1', 'done', value => '{"n": 1}', worker => 'bob'),
                  a_turn('asks', '1/main/h2', 'failed', value => '{"type": "E", "message": "m"}', worker => 'bob'),
                  a_turn('asks', '1/main/h3', 'done', value => '3', worker => 'bob')));
select is(
    mail_of('asks'),
    '[["1/main", "h1", true, {"n": 1}], ["1/main", "h2", false, {"type": "E", "message": "m"}],
      ["1/main", "h3", true, 3]]',
    'answers are in the inbox of the task that asked [P10]');
select given(cancel('asks', 'enough'));
select given(tell(a_turn('asks', facts => jsonb_build_array(
    jsonb_build_object('kind', 'answer', 'key', 'h1', 'message', message_of('asks', 'h1')),
    jsonb_build_object('kind', 'answer', 'key', 'h2', 'message', message_of('asks', 'h2')),
    jsonb_build_object('kind', 'dropped', 'key', 'other', 'message', message_of('asks', 'h3')),
    jsonb_build_object('kind', 'cancel', 'key', '$cancel', 'message', message_of('asks', '$cancel'))))));
select is(
    journal_of('asks'),
    '[
    [1, "answer", "h1", true, {"n": 1}],
    [2, "answer", "h2", false, {"type": "E", "message": "m"}],
    [3, "dropped", "h3", true, 3],
    [4, "cancel", "$cancel", false, "enough"]]',
    'answers, dropped answers and a request to cancel are facts; an answer has the key of its request');
select is(
    array(select f.key from journal as f where f.job_id = 'asks' and f.is_answer order by f.key),
    '{h1,h2,h3}',
    'the journal knows which facts are answers, of whatever kind [P4]');
select is(mail_of('asks'), '[]', 'consumed messages are no longer open');
select is(
    array(select i.key from inbox as i where i.job_id = 'asks'),
    '{$cancel}',
    'of consumed messages, only a request to cancel stays: the next one is not searched for among all');
select is(
    tell(a_turn('asks', state => 'park', until => clock() + interval '1 h')) ->> 'state',
    'parked',
    'consumed messages do not keep a task from parking');

-- A turn that consumes a message that is not open is stale.

select have_held_job('stale');
select given(signal('stale', 'go'));
select given(signal('told', 'go'));
create temporary table gone_by as select message_of('stale', 'go') as message;
select given(tell(a_turn('stale',
                         facts => (select jsonb_build_array(jsonb_build_object('kind', 'signal', 'message', message))
                                     from gone_by))));
select given(hook('stale', 'h', key => 'h', queue => 'stale'));
select given(take('ada', '{stale}'));
select given(cancel_hook('stale', '$hook/h'));
select is(
    tell(a_turn('stale',
                facts => jsonb_build_array('{"op": "set", "path": ["n"], "value": 1}'::jsonb,
                                           jsonb_build_object('kind', 'signal', 'message', message)))) ->> 'state',
    'stale',
    format('a turn that consumes %s is stale [P5]', about))
  from (values
        ('a consumed message', (select to_jsonb(message) from gone_by)),
        ('a message that does not exist', '-1'),
        ('a message of another job', to_jsonb(message_of('told', 'go'))),
        ('a message of another job, as text', to_jsonb(message_of('told', 'go')::text)),
        ('a message of another task', to_jsonb(message_of('stale', '$cancel')))
       ) as cases (about, message);
select is(
    jsonb_build_array(the_job('stale') -> 'version', the_task('stale') -> 'position'),
    '[0, 1]',
    'nothing of a stale turn is applied');
select is(
    verdict_of(a_turn('stale', facts => '[{"kind": "note", "key": "n", "message": null}]')),
    'keep',
    'a fact may have a message of null');
select given(signal('stale', 'again', '7'));
select is(
    tell(a_turn('stale', facts => jsonb_build_array(
        jsonb_build_object('kind', 'signal', 'message', message_of('stale', 'again')::text)))) ->> 'state',
    'keep',
    'a message may be named as text');
select throws_like(
    $$select tell(a_turn('stale', facts => '[{"kind": "signal", "message": "seven"}]'))$$,
    '%fact 1%',
    'a message that is not a number is refused, and the error names the fact');

-- The time of a fact is the worker's, if it is plausible [P9].

select have_held_job('time');
select time_passes('10 s');
select given(tell(a_turn('time', facts => jsonb_build_array(
    jsonb_build_object('kind', 'timer', 'key', 't1', 'at', clock() - interval '4 s'),
    jsonb_build_object('kind', 'timer', 'key', 't2', 'at', clock() - interval '3 s'),
    jsonb_build_object('kind', 'note', 'key', 'n1')))));
select is(
    (select array_agg(f.at order by f.seq) from journal as f where f.job_id = 'time'),
    array[clock() - interval '4 s', clock() - interval '3 s', clock()],
    'a fact has the time that the worker proposed, or the present [P9]');
select is((the_task('time') ->> 'told_at')::timestamptz, clock(), 'a task knows the time of its last fact');
select is(
    tell(a_turn('time',
                facts => jsonb_build_array(jsonb_build_object('op', 'set', 'path', '{n}'::text[], 'value', 1,
                                                              'at', clock() + away)))) ->> 'state',
    verdict,
    format('a fact %s is answered %s', about, verdict))
  from (values
        ('in the future', interval '1 ms', 'replay'),
        ('before the last one', interval '-1 ms', 'replay'),
        ('at the time of the last one', interval '0', 'keep')
       ) as cases (about, away, verdict);
select is(
    jsonb_build_array(the_job('time') -> 'version', the_task('time') -> 'position'),
    '[1, 4]',
    'nothing of a turn with an impossible time is applied');
select time_passes('10 s');
select is(tell(a_turn('time', facts => jsonb_build_array(
              jsonb_build_object('kind', 'note', 'at', clock() - interval '1 s'),
              jsonb_build_object('kind', 'note', 'at', clock() - interval '2 s')))) ->> 'state', 'replay',
          'facts of one turn must be in the order of their times [P9]');
select the_time_is('2030-01-01 11:00+00');
select is(
    tell(a_turn('time', facts => '[{"kind": "note", "key": "n2"}]')) ->> 'state',
    'keep',
    'a clock that was set back does not stop a task');
select is(
    (select f.at from journal as f where f.job_id = 'time' and f.key = 'n2') >= '2030-01-01 12:00+00',
    true,
    'workflow time does not go back');

-- Early answers, by a signal to the job of the asker.

select have_held_job('curious');
select given(tell(a_turn('curious', requests => '[
    {"key": "h1", "name": "h", "queue": "early", "signal": "seen"},
    {"key": "h2", "name": "h", "queue": "early", "signal": "seen"}]')));
select given(take('bob', '{early}', 2));
select given(tell(
    a_turn('curious', '1/main/h2', worker => 'bob', facts => '[{"signal": "seen", "value": 2}]'),
    a_turn('curious', '1/main/h1', worker => 'bob', facts => '[{"signal": "seen", "value": 1}]')));
select is(
    (select jsonb_agg(jsonb_build_array(i.key, i.name, i.payload) order by i.id)
       from inbox as i
      where i.job_id = 'curious' and i.key is not null),
    '[["h2", "seen", 2], ["h1", "seen", 1]]',
    'early answers bear the name of the signal, and stand in the order of the turns that give them');

-- Snapshots.

select have_held_job('long');
select given(tell(a_turn('long', facts => (
    select jsonb_agg('{"op": "set", "path": ["n"]}'::jsonb || jsonb_build_object('value', n))
      from generate_series(1, 120) as n))));
select is((select array_agg(s.version) from snapshots as s where s.job_id = 'long'), '{100}',
          'a turn with many commands leaves a snapshot at every hundredth version');

select is_empty($$ select * from assert_invariants() $$, 'no invariant is broken [P8]');
select finish();
rollback;
