-- Workers: what they say of themselves, and what becomes of tasks that some of them have no code for.

begin;
select plan(42);

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

-- A task that was given back for lack of code.

select pg_temp.lacking('a');
select is(the_task('a') ->> 'deliveries', '0', 'a worker that has no code for a task counts no delivery');
select is(
    (select w.waits_for from waiting as w where w.job_id = 'a'),
    'a worker on queue q that has the coordinator w (none has registered)',
    'it tells for whom it waits [P8]');
select is(pg_temp.due(), '{}', 'it lies aside');
select given(register_worker('ada', queues, functions => functions))
  from (values
        ('{q}'::text[], null::text[]),
        ('{q}', '{}'),
        ('{q}', '{"coordinator v","hook w","w"}'),
        ('{other}', '{"coordinator w"}')
       ) as cases (queues, functions);
select is(pg_temp.due(), '{}', 'no worker wakes it that has another function, or serves another queue');
select is(has_worker('q', null, 'coordinator', 'w'), false, 'nobody is known to have the code');
select given(register_worker('bob', '{q}', functions => '{"coordinator v","coordinator w"}'));
select is(pg_temp.due(), '{a}', 'a worker that has the code wakes it');
select is(has_worker('q', null, 'coordinator', 'w'), true, 'he is known to have it');
select is(has_worker('q', '1', 'coordinator', 'w'), false, 'but not for what is pinned');
select is(has_worker('other', null, 'coordinator', 'w'), true, 'each on his queues');
select given(take('bob', '{q}', 9));
select given(tell(a_turn('a', worker => 'bob', state => 'park', awaits => '{go}', until => clock() + interval '5 s')));
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{}', 'what waits for something else is left alone [P7]');

select pg_temp.lacking('b', wait => '2 min');
select pg_temp.lacking('c', code => 'PD603');
select pg_temp.lacking('d');
select is(
    (select w.waits_for from waiting as w where w.job_id = 'd'),
    'a worker on queue q that has the coordinator w',
    'where somebody has the code, it says so');
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d}', 'what failed, or is due much later, keeps its time');

-- What is pinned.

select given(start('w', id => 'p', queue => 'q', pinned_version => '1'));
select given(take('old', '{q@1}'));
select given(tell(a_turn('p', worker => 'old', state => 'release', until => clock() + interval '9 s',
                         value => '{"code": "PD406"}')));
select matches(
    (select w.waits_for from waiting as w where w.job_id = 'p'),
    '^a worker of version 1 on queue q that has the coordinator w .none has registered.$',
    'a pinned task waits for a worker of its version');
select given(register_worker('two', '{q}', version => '2', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d}', 'another version does not wake it');
select given(register_worker('one', '{q}', version => '1', functions => '{"coordinator w"}'));
select is(pg_temp.due(), '{d,p}', 'its own does');

-- What could not be opened.

select pg_temp.lacking('sealed', code => 'PD113');
select pg_temp.lacking('broken seal', code => 'PD114');
select given(register_worker('bob', '{q}', functions => '{"coordinator w"}'));
select is(
    pg_temp.due(), '{"broken seal",p,sealed}',
    'what could not be opened is tried by whoever comes, who may have the key');

-- What is asked to cancel meanwhile.

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
    'who has no code for a task is not busy with it because it is asked to cancel [P10]');
