-- A worker in pure SQL: it runs a job with a hook, commands, a signal and a child to its end. This file reads like a
-- tutorial, and uses verbs that any client has: start, claim, advance, signal, result. A worker in any language does
-- the same. A *task* is the right to run one coordinator or hook; a worker that claims it holds it under a token. A
-- *turn* is the holder's report on it: new entries of its journal (facts), work for others (requests), and how it
-- goes on (state).

begin;
select plan(28);

-- Keeps the reply of the last call, as a worker would in a variable.
create function answered(reply json) returns void
language plpgsql
as $$
begin
    perform set_config('tap.reply', answered.reply::text, true);
end
$$;

create function reply() returns jsonb
language plpgsql
as $$
begin
    return current_setting('tap.reply')::jsonb;
end
$$;

-- 1. Somebody starts a workflow: perhaps another process, in another language, inside a transaction of its own.

select is(
    start('research', '["subsidies"]', 'agent-jane-001', entity => 'research-agent', queue => 'agents')::text,
    '(agent-jane-001,t)',
    'a client starts a workflow under the id that it chose');
select matches((status('agent-jane-001')).waiting_for, '^a worker on queue agents', 'the job waits for a worker');

-- 2. A worker registers, then claims up to ten tasks of its queues. It draws the token itself, so that it can repeat
-- the call if the reply is lost.

select is(
    register_worker('worker in SQL', '{agents}') ->> 'version',
    perdure_version(),
    'a worker registers, and learns the version of the app');
