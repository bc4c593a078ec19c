-- Running in a test: hooks in SQL run to their end inside one transaction, through years if need be.

begin;
select plan(13);

create function pg_temp.count_down(job text, args jsonb) returns jsonb
language plpgsql
as $$
declare
    left_over integer := (args ->> 'n')::integer;
begin
    perform perdure.entity_increment(job, 'runs');
    if left_over > 0 then
        perform perdure.hook(job, 'count down', args || jsonb_build_object('n', left_over - 1), queue => '$sql',
                             due_at => perdure.clock() + coalesce(args ->> 'pause', '0')::interval);
    end if;
    return to_jsonb(left_over);
end
$$;
create function pg_temp.fail(job text, args jsonb) returns jsonb
language plpgsql
as $$
begin
    assert (perdure.entity_increment(job, 'fails'))::integer > 100, 'it always fails';
end
$$;
select register_sql_hook('count down', 'pg_temp.count_down');
select register_sql_hook('fail', 'pg_temp.fail', attempts => 3, retry_in => '1 day');
select given(entity_create('e', 'note'));

select is(run_until_idle(), 0, 'where nothing is due nothing runs');
select given(hook('e', 'count down', '{"n": 0}', queue => '$sql'));
select given(hook('e', 'count down', '{"n": 2}', queue => '$sql'));
select is(run_until_idle(), 4, 'what is due runs, and what that asks for');
select is(entity_get('e', 'runs'), '4', 'as often as it was asked for');
select is(tasks_of('e'), '{}', 'until nothing is left');

select given(hook('e', 'count down', '{"n": 3, "pause": "1 year"}', queue => '$sql'));
select is(run_until_idle(), 1, 'what is not due does not run');
create temporary table first_look as select clock() as at;
select is(run_until_idle(skip_time => true), 3, 'unless time is skipped');
select cmp_ok(clock() - at, '>=', interval '1094 days', 'by the clock, years have passed') from first_look;
select is(run_until_idle(skip_time => true), 0, 'nothing is skipped where nothing will be due');

select given(hook('e', 'fail', '[]', queue => '$sql', key => 'f'));
select is(run_until_idle(skip_time => true), 3, 'a hook that fails is tried again after its pauses');
select is(
    journal_of('e', '$hook/f') #> '{0,3}', 'false',
    'and has failed; an assertion that does not hold is a failure, too [P10]');

select given(hook('e', 'count down', '{"n": 1000}', queue => '$sql'));
select is(run_until_idle(max_turns => 5), 5, 'it ends after as many tasks as the caller wants');
select given(start('w', id => 'python'));
select given(run_until_idle());
select is((the_task('python') ->> 'deliveries')::integer, 0, 'what workers run is left to them');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
