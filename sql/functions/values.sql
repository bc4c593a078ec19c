-- Values: how a document is read and rebuilt at a path. The rules are perdure's own, not those of jsonb_set: parents are
-- created, merging reaches every depth, and a value that does not fit is an error that names the place.

create function @extschema@.type_found(value jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case jsonb_typeof(value)
               when 'null' then 'null'
               when 'array' then 'an array'
               when 'object' then 'an object'
               else coalesce('a ' || jsonb_typeof(value), 'missing')
           end;
end
$$;
comment on function @extschema@.type_found(jsonb) is 'Return the name of the type of a value for an error message.';


create function @extschema@.type_failure(path text[], found_type text, wanted text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD102', 'WrongType', format('%s is %s, not %s', write_path(path), found_type, wanted),
        'The memory was not changed.', 'Read the memory at this path, or set it to a value of the right type first.')
        || jsonb_build_object('path', write_path(path), 'found', found_type, 'wanted', wanted);
end
$$;
comment on function @extschema@.type_failure(text[], text, text) is
    'Return which type was found at a path and which was wanted, as a failure (PD102).';


create function @extschema@.path_failure(context jsonb, path text[]) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    depth integer := cardinality(path_failure.path);
    here jsonb := path_failure.context;
begin
    -- Nearly always the parent is an object: then nothing on the way can be wrong.
    if depth = 0 or jsonb_typeof(here #> path_failure.path[:depth - 1]) = 'object' then
        return null;
    end if;
    -- A loop: each step is judged by what the step before it found.
    for step in 1 .. depth loop
        case jsonb_typeof(here)
            when 'object' then
                null;
            when 'array' then
                -- What PostgreSQL reads as an index, here as on the way to a parent that is found at once.
                if path_failure.path[step] !~ '^[[:space:]]*[+-]?[0-9]+$' then
                    return type_failure(path_failure.path[:step - 1], 'an array', 'an object');
                end if;
                if here #> path_failure.path[step:step] is null then
                    return type_failure(path_failure.path[:step], 'missing', 'an element of the array');
                end if;
            else
                return type_failure(path_failure.path[:step - 1], type_found(here), 'an object');
        end case;
        here := here #> path_failure.path[step:step];
        exit when here is null;
    end loop;
    return null;
end
$$;
comment on function @extschema@.path_failure(jsonb, text[]) is
    'Return what is wrong on the way to the last key of a path, or null; a missing parent is not wrong, it is created.';


-- path_failure has checked the way: each parent is a container or missing.
create function @extschema@.put_value(context jsonb, path text[], value jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    depth integer := cardinality(put_value.path);
    put jsonb := put_value.value;
begin
    if depth = 0 then
        return put;
    end if;
    while depth > 1 and put_value.context #> put_value.path[:depth - 1] is null loop
        put := jsonb_build_object(put_value.path[depth], put);
        depth := depth - 1;
    end loop;
    return jsonb_set(put_value.context, put_value.path[:depth], put);
end
$$;
comment on function @extschema@.put_value(jsonb, text[], jsonb) is 'Set the value at a path, creating missing parents.';


create function @extschema@.merge_values(old jsonb, patch jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    deeper jsonb;
begin
    if jsonb_typeof(merge_values.old) is distinct from 'object' or jsonb_typeof(merge_values.patch) <> 'object' then
        return merge_values.patch;
    end if;
    -- Only keys that are objects on both sides need a second look; || is right, and fast, for all others.
    select jsonb_object_agg(member.key, merge_values(merge_values.old -> member.key, member.value))
      into deeper
      from jsonb_each(merge_values.patch) as member
     where jsonb_typeof(member.value) = 'object'
       and jsonb_typeof(merge_values.old -> member.key) = 'object';
    return merge_values.old || merge_values.patch || coalesce(deeper, '{}');
end
$$;
comment on function @extschema@.merge_values(jsonb, jsonb) is
    'Merge two values to any depth: objects key by key, anything else is replaced.';


-- Follows a patch of one key to the place where it differs: || copies a whole object, setting a path copies much less.
create function @extschema@.merge_at(context jsonb, path text[], patch jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    place text[] := merge_at.path;
    rest jsonb := merge_at.patch;
    step text;
begin
    while jsonb_typeof(rest) = 'object' and jsonb_typeof(merge_at.context #> place) = 'object' loop
        select min(key) into step from jsonb_object_keys(rest) as key having count(*) = 1;
        exit when step is null;
        place := place || step;
        rest := rest -> step;
    end loop;
    return put_value(merge_at.context, place, merge_values(merge_at.context #> place, rest));
end
$$;
comment on function @extschema@.merge_at(jsonb, text[], jsonb) is 'Merge a patch into the object at a path.';
