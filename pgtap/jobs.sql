-- Ordinary SQL on ordinary tables: the queries of users run as written, and use the indexes that users made (C75, C76).

begin;
select plan(24);

-- Returns the plan of a query.
create function plan_of(query text) returns text
language plpgsql
as $$
declare
    line text;
    plan text := '';
begin
    for line in execute 'explain (costs off) ' || plan_of.query loop
        plan := plan || line || E'\n';
    end loop;
    return plan;
end
$$;

-- C75: on existing memories, some of them untidy.

select given(entity_create(id, entity, context))
  from (values
        ('odd-1', 'other',          '{"isPremium": "maybe"}'::jsonb),
        ('odd-2', 'research-agent', '{}'),
        ('odd-3', 'research-agent', '{"isPremium": null}')
       ) as odd (id, entity, context);
select lives_ok(
    $$
    create index premium_agents on perdure.jobs (id)
     where entity = 'research-agent' and (context->>'isPremium')::boolean = true
$$,
    'a partial index on the memory can be made (C75)');

-- Two thousand more; one in a hundred is premium.

insert into perdure.jobs (id, entity, context)
select 'agent-' || n as id, 'research-agent' as entity, jsonb_build_object(
           'isPremium', n % 100 = 0, 'needsVerification', n % 50 = 0, 'status', 'active',
           'confidence', round(n / 2000.0, 4), 'tags', jsonb_build_array('t' || n % 70),
           'notes', repeat(md5(n::text), 30)) as context
  from generate_series(1, 2000) as n;
analyze perdure.jobs;

-- C76

select is(
    (select jsonb_agg(to_jsonb(found))
       from (select id, context->>'status' as status, context->>'confidence' as confidence
               from perdure.jobs
              where entity = 'research-agent'
                and (context->>'isPremium')::boolean = true
                and (context->>'confidence')::numeric > 0.9
              order by id) as found),
    '[{"id": "agent-1900", "status": "active", "confidence": "0.9500"},
      {"id": "agent-2000", "status": "active", "confidence": "1.0000"}]',
    'a query of the memory gives the right rows, by the ids that the user chose (C76)');
create temporary table question as
select $$ select id, context->>'status' as status, context->>'confidence' as confidence
            from perdure.jobs
           where entity = 'research-agent'
             and (context->>'isPremium')::boolean = true
             and (context->>'confidence')::numeric > 0.8 $$ as query;
set local enable_seqscan = off;
select matches(plan_of(query), 'premium_agents', 'a query of the memory can be answered from the partial index (C76)')
  from question;
set local enable_seqscan = on;
select given(entity_set('odd-1', 'false', 'isPremium'));
create statistics perdure.premium on ((context->>'isPremium')::boolean), entity from perdure.jobs;
analyze perdure.jobs;
select matches(plan_of(query), 'premium_agents',
               'PostgreSQL uses the partial index once it knows how few memories are premium (C76) (C22)')
  from question;

-- The index after changes of memories.

select given(entity_set('agent-1', 'true', 'isPremium'));
select given(entity_set('agent-100', 'false', 'isPremium'));
select given(entity_delete('agent-200', 'isPremium'));
select is(
    (select array_agg(id order by id)
       from perdure.jobs
      where entity = 'research-agent'
        and (context->>'isPremium')::boolean = true
        and id = any('{agent-1,agent-100,agent-200,agent-300}')),
    '{agent-1,agent-300}',
    'the index follows every command (C22)');
select given(start('research', id => 'agent-new', entity => 'research-agent', context => '{"isPremium": true}'));
select given(entity_create('agent-plain', 'research-agent', '{"isPremium": true}'));
select is(
    (select count(*)
       from perdure.jobs
      where entity = 'research-agent'
        and (context->>'isPremium')::boolean = true
        and id = any('{agent-new,agent-plain}')),
    2::bigint,
    'the index contains new memories (C22)');

-- Other indexes and queries of users.

select lives_ok(statement, format('%s can be made (C22)', about))
  from (values
        ('an index on documents',
         $$ create index agents_gin on perdure.jobs using gin (context jsonb_path_ops)
             where entity = 'research-agent' $$),
        ('an index on a text',
         $$ create index agents_by_status on perdure.jobs ((context->>'status')) where entity = 'research-agent' $$),
        ('an index on a number',
         $$ create index agents_by_confidence on perdure.jobs (((context->>'confidence')::numeric))
             where entity = 'research-agent' $$),
        ('an index on running jobs',
         $$ create index running_jobs on perdure.jobs (created_at) where status = 'running' $$)
       ) as cases (about, statement);
select is(
    (select array_agg(id order by id)
       from perdure.jobs
      where context @> '{"tags": ["t0"], "needsVerification": true}'),
    '{agent-1050,agent-1400,agent-1750,agent-350,agent-700}',
    'a query by containment gives the right rows (C74)');
select is(
    (select array_agg(id order by (context->>'confidence')::numeric desc)
       from (select id, context
               from perdure.jobs
              where entity = 'research-agent' and context ? 'confidence'
              order by (context->>'confidence')::numeric desc
              limit 3) as best),
    '{agent-2000,agent-1999,agent-1998}',
    'a query for the best three returns them in order');

-- The status and the memory of running jobs (C6) (C78).

select have_held_job('live', '{"phase": "research"}');
select given(tell(a_turn('live', facts => '[{"op": "set", "path": ["phase"], "value": "synthesis"}]')));
select is(
    (select context->>'phase' from perdure.jobs where id = 'live' and status = 'running'),
    'synthesis',
    'the memory of a running job is read by plain SQL (C6)');
select is(
    (select array_agg(distinct entity order by entity) from perdure.jobs where entity is not null),
    '{other,research-agent}',
    'a query by type finds the memories of that type (C18)');

-- What constraints refuse in plain SQL.

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a second memory of one id', $$ insert into perdure.jobs (id) values ('live') $$, '23505'),
        ('a memory without an id', $$ insert into perdure.jobs (entity) values ('x') $$, '23502'),
        ('a status without a workflow', $$ insert into perdure.jobs (id, status) values ('x', 'running') $$, '23514'),
        ('a workflow without a status', $$ insert into perdure.jobs (id, workflow) values ('x', 'w') $$, '23514'),
        ('a memory that is a list', $$ insert into perdure.jobs (id, context) values ('x', '[]') $$, '23514')
       ) as cases (about, statement, code);

-- Views and foreign keys of users do no harm.

select lives_ok(
    $$
    create view premium as
    select id, context->>'status' as status
      from perdure.jobs
     where entity = 'research-agent'
       and (context->>'isPremium')::boolean = true;
    create table notes (job text references perdure.jobs (id), note text)
$$,
    'views and foreign keys of users may refer to jobs');
select lives_ok($$ insert into notes values ('agent-1', 'x') $$, 'a row of a user may refer to a job');
select is(entity_set('agent-1', '"done"', 'status'), '3', 'commands work beside views and foreign keys of users');
select is((select status from premium where id = 'agent-1'), 'done', 'a view of a user sees commands');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
