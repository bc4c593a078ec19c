-- Queues: limits on what runs at a time, for each key, and on how much begins in a second; pauses; depths (E13).

begin;
select plan(129);

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

-- Which tasks a claim takes, by the keys of the jobs.
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

-- At a time.

select set_queue('few', max_running => 2);
select pg_temp.have_tasks('few', 4);
select is(cardinality(pg_temp.taken('few')), 2, 'no more tasks are claimed than a queue has slots');
select is(pg_temp.taken('few', worker => 'bob'), '{}', 'while the slots are taken nobody gets any');
select is(
    (status('few-5--3')).waiting_for, 'a slot of queue few (2 of 2 taken)', 'a status says what a task waits for');
select is(next_due_at('{few}'), clock() + interval '30 s', 'a worker looks again when a lease ends');
select is(tell(a_turn('few-5--1', state => 'done')) ->> 'state', 'done', 'a task that ends');
select is(pg_temp.taken('few', worker => 'bob'), '{few-5--3}', '… sets its slot free');
select is(tell(a_turn('few-5--2', state => 'park', awaits => '{go}')) ->> 'state', 'parked', 'a task that parks');
select is(pg_temp.taken('few', worker => 'cid'), '{few-5--4}', '… sets its slot free');
select given(signal('few-5--2', 'go'));
select is(pg_temp.taken('few'), '{}', 'a task that wakes needs a slot again');
select time_passes('30 s');
select is((select array_agg(t order by t) from unnest(pg_temp.taken('few', worker => 'dan')) as t),
          '{few-5--3,few-5--4}', 'a task whose lease has ended has its slot, and is claimed again');
select is(cardinality(pg_temp.taken('few', worker => 'dan')), 0, 'and no other is [P6]');
select is(
    tell(a_turn('few-5--3', state => 'retry', until => clock() + interval '1 h', worker => 'dan')) ->> 'state', 'retry',
    'a task that is tried again later');
select is(pg_temp.taken('few'), '{few-5--2}', '… sets its slot free');
select given(release(jsonb_build_array(a_turn('few-5--2'))));
select is(pg_temp.depth('few'), '[1, 0, 1, 0, 1, 0, 0]', 'a task that is given back does, too');
select is(pg_temp.taken('few'), '{few-5--2}', 'and waits for another');
select given(terminate('few-5--4'));
select is(pg_temp.depth('few'), '[0, 0, 1, 0, 1, 0, 0]', 'a task that is terminated sets its slot free');
select given(terminate('few-5--2'));

-- Best first.

select set_queue('best', max_running => 2);
select pg_temp.have_tasks('best', 2, priority => 7);
select time_passes('1 s');
select pg_temp.have_tasks('best', 1, priority => 3);
select given(start('w', id => 'later', queue => 'best', priority => 0, due_at => clock() + interval '10 s'));
select is(pg_temp.taken('best'), '{best-3--1,best-7--1}', 'slots go by priority, then to whom waits longest');
select given(start('w', id => 'free', queue => 'other', priority => 4));
select given(tell(a_turn('best-3--1', state => 'done')));
select is(
    (select array_agg(t ->> 'job') from jsonb_array_elements(take('ada', '{best,other}', 1)) as t), '{free}',
    'a queue without limits and one with compete by priority');
select is(next_due_at('{best}'), clock() + interval '10 ms', 'with room and work, a worker looks again at once');
select is(pg_temp.taken('best', 1), '{best-7--2}', 'what is not due takes no slot');
select given(tell(a_turn('best-7--2', state => 'done')));
select is(next_due_at('{best}'), clock() + interval '10 s', 'a worker is told when the next task is due');
select time_passes('10 s');
select is(pg_temp.taken('best', 1), '{later}', 'and gets a slot when it is due');

-- For each key.

