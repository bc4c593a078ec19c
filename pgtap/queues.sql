-- Queues: limits by number, by key and by rate; pauses; depths (E13).

begin;
select plan(144);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.have_tasks(queue text, many integer, keys text[] default '{""}', priority integer default 5)
returns void
language plpgsql
as $$
begin
    perform start('w', id => format('%s-%s-%s-%s', queue, priority, k.key, n), queue => queue, limit_key => k.key,
                  priority => priority, due_at => clock() - interval '1 ms' * (many - n + 1.0 / k.nth))
       from generate_series(1, many) as n, unnest(keys) with ordinality as k (key, nth);
end
$$;

-- Returns the jobs of the tasks that a claim gets.
create function pg_temp.taken(queue text, max_tasks integer default 10, worker text default 'ada') returns text[]
language plpgsql
as $$
begin
    return array(select t ->> 'job' from jsonb_array_elements(take(worker, array[queue], max_tasks)) as t);
end
$$;

create function pg_temp.depth(queue text) returns jsonb
language plpgsql
as $$
begin
    return (select jsonb_build_array(d.ready, d.held_back, d.leased, d.waiting, d.delayed, d.stuck, d.paused_tasks)
              from queue_depths(queue) as d);
end
$$;

-- max_running.

select set_queue('few', max_running => 2);
select pg_temp.have_tasks('few', 4);
select is(cardinality(pg_temp.taken('few')), 2, 'a claim gets no more tasks than a queue has slots');
select is(pg_temp.taken('few', worker => 'bob'), '{}', 'a claim gets no task while all slots are taken');
select is(
    (status('few-5--3')).waiting_for, 'a slot of queue few (2 of 2 taken)',
    'the status of a job says that it waits for a slot');
select is(next_due_at('{few}'), clock() + interval '30 s', 'a full queue is due again when a lease ends');
select is(tell(a_turn('few-5--1', state => 'done')) ->> 'state', 'done', 'a held task ends');
select is(pg_temp.taken('few', worker => 'bob'), '{few-5--3}', 'a task that ends frees its slot');
select is(tell(a_turn('few-5--2', state => 'park', awaits => '{go}')) ->> 'state', 'parked', 'a held task parks');
select is(pg_temp.taken('few', worker => 'cid'), '{few-5--4}', 'a parked task frees its slot');
select given(signal('few-5--2', 'go'));
select is(pg_temp.taken('few'), '{}', 'a task that wakes needs a new slot');
select time_passes('30 s');
select is((select array_agg(t order by t) from unnest(pg_temp.taken('few', worker => 'dan')) as t),
          '{few-5--3,few-5--4}', 'a task whose lease has ended keeps its slot, and is claimed again');
select is(cardinality(pg_temp.taken('few', worker => 'dan')), 0,
          'a queue whose slots lost their workers gives no other task [P6]');
select is(
    tell(a_turn('few-5--3', state => 'retry', until => clock() + interval '1 h', worker => 'dan')) ->> 'state', 'retry',
    'a held task fails and is to be retried');
select is(pg_temp.taken('few'), '{few-5--2}', 'a task that waits for its next attempt frees its slot');
select given(release(jsonb_build_array(a_turn('few-5--2'))));
select is(pg_temp.depth('few'), '[1, 0, 1, 0, 1, 0, 0]', 'a task that is given back frees its slot');
select is(pg_temp.taken('few'), '{few-5--2}', 'a task that was given back gets a slot again');
select given(terminate('few-5--4'));
select is(pg_temp.depth('few'), '[0, 0, 1, 0, 1, 0, 0]', 'a terminated task frees its slot');
select given(terminate('few-5--2'));

-- Priorities.

select set_queue('best', max_running => 2);
select pg_temp.have_tasks('best', 2, priority => 7);
select time_passes('1 s');
select pg_temp.have_tasks('best', 1, priority => 3);
select given(start('w', id => 'later', queue => 'best', priority => 0, due_at => clock() + interval '10 s'));
select is(pg_temp.taken('best'), '{best-3--1,best-7--1}',
          'slots go to the best priority, then to the task that has waited longest');
