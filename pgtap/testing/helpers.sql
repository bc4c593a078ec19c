-- Assertions for the tests of users: their output when they hold and when they fail.

begin;
select plan(17);

select lives_ok($$ select create_test_helpers() $$, 'create_test_helpers() creates the assertions');
select lives_ok($$ select create_test_helpers() $$, 'create_test_helpers() may be repeated');
select is_empty($$
    select p.proname
      from pg_proc as p
     where p.oid in ('is_memory'::regproc, 'is_status'::regproc, 'is_result'::regproc, 'has_history'::regproc,
                     'has_tasks'::regproc, 'holds_its_laws'::regproc)
       and (has_function_privilege('public', p.oid, 'execute') or obj_description(p.oid, 'pg_proc') is null)
$$, 'the assertions have comments, and are not open to the public');

select given(start('research', id => 'j', entity => 'agent', context => '{"n": 1}', queue => 'j'));
select given(entity_set('j', '"subsidies"', 'query'));
select given(entity_merge('j', '{"done": true}'));
select given(hook('j', 'count', '[]', key => 'c', due_at => clock() + interval '1 day'));

-- Assertions that hold.

select is_memory('j', 'query', '"subsidies"', 'a memory has the wanted value');
select is_memory('j', '', '{"n": 1, "query": "subsidies", "done": true}');
select is_memory('j', 'nothing', null, 'nothing is null');
select is_status('j', 'running');
select has_history('j', '{set,"set query",merge}');
select has_tasks('j', '{"count delayed","research ready"}');
select given(take('ada', '{j}'));
select given(tell(a_turn('j', state => 'done', value => '7')));
select is_status('j', 'completed', 'a job has the wanted status');
select is_result('j', '7');
select holds_its_laws();

-- Assertions that fail: they print have and want. Such a test would fail this file, so only its output is checked, and
-- its number is taken back.

create function pg_temp.said_by(statement text) returns text
language plpgsql
as $$
declare
    said text;
begin
    begin
        execute said_by.statement into said;
        raise exception using errcode = 'P0001', message = said;
    exception when raise_exception then
        return sqlerrm;
    end;
end
$$;
select ok(
    pg_temp.said_by(statement) like wanted, format('%s fails with have and want', statement))
  from (values
        ($$ select is_memory('j', 'n', '2') $$,     E'not ok % - n in the memory of j\n%have: 1\n%want: 2'),
        ($$ select is_memory('j', '', '2') $$,      E'not ok % - the memory of j\n%'),
        ($$ select has_history('j', '{set}') $$,   E'not ok % - the history of j\n%have: {set,"set query",merge}%')
       ) as cases (statement, wanted);
update jobs set version = 9 where id = 'j';
select ok(
    pg_temp.said_by($$ select holds_its_laws() $$) like E'not ok % - no invariant is broken\n%# I1 j version 9%',
    'holds_its_laws() prints a broken law');
update jobs set version = 3 where id = 'j';

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
