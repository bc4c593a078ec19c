-- Builds: from which source the code and the tables were made. An unreleased version has many builds.
-- python/perdure/installation/script.py writes the digests into this script. A reload accepts the code of another build,
-- but refuses tables that another source has made.

create function @extschema@.perdure_build() returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '@build@'::jsonb;
end
$$;
comment on function @extschema@.perdure_build() is
    'Return two digests: of the source of these functions, and of the source of the tables that they are made for.';


create function @extschema@.check_build() returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    made_by jsonb := (select s.value from settings as s where s.name = 'build');
begin
    if made_by -> 'tables' = perdure_build() -> 'tables' then
        return;
    end if;
    raise exception 'the tables of this app were made by another build of version %', perdure_version()
        using errcode = 'PD507',
              detail = format('They are of build %s, the functions are made for %s.',
                              coalesce(made_by ->> 'tables', 'unknown'), perdure_build() ->> 'tables'),
              hint = 'Use the build that made them; or delete everything in the app: drop its schema, and install it again.';
end
$$;
comment on function @extschema@.check_build() is
    'Refuse tables that another build of the same version has made differently (PD507).';


create function @extschema@.record_build() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into settings (name, value)
    values ('build', perdure_build())
        on conflict on constraint one_row_per_setting do update set value = excluded.value;
end
$$;
comment on function @extschema@.record_build() is 'Record that tables and views are of this build; migrate() calls it.';
