-- Claiming: which tasks a worker gets, in which order, for how long, and with which data.

begin;
select plan(83);

select the_time_is('2030-01-01 12:00+00');

-- The order of tasks: by priority, then by the time at which they were due.

select given(start('w', id => id, queue => 'order', priority => priority, due_at => clock() - ago))
  from (values
        ('low', 9, interval '3 h'),
        ('late', 5, '1 min'),
        ('early', 5, '2 min'),
        ('first', 0, '1 s'),
        ('tomorrow', 0, '-1 day')
       ) as jobs (id, priority, ago);
select is(
    (select jsonb_agg(t -> 'job') from jsonb_array_elements(take('ada', '{order}', 2)) as t),
    '["first", "early"]',
    'the best tasks are claimed first: by priority, then by the time at which they were due');
select is((select jsonb_agg(t -> 'job') from jsonb_array_elements(take('bob', '{order}', 10)) as t), '["late", "low"]',
          'the next claim gets the next best tasks, and none that is not yet due [P7]');

select given(start('w', id => 'many-' || n, queue => 'many', due_at => clock() - n * interval '1 s'))
  from generate_series(1, 40) as n;
select is(
    (select array_agg((t ->> 'job')::text order by place)
       from jsonb_array_elements(take('ada', '{many}', 40)) with ordinality as t (t, place)),
    (select array_agg('many-' || n order by n desc) from generate_series(1, 40) as n),
    'a claim returns tasks in the order in which they were due');

-- Queues.

select given(start('w', id => 'q-' || queue, queue => queue)) from unnest('{a,b,c}'::text[]) as queue;
select is(take('ada', '{}', 10), '[]', 'a claim without queues returns no tasks');
select is(take('ada', '{nobody}', 10), '[]', 'a claim of an empty queue returns no tasks');
select is(
    (select array_agg(t ->> 'job' order by t ->> 'job') from jsonb_array_elements(take('ada', '{a,c}', 10)) as t),
    '{q-a,q-c}',
    'a claim returns only tasks of its queues');
select is(jsonb_array_length(take('ada', '{b,b}', 10)), 1, 'a queue that is given twice returns each task once');

-- The time of a task [P7].

