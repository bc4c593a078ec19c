-- Listeners: idle workers and clients that want hints. A hint may be lost; these tests check that it is sent [P11].

begin;
select plan(68);

select the_time_is('2030-01-01 12:00+00');

select matches(channel(), '^perdure [0-9a-f]{16}$', 'the channel of an app has its own name');

-- Listening.

select listen_for('$job/a', 'client');
select listen_for('$job/b', 'client');
select listen_for('$job/a', 'client');
select is(
    (select array_agg(topic order by topic) from listeners where listener = 'client'),
    '{$job/a,$job/b}',
    'a listener that registers twice is stored once');
select listen_for('$job/a', 'another');
select stop_listening('client');
select is(
    (select array_agg(listener) from listeners),
    '{another}',
    'stop_listening() removes all topics of one listener, and no other listener');

select throws_ok(statement, 'PD104', null, format('%s is refused', left(statement, 60)))
  from unnest(array['select listen_for(null, ''client'')', 'select listen_for(''q'', null)',
                    format('select listen_for(%L, ''client'')', repeat('x', 1001)),
                    format('select listen_for(%L, ''client'')', repeat('é', 501))]) as statement;
select lives_ok(format('select listen_for(%L, ''client'')', repeat('é', 500)), 'a topic may have 1000 bytes');
select stop_listening('client');

-- Workers register, and are forgotten.

select is(
    (select array_agg(key order by key)
       from jsonb_object_keys(register_worker('ada', '{q}', '{"host": "h"}')::jsonb) as key),
    '{at,instance,queues,version}',
    'a worker that registers gets the time, the instance, the version and its queues');
select is(
    register_worker('ada', '{q,r}', '{"host": "h2"}') ->> 'version',
    perdure_version(),
    'a worker may register again');
select is(
    (select to_jsonb(w) from workers as w),
    jsonb_build_object('worker', 'ada', 'version', null, 'queues', '{q,r}'::text[], 'functions', '{}'::text[],
                       'details', '{"host": "h2"}'::jsonb,
                       'registered_at', clock(), 'seen_at', clock()),
    'a worker is stored with its queues and details');