select given(start('w', id => 'free', queue => 'other', priority => 4));
select given(tell(a_turn('best-3--1', state => 'done')));
select is(
    (select array_agg(t ->> 'job') from jsonb_array_elements(take('ada', '{best,other}', 1)) as t), '{free}',
    'a queue without limits and one with compete by priority');
select is(next_due_at('{best}'), clock() + interval '10 ms', 'a queue with free slots and due tasks is due at once');
select is(pg_temp.taken('best', 1), '{best-7--2}', 'a task that is not due takes no slot');
select given(tell(a_turn('best-7--2', state => 'done')));
select is(next_due_at('{best}'), clock() + interval '10 s',
          'next_due_at() is the time of the next task if slots are free');
select time_passes('10 s');
select is(pg_temp.taken('best', 1), '{later}', 'a task gets a slot when it is due');
select set_queue('kept', max_running => 2);
select pg_temp.have_tasks('kept', 1, priority => 7);
select given(pg_temp.taken('kept'));
select time_passes('1 s');
select pg_temp.have_tasks('kept', 1, priority => 3);
select given(pg_temp.taken('kept'));
select time_passes('30 s');
select is(pg_temp.taken('kept', 1), '{kept-3--1}',
          'of the tasks that keep their slots after their leases, the best priority is claimed first');

-- max_per_key.

select set_queue('keys', max_per_key => 1);
select pg_temp.have_tasks('keys', 3, '{a,b,c}');
select is(pg_temp.taken('keys', 2), '{keys-5-a-1,keys-5-b-1}', 'each key gets its own slots');
select is(next_due_at('{keys}'), clock() + interval '10 ms', 'a queue with room for a key is due at once');
select is(pg_temp.taken('keys', 5, 'bob'), '{keys-5-c-1}',
          'a claim gets no more tasks of a key than the key has slots');
select is(next_due_at('{keys}'), clock() + interval '30 s',
          'a queue without room for any key is due when a lease ends');
select is(
    (status('keys-5-b-2')).waiting_for, 'a slot of queue keys for key ''b'' (1 of 1 taken)',
    'the status of a job names the full key');
select given(tell(a_turn('keys-5-a-1', state => 'done'), a_turn('keys-5-b-1', state => 'done')));
select is(pg_temp.taken('keys', 1), '{keys-5-a-2}', 'the key after the last one is next');
select is(pg_temp.taken('keys', 1), '{keys-5-b-2}', 'keys take turns in their order');
select given(tell(a_turn('keys-5-a-2', state => 'done'), a_turn('keys-5-b-2', state => 'done')));
select given(tell(a_turn('keys-5-c-1', state => 'done', worker => 'bob')));
select is(pg_temp.taken('keys', 1), '{keys-5-c-2}', 'a key that has not had its turn comes before those that have');
select pg_temp.have_tasks('keys', 1, '{c}', priority => 1);
select is(next_due_at('{keys}'), clock() + interval '10 ms', 'a queue with a new task of a free key is due at once');
select pg_temp.have_tasks('keys', 1, '{d}', priority => 1);
select is(pg_temp.taken('keys', 1), '{keys-1-d-1}', 'a better priority comes before the turns of keys');
select given(tell(a_turn('keys-5-c-2', state => 'done')));
select is(pg_temp.taken('keys', 9), '{keys-1-c-1,keys-5-a-3,keys-5-b-3}',
          'a task with a better priority takes the slots of its key first');
select set_queue('keys', max_per_key => 2);
select pg_temp.have_tasks('keys', 3, '{"",e}');
select is(pg_temp.taken('keys', 9, 'bob'), '{keys-5--1,keys-5-e-1,keys-5--2,keys-5-e-2,keys-5-c-3}',
          'tasks without a key share the empty one');
