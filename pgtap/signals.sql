-- Signals [P5]: a signal stays queued under its name until a task consumes it. No signal is lost or doubled, and their
-- order is that of acceptance.

begin;
select plan(52);

select the_time_is('2030-01-01 12:00+00');

-- Consumes the first open signal of a name.
create function hear(job text, name text, worker text) returns jsonb
language plpgsql
as $$
begin
    return tell(a_turn(hear.job, worker => hear.worker, facts => jsonb_build_array(jsonb_build_object(
        'kind', 'signal', 'name', hear.name, 'message', message_of(hear.job, hear.name)))));
end
$$;

-- Signals before, during and after a wait.

select have_held_job('j');
select is(signal('j', 'before', '{"n": 1}'), true, 'a signal is accepted before a task waits for it');
select is(
    tell(a_turn('j', state => 'park', awaits => '{before}')) #>> '{messages,0,payload,n}',
    '1',
    'a signal that arrived before the wait is delivered when the wait begins [P5]');
select given(hear('j', 'before', 'ada'));
select is(
    tell(a_turn('j', state => 'park', awaits => '{during}')) ->> 'state',
    'parked',
    'a signal is consumed once [P5]');
select time_passes('1 day');
select is(signal('j', 'during', '"now"'), true, 'a signal is accepted while a task waits for it');
select is(
    (the_task('j') ->> 'due_at')::timestamptz,
    clock(),
    'an awaited signal makes the task due at once (C36) [P5]');
