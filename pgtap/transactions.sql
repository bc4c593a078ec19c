-- Verbs in the caller's own transaction commit or roll back with the caller's rows. (E7) (E8)

begin;
select plan(14);

select the_time_is('2030-01-01 12:00+00');
create temporary table orders (what text, job text) on commit drop;

-- Calls in a transaction that fails.

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
select throws_ok('select pg_temp.change_mind()', 'P0001', 'no tea, and 2 tasks',
                 'a transaction with calls of six verbs fails');
select is_empty('select from orders', 'a rollback undoes the row of the caller');
select is_empty('select from jobs', 'a rollback undoes a start [P1]');
select is_empty('select from tasks', 'a rollback undoes tasks');
select is_empty('select from inbox', 'a rollback undoes a signal [P5]');
select is_empty('select from journal', 'a rollback undoes commands [P3]');

select given(start('serve', id => 'order-1', queue => 'bar'));
select throws_ok(
    $$ select perdure.terminate('order-1'), 1 / 0 $$, '22012', null, 'a transaction with terminate() fails');
select is(the_job('order-1') ->> 'status', 'running', 'a rollback undoes terminate()');

-- A turn in the transaction of its holder.

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
    $$ select pg_temp.serve('tea'), 1 / 0 $$, '22012', null, 'a transaction with a row and a turn fails');
select is(
    jsonb_build_array((select count(*) from orders), jsonb_array_length(journal_of('order-1'))), '[0, 0]',
    'a rollback undoes the row and the fact');
select given(pg_temp.serve('tea'));
select is(
    jsonb_build_array((select count(*) from orders), jsonb_array_length(journal_of('order-1'))), '[1, 1]',
    'a commit keeps the row and the fact');
select throws_like($$ select pg_temp.serve('tea') $$, 'not applied now%',
                   'a repeated turn is recognized, so that the caller can roll back its row [P12]');
select time_passes('31 s');
select given(take('bob', '{bar}'));
select throws_like(
    $$ select pg_temp.serve('late') $$, 'not applied now%fenced%',
    'a turn of a lost task is recognized, so that the caller can roll back its row [P6]');

select is_empty('select * from assert_invariants()', 'no invariant is broken');

select finish();
rollback;