select is(pg_temp.depth('keys'), '[0, 2, 9, 0, 0, 0, 0]', 'queue_depths() counts the tasks that limits hold back');
select set_queue('keys', max_per_key => 2, max_running => 10);
select is(pg_temp.depth('keys'), '[0, 2, 9, 0, 0, 0, 0]',
          'queue_depths() counts tasks of a full key as held back, although slots are free');
select pg_temp.have_tasks('keys', 1, '{f,g}');
select is(pg_temp.depth('keys'), '[1, 3, 9, 0, 0, 0, 0]', 'queue_depths() applies both limits');
select is(cardinality(pg_temp.taken('keys', 9, 'cid')), 1, 'a claim applies both limits');
select set_queue('keys');
select is(pg_temp.depth('keys'), '[3, 0, 10, 0, 0, 0, 0]', 'set_queue() removes limits that it does not name');
select is(cardinality(pg_temp.taken('keys', 9, 'dan')), 3,
          'a claim gets the tasks that were in line for a limit that was removed');


-- Limits below what is held already; fractions of tokens; queues of which only one of limits and tasks exists.

select pg_temp.have_tasks('lowered', 4, '{a,b}');
select given(pg_temp.taken('lowered', 5));
select set_queue('lowered', max_running => 4);
select is(pg_temp.depth('lowered'), '[0, 3, 5, 0, 0, 0, 0]', 'a queue with more held tasks than slots has none ready');
select set_queue('lowered', max_per_key => 1);
select is(pg_temp.depth('lowered'), '[0, 3, 5, 0, 0, 0, 0]', 'a key with more held tasks than slots has none ready');
select pg_temp.have_tasks('lowered', 2, '{c}');
select is(pg_temp.depth('lowered'), '[1, 4, 5, 0, 0, 0, 0]', 'a key that is too full takes no slots from other keys');
select set_queue('fraction', rate_per_second => 0.001, burst => 1.5);
select pg_temp.have_tasks('fraction', 3);
select is(pg_temp.depth('fraction'), '[1, 2, 0, 0, 0, 0, 0]', 'a part of a token makes no task ready');
select set_queue('fraction');
select is(pg_temp.depth('fraction'), '[3, 0, 0, 0, 0, 0, 0]', 'a rate can be removed');
select set_queue('unused', max_running => 7);
select is((select jsonb_agg(jsonb_build_array(d.queue, d.ready, d.max_running)) from queue_depths('unused') as d),
          '[["unused", 0, 7]]', 'queue_depths() shows a queue with limits and no tasks');
select set_queue('Unused', max_running => 7);
select is(array(select d.queue from queue_depths() as d),
          array(select d.queue from queue_depths() as d order by convert_to(d.queue, 'UTF8')),
          'queue_depths() returns the queues in order of their names, byte by byte');

-- Paused and stuck tasks.

select pg_temp.have_tasks('odd', 3);
select given(pause('odd-5--1'));
select is((select oldest_due_at from queue_depths('odd')), clock() - interval '2 ms',
          'a paused task is not the oldest that is due');
select is(pg_temp.depth('odd'), '[2, 0, 0, 0, 0, 0, 1]', 'a paused task is not ready');
select given(pg_temp.taken('odd', worker => 'odd'));
select given(tell(a_turn('odd-5--2', state => 'stuck', worker => 'odd')));
select is(pg_temp.depth('odd'), '[0, 0, 1, 0, 0, 1, 1]', 'a stuck task is not ready');
select time_passes('31 s');
select is((select oldest_due_at from queue_depths('odd')), null, 'a task whose lease is over still counts as leased');

-- max_per_key and rate_per_second.

select set_queue('both', max_per_key => 1, rate_per_second => 1000, burst => 1);
select pg_temp.have_tasks('both', 1, '{a,b}');
select given(pg_temp.taken('both'));
select time_passes('1 ms');
select is(next_due_at('{both}'), clock() + interval '10 ms', 'a queue with a new token is due at once');

-- rate_per_second.

