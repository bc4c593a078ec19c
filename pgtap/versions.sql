-- Versions: only workers of a version get tasks that are pinned to it. A job can be moved to another version.

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
    'a worker serves the tasks of its version before others, queue by queue');
select is(served_queues('{b,a,$sql}', null), '{b,a,$sql}',
          'a worker without a version serves tasks that are not pinned');

-- Claims of pinned tasks.

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
    'a worker gets tasks of its version, and tasks that are not pinned');
select is(pg_temp.taken('old', '1'), '{}', 'a worker gets no task of another version');
select is(pg_temp.taken('unversioned'), '{}', 'a worker without a version gets no pinned task');
select is(pg_temp.taken('new', '2'), '{"two 1/main"}', 'a worker of the version gets the pinned task');
select is(
    claim('{q@1}', 'old', token_of('old'), 9, again => true)::jsonb #>> '{tasks,0,queue}',
    'q',
    'a claimed task has the queue without the version');

select given(tell(a_turn('one', worker => 'old', requests => '[
    {"key": "h#1", "name": "h", "queue": "q", "pinned_version": "1"},
    {"key": "a#1", "kind": "activity", "name": "a", "queue": "q", "pinned_version": "1"},
    {"key": "f#1", "name": "f", "queue": "q", "detached": true, "pinned_version": "1"},
    {"key": "g#1", "name": "g", "queue": "q"},
    {"key": "x#1", "name": "x", "queue": "q", "pinned_version": "9"},
    {"key": "c#1", "kind": "job", "name": "c", "queue": "q", "pinned_version": "1"}]')));
select is(pg_temp.taken('newer', '2'), '{"one 1/main/g#1"}', 'a request without a version is for all workers');
select is(
    pg_temp.taken('older', '1'),
    '{"one $hook/1:main:f#1","one 1/main/a#1","one 1/main/h#1","one/c#1 1/main"}',
    'hooks, activities and children are pinned as requested');
select is(pg_temp.taken('newest', '9'), '{"one 1/main/x#1"}', 'a request may name another version');
select is((the_job('one/c#1')) ->> 'pinned_version', '1', 'a child has the version of its request');

select given(start_many('[{"workflow": "w", "id": "many", "queue": "q", "pinned_version": "1"}]'));
select is(pg_temp.taken('mine', '1'), '{"many 1/main"}', 'jobs of start_many() may be pinned');

-- Pinned tasks in the view waiting.

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
    'a pinned job shows its version, and that no worker of it is registered [P8]');
select given(register_worker('w3', '{words}', version => '2'));
select matches(pg_temp.reason('said'), 'none has registered', 'a worker of another version does not count');
select is(
    register_worker('w3', '{words,$sql}', version => '3')::jsonb -> 'queues',
    '["words@3", "words", "$sql"]',
    'a worker that registers gets its queues');
select is(pg_temp.reason('said'), 'words, 3: a worker of version 3 on queue words', 'a worker of the version counts');
select is(
    (select array[w.version, w.queues::text] from workers as w where w.worker = 'w3'),
    '{3,"{words@3,words,$sql}"}',
    'a registered worker has its version');

-- repin.

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
select is(repin('r', '1'), 0, 'repin() to the same version moves nothing');
select is(
    pg_temp.places('r'),
    '{"1/main r@1 held","1/main/a r@1 held","1/main/b r@1","1/main/c r","1/main/d r@9"}',
    'repin() to the same version fences no worker');
select time_passes('1 s');
select is(repin('r', '2'), 3, 'repin() moves a job to another version');
select is(
    pg_temp.places('r'),
    '{"1/main r@2","1/main/a r@2","1/main/b r@2","1/main/c r","1/main/d r@9"}',
    'repin() moves the coordinator and the tasks with the same pin, and nothing else');
select is(the_job('r') ->> 'pinned_version', '2', 'repin() changes the version of the job');
select is(pg_temp.places('r/e'), '{"1/main r@1"}', 'repin() does not move a child');
select is(tell(a_turn('r', worker => 'old')) ->> 'state', 'fenced',
          'repin() fences the holder of the coordinator [P6]');
select is(tell(a_turn('r', '1/main/a', worker => 'old hook')) ->> 'state', 'fenced',
          'repin() fences the holder of a hook [P6]');
select is(
    (select jsonb_agg(jsonb_build_array(t -> 'task', t -> 'deliveries') order by t -> 'task')
       from jsonb_array_elements(take('new', '{r@2}', 9)) as t),
    '[["1/main", 1], ["1/main/a", 1], ["1/main/b", 1]]',
    'workers of the new version get all tasks at once, and the lost claims count no delivery');
select given(tell(a_turn('r', worker => 'new', state => 'park', awaits => '{go}')));
select is(repin('r', null), 3, 'repin() to null removes the pin');
select is(
    pg_temp.places('r'),
    '{"1/main r","1/main/a r","1/main/b r","1/main/c r","1/main/d r@9"}',
    'tasks without a pin are on the plain queue');
select is(take('any', '{r}') #>> '{0,task}', '1/main/a', 'a worker without a version gets the task');
select is((the_task('r') ->> 'due_at'), 'infinity', 'repin() does not wake a parked task');
select is(repin('r', '3'), 1, 'repin() does not move tasks that had no pin before');
select given(signal('r', 'go'));
select is(take('newest', '{r@3}') #>> '{0,messages,0,name}', 'go', 'a moved task wakes on its new queue [P5]');
select given(tell(a_turn('r', worker => 'newest', state => 'stuck', value => '{"message": "other code"}')));
select is(repin('r', '4'), 1, 'repin() moves a stuck task');
select is((the_task('r') ->> 'due_at'), 'infinity', 'a moved stuck task stays stuck');
select is(resume('r'), 1, 'a moved stuck task can be resumed');
select is(take('fixed', '{r@4}') #>> '{0,task}', '1/main', 'a worker of the new version gets the resumed task [P9]');
select given(tell(a_turn('r', worker => 'fixed', state => 'done')));
select is(repin('r', '5'), 0, 'repin() of a finished job moves nothing');
select is(the_job('r') ->> 'pinned_version', '5', 'repin() sets the version of later runs of a finished job');
select given(entity_create('memory', 'notes'));
select is(repin('memory', '1'), 0, 'repin() of a plain entity moves nothing');
select is(the_job('memory') ->> 'pinned_version', null, 'a plain entity gets no version');

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a queue with an @',           $$ select start('w', queue => 'a@1') $$,                          'PD104'),
        ('a queue with an @ in a list of starts',  $$ select start_many('[{"workflow": "w", "queue": "a@1"}]') $$,
        'PD104'),
        ('a hook on a queue with an @',      $$ select hook('memory', 'h', queue => 'a@1') $$,                 'PD104'),
        ('an empty version',            $$ select start('w', pinned_version => '') $$,                    'PD104'),
        ('a version with a line break', $$ select start('w', pinned_version => E'1\n2') $$,               'PD104'),
        ('a long version',              $$ select start('w', pinned_version => repeat('v', 201)) $$,      'PD104'),
        ('a pin on a task of the database',       $$ select start('w', queue => '$sql', pinned_version => '1') $$,
        'PD107'),
        ('a worker with an empty version',      $$ select register_worker('w', '{q}', version => '') $$,
        'PD104'),
        ('moving a job that does not exist',              $$ select repin('nobody', '1') $$,
        'PD401'),
        ('moving to an empty version',       $$ select repin('memory', '') $$,                                 'PD104')
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
    'a constraint refuses a pin without its queue');
select is(
    pg_temp.constraint_of($$ update tasks set queue = 'bad@7' where job_id = 'bad' $$),
    'pinned_task_stands_on_the_queue_of_its_version',
    'a constraint refuses a queue of a version without its pin');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
