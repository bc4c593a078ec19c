-- Verbs on many jobs: all running jobs that find() finds. [P5] (E15)

begin;
select plan(48);

select the_time_is('2030-01-01 12:00+00');

create function told(answers text) returns text
language plpgsql
as $$
declare
    told text;
begin
    execute format('select string_agg(id || case when is_new then '''' else '' again'' end, '', '') from %s as a', answers)
       into told;
    return coalesce(told, '');
end
$$;

select given(start('agent', id => id, entity => 'agent', context => jsonb_build_object('n', n)))
  from (values ('a', 1), ('b', 2), ('c', 3), ('d', 2), ('over', 2)) as jobs (id, n);
select given(start('agent', id => 'stranger', entity => 'other', context => '{"n": 2}'));
select given(entity_create('plain', 'agent', '{"n": 2}'));
select given(terminate('over'));

-- Signals.

select is(
    told($$ signal_found('agent', '{"n": 2}', 'go', '"p"', 'k') $$),
    'b, d',
    'a signal reaches the running jobs of the entity that meet the conditions');
select is(
    (select string_agg(i.job_id || i.name || i.payload, ' ' order by i.job_id)
       from inbox as i
      where i.name is not null),
    'bgo"p" dgo"p"',
    'each of these jobs, and no other, has the signal in its inbox');
select is(
    told($$ signal_found('agent', '{"n": {"$gte": 2}}', 'go', '"p"', 'k') $$),
    'b again, c, d again',
    'a signal with a key is sent to a job once [P12]');
select is(told($$ signal_found('agent', '{"n": 9}', 'go') $$), '', 'a signal reaches no job if none is found');
select is(told($$ signal_found('nobody', '{}', 'go') $$), '', 'a signal to an entity without memories reaches no job');
select is(told($$ signal_found('agent', '{}', 'all', max_jobs => 2) $$), 'a, b',
          'a page has the first jobs in the order of their ids');
select is(
    told($$ signal_found('agent', '{}', 'all', after => 'b', max_jobs => 2) $$), 'c, d',
    'the next page begins after the given id');
select is(told($$ signal_found('agent', '{}', 'all', after => 'd') $$), '', 'the page after the last job is empty');
select is(
    told($$ signal_found('agent', '{"$or": [{"n": 1}, {"n": 3}]}', 'either') $$),
    'a, c',
    'conditions are those of find()');
select have_held_job('w');
select given(tell(a_turn('w', state => 'park', awaits => '{wake}')));
update jobs set entity = 'sleeper' where id = 'w';
select is(told($$ signal_found('sleeper', '{}', 'wake') $$), 'w', 'a signal reaches a parked job');
select is((the_task('w') ->> 'due_at')::timestamptz, clock(), 'the parked job wakes');

-- More jobs than are looked at together.

select given(start_many((select jsonb_agg(jsonb_build_object('workflow', 'w', 'entity', 'crowd', 'id', n))
                           from generate_series(1000, 2000) as n)));
select is(
    cardinality(still_found('crowd', '{}', '', array(select n::text from generate_series(1001, 2000) as n))), 1000,
    'a thousand locked jobs are found again, although others came between them');

-- Conditions as large as find() accepts.

create temporary table large as
select about, conditions
  from (values
        ('nine $and in each other', (repeat('{"$and": [', 9) || '{"n": 1}' || repeat(']}', 9))::jsonb),
        ('2000 values', jsonb_build_object(
            'n', jsonb_build_object('$in', (select jsonb_agg(n) from generate_series(1, 1997) as n))))
       ) as cases (about, conditions);
select is((select min(f.id) from find('agent', l.conditions) as f), 'a', format('%s can be asked of find()', l.about))
  from large as l;
select is(
    told(format($$ signal_found('agent', %L, 'large', max_jobs => 1) $$, l.conditions)), 'a',
    format('%s can be asked of signal_found()', l.about))
  from large as l;

-- Bad input.

select throws_ok(
    $$ select signal_found('agent', '{}', '') $$, 'PD104', null,
    'an empty name of a signal is refused, even if no job is found');
select throws_ok($$ select signal_found('', '{}', 'go') $$, 'PD104', null, 'an empty entity is refused');
select throws_ok(
    $$ select signal_found('agent', '{"n": {"$near": 2}}', 'go') $$, 'PD107', null, 'an unknown operator is refused');
select throws_ok(
    $$ select signal_found('agent', '{"a..b": 2}', 'go') $$, 'PD101', null, 'a path that does not parse is refused');
select throws_ok($$ select signal_found('agent', null, 'go') $$, 'PD107', null, 'conditions of null are refused');
select throws_ok(
    $$ select signal_found('agent', '{}', 'go', max_jobs => 1001) $$, 'PD107', null, 'a page has at most 1000 jobs');
select throws_ok(
    $$ select signal_found('agent', '{}', 'go', to_jsonb(repeat('x', 1100000))) $$, 'PD301', null,
    'a payload that is too large is refused');
select is((select count(*)::integer from inbox as i where i.name = 'go'), 3, 'a refused call signals no job');

-- cancel_found.

select is(told($$ cancel_found('agent', '{"n": 2}', 'enough') $$), 'b, d', 'many jobs can be asked to cancel');
select is(
    (select string_agg(i.job_id || ' ' || i.payload, ', ' order by i.job_id) from inbox as i where i.key = '$cancel'),
    'b "enough", d "enough"',
    'each job receives the reason (E2)');
select is(told($$ cancel_found('agent', '{"n": {"$gte": 2}}') $$), 'b again, c, d again',
          'a job is asked to cancel only once');
select is(told($$ cancel_found('agent', '{}', after => 'a', max_jobs => 1) $$), 'b again',
          'cancel_found() works page by page');
select throws_ok($$ select cancel_found('agent', '[]') $$, 'PD107', null,
                 'conditions that are not an object are refused');

-- signal_with_start: a signal to a job that may have to be started first.

select is(
    signal_with_start('agent', 'new', 'go', '"p"', args => '["x"]', entity => 'agent', key => 'once')::text,
    '(new,t)',
    'a job that does not exist is started');
select is(mail_of('new'), '[[null, "go", true, "p"]]', 'the started job has the signal [P5]');
select is(
    signal_with_start('agent', 'new', 'go', '"p"', key => 'once')::text || mail_of('new'),
    '(new,f)[[null, "go", true, "p"]]',
    'a call with a key may be repeated [P12]');
select is(
    signal_with_start('agent', 'new', 'go', '"q"')::text || mail_of('new'),
    '(new,f)[[null, "go", true, "p"], [null, "go", true, "q"]]',
    'a running job gets the signal');
select throws_ok(
    $$ select signal_with_start('agent', 'over', 'go') $$, 'PD403', null, 'a job that has finished takes no signal');
select throws_ok(
    $$ select signal_with_start('agent', null, 'go', key => 'k') $$, 'PD107', null,
    'a key without an id is refused');
select throws_ok(
    $$ select signal_with_start('agent', 'never', '') $$, 'PD104', null, 'a wrong signal refuses the start too');

-- if_exists => 'new_run': a signal with which a finished job runs again.

select is(
    signal_with_start('agent', 'over', 'go', '"r"', args => '["again"]', key => 'r', if_exists => 'new_run')::text
        || (the_job('over') ->> 'run') || mail_of('over'),
    '(over,t)2[[null, "go", true, "r"]]',
    'a finished job begins a new run, which has the signal [P5] (E5)');
select is(
    jsonb_build_array(the_job('over') -> 'args', the_job('over') -> 'context', the_job('over') -> 'start_key'),
    '[["again"], {"n": 2}, "r"]',
    'the new run has the arguments of the call and the existing memory');
select is(
    signal_with_start('agent', 'over', 'go', '"s"', key => 's', if_exists => 'new_run')::text || mail_of('over'),
    '(over,f)[[null, "go", true, "r"], [null, "go", true, "s"]]',
    'a running job gets the signal and no new run');
select given(terminate('over'));
select is(
    signal_with_start('agent', 'over', 'go', '"r"', key => key, if_exists => 'new_run')::text
        || (the_job('over') ->> 'status'),
    '(over,f)cancelled',
    format('a call that has %s may be repeated after that run, and begins no other [P12]', about))
  from (values ('r', 'begun a run'), ('s', 'signalled a running job')) as calls (key, about);
select is(
    signal_with_start('agent', 'plain', 'go', if_exists => 'new_run')::text || mail_of('plain'),
    '(plain,t)[[null, "go", true, null]]',
    'a plain entity may have its first run');
select is(
    signal_with_start('agent', 'fresh', 'go', context => '{"n": 1}', if_exists => 'new_run')::text,
    '(fresh,t)',
    'a free id begins a first run, which may have a memory');
select is(
    error_of(format('select signal_with_start(''agent'', ''over'', %s)', options)) || (the_job('over') ->> 'run'),
    code || '2',
    about)
  from (values
        ('''go'', if_exists => ''new_run'', context => ''{"n": 1}''', 'PD107',
        'a memory for a job that exists is refused'),
        ('''go'', if_exists => ''error''', 'PD107', 'if_exists of error is refused'),
        ('''go'', if_exists => null', 'PD107', 'if_exists of null is refused'),
        (''''', if_exists => ''new_run''', 'PD104', 'a wrong signal begins no run'))
        as cases (options, code, about);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
