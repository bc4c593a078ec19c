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
comment on function @extschema@.wanted_type(text) is
    'Return the type that a command must find at its path; null if any type will do.';


-- What is wrong with a command before it looks at the document.
create function @extschema@.argument_failure(op text, path text[], argument jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wrong text := case
        when op is null or op not in ('set', 'merge', 'append', 'prepend', 'remove', 'increment', 'toggle',
                                      'set_if_not_exists', 'delete', 'log') then 'is not a command'
        when argument_failure.argument is null and op not in ('toggle', 'delete') then 'needs a value'
        when op in ('append', 'prepend', 'log') and jsonb_typeof(argument_failure.argument) <> 'array'
             then 'needs an array of items'
        when op = 'log' and argument_failure.path = '{}' then 'needs a path: the name of the log'
        when op = 'merge' and jsonb_typeof(argument_failure.argument) <> 'object' then 'needs an object'
        -- A number that is not finite is a text in JSON.
        when op = 'increment' and argument_failure.argument in ('"NaN"', '"Infinity"', '"-Infinity"')
             then 'needs a finite number'
        when op = 'increment' and jsonb_typeof(argument_failure.argument) <> 'number' then 'needs a number'
        when op = 'remove' and argument_failure.argument::text !~ '^-?[0-9]{1,9}$' then 'needs an index'
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
    if cardinality(argument_failure.path) > 50 or array_ndims(argument_failure.path) > 1
        or array_position(argument_failure.path, null) is not null
        or octet_length(argument_failure.path::text) > 10000 then
        return make_failure(
            'PD101', 'InvalidPath', 'this is not a path into a memory',
            'A path has at most 50 keys, none of them null, and 10000 bytes.', 'Store the deeper part as one value.');
    end if;
    if wrong is null then
        return null;
    end if;
    return make_failure(
        'PD103', 'InvalidValue', format('%s %s', coalesce(op, 'null'), wrong),
        format('It was given %s at %s.',
               case when argument_failure.argument is null then 'nothing'
                    when wrong = 'needs a finite number' then argument_failure.argument #>> '{}'
                    else type_found(argument_failure.argument) end, write_path(argument_failure.path)),
        case when wrong = 'is not a command'
             then 'Use set, merge, append, prepend, remove, increment, toggle, set_if_not_exists, delete or log; to read, use entity_get(), or get in a turn.'
             when argument_failure.argument is null
             then 'Nothing was changed; give the command what it needs. To store a null, give the null of JSON.'
             else 'Nothing was changed; give the command what it needs.' end);
end
$$;
comment on function @extschema@.argument_failure(text, text[], jsonb) is
    'Return what is wrong with the argument of a command (PD101, PD103), or null.';


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
comment on function @extschema@.remove_element(jsonb, text[], integer) is
    'Remove one element of an array; the answer is what was removed.';


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
    'Return why a command does not fit a document (PD101, PD102, PD103), or null.';


-- The rule of every command but log, for any document and path.
create function @extschema@.check_and_apply(
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
    old jsonb := check_and_apply.context #> check_and_apply.path;
    failure jsonb := command_failure(check_and_apply.context, check_and_apply.op, check_and_apply.path, check_and_apply.argument);
    new jsonb;
begin
    if failure is not null then
        return (null, null, failure)::outcome;
    end if;
    case op
        when 'remove' then
            return remove_element(check_and_apply.context, check_and_apply.path, check_and_apply.argument::integer);
        when 'merge' then
            return (merge_at(check_and_apply.context, check_and_apply.path, check_and_apply.argument), null, null)::outcome;
        when 'delete' then
            return (case when check_and_apply.path = '{}' then '{}' else check_and_apply.context #- check_and_apply.path end,
                    coalesce(old, 'null'), null)::outcome;
        else
            new := case op
                       when 'set' then argument
                       when 'append' then coalesce(old, '[]') || argument
                       when 'prepend' then argument || coalesce(old, '[]')
                       when 'increment' then to_jsonb(coalesce(old, '0')::numeric + argument::numeric)
                       when 'toggle' then to_jsonb(not coalesce(old, 'false')::boolean)
                       when 'set_if_not_exists' then coalesce(old, argument)
                   end;
            if op = 'increment' and abs(new::numeric) > 1e308 then
                return (null, null, value_failure(new, write_path(check_and_apply.path)))::outcome;
            end if;
            return (put_value(check_and_apply.context, check_and_apply.path, new),
                    case when op in ('append', 'prepend') then to_jsonb(jsonb_array_length(new)) when op <> 'set' then new end,
                    null)::outcome;
    end case;
end
$$;
comment on function @extschema@.check_and_apply(jsonb, text, text[], jsonb) is
    'Check a command completely and apply it: return the new document and the answer, or a failure (PD101, PD102, PD103, PD304).';


-- Most writes are one of these on a key of an object, and take this short way to the same result. PL/pgSQL prepares the
-- expressions and functions that it meets anew in every transaction, so a single command should meet few of them.
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
    made outcome;
begin
    if op = 'log' then
        -- A log is stored beside the document, which may be large and is not looked at.
        made.failure := argument_failure(op, apply_command.path, apply_command.argument);
        made.context := case when made.failure is null then apply_command.context end;
        return made;
    end if;
    -- Written as text, a path has at most twice the bytes that it has as an array.
    if depth between 1 and 50 and array_ndims(apply_command.path) = 1 and array_position(apply_command.path, null) is null
        and pg_column_size(apply_command.path) <= 5000
        and jsonb_typeof(apply_command.context #> apply_command.path[:depth - 1]) = 'object' then
        old := apply_command.context #> apply_command.path;
        if op = 'increment' then
            if jsonb_typeof(argument) = 'number' and jsonb_typeof(coalesce(old, '0')) = 'number' then
                made.answer := to_jsonb(coalesce(old, '0')::numeric + argument::numeric);
                made.context := jsonb_set(apply_command.context, apply_command.path, made.answer);
            end if;
        elsif op = 'set' then
            made.context := jsonb_set(apply_command.context, apply_command.path, argument);
        elsif op = 'append' then
            if jsonb_typeof(argument) = 'array' and jsonb_typeof(coalesce(old, '[]')) = 'array' then
                old := coalesce(old, '[]') || argument;
                made.answer := to_jsonb(jsonb_array_length(old));
                made.context := jsonb_set(apply_command.context, apply_command.path, old);
            end if;
        end if;
    elsif op = 'merge' and depth = 0 and jsonb_typeof(argument) = 'object' then
        made.context := merge_at(apply_command.context, apply_command.path, argument);
    end if;
    if made.context is null or (op = 'increment' and abs(made.answer::numeric) > 1e308) then
        made := check_and_apply(apply_command.context, op, apply_command.path, argument);
    end if;
    if pg_column_size(made.context) > 8388608 then
        return (null, null, document_failure(made.context))::outcome;
    end if;
    return made;
end
$$;
comment on function @extschema@.apply_command(jsonb, text, text[], jsonb) is
    'Apply one command to one document: return the new document and a small answer (null stands for the new version), or a failure and no change.';
