-- The caller's own transaction: what the verbs do in it stands or falls with his rows. (E7) (E8)

begin;
select plan(14);

select the_time_is('2030-01-01 12:00+00');
create temporary table orders (what text, job text) on commit drop;

-- Calls that join.

create function pg_temp.change_mind() returns void
language plpgsql
as $$
begin
    insert into orders values ('tea', 'order-1');
    perform perdure.start('serve', id => 'order-1', queue => 'bar');
    perform perdure.signal('order-1', 'pay', '5');
    perform perdure.hook('order-1', 'brew', key => 'k');
    perform perdure.entity_create('till', 'till', '{"sum": 0}');
    perform perdure.entity_increment('till', 'sum', 5);
    raise exception 'no tea, and % tasks', cardinality(tasks_of('order-1'));
end
$$;
select throws_ok('select pg_temp.change_mind()', 'P0001', 'no tea, and 2 tasks', 'a job starts with its row');
select is_empty('select from orders', 'without the row');
select is_empty('select from jobs', 'there is no job [P1]');
select is_empty('select from tasks', 'no task');
select is_empty('select from inbox', 'no signal [P5]');
select is_empty('select from journal', 'and no version of any memory [P3]');

select given(start('serve', id => 'order-1', queue => 'bar'));
select throws_ok(
    $$ select perdure.terminate('order-1'), 1 / 0 $$, '22012', null, 'what ends a job in a transaction that fails');
select is(the_job('order-1') ->> 'status', 'running', 'has not ended it');

-- A turn as the last statement of its holder's transaction.

create function pg_temp.serve(what text) returns text
language plpgsql
as $$
declare
    answer jsonb;
begin
    insert into orders (what, job) values (serve.what, 'order-1');
    answer := tell(a_turn('order-1', facts => jsonb_build_array(jsonb_build_object(
        'kind', 'activity', 'key', 'serve#1', 'value', serve.what)), seen => 0));
    if answer ->> 'state' <> 'keep' or (answer ->> 'again')::boolean then
        raise exception 'not applied now: %', answer using errcode = 'P0001';
    end if;
    return answer ->> 'state';
end
$$;

select given(take('ada', '{bar}'));
select throws_ok(
    $$ select pg_temp.serve('tea'), 1 / 0 $$, '22012', null, 'a row and the fact that tells of it');
select is(
    jsonb_build_array((select count(*) from orders), jsonb_array_length(journal_of('order-1'))), '[0, 0]',
    'fall together');
select given(pg_temp.serve('tea'));
select is(
    jsonb_build_array((select count(*) from orders), jsonb_array_length(journal_of('order-1'))), '[1, 1]',
    'and stand together');
select throws_like($$ select pg_temp.serve('tea') $$, 'not applied now%', 'who does it all again is told so [P12]');
select time_passes('31 s');
select given(take('bob', '{bar}'));
select throws_like(
    $$ select pg_temp.serve('late') $$, 'not applied now%fenced%', 'and so is who has lost the task [P6]');

select is_empty('select * from assert_invariants()', 'the invariants hold');

select finish();
rollback;
