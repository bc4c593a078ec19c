-- Rates per key: each key of a queue begins so many turns a second, whatever the others do (E13).

begin;
select plan(86);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.have_tasks(queue text, many integer, keys text[] default '{""}', priority integer default 5,
                                   version text default null)
returns void
language plpgsql
as $$
begin
    perform start('w', id => concat_ws('-', queue, priority, k.key, version, n), queue => queue, limit_key => k.key,
                  priority => priority, pinned_version => version, due_at => clock() - interval '1 ms' * (many - n + 1))
       from generate_series(1, many) as n, unnest(keys) as k (key);
end
$$;

-- Returns the jobs of the tasks that a claim gets, without the name of the queue.
create function pg_temp.taken(queue text, max_tasks integer default 10, worker text default 'ada') returns text[]
language plpgsql
as $$
begin
    return array(select substr(t ->> 'job', strpos(t ->> 'job', '-') + 1)
                   from jsonb_array_elements(take(worker, array[queue], max_tasks)) as t
                  order by (t ->> 'job') collate "C");
end
$$;

create function pg_temp.keys_of(queue text) returns text[]
language plpgsql
as $$
begin
    return array(select k.limit_key from key_tokens as k where k.queue = keys_of.queue order by 1);
end
$$;

create function pg_temp.lines_of(queue text) returns text[]
language plpgsql
as $$
begin
    return array(select concat_ws(' ', l.priority, l.limit_key, extract(epoch from l.turn_at - clock())::numeric(9, 1))
                   from lines as l where l.queue = lines_of.queue order by 1);
end
$$;

-- A plan that sorts lines, or finds them by another index, reads the lines of all keys.

select is(array(select p.proname::text
                  from pg_proc as p
                 where p.pronamespace = 'perdure'::regnamespace
                   and p.prosrc ~ 'from lines as l[^;]*turn_at <?>?=? ?[a-z_]+[.]now_at'
                   and (p.proconfig @> '{enable_sort=off,enable_bitmapscan=off}'
                        and p.prosrc ~ 'order by l[.]turn_at, l[.]limit_key') is not true),
          '{}', 'whoever looks for a turn reads lines in their order, by the index');

-- Tokens of each key.

select set_queue('q', rate_per_key => 2);
select pg_temp.have_tasks('q', 5, '{a,b,""}');
select is(pg_temp.taken('q'), '{5--1,5--2,5-a-1,5-a-2,5-b-1,5-b-2}',
          'each key begins with the tokens of one second; tasks without a key share the empty one');
select is(pg_temp.taken('q', worker => 'bob'), '{}', 'a claim gets no task of a key without a token');
select is((select jsonb_build_array(d.ready, d.held_back, d.rate_per_key, d.burst_per_key) from queue_depths('q') as d),
          '[0, 9, 2, 2]', 'queue_depths() counts tasks of keys without a token as held back');
select is((status('q-5-a-3')).waiting_for, 'a token of queue q for key ''a'', which gets 2 a second',
          'the status of a job names the key that has no token');
select is(next_due_at('{q}'), clock() + interval '500 ms', 'next_due_at() is the time of the next token of a key');
select is((claim('{q}', 'ada', since => clock())::jsonb ->> 'next_due_at')::timestamptz, clock() + interval '500 ms',
          'a claim with a mark returns the time of the next token of a key');
select time_passes('499 ms');
select is(pg_temp.taken('q'), '{}', 'a claim gets no task before the next token of a key');
select time_passes('1 ms');
select pg_temp.have_tasks('q', 1, '{c}');
select is(next_due_at('{q}'), clock() + interval '10 ms', 'a queue with a key that has a token is due at once');
select is(pg_temp.taken('q', 2), '{5--3,5-a-3}', 'the keys whose tokens came first take their turns first');
select is(pg_temp.taken('q', 2, 'bob'), '{5-b-3,5-c-1}', 'then the key that came later has its turn');
select is(pg_temp.taken('q', 9, 'cid'), '{}', 'each key got one token in half a second');
select time_passes('10 s');
select is(pg_temp.taken('q'), '{5--4,5--5,5-a-4,5-a-5,5-b-4,5-b-5}', 'a key keeps no more tokens than its burst');
select is(next_due_at('{q}'), clock() + interval '19.5 s', 'a queue without tasks in line waits for no token');

-- A rate of less than one a second.

