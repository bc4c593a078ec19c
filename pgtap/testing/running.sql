-- Running in a test: hooks in SQL run to their end inside one transaction, and time is skipped if need be.

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

select is(run_until_idle(), 0, 'run_until_idle() runs nothing if nothing is due');
select given(hook('e', 'count down', '{"n": 0}', queue => '$sql'));
select given(hook('e', 'count down', '{"n": 2}', queue => '$sql'));
select is(run_until_idle(), 4, 'run_until_idle() runs due hooks and the hooks that they request');
select is(entity_get('e', 'runs'), '4', 'run_until_idle() runs each hook once');
select is(tasks_of('e'), '{}', 'run_until_idle() leaves no task');

select given(hook('e', 'count down', '{"n": 3, "pause": "1 year"}', queue => '$sql'));
select is(run_until_idle(), 1, 'run_until_idle() runs nothing before it is due');
create temporary table first_look as select clock() as at;
select is(run_until_idle(skip_time => true), 3, 'run_until_idle() with skip_time runs later hooks too');
select cmp_ok(clock() - at, '>=', interval '1094 days', 'skip_time moves the clock by years') from first_look;
select is(run_until_idle(skip_time => true), 0, 'run_until_idle() with skip_time runs nothing if no task will be due');

select given(hook('e', 'fail', '[]', queue => '$sql', key => 'f'));
select is(run_until_idle(skip_time => true), 3, 'a hook that fails is retried after its pauses');
select is(
    journal_of('e', '$hook/f') #> '{0,3}', 'false',
    'a hook whose assertion does not hold fails in the end [P10]');

select given(hook('e', 'count down', '{"n": 1000}', queue => '$sql'));
select is(run_until_idle(max_turns => 5), 5, 'run_until_idle() stops after max_turns tasks');
select given(start('w', id => 'python'));
select given(run_until_idle());
select is((the_task('python') ->> 'deliveries')::integer, 0, 'run_until_idle() leaves tasks of workers alone');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
