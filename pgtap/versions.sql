-- Versions: what is pinned to a version of the code is seen by its workers alone, and can be moved to another.

begin;
select plan(64);

select the_time_is('2030-01-01 12:00+00');
set local time zone 'UTC';

create function pg_temp.constraint_of(statement text) returns text
language plpgsql
as $$
declare
    broken text;
begin
    execute statement;
    return 'none';
exception
    when check_violation then
        get stacked diagnostics broken = constraint_name;
        return broken;
end
$$;

-- Names of queues.

select is(versioned_queue(queue, version), wanted, format('%s of version %s is %s', queue, version, wanted))
  from (values
        ('q',    '2',   'q@2'),
        ('q',    null,  'q'),
        ('q@1',  '2',   'q@2'),
        ('q@1',  null,  'q'),
        ('q',    'a@b', 'q@a@b'),
        ('q@a@b', '2',  'q@2'),
        ('$sql', null,  '$sql')
       ) as cases (queue, version, wanted);
select is(
    served_queues('{b,a,$sql}', '2'),
    '{b@2,b,a@2,a,$sql}',
    'a worker takes first what only its version may run, queue by queue in its own order');
select is(served_queues('{b,a,$sql}', null), '{b,a,$sql}', 'a worker without a version serves what is not pinned');

-- Where pinned tasks stand.

select given(start('w', id => 'one', queue => 'q', pinned_version => '1'));
select given(start('w', id => 'two', queue => 'q', pinned_version => '2'));
select given(start('w', id => 'any', queue => 'q'));
create function pg_temp.taken(worker text, version text default null) returns text[]
language plpgsql
as $$
begin
    return array(
        select t ->> 'job' || ' ' || (t ->> 'task')
          from jsonb_array_elements(perdure.claim(perdure.served_queues('{q}', taken.version), taken.worker,
                                                  token_of(taken.worker), 100)::jsonb -> 'tasks') as t
         order by 1);
end
$$;
select is(
    pg_temp.taken('old', '1'),
    '{"any 1/main","one 1/main"}',
    'a worker gets what is pinned to its version, and what is not pinned');
select is(pg_temp.taken('old', '1'), '{}', 'it sees nothing of another version');
select is(pg_temp.taken('unversioned'), '{}', 'nor does a worker without a version');
select is(pg_temp.taken('new', '2'), '{"two 1/main"}', 'a worker of that version gets it');
select is(
    claim('{q@1}', 'old', token_of('old'), 9, again => true)::jsonb #>> '{tasks,0,queue}',
    'q',
    'who runs a pinned task is told the queue that was asked for');