select set_queue('rate', rate_per_second => 2);
select pg_temp.have_tasks('rate', 8);
select is(cardinality(pg_temp.taken('rate')), 2, 'a queue begins with the tokens of one second');
select is(next_due_at('{rate}'), clock() + interval '500 ms', 'next_due_at() is the time of the next token');
select is((claim('{rate}', 'ada', since => clock())::jsonb ->> 'next_due_at')::timestamptz, clock() + interval '500 ms',
          'a claim with a mark returns the time of the next token');
select is((status('rate-5--3')).waiting_for, 'a token of queue rate, which gets 2 a second',
          'the status of a job says that it waits for a token');
select time_passes('499 ms');
select is(pg_temp.taken('rate'), '{}', 'a claim gets no task before the next token');
select time_passes('1 ms');
select is(cardinality(pg_temp.taken('rate')), 1, 'a claim gets a task with the next token');
select time_passes('250 ms');
select set_queue('rate', rate_per_second => 2);
select is(pg_temp.taken('rate'), '{}', 'setting the same rate again gives no tokens');
select time_passes('250 ms');
select is(cardinality(pg_temp.taken('rate')), 1, 'setting the same rate again loses no part of a token');
select time_passes('10 s');
select is(cardinality(pg_temp.taken('rate')), 2, 'a queue keeps no more tokens than its burst');
select set_queue('rate', rate_per_second => 0.1, burst => 2);
select time_passes('9 s');
select is(pg_temp.taken('rate'), '{}', 'a rate may be less than one token a second');
select is(next_due_at('{rate}'), clock() + interval '1 s',
          'next_due_at() is the time of a token that takes ten seconds');
select time_passes('1 s');
select is(pg_temp.taken('rate', worker => 'bob'), '{rate-5--7}',
          'a claim gets a task with a token that took ten seconds');
select set_queue('rate', rate_per_second => 0.001);
select time_passes('31 s');
select is(cardinality(pg_temp.taken('rate', worker => 'cid')), 7, 'a task whose worker was lost needs no second token');

select set_queue('twice', rate_per_second => 0.001, burst => 4);
select pg_temp.have_tasks('twice', 8);
select pg_temp.have_tasks('beside', 4);
select is(
    jsonb_array_length(take('ada', '{twice,twice}', 3)), 3,
    'a claim that names a queue twice gets as many tasks as one that names it once');
select is(cardinality(pg_temp.taken('twice')), 1, 'a claim that names a queue twice takes one token for each task');
select is(
    jsonb_array_length(take('ada', '{twice,beside,beside}', 3)), 3,
    'a claim that names a queue without limits twice gets each task once');
select set_queue('back', rate_per_second => 0.001);
select pg_temp.have_tasks('back', 3);
select is(cardinality(pg_temp.taken('back')), 1, 'a queue with a small rate begins with one token');
update queues set claimed_at = clock() + interval '1 hour' where queue = 'back';
select is(cardinality(pg_temp.taken('back')), 1, 'a clock that was set back does not delay the next token');
select is(pg_temp.taken('back'), '{}', 'a clock that was set back gives only one token');

select set_queue('slowest', rate_per_second => 1e-9);
select pg_temp.have_tasks('slowest', 2);
select is(cardinality(pg_temp.taken('slowest')), 1, 'a queue with the smallest rate begins with one token');
select is(pg_temp.taken('slowest'), '{}', 'a queue with the smallest rate gives no second task');

select set_queue('three', rate_per_second => 10);
select pg_temp.have_tasks('three', 60);
create function pg_temp.claimed_in(seconds numeric, every interval) returns integer
language plpgsql
as $$
declare
    claimed integer := 0;
begin
    for step in 1..(seconds / extract(epoch from every))::integer loop
        claimed := claimed + cardinality(pg_temp.taken('three', 100, 'ada' || step));
        perform time_passes(every);
    end loop;
    return claimed;
end
$$;
select is(pg_temp.claimed_in(3, '30 ms'), 10 + 29, 'a rate of ten gives its burst and 29 tokens in three seconds');


-- Only tasks that begin take tokens.

