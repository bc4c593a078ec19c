-- Commands: the pure rule under every verb that changes a memory, and under advance(): one document in, one document out.

create function @extschema@.wanted_type(op text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case wanted_type.op
               when 'merge' then 'an object'
               when 'append' then 'an array'
               when 'prepend' then 'an array'
               when 'remove' then 'an array'
               when 'increment' then 'a number'
               when 'toggle' then 'a boolean'
           end;
end
$$;
comment on function @extschema@.wanted_type(text) is 'Tell the type that a command must find at its path; null where any will do.';


-- What a command cannot work with, before it looks at the document.
create function @extschema@.argument_failure(op text, path text[], argument jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wrong text := case
        when op is null or op not in ('set', 'merge', 'append', 'prepend', 'remove', 'increment', 'toggle',
                                      'set_if_not_exists', 'delete', 'log') then 'is no command'
        when argument_failure.argument is null and op not in ('toggle', 'delete') then 'needs a value'
        when op in ('append', 'prepend', 'log') and jsonb_typeof(argument_failure.argument) <> 'array'
             then 'needs an array of items'
        when op = 'log' and argument_failure.path = '{}' then 'needs a path: the name of the log'
        when op = 'merge' and jsonb_typeof(argument_failure.argument) <> 'object' then 'needs an object'
        when op = 'increment' and jsonb_typeof(argument_failure.argument) <> 'number' then 'needs a number'
        when op = 'remove' and argument_failure.argument::text !~ '^-?\d{1,9}$' then 'needs an index'
        when op in ('set', 'set_if_not_exists') and argument_failure.path = '{}'
             and jsonb_typeof(argument_failure.argument) <> 'object' then 'needs an object: the whole memory is one'
        when path is null then 'needs a path'
    end;
begin
    if op = 'log' and octet_length(argument_failure.path::text) > 1000 then
        return make_failure(
            'PD101', 'InvalidPath', 'the path of a log is too long', 'The name of a log has at most 1000 bytes.',
            'Give the log a shorter name.');
    end if;
    if cardinality(argument_failure.path) > 50 or array_position(argument_failure.path, null) is not null then
        return make_failure(
            'PD101', 'InvalidPath', 'this is no path into a memory', 'A path has at most 50 keys, none of them null.',
            'Store what lies deeper as one value.');
    end if;
    if wrong is null then
        return null;
    end if;
    return make_failure(
        'PD103', 'InvalidValue', format('%s %s', coalesce(op, 'null'), wrong),
        format('It was given %s at %s.', type_found(argument_failure.argument), write_path(argument_failure.path)),
        'Nothing was changed; give the command what it needs.');
end
$$;
comment on function @extschema@.argument_failure(text, text[], jsonb) is 'Say what is wrong with what a command was given (PD101, PD103), or null.';


create function @extschema@.remove_element(
    context  jsonb,
    path     text[],
    index    integer
) returns @extschema@.outcome
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    list jsonb := remove_element.context #> remove_element.path;
begin
    if list -> remove_element.index is null then
        return (null, null, type_failure(remove_element.path || remove_element.index::text, 'missing',
                                         'an element of the array'))::outcome;
    end if;
    return (put_value(remove_element.context, remove_element.path, list - remove_element.index),
            list -> remove_element.index, null)::outcome;
end
$$;
comment on function @extschema@.remove_element(jsonb, text[], integer) is 'Remove one element of an array; the answer is what was removed.';


create function @extschema@.growth_failure(context jsonb, path text[], number jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        value_failure(growth_failure.number, write_path(growth_failure.path)),
        document_failure(growth_failure.context));
end
$$;
comment on function @extschema@.growth_failure(jsonb, text[], jsonb) is
    'Say what has grown too large: a number (PD304) or the whole document (PD303).';


-- The reason why a command does not fit, or null: judged in full, unlike by fits().
create function @extschema@.command_failure(
    context   jsonb,
    op        text,
    path      text[],
    argument  jsonb
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    old jsonb := command_failure.context #> command_failure.path;
    wanted text := wanted_type(command_failure.op);
begin
    return coalesce(
        argument_failure(command_failure.op, command_failure.path, command_failure.argument),
        path_failure(command_failure.context, command_failure.path),
        case when (old is not null or command_failure.op = 'remove') and type_found(old) <> wanted
             then type_failure(command_failure.path, type_found(old), wanted) end);
end
$$;
comment on function @extschema@.command_failure(jsonb, text, text[], jsonb) is
    'Say why a command does not fit a document (PD101, PD102, PD103), or null.';


-- What makes more of a document than one value at one place.
create function @extschema@.reshape(
    context   jsonb,
    op        text,
    path      text[],
    argument  jsonb
) returns @extschema@.outcome
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case op
               when 'merge' then (merge_at(reshape.context, reshape.path, reshape.argument), null, null)::outcome
               when 'remove' then remove_element(reshape.context, reshape.path, reshape.argument::integer)
               when 'delete' then (case when reshape.path = '{}' then '{}' else reshape.context #- reshape.path end,
                                   coalesce(reshape.context #> reshape.path, 'null'), null)::outcome
           end;
end
$$;
comment on function @extschema@.reshape(jsonb, text, text[], jsonb) is
    'Carry out a command that fits and does not just write one value.';


-- The hot path of every write. A command that plainly fits needs no further function: each call of one costs a few
-- microseconds, once more in every transaction. Only what may not fit is judged in full, and gets its reason.
create function @extschema@.apply_command(
    context   jsonb,
    op        text,
    path      text[],
    argument  jsonb
) returns @extschema@.outcome
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    depth integer := cardinality(apply_command.path);
    old jsonb;
    is_plain boolean;
    new jsonb;
    made outcome;
begin
    if op = 'log' then
        -- A log stands beside the document, which may be large: it is not looked at.
        made.failure := argument_failure(op, apply_command.path, apply_command.argument);
        made.context := case when made.failure is null then apply_command.context end;
        return made;
    end if;
    old := apply_command.context #> apply_command.path;
    is_plain := depth between 1 and 50
        and array_position(apply_command.path, null) is null
        and jsonb_typeof(apply_command.context #> apply_command.path[:depth - 1]) = 'object';
    if (is_plain and case op
            when 'set' then argument is not null
            when 'set_if_not_exists' then argument is not null
            when 'merge' then jsonb_typeof(argument) = 'object' and jsonb_typeof(coalesce(old, '{}')) = 'object'
            when 'append' then jsonb_typeof(argument) = 'array' and jsonb_typeof(coalesce(old, '[]')) = 'array'
            when 'prepend' then jsonb_typeof(argument) = 'array' and jsonb_typeof(coalesce(old, '[]')) = 'array'
            when 'increment' then jsonb_typeof(argument) = 'number' and jsonb_typeof(coalesce(old, '0')) = 'number'
            when 'toggle' then jsonb_typeof(coalesce(old, 'true')) = 'boolean' end) is not true then
        made.failure := command_failure(apply_command.context, op, apply_command.path, apply_command.argument);
        if made.failure is not null then
            return made;
        end if;
    end if;
    if op in ('merge', 'remove', 'delete') then
        made := reshape(apply_command.context, op, apply_command.path, apply_command.argument);
    else
        new := case op
                   when 'set' then argument
                   when 'append' then coalesce(old, '[]') || argument
                   when 'prepend' then argument || coalesce(old, '[]')
                   when 'increment' then to_jsonb(coalesce(old, '0')::numeric + argument::numeric)
                   when 'toggle' then to_jsonb(not coalesce(old, 'false')::boolean)
                   when 'set_if_not_exists' then coalesce(old, argument)
               end;
        made.answer := case when op in ('append', 'prepend') then to_jsonb(jsonb_array_length(new)) when op <> 'set' then new end;
        made.context := case when is_plain then jsonb_set(apply_command.context, apply_command.path, new)
                             else put_value(apply_command.context, apply_command.path, new) end;
    end if;
    if pg_column_size(made.context) > 8388608 or op = 'increment' and abs(new::numeric) > 1e308 then
        return (null, null, growth_failure(made.context, apply_command.path,
                                           case op when 'increment' then new end))::outcome;
    end if;
    return made;
end
$$;
comment on function @extschema@.apply_command(jsonb, text, text[], jsonb) is
    'Apply one command to one document: the new document and a small answer (null stands for the new version), or a failure and nothing changed.';
