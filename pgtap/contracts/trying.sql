-- A contract is tried on existing documents, and one statement moves many documents to a new contract.

begin;
select plan(23);

select the_time_is('2030-01-01 12:00+00');
select given(entity_create('n-' || n, 'note', jsonb_build_object('n', n, 'name', 'x' || n))) from generate_series(1,
9) as n;
select given(entity_create('n-bad', 'note', '{"n": "x"}'));
select given(entity_create('n-empty', 'note'));
select given(entity_create('n-log', 'note'));
select given(entity_log('n-log', 'seen', '"x"'));
select given(entity_create('m-1', 'memo', '{"n": "x"}'));

-- broken_contracts

select is(
    (select jsonb_agg(to_jsonb(b)) from broken_contracts('note',
     '{"properties": {"n": {"type": "number", "maximum": 8}}}') as b),
    '[{"id": "n-9", "path": "n", "rule": "maximum",
       "message": "n is a number, but the contract of note wants at most 8"},
      {"id": "n-bad", "path": "n", "rule": "type",
       "message": "n is a string of length 1, but the contract of note wants a number"}]',
    'broken_contracts() tries a schema before it is defined');
select is(
    array(select b.id from broken_contracts('note', '{"required": ["none"]}', after => 'n-7', max_rows => 2) as b),
    '{n-8,n-9}', 'broken_contracts() returns pages');
select is_empty($$ select * from broken_contracts('note', '{"properties": {"n": {}}}') $$,
'no document breaks a schema without rules');
select is_empty($$ select * from broken_contracts('note', '{"required": ["n"]}') $$,
'an empty document breaks no contract, even with a log');
select throws_ok($$ select * from broken_contracts('note') $$, 'PD107', 'entity ''note'' has no contract',
                 'broken_contracts() of an entity without a contract needs a schema');
select is(error_of($$ select * from broken_contracts('note', '{"typ": 1}') $$), 'PD107',
          'broken_contracts() refuses a wrong schema');
select define_contract('note', '{"properties": {"n": {"type": "number"}}}');
select is(array(select b.id from broken_contracts('note') as b), '{n-bad}',
          'broken_contracts() finds documents that are older than their contract');
select is(array(select b.id from broken_contracts('note', '{"properties": {"n": {"maximum": 8}}}') as b), '{n-9}',
          'broken_contracts() tries a schema instead of the contract');
select is(array(select b.id from broken_contracts('note', after => null) as b), '{n-bad}',
          'broken_contracts() after null begins at the beginning');
select given(entity_create('emptied', 'emptied', '{"n": 1}'));
select given(entity_delete('emptied'));
select is(array(select b.id from broken_contracts('emptied', '{"required": ["n"]}') as b), '{emptied}',
          'a document that was emptied may break a contract');
select is(the_job('n-bad') -> 'version', '1', 'define_contract() does not change documents');

-- A migration: n becomes the object {"value": n}. First the new contract is tried on what the statement would write.

create temporary table next_contract as
select '{"properties": {"n": {"type": "object", "required": ["value"], "properties": {
             "value": {"type": "number"}}}}}'::jsonb as schema;
create temporary table held as
select jsonb_agg(to_jsonb(j) order by j.id) as jobs, (select count(*) from journal) as facts from jobs as j;
select define_contract('note', schema) from next_contract;
select throws_ok(
    $$ update perdure.jobs set context = context || jsonb_build_object('n', jsonb_build_object('value', context -> 'n'))
        where entity = 'note' and context ? 'n' $$,
    'PD109', 'n.value is a string of length 1, but the contract of note wants a number',
    'one document that breaks the contract refuses the whole statement');
select is((select jsonb_agg(to_jsonb(j) order by j.id) from jobs as j), jobs,
          'a refused statement leaves every document as it was')
  from held;
select is((select count(*) from journal), facts, 'a refused statement leaves no row in the journal') from held;

select given(entity_set('n-bad', '{"n": {"value": 0}}'));
update perdure.jobs set context = context || jsonb_build_object('n', jsonb_build_object('value', context -> 'n'))
 where entity = 'note' and jsonb_typeof(context -> 'n') = 'number';
select is((select count(*) from jobs as j where j.version = 2 and j.context #> '{n,value}' is not null), 10::bigint,
          'one statement changes many documents, and each gets a version [P3]');
select is((select count(*) from history as h where h.version = 2 and h.op = 'set' and h.path = '{}'), 10::bigint,
          'each document that a statement changes is in the history (C21)');
select is(the_job('n-3') -> 'context', '{"n": {"value": 3}, "name": "x3"}',
          'a statement keeps the rest of a document');
select is_empty($$ select * from broken_contracts('note') $$,
'after the migration no document breaks the contract');
select is(the_job('m-1') -> 'version', '1', 'documents of other entities are not changed');
select is(entity_increment('n-3', 'n.value'), '4', 'commands work on the new shape');

create function refusal_detail(statement text) returns text
language plpgsql
as $$
declare
    detail text;
begin
    execute refusal_detail.statement;
    return null;
exception when others then
    get stacked diagnostics detail = pg_exception_detail;
    return detail;
end
$$;
select is(
    refusal_detail($$ update perdure.jobs set context = '{"n": 1}' where id = 'n-5' $$),
    'The rule is type. Nothing was written: this would be the memory of ''n-5''.',
    'the error of a refused statement names the document');
select is(error_of($$ update perdure.jobs set context = '{"n": 1}' where entity = 'memo' $$), null,
          'documents of entities without a contract may be anything');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
