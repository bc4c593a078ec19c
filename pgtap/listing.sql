-- list_jobs: the newest jobs first, page by page.

begin;
select plan(24);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.listed(statement text) returns text
language plpgsql
as $$
declare
    ids text;
begin
    execute format('select string_agg(l.id, '' '') from (select * from %s) as l', statement) into ids;
    return coalesce(ids, '');
end
$$;

select given(start('research', id => 'old', queue => 'agents'));
select given(start('billing', id => 'paid', queue => 'agents'));
select given(entity_create('no job', 'agent', '{}'));
select have_held_job('failed');
select given(tell(a_turn('failed', state => 'failed', value => '{"type": "ValueError", "message": "no money"}')));
select given(terminate('paid', 'by hand'));
select given(start('research', id => 'c' || n, queue => 'agents')) from generate_series(1, 3) as n;
-- The times of the starts: one after the other, but three at once.
update jobs set created_at = '2030-01-01 10:00+00' where id = 'old';
update jobs set created_at = '2030-01-01 10:30+00' where id = 'paid';
update jobs set created_at = '2030-01-01 10:45+00' where id = 'failed';
update jobs set created_at = '2030-01-01 11:00+00' where id in ('c1', 'c2', 'c3');

select is(
    pg_temp.listed(statement), ids, format('the jobs and their order in %s', statement))
  from (values
        ('list_jobs()', 'c3 c2 c1 failed paid old'),
        ($$ list_jobs(workflow => 'billing') $$, 'paid'),
        ($$ list_jobs('research', 'running') $$, 'c3 c2 c1 old'),
        ($$ list_jobs(status => 'failed') $$, 'failed'),
        ($$ list_jobs(status => 'completed') $$, ''),
        ($$ list_jobs(since => '2030-01-01 10:45+00') $$, 'c3 c2 c1 failed'),
        ($$ list_jobs(until => '2030-01-01 10:45+00') $$, 'paid old'),
        ($$ list_jobs(max_rows => 2) $$, 'c3 c2'),
        ($$ list_jobs(until => '2030-01-01 11:00+00', after => 'c2', max_rows => 2) $$, 'c1 failed'),
        ($$ list_jobs(until => '2030-01-01 10:45+00', after => 'failed', max_rows => 2) $$, 'paid old'),
        ($$ list_jobs(until => '2030-01-01 10:00+00', after => 'old') $$, '')
       ) as cases (statement, ids);
select set_eq(
    $$ select to_jsonb(l) from list_jobs() as l $$,
    $$ select to_jsonb(status(j.id)) from jobs as j where j.workflow is not null $$,
    'list_jobs() shows the same as status()');
select is(
    (select array_agg(l.failure order by l.id) from list_jobs() as l where l.failure is not null),
    '{"ValueError: no money","Terminated: by hand"}', 'list_jobs() shows why a job failed or was terminated');

select given(terminate('old', '$c1:key:c2VhbGVk'));
select is((status('old')).failure, 'Terminated: sealed', 'a reason that a codec has encrypted is shown as sealed');

select given(start('same time', id => 'same-' || id)) from unnest('{b,c,a}'::text[]) as id;
select is(array(select j.id from list_jobs('same time') as j), '{same-c,same-b,same-a}',
          'jobs of one time are listed in descending order of their ids');
select is((select j.id from list_jobs('same time', max_rows => 1) as j), 'same-c',
          'a page ends within the jobs of one time');
select lives_ok('select list_jobs(max_rows => 1000)', 'a page may have a thousand jobs');

select is(
    error_of(statement), 'PD107', statement || ' is refused')
  from unnest(array[
        $$ select list_jobs(status => 'lost') $$, $$ select list_jobs(max_rows => 1001) $$,
        $$ select list_jobs(after => 'c2') $$]) as statement;

-- The cost does not grow with the number of completed jobs.

insert into perdure.jobs (id, workflow, status, created_at, finished_at)
select 'many-' || n as id, 'research' as workflow, 'completed' as status, clock() + n * interval '1 s' as created_at,
       clock() + n * interval '1 s' as finished_at
  from generate_series(1, 2000) as n;
create function jobs_read() returns bigint
language plpgsql
as $$
begin
    return (
        select s.seq_tup_read + s.idx_tup_fetch
          from pg_stat_xact_all_tables as s
         where s.relid = 'perdure.jobs'::regclass);
end
$$;
create temporary table reads as select jobs_read() as before;
select is(pg_temp.listed($$ list_jobs('research', 'running') $$), 'c3 c2 c1',
          'a few running jobs are found among many');
select is(pg_temp.listed($$ list_jobs(status => 'failed') $$), 'failed',
          'a failed job is found among many that completed');
select cmp_ok(jobs_read() - before, '<', 100::bigint, 'list_jobs() does not read all completed jobs') from reads;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
