-- Pages: where they begin and how many rows they have, in all verbs that return or change a part.

begin;
select plan(32);

select have_held_job('paged');
select given(entity_set('paged', '1', 'n'));
select given(entity_log('paged', 'log', '[1, 2]'));
select define_contract('kind', '{}');
select given(entity_create('of a kind', 'kind', '{"n": 1}'));
select given(start('research', id => id, entity => 'kind', queue => queue))
  from (values ('due', 'paged'), ('over', 'nobody')) as jobs (id, queue);
select given(terminate('over'));
select have_held_job('again');
select given(tell(a_turn('again', facts => '[{"kind": "note", "key": "k", "ok": true}]')));
select given(tell(a_turn('again', state => 'continue')));
select given(tell(a_turn('paged', requests => '[{"key": "i#1", "kind": "item", "name": "look"}]')));
select given(publish('paged', '1/main', token_of('ada'), 's', '[1, 2]'));
create function pg_temp.nothing(job text, args jsonb) returns void language sql as '';
select register_sql_hook('nothing', 'pg_temp.nothing');
select given(hook('of a kind', 'nothing', queue => '$sql'));

create function pg_temp.rows_of(statement text) returns text
language plpgsql
as $$
declare
    told text;
begin
    execute format('select count(*) from (%s) as page', statement) into told;
    raise no_data_found;  -- what it did is undone
exception
    when no_data_found then
        return told;
    when others then
        return sqlstate;
end
$$;

-- The number of rows. For every verb: zero returns nothing, a negative number is refused, and null means the maximum.

create temporary table parts (verb name, statement text) on commit drop;
insert into parts
values ('advance', $$ json_array_elements(advance('[]', '{paged}', 'ada', max_tasks => %s) -> 'tasks') $$),
       ('assert_histories', $$ assert_histories(max_jobs => %s) $$),
       ('broken_contracts', $$ broken_contracts('kind', '{"required": ["x"]}', max_rows => %s) $$),
       ('cancel_found', $$ cancel_found('kind', '{}', max_jobs => %s) $$),
       ('claim', $$ json_array_elements(claim('{paged}', 'ada', max_tasks => %s) -> 'tasks') $$),
       ('entity_history', $$ entity_history('paged', max_rows => %s) $$),
       ('entity_items', $$ entity_items('paged', 'log', max_rows => %s) $$),
       ('family', $$ family('paged', max_rows => %s) $$),
       ('find', $$ find('kind', '{}', max_rows => %s) $$),
       ('forget_finished', $$ generate_series(1, forget_finished('infinity', max_jobs => %s)) $$),
       ('forget_old_runs', $$ generate_series(1, forget_old_runs('again', max_rows => %s)) $$),
       ('list_items', $$ list_items(max_rows => %s) $$),
       ('list_jobs', $$ list_jobs(max_rows => %s) $$),
       ('read_journal', $$ json_array_elements(read_journal('paged', '$outside', max_rows => %s)) $$),
       ('run_until_idle', $$ generate_series(1, run_until_idle(max_turns => %s)) $$),
       ('running_coordinators', $$ running_coordinators(max_rows => %s) $$),
       ('signal_found', $$ signal_found('kind', '{}', 'go', max_jobs => %s) $$),
       ('stream_items', $$ stream_items('paged', 's', max_rows => %s) $$),
       ('timeline', $$ timeline('paged', max_rows => %s) $$);

select set_eq(
    $$ select p.proname
         from pg_proc as p
        where p.pronamespace = 'perdure'::regnamespace
          and p.proargnames[p.pronargs - p.pronargdefaults + 1:p.pronargs] && array['max_rows', 'max_jobs', 'max_tasks',
          'max_turns']
          and p.proname <> all('{find_query,run_sql_hooks}') $$,  -- the words of find(); and what commits: tests/worker
    'select verb from parts',
    'the verbs with a number of rows are complete');
select is(
    (select array_agg(distinct a.name::text order by a.name::text)
       from pg_proc as p
      cross join unnest(p.proargnames[p.pronargs - p.pronargdefaults + 1:p.pronargs]) as a (name)
      where p.pronamespace = 'perdure'::regnamespace
        and a.name ~ '^max_'),
    '{max_jobs,max_per_key,max_rows,max_running,max_tasks,max_turns}',
    'only these parameters and the limits of queues begin with max_');

update journal set argument = '2' where job_id = 'paged' and op = 'set';
select is(
    array(select pg_temp.rows_of(format('select from' || statement, n))
            from unnest('{0,-1,null::integer}'::text[]) as n),
    array['0', 'PD107', pg_temp.rows_of(format('select from' || statement, 1000))],
    format('zero rows are none, -1 is refused, null is the maximum: %s', verb))
  from parts
 order by verb;
select is_empty(
    $$ select verb from parts where pg_temp.rows_of(format('select from' || statement, 1000)) !~ '^[1-9]' $$,
    'each of these verbs has rows to return');
update journal set argument = '1' where job_id = 'paged' and op = 'set';

select is(pg_temp.rows_of(statement), rows, format('after null begins at the first row: %s', statement))
  from (values
        ($$ select entity_history('paged', after => null) $$, '3'),
        ($$ select entity_items('paged', 'log', after => null) $$, '2'),
        ($$ select entity_items('paged', 'log', after => null, last => 5) $$, '2'),
        ($$ select broken_contracts('kind', '{"required": ["x"]}', after => null) $$, '1'),
        ($$ select running_coordinators(after => null) $$, '3'),
        ($$ select list_jobs(after => null) $$, '4'),
        ($$ select json_array_elements(read_journal('paged', '$outside', after => null)) $$, '3'),
        ($$ select signal_found('kind', '{}', 'go', after => null) $$, '1'),
        ($$ select cancel_found('kind', '{}', after => null) $$, '1')
       ) as cases (statement, rows);


select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
