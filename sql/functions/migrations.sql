-- Migrations: the tables of an app, made and changed outside the extension, so that pg_dump keeps all that is in them.

create function @extschema@.migrate() returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('perdure migrate @extschema@', 0));
    if to_regclass('@extschema@.migrations') is null then
        perform create_tables();
        insert into settings (name, value) values ('instance', to_jsonb(gen_random_uuid()));
    end if;
    perform create_views();
    insert into migrations (version, applied_at)
    values (perdure_version(), clock())
        on conflict on constraint one_row_per_migration do nothing;
    return perdure_version();
end
$$;
comment on function @extschema@.migrate() is
    'Create the tables of this app, or bring them to this version; returns it. May be repeated, and called by many at once. [P13]';