create function pg_temp.tokens_of(queue text) returns integer
language plpgsql
as $$
begin
    return (select q.tokens from queues as q where q.queue = tokens_of.queue);
end
$$;
select set_queue(name, rate_per_second => 0.001, burst => 9, max_per_key => per_key)
  from (values ('lost', null), ('lost in line', 5)) as queues (name, per_key);
select pg_temp.have_tasks(name, 1) from unnest('{lost,lost in line}'::text[]) as name;
select given(pg_temp.taken(name)) from unnest('{lost,lost in line}'::text[]) as name;
select pg_temp.have_tasks(name, 1, '{other}') from unnest('{lost,lost in line}'::text[]) as name;
select time_passes('31 s');
select is(cardinality(pg_temp.taken(name, worker => 'bob')), 2,
          format('%s: a claim gets the task of the lost worker and the other task', name))
  from unnest('{lost,lost in line}'::text[]) as name;
select is(pg_temp.tokens_of(name), 7, format('%s: the task of the lost worker takes no token', name))
  from unnest('{lost,lost in line}'::text[]) as name;

select set_queue('round', rate_per_second => 0.001, burst => 9, max_per_key => 1);
select pg_temp.have_tasks('round', 1, '{a,b,c}');
select given(pg_temp.taken('round', 1));
select given(pg_temp.taken('round', 9));
select is(pg_temp.tokens_of('round'), 6, 'a task that is found twice in a round of the keys takes one token');

-- Limits that are set while tasks are held.

select pg_temp.have_tasks('late', 5, '{a,b}');
select is(cardinality(pg_temp.taken('late', 4)), 4, 'a queue without limits gives as many tasks as are asked for');
select set_queue('late', max_running => 2, max_per_key => 1);
select is(pg_temp.taken('late', worker => 'bob'), '{}', 'a new limit counts the tasks that are held already');
select is((status('late-5-b-5')).waiting_for, 'a slot of queue late (4 of 2 taken)',
          'the status of a job shows how many slots are taken');
select given(release(jsonb_build_array(a_turn('late-5-a-1'), a_turn('late-5-b-1'), a_turn('late-5-a-2'))));
select is(pg_temp.taken('late', worker => 'bob'), '{late-5-a-3}',
          'a claim gets a task when enough slots are free again');
select set_queue('late', max_running => 9);
select is(cardinality(pg_temp.taken('late', worker => 'cid')), 7, 'a higher limit gives slots at once');

-- Pauses.

select have_held_job('calm');
select given(start('w', id => 'calm-2', queue => 'calm'));
select ok(pause_queue('calm'), 'a queue can be paused');
select ok(not pause_queue('calm'), 'a paused queue cannot be paused again');
select is(pg_temp.taken('calm', worker => 'bob'), '{}', 'a paused queue gives no tasks');
select is(next_due_at('{calm}'), null, 'a paused queue has no next due time');
select is(
    (status('calm-2')).waiting_for, 'somebody to resume queue calm: it is paused',
    'the status of a job says that its queue is paused');
select is(pg_temp.depth('calm'), '[0, 1, 1, 0, 0, 0, 0]', 'queue_depths() counts the tasks that a pause holds back');
select is(tell(a_turn('calm', facts => '[{"kind": "note"}]')) ->> 'state', 'keep',
          'the holder of a task of a paused queue goes on');
select time_passes('31 s');
select is(pg_temp.taken('calm', worker => 'bob'), '{}',
          'a task whose lease has ended is not claimed while its queue is paused');
select set_queue('calm', max_running => 1);
select is(pg_temp.taken('calm', worker => 'bob'), '{}', 'set_queue() does not end a pause');
select given(claim('{calm}', 'idle one', idle => true));
select ok(resume_queue('calm'), 'a queue can be resumed');
select ok(not resume_queue('calm'), 'a resumed queue cannot be resumed again');
select ok(not resume_queue('nowhere'), 'a queue that is not paused cannot be resumed');
select is(pg_temp.taken('calm', worker => 'bob'), '{calm}', 'a resumed queue gives tasks within its limits');

