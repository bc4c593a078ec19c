-- The status of a job and what it waits for, in words (E6); its journal, and the history of its memory.

begin;
select plan(82);

select the_time_is('2030-01-01 12:00+00');
set local time zone 'UTC';

-- status() and the view `waiting`: the states of one job, one after the other.

create function seen(job text, task text default '1/main') returns text[]
language plpgsql
as $$
begin
    return (select array[w.state, w.waits_for] from waiting as w where w.job_id = seen.job and w.task = seen.task);
end
$$;

select given(start('research', id => 'j', entity => 'agent', queue => 'agents', context => '{"n": 1}',
                   due_at => clock() + interval '1 h'));
select is(
    to_jsonb(status('j')),
    jsonb_build_object('id', 'j', 'entity', 'agent', 'workflow', 'research', 'status', 'running', 'version', 1,
                       'run', 1, 'waiting_for', 'its time: 2030-01-01 13:00:00+00', 'needs', null,
                       'created_at', clock(), 'updated_at', clock(), 'finished_at', null,
                       'stuck', null, 'failure', null),
    'status() shows the state of a job (C6) (E6)');
select is(seen('j'), '{delayed,"its time: 2030-01-01 13:00:00+00"}', 'a job with a later start waits for its time');
select time_passes('1 h');
select is(
    seen('j'),
    '{ready,"a worker on queue agents (none has registered)"}',
    'a job that is due waits for a worker, and shows that none is registered');
select given(register_worker('ada', '{agents,others}'));
select is(seen('j'), '{ready,"a worker on queue agents"}', 'a job that is due waits for a worker');
select given(take('ada', '{agents}'));
select is(seen('j'), '{leased,"worker ada"}', 'a job that is held waits for its worker');
select is((status('j')).waiting_for, 'worker ada', 'status() and the view show the same');
select time_passes('1 min');
select is((seen('j'))[1], 'ready', 'a job whose lease has ended is ready');
select given(take('ada', '{agents}', claim_as => 'second'));
select given(tell(a_turn('j', state => 'park', awaits => '{approve,reject}', worker => 'second')));
select is(seen('j'), '{waiting,"signal approve or reject"}', 'a parked job waits for its signals');
select is((select w.due_at from waiting as w where w.job_id = 'j'), null,
          'a job that no time wakes shows no time: clients cannot read an infinite one');
select given(signal('j', 'approve'));
select is((seen('j'))[1], 'ready', 'a job that was woken is ready');
select given(take('ada', '{agents}', claim_as => 'third'));
select given(tell(a_turn('j', worker => 'third',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'signal',
                                                                       'message', message_of('j', 'approve'))))));