select is(
    register_worker('ada', '{q}') ->> 'instance',
    (select value #>> '{}' from settings where name = 'instance'),
    'register_worker() returns the instance of the app');
select throws_ok(
    $$ select register_worker('bob', '{q}', protocol => 99) $$,
    'PD004',
    null,
    'a worker with another protocol is refused');
select is(error_of(format('select register_worker(''bob'', %s)', too_large)), 'PD301', format('%s is refused', about))
  from (values
        ('a list of functions beyond a megabyte', $$ '{q}', functions => array[repeat('f', 1048576)] $$),
        ('a list of queues beyond a megabyte',
         $$ array(select n || repeat('q', 100) from generate_series(1, 11000) as n) $$)
       ) as cases (about, too_large);
select given(claim('{q}', 'ada', idle => true));
select time_passes('1 s');
select given(claim('{q}', 'ada', idle => true));
select is((select array_agg(distinct clock() - l.since) from listeners as l where l.listener = 'ada'), '{1 s}',
          'a worker that stays idle listens since it began');
select forget_worker('ada');
select is(
    (select count(*) from workers) + (select count(*) from listeners where listener = 'ada'),
    0::bigint,
    'forget_worker() removes a worker and its listeners');
select given(claim('{q}', 'ada', idle => true));
select given(register_worker('ada', '{q}'));
select is((select count(*) from listeners where listener = 'ada'), 0::bigint,
          'a worker that registers again is not idle');
select given(register_worker('old', '{q}'));
select listen_for('q', 'old');
select time_passes('2 days');
select given(register_worker('new', '{q}'));
select is((select array_agg(worker) from workers), '{new}', 'a worker that is silent for two days is forgotten');
select is((select count(*) from listeners where listener = 'old'), 0::bigint,
          'the listeners of a silent worker are forgotten');
select have_held_job('beat', worker => 'new');
select time_passes('50 min');
select given(extend(jsonb_build_array(a_turn('beat', worker => 'new'))));
select time_passes('50 min');
select given(register_worker('newer', '{q}'));
select is(
    (select array_agg(worker order by worker) from workers),
    '{new,newer}',
    'a heartbeat keeps a worker known');

select given(register_worker('patient', '{q}'));
select given(claim('{q}', 'patient', idle => true));
select listen_for('q', 'somebody');
create function wait_for_a_day() returns void
language plpgsql
as $$
begin
    for n in 1 .. 50 loop
        perform time_passes('30 min');
        perform claim('{q}', 'patient', idle => true);
    end loop;
end
$$;
select wait_for_a_day();
select given(register_worker('newest', '{q}'));
select is((select array_agg(l.listener) from listeners as l where l.topic = 'q'), '{patient}',
          'a worker that is idle for a day still listens; a listener that is not a worker is forgotten');
select is((select array_agg(w.worker order by w.worker) from workers as w), '{newest,patient}',
          'claims keep an idle worker known');

-- Which topics are notified: a function that records the topics replaces the real one.

create temporary table told (topic text) on commit drop;
create or replace function perdure.notify_listeners(topics text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, perdure, pg_temp
as $$
begin
    insert into told (topic) select t from unnest(notify_listeners.topics) as t;
end
$$;

create function topics_of(statement text) returns text[]
language plpgsql
as $$
begin
    delete from told;
    execute topics_of.statement;
    return array(select distinct t.topic from told as t order by t.topic);
end
$$;

select have_held_job(id) from unnest('{j,k,r,parent}'::text[]) as id;
select given(hook('j', 'h', key => 'held', queue => 'hooks'));
select given(take('ada', '{hooks}'));
select given(tell(a_turn('parent',
                         requests => '[{"key": "h", "name": "h", "queue": "ph", "signal": "s"},
                                       {"key": "c", "kind": "job", "name": "c", "queue": "pc"}]')));
select given(take('ada', '{ph,pc}', 2));
select given(tell(a_turn('parent', state => 'park')));
create temporary table hints (number serial, about text, statement text, wanted text[]) on commit drop;
insert into hints (about, statement, wanted) values
    ('a start', $$ select start('w', queue => 'q') $$, '{q}'),
    ('many starts',
     $$ select start_many('[{"workflow": "w", "queue": "q"}, {"workflow": "w", "queue": "q2"}]') $$, '{q,q2}'),
    ('a hook', $$ select hook('j', 'h', queue => 'q', key => 'x') $$, '{q}'),
    ('a repeated hook', $$ select hook('j', 'h', queue => 'q', key => 'x') $$, '{}'),
    ('a signal that nobody awaits', $$ select signal('j', 'later') $$, '{}'),
    ('a turn that is kept', $$ select tell(a_turn('j', facts => '[{"kind": "note"}]')) $$, '{}'),
    ('a request',
     $$ select tell(a_turn('j', requests => '[{"key": "a", "name": "a", "queue": "q"},
                                            {"key": "b", "kind": "job", "name": "b", "queue": "q2"}]')) $$, '{q,q2}'),
    ('a repeated request',
     $$ select tell(a_turn('j', requests => '[{"key": "a", "name": "a", "queue": "q"}]')) $$, '{}'),
    ('a park until a signal', $$ select tell(a_turn('j', state => 'park', awaits => '{go}')) $$, '{}'),
    ('a signal that is awaited', $$ select signal('j', 'go') $$, '{j}'),
    ('a second signal', $$ select signal('j', 'go') $$, '{}'),
    ('a park until a time',
     $$ select tell(a_turn('k', state => 'park', until => clock() + interval '1 h')) $$, '{k}'),
    ('a request to cancel', $$ select cancel('k') $$, '{k}'),
    ('a retry', $$ select tell(a_turn('r', state => 'retry')) $$, '{r}'),
    ('a signal from a turn',
     $$ select tell(a_turn('j', '$hook/held', facts => '[{"signal": "s", "target": "parent"}]')) $$, '{}'),
    ('an early answer', $$ select tell(a_turn('parent', '1/main/h', facts => '[{"signal": "s"}]')) $$, '{parent}'),
    ('the end of a child',
     $$ select tell(a_turn('parent/c', state => 'done', touches => '{parent}')) $$, '{$job/parent/c,$memory/parent/c}'),
    ('the end of a hook from outside', $$ select tell(a_turn('j', '$hook/held', 'done')) $$, '{$job/j}'),
    ('the end of a job', $$ select terminate('k') $$, '{$job/k,$memory/k}'),
    ('another run', $$ select retry('k') $$, '{k}'),
    ('another version', $$ select repin('k', '7') $$, '{k@7}'),
    ('a command', $$ select entity_set('k', '1', 'a') $$, '{}');
select is(
    topics_of(statement),
    wanted,
    format('listeners that %s notifies: %s', about, coalesce(nullif(array_to_string(wanted, ' and '), ''), 'nobody')))
  from (select * from hints order by number) as hints;

select given(take('ada', '{r}', claim_as => 'x'));
select is(
    topics_of($$ select release(jsonb_build_array(a_turn('r', worker => 'x'))) $$),
    '{r}',
    'a released lease notifies its queue');
select given(take('ada', '{r}', claim_as => 'y'));
select given(tell(a_turn('r', state => 'stuck', worker => 'y')));
select is(topics_of($$ select resume('r') $$), '{r}', 'a resumed task notifies its queue');

-- Activities, items, conditions, children, queues and schedules.

select have_held_job(id) from unnest('{asks,waits,ends,gives,decides,leaves,renews}'::text[]) as id;
select given(tell(a_turn('asks', state => 'park',
                         requests => '[{"key": "a#1", "kind": "activity", "name": "a", "queue": "aa"},
                                       {"key": "h#1", "name": "h", "queue": "ah"}]')));
select given(take('bob', '{ah}'));
select given(tell(a_turn('asks', '1/main/h#1', 'park', awaits => '{go}', worker => 'bob')));
select given(tell(a_turn('waits', state => 'park',
                         requests => '[{"key": "u#1", "kind": "until", "condition": "$.n > 1"}]')));
select given(tell(a_turn('ends', state => 'done',
                         requests => '[{"key": "c#1", "kind": "job", "name": "c", "queue": "ec"}]')));
select given(take('clock', '{$sql}'));
select given(create_schedule('daily', 'w', '@daily'));
select given(tell(a_turn('gives', state => 'park',
                         requests => '[{"key": "a#1", "kind": "activity", "name": "a", "queue": "ga"},
                                       {"key": "a#2", "kind": "activity", "name": "a", "queue": "ga"}]')));
select given(tell(a_turn('decides', state => 'park', requests => '[{"key": "i#1", "kind": "item", "name": "sign"}]')));
select given(take('bob', '{ga}', 2));
select given(tell(a_turn('renews', requests => '[{"key": "c#1", "kind": "job", "name": "c", "queue": "rc"}]')));
select is(
    topics_of(statement), wanted,
    format('listeners that %s notifies: %s', about, array_to_string(wanted, ' and ')))
  from (values
        ('an attempt that is to be retried',
         $$ select fail_task('gives', '1/main/a#1', token_of('bob'), null, clock()) $$, '{ga}'::text[]),
        ('the end of an activity', $$ select finish_task('gives', '1/main/a#2', token_of('bob')) $$, '{gives}'),
        ('a resolution', $$ select resolve_item(i.id) from items as i $$, '{decides}'),
        ('a limit', $$ select set_queue('limited', max_running => 1) $$, '{limited}'),
        ('the end of a pause', $$ select pause_queue('limited'), resume_queue('limited') $$, '{limited}'),
        ('a new schedule', $$ select create_schedule('new', 'w', '@daily') $$, '{$memory/$schedule/new,$sql}'),
        ('another definition of a schedule', $$ select create_schedule('daily', 'w', '@hourly') $$,
         '{$memory/$schedule/daily,$sql}'),
        ('the end of a job with children',
         $$ select tell(a_turn('leaves', state => 'done',
                               requests => '[{"key": "c#1", "kind": "job", "name": "c", "queue": "lc"}]')) $$,
         '{$job/leaves,$memory/leaves,$sql,lc}'),
        ('a new run of a job with children', $$ select tell(a_turn('renews', state => 'continue')) $$, '{$sql,renews}'),
        ('the end of an activity that nobody holds', $$ select cancel_hook('asks', '1/main/a#1') $$, '{asks}'),
        ('a request to cancel a hook', $$ select cancel_hook('asks', '1/main/h#1') $$, '{ah}'),
        ('a command that meets a condition', $$ select entity_set('waits', '2', 'n') $$, '{$memory/waits,waits}'),
        ('a change of a schedule', $$ select entity_set('$schedule/daily', '"ada"', 'owner') $$,
         '{$memory/$schedule/daily,$sql}'),
        ('the task that cancels children', $$ select run_task('ends', '$parent_end/1/main', token_of('clock')) $$,
         '{ec}')
       ) as cases (about, statement, wanted);

-- A message to a held task notifies its worker, if that listens.

select have_held_job(id, worker => worker) from (values ('h', 'listens'), ('b', 'busy')) as held (id, worker);
select given(claim('{idle}', 'listens', idle => true));
select is(
    (select array_agg(l.topic order by l.topic) from listeners as l where l.listener = 'listens'),
    '{$messages/listens,idle}',
    'an idle claim listens for hints of its queues and for messages to held tasks');
select is(topics_of($$ select signal('h', 'go') $$), '{$messages/listens}',
          'a signal to a held job notifies its worker');
select is(topics_of($$ select signal('b', 'go') $$), '{}',
          'a signal to a job whose worker does not listen notifies nobody');
select time_passes('1 s');
select given(hook('h', 'h', key => 'new', queue => 'q'));
select is(topics_of($$ select cancel('h') $$), '{$messages/listens}',
          'a request to cancel a held task notifies its worker');
select is(wake_tasks('{h}', clock() + interval '1 s'), '{}', 'a message that came earlier is not notified again');

-- No hint is needed: the next claim finds the work [P11].

select is(
    take('ada', '{q}', 10) @> '[{"name": "w"}]',
    true,
    'the next claim finds work without a hint [P11]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