select given(start('w', id => 'timed', queue => 'timed', due_at => clock() + interval '1 h'));
select is(take('ada', '{timed}'), '[]', 'a task is not claimed before its time [P7]');
select time_passes('59 min 59.999 s');
select is(take('ada', '{timed}'), '[]', 'a task is not claimed a millisecond before its time [P7]');
select time_passes('1 ms');
select is(take('ada', '{timed}') #>> '{0,job}', 'timed', 'a task is claimed as soon as it is due [P7]');

-- Leases: no crash needs a recovery (C3).

select is(
    (the_task('timed') ->> 'due_at')::timestamptz,
    clock() + interval '30 s',
    'a claimed task is due when its lease ends');
select is(
    jsonb_build_array(the_task('timed') -> 'token', the_task('timed') -> 'worker'),
    jsonb_build_array(token_of('ada'), 'ada'),
    'a claimed task names its holder');
select time_passes('29 s');
select is(take('bob', '{timed}'), '[]', 'a task held by one worker is not claimed by another');
select is(
    take('ada', '{timed}', claim_as => 'ada again'),
    '[]',
    'a task held by a worker is not claimed by the same worker again');
select time_passes('1 s');
select is(
    take('bob', '{timed}', lease_for => '5 min') #>> '{0,deliveries}',
    '2',
    'a task whose lease has ended is delivered again (C3)');
select is(
    (the_task('timed') ->> 'due_at')::timestamptz,
    clock() + interval '5 min',
    'a claim sets the length of the lease');
select is(
    tell(a_turn('timed', state => 'done', value => '1')) ->> 'state',
    'fenced',
    'a worker that reports after its lease has ended is fenced [P6]');
select is(
    (the_task('timed') ->> 'started_at')::timestamptz,
    clock() - interval '30 s',
    'a task started with its first claim');

-- The data of a claimed task.

select given(start('w', '{"query": "x"}', 'shape', 'agent', 'shape', context => '{"n": 1}', headers => '{"h": 1}',
                   pinned_version => 'v1'));
select is(
    take('ada', '{shape@v1}') -> 0,
    jsonb_build_object('job', 'shape', 'task', '1/main', 'kind', 'coordinator', 'name', 'w', 'queue', 'shape',
                       'position', 0, 'args', '{"query": "x"}'::jsonb, 'entity', 'agent', 'workflow', 'w', 'run', 1,
                       'deliveries', 1, 'attempt', 0, 'failure', null,
                       'asked', 0, 'accept_changes', false, 'parent', null,
                       'headers', '{"h": 1}'::jsonb, 'pinned_version', 'v1', 'signal', null, 'asker', null,
                       'progress', null, 'forked_from', null,
                       'started_at', clock(), 'told_at', null, 'journal', '[]'::jsonb, 'awaits', null,
                       'messages', '[]'::jsonb),
    'a claimed coordinator comes with all the data that it needs to run');
select given(tell(a_turn('shape',
                         facts => '[
                             {"kind": "activity", "key": "a1", "name": "a", "fingerprint": "f", "value": {"x": null}},
                                             {"op": "set", "key": "s1", "path": ["n"], "value": 2}]',
                         requests => '[
                             {"key": "h1", "kind": "hook", "name": "h", "args": ["y"], "queue": "shape",
                              "signal": "done", "pinned_version": "v2"}]')));
select is(
    take('bob', '{shape@v2}') -> 0,
    jsonb_build_object('job', 'shape', 'task', '1/main/h1', 'kind', 'hook', 'name', 'h', 'queue', 'shape',
                       'position', 0, 'args', '["y"]'::jsonb, 'entity', 'agent', 'workflow', 'w', 'run', 1,
                       'deliveries', 1, 'attempt', 0, 'failure', null,
                       'asked', 0, 'accept_changes', false, 'parent', null,
                       'headers', '{"h": 1}'::jsonb, 'pinned_version', 'v2', 'signal', 'done',
                       'progress', null, 'forked_from', null, 'started_at', clock(),
                       'told_at', null, 'asker', '{"job": "shape", "task": "1/main", "key": "h1"}'::jsonb,
                       'journal', '[]'::jsonb, 'awaits', null, 'messages', '[]'::jsonb),
    'a claimed hook comes with its own arguments, its signal and its asker (C46)');

-- The journal and the inbox.

select time_passes('1 s');
select given(tell(a_turn('shape', state => 'park', awaits => '{go}')));
select given(signal('shape', 'go', '{"x": 1}'));
create temporary table parked_task as select take('bob', '{shape@v1}', claim_as => 'bob again') -> 0 as told;
select is((select told -> 'journal' from parked_task), jsonb_build_array(
    jsonb_build_array(1, 'activity', 'a1', 'a', 'f', true, '{"x": null}'::jsonb, clock() - interval '1 s', null, null),
    jsonb_build_array(2, 'command', 's1', null, null, true, 2, clock() - interval '1 s', 'set', '{n}'::text[])),
    'a worker that was not the last to run a task gets its journal');
select is((select (told #> '{messages,0}') - 'id' from parked_task),
          jsonb_build_object('key', null, 'name', 'go', 'fingerprint', null, 'ok', true,
                             'payload', '{"x": 1}'::jsonb, 'sent_at', clock()),
          'a claimed task comes with its open messages');
select is(
    (select told -> 'told_at' from parked_task),
    to_jsonb(clock() - interval '1 s'),
    'a claimed task comes with the time of its last fact');
select given(tell(a_turn('shape', state => 'release', worker => 'bob again')));
select is(
    take('bob', '{shape@v1}', claim_as => 'bob once more') #> '{0,journal}',
    'null',
    'the worker that last ran a coordinator gets no journal');
select given(hook('shape', 'h', key => 'again', queue => 'again'));
select given(take('bob', '{again}'));
select given(tell(a_turn('shape', '$hook/again', 'park', facts => '[{"kind": "note"}]', awaits => '{stop}',
                         worker => 'bob')));
select given(signal('shape', 'stop'));
select is(
    jsonb_array_length(take('bob', '{again}', claim_as => 'bob again and again') #> '{0,journal}'), 1,
    'a hook that was parked gets its journal, even from the worker that last ran it');
select is(
    (select jsonb_array_length(told -> 'messages') from parked_task),
    1,
    'messages stay in the inbox until they are consumed');

-- again: repeats a claim whose reply was lost [P12].

select given(start('w', id => 'lost-' || n, queue => 'lost', due_at => clock() - n * interval '1 s'))
  from generate_series(1, 3) as n;
create temporary table first_claim as
select claim('{lost}', 'ada', token_of('lost'), 2)::jsonb as told;
select is(
    (select jsonb_agg(t -> 'job' order by t -> 'job')
       from jsonb_array_elements(claim('{lost}', 'ada', token_of('lost'), 2, again => true)::jsonb -> 'tasks') as t),
    '["lost-2", "lost-3"]',
    'a repeated claim gets the same tasks [P12]');
select is(the_task('lost-3') ->> 'deliveries', '1', 'a repeated claim does not count as a delivery');
select is((select told ->> 'token' from first_claim)::uuid, token_of('lost'), 'a claim returns its token');
select is(
    claim('{lost}', 'ada', token_of('lost'), 2)::jsonb #>> '{tasks,0,job}',
    'lost-1',
    'a claim with the same token that is not a repetition gets other tasks');
select given(start('w', id => 'found', queue => 'found'));
select is(claim('{found}', 'ada', token_of('found'), 1, again => true)::jsonb #>> '{tasks,0,job}', 'found',
          'a repeated claim that never reached the database gets tasks that are due [P12]');
select is(claim('{}', 'ada')::jsonb ->> 'token' ~ '^[0-9a-f-]{36}$', true, 'a claim without a token draws one');

-- The inbox of a task whose holder was lost before it reported anything.

select given(start('w', id => 'taken over', queue => 'taken over'));
select is(take('ada', '{taken over}') #> '{0,awaits}', 'null',
          'a task that nobody has held yet has no known signals that it awaits');
select given(cancel('taken over', 'enough'));
select is(
    claim('{taken over}', 'ada', token_of('ada'), again => true)::jsonb #>> '{tasks,0,messages,0,key}',
    '$cancel',
    'a repeated claim brings the messages that arrived since');
select time_passes('31 s');
create temporary table taken_over as select take('bob', '{taken over}') -> 0 as told;
select is((select told #>> '{messages,0,key}' from taken_over), '$cancel',
          'a worker that takes over a task gets the message that its lost holder was to get [P5]');
select is((select told -> 'awaits' from taken_over), '[]', 'the task of a lost holder awaits no signals');
select given(start('w', id => 'set back', queue => 'set back'));
select given(take('ada', '{set back}'));
select given(cancel('set back', 'enough'));
select time_passes('-1 hour');
select given(release(
    jsonb_build_array(jsonb_build_object('job', 'set back', 'task', '1/main', 'token', token_of('ada')))));
select is(take('bob', '{set back}') #>> '{0,messages,0,key}', '$cancel',
          'a released task comes with its messages although the clock was set back');
select time_passes('1 hour');

-- The number of tasks.

select given(start_many((select jsonb_agg(jsonb_build_object('workflow', 'w', 'queue', 'bulk'))
                           from generate_series(1, 1010))));
select is(take('ada', '{bulk}', 0), '[]', 'a claim of zero tasks returns none');
select is(jsonb_array_length(take('ada', '{bulk}', 7)), 7, 'a claim returns no more tasks than it asks for');
select is(jsonb_array_length(take('ada', '{bulk}', 5000)), 1000, 'a claim returns at most a thousand tasks');
select is(jsonb_array_length(take('ada', '{bulk}', 5000)), 3, 'the last claim returns the rest');

-- since: the low-water mark of a claim.

select given(start('w', id => 'mark-' || n, queue => 'mark', due_at => clock() - n * interval '1 min'))
  from generate_series(1, 2) as n;
select is(
    claim('{mark}', 'ada', since => clock() - interval '90 s')::jsonb #>> '{tasks,0,job}',
    'mark-1',
    'a claim ignores tasks that were due before its low-water mark');
select is(
    (claim('{mark}', 'ada')::jsonb ->> 'since')::timestamptz,
    clock() - interval '2 min',
    'a claim without a mark finds everything, and returns when the first task was due');
select is(claim('{mark}', 'ada')::jsonb -> 'since', 'null', 'a claim that finds nothing returns no mark');
select is(
    (claim('{mark}', 'ada', since => null)::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '30 s',
    'a claim with a mark of null learns when the next task is due');
select time_passes('30 s');
select is(
    claim('{mark}', 'ada', since => null)::jsonb #>> '{tasks,0,job}', 'mark-1',
    'a claim with a mark of null finds everything');
select is(
    advance('[]', '{mark}', 'ada', max_tasks => 1, since => null)::jsonb #>> '{tasks,0,job}', 'mark-2',
    'advance() with a mark of null finds everything too');

-- next_due_at, and who is notified.

select given(start('w', id => 'next-' || n, queue => 'next', priority => 9 - n,
                   due_at => clock() + n * interval '1 h'))
  from generate_series(1, 2) as n;
select is((claim('{next,mark}', 'ada')::jsonb ->> 'next_due_at')::timestamptz, clock() + interval '30 s',
          'a claim that returns no task says when the next is due: here when a lease ends');
select is(
    (claim('{next}', 'ada')::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '1 h',
    'next_due_at is the earliest time, whatever the priority');
select is(claim('{nobody}', 'ada')::jsonb -> 'next_due_at', 'null', 'next_due_at is null if no task will be due');
select is((claim('{nobody}', 'ada')::jsonb ->> 'at')::timestamptz, clock(), 'a claim returns the time');

select given(claim('{x,y}', 'idler', idle => true));
select is(
    (select array_agg(topic order by topic) from listeners where listener = 'idler'),
    '{$messages/idler,x,y}',
    'an idle claim that returns nothing registers the worker as a listener of its queues');
-- What somebody starts while the worker begins to listen may send no hint.
select is(
    (claim('{x,y}', 'idler')::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '1 ms',
    'a worker that has just begun to listen is told to look again at once [P11]');
select time_passes('4 ms');
select is(
    (claim('{x,y}', 'idler', idle => true)::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '1 ms',
    'the time at which a worker looks again is counted from when it began to listen');
select time_passes('2 ms');
select is(
    (advance('[]', '{x,y}', 'idler', max_tasks => 1)::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '24 ms',
    'advance() tells a worker that has just begun to listen to look again');
select time_passes('24 ms');
select is(
    (claim('{x,next}', 'idler')::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '120 ms',
    'a worker looks again before the next task is due');
select time_passes('120 ms');
select is(claim('{x,y}', 'idler', idle => true)::jsonb -> 'next_due_at', 'null',
          'a worker that listens for a while is told when the next task is due, or nothing');
select is(claim('{x,y}', 'other')::jsonb -> 'next_due_at', 'null',
          'a worker that does not listen is not told to look again');
select given(claim('{x,y}', 'busy one'));
select is(
    (select count(*) from listeners where listener = 'busy one'),
    0::bigint,
    'a claim registers the worker only if it says that it is idle');
select given(start('w', id => 'x', queue => 'x'));
select given(claim('{x,y}', 'idler', idle => true));
select is(
    (select count(*) from listeners where listener = 'idler'),
    0::bigint,
    'a claim that returns tasks removes the worker from the listeners');

-- Durability.

set local synchronous_commit = on;
select given(claim('{order}', 'ada'));
select is(current_setting('synchronous_commit'), 'on', 'the commit of a claim waits for the disk');
select given(claim('{order}', 'ada', durable => false));
select is(current_setting('synchronous_commit'), 'off',
          'the commit of a claim with durable => false does not wait for the disk');
set local synchronous_commit = on;
select set_queue('counted', max_running => 5);
select set_queue('paced', rate_per_key => 5);
select given(claim(array['order', limited], 'ada', durable => false)) from unnest('{counted,paced}'::text[]) as limited;
select is(current_setting('synchronous_commit'), 'on',
          'the commit of a claim of a limited queue always waits for the disk');
select given(start('w', id => 'in time', queue => 'timed', timeout => '1 s'));
select the_time_is('2030-01-02 12:00+00');
select given(claim('{$sql}', 'ada', durable => false));
select is(current_setting('synchronous_commit'), 'on', 'the commit of a claim of $sql tasks always waits for the disk');

-- What claim() refuses.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('another protocol', $$ select claim('{q}', 'ada', protocol => 2) $$, 'PD004'),
        ('no protocol', $$ select claim('{q}', 'ada', protocol => null) $$, 'PD004'),
        ('another instance', $$ select claim('{q}', 'ada', instance => gen_random_uuid()) $$, 'PD003'),
        ('a worker without name', $$ select claim('{q}', '') $$, 'PD104'),
        ('a claim without queues', $$ select claim(null, 'ada') $$, 'PD107'),
        ('a claim of a queue of null', $$ select claim('{q,NULL}', 'ada') $$, 'PD107'),
        ('a lease too short', $$ select claim('{q}', 'ada', lease_for => '99 ms') $$, 'PD107'),
        ('a lease too long', $$ select claim('{q}', 'ada', lease_for => '25 h') $$, 'PD107'),
        ('no lease', $$ select claim('{q}', 'ada', lease_for => null) $$, 'PD107'),
        ('another instance, in advance',
         $$ select advance('[]', '{q}', 'ada', max_tasks => 1, instance => gen_random_uuid()) $$, 'PD003'),
        ('no worker, in advance', $$ select advance('[]', '{q}', max_tasks => 1) $$, 'PD104')
       ) as cases (about, statement, code);
select lives_ok(format($$ select claim('{q}', 'ada', instance => %L) $$, register_worker('ada', '{q}') ->> 'instance'),
                'a worker may claim from the instance with which it registered');

-- Advance and claim in one call.

select have_held_job('turned');
select given(start('w', id => 'new', queue => 'turned'));
create temporary table one_call as
select advance(jsonb_build_array(a_turn('turned', state => 'done', value => '1')), '{turned}', 'ada', token_of('both'),
               5)::jsonb as told;
select is(
    (select jsonb_build_array(told #> '{turns,0,state}', told #> '{tasks,0,job}', told -> 'token',
                              told -> 'next_due_at', told -> 'at')
       from one_call),
    jsonb_build_array('done', 'new', token_of('both'), null, clock()),
    'one call ends a turn and claims the next task');
select is(
    (select array_agg(key order by key) from one_call, jsonb_object_keys(told) as key),
    '{at,next_due_at,since,tasks,token,turns}',
    'advance() returns what claim() returns, and the answers to the turns');
select is(advance('[]', '{turned}', 'ada', token_of('both'), 5, again => true)::jsonb #>> '{tasks,0,job}', 'new',
          'a repeated advance gets the same tasks [P12]');
select is(advance('[]')::jsonb -> 'tasks', '[]', 'advance claims nothing unless it is asked to');

-- Time passes while a claim looks: it must find a task that becomes due meanwhile, or return its time. Here each look
-- at the clock takes a millisecond.

select given(start('w', id => 'meanwhile-' || n, queue => 'meanwhile-' || n, due_at => clock() + interval '1 h'))
  from generate_series(1, 9) as n;
create or replace function perdure.clock() returns timestamptz
language plpgsql
volatile
parallel safe
set search_path = pg_catalog, perdure, pg_temp
as $$
begin
    perform set_config('tap.time', (current_setting('tap.time')::timestamptz + interval '1 ms')::text, true);
    return current_setting('tap.time')::timestamptz;
end
$$;
create function pg_temp.is_missed(n integer) returns boolean
language plpgsql
as $$
declare
    answer jsonb;
begin
    update tasks as t
       set due_at = current_setting('tap.time')::timestamptz + n * interval '1 ms'
     where t.job_id = 'meanwhile-' || n;
    answer := claim(array['meanwhile-' || n], 'ada');
    return answer -> 'tasks' = '[]' and answer -> 'next_due_at' = 'null';
end
$$;
select is((select array_agg(n) from generate_series(1, 9) as n where pg_temp.is_missed(n)), null,
          'a claim finds a task that becomes due while it looks, or returns its time [P7]');
select the_time_is(current_setting('tap.time')::timestamptz);

select given(start('w', id => 'beyond', queue => 'beyond'));
select given(take('ada', '{beyond}'));
select given(tell(a_turn('beyond', state => 'park', awaits => '{go}', until => '20000-01-01 00:00+00')));
select is(next_due_at('{beyond}'), null, 'next_due_at ignores tasks that are due after the year 9999');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