select set_queue('keys', max_per_key => 1);
select pg_temp.have_tasks('keys', 3, '{a,b,c}');
select is(pg_temp.taken('keys', 2), '{keys-5-a-1,keys-5-b-1}', 'each key gets its share');
select is(next_due_at('{keys}'), clock() + interval '10 ms', 'while a key has room, a worker looks again at once');
select is(pg_temp.taken('keys', 5, 'bob'), '{keys-5-c-1}', 'and no more, however many wait under it');
select is(next_due_at('{keys}'), clock() + interval '30 s', 'where each key is full, when a lease ends');
select is(
    (status('keys-5-b-2')).waiting_for, 'a slot of queue keys for key ''b'' (1 of 1 taken)', 'a status names the key');
select given(tell(a_turn('keys-5-a-1', state => 'done'), a_turn('keys-5-b-1', state => 'done')));
select is(pg_temp.taken('keys', 1), '{keys-5-a-2}', 'keys take turns');
select is(pg_temp.taken('keys', 1), '{keys-5-b-2}', 'in their order');
select given(tell(a_turn('keys-5-a-2', state => 'done'), a_turn('keys-5-b-2', state => 'done')));
select given(tell(a_turn('keys-5-c-1', state => 'done', worker => 'bob')));
select is(pg_temp.taken('keys', 1), '{keys-5-c-2}', 'a key whose turn is next comes before those that had theirs');
select pg_temp.have_tasks('keys', 1, '{c}', priority => 1);
select is(next_due_at('{keys}'), clock() + interval '10 ms', 'what is not in line yet may have room');
select pg_temp.have_tasks('keys', 1, '{d}', priority => 1);
select is(pg_temp.taken('keys', 1), '{keys-1-d-1}', 'a better priority comes before any turn');
select given(tell(a_turn('keys-5-c-2', state => 'done')));
select is(pg_temp.taken('keys', 9), '{keys-1-c-1,keys-5-a-3,keys-5-b-3}',
          'what has a better priority takes the slots of its key first');
select set_queue('keys', max_per_key => 2);
select pg_temp.have_tasks('keys', 3, '{"",e}');
select is(pg_temp.taken('keys', 9, 'bob'), '{keys-5--1,keys-5-e-1,keys-5--2,keys-5-e-2,keys-5-c-3}',
          'tasks without a key share the empty one');
select is(pg_temp.depth('keys'), '[0, 2, 9, 0, 0, 0, 0]', 'a depth tells what limits hold back');
select set_queue('keys', max_per_key => 2, max_running => 10);
select is(pg_temp.depth('keys'), '[0, 2, 9, 0, 0, 0, 0]', 'more slots do not help those whose key is full');
select pg_temp.have_tasks('keys', 1, '{f,g}');
select is(pg_temp.depth('keys'), '[1, 3, 9, 0, 0, 0, 0]', 'both limits hold');
select is(cardinality(pg_temp.taken('keys', 9, 'cid')), 1, 'so a claim finds it, too');
select set_queue('keys');
select is(pg_temp.depth('keys'), '[3, 0, 10, 0, 0, 0, 0]', 'limits that are not named again are gone');
select is(cardinality(pg_temp.taken('keys', 9, 'dan')), 3, 'what stood in line under its key is found without');

-- Under keys, and in a second.

select set_queue('both', max_per_key => 1, rate_per_second => 1000, burst => 1);
select pg_temp.have_tasks('both', 1, '{a,b}');
select given(pg_temp.taken('both'));
select time_passes('1 ms');
select is(next_due_at('{both}'), clock() + interval '10 ms', 'a token that has come meanwhile is not waited for');

-- In a second.

select set_queue('rate', rate_per_second => 2);
select pg_temp.have_tasks('rate', 8);
select is(cardinality(pg_temp.taken('rate')), 2, 'a queue has at first what comes in a second');
select is(next_due_at('{rate}'), clock() + interval '500 ms', 'a worker is told when the next token comes');
select is((claim('{rate}', 'ada', since => clock())::jsonb ->> 'next_due_at')::timestamptz, clock() + interval '500 ms',
          'also where it searched from a mark');
