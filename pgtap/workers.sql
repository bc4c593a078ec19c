-- Workers: what they register, and what happens to tasks for which some workers have no code.

begin;
select plan(58);

select the_time_is('2030-01-01 12:00+00');
set local time zone 'UTC';

create function pg_temp.lacking(
    job   text,
    name  text      default 'w',
    wait  interval  default '50 s',
    code  text      default 'PD406'
) returns void
language plpgsql
as $$
begin
    perform perdure.start(lacking.name, id => lacking.job, queue => 'q');
    perform take(lacking.job, '{q}', 9);
    perform tell(a_turn(lacking.job, worker => lacking.job, state => 'release', until => clock() + lacking.wait,
                        value => jsonb_build_object('code', lacking.code, 'message', 'x')));
end
$$;
create function pg_temp.due() returns text[]
language plpgsql
as $$
begin
    return array(select t.job_id from perdure.tasks as t where t.due_at <= clock() order by t.job_id);
end
$$;

-- Tasks that were released because their worker has no code for them.

select pg_temp.lacking('a');
select is(the_task('a') ->> 'deliveries', '0', 'a release for lack of code counts no delivery');
select is(
    (select w.waits_for from waiting as w where w.job_id = 'a'),
    'a worker on queue q that has the coordinator w (none has registered)',
    'the task shows that it waits for a worker with its code [P8]');
select is(pg_temp.due(), '{}', 'the task is not due');
select given(register_worker('ada', queues, functions => functions))
  from (values
        ('{q}'::text[], null::text[]),
        ('{q}', '{}'),
        ('{q}', '{"coordinator v","hook w","activity w"}'),
        ('{other}', '{"coordinator w"}')
       ) as cases (queues, functions);
select is(pg_temp.due(), '{}', 'workers with other functions or other queues do not wake the task');
select is(has_worker('q', null, 'coordinator', 'w'), false, 'no worker is known to have the code');
select given(register_worker('bob', '{q}', functions => '{"coordinator v","coordinator w"}'));
select is(pg_temp.due(), '{a}', 'the registration of a worker with the code wakes the task');
select is(has_worker('q', null, 'coordinator', 'w'), true, 'has_worker() finds the worker with the code');
select is(has_worker('q', '1', 'coordinator', 'w'), false,
          'has_worker() ignores a worker without a version for a pinned task');
select is(has_worker('other', null, 'coordinator', 'w'), true, 'has_worker() finds a worker on its own queue');
select given(take('bob', '{q}', 9));
select given(tell(a_turn('a', worker => 'bob', state => 'park', awaits => '{go}', until => clock() + interval '5 s')));
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{}', 'a registration does not wake a task that waits for something else [P7]');

select pg_temp.lacking('b', wait => '2 min');
select pg_temp.lacking('c', code => 'PD603');
select pg_temp.lacking('d');
select is(
    (select w.waits_for from waiting as w where w.job_id = 'd'),
    'a worker on queue q that has the coordinator w',
    'the task does not say that no worker has the code if one has');
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d}', 'a registration does not wake a task that failed or is due much later');

-- Pinned tasks.

select given(start('w', id => 'p', queue => 'q', pinned_version => '1'));
select given(take('old', '{q@1}'));
select given(tell(a_turn('p', worker => 'old', state => 'release', until => clock() + interval '9 s',
                         value => '{"code": "PD406"}')));
select matches(
    (select w.waits_for from waiting as w where w.job_id = 'p'),
    '^a worker of version 1 on queue q that has the coordinator w .none has registered.$',
    'a pinned task waits for a worker of its version');