select set_queue('slow', rate_per_key => 20.0 / 60 / 20, burst_per_key => 1);
select pg_temp.have_tasks('slow', 3, '{a,b}');
select is(pg_temp.taken('slow', 1), '{5-a-1}', 'the first key has its turn');
select is(pg_temp.taken('slow', 1), '{5-b-1}', 'the key that has not had its turn comes before the one that has');
select is(pg_temp.taken('slow'), '{}', 'one task a minute begins under each key');
select time_passes('59 s');
select is(pg_temp.taken('slow', 9, 'bob'), '{5-a-1,5-b-1}', 'a task whose worker was lost needs no second token');
select is((next_due_at('{slow}') - clock()) between interval '1 s' and interval '1001 ms', true,
          'next_due_at() is the time of a token that takes a minute');
select time_passes('1001 ms');
select is(pg_temp.taken('slow'), '{5-a-2,5-b-2}', 'after a minute each key has one more');

-- Keys that have all their tokens are forgotten.

select set_queue('idle', rate_per_key => 1, burst_per_key => 2);
select pg_temp.have_tasks('idle', 1, '{a,b,c}');
select is(pg_temp.keys_of('idle'), '{}', 'a key that has not been used has no row');
select given(pg_temp.taken('idle'));
select is(pg_temp.keys_of('idle'), '{a,b,c}', 'the tokens of a key that is used are counted');
select is(pg_temp.lines_of('idle'), '{}', 'a key without tasks has no line');
select time_passes('999 ms');
select pg_temp.have_tasks('idle', 2, '{d}');
select given(pg_temp.taken('idle', 1));
select is(pg_temp.keys_of('idle'), '{a,b,c,d}', 'no key is forgotten before it has all its tokens');
select time_passes('1 ms');
select given(pg_temp.taken('idle', 1));
select is(pg_temp.keys_of('idle'), '{c,d}', 'a claim forgets two keys for each task that it takes');

-- Priorities, and versions of the code.

select set_queue('best', rate_per_key => 1);
select pg_temp.have_tasks('best', 1, '{a,b}', 7);
select pg_temp.have_tasks('best', 1, '{a}', 3);
select is(pg_temp.taken('best'), '{3-a-1,7-b-1}', 'a task with a better priority takes the token of its key');
select is(pg_temp.taken('best'), '{}', 'a task of another priority waits for the same token');
select is(pg_temp.lines_of('best'), '{"7 a 1.0"}', 'so does its line, when a claim has found that out');
select time_passes('1 s');
select pg_temp.have_tasks('best', 1, '{b}', 4);
select is(pg_temp.taken('best', 1), '{4-b-1}', 'the best priority is first, whoever waits longer');
select is(pg_temp.taken('best', 1), '{7-a-1}', 'then the next priority has its turn');

select set_queue('shared', rate_per_key => 1, burst_per_key => 3);
select pg_temp.have_tasks('shared', 2, '{a}', version => v) from unnest('{v1,v2,null}'::text[]) as v;
select is(pg_temp.taken('shared@v1', 9), '{5-a-v1-1,5-a-v1-2}', 'a task that is pinned takes a token of its key');
select is(cardinality(pg_temp.taken('shared@v2', 9)), 1, 'all versions share the tokens of a key');
select is(pg_temp.taken('shared', 9), '{}', 'tasks that are not pinned share them too');
select is((status('shared-5-a-v2-2')).waiting_for, 'a token of queue shared for key ''a'', which gets 1 a second',
          'a pinned job waits for a token of its key');
select is(next_due_at('{shared@v1}'), clock() + interval '30 s', 'a version without tasks waits for a lease');
select is(next_due_at('{shared@v2,shared@v1}'), clock() + interval '1 s', 'a version with tasks waits for a token');
select given(repin('shared-5-a-v2-2', 'v3'));
select time_passes('1 s');
select is(pg_temp.taken('shared@v2'), '{}', 'a task that was repinned is gone from its line');
select is(pg_temp.lines_of('shared@v2'), '{}', 'a claim removes the line that it has left');
select is(pg_temp.taken('shared@v3'), '{5-a-v2-2}', 'a task that was repinned is in line under its new version');

-- Together with other limits.

select set_queue('both', max_per_key => 1, rate_per_key => 1000, burst_per_key => 5);
select pg_temp.have_tasks('both', 3, '{a,b}');
select is(pg_temp.taken('both'), '{5-a-1,5-b-1}', 'a key with tokens gets no more tasks than it has slots');
select is(next_due_at('{both}'), clock() + interval '30 s', 'a queue whose keys lack slots waits for no token');
select given(tell(a_turn('both-5-a-1', state => 'done')));
select is(next_due_at('{both}'), clock() + interval '10 ms', 'a key with a slot and a token is due at once');
select is(pg_temp.taken('both'), '{5-a-2}', 'a slot that is free again is given to a key with tokens');