select given(tell(a_turn('one', worker => 'old', requests => '[
    {"key": "h#1", "name": "h", "queue": "q", "pinned_version": "1"},
    {"key": "a#1", "kind": "activity", "name": "a", "queue": "q", "pinned_version": "1"},
    {"key": "f#1", "name": "f", "queue": "q", "detached": true, "pinned_version": "1"},
    {"key": "g#1", "name": "g", "queue": "q"},
    {"key": "x#1", "name": "x", "queue": "q", "pinned_version": "9"},
    {"key": "c#1", "kind": "job", "name": "c", "queue": "q", "pinned_version": "1"}]')));
select is(pg_temp.taken('newer', '2'), '{"one 1/main/g#1"}', 'what is asked for without a version is for everybody');
select is(
    pg_temp.taken('older', '1'),
    '{"one $hook/1:main:f#1","one 1/main/a#1","one 1/main/h#1","one/c#1 1/main"}',
    'hooks, activities and children are pinned as their requests say');
select is(pg_temp.taken('newest', '9'), '{"one 1/main/x#1"}', 'a request may name another version');
select is((the_job('one/c#1')) ->> 'pinned_version', '1', 'a child knows its version');

select given(start_many('[{"workflow": "w", "id": "many", "queue": "q", "pinned_version": "1"}]'));
select is(pg_temp.taken('mine', '1'), '{"many 1/main"}', 'many starts may be pinned');

-- In words.

create function pg_temp.reason(job text) returns text
language plpgsql
as $$
begin
    return (select w.queue || ', ' || coalesce(w.pinned_version, '-') || ': ' || w.waits_for
              from perdure.waiting as w where w.job_id = reason.job and w.task = '1/main');
end
$$;
select given(start('w', id => 'said', queue => 'words', pinned_version => '3'));
select is(
    pg_temp.reason('said'),
    'words, 3: a worker of version 3 on queue words (none has registered)',
    'a pinned job tells which version it waits for, and that nobody runs it [P8]');
select given(register_worker('w3', '{words}', version => '2'));
select matches(pg_temp.reason('said'), 'none has registered', 'a worker of another version does not help');
select is(
    register_worker('w3', '{words,$sql}', version => '3')::jsonb -> 'queues',
    '["words@3", "words", "$sql"]',
    'a worker that says hello is told its queues');
select is(pg_temp.reason('said'), 'words, 3: a worker of version 3 on queue words', 'a worker of its version does');
select is(
    (select array[w.version, w.queues::text] from workers as w where w.worker = 'w3'),
    '{3,"{words@3,words,$sql}"}',
    'who works is known by version');

-- Moving.

create function pg_temp.places(job text) returns text[]
language plpgsql
as $$
begin
    return array(
        select t.task || ' ' || t.queue || case when t.token is not null then ' held' else '' end
          from perdure.tasks as t
         where t.job_id = places.job
         order by t.task);
end
$$;

select given(start('w', id => 'r', queue => 'r', pinned_version => '1'));
select given(take('old', '{r@1}'));
select given(tell(a_turn('r', worker => 'old', requests => '[
    {"key": "a", "name": "h", "queue": "r", "pinned_version": "1", "priority": 0},
    {"key": "b", "name": "h", "queue": "r", "pinned_version": "1"},
    {"key": "c", "name": "h", "queue": "r"},
    {"key": "d", "name": "h", "queue": "r", "pinned_version": "9"},
    {"key": "e", "kind": "job", "name": "w", "queue": "r", "pinned_version": "1"}]')));
select given(take('old', '{r@1}', claim_as => 'old hook'));
select is(repin('r', '1'), 0, 'a job that keeps to a version already does not move');
select is(
    pg_temp.places('r'),
    '{"1/main r@1 held","1/main/a r@1 held","1/main/b r@1","1/main/c r","1/main/d r@9"}',
    'and nobody is fenced');
select time_passes('1 s');
select is(repin('r', '2'), 3, 'a job is moved to another version');
select is(
    pg_temp.places('r'),
    '{"1/main r@2","1/main/a r@2","1/main/b r@2","1/main/c r","1/main/d r@9"}',
    'with its coordinator moves what was pinned as it was, and nothing else');
select is(the_job('r') ->> 'pinned_version', '2', 'the job knows its version');
select is(pg_temp.places('r/e'), '{"1/main r@1"}', 'a child is a job of its own');
select is(tell(a_turn('r', worker => 'old')) ->> 'state', 'fenced', 'who held the coordinator is fenced [P6]');
select is(tell(a_turn('r', '1/main/a', worker => 'old hook')) ->> 'state', 'fenced', 'so is who held a hook [P6]');
select is(
    (select jsonb_agg(jsonb_build_array(t -> 'task', t -> 'deliveries') order by t -> 'task')
       from jsonb_array_elements(take('new', '{r@2}', 9)) as t),
    '[["1/main", 1], ["1/main/a", 1], ["1/main/b", 1]]',
    'workers of the other version get all at once, and no delivery is counted');
select given(tell(a_turn('r', worker => 'new', state => 'park', awaits => '{go}')));
select is(repin('r', null), 3, 'a job is let free of its version');
select is(
    pg_temp.places('r'),
    '{"1/main r","1/main/a r","1/main/b r","1/main/c r","1/main/d r@9"}',
    'its tasks are for everybody');
select is(take('any', '{r}') #>> '{0,task}', '1/main/a', 'they can be claimed');
select is((the_task('r') ->> 'due_at'), 'infinity', 'what was parked still waits');
select is(repin('r', '3'), 1, 'what was not pinned stays for everybody');
select given(signal('r', 'go'));
select is(take('newest', '{r@3}') #>> '{0,messages,0,name}', 'go', 'a parked task wakes in its new place [P5]');
select given(tell(a_turn('r', worker => 'newest', state => 'stuck', value => '{"message": "other code"}')));
select is(repin('r', '4'), 1, 'a stuck task is moved');
select is((the_task('r') ->> 'due_at'), 'infinity', 'and stays stuck');
select is(resume('r'), 1, 'until somebody resumes it');
select is(take('fixed', '{r@4}') #>> '{0,task}', '1/main', 'then the version that was mended runs it [P9]');
select given(tell(a_turn('r', worker => 'fixed', state => 'done')));
select is(repin('r', '5'), 0, 'a job that has ended has nothing to move');
select is(the_job('r') ->> 'pinned_version', '5', 'but may run again, in that version');
select given(entity_create('memory', 'notes'));
select is(repin('memory', '1'), 0, 'a memory without a workflow has no version');
select is(the_job('memory') ->> 'pinned_version', null, 'and gets none');

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a queue with an @',           $$ select start('w', queue => 'a@1') $$,                          'PD104'),
        ('a queue with an @, in many',  $$ select start_many('[{"workflow": "w", "queue": "a@1"}]') $$,   'PD104'),
        ('a hook on such a queue',      $$ select hook('memory', 'h', queue => 'a@1') $$,                 'PD104'),
        ('an empty version',            $$ select start('w', pinned_version => '') $$,                    'PD104'),
        ('a version with a line break', $$ select start('w', pinned_version => E'1\n2') $$,               'PD104'),
        ('a long version',              $$ select start('w', pinned_version => repeat('v', 201)) $$,      'PD104'),
        ('a pin of the database',       $$ select start('w', queue => '$sql', pinned_version => '1') $$,  'PD107'),
        ('a worker of no version',      $$ select register_worker('w', '{q}', version => '') $$,          'PD104'),
        ('to move nobody',              $$ select repin('nobody', '1') $$,                                'PD401'),
        ('to move to no version',       $$ select repin('memory', '') $$,                                 'PD104')
       ) as cases (about, statement, code);
select have_held_job('bad');
select is(
    tell(a_turn('bad', requests => jsonb_build_array('{"key": "k", "name": "h"}'::jsonb || request)))
        #>> '{error,code}',
    code,
    format('a request with %s is refused', request))
  from (values
        ('{"queue": "a@1"}'::jsonb,                          'PD104'),
        ('{"pinned_version": ""}',                           'PD104'),
        ('{"kind": "job", "pinned_version": "1\u0007"}',     'PD104'),
        ('{"queue": "$sql", "pinned_version": "1"}',         'PD107')
       ) as cases (request, code);
select is(
    pg_temp.constraint_of($$ update tasks set pinned_version = '7' where job_id = 'bad' $$),
    'pinned_task_stands_on_the_queue_of_its_version',
    'a pin without its queue cannot be written');
select is(
    pg_temp.constraint_of($$ update tasks set queue = 'bad@7' where job_id = 'bad' $$),
    'pinned_task_stands_on_the_queue_of_its_version',
    'nor a queue of a version without the pin');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