select time_passes('1 s');
select given(register_worker('bob', '{u}', functions => '{"coordinator w"}'));
select is(take('bob', '{u}') #>> '{0,messages,0,key}', '$cancel', 'who comes and has it hears of that at once [P5]');
select given(tell(a_turn('unheard', state => 'retry', until => clock() + interval '50 s', worker => 'bob')));
select is(the_task('unheard') ->> 'awaits', '[]', 'to him the task is given again as long as he has not heard');
select is(jsonb_array_length(take('bob', '{u}', claim_as => 'x')), 1, 'at once');

-- What is stuck, since whoever ran it had other code.

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
select is(pg_temp.stuck(), '{stuck}', 'what is stuck stays so while the worker is there that could not run it');
select forget_worker('new');
select is(pg_temp.stuck(), '{stuck}', 'whoever else goes');
select forget_worker('old');
select is(pg_temp.stuck(), '{}', 'when that one goes, those who stay try it [P9]');
select pg_temp.get_stuck('stuck', 'older');
select given(register_worker('elsewhere', '{t}'));
select forget_worker('older');
select is(pg_temp.stuck(), '{stuck}', 'where nobody stays, it still tells why it is stuck');
select given(register_worker('elsewhere', '{t}'));
select is(pg_temp.stuck(), '{stuck}', 'who serves other queues does not try it');
select given(register_worker('fixed', '{s,t}'));
select is(pg_temp.stuck(), '{}', 'the next who comes to its queue does [P9]');
select is(take('fixed', '{s}') #>> '{0,job}', 'stuck', 'at once');
select given(tell(a_turn('stuck', worker => 'fixed', state => 'stuck', value => '{"code": "PD201"}')));
select time_passes('6 min');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{}', 'and who was not seen for five minutes is not there');
select pg_temp.get_stuck('stuck', 'another');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{stuck}', 'who says hello once more is the one that could not run it');
select forget_worker('another');
select given(register_worker('another', '{s}'));
select is(pg_temp.stuck(), '{}', 'who comes after its goodbye is another, whatever its name');
select given(take('another', '{s}'));
select given(tell(a_turn('stuck', worker => 'another', state => 'done')));

select given(start('w', id => 'pinned', queue => 's', pinned_version => '1'));
select pg_temp.get_stuck('pinned', 'gone', 's@1');
select given(register_worker('another', '{s}', version => '2'));
select is(pg_temp.stuck(), '{pinned}', 'another version does not try what is pinned');
select given(register_worker('one', '{s}', version => '1'));
select is(pg_temp.stuck(), '{}', 'its own does');
select given(terminate('pinned'));

select given(start('w', id => 'poison', queue => 's'));
update perdure.tasks set deliveries = max_deliveries() where job_id = 'poison';
select given(take('gone', '{s}'));
select given(register_worker('one', '{s}', version => '1'));
select is(pg_temp.stuck(), '{poison}', 'what may have killed its workers waits for somebody to resume it [P10]');
select given(terminate('poison'));

-- Who was not seen for long may be dead.

select time_passes('5 min');
select is(
    has_worker('q', null, 'coordinator', 'w'),
    false,
    'a worker that was not seen for five minutes does not count');

-- Who waits for the answer of such a task is told, too.

select have_held_job('asks');
select given(tell(a_turn('asks', state => 'park', requests => '[{"key": "h#1", "name": "mistyped", "queue": "far"}]')));
select given(take('eve', '{far}'));
select given(tell(a_turn('asks', '1/main/h#1', 'release', until => clock() + interval '50 s', worker => 'eve',
                         value => '{"code": "PD406", "message": "x"}')));
select is(
    (status('asks')).waiting_for,
    'answers of h#1: a worker on queue far that has the hook mistyped (none has registered)',
    'a job tells that nobody has the code of what it waits for');
select given(register_worker('eve', '{far}', functions => '{"hook mistyped"}'));
select is((status('asks')).waiting_for, 'answers of h#1', 'once somebody has it, it is waited for as others are');

-- What is refused.

select is(error_of($$ select register_worker('ada', '{NULL}') $$), 'PD107', 'a queue has a name');
select is(
    error_of($$ select register_worker('ada', null) $$), 'PD107',
    'who forgot his queues is told so: he would serve none');
select is(
    error_of(format('select claim(%L, ''ada'')', queues)), 'PD107',
    format('a claim needs names of queues, not %s', queues))
  from unnest(array['{a,NULL}', '{{a},{b}}']) as queues;
select isnt(register_worker('ada', '{q}', null) ->> 'at', null, 'a worker need not say anything of itself');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
