-- Migrations: the tables of an app are made outside the extension, so that pg_dump keeps their rows [P13].

begin;
select plan(18);

select have_held_job('j', '{"n": 1}');
create temporary table before_it as
select s.value as instance,
       (select jsonb_agg(to_jsonb(m)) from migrations as m) as migrations,
       array(select c.oid
               from pg_class as c
              where c.relnamespace = 'perdure'::regnamespace
                and c.relkind in ('r', 'i', 'S')
              order by c.oid) as tables
  from settings as s
 where s.name = 'instance';

select is(migrate(), perdure_version(), 'migrate() returns the version of the tables');
select is(migrate(), perdure_version(), 'migrate() may be called again (C9)');
select is((select value from settings where name = 'instance'), instance, 'migrate() keeps the instance of the app')
  from before_it;
select is((select jsonb_agg(to_jsonb(m)) from migrations as m), before_it.migrations,
          'migrate() records a version once')
  from before_it;
select is(
    array(select c.oid
            from pg_class as c
           where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'i', 'S')
           order by c.oid),
    tables,
    'migrate() keeps tables, indexes and sequences (C9)')
  from before_it;
select is(
    jsonb_build_array(the_job('j') -> 'context', the_task('j') ->> 'worker'),
    '[{"n": 1}, "ada"]',
    'migrate() keeps jobs and leases [P13]');
select matches(perdure_version(), '^\d+\.\d+\.\d+$', 'a version is three numbers');
select is(
    (select array_agg(version) from migrations),
    array[perdure_version()],
    'the tables have the version of the functions');
select is(jsonb_typeof(value), 'string', 'an app has an instance') from settings where name = 'instance';

-- Builds of a version.

select is(value, perdure_build(), 'tables and views have the build of the functions')
  from settings where name = 'build';
update settings set value = value || '{"code": "another"}' where name = 'build';
select lives_ok('select migrate()', 'migrate() replaces views and access of another build');
select is(value, perdure_build(), 'migrate() records the new build') from settings where name = 'build';
update settings set value = value || '{"tables": "others"}' where name = 'build';
select throws_ok(
    'select migrate()', 'PD507', 'the tables of this app were made by another build of version ' || perdure_version(),
    'tables of another build are refused');
update settings set value = perdure_build() where name = 'build';

-- The tables, views and triggers of an app.

select is(
    (select array_agg(relname::text order by relname)
       from pg_class
      where relnamespace = 'perdure'::regnamespace and relkind = 'r'),
    array['access', 'conditions', 'contracts', 'inbox', 'items', 'jobs', 'journal', 'listeners', 'migrations', 'queues',
          'settings', 'snapshots', 'sql_hooks', 'tasks', 'wanted_indexes', 'workers'],
    'an app has four large tables, and small ones');
select is(
    (select array_agg(relname::text order by relname)
       from pg_class
      where relnamespace = 'perdure'::regnamespace and relkind = 'v'),
    '{history,indexes,schedules,waiting}',
    'an app has four views');
select is(
    (select array_agg(tgname::text order by tgname)
       from pg_trigger as t
       join pg_class as c on t.tgrelid = c.oid
      where c.relnamespace = 'perdure'::regnamespace and not tgisinternal),
    '{aaa_first_documents_are_commands,ids_stay,jobs_are_forgotten,zzz_updates_are_commands}',
    'the only triggers are those that record plain writes');
select is_empty($$
    select c.relname
      from pg_depend as d
      join pg_class as c on c.oid = d.objid and d.classid = 'pg_class'::regclass
     where d.deptype = 'e'
       and c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'S', 'v')
$$, 'no table belongs to an extension, so a dump keeps it [P13]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
