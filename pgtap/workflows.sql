-- Starting workflows [P1].

begin;
select plan(91);

select the_time_is('2030-01-01 12:00+00');

-- is_plain: a start that needs no further checks.

create function pg_temp.wanted(field text, value jsonb) returns new_job
language plpgsql
as $$
begin
    return jsonb_populate_record(null::new_job, '{"id": "j", "workflow": "w", "args": [], "context": {}, "queue": "q", "priority": 5,
                                                  "if_exists": "error", "entity": "e", "key": "k", "limit_key": "l"}'
                                                || jsonb_build_object(wanted.field, wanted.value));
end
$$;

select ok(is_plain(pg_temp.wanted('priority', '0')), 'a plain start is recognized');
select is_empty(
    $$
    select field || ' ' || left(value::text, 20)
      from (select field, value
              from unnest('{id,workflow,queue,entity,key,limit_key}'::text[]) as field
             cross join unnest(array['"$own"', '"q@v"', '"a\u0007"', to_jsonb(repeat('x', 201))]) as value
             union all
            select field, '""' from unnest('{id,workflow,queue,entity,key}'::text[]) as field
             union all
            select field, 'null' from unnest('{id,workflow,queue,args,context,priority,if_exists}'::text[]) as field
             union all
            values ('args', '1'), ('args', to_jsonb(array[repeat('x', 200)])), ('context', '[]'), ('context',
            '{"n": 1}'),
                   ('priority', '-1'), ('priority', '10'), ('if_exists', '"never"'), ('timeout', '"0 s"'),
                   ('due_at', '"infinity"'), ('headers', '{}'), ('pinned_version', '"v"')) as cases (field, value)
     where is_plain(pg_temp.wanted(field, value))
    $$,
    'a start that may be refused is not plain');

-- The rows of a start.

select is(
    start('research', '["subsidies"]', 'j', entity => 'agent', queue => 'agents', priority => 2,
          due_at => '2030-01-02 00:00+00', context => '{"n": 1}', headers => '{"tenant": "t"}',
          pinned_version => 'v1', key => 'k', limit_key => 'tenant t')::text,
    '(j,t)',
    'a start returns the id of the job, and that it is new (C11)');
select is(
    the_job('j') - '{watched,paused,asked_as}'::text[],
    jsonb_build_object('queue', 'agents', 'priority', 2, 'limit_key', 'tenant t', 'timeout', null, 'forked_from', null,
                       'started_at', null, 'on_parent_end', null,
                       'id', 'j', 'entity', 'agent', 'workflow', 'research', 'status', 'running',
                       'context', '{"n": 1}'::jsonb, 'version', 1, 'run', 1, 'args', '["subsidies"]'::jsonb,
                       'result', null, 'error', null, 'parent', null, 'headers', '{"tenant": "t"}'::jsonb,
                       'pinned_version', 'v1', 'start_key', 'k', 'created_at', clock(), 'updated_at', clock(),
                       'finished_at', null),
    'a start makes a running job with all its options, in one row (C24)');