-- Versions of the code share the limits of a queue.

create function pg_temp.taken_of(version text, max_tasks integer default 9, worker text default 'ada') returns text[]
language plpgsql
as $$
begin
    return array(select t ->> 'job' from jsonb_array_elements(
        take(worker, served_queues('{shared}', version), max_tasks)) as t);
end
$$;
select set_queue('shared', max_running => 3);
select given(start('w', id => coalesce(v, 'any') || '-' || n, queue => 'shared', pinned_version => v, limit_key => 'k'))
  from generate_series(1, 3) as n, unnest('{v1,v2,null}'::text[]) as v;
select is(pg_temp.taken_of('v1', 2), '{v1-1,v1-2}', 'a task that is pinned to a version takes a slot of the queue');
select is(cardinality(pg_temp.taken_of('v2', worker => 'bob')), 1, 'other versions share the slots of the queue');
select is(pg_temp.taken_of(null, worker => 'cid'), '{}', 'tasks that are not pinned share the slots of the queue');
select is(pg_temp.depth('shared'), '[0, 6, 3, 0, 0, 0, 0]', 'queue_depths() counts the tasks of all versions');
select is((status('v1-3')).waiting_for, 'a slot of queue shared (3 of 3 taken)',
          'the status of a pinned job counts the slots of all versions');
select set_idle(served_queues('{shared}', 'v2') || '{shared@v3}', 'idle two', true);
select is(
    freed_queues(judge_turns(jsonb_build_array(a_turn('v1-1', state => 'done')), '{v1-1}', '{}'), clock()),
    '{shared,shared@v1,shared@v2}',
    'a free slot is announced to all versions of which tasks wait for it');
select set_queue('shared', max_per_key => 4);
select is(cardinality(pg_temp.taken_of('v2', worker => 'dan')), 1, 'all versions share the slots of a key');
select is(pg_temp.taken_of('v1', worker => 'dan'), '{}', 'a key that another version has filled has no slot');
select ok(pause_queue('shared'), 'a queue with pinned tasks can be paused');
select set_queue('shared');
select is(pg_temp.taken_of('v1', worker => 'eve'), '{}', 'a pause covers all versions');
select given(resume_queue('shared'));
select is(cardinality(pg_temp.taken_of('v1', worker => 'eve') || pg_temp.taken_of('v2', worker => 'eve')), 5,
          'a claim gets all tasks that were in line once the limits are removed');

-- Repeated claims.

select set_queue('again', max_running => 1);
select pg_temp.have_tasks('again', 2);
select is(pg_temp.taken('again'), '{again-5--1}', 'a claim gets the only slot');
select is(claim('{again}', 'ada', token_of('ada'), 5, again => true)::jsonb #>> '{tasks,0,job}', 'again-5--1',
          'a repeated claim gets the same task');
select is(jsonb_array_length(claim('{again}', 'ada', token_of('ada'), 5, again => true)::jsonb -> 'tasks'), 1,
          'a repeated claim gets no other task [P12]');

-- A task that kills its workers.

select set_queue('poison', max_running => 1, max_per_key => 1);
select pg_temp.have_tasks('poison', 2, '{a,b}');
update tasks set deliveries = max_deliveries(), awaits = '{}' where job_id in ('poison-5-a-1', 'poison-5-b-1');
select is(pg_temp.taken('poison'), '{poison-5-a-2}', 'a task that is stuck as poisonous takes no slot [P10]');
select is(pg_temp.depth('poison'), '[0, 1, 1, 0, 0, 2, 0]', 'a poisonous task is stuck, and its slot is free');

-- Hints for idle workers.

select given(claim('{few}', 'idle one', idle => true));
create function pg_temp.tells_of(job text, state text) returns text[]
language plpgsql
as $$
declare
    ended turn := (judge_turns(jsonb_build_array(a_turn(job, state => state)), array[job], '{}'))[1];
begin
    return freed_queues(array[ended], clock());