select set_queue('total', rate_per_second => 2, burst => 2, rate_per_key => 1);
select pg_temp.have_tasks('total', 2, '{a,b,c}');
select is(pg_temp.taken('total'), '{5-a-1,5-b-1}', 'the rate of the queue holds for all keys together');
select is(next_due_at('{total}'), clock() + interval '500 ms', 'a queue without a token waits for its own first');
select time_passes('500 ms');
select is(pg_temp.taken('total'), '{5-c-1}', 'a token of the queue is for a key that has one');
select time_passes('500 ms');
select is(pg_temp.taken('total'), '{5-a-2}', 'each claim takes a token of both');

select set_queue('slots', max_running => 1, rate_per_key => 1);
select pg_temp.have_tasks('slots', 2, '{a}');
select given(pg_temp.taken('slots'));
select is(next_due_at('{slots}'), clock() + interval '30 s', 'a full queue waits for no token of a key');

-- Limits that change.

select set_queue('change', max_per_key => 5);
select pg_temp.have_tasks('change', 4, '{a,b}');
select given(pg_temp.taken('change', 1));
select set_queue('change', max_per_key => 5, rate_per_key => 1);
select is(pg_temp.taken('change'), '{5-a-2,5-b-1}', 'tasks that stand in line get a rate per key');
select set_queue('change', rate_per_key => 1);
select is(pg_temp.taken('change'), '{}', 'setting the same rate again gives no tokens');
select time_passes('250 ms');
select set_queue('change', rate_per_key => 1);
select is(next_due_at('{change}'), clock() + interval '750 ms', 'setting the same rate again loses no part of a token');
select set_queue('change', rate_per_key => 3, burst_per_key => 1);
select is(pg_temp.taken('change'), '{}', 'a higher rate gives no tokens at once');
select is(next_due_at('{change}'), clock() + interval '250 ms', 'the next token comes at the new rate');
select time_passes('250 ms');
select is(pg_temp.taken('change', 1), '{5-a-3}', 'a claim gets a task at the new rate');
select set_queue('change', max_per_key => 9);
select is(pg_temp.keys_of('change') || pg_temp.lines_of('change'), '{}', 'a rate that is removed leaves nothing');
select is(pg_temp.taken('change', 1), '{5-b-2}', 'tasks that stood in line are found without a rate');
select set_queue('change', rate_per_key => 1);
select given(pause('change-5-b-3'));
select set_queue('change');
select is(pg_temp.taken('change'), '{5-a-4,5-b-4}', 'a claim gets all tasks that stood in line if no limit is left');

-- Tasks that leave their line.

select set_queue('left', rate_per_key => 1);
select pg_temp.have_tasks('left', 1, '{a,b,c}');
select pg_temp.have_tasks('left', 1, '{d}', 9);
select is(pg_temp.taken('left', 1), '{5-a-1}', 'the other keys stand in line');
select given(terminate('left-5-b-1'));
select given(pause('left-5-c-1'));
select is(pg_temp.taken('left'), '{9-d-1}', 'tasks that ended or are paused are passed over');
select is(pg_temp.lines_of('left'), '{}', 'a claim removes lines without tasks');
select is(next_due_at('{left}'), clock() + interval '30 s', 'lines without tasks let no worker look again');
select given(resume('left-5-c-1'));
select is(pg_temp.taken('left'), '{5-c-1}', 'a task whose pause ends stands in line again');

-- A task whose priority somebody changes leaves its line.

select set_queue('raised', rate_per_key => 1);
select pg_temp.have_tasks('raised', 3, '{a}');
select is(pg_temp.taken('raised'), '{5-a-1}', 'tasks stand in line in their order');
update tasks set priority = 0, in_line = false where job_id = 'raised-5-a-3';
select time_passes('1 s');
select is(pg_temp.taken('raised'), '{5-a-3}', 'a task that was given a better priority goes before its line');

-- What keys and old versions have left goes when the limits are set, as programs do at each start.

select set_queue('old', rate_per_key => 1);
select pg_temp.have_tasks('old', 1, '{a,b}', version => 'v1');
select pg_temp.have_tasks('old', 2, '{c}', version => 'v2');
select pg_temp.have_tasks('old', 2, '{d}');
select given(pg_temp.taken('old@v1', 1) || pg_temp.taken('old@v2') || pg_temp.taken('old'));
select given(repin('old-5-b-v1-1', 'v3'));
select is(pg_temp.lines_of('old@v1'), '{"5 b 0.0"}', 'a task that is repinned leaves its line');
select time_passes('1 s');
select set_queue('old', rate_per_key => 1);
select is(pg_temp.lines_of('old@v1'), '{}', 'set_queue() removes the lines of a version that has no tasks in line');
select is(pg_temp.lines_of('old@v2') || pg_temp.lines_of('old'), '{"5 c 0.0","5 d 0.0"}',
          'set_queue() keeps all other lines');
