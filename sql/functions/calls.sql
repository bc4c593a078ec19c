-- Calls: what is wrong with what a caller has given: lists, keys, queues, pins, and functions that are to be called.

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