select is(take('bob', '{j}') #>> '{0,messages,0,payload}', 'now', 'the woken task receives the signal');
select given(hear('j', 'during', 'bob'));
select is(signal('j', 'during', '"late"'), true, 'a signal is accepted after the wait has ended');
select is(
    tell(a_turn('j', state => 'park', awaits => '{other}', worker => 'bob')) ->> 'state',
    'parked',
    'a signal that is no longer awaited does not keep the task from parking');
select is(
    mail_of('j'),
    '[[null, "during", true, "late"]]',
    'a late signal stays for the next wait of its name [P5]');
select is(take('bob', '{j}'), '[]', 'a late signal does not wake the task');
select given(signal('j', 'other'));
select given(take('ada', '{j}', claim_as => 'third'));
select is(
    jsonb_path_query_array(tell(a_turn('j', awaits => '{during}', worker => 'third')), '$.messages[*].payload'),
    '["late"]',
    'the next wait receives the late signal [P5]');

-- A signal does not move a held task, which reads its inbox when it parks.

select have_held_job('held');
select given(signal('held', 'go'));
select is(
    (the_task('held') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a signal does not move a held task');
select time_passes('31 s');
select is(take('bob', '{held}') #> '{0,messages}', '[]', 'a task that has named no awaited signal receives none');
select is(
    tell(a_turn('held', state => 'park', awaits => '{go}', worker => 'bob')) ->> 'state',
    'keep',
    'a signal survives the crash of its receiver [P5]');

-- The order of signals.

select have_held_job('order');
select given(signal('order', case when n % 2 = 0 then 'even' else 'odd' end, to_jsonb(n)))
  from generate_series(1, 10) as n;
select is(
    jsonb_path_query_array(tell(a_turn('order', state => 'park', awaits => '{even,odd}')), '$.messages[*].payload'),
    '[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]',
    'signals are delivered in the order in which they were accepted [P5]');
select is(
    jsonb_path_query_array(tell(a_turn('order', state => 'park', awaits => '{even}')), '$.messages[*].payload'),
    '[2, 4, 6, 8, 10]',
    'a task receives only signals that it awaits');
select given(tell(a_turn('order',
                         facts => '[{"signal": "mine", "value": 1},
                                    {"signal": "mine", "value": 2},
                                    {"signal": "mine", "value": 3}]')));
select is(
    jsonb_path_query_array(tell(a_turn('order', awaits => '{mine}')), '$.messages[*].payload'),
    '[1, 2, 3]',
    'signals of one turn are accepted in the order of the turn [P5]');

-- Many signals are delivered in parts, and a task with open messages does not park.

select have_held_job('flood');
select given(signal('flood', 'drop', to_jsonb(n))) from generate_series(1, 1100) as n;
create temporary table told as
select tell(a_turn('flood', state => 'park', awaits => '{drop}')) -> 'messages' as messages;
select is(
    (select jsonb_array_length(messages) from told),
    100,
    'a task receives at most a hundred signals at a time');
select is(messages #> '{-1,more}', 'true', 'the last message says that there may be more') from told;
select given(tell(a_turn('flood', facts => (
    select jsonb_agg(jsonb_build_object('kind', 'signal', 'name', 'drop', 'message', m -> 'id'))
      from told
     cross join jsonb_array_elements(messages) as m))));
select is(
    (select jsonb_agg(n) from generate_series(101, 200) as n),
    jsonb_path_query_array(tell(a_turn('flood', state => 'park', awaits => '{drop}')), '$.messages[*].payload'),
    'the next turn receives the next hundred signals [P5]');
select have_held_job('heavy');
select given(signal('heavy', 'drop', to_jsonb(repeat('x', 1000000)))) from generate_series(1, 10);
select cmp_ok(
    jsonb_array_length(tell(a_turn('heavy', awaits => '{drop}')) -> 'messages'),
    '<',
    10,
    'a task receives only as many messages at a time as a reply can carry');

-- Several tasks wait for one signal: all wake, one consumes it.

select have_held_job('crowd');
select given(hook('crowd', 'h', key => 'h', queue => 'crowd'));
select given(take('bob', '{crowd}'));
select given(tell(a_turn('crowd', state => 'park', awaits => '{go}'),
                  a_turn('crowd', '$hook/h', 'park', awaits => '{go,stop}', worker => 'bob')));
select given(signal('crowd', 'go', '"once"'));
select is(jsonb_array_length(take('cid', '{crowd}', 10)), 2, 'a signal wakes all tasks that wait for its name');
select is(hear('crowd', 'go', 'cid') ->> 'state', 'keep', 'the first task consumes the signal');
select is(
    tell(a_turn('crowd', '$hook/h', 'park', awaits => '{go,stop}', worker => 'cid')) ->> 'state',
    'parked',
    'the second task goes on waiting');
select is((select count(*) from journal where value = '"once"'), 1::bigint, 'a signal is consumed by one task [P5]');

-- Payloads.

select have_held_job('payload');
select given(signal('payload', 'p', payload))
  from unnest(array[null, 'null', '0', '""', '[]', '{"a": [1.50, null]}']::jsonb[]) as payload;
select is(
    jsonb_path_query_array(tell(a_turn('payload', awaits => '{p}')), '$.messages[*].payload'),
    '[null, null, 0, "", [], {"a": [1.50, null]}]',
    'a payload arrives as it was sent, an empty one too (C47)');

-- Keys: a signal with a key is accepted once, for as long as the job exists.

select have_held_job('keys');
select is(signal('keys', 'go', '1', key => 'k'), true, 'a signal with a key is accepted');
select is(signal('keys', 'go', '1', key => 'k'), false, 'a repeated key returns false [P12]');
select is(signal('keys', 'go', '1', key => 'k2'), true, 'another key is another signal');
select is(jsonb_array_length(mail_of('keys')), 2, 'a repeated signal is not doubled [P5]');
select given(hear('keys', 'go', 'ada'));
select is(signal('keys', 'go', '1', key => 'k'), false, 'a key is remembered after its signal was consumed [P5]');
select given(tell(a_turn('keys', state => 'done')));
select is(signal('keys', 'go', '1', key => 'k'), false, 'a key is remembered after the job has finished [P12]');
select is(signal('keys', 'go', '1', key => 'k2'), false, 'a key is remembered although its signal was never consumed');
select have_held_job('ended');
select given(signal('ended', 'go', '1', key => 'k'));
select given(terminate('ended'));
select is(signal('ended', 'go', '1', key => 'k'), false, 'a key is remembered after the job was terminated');
select is(signal('payload', 'go', '1', key => 'k'), true, 'a key belongs to one job');

-- What takes no signals.

select is(error_of(statement), code, format('%s takes no signal', about))
  from (values
        ('a job that does not exist',     $$ select signal('nobody', 'go') $$,      'PD401'),
        ('a job that has finished',       $$ select signal('keys', 'go') $$,        'PD403'),
        ('a finished job, with a key,',   $$ select signal('keys', 'go', key => 'new') $$, 'PD403'),
        ('a plain entity',                $$ select signal('e', 'go') from entity_create('e', 'note') $$, 'PD403'),
        ('nobody',                        $$ select signal(null, 'go') $$,          'PD401')
       ) as cases (about, statement, code);
select given(entity_create('e', 'note'));
select given(hook('e', 'h', key => 'h'));
select is(signal('e', 'go'), true, 'a plain entity takes signals while a hook of it is alive (C43)');
select given(hook('ended', 'h', key => 'h'));
select is(signal('ended', 'go'), true, 'a finished job takes signals while a hook of it is alive');

-- Names of signals belong to one job (C52).

select have_held_job('a');
select have_held_job('b');
select given(tell(a_turn('a', state => 'park', awaits => '{done}'), a_turn('b', state => 'park', awaits => '{done}')));
select given(signal('a', 'done'));
select is(
    jsonb_path_query_array(take('ada', '{a,b}', 10), '$[*].job'),
    '["a"]',
    'a signal wakes only its own job (C52)');

-- A signal in the transaction of its caller.

do $$
begin
    perform signal('b', 'done');
    raise exception 'undone' using errcode = 'UNDON';
exception when sqlstate 'UNDON' then
    null;
end
$$;
select is(mail_of('b'), '[]', 'a signal is undone with the transaction of its caller (E7)');
select is(take('ada', '{b}'), '[]', 'a signal that was undone wakes no task');

-- More messages than one reply delivers.

create function pg_temp.part(job text) returns jsonb
language plpgsql
as $$
declare
    messages jsonb := tell(a_turn(job, awaits => '{go}')) -> 'messages';
begin
    return jsonb_build_array(jsonb_array_length(messages), messages #> '{-1,payload}', messages #> '{-1,more}');
end
$$;
select have_held_job('crowded');
select given(count(signal('crowded', 'go', to_jsonb(n)))) from generate_series(1, 99) as n;
select is(pg_temp.part('crowded'), '[99, 99, null]', 'up to a hundred signals are delivered at once');
select given(count(signal('crowded', 'go', to_jsonb(n)))) from generate_series(100, 101) as n;
select is(pg_temp.part('crowded'), '[100, 100, true]',
          'of more signals the first hundred are delivered, and the last says so');
select given(cancel('crowded'));
select is(pg_temp.part('crowded'), '[100, 100, true]', 'a later request to cancel is not delivered before them');
select have_held_job('answered');
select given(tell(a_turn('answered', requests => (
    select jsonb_agg(jsonb_build_object('key', format('h#%s', n), 'name', 'h', 'queue', 'answered'))
      from generate_series(1, 1001) as n))));
select given(take('ada', '{answered}', 1000));
select given(take('ada', '{answered}', 1000, claim_as => 'eve'));
select given(count(finish_task(t.job_id, t.task, t.token, '1')))
  from (select * from tasks where job_id = 'answered' and kind = 'hook' order by job_id, task) as t;
select is(pg_temp.part('answered'), '[1000, 1, true]', 'up to a thousand answers are delivered at once');
select have_held_job('large');
select given(count(signal('large', 'go', to_jsonb(repeat('x', 1000000))))) from generate_series(1, 6);
select is(pg_temp.part('large') - 1, '[5, true]', 'large signals are delivered until they pass 4 MB');
select have_held_job('escaped');
select given(count(signal('escaped', 'go', to_jsonb(repeat(E'\x01', 170000))))) from generate_series(1, 6);
select is(pg_temp.part('escaped') - 1, '[5, true]',
          'signals that are large only as text are delivered until they pass 4 MB');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