select is(pg_temp.keys_of('old'), '{}', 'set_queue() forgets keys that have all their tokens');

-- A clock that was set back.

select set_queue('back', rate_per_key => 0.001);
select pg_temp.have_tasks('back', 3, '{a}');
select given(pg_temp.taken('back'));
update queues set claimed_at = clock() + interval '1 hour' where queue = 'back';
update key_tokens set counted_at = clock() + interval '1 hour' where queue = 'back';
update lines set turn_at = clock() + interval '2 hours' where queue = 'back';
select is(pg_temp.taken('back'), '{5-a-2}', 'a clock that was set back does not delay the next token of a key');
select is(pg_temp.taken('back'), '{}', 'a clock that was set back gives only one token to a key');
update queues set claimed_at = clock() + interval '1 hour' where queue = 'back';
update key_tokens set counted_at = clock() + interval '1 hour' where queue = 'back';
update lines set turn_at = clock() + interval '2 hours' where queue = 'back';
select set_queue('back', rate_per_key => 0.001);
select is(pg_temp.taken('back'), '{5-a-3}', 'neither does a clock that was set back before the same rate is set again');

select set_queue('ahead', max_per_key => 1, rate_per_key => 1);
select pg_temp.have_tasks('ahead', 1, '{a}');
select given(pg_temp.taken('ahead'));
select time_passes('10 s');
select given(start('w', id => 'ahead-5-a-2', queue => 'ahead', limit_key => 'a'));
select is(pg_temp.taken('ahead', worker => 'bob'), '{}', 'a task stands in line for the slot of its key');
select the_time_is(clock() - interval '8 s');
select given(tell(a_turn('ahead-5-a-1', state => 'done')));
select is(pg_temp.taken('ahead'), '{5-a-2}', 'a clock that was set back does not hide a line that was opened since');
select time_passes('8 s');

-- Limits that are set beneath what is held.

select set_queue('lowered', max_per_key => 9);
select pg_temp.have_tasks('lowered', 3, '{a}');
select is(cardinality(pg_temp.taken('lowered')), 3, 'three tasks are held');
select set_queue('lowered', max_running => 2, max_per_key => 9);
select time_passes('1 s');
select pg_temp.have_tasks('lowered', 1, '{b}');
select is(pg_temp.taken('lowered', worker => 'bob'), '{}', 'nothing is claimed beyond the new limit');
select is_empty('select * from assert_invariants()', 'what was held before may be more than the new limit');
select set_queue('lowered');

-- Tasks that kill their workers.

select set_queue('poison', rate_per_key => 0.001);
select pg_temp.have_tasks('poison', 2, '{a}');
update tasks set deliveries = max_deliveries(), awaits = '{}' where job_id = 'poison-5-a-1';
select is(pg_temp.taken('poison'), '{5-a-2}', 'a task that is stuck as poisonous takes no token of its key [P10]');
select set_queue('lost', rate_per_key => 0.001, burst_per_key => 9);
select pg_temp.have_tasks('lost', 1, '{a}');
select given(pg_temp.taken('lost'));
update tasks set deliveries = 5 where job_id = 'lost-5-a-1';
select time_passes('31 s');
select is(pg_temp.taken('lost', worker => 'bob'), '{5-a-1}', 'a suspect is claimed again');
select is((select k.tokens::integer from key_tokens as k where k.queue = 'lost'), 8, 'it takes no second token');

-- Extremes, and what is refused.

select set_queue('slowest', rate_per_key => 1e-9, burst_per_key => 1000000);
select pg_temp.have_tasks('slowest', 20, '{a}');
select is(cardinality(pg_temp.taken('slowest', 20)), 20, 'the smallest rate and the highest burst are valid together');
select is((select k.full_at from key_tokens as k where k.queue = 'slowest'), 'infinity',
          'a key that would be full after six hundred years is never forgotten');
select is(error_of(format('select set_queue(''q'', %s)', limits)), 'PD107', format('%s is refused', limits))
  from unnest(array['rate_per_key => 0', 'rate_per_key => 1e7', 'burst_per_key => 2',
                    'rate_per_key => 1, burst_per_key => 0.5']) as limits;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