select answered(claim('{agents}', 'worker in SQL', '00000000-0000-0000-0000-000000000001', 10));
select is(reply() #>> '{tasks,0,task}', '1/main', 'the worker gets the coordinator of the job');
select is(reply() #> '{tasks,0,args}', '["subsidies"]', 'the task has its arguments');

-- 3. It runs the coordinator until that waits for something, and reports everything in one turn: the coordinator wrote
-- the first values of the memory, requested a hook that answers by the signal `found` and a child, and awaits a signal
-- `approve` as well. `position` says how many facts of the journal the worker has seen: none. The same call claims more
-- tasks.

select answered(advance($$ [{
    "job": "agent-jane-001", "task": "1/main", "token": "00000000-0000-0000-0000-000000000001", "position": 0,
    "facts": [
        {"kind": "command", "key": "set#1", "op": "set", "path": [],
         "value": {"query": "subsidies", "findings": [], "status": "researching"}},
        {"kind": "read", "key": "get#1", "op": "get", "path": ["query"]}],
    "requests": [
        {"key": "search#1", "kind": "hook", "name": "search", "args": ["subsidies"], "queue": "agents",
         "signal": "found"},
        {"key": "review#1", "kind": "job", "name": "review", "args": {"of": "agent-jane-001"}, "queue": "agents"}],
    "state": "park", "awaits": ["approve"]
}] $$, '{agents}', 'worker in SQL', '00000000-0000-0000-0000-000000000002', 10));
select is(
    reply() #>> '{turns,0,state}',
    'parked',
    'the coordinator is parked, and no worker holds it');
select is(
    reply() #> '{turns,0,answers}',
    '[[1, true, 1], [2, true, "subsidies"]]',
    'each command and each read has its place in the journal and its value');
select is(
    (status('agent-jane-001')).waiting_for,
    'signal approve, answers of review#1, search#1',
    'the status shows what the job waits for');

-- 4. The next tasks came with the same reply: the hook and the child.

select is(
    (select jsonb_agg(jsonb_build_array(t -> 'job', t -> 'task', t -> 'kind', t -> 'name', t -> 'args')
                      order by t -> 'job')
       from jsonb_array_elements(reply() -> 'tasks') as t),
    '[["agent-jane-001", "1/main/search#1", "hook", "search", ["subsidies"]],
      ["agent-jane-001/review#1", "1/main", "coordinator", "review", {"of": "agent-jane-001"}]]',
    'the worker holds the hook and the child');

-- 5. The hook does its work: it records what it found, and signals. The signal has the name that the asker gave, so it
-- is the answer. The hook needs more time after that, so it keeps its task.

select answered(advance($$ [{
    "job": "agent-jane-001", "task": "1/main/search#1", "token": "00000000-0000-0000-0000-000000000002", "position": 0,
    "facts": [
        {"kind": "activity", "key": "fetch#1", "name": "fetch", "value": ["a study", "a report"]},
        {"kind": "command", "key": "append#1", "op": "append", "path": ["findings"], "value": ["a study", "a report"]},
        {"kind": "send", "key": "signal#1", "signal": "found", "value": {"count": 2}}],
    "state": "keep"
}] $$, '{agents}', 'worker in SQL', '00000000-0000-0000-0000-000000000003', 10));
select is(
    reply() #> '{turns,0,answers}',
    '[[2, true, 2], [3, true, null]]',
    'the hook gets two findings and the confirmation of its signal');
select is(
    (reply() #> '{tasks,0,messages,0}') - 'id' - 'sent_at',
    '{"key": "search#1", "name": "found", "fingerprint": null, "ok": true, "payload": {"count": 2}}',
    'the answer has woken the coordinator, and both come with the same reply');
select is(
    reply() #> '{tasks,0,journal}',
    'null',
    'the journal does not come along, because this worker ran the task last and still has it');

-- 6. The worker passes the answer to the coordinator: a message becomes a fact when its holder consumes it. Then the
-- coordinator waits on. In the same call the hook reports its end.

select answered(advance(jsonb_build_array(
    jsonb_build_object(
        'job', 'agent-jane-001', 'task', '1/main', 'token', '00000000-0000-0000-0000-000000000003', 'position', 2,
        'facts', jsonb_build_array(jsonb_build_object(
            'kind', 'answer', 'key', 'search#1', 'message', reply() #> '{tasks,0,messages,0,id}')),
        'state', 'park', 'awaits', '{approve}'::text[]),
    jsonb_build_object(
        'job', 'agent-jane-001', 'task', '1/main/search#1', 'token', '00000000-0000-0000-0000-000000000002',
        'position', 3, 'state', 'done', 'value', null))));
select is(
    jsonb_path_query_array(reply(), '$.turns[*].state'),
    '["parked", "done"]',
    'the coordinator waits again, and the hook has ended');
select is(
    (status('agent-jane-001')).waiting_for,
    'signal approve, answers of review#1',
    'the job no longer waits for the hook');

-- 7. The child is a job like any other, with a memory of its own. It fails the first time, and is retried.

select answered(advance($$ [{
    "job": "agent-jane-001/review#1", "task": "1/main", "token": "00000000-0000-0000-0000-000000000002", "position": 0,
    "state": "retry", "value": {"type": "TimeoutError", "message": "no answer"}
}] $$, '{agents}', 'worker in SQL', '00000000-0000-0000-0000-000000000004', 10));
select is(reply() #> '{tasks,0,attempt}', '1', 'the child is retried, and the worker holds its second attempt');
select is(
    entity_set('agent-jane-001/review#1', '"a client was here"', 'note'),
    '1',
    'any client may write the memory of the child meanwhile');
select answered(advance($$ [{
    "job": "agent-jane-001/review#1", "task": "1/main", "token": "00000000-0000-0000-0000-000000000004", "position": 0,
    "facts": [{"kind": "read", "key": "get#1", "op": "get", "path": []}],
    "state": "done", "value": {"grade": "good"}, "touches": ["agent-jane-001"]
}] $$));
select is(
    reply() #> '{turns,0,answers,0,2}',
    '{"note": "a client was here"}',
    'the child has read what the client wrote');
select is(
    to_jsonb(result('agent-jane-001/review#1')),
    '{"status": "completed", "result": {"grade": "good"}, "error": null}',
    'the child has its result');

-- 8. Somebody approves. The signal is accepted once, however often it is sent.

select is(signal('agent-jane-001', 'approve', '{"by": "Jane"}', key => 'click-1'), true, 'a person approves');
select is(signal('agent-jane-001', 'approve', '{"by": "Jane"}', key => 'click-1'), false,
          'a second click does nothing');

-- 9. The worker is gone, and another takes over. It gets the whole journal and all messages. With the journal it brings
-- the coordinator to the place where the first worker left it: that is replay.

select answered(claim('{agents}', 'another worker', '00000000-0000-0000-0000-000000000005', 10));
select is(
    (select jsonb_agg(jsonb_build_array(f -> 1, f -> 2, f -> 6) order by f -> 0)
       from jsonb_array_elements(reply() #> '{tasks,0,journal}') as f),
    '[["command", "set#1", 1], ["read", "get#1", "subsidies"], ["answer", "search#1", {"count": 2}]]',
    'the other worker gets everything that the coordinator has been told');
select is(
    jsonb_path_query_array(reply(), '$.tasks[0].messages[*].payload'),
    '[{"grade": "good"}, {"by": "Jane"}]',
    'the answer of the child and the signal are in the inbox, in the order of their arrival');

-- 10. The coordinator receives both, one after the other, and writes its last command.

select answered(advance(jsonb_build_array(jsonb_build_object(
    'job', 'agent-jane-001', 'task', '1/main', 'token', '00000000-0000-0000-0000-000000000005', 'position', 3,
    'facts', jsonb_build_array(
        jsonb_build_object('kind', 'answer', 'key', 'review#1', 'message', reply() #> '{tasks,0,messages,0,id}'),
        jsonb_build_object('kind', 'signal', 'key', 'approve#1', 'name', 'approve',
                           'message', reply() #> '{tasks,0,messages,1,id}'),
        jsonb_build_object('kind', 'command', 'key', 'merge#1', 'op', 'merge', 'path', '{}'::text[],
                           'value', '{"status": "completed", "review": {"grade": "good"}, "by": "Jane"}'::jsonb),
        jsonb_build_object('kind', 'read', 'key', 'get#2', 'op', 'get', 'path', '{}'::text[])),
    'state', 'keep'))));
select is(reply() #> '{turns,0,answers,0}', '[6, true, 3]', 'the memory has its third version');

-- 11. It returns its memory as its result.

select answered(advance(jsonb_build_array(jsonb_build_object(
    'job', 'agent-jane-001', 'task', '1/main', 'token', '00000000-0000-0000-0000-000000000005', 'position', 7,
    'state', 'done', 'value', reply() #> '{turns,0,answers,1,2}'))));
select is((result('agent-jane-001')).status, 'completed', 'the job is completed');
select is(
    (result('agent-jane-001')).result,
    '{"query": "subsidies", "findings": ["a study", "a report"], "status": "completed", "review": {"grade": "good"},
      "by": "Jane"}',
    'the result is the memory (C12) (C57)');
select is(
    (select jsonb_agg(jsonb_build_array(h.version, h.task, h.op) order by h.version)
       from history as h
      where h.job_id = 'agent-jane-001'),
    '[[1, "1/main", "set"], [2, "1/main/search#1", "append"], [3, "1/main", "merge"]]',
    'the history has the author of each version (C72)');
select is_empty($$ select from waiting where job_id like 'agent-jane-001%' $$, 'nothing is left to do');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

select finish();
rollback;