select is((status('rate-5--3')).waiting_for, 'a token of queue rate, which gets 2 a second', 'a status says so');
select time_passes('499 ms');
select is(pg_temp.taken('rate'), '{}', 'no token comes early');
select time_passes('1 ms');
select is(cardinality(pg_temp.taken('rate')), 1, 'a token comes in its time');
select time_passes('250 ms');
select set_queue('rate', rate_per_second => 2);
select is(pg_temp.taken('rate'), '{}', 'who says his limits again gets no tokens by it');
select time_passes('250 ms');
select is(cardinality(pg_temp.taken('rate')), 1, 'and loses none');
select time_passes('10 s');
select is(cardinality(pg_temp.taken('rate')), 2, 'a queue keeps no more tokens than its burst');
select set_queue('rate', rate_per_second => 0.1, burst => 2);
select time_passes('9 s');
select is(pg_temp.taken('rate'), '{}', 'a rate may be less than one a second');
select is(next_due_at('{rate}'), clock() + interval '1 s', 'and a worker sleeps as long');
select time_passes('1 s');
select is(pg_temp.taken('rate', worker => 'bob'), '{rate-5--7}', 'it comes in its time');
select set_queue('rate', rate_per_second => 0.001);
select time_passes('31 s');
select is(cardinality(pg_temp.taken('rate', worker => 'cid')), 7, 'a task whose worker was lost pays no second token');

select set_queue('twice', rate_per_second => 0.001, burst => 4);
select pg_temp.have_tasks('twice', 8);
select pg_temp.have_tasks('beside', 4);
select is(
    jsonb_array_length(take('ada', '{twice,twice}', 3)), 3, 'a queue that is named twice gives as many tasks as one');
select is(cardinality(pg_temp.taken('twice')), 1, 'and they cost a token each');
select is(
    jsonb_array_length(take('ada', '{twice,beside,beside}', 3)), 3, 'so does one without limits beside it');
select set_queue('back', rate_per_second => 0.001);
select pg_temp.have_tasks('back', 3);
select is(cardinality(pg_temp.taken('back')), 1, 'a queue of a small rate has one token at first');
update queues set claimed_at = clock() + interval '1 hour' where queue = 'back';
select is(cardinality(pg_temp.taken('back')), 1, 'a clock that was set back keeps nobody waiting for a token');
select is(pg_temp.taken('back'), '{}', 'nor does it give more than one');

select set_queue('slowest', rate_per_second => 1e-9);
select pg_temp.have_tasks('slowest', 2);
select is(cardinality(pg_temp.taken('slowest')), 1, 'the smallest rate that there is gives a token');
select is(pg_temp.taken('slowest'), '{}', '… and claims without one give nothing');

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
select is(pg_temp.claimed_in(3, '30 ms'), 10 + 29, 'gives in three seconds its burst, and ten in each, to the token');


-- Tokens are for what begins.

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
select is(cardinality(pg_temp.taken(name, worker => 'bob')), 2, format('%s: what lost its worker comes, too', name))
  from unnest('{lost,lost in line}'::text[]) as name;
select is(pg_temp.tokens_of(name), 7, format('%s: it pays no token, the others do', name))
  from unnest('{lost,lost in line}'::text[]) as name;

select set_queue('round', rate_per_second => 0.001, burst => 9, max_per_key => 1);
select pg_temp.have_tasks('round', 1, '{a,b,c}');
select given(pg_temp.taken('round', 1));
select given(pg_temp.taken('round', 9));
select is(pg_temp.tokens_of('round'), 6, 'a round of the keys ends where it began: none is counted twice');

-- What was there before the limit.

select pg_temp.have_tasks('late', 5, '{a,b}');
select is(cardinality(pg_temp.taken('late', 4)), 4, 'a queue without limits gives what is asked for');
select set_queue('late', max_running => 2, max_per_key => 1);
select is(pg_temp.taken('late', worker => 'bob'), '{}', 'a limit counts what was held before it');
select is((status('late-5-b-5')).waiting_for, 'a slot of queue late (4 of 2 taken)', 'a status tells by how many');
select given(release(jsonb_build_array(a_turn('late-5-a-1'), a_turn('late-5-b-1'), a_turn('late-5-a-2'))));
select is(pg_temp.taken('late', worker => 'bob'), '{late-5-a-3}', 'until there is room');
select set_queue('late', max_running => 9);
select is(cardinality(pg_temp.taken('late', worker => 'cid')), 7, 'a limit that is raised gives room at once');

