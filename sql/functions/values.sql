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


create function @extschema@.field_failure(given jsonb, fields text[], what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if field_failure.given - field_failure.fields = '{}' then
        return null;
    end if;
    return make_failure(
        'PD107', 'InvalidArgument',
        format('%s has no field %s', field_failure.what,
               quote_literal(left((select min(k) from jsonb_object_keys(field_failure.given - field_failure.fields) as k), 40))),
        format('Known fields: %s.', array_to_string(field_failure.fields, ', ')), 'Correct the name of the field.');
end
$$;
comment on function @extschema@.field_failure(jsonb, text[], text) is
    'Return that an object has an unknown field (PD107), or null: a misspelt word must not be ignored.';


create function @extschema@.check_list(list jsonb, what text, fields text[] default null) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    is_array boolean := coalesce(jsonb_typeof(check_list.list) = 'array', false);
    wrong record;
    failure jsonb;
begin
    select g.item, g.place
      into wrong
      from jsonb_array_elements(case when is_array then check_list.list else '[0]' end) with ordinality as g (item, place)
     where case jsonb_typeof(g.item) when 'object' then g.item - check_list.fields <> '{}' else true end
     limit 1;
    if not found then
        return;
    end if;
    failure := coalesce(
        case when jsonb_typeof(wrong.item) = 'object'
             then field_failure(wrong.item, check_list.fields, format('one of the %s', check_list.what)) end,
        make_failure(
            'PD107', 'InvalidArgument', format('%s must be a JSON array of objects', check_list.what),
            format('There was %s.', case when check_list.list is null then 'nothing'
                                         else type_found(case when is_array then wrong.item else check_list.list end) end),
            'Correct the call.'));
    perform raise_failure(case when not is_array then failure else failure_among(
        failure, left(check_list.what, -1), wrong.place, jsonb_array_length(check_list.list), wrong.item ->> 'id') end);
end
$$;
comment on function @extschema@.check_list(jsonb, text, text[]) is
    'Refuse what is not a JSON array of objects, or an object with other fields than these (PD107), and say which; the elements are named in the plural.';


create function @extschema@.key_failure(key text, id text, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if key_failure.key is null or key_failure.id is not null then
        return null;
    end if;
    return make_failure(
        'PD107', 'InvalidArgument', format('a key was given without %s', key_failure.what),
        'Each repetition of the call would start a job with another id.',
        format('Give %s too: a job is started once for each id.', key_failure.what));
end
$$;
comment on function @extschema@.key_failure(text, text, text) is
    'Return that a key would repeat nothing because each call draws an id (PD107), or null.';


create function @extschema@.queue_failure(queue text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if strpos(queue_failure.queue, '@') > 0 then
        return make_failure(
            'PD104', 'InvalidName', format('the name of a queue must not contain @: %s', quote_literal(left(queue_failure.queue, 40))),
            'An @ separates a queue from the version of the code that its tasks are pinned to.',
            'Use another character; a version is given as pinned_version.');
    end if;
    return name_failure(queue_failure.queue, 'a queue');
end
$$;
comment on function @extschema@.queue_failure(text) is
    'Return what is wrong with the name of a queue (PD104), or null.';


create function @extschema@.pin_failure(version text, queue text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if pin_failure.version is null then
        return null;
    end if;
    if starts_with(pin_failure.queue, '$') then
        return make_failure(
            'PD107', 'InvalidArgument', format('tasks on the queue %s cannot be pinned', pin_failure.queue),
            'The functions of the database have one version.', 'Leave pinned_version out.');
    end if;
    return name_failure(pin_failure.version, 'a version');
end
$$;
comment on function @extschema@.pin_failure(text, text) is
    'Return what is wrong with a pin: its version (PD104), or its queue (PD107); or null.';


create function @extschema@.call_failure(
    what      text,
    name      text,
    args      jsonb,
    queue     text,
    priority  integer
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        chosen_name_failure(call_failure.name, call_failure.what),
        queue_failure(call_failure.queue),
        case when call_failure.what in ('a workflow', 'a job') and left(call_failure.queue, 1) = '$' then make_failure(
            'PD107', 'InvalidArgument', format('%s cannot run on the queue %s', call_failure.what, call_failure.queue),
            'On this queue the database runs hooks in SQL.',
            'Choose a queue that workers with the code of the workflow serve.') end,
        value_failure(call_failure.args, 'the arguments'),
        case when (jsonb_typeof(call_failure.args) in ('array', 'object')) is not true then make_failure(
            'PD103', 'InvalidValue', 'arguments must be an array (by position) or an object (by name)',
            format('This is %s.', type_found(call_failure.args)), 'Put a single argument into an array.') end,
        case when (call_failure.priority between 0 and 9) is not true then make_failure(
            'PD107', 'InvalidArgument', 'a priority must be between 0 (first) and 9 (last)',
            format('This is %s.', coalesce(call_failure.priority::text, 'null')), 'Correct it, or leave it out.') end);
end
$$;
comment on function @extschema@.call_failure(text, text, jsonb, text, integer) is
    'Return what is wrong with a function to be called: its name or queue (PD104, PD107), arguments (PD103, PD30x) or priority (PD107); or null.';


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
