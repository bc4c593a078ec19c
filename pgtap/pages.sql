-- Pages: where they begin, and how many rows they may have, in all verbs that return a part of what there is.

begin;
select plan(19);

select have_held_job('paged');
select given(entity_set('paged', '1', 'n'));
select given(entity_log('paged', 'log', '[1, 2]'));
select define_contract('kind', '{}');
select given(entity_create('of a kind', 'kind', '{"n": 1}'));

select is(error_of(statement), 'PD107', format('less than no row is refused: %s', statement))
  from unnest(array[
        $$ select entity_history('paged', max_rows => -1) $$,
        $$ select entity_items('paged', 'log', max_rows => -1) $$,
        $$ select stream_items('paged', 's', max_rows => -1) $$,
        $$ select family('paged', max_rows => -1) $$,
        $$ select broken_contracts('kind', max_rows => -1) $$,
        $$ select running_coordinators(max_rows => -1) $$,
        $$ select assert_histories(max_jobs => -1) $$,
        $$ select forget_finished(now(), max_jobs => -1) $$,
        $$ select forget_old_runs('paged', max_rows => -1) $$]) as statement;

create function pg_temp.rows_of(statement text) returns bigint
language plpgsql
as $$
declare
    n bigint;
begin
    execute format('select count(*) from (%s) as page', statement) into n;
    return n;
end
$$;
select is(pg_temp.rows_of(statement), rows, format('after null is from the beginning: %s', statement))
  from (values
        ($$ select entity_history('paged', after => null) $$, 2::bigint),
        ($$ select entity_items('paged', 'log', after => null) $$, 2),
        ($$ select broken_contracts('kind', '{"required": ["x"]}', after => null) $$, 1),
        ($$ select running_coordinators(after => null) $$, 1),
        ($$ select json_array_elements(read_journal('paged', '$outside', after => null)) $$, 2),
        ($$ select signal_found('kind', '{}', 'go', after => null) $$, 0),
        ($$ select cancel_found('kind', '{}', after => null) $$, 0)
       ) as cases (statement, rows);

update journal set argument = '2' where job_id = 'paged' and op = 'set';
select isnt_empty('select assert_histories(null)', 'who asks for nothing is not told that all is well');
update journal set argument = '1' where job_id = 'paged' and op = 'set';
select is_empty('select * from assert_histories()', 'and all is well');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
