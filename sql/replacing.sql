-- Replacing: how an upgrade puts the code of this version in the place of any other version. These functions live as long
-- as the upgrade. A routine is replaced in place, so that its callers continue; it is dropped and created only if its
-- signature has changed. Owners and grants stay. A type gains attributes.

create or replace function @extschema@.add_type(name text, definition text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if to_regtype(format('%s.%I', '@extschema@', add_type.name)) is null then
        execute add_type.definition;
    end if;
end
$$;


-- A session at work in the tables may need the type in a moment: the tables are locked first, so that no circle closes,
-- and both as late as possible, so that nobody waits for long.
create or replace function @extschema@.extend_type(name text, definition text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set lock_timeout = '2 s'
as $$
declare
    before text[] := @extschema@.attributes_of(format('%s.%I', '@extschema@', extend_type.name)::regtype);
    wanted text[];
begin
    -- The type of this version is created beside it, only to be compared.
    execute replace(extend_type.definition, format('create type %s.%s ', '@extschema@', extend_type.name),
                    format('create type pg_temp.%s ', extend_type.name));
    wanted := @extschema@.attributes_of(format('pg_temp.%I', extend_type.name)::regtype);
    execute format('drop type pg_temp.%I', extend_type.name);
    if before = wanted then
        return;
    end if;
    if before <> wanted[:cardinality(before)] then
        raise exception 'type % cannot be changed to that of this version', extend_type.name
            using errcode = 'feature_not_supported',
                  detail = format('It has %s, and should have %s.', before, wanted),
                  hint = 'A type may only gain attributes at its end: use a new name for a new meaning.';
    end if;
    if to_regclass('@extschema@.jobs') is not null then
        lock table @extschema@.jobs, @extschema@.tasks in access exclusive mode;
    end if;
    for place in cardinality(before) + 1 .. cardinality(wanted) loop
        execute format('alter type %s.%I add attribute %s', '@extschema@', extend_type.name, wanted[place]);
    end loop;
exception
    when lock_not_available then
        perform @extschema@.refuse_busy_tables();
end
$$;


create or replace function @extschema@.attributes_of(type regtype) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
               || case when a.attcollation <> t.typcollation then ' collate ' || a.attcollation::regcollation else '' end
          from pg_attribute as a
          join pg_type as t on t.oid = a.atttypid
         where a.attrelid = (select o.typrelid from pg_type as o where o.oid = attributes_of.type)
           and a.attnum > 0
           and not a.attisdropped
         order by a.attnum);
end
$$;


create or replace function @extschema@.replace_routine(name text, definition text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    before regprocedure[] := @extschema@.routines_named(replace_routine.name);
    entitled text[] := array(
        select distinct format('%s%s', case when a.grantee = 0 then 'public' else a.grantee::regrole::text end,
                               case when a.is_grantable then ' with grant option' else '' end)
          from pg_proc as p
         cross join lateral aclexplode(p.proacl) as a
         where p.oid = any(before)
           and a.grantee <> p.proowner);
    made regprocedure;
    role text;
begin
    begin
        execute replace_routine.definition;
    exception
        -- Another result, another kind, another name of a parameter, or a default less.
        when invalid_function_definition or wrong_object_type then
            perform @extschema@.drop_routines(before);
            execute replace_routine.definition;
    end;
    select r.routine into made
      from unnest(@extschema@.routines_named(replace_routine.name)) as r (routine)
     where r.routine <> all(before);
    if made is null or before = '{}' then
        return;
    end if;
    perform @extschema@.drop_routines(before);
    foreach role in array entitled loop
        execute format('grant execute on routine %s to %s', made, role);
    end loop;
end
$$;


create or replace function @extschema@.routines_named(name text) returns regprocedure[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select p.oid::regprocedure
          from pg_proc as p
         where p.pronamespace = '@extschema@'::regnamespace
           and p.proname = routines_named.name
         order by p.oid);
end
$$;


create or replace function @extschema@.drop_routines(routines regprocedure[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    routine regprocedure;
begin
    if cardinality(drop_routines.routines) > 1 then
        raise exception 'perdure has one function of this name, and there are several: %', drop_routines.routines
            using errcode = 'duplicate_function',
                  detail = 'Its signature differs in this version.',
                  hint = 'Drop those that are your own: the schema of an app is for perdure alone.';
    end if;
    for routine in select p.oid::regprocedure from pg_proc as p where p.oid = any(drop_routines.routines) loop
        execute format('drop routine %s', routine);
    end loop;
end
$$;