select given(register_worker('two', '{q}', version => '2', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d}', 'a worker of another version does not wake a pinned task');
select given(register_worker('one', '{q}', version => '1', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d,p}', 'a worker of its version wakes a pinned task');

-- Tasks with values that a worker could not decrypt.

select pg_temp.lacking('sealed', code => 'PD113');
select pg_temp.lacking('broken seal', code => 'PD114');
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(
    pg_temp.due(), '{"broken seal",p,sealed}',
    'the registration of any worker wakes them, because it may have the key');

-- Requests to cancel of such tasks.

select given(start('w', id => 'unheard', queue => 'u'));
select given(take('ada', '{u}'));
select given(cancel('unheard'));
create function pg_temp.give_back() returns interval
language plpgsql
as $$
begin
    perform tell(a_turn('unheard', state => 'release', until => clock() + interval '50 s', value => '{"code": "PD406"}'));
    return (the_task('unheard') ->> 'due_at')::timestamptz - clock();
end
$$;
select is(
    pg_temp.give_back(),
    '50 s',
    'a release for lack of code keeps its pause in spite of a request to cancel [P10]');
select time_passes('1 s');
select given(register_worker('bob', '{u}', functions => '{"coordinator w"}'));
select is(take('bob', '{u}') #>> '{0,messages,0,key}', '$cancel',
          'a worker with the code receives the request to cancel at once [P5]');
select given(tell(a_turn('unheard', state => 'retry', until => clock() + interval '50 s', worker => 'bob')));
select is(the_task('unheard') ->> 'awaits', '[]', 'a retry before the request was consumed awaits nothing');
select is(jsonb_array_length(take('bob', '{u}', claim_as => 'x')), 1,
          'a task that was retried before the request was consumed is claimed at once');

select given(tell(a_turn('unheard', state => 'release', until => clock() + interval '50 s', worker => 'x')));
select is((the_task('unheard') ->> 'due_at')::timestamptz, clock(),
          'a task that was released without a failure receives the request to cancel at once [P5]');

-- Tasks that are stuck because their worker had other code.

create function pg_temp.get_stuck(job text, worker text, queue text default 's') returns void
language plpgsql
as $$
begin
    perform take(get_stuck.worker, array[get_stuck.queue]);
    perform tell(a_turn(get_stuck.job, worker => get_stuck.worker, state => 'stuck', value => '{"code": "PD201"}'));
end
$$;
create function pg_temp.stuck() returns text[]
language plpgsql
as $$
begin
    return array(select t.job_id from perdure.tasks as t where t.stuck_reason is not null order by t.job_id);
end
$$;
select given(register_worker(worker, '{s}')) from unnest('{old,older}'::text[]) as worker;
select given(start('w', id => 'stuck', queue => 's'));
select pg_temp.get_stuck('stuck', 'old');
select given(register_worker('new', '{s}'));
select is(pg_temp.stuck(), '{stuck}', 'a stuck task stays stuck while the worker that could not run it is there');
select forget_worker('new');
select is(pg_temp.stuck(), '{stuck}', 'a stuck task stays stuck when another worker leaves');
select forget_worker('old');
select is(pg_temp.stuck(), '{}', 'a stuck task is retried by the others when its worker leaves [P9]');
select pg_temp.get_stuck('stuck', 'older');
select given(register_worker('elsewhere', '{t}'));
select forget_worker('older');
select is(pg_temp.stuck(), '{stuck}', 'a stuck task stays stuck if no other worker serves its queue');
select given(register_worker('elsewhere', '{t}'));
select is(pg_temp.stuck(), '{stuck}', 'a new worker of another queue does not retry the stuck task');
select given(register_worker('fixed', '{s,t}'));
select is(pg_temp.stuck(), '{}', 'a new worker of its queue retries the stuck task [P9]');
select is(take('fixed', '{s}') #>> '{0,job}', 'stuck', 'the new worker gets the stuck task at once');
select given(tell(a_turn('stuck', worker => 'fixed', state => 'stuck', value => '{"code": "PD201"}')));
select time_passes('6 min');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{}', 'a worker that was silent for five minutes counts as gone');
select pg_temp.get_stuck('stuck', 'another');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{stuck}', 'a worker that registers again is the one that could not run the task');
select forget_worker('another');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{}', 'a worker that registers after it was forgotten is a new one');
select given(take('another', '{s}'));
select given(tell(a_turn('stuck', worker => 'another', state => 'done')));

select given(start('w', id => 'pinned', queue => 's', pinned_version => '1'));
select pg_temp.get_stuck('pinned', 'gone', 's@1');
select given(register_worker('another', '{s}', version => '2'));
select is(pg_temp.stuck(), '{pinned}', 'a worker of another version does not retry a pinned task');
select given(register_worker('one', '{s}', version => '1'));
select is(pg_temp.stuck(), '{}', 'a worker of its version retries a pinned task');
select given(terminate('pinned'));

select given(start('w', id => 'poison', queue => 's'));
update perdure.tasks set deliveries = max_deliveries() where job_id = 'poison';
select given(take('gone', '{s}'));
select given(register_worker('one', '{s}', version => '1'));
select is(pg_temp.stuck(), '{poison}', 'a registration does not retry a task that may have killed its workers [P10]');
select given(terminate('poison'));

-- A silent worker may be dead.

select time_passes('5 min');
select is(
    has_worker('q', null, 'coordinator', 'w'),
    false,
    'has_worker() ignores a worker that was silent for five minutes');

-- A task that waits for the answer of such a task.

select have_held_job('asks');
select given(tell(a_turn('asks', state => 'park', requests => '[{"key": "h#1", "name": "mistyped", "queue": "far"}]')));
select given(take('eve', '{far}'));
select given(tell(a_turn('asks', '1/main/h#1', 'release', until => clock() + interval '50 s', worker => 'eve',
                         value => '{"code": "PD406", "message": "x"}')));
select is(
    (status('asks')).waiting_for,
    'answers of h#1: a worker on queue far that has the hook mistyped (none has registered)',
    'a job shows that no worker has the code of the hook that it awaits');
select throws_ok(
    format('select register_worker(''eve'', ''{far}'', functions => %L)', functions),
    'PD107',
    null,
    'a worker that names a function without its kind is refused: ' || functions)
  from unnest(array['{"mistyped"}', '{"hook mistyped","hook "}', '{"workflow w"}', '{null}']) as functions;
select given(register_worker('eve', '{far}', functions => '{"hook mistyped"}'));
select is((status('asks')).waiting_for, 'answers of h#1',
          'a job does not mention the code of the hook once a worker has it');

-- What is refused.

select is(error_of($$ select register_worker('ada', '{NULL}') $$), 'PD107', 'a queue of null is refused');
select is(
    error_of($$ select register_worker('ada', null) $$), 'PD107',
    'a registration without queues is refused');
select is(
    error_of(format('select claim(%L, ''ada'')', queues)), 'PD107',
    format('a claim of the queues %s is refused', queues))
  from unnest(array['{a,NULL}', '{{a},{b}}']) as queues;
select isnt(register_worker('ada', '{q}', null) ->> 'at', null, 'a worker may register without details');

-- A worker that gives a task back for lack of code need not say until when.

create function pg_temp.rests(code text default 'PD406') returns interval
language plpgsql
as $$
begin
    perform take('rest', '{rest}');
    perform tell(a_turn('rest', worker => 'rest', state => 'release', value => jsonb_build_object('code', rests.code)));
    return (the_task('rest') ->> 'due_at')::timestamptz - clock();
end
$$;
select given(start('w', id => 'rest', queue => 'rest'));
select given(register_worker('rest', '{rest}', functions => '{"coordinator w"}'));
select is(pg_temp.rests('PD404'), interval '0', 'a task that is given back for another reason is due at once');
select is(pg_temp.rests(), interval '250 ms', 'a task that is given back for lack of code rests at first for a moment');
select time_passes('250 ms');
select is(pg_temp.rests('PD113'), interval '250 ms', 'a task that is given back for lack of a key rests too');
select time_passes('250 ms');
select is(pg_temp.rests(), interval '500 ms', 'it rests as long as it has waited for its code');
select time_passes('10 s');
select is(pg_temp.rests(), interval '10.5 s', 'a task whose code nobody has rests for longer and longer');
select time_passes('1 h');
select is(pg_temp.rests(), interval '1 min', 'a task whose code nobody has rests for a minute at most');
select time_passes('1 min');
select given(register_worker('other', '{rest}', functions => '{"coordinator w"}'));
select is(pg_temp.rests(), interval '1 s', 'a task whose code another worker has rests for a second at most');
select time_passes('1 s');
select given(take('rest', '{rest}'));
select given(tell(a_turn('rest', worker => 'rest', facts => '[{"kind": "note", "key": "n#1"}]')));
select is(pg_temp.rests(), interval '250 ms', 'the rest is counted from the last turn that told the task something');
select time_passes('1 s');
select given(take('rest', '{rest}'));
select is(
    tell(a_turn('rest', worker => 'rest', state => 'release', until => clock() + interval '5 s',
                value => '{"code": "PD406"}')) ->> 'state',
    'released',
    'a worker may say until when');
select is((the_task('rest') ->> 'due_at')::timestamptz - clock(), interval '5 s', 'what the worker says counts');
select time_passes('5 s');
select given(take('rest', '{rest}'));
select given(tell(a_turn('rest', worker => 'rest', state => 'retry', value => '{"code": "PD406"}')));
select is((the_task('rest') ->> 'due_at')::timestamptz - clock(), interval '0',
          'a failed attempt does not rest by itself');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
