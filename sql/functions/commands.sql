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
                                      'set_if_not_exists', 'delete') then 'is no command'
        when argument_failure.argument is null and op not in ('toggle', 'delete') then 'needs a value'
        when op in ('append', 'prepend') and jsonb_typeof(argument_failure.argument) <> 'array' then 'needs an array of items'
        when op = 'merge' and jsonb_typeof(argument_failure.argument) <> 'object' then 'needs an object'
        when op = 'increment' and jsonb_typeof(argument_failure.argument) <> 'number' then 'needs a number'
        when op = 'remove' and argument_failure.argument::text !~ '^-?\d{1,9}$' then 'needs an index'
        when op in ('set', 'set_if_not_exists') and argument_failure.path = '{}'
             and jsonb_typeof(argument_failure.argument) <> 'object' then 'needs an object: the whole memory is one'
        when path is null then 'needs a path'
    end;
begin
    if cardinality(argument_failure.path) > 50 then
        return make_failure(
            'PD101', 'InvalidPath', 'the path is too long', 'A path has at most 50 keys.',
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


-- The value that a command writes in place of the one it found.
create function @extschema@.new_value(op text, old jsonb, argument jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case op
               when 'set' then argument
               when 'append' then coalesce(new_value.old, '[]') || argument
               when 'prepend' then argument || coalesce(new_value.old, '[]')
               when 'increment' then to_jsonb(coalesce(new_value.old, '0')::numeric + argument::numeric)
               when 'toggle' then to_jsonb(not coalesce(new_value.old, 'false')::boolean)
               when 'set_if_not_exists' then coalesce(new_value.old, argument)
           end;
end
$$;
comment on function @extschema@.new_value(text, jsonb, jsonb) is 'Compute what a command writes in place of what it found.';


-- The type that was found is right: what is left can only fail by growing too large.
create function @extschema@.change_value(
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
    made jsonb;
begin
    if change_value.op = 'merge' then
        return (merge_at(change_value.context, change_value.path, change_value.argument), null, null)::outcome;
    end if;
    if change_value.op = 'remove' then
        return remove_element(change_value.context, change_value.path, change_value.argument::integer);
    end if;
    made := new_value(change_value.op, change_value.context #> change_value.path, change_value.argument);
    if change_value.op = 'increment' and abs(made::numeric) > 1e308 then
        return (null, null, value_failure(made, write_path(change_value.path)))::outcome;
    end if;
    return (put_value(change_value.context, change_value.path, made),
            case when op in ('append', 'prepend') then to_jsonb(jsonb_array_length(made))
                 when op <> 'set' then made end,
            null)::outcome;
end
$$;
comment on function @extschema@.change_value(jsonb, text, text[], jsonb) is 'Carry out a command whose argument and target fit.';


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
    old jsonb := apply_command.context #> apply_command.path;
    wanted text := wanted_type(apply_command.op);
    made outcome;
    failure jsonb := coalesce(
        argument_failure(apply_command.op, apply_command.path, apply_command.argument),
        path_failure(apply_command.context, apply_command.path),
        case when (old is not null or apply_command.op = 'remove') and type_found(old) <> wanted
             then type_failure(apply_command.path, type_found(old), wanted) end);
begin
    if failure is not null then
        return (null, null, failure)::outcome;
    end if;
    if apply_command.op = 'delete' then
        made := (case when apply_command.path = '{}' then '{}' else apply_command.context #- apply_command.path end,
                 coalesce(old, 'null'), null)::outcome;
    else
        made := change_value(apply_command.context, apply_command.op, apply_command.path, apply_command.argument);
    end if;
    if pg_column_size(made.context) > 8388608 then
        return (null, null, make_failure(
            'PD303', 'MemoryTooLarge', 'the memory would become too large', 'At most 8 MB are allowed for one document.',
            'Keep large things elsewhere and put a reference into the memory.'))::outcome;
    end if;
    return made;
end
$$;
comment on function @extschema@.apply_command(jsonb, text, text[], jsonb) is
    'Apply one command to one document: the new document and a small answer (null stands for the new version), or a failure and nothing changed.';