end
$$;
select pg_temp.have_tasks('told', 2);
select given(pg_temp.taken('told', 1));
select is(pg_temp.tells_of('told-5--1', 'done'), '{}', 'a turn on a queue without limits announces no slot');
select set_queue('told', max_running => 1);
select is(pg_temp.tells_of('told-5--1', state), wanted, format('a turn that ends as %s tells %s', state, wanted))
  from (values ('done', '{told}'::text[]), ('park', '{told}'), ('retry', '{told}'), ('keep', '{}'))
    as cases (state, wanted);
select given(terminate('told-5--2'));
select is(pg_temp.tells_of('told-5--1', 'done'), '{}', 'a turn on a queue where no task waits announces no slot');
select given(tell(a_turn('told-5--1', requests => '[{"key": "h", "name": "h", "queue": "beneath"},
                                                   {"key": "i", "name": "h", "queue": "beneath"}]')));
select set_queue('beneath', max_running => 1);
select given(pg_temp.taken('beneath', worker => 'bob'));
select is(pg_temp.tells_of('told-5--1', 'done'), '{beneath}',
          'a turn that ends a hook with its asker announces the slot of the hook');

select given(start('w', id => 'ever', queue => 'ever', due_at => '-infinity'));
select is(
    (select oldest_due_at from queue_depths('ever')), '0001-01-02 00:00+00'::timestamptz,
    'queue_depths() shows a task that is due since -infinity with the first date');

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a queue without a name', $$ select set_queue('', 1) $$, 'PD104'),
        ('a queue of a version', $$ select set_queue('q@v1', 1) $$, 'PD104'),
        ('a pause of a version', $$ select pause_queue('q@v1') $$, 'PD104'),
        ('a pause of no queue', $$ select pause_queue(null) $$, 'PD104'),
        ('no slot', $$ select set_queue('q', max_running => 0) $$, 'PD107'),
        ('a negative number of slots', $$ select set_queue('q', 5, max_per_key => -1) $$, 'PD107'),
        ('a rate of zero', $$ select set_queue('q', rate_per_second => 0) $$, 'PD107'),
        ('a rate that is too small', $$ select set_queue('q', rate_per_second => 1e-10) $$, 'PD107'),
        ('a negative rate', $$ select set_queue('q', rate_per_second => -1) $$, 'PD107'),
        ('a rate that is not a number', $$ select set_queue('q', rate_per_second => 'NaN') $$, 'PD107'),
        ('an infinite rate', $$ select set_queue('q', rate_per_second => 'infinity') $$, 'PD107'),
        ('a burst of less than one', $$ select set_queue('q', rate_per_second => 1, burst => 0.5) $$, 'PD107'),
        ('a burst beyond a million', $$ select set_queue('q', rate_per_second => 1, burst => 1000001) $$, 'PD107'),
        ('a rate beyond a million', $$ select set_queue('q', rate_per_second => 1000000.5) $$, 'PD107'),
        ('an infinite burst', $$ select set_queue('q', rate_per_second => 1, burst => 'infinity') $$, 'PD107'),
        ('a burst without a rate', $$ select set_queue('q', burst => 5) $$, 'PD107'),
        ('a limit key that is too long', $$ select start('w', limit_key => repeat('k', 201)) $$, 'PD104'),
        ('a limit key with a control character', $$ select hook('told-5--1', 'h', limit_key => E'a\tb') $$, 'PD104')
       ) as cases (about, statement, code);
select is(error_of($$ select set_queue('highest', rate_per_second => 1000000, burst => 1000000) $$), null,
          'a rate and a burst of a million are the highest');
select is(
    tell(a_turn('told-5--1', requests => jsonb_build_array(
        jsonb_build_object('key', 'x', 'name', 'h', 'limit_key', repeat('k', 201))))) #>> '{error,code}', 'PD104',
    'a request with a limit key that is too long is refused');
select is_empty($$ select queue from queues where queue in ('', 'q') $$, 'a refused call makes no queue');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