-- Pauses.

select have_held_job('calm');
select given(start('w', id => 'calm-2', queue => 'calm'));
select ok(pause_queue('calm'), 'a queue can be paused');
select ok(not pause_queue('calm'), 'once');
select is(pg_temp.taken('calm', worker => 'bob'), '{}', 'a paused queue gives nothing');
select is(next_due_at('{calm}'), null, 'and nobody looks for anything in it');
select is(
    (status('calm-2')).waiting_for, 'somebody to resume queue calm: it is paused', 'a status says that it is paused');
select is(pg_temp.depth('calm'), '[0, 1, 1, 0, 0, 0, 0]', 'a depth tells what the pause holds back');
select is(tell(a_turn('calm', facts => '[{"kind": "note"}]')) ->> 'state', 'keep', 'who holds a task of it goes on');
select time_passes('31 s');
select is(pg_temp.taken('calm', worker => 'bob'), '{}', 'a lease that ends is nobody''s while the queue is paused');
select set_queue('calm', max_running => 1);
select is(pg_temp.taken('calm', worker => 'bob'), '{}', 'to set limits does not end a pause');
select given(claim('{calm}', 'idle one', idle => true));
select ok(resume_queue('calm'), 'a queue can be resumed');
select ok(not resume_queue('calm'), 'once');
select ok(not resume_queue('nowhere'), 'a queue that nobody has paused is not resumed');
select is(pg_temp.taken('calm', worker => 'bob'), '{calm}', 'and goes on, within its limits');

-- Versions of the code: a queue has its limits for all of them together.

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
select is(pg_temp.taken_of('v1', 2), '{v1-1,v1-2}', 'what is pinned to a version takes slots');
select is(cardinality(pg_temp.taken_of('v2', worker => 'bob')), 1, 'which other versions do not get');
select is(pg_temp.taken_of(null, worker => 'cid'), '{}', 'nor what is pinned to none');
select is(pg_temp.depth('shared'), '[0, 6, 3, 0, 0, 0, 0]', 'a depth counts all of them');
select is((status('v1-3')).waiting_for, 'a slot of queue shared (3 of 3 taken)', 'a status says so to each');
select is(
    freed_queues(judge_turns(jsonb_build_array(a_turn('v1-1', state => 'done')), '{v1-1}', '{}'), clock()), '{shared}',
    'a slot that becomes free is told on the queue that workers of all versions serve');
select set_queue('shared', max_per_key => 4);
select is(cardinality(pg_temp.taken_of('v2', worker => 'dan')), 1, 'a key is one key in all versions');
select is(pg_temp.taken_of('v1', worker => 'dan'), '{}', 'so none is left for others');
select ok(pause_queue('shared'), 'a queue is paused');
select set_queue('shared');
select is(pg_temp.taken_of('v1', worker => 'eve'), '{}', 'for all versions');
select given(resume_queue('shared'));
select is(cardinality(pg_temp.taken_of('v1', worker => 'eve') || pg_temp.taken_of('v2', worker => 'eve')), 5,
          'all that stood in line is found again');

-- A claim that is repeated.

select set_queue('again', max_running => 1);
select pg_temp.have_tasks('again', 2);
select is(pg_temp.taken('again'), '{again-5--1}', 'a slot is given');
select is(claim('{again}', 'ada', token_of('ada'), 5, again => true)::jsonb #>> '{tasks,0,job}', 'again-5--1',
          'a repeated claim gets the same task');
select is(jsonb_array_length(claim('{again}', 'ada', token_of('ada'), 5, again => true)::jsonb -> 'tasks'), 1,
          'and no other [P12]');