select is(the_task('j') ->> key, wanted, format('the first task of a job has the %s of its start', key))
  from (values
        ('task', '1/main'),
        ('kind', 'coordinator'),
        ('name', 'research'),
        ('queue', 'agents@v1'),
        ('priority', '2'),
        ('deliveries', '0'),
        ('pinned_version', 'v1'),
        ('limit_key', 'tenant t'),
        ('due_at', to_jsonb('2030-01-02 00:00+00'::timestamptz) #>> '{}'),
        ('token', null),
        ('asker_job', null)
       ) as wanted (key, wanted);

select is(start('research', id => 'plain')::text, '(plain,t)', 'a start needs nothing but a workflow');
select is(
    the_job('plain') ->> key,
    wanted,
    format('the %s of a job is %s by default', key, coalesce(wanted, 'null')))
  from (values
        ('entity', null),
        ('args', '[]'),
        ('context', '{}'),
        ('version', '0'),
        ('headers', null)
       ) as wanted (key, wanted);
select is(the_task('plain') ->> key, wanted, format('the %s of a task is %s by default', key, wanted))
  from (values ('queue', 'default'), ('priority', '5'), ('due_at', to_jsonb(clock()) #>> '{}')) as wanted (key, wanted);
select isnt((start('research')).id, (start('research')).id, 'each start without an id gets its own');
select is(the_job(cases.id) -> 'args', cases.args, format('arguments may be %s', about))
  from (values
        ('an array',  'args-1', '["a", {"b": [null, 1.50]}]'::jsonb),
        ('an object', 'args-2', '{"query": "x", "limit": null}'),
        ('empty',     'args-3', '[]')
       ) as cases (about, id, args)
 cross join lateral start('research', args, id => cases.id);

-- Ids that exist.

select throws_ok(
    $$ select start('research', id => 'j') $$,
    'PD402',
    'job ''j'' exists already',
    'the id of a job cannot be started again [P1] (E5)');
select throws_ok($$ select start('research', id => 'note') from entity_create('note', 'note') $$, 'PD402', null,
                 'the id of a plain entity cannot be started [P1]');
select is(
    start('other', '[1]', 'j', if_exists => 'existing')::text,
    '(j,f)',
    'if_exists of existing returns the job that exists (E5)');
select is(jsonb_build_array(the_job('j') -> 'workflow', the_job('j') -> 'args'), '["research", ["subsidies"]]',
          'an existing job is not changed');
select is(
    start('research', '["subsidies"]', 'j', key => 'k')::text,
    '(j,f)',
    'the same start with the same key is no error [P12]');
select throws_ok(
    $$ select start('research', '["subsidies"]', 'j', key => 'k2') $$,
    'PD402',
    null,
    'a start with another key is refused [P1]');
select is(
    (select count(*) from tasks where job_id = 'j'),
    1::bigint,
    'a job has one coordinator, however often it was started [P1]');
select have_held_job('over');
select given(tell(a_turn('over', state => 'done', value => '1')));
select throws_ok($$ select start('research', id => 'over') $$, 'PD402', null,
                 'the id of a finished job cannot be started again');
select is(
    start('research', id => 'over', if_exists => 'existing')::text,
    '(over,f)',
    'if_exists of existing returns a finished job');
select is(the_job('over') ->> 'status', 'completed', 'if_exists of existing does not run a finished job again');

-- if_exists => 'new_run': a new run of a job that has ended.

select throws_ok(
    $$ select start('research', id => 'j', if_exists => 'new_run') $$,
    'PD402',
    'job ''j'' is running',
    'a running job does not begin a new run');
select is(
    start('report', '["2"]', 'over', queue => 'reports', priority => 3, headers => '{"h": 1}', key => 'again',
          if_exists => 'new_run', limit_key => 'l', pinned_version => 'v2', timeout => '1 h')::text,
    '(over,t)',
    'a finished job begins a new run (E5)');
select is(
    the_job('over') - '{context,created_at,entity,asked_as,on_parent_end,parent,paused,watched,forked_from}'::text[],
    jsonb_build_object('id', 'over', 'run', 2, 'workflow', 'report', 'status', 'running', 'version', 0,
                       'args', '["2"]'::jsonb, 'result', null, 'error', null, 'finished_at', null,
                       'updated_at', clock(), 'start_key', 'again',
                       'queue', 'reports', 'priority', 3, 'limit_key', 'l', 'timeout', interval '1 h',
                       'started_at', null, 'headers', '{"h": 1}'::jsonb, 'pinned_version', 'v2'),
    'a new run has the options of its start, and nothing of the last end');
select is(tasks_of('over'), '{2/main,2/main/$deadline}', 'a new run has its own coordinator');
select is(
    the_task('over', '2/main') -> 'position',
    '0',
    'the journal of a new run is empty');
select is(
    (select jsonb_build_array(f.name, f.value, f.argument)
       from journal as f
      where f.job_id = 'over' and f.task = '$run'),
    '["start", {"status": "completed", "result": 1}, ["2"]]',
    'the journal records the new run, and the end of the last');
select is(
    start('report', '["2"]', 'over', key => 'again', if_exists => 'new_run')::text,
    '(over,f)',
    'the same start with the same key finds its own run [P12]');
select given(take('ada', '{reports@v2}'));
select given(tell(a_turn('over', '2/main', 'done')));
select is(
    start('report', id => 'over', key => 'again', if_exists => 'new_run')::text,
    '(over,f)',
    'a repeated start does not begin a third run, even after its own has ended [P12]');
select is(
    start('report', id => 'over', key => 'third', if_exists => 'new_run')::text,
    '(over,t)',
    'a start with another key begins a third run');
select is(start('report', id => 'over', key => 'again', if_exists => 'new_run')::text, '(over,f)',
          'a key is remembered when later runs have begun [P12]');
select is(start('research', id => 'fresh', context => '{"n": 1}', if_exists => 'new_run')::text, '(fresh,t)',
          'a free id begins a first run, which may have a memory');
select given(entity_create('notes', 'note', '{"n": 1}'));
select is(start('research', id => 'notes', entity => 'note', if_exists => 'new_run')::text, '(notes,t)',
          'a plain entity may have a first run');
select is(
    jsonb_build_array(the_job('notes') -> 'run', the_job('notes') -> 'context', the_job('notes') -> 'version',
                      tasks_of('notes')),
    '[1, {"n": 1}, 1, ["1/main"]]',
    'the first run of an entity keeps its memory');
select is(
    error_of(format('select start(''w'', id => ''kept'', if_exists => ''new_run'', %s)', options)),
    'PD107',
    about)
  from (values ('entity => ''other''', 'another entity for an existing memory is refused'),
               ('context => ''{"n": 2}''', 'a memory for an existing job is refused'),
               ('timeout => ''-1 s''', 'a negative timeout is refused')) as cases (options, about)
  join entity_create('kept', 'note', '{"n": 1}') on true;
select have_held_job('untyped');
select given(tell(a_turn('untyped', state => 'done')));
select is(error_of($$ select start('w', id => 'untyped', entity => 'note', if_exists => 'new_run') $$), 'PD107',
          'an entity for an existing memory without one is refused');
select is(
    (select array_agg(s::text) from start_many('[{"workflow": "w", "id": "kept", "if_exists": "new_run"},
        {"workflow": "w", "id": "kept-2", "if_exists": "new_run"}, {"workflow": "w", "id": "m-0"}]') as s),
    '{"(kept,t)","(kept-2,t)","(m-0,t)"}',
    'start_many() may begin new runs');
select throws_ok(
    $$ select start_many('[{"workflow": "w", "id": "twice", "if_exists": "new_run"},
                           {"workflow": "w", "id": "twice", "if_exists": "new_run"}]') $$,
    'PD402',
    null,
    'start_many() begins at most one run of an id');

-- What is refused.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a start without a workflow',        'select start(null)',                                  'PD104'),
        ('a start with an empty id',          'select start(''w'', id => '''')',                     'PD104'),
        ('a memory that is not an object',        'select start(''w'', context => ''[1]'')',             'PD103'),
        ('priority 10',                       'select start(''w'', priority => 10)',                 'PD107'),
        ('priority -1',                       'select start(''w'', priority => -1)',                 'PD107'),
        ('priority null',                     'select start(''w'', priority => null)',               'PD107'),
        ('an unknown value of if_exists', 'select start(''w'', if_exists => ''replace'')',      'PD107'),
        ('an if_exists of null',     'select start(''w'', id => ''j'', if_exists => null)', 'PD107'),
        ('a start without a queue',           'select start(''w'', queue => null)',                  'PD104'),
        ('an argument that is not a list',       'select start(''w'', ''"subsidies"'')',                'PD103'),
        ('a list of starts that is not a list',     'select start_many(''{"workflow": "w"}'')',            'PD107'),
        ('a start that is never due',          'select start(''w'', due_at => ''infinity'')',         'PD107'),
        ('a start after the year 9999',       'select start(''w'', due_at => ''10000-01-01Z'')',     'PD107'),
        ('a workflow with a reserved name',    'select start(''$Report'')',                           'PD104'),
        ('an id with a reserved name',         'select start(''w'', id => ''$5'')',                   'PD104'),
        ('one of many starts that is never due', 'select start_many(''[{"workflow": "w", "due_at": "Infinity"}]'')',
        'PD107'),
        ('a misspelt field',             'select start_many(''[{"workflow": "w", "queu": "q"}]'')', 'PD107'),
        ('a field that cannot be read',  'select start_many(''[{"workflow": "w", "timeout": "soon"}]'')', 'PD107'),
        ('a key without an id',   'select start(''w'', key => ''k'')',                  'PD107'),
        ('a key without an id in a list',   'select start_many(''[{"workflow": "w", "key": "k"}]'')', 'PD107')
       ) as cases (about, statement, code);
select is(
    (select count(*) from jobs where workflow = 'w' and id not in ('kept', 'kept-2', 'm-0')),
    0::bigint,
    'a refused start leaves nothing');

-- start_many.

select is((select array_agg(s::text) from start_many(jsonb_build_array(
              jsonb_build_object('workflow', 'w', 'id', 'm-2', 'args', '["x"]'::jsonb, 'priority', 1, 'queue', 'many'),
              jsonb_build_object('workflow', 'w', 'id', 'm-1', 'context', '{"n": 1}'::jsonb),
              jsonb_build_object('workflow', 'w', 'id', 'j', 'if_exists', 'existing'))) as s),
          '{"(m-2,t)","(m-1,t)","(j,f)"}', 'start_many() answers in the order of its list');
select is(
    jsonb_build_array(the_task('m-2') -> 'queue', the_task('m-2') -> 'priority', the_job('m-2') -> 'args',
                      the_job('m-1') -> 'context', the_task('m-1') -> 'queue', the_job('m-1') -> 'args'),
    '["many", 1, ["x"], {"n": 1}, "default", []]',
    'each start of a list has its own options');
select throws_ok(
    $$ select start_many('[{"workflow": "w", "id": "m-3"}, {"workflow": "w", "id": "m-1"}]') $$,
    'PD402',
    null,
    'one id that exists refuses the whole list [P1]');
select throws_ok(
    $$ select start_many('[{"workflow": "w", "id": "m-3"}, {"workflow": "", "id": "m-4"}]') $$,
    'PD104',
    null,
    'one bad name refuses the whole list');
select is(the_job('m-3'), null, 'start_many() starts all jobs or none [P1]');
select throws_ok(
    $$ select start_many('[{"workflow": "w", "id": "m-5"}, {"workflow": "w", "id": "m-5"}]') $$,
    'PD402',
    'job ''m-5'' is started twice at once',
    'an id that is twice in a list is refused [P1]');
select is((select count(*) from start_many('[]')), 0::bigint, 'an empty list is no error');
select is(
    (select count(*)
       from start_many((select jsonb_agg(jsonb_build_object('workflow', 'bulk')) from generate_series(1, 500)))
      where is_new),
    500::bigint,
    'five hundred jobs start in one call');
select is(
    (select count(distinct t.job_id) from tasks as t where t.name = 'bulk'),
    500::bigint,
    'each of them has its coordinator');

-- A start in the transaction of its caller (E7).

do $$
begin
    perform start('research', id => 'undone');
    raise exception 'undone' using errcode = 'UNDON';
exception when sqlstate 'UNDON' then
    null;
end
$$;
select is(the_job('undone'), null, 'a start is undone with the transaction of its caller [P1] (E7)');
select is(the_task('undone'), null, 'a start that is undone leaves nothing to run [P1]');

select is(
    (select insert_jobs(array_agg(jsonb_populate_record(
                null::new_job, jsonb_build_object('id', id, 'context', '{}'::jsonb))), clock())
       from unnest('{b,C,a,B}'::text[]) as id),
    '{B,C,a,b}',
    'jobs are inserted in the order in which jobs are locked, in any locale');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
