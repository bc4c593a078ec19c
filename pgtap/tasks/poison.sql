-- Poison: a task that kills its workers is parked after N deliveries without progress, and holds up no other task
-- [P10].

begin;
select plan(51);

select the_time_is('2030-01-01 12:00+00');

create function die_with(queue text, times integer) returns void
language plpgsql
as $$
begin
    for n in 1 .. die_with.times loop
        perform take('worker ' || n, array[die_with.queue]);
        perform time_passes('31 s');
    end loop;
end
$$;

select given(start('w', id => 'poison', queue => 'poison'));
select die_with('poison', 20);
select is(
    the_task('poison') ->> 'deliveries',
    '20',
    'a task whose workers died twenty times was delivered twenty times');
select is(the_task('poison') -> 'stuck_reason', 'null', 'a task may be delivered twenty times without progress');
select is(take('worker 21', '{poison}'), '[]', 'a task is not delivered a twenty-first time without progress [P10]');
select is(
    the_task('poison') #>> '{stuck_reason,code}',
    'PD305',
    'a task that was delivered too often is stuck with a reason (PD305)');
select is(
    (the_task('poison') ->> 'due_at')::timestamptz,
    'infinity',
    'a poisonous task is not due until somebody resumes it');
select is(the_task('poison') -> 'token', 'null', 'a poisonous task has no holder');
select is(tell(a_turn('poison', state => 'done', value => '1', worker => 'worker 20')) ->> 'state', 'fenced',
          'the last holder of a poisonous task is fenced [P6]');
select matches((status('poison')).waiting_for, '^somebody to resume it: the task was claimed 20 times',
               'the status shows the reason of a poisonous task');
select is(
    (select jsonb_build_array(state, waits_for) from waiting where job_id = 'poison') ->> 0,
    'stuck',
    'the view waiting shows a poisonous task as stuck');

-- Other tasks.

select given(start('w', id => 'poison-2', queue => 'mixed'));
select die_with('mixed', 20);
select given(start('w', id => 'good-' || n, queue => 'mixed')) from generate_series(1, 2) as n;
select is(
    take('ada', '{mixed}') #>> '{0,task}',
    '1/main',
    'a poisonous task does not take the place of another in a claim [P10]');
select is(
    (select count(*) from tasks where queue = 'mixed' and token is not null),
    1::bigint,
    'a claim gets a good task instead of a poisonous one');
select is(claim('{poison}', 'ada')::jsonb -> 'next_due_at', 'null',
          'a poisonous task has no next due time');

-- Messages do not wake a poisonous task.

select is(signal('poison', 'go'), true, 'a job with a stuck coordinator takes signals');
select is(cancel('poison', 'enough'), true, 'a job with a stuck coordinator can be asked to cancel');
select is((the_task('poison') ->> 'due_at')::timestamptz, 'infinity', 'messages do not wake a stuck task');

-- resume

select is(resume('poison'), 1, 'a poisonous task can be resumed');
select is(jsonb_build_array(the_task('poison') -> 'stuck_reason', the_task('poison') -> 'deliveries'), '[null, 0]',
          'a resumed task counts from zero');
select is(
    take('ada', '{poison}') -> 0 @@ '$.deliveries == 1 && $.messages[*].key == "$cancel"',
    true,
    'a resumed task is claimed, and receives the request to cancel (E2)');

-- Poisonous children, and poisonous tasks of the database.

