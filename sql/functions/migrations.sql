-- Migrations: the tables of an app, created and changed outside the extension, so that pg_dump keeps all that is in them.

create function @extschema@.refuse_busy_tables() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    raise exception 'the tables of this app are in use for longer than an upgrade may wait'
        using errcode = 'lock_not_available',
              detail = format('Processes that use them: %s.', array_to_string(array(
                  select distinct l.pid
                    from pg_locks as l
                    join pg_class as c on c.oid = l.relation
                   where c.relnamespace = '@extschema@'::regnamespace
                     and l.database = (select d.oid from pg_database as d where d.datname = current_database())
                     and l.granted
                     and l.pid <> pg_backend_pid()
                   order by l.pid), ', ')),
              hint = 'Nothing was changed. Try again, or end these processes; pg_stat_activity shows what they do.';
end
$$;
comment on function @extschema@.refuse_busy_tables() is 'Give up an upgrade (55P03) and report who has the tables in use.';


-- A lock that does not come soon is given up: whoever waits for a table lock keeps others from the table behind it.
create function @extschema@.upgrade_tables() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set lock_timeout = '2 s'
as $$
begin
    perform change_tables(string_to_array(tables_version(), '.')::integer[]);
    perform create_views();
    -- If the triggers exist, no lock is needed: a version that changes a trigger also changes a table.
    perform create_triggers() where missing_parts() <> '{}';
    perform restore_access();
exception
    when lock_not_available then
        perform refuse_busy_tables();
end
$$;
comment on function @extschema@.upgrade_tables() is
    'Change the tables to this version; give up (55P03) if a lock takes longer than two seconds. [P13]';


create function @extschema@.migrate() returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('perdure migrate @extschema@', 0));
    if to_regclass('@extschema@.migrations') is null then
        perform create_tables();
        perform create_triggers();
        perform create_views();
        perform adopt_instance();
    elsif tables_version() = perdure_version()
        and perdure_build() = (select s.value from settings as s where s.name = 'build')
        and missing_parts() = '{}' then
        return perdure_version();
    elsif string_to_array(tables_version(), '.')::integer[] > string_to_array(perdure_version(), '.')::integer[] then
        raise exception 'the tables of this app are of version %, newer than its functions', tables_version()
            using errcode = 'PD503',
                  detail = format('The functions are of version %s.', perdure_version()),
                  hint = 'There is no way back: install the newer version, or restore a dump that is older.';
    else
        perform check_build() where tables_version() = perdure_version();
        perform upgrade_tables();
        -- The upgrade has replaced a clock that was moved, like all functions.
        perform set_clock(clock()) from settings as s where s.name = 'clock_ahead';
    end if;
    insert into migrations (version, applied_at)
    values (perdure_version(), clock())
        on conflict on constraint one_row_per_migration do nothing;
    perform record_build();
    return perdure_version();
end
$$;
comment on function @extschema@.migrate() is
    'Create the tables of this app, or change them to this version, and add missing triggers, views and grants; return the version. May be repeated, and called by many at once. Errors: PD503, PD507. [P13]';
