-- Running in a test: all that the database can run by itself, in one transaction, which the test may roll back.

create function @extschema@.run_until_idle(
    max_turns  integer  default 10000,
    skip_time  boolean  default false
) returns integer
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    ran integer := 0;
    token uuid;
    claimed claimed_task;
    next_at timestamptz;
begin
    perform check_rows(run_until_idle.max_turns);
    while ran < coalesce(run_until_idle.max_turns, 2147483647) loop
        token := gen_random_uuid();
        claimed := take_sql_task('run_until_idle', token);
        if claimed.job is not null then
            perform run_task(claimed.job, claimed.task, token);
            ran := ran + 1;
            continue;
        end if;
        next_at := case when run_until_idle.skip_time then next_due_at(array['$sql']) end;
        exit when next_at is null;
        perform lock_clock();
        perform set_clock(next_at);
    end loop;
    return ran;
end
$$;
comment on function @extschema@.run_until_idle(integer, boolean) is
    'Run the due tasks of the queue $sql until none is left, at most max_turns, for tests; with skip_time also move the clock to what will be due (only the owner may). Return how many tasks ran.';