select have_held_job('family');
select given(tell(a_turn('family', state => 'park', requests => '[
    {"key": "bad", "kind": "job", "name": "c", "queue": "bad"}, {"key": "good", "kind": "job", "name": "c", "queue": "good"}]')));
select die_with('bad', 21);
select is(
    (status('family/bad')).waiting_for like 'somebody to resume it: %', true,
    'the status of a poisonous child shows its reason');
select is(
    (status('family')).waiting_for,
    'answers of bad, good: somebody to resume bad: the task was claimed 20 times without a successful turn, '
    'a worker on queue good (none has registered)',
    'the parent waits for a poisonous child as for others, and shows that it is stuck');
select given(take('ada', '{good}'));
select given(tell(a_turn('family/good', state => 'done', value => '1', touches => '{family}')));
select is(take('ada', '{family}') #>> '{0,messages,0,key}', 'good',
          'the parent receives the answers of other children meanwhile');
select is(resume('family/bad'), 1, 'a poisonous child can be resumed');
select given(take('ada', '{bad}'));
select is(
    tell(a_turn('family/bad', state => 'done', touches => '{family}')) ->> 'state', 'done', 'a resumed child may end');
select have_held_job(id) from unnest('{left,left-2}'::text[]) as id;
select given(tell(a_turn('left', state => 'done', requests => '[{"key": "c", "kind": "job", "name": "c"}]')));
select die_with('$sql', 21);
select given(tell(a_turn('left-2', state => 'done', requests => '[{"key": "c", "kind": "job", "name": "c"}]')));
select is(
    jsonb_path_query_array(take('ada', '{$sql}', 2), '$[*].job'),
    '["left-2"]',
    'a task of the database that kills its workers holds up no other task');
select is(the_task('left', '$parent_end/1/main') #>> '{stuck_reason,code}', 'PD305',
          'a poisonous task of the database is stuck');
select is(resume('left'), 1, 'a poisonous task of the database can be resumed');
select given(take('ada', '{$sql}'));
select is(run_task('left', '$parent_end/1/main', token_of('ada')), 'done', 'a resumed task of the database runs');

-- Progress resets the count.

select given(start('w', id => 'slow', queue => 'slow'));
select die_with('slow', 19);
select given(take('ada', '{slow}'));
select is(the_task('slow') ->> 'deliveries', '20', 'a task was claimed twenty times');
select given(tell(a_turn('slow', requests => '[{"key": "h", "name": "h"}]')));
select is(the_task('slow') ->> 'deliveries', '20', 'a turn that is kept and records nothing leaves the count');
select given(tell(a_turn('slow', facts => '[{"key": "a", "value": 1}]')));
select is(the_task('slow') ->> 'deliveries', '0', 'a turn that records a fact resets the count');
select given(start('w', id => state, queue => state)) from unnest('{park,release,retry}'::text[]) as state;
select given(take('ada', array[state])) from unnest('{park,release,retry}'::text[]) as state;
select given(tell(a_turn(state, state => state, until => clock(), awaits => '{}')))
  from unnest('{park,release,retry}'::text[]) as state;
select is(the_task(state) ->> 'deliveries', '0', format('a turn that ends as %s resets the count', state))
  from unnest('{park,release,retry}'::text[]) as state;

-- A signal that was sent before the wait arrives with the answer to the turn. If the code that takes it kills the worker,
-- that turn was answered each time, and recorded nothing.

select given(start('w', id => 'greeted', queue => 'greeted'));
select given(signal('greeted', 'go'));

create function die_of_a_signal(times integer) returns text
language plpgsql
as $$
declare
    states text[];
begin
    for n in 1 .. die_of_a_signal.times loop
        perform take('ada', '{greeted}');
        states := states || (tell(a_turn('greeted', state => 'park', awaits => '{go}')) ->> 'state');
        perform time_passes('31 s');
    end loop;
    return (select string_agg(distinct s, ' ') from unnest(states) as s);
end
$$;

select is(die_of_a_signal(20), 'keep', 'a task that wants to park and has a signal is kept');
select is(take('ada', '{greeted}'), '[]', 'a task whose signal kills its workers is parked [P10]');

-- Tasks that share a worker with a poisonous one are not blamed for it: suspects.

create function die_together(queue text) returns void
language plpgsql
as $$
begin
    for n in 1 .. suspect_threshold() loop
        perform take('worker ' || n, array[die_together.queue], 10);
        perform time_passes('31 s');
    end loop;
end
$$;

create function names_taken(worker text, queue text, most integer) returns text
language sql
as $$ select string_agg(t ->> 'job', ' ') from jsonb_array_elements(take(worker, array[queue], most)) as t $$;

select set_queue('narrow', max_running => 5);
select given(start('w', id => 'narrow-' || n, queue => 'narrow')) from generate_series(1, 3) as n;
select die_together('narrow');
select given(start('w', id => 'suspect-' || n, queue => 'dark')) from generate_series(1, 4) as n;
select die_together('dark');
select given(start('w', id => 'fresh-' || n, queue => 'dark')) from generate_series(1, 3) as n;
select is(
    names_taken('ada', 'dark', 3), 'suspect-1 fresh-1 fresh-2',
    'a claim gets one of several suspects, and other tasks instead of the rest [P10]');
select is(
    names_taken('ada', 'dark', 1), 'fresh-3',
    'a worker that holds a suspect gets other tasks, although suspects come before them');
select is(
    claim('{dark}', 'ada', max_tasks => 3)::jsonb @@ format('$.tasks.size() == 0 && $.next_due_at == "%s"',
                                                            to_json(clock() + interval '50 ms') #>> '{}')::jsonpath,
    true,
    'a worker gets no second suspect, and learns that it should ask again soon');
select is(
    (claim('{dark}', 'eve', max_tasks => 3)::jsonb ->> 'next_due_at')::timestamptz,
    clock() + interval '50 ms',
    'a worker that gets one of several suspects also learns that it should ask again soon');
select time_passes('1 ms');
select is(names_taken('bob', 'dark', 3), 'suspect-3', 'another worker gets another suspect');
select given(tell(a_turn('suspect-1', facts => '[{"key": "a", "value": 1}]')));
select is(names_taken('ada', 'dark', 3), 'suspect-4', 'a worker whose suspect made progress gets the next one');
select given(start('w', id => 'broad', queue => 'narrow'));
select is(names_taken('ada', 'narrow', 3), 'broad', 'a worker that holds a suspect gets none from another queue');
select is(names_taken('tom', 'narrow', 3), 'narrow-1', 'a queue with limits gives one suspect');
select given(pause_queue('narrow'));
select is(names_taken('ann', 'narrow', 3), null, 'a paused queue gives no suspect');
select is(
    (claim('{narrow}', 'ann')::jsonb -> 'next_due_at'), 'null', 'a paused queue has no next due time');
select is(
    (select max(deliveries) from tasks where job_id like 'suspect-%'), 6, 'suspects that were left were not delivered');
select time_passes('31 s');
select is(
    (select string_agg(n, ' ' order by n) from unnest(string_to_array(names_taken('ada', 'dark', 9), ' ')) as n),
    'fresh-1 fresh-2 fresh-3 suspect-1 suspect-2',
    'a suspect whose lease has ended no longer counts as held; a task that made progress is due as usual');
select is(names_taken('ada', 'dark', 9), null, 'a worker that holds a suspect again gets no other');

-- The number is a setting of the app.

insert into perdure.settings (name, value) values ('max_deliveries', '2');
select given(start('w', id => 'short', queue => 'short'));
select die_with('short', 2);
select is(take('ada', '{short}'), '[]', 'max_deliveries is a setting');
select is(
    the_task('short') #>> '{stuck_reason,message}',
    'the task was claimed 2 times without a successful turn',
    'the reason names the number of deliveries');

delete from perdure.settings where name = 'max_deliveries';
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
