-- Histories: assert_histories() finds a memory that is not the sum of its commands, whatever part was changed by hand.
-- [P3] [P8]

begin;
select plan(18);

select the_time_is('2030-01-01 12:00+00');

select given(entity_create('e', 'note', '{"n": 0, "t": "text"}'));
select given(entity_increment('e', 'n')) from generate_series(2, 250);
select given(entity_create('log', 'note', '{"n": 0}'));
select given(entity_log('log', 'l', '1')) from generate_series(2, 250);
select given(entity_create('f', 'note', '{"n": 1}'));
select given(entity_create('empty', 'note'));

-- Returns the broken histories after a statement, and undoes it.
create function histories_broken_by(statement text) returns jsonb
language plpgsql
as $$
declare
    broken jsonb;
begin
    begin
        alter table perdure.jobs disable trigger zzz_updates_are_commands;
        execute histories_broken_by.statement;
        broken := (select coalesce(jsonb_agg(jsonb_build_array(b.code, b.job) order by b.detail, b.code), '[]')
                     from assert_histories() as b);
        raise exception 'undone' using errcode = 'UNDON';
    exception when sqlstate 'UNDON' then
        return broken;
    end;
end
$$;

select is(histories_broken_by(statement), broken, format('assert_histories() finds %s', about))
  from (values
        ('nothing', 'select', '[]'::jsonb),
        ('a document that was changed',
         $$ update perdure.jobs set context = '{"n": 2}' where id = 'f' $$, '[["I1", "f"]]'),
        ('a document without a history',
         $$ update perdure.jobs set context = '{"n": 2}' where id = 'empty' $$, '[["I1", "empty"]]'),
        ('a number that is written in another way',
         $$ update perdure.jobs set context = '{"n": 1.0}' where id = 'f' $$, '[["I1", "f"]]'),
        ('a snapshot in which a number is written in another way',
         $$ update perdure.snapshots set context = '{"n": 0.0}' where job_id = 'log' and version = 200 $$,
         '[["I2", "log"]]'),
        ('a late command that was changed',
         $$ update perdure.journal set argument = '2' where job_id = 'e' and version = 201 $$,
         '[["I1", "e"]]'),
        ('an early command that was changed',
         $$ update perdure.journal set argument = '2' where job_id = 'e' and version = 50 $$,
         '[["I2", "e"], ["I2", "e"], ["I1", "e"]]'),
        ('a first document that was changed',
         $$ update perdure.journal set argument = '{"n": 0}' where job_id = 'e' and version = 1 $$,
         '[["I2", "e"], ["I2", "e"], ["I1", "e"]]'),
        ('a command that cannot be applied',
         $$ update perdure.journal set path = '{t}' where job_id = 'e' and version = 150 $$, '[["I1", "e"]]'),
        ('a snapshot that was changed',
         $$ update perdure.snapshots set context = '{}' where job_id = 'e' and version = 100 $$,
         '[["I2", "e"]]'),
        ('a snapshot that claims that nothing has changed',
         $$ update perdure.snapshots set context = null where job_id = 'e' and version = 200 $$, '[["I2", "e"]]'),
        ('a snapshot on which later ones build',
         $$ update perdure.snapshots set context = '{"n": 5}' where job_id = 'log' and version = 100 $$,
         '[["I2", "log"], ["I2", "log"]]'),
        ('two memories that were changed',
         $$ update perdure.jobs set context = '{"n": 2}' where id in ('f', 'empty') $$,
         '[["I1", "empty"], ["I1", "f"]]')
       ) as cases (about, statement, broken);

-- Page by page.

alter table perdure.jobs disable trigger zzz_updates_are_commands;
update perdure.jobs set context = '{"n": 2}' where id in ('f', 'e', 'log');
select is(
    array(select b.job from assert_histories(cases.after, cases.max_jobs) as b),
    jobs,
    format('of %s jobs after %s, %s are broken', max_jobs, quote_literal(after), jobs))
  from (values
        ('', 1000, '{e,f,log}'::text[]), ('', 2, '{e}'), ('empty', 1, '{f}'), ('f', 10, '{log}'), ('log', 10, '{}'))
    as cases (after, max_jobs, jobs);

select finish();
rollback;
