-- Instances: the identity of an app, and where it is. A copy (a restored dump, a database made from a template) has the
-- identity of the original, but is somewhere else: it executes nothing until its owner adopts it. An app whose tables
-- have another version than its functions executes nothing either. Memories can be read and changed meanwhile.

-- Declared immutable, which is true for a plan: a plan lives no longer than its session, and no session moves. So it is
-- evaluated once in each session.
create function @extschema@.current_place() returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- Without a query, which would take longer than the rest of a claim's first look. The path of a table names its
    -- database two steps from its end.
    return jsonb_build_object(
        'cluster', (pg_control_system()).system_identifier::text,
        'database', split_part(pg_relation_filepath('settings'), '/', -2)::bigint,
        'settings', 'settings'::regclass::oid::bigint);
end
$$;
comment on function @extschema@.current_place() is
    'Return where this app is: its cluster, its database and its table. A standby that takes over is the same place.';


create function @extschema@.check_adopted() returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    adopted_at_place jsonb := (select s.value from settings as s where s.name = 'place');
begin
    if adopted_at_place = current_place() then
        return;
    end if;
    raise exception 'this app is a copy that nobody has adopted'
        using errcode = 'PD003',
              detail = format('It was adopted at %s and is now at %s.', adopted_at_place, current_place()),
              hint = 'To let it execute here, call adopt_instance() as its owner, or run: perdure adopt.';
end
$$;
comment on function @extschema@.check_adopted() is 'Refuse to execute in a copy that nobody has adopted (PD003).';


create function @extschema@.tables_version() returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select m.version from migrations as m order by string_to_array(m.version, '.')::integer[] desc limit 1);
end
$$;
comment on function @extschema@.tables_version() is 'Return the version of the tables; null if there are none.';


create function @extschema@.check_tables() returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    found_version text := tables_version();
begin
    if found_version = perdure_version() then
        perform check_build();
        return;
    end if;
    raise exception 'the tables of this app are of another version than its functions'
        using errcode = 'PD505',
              detail = format('The tables are of version %s, the functions of %s.', found_version, perdure_version()),
              hint = 'Call migrate() as the owner, or run: perdure install. Newer tables need newer functions.';
end
$$;
comment on function @extschema@.check_tables() is
    'Refuse to execute on tables of another version (PD505) or build (PD507).';


create function @extschema@.check_instance(instance uuid) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- One look at all three; only if it fails they are checked one by one. Tables that this very build has migrated are
    -- its own.
    if (select count(*) = 3
          from settings as s
         where s.name in ('build', 'instance', 'place')
           and case s.name
                   when 'build' then s.value = perdure_build()
                   when 'instance' then coalesce(s.value = to_jsonb(check_instance.instance), true)
                   else s.value = current_place() end) then
        return;
    end if;
    perform check_tables();
    perform check_adopted();
    if check_instance.instance is null
        or exists (select from settings as s where s.name = 'instance' and s.value = to_jsonb(check_instance.instance)) then
        return;
    end if;
    raise exception 'this app is not the instance that the worker was told to serve'
        using errcode = 'PD003',
              detail = format('The worker serves instance %s.', check_instance.instance),
              hint = 'It may be a restored copy. If the worker should serve it, register the worker again.';
end
$$;
comment on function @extschema@.check_instance(uuid) is
    'Refuse to execute in a copy that nobody has adopted, or in another instance than a worker is to serve (PD003; null accepts any), or on tables of another version (PD505) or build (PD507).';
