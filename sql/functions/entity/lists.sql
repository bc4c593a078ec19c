-- Lists of commands, as clients write them. If one cannot be read, the error says which.

create function @extschema@.command_path_failure(command jsonb) returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    message text;
    detail text;
    hint text;
begin
    if jsonb_typeof(command_path_failure.command -> 'path') = 'array' then
        perform check_path(array(select jsonb_array_elements_text(command_path_failure.command -> 'path')));
    else
        perform parse_path(command_path_failure.command ->> 'path');
    end if;
    return null;
exception
    when sqlstate 'PD101' then
        get stacked diagnostics message = message_text, detail = pg_exception_detail, hint = pg_exception_hint;
        return make_failure('PD101', 'InvalidPath', message, detail, hint);
end
$$;
comment on function @extschema@.command_path_failure(jsonb) is
    'Return why the path of a command cannot be read (PD101), or null.';


create function @extschema@.read_commands(commands jsonb) returns @extschema@.command[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_list(read_commands.commands, 'commands', '{op,path,value}');
    if jsonb_array_length(read_commands.commands) not between 1 and 1000 then
        raise exception 'commands are an array of 1 to 1000 objects'
            using errcode = 'PD107',
                  detail = format('There were %s.', jsonb_array_length(read_commands.commands)),
                  hint = 'Write [{"op": "merge", "path": "user", "value": {"name": "Jane"}}, ...].';
    end if;
    return array(
        select (c.given ->> 'op',
                case jsonb_typeof(c.given -> 'path')
                    when 'array' then check_path(array(select jsonb_array_elements_text(c.given -> 'path')))
                    else parse_path(c.given ->> 'path') end,
                case when c.given ->> 'op' in ('append', 'prepend', 'log') then as_array(c.given -> 'value')
                     else c.given -> 'value' end)::command
          from jsonb_array_elements(read_commands.commands) with ordinality as c (given, place)
         order by c.place);
exception
    -- Only now it is looked up which one it was.
    when sqlstate 'PD101' then
        perform raise_failure(failure_among(command_path_failure(c.given), 'command', c.place,
                                            jsonb_array_length(read_commands.commands)))
           from jsonb_array_elements(read_commands.commands) with ordinality as c (given, place)
          order by c.place;
        raise;
end
$$;
comment on function @extschema@.read_commands(jsonb) is
    'Read commands as a client writes them: op, path (as text or as an array of keys) and value. Errors: PD101, PD107.';
