-- Migrations: the tables of an app are made outside the extension, so that pg_dump keeps their rows [P13].

begin;
select plan(34);

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

-- Versions are compared number by number.

insert into migrations (version, applied_at) values ('0.10.0', clock()), ('0.9.0', clock());
select is(tables_version(), '0.10.0', 'the tables have the highest of their versions');
create function error_of_migrating_to(version text) returns text
language plpgsql
as $$
declare
    code text;
begin
    begin
        execute format('create or replace function perdure.perdure_version() returns text
                        language plpgsql immutable parallel safe security definer
                        set search_path = pg_catalog, perdure, pg_temp as %L',
                       format('begin return %L; end', error_of_migrating_to.version));
        code := error_of('select migrate()');
        raise exception 'undone' using errcode = 'UNDON';
    exception when sqlstate 'UNDON' then
        return code;
    end;
end
$$;
select is(error_of_migrating_to('0.9.0'), 'PD503', 'functions of version 0.9 refuse tables of version 0.10');
select is(error_of_migrating_to('0.11.0'), null, 'functions of version 0.11 take tables of version 0.10');
delete from migrations where version <> perdure_version();

-- What belongs to the tables.

create function missing_after(statement text) returns text[]
language plpgsql
as $$
declare
    missing text[];
begin
    begin
        execute missing_after.statement;
        missing := missing_parts();
        raise exception 'undone' using errcode = 'UNDON';
    exception when sqlstate 'UNDON' then
        return missing;
    end;
end
$$;
select is(missing_after(format('drop trigger %I on perdure.jobs', t.tgname)), array['trigger ' || t.tgname],
          format('the trigger %s is missed', t.tgname))
  from pg_trigger as t
 where t.tgrelid = 'perdure.jobs'::regclass and not t.tgisinternal;
select is(missing_after(format('drop view perdure.%I', c.relname)), array['view ' || c.relname],
          format('the view %s is missed', c.relname))
  from pg_class as c
 where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v';
select is(missing_after(statement), missing, statement)
  from (values
        ('alter table perdure.jobs enable replica trigger ids_stay', '{trigger ids_stay}'::text[]),
        ('alter table perdure.jobs enable always trigger ids_stay', '{}'),
        ('drop trigger ids_stay on perdure.jobs;
          create trigger ids_stay before update on perdure.tasks
              for each row execute function suppress_redundant_updates_trigger()', '{trigger ids_stay}'),
        ('drop view perdure.history; create table perdure.history ()', '{view history}'),
        ('drop view perdure.history; create view public.history as select', '{view history}')
       ) as cases (statement, missing);

-- The tables, views and triggers of an app.

select is(
    (select array_agg(relname::text order by relname)
       from pg_class
      where relnamespace = 'perdure'::regnamespace and relkind = 'r'),
    array['access', 'conditions', 'contracts', 'inbox', 'items', 'jobs', 'journal', 'key_tokens', 'lines', 'listeners',
          'migrations', 'queues', 'settings', 'snapshots', 'sql_hooks', 'tasks', 'wanted_indexes', 'workers'],
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