-- A task that nobody survives.

select set_queue('poison', max_running => 1, max_per_key => 1);
select pg_temp.have_tasks('poison', 2, '{a,b}');
update tasks set deliveries = max_deliveries() where job_id in ('poison-5-a-1', 'poison-5-b-1');
select is(pg_temp.taken('poison'), '{poison-5-a-2}', 'what is parked as poisonous takes no slot from others [P10]');
select is(pg_temp.depth('poison'), '[0, 1, 1, 0, 0, 2, 0]', 'it is stuck, and no slot is lost');

-- Idle workers are told.

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
select is(pg_temp.tells_of('told-5--1', 'done'), '{}', 'where there is no limit nobody waits for a slot');
select set_queue('told', max_running => 1);
select is(pg_temp.tells_of('told-5--1', state), wanted, format('a turn that ends as %s tells %s', state, wanted))
  from (values ('done', '{told}'::text[]), ('park', '{told}'), ('retry', '{told}'), ('keep', '{}'))
    as cases (state, wanted);
select given(terminate('told-5--2'));
select is(pg_temp.tells_of('told-5--1', 'done'), '{}', 'where nobody waits nobody is told');
select given(tell(a_turn('told-5--1', requests => '[{"key": "h", "name": "h", "queue": "beneath"},
                                                   {"key": "i", "name": "h", "queue": "beneath"}]')));
select set_queue('beneath', max_running => 1);
select given(pg_temp.taken('beneath', worker => 'bob'));
select is(pg_temp.tells_of('told-5--1', 'done'), '{beneath}', 'what ends with its asker sets its slot free, too');

select given(start('w', id => 'ever', queue => 'ever', due_at => '-infinity'));
select is(
    (select oldest_due_at from queue_depths('ever')), '0001-01-02 00:00+00'::timestamptz,
    'of a task that was due since ever is told a time that has a date');

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a queue without a name', $$ select set_queue('', 1) $$, 'PD104'),
        ('a queue of a version', $$ select set_queue('q@v1', 1) $$, 'PD104'),
        ('a pause of a version', $$ select pause_queue('q@v1') $$, 'PD104'),
        ('a pause of no queue', $$ select pause_queue(null) $$, 'PD104'),
        ('no slot', $$ select set_queue('q', max_running => 0) $$, 'PD107'),
        ('less than no slot', $$ select set_queue('q', 5, max_per_key => -1) $$, 'PD107'),
        ('no rate', $$ select set_queue('q', rate_per_second => 0) $$, 'PD107'),
        ('a rate of less than one in thirty years', $$ select set_queue('q', rate_per_second => 1e-10) $$, 'PD107'),
        ('a rate backwards', $$ select set_queue('q', rate_per_second => -1) $$, 'PD107'),
        ('a rate that is no number', $$ select set_queue('q', rate_per_second => 'NaN') $$, 'PD107'),
        ('a rate without end', $$ select set_queue('q', rate_per_second => 'infinity') $$, 'PD107'),
        ('a burst of nothing', $$ select set_queue('q', rate_per_second => 1, burst => 0.5) $$, 'PD107'),
        ('an endless burst', $$ select set_queue('q', rate_per_second => 1, burst => 'infinity') $$, 'PD107'),
        ('a burst without a rate', $$ select set_queue('q', burst => 5) $$, 'PD107'),
        ('a limit key that is no name', $$ select start('w', limit_key => repeat('k', 201)) $$, 'PD104'),
        ('a limit key in control characters', $$ select hook('told-5--1', 'h', limit_key => E'a\tb') $$, 'PD104')
       ) as cases (about, statement, code);
select is(
    tell(a_turn('told-5--1', requests => jsonb_build_array(
        jsonb_build_object('key', 'x', 'name', 'h', 'limit_key', repeat('k', 201))))) #>> '{error,code}', 'PD104',
    'a limit key that is no name is refused in a request');
select is_empty($$ select queue from queues where queue in ('', 'q') $$, 'what is refused leaves nothing behind');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