select given(tell(a_turn('j', state => 'park', awaits => '{go}', until => clock() + interval '1 h', worker => 'third',
                         requests => '[
    {"key": "h#2", "name": "h"},
    {"key": "h#1", "name": "h"},
    {"key": "c#1", "kind": "job", "name": "c"},
    {"key": "d#1", "name": "h", "detached": true}]')));
select is(
    seen('j'),
    '{waiting,"signal go, answers of c#1, h#1, h#2: a worker on queue default (none has registered), '
    'its time: 2030-01-01 14:01:00+00"}',
    'a parked job shows everything that it waits for, and what no worker serves');
select given(register_worker('bob', '{default}'));
select is(
    seen('j'),
    '{waiting,"signal go, answers of c#1, h#1, h#2, its time: 2030-01-01 14:01:00+00"}',
    'a job does not mention a queue that a worker serves');
select have_held_job('asks sql');
select given(tell(a_turn('asks sql', state => 'park', requests => '[{"key": "h#1", "name": "h", "queue": "$sql"}]')));
select is(seen('asks sql'), '{waiting,"answers of h#1"}',
          'a job does not mention the queue of the database, which needs no worker');
select given(terminate('asks sql'));
select given(forget('asks sql'));
select is(
    (select array_agg(w.job_id || ' ' || w.task order by w.job_id, w.task)
       from waiting as w
      where w.job_id like 'j%'),
    '{"j $hook/1:main:d#1","j 1/main","j 1/main/h#1","j 1/main/h#2","j/c#1 1/main"}',
    'the view shows every live task');
select given(tell(a_turn('j', state => 'park', worker => 'third')));
select given(take('bob', max_tasks => 10));
select given(tell(a_turn('j', '1/main/h#1', 'retry', until => clock() + interval '10 s',
                         value => '{"message": "timeout"}', worker => 'bob')));
select is(
    seen('j', '1/main/h#1'),
    '{retrying,"attempt 2 at 2030-01-01 13:01:10+00, after: timeout"}',
    'a task that is to be retried shows its time and the failure');
select given(tell(a_turn('j', '1/main/h#2', 'stuck', value => '{"message": "the code has changed"}', worker => 'bob')));
select is(seen('j', '1/main/h#2'), '{stuck,"somebody to resume it: the code has changed"}',
          'a stuck task shows its reason');
select is(
    (status('j')).stuck,
    '1/main/h#2: the code has changed',
    'status() names the stuck task and its reason');
select have_held_job('two');
select given(tell(a_turn('two', requests => '[{"key": "a#1", "kind": "hook", "name": "a", "queue": "q"}]')));
select is((status('two')).stuck, null, 'status() names no stuck task if there is none');
select given(tell(a_turn('two', state => 'stuck', value => '{"message": "another step"}')));
select is((status('two')).stuck, '1/main: another step', 'status() names a stuck coordinator');
select have_held_job('other');
select given(tell(a_turn('other', state => 'stuck', value => '{"step": 7}')));
select is(seen('other'), array['stuck', 'somebody to resume it: {"step": 7}'],
          'a stuck task shows a reason without message and detail as it is');
select given(terminate('other'));
select given(forget('other'));
select is(
    (select jsonb_build_array(w.kind, w.name, w.queue, w.worker, w.deliveries, w.attempt, w.due_at)
       from waiting as w
      where w.job_id = 'j' and w.task = '$hook/1:main:d#1'),
    jsonb_build_array('hook', 'h', 'default', 'bob', 1, 0, clock() + interval '30 s'),
    'the view shows the holder of a task and its deliveries');
select given(terminate('j', 'by hand'));
select is(
    (select jsonb_build_array(s.status, s.waiting_for, s.finished_at) from status('j') as s),
    jsonb_build_array('cancelled', null, clock()),
    'a job that has ended waits for nothing');
select given(entity_create('e', 'note'));
select is(
    (select jsonb_build_array(s.status, s.workflow, s.waiting_for, s.finished_at) from status('e') as s),
    '[null, null, null, null]',
    'a plain entity has no status and waits for nothing');
select throws_ok(
    $$ select status('nobody') $$,
    'PD401',
    'job ''nobody'' does not exist',
    'a job that does not exist has no status');

-- Activities without a queue are retried by their caller: they are facts of the caller, not tasks.

select have_held_job('t');
select given(tell(a_turn('t', state => 'park', until => clock() + interval '10 s', awaits => '{go}', facts => '[
    {"kind": "attempt", "key": "a#1", "name": "a", "ok": false,
     "value": {"message": "first", "attempts": 1, "again_at": "2030-01-01T13:01:09.000001+00:00"}},
    {"kind": "attempt", "key": "a#1", "name": "a", "ok": false,
     "value": {"message": "again", "attempts": 2, "again_at": "2030-01-01T13:02:00.000001+00:00"}},
    {"kind": "attempt", "key": "b#1", "name": "b", "ok": false,
     "value": {"message": "over", "attempts": 1, "again_at": "2030-01-01T13:02:00.000001+00:00"}},
    {"kind": "activity", "key": "b#1", "name": "b", "value": 1},
    {"kind": "attempt", "key": "c#1", "name": "c", "ok": false,
     "value": {"message": "withdrawn", "attempts": 1, "again_at": "2030-01-01T13:00:59.000001+00:00"}},
    {"kind": "attempt", "key": "d#1", "name": "d", "ok": false,
     "value": {"message": "odd", "attempts": [1], "again_at": "soon"}},
    {"kind": "attempt", "key": "e#1", "ok": false, "value": {"attempts": 1, "again_at": "2030-01-01T13:02:00.000001+00:00"}}]')));
select is(
    seen('t'),
    '{waiting,"signal go, attempt 3 of a, after: again, d again, after: odd, attempt 2 of e#1, '
    'its time: 2030-01-01 13:01:10+00"}',
    'a parked task shows the activities that it retries, with their failures, and none that has ended (E6)');
select given(terminate('t'));
select given(forget('t'));

-- result() and await_result()

select have_held_job(id) from unnest('{done,failed,cancelled,running}'::text[]) as id;
select given(tell(a_turn('done', state => 'done', value => '{"n": 1}'),
                  a_turn('failed', state => 'failed', value => '{"message": "m"}'),
                  a_turn('cancelled', state => 'cancelled', value => '{"message": "c"}')));
select is(to_jsonb(result(id)), wanted, format('the result of a job that is %s', id))
  from (values
        ('done',      '{"status": "completed", "result": {"n": 1}, "error": null}'::jsonb),
        ('failed',    '{"status": "failed", "result": null, "error": {"message": "m"}}'),
        ('cancelled', '{"status": "cancelled", "result": null, "error": {"message": "c"}}'),
        ('running',   '{"status": "running", "result": null, "error": null}')
       ) as cases (id, wanted);
select is(to_jsonb(result('e')), '{"status": null, "result": null, "error": null}', 'a plain entity has no result');
select throws_ok($$ select result('nobody') $$, 'PD401', null, 'a job that does not exist has no result');
select is(
    (await_result(id, '60 s')).status,
    wanted,
    format('await_result() returns at once for %s', coalesce(wanted, 'a plain entity')))
  from (values ('done', 'completed'), ('failed', 'failed'), ('e', null)) as cases (id, wanted);
select is((await_result('running', '50 ms')).status, 'running', 'await_result() returns running when its time is up');
select is(
    error_of(format($$ select await_result('done', %s) $$, timeout)),
    'PD107',
    format('await_result() refuses a timeout of %s', timeout))
  from unnest(array['null', '''-1 s''', '''61 s''', '''1 month''']) as timeout;

-- history: the author, time and command of each version (C21) (C72).

select have_held_job('h', '{"n": 0}');
select given(tell(a_turn('h',
                         facts => '[{"op": "increment", "key": "i#1", "path": ["n"], "value": 2},
                                    {"op": "get", "path": ["n"]},
                                    {"op": "append", "path": ["n"], "value": [1]}]',
                         requests => '[{"key": "k", "name": "k", "queue": "h"}]')));
select given(take('ada', '{h}'));
select time_passes('1 min');
select given(tell(a_turn('h', '1/main/k', facts => '[{"op": "set", "path": ["by"], "value": "hook"}]')));
select given(entity_set('h', '"outside"', 'by', key => 'o'));
update perdure.jobs set context = '{"by": "hand"}' where id = 'h';
select is(
    (select jsonb_agg(jsonb_build_array(h.version, h.task, h.op, h.path, h.argument, h.value, h.key,
                                        h.at) order by h.version)
       from history as h
      where h.job_id = 'h'),
    jsonb_build_array(jsonb_build_array(1, '$outside', 'set', '{}'::text[], '{"n": 0}'::jsonb, 1, null,
                                        clock() - interval '1 min'),
                      jsonb_build_array(2, '1/main', 'increment', '{n}'::text[], 2, 2, 'i#1',
                                        clock() - interval '1 min'),
                      jsonb_build_array(3, '1/main/k', 'set', '{by}'::text[], 'hook', 3, null, clock()),
                      jsonb_build_array(4, '$outside', 'set', '{by}'::text[], 'outside', 4, 'o', clock()),
                      jsonb_build_array(5, '$outside', 'set', '{}'::text[], '{"by": "hand"}'::jsonb, 5, null,
                                        clock())),
    'the history has the task, time and command of each version (C21) (C72) (E9)');

create function memory_at(job text, version bigint) returns jsonb
language plpgsql
as $$
declare
    made outcome;
    memory jsonb := '{}';
    step record;
begin
    for step in
        select h.op, h.path, h.argument
          from history as h
         where h.job_id = memory_at.job
           and h.version <= memory_at.version
         order by h.version
    loop
        made := apply_command(memory, step.op, step.path, step.argument);
        memory := made.context;
    end loop;
    return memory;
end
$$;

select is(memory_at('h', version), wanted, format('the history rebuilds the memory of version %s (E9)', version))
  from (values
        (0, '{}'::jsonb),
        (1, '{"n": 0}'),
        (2, '{"n": 2}'),
        (3, '{"n": 2, "by": "hook"}'),
        (4, '{"n": 2, "by": "outside"}'),
        (5, '{"by": "hand"}')
       ) as cases (version, wanted);

-- Dashboards by plain query (C78).

select is(
    (select jsonb_object_agg(coalesce(status, 'entity'), many)
       from (select j.status, count(*) as many from perdure.jobs as j group by j.status) as phases),
    '{"cancelled": 2, "completed": 1, "entity": 1, "failed": 1, "running": 4}',
    'a plain query counts jobs by status (C78)');

-- The journal, page by page.

select have_held_job('long');
select given(tell(a_turn('long',
                         facts => (select jsonb_agg(jsonb_build_object('kind', 'note', 'key', n))
                                     from generate_series(1, 1500) as n))));
select is(jsonb_array_length(read_journal('long', '1/main')::jsonb), 1500, 'read_journal() returns a whole journal');
select is(
    (select jsonb_agg(r -> 2) from jsonb_array_elements(read_journal('long', '1/main', 1497)::jsonb) as r),
    '["1498", "1499", "1500"]',
    'read_journal() begins after a place');
select is(
    (select jsonb_agg(r -> 0) from jsonb_array_elements(read_journal('long', '1/main', 10, 2)::jsonb) as r),
    '[11, 12]',
    'read_journal() returns a page');
select is(read_journal('nobody', '1/main')::jsonb, '[]', 'the journal of a task that does not exist is empty');
select time_passes('31 s');
select is(take('bob', '{long}') #> '{0,journal}', 'null', 'a claim does not return a long journal');

-- A failure is an object, but a worker in another language may give a text.

select given(take('bob', '{plain}')) from start('w', id => 'plain', queue => 'plain');
select given(tell(a_turn('plain', state => 'release', until => clock() + interval '10 s', value => '"no printer"',
                         worker => 'bob')));
select is(
    seen('plain', '1/main'),
    format('{retrying,"attempt 1 at %s, after: no printer"}', clock() + interval '10 s')::text[],
    'a reason that is a text is shown as it is');
select time_passes('10 s');
select given(take('bob', '{plain}'));
select given(tell(a_turn('plain', state => 'release', until => clock() + interval '10 s', value => '[1]',
                         worker => 'bob')));
select is(
    seen('plain', '1/main'),
    format('{retrying,"attempt 1 at %s"}', clock() + interval '10 s')::text[],
    'a reason that says nothing in words is not mentioned');
select time_passes('10 s');
select given(take('bob', '{plain}'));
select given(tell(a_turn('plain', state => 'failed', value => '"no printer"', worker => 'bob')));
select is((status('plain')).failure, 'no printer', 'a failure that is a text is shown as it is');

-- What does not come by itself: what a task needs, for programs.

create function needs(job text, task text default '1/main') returns text
language plpgsql
as $$
begin
    return (select coalesce(w.needs, 'nothing') from waiting as w where w.job_id = needs.job and w.task = needs.task);
end
$$;

select given(start('w', id => 'n', queue => 'needy', due_at => clock() + interval '1 h'));
select is(needs('n'), 'nothing', 'a task that waits for its time needs nothing');
select time_passes('1 h');
select is(needs('n'), 'worker', 'a due task needs a worker if none has registered for its queue');
select is((status('n')).needs, 'worker', 'status() and the view tell the same need');
select given(register_worker('nel', '{needy}'));
select is(needs('n'), 'nothing', 'a due task needs nothing if a worker has registered for its queue');
select given(pause_queue('needy'));
select is(needs('n'), 'resume_queue', 'a due task on a paused queue needs resume_queue()');
select given(pause('n'));
select is(needs('n'), 'resume', 'a task of a paused job needs resume()');
select given(resume('n'));
select given(resume_queue('needy'));
select given(take('nel', '{needy}'));
select is(needs('n'), 'nothing', 'a task at work needs nothing');
select given(tell(a_turn('n', state => 'release', until => clock() + interval '50 s', worker => 'nel',
                         value => '{"code": "PD406", "message": "x"}')));
select is(needs('n'), 'worker', 'a task that was given back for lack of code needs a worker');
select given(register_worker('nel', '{needy}', functions => '{"coordinator w"}'));
select is(needs('n'), 'nothing', 'a task that was given back needs nothing once a worker has its code');
select given(take('nel', '{needy}'));
select given(tell(a_turn('n', state => 'park', worker => 'nel', requests => '[
    {"key": "h#1", "name": "h", "queue": "needy"},
    {"key": "h#2", "name": "h", "queue": "far"}]')));
select is(needs('n'), 'worker', 'a parked task needs a worker for each of its requests');
select given(register_worker('neo', '{far}'));
select is(needs('n'), 'nothing', 'a parked task whose requests workers serve needs nothing');
select given(take('nel', '{needy}'));
select given(tell(a_turn('n', '1/main/h#1', 'stuck', value => '{"message": "no such file"}', worker => 'nel')));
select is(needs('n'), 'resume', 'a parked task needs resume() if one of its requests is stuck');
select is(
    seen('n'),
    '{waiting,"answers of h#1, h#2: somebody to resume h#1: no such file"}',
    'a parked task shows which of its requests is stuck, and why');
select is(needs('n', '1/main/h#2'), 'nothing', 'a hook that waits for a busy worker needs nothing');
select given(resume('n', '1/main/h#1'));
select given(pause_queue('needy'));
select is(needs('n'), 'resume_queue',
          'a parked task needs resume_queue() if the queue of one of its requests is paused');
select is((seen('n'))[2], 'answers of h#1, h#2: somebody to resume h#1: its queue is paused',
          'a parked task shows which of its requests is on a paused queue');
select given(resume_queue('needy'));
select given(terminate('n'));
select is((status('n')).needs, null, 'a job that has ended needs nothing');
select given(forget('n'));
select have_held_job('many');
select given(tell(a_turn('many', state => 'park', requests => (
    select jsonb_agg(jsonb_build_object('key', 'c#' || n, 'kind', 'job', 'name', 'c', 'queue', 'far'))
      from generate_series(1, 12) as n))));
select is(needs('many'), 'nothing', 'a parked task whose children are served needs nothing');
select given(pause('many/c#' || n)) from generate_series(1, 12) as n where n = 1;
select is(needs('many'), 'resume', 'a parked task needs resume() if one of many children is paused');
select given(resume('many/c#1'));
select given(pause('many/c#12'));
select is(needs('many'), 'resume', 'a parked task needs resume(), whichever of many children is paused');
select given(terminate('many'));
select have_held_job(id) from unnest('{by signal,by time}'::text[]) as id;
select given(tell(a_turn('by signal', state => 'park', awaits => '{go}',
                         requests => '[{"key": "h", "name": "h", "queue": "nowhere"}]'),
                  a_turn('by time', state => 'park', until => clock() + interval '1 h',
                         requests => '[{"key": "h", "name": "h", "queue": "nowhere"}]')));
select is(needs(id), 'nothing', format('a task that also waits for what comes %s needs nothing', id))
  from unnest('{by signal,by time}'::text[]) as id;
select given(hook('by signal', 'h', queue => '$sql', key => 'in sql'));
select is(needs('by signal', '$hook/in sql'), 'nothing', 'a due task that the database runs needs no worker');
select given(terminate(id)) from unnest('{by signal,by time}'::text[]) as id;
select given(create_schedule('nightly', 'w', every => '1 day'));
select is(needs('$schedule/nightly', '$hook/$schedule'), 'nothing', 'a schedule needs nothing');
select given(pause_schedule('nightly'));
select is(needs('$schedule/nightly', '$hook/$schedule'), 'resume_schedule',
          'a paused schedule needs resume_schedule()');
select given(drop_schedule('nightly'));
select forget_worker('nel');
select forget_worker('neo');

-- What it costs does not grow with the number of requests.

select have_held_job('wide');
select given(tell(a_turn('wide', state => 'park', requests => (
    select jsonb_agg(jsonb_build_object('key', 'h#' || n, 'name', 'h', 'queue', 'nowhere'))
      from generate_series(1, 100) as n))));
create function scans_of_queues() returns bigint
language plpgsql
as $$
begin
    return (
        select s.seq_scan + s.idx_scan from pg_stat_xact_all_tables as s where s.relid = 'perdure.queues'::regclass);
end
$$;
create temporary table scans as select scans_of_queues() as before;
select given(status('wide'));
select cmp_ok(scans_of_queues() - before, '<', 20::bigint, 'status() does not look up a queue for each request')
  from scans;
select given(terminate('wide'));

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
