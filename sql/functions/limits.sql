-- Limits and failures: what perdure refuses, and in which words. A failure is a JSON object with code, message, detail
-- and hint. Inside advance() it is an answer; the single verbs raise it.

create function @extschema@.perdure_version() returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '0.1.0';
end
$$;
comment on function @extschema@.perdure_version() is 'Return the version of the installed functions.';


create function @extschema@.make_failure(
    code     text,
    type     text,
    message  text,
    detail   text,
    hint     text
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_build_object('code', code, 'type', type, 'message', message, 'detail', detail, 'hint', hint);
end
$$;
comment on function @extschema@.make_failure(text, text, text, text, text) is
    'Put an error into the form in which it is recorded and raised.';


create function @extschema@.raise_failure(failure jsonb) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if raise_failure.failure is null then
        return;
    end if;
    raise exception '%', raise_failure.failure ->> 'message'
        using errcode = raise_failure.failure ->> 'code',
              detail = coalesce(raise_failure.failure ->> 'detail', ''),
              hint = coalesce(raise_failure.failure ->> 'hint', ''),
              column = coalesce(raise_failure.failure ->> 'path', ''),
              constraint = coalesce(raise_failure.failure ->> 'rule', '');
end
$$;
comment on function @extschema@.raise_failure(jsonb) is
    'Raise an error with its own code, its path as the column and its rule as the constraint; null raises nothing.';


create function @extschema@.failure_among(
    failure  jsonb,
    what     text,
    place    bigint,
    size     integer,
    id       text default null
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return failure || jsonb_build_object('detail', format(
        'It is %s %s of %s%s; none of them was carried out. %s', what, place, size,
        ', ' || quote_literal(left(nullif(failure_among.id, ''), 200)), failure ->> 'detail'));
end
$$;
comment on function @extschema@.failure_among(jsonb, text, bigint, integer, text) is
    'Add to an error which of many it concerns, counted from 1, and its id if it has one; null stays null.';


create function @extschema@.name_failure(name text, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if name_failure.name is null or name_failure.name = '' then
        return make_failure(
            'PD104', 'InvalidName', format('%s must not be empty', what),
            case when name_failure.name is null then 'It is null. ' else '' end || 'A name is a text of 1 to 200 bytes.',
            'Give it a name; if it has a default, you may leave it out instead.');
    end if;
    if octet_length(name_failure.name) > 200 or name_failure.name ~ '[[:cntrl:]]' then
        return make_failure(
            'PD104', 'InvalidName', format('%s %s cannot be used as a name', what, quote_literal(left(name_failure.name, 40))),
            case when octet_length(name_failure.name) > 200
                 then format('It has %s bytes; at most 200 are allowed.', octet_length(name_failure.name))
                 else 'It holds a control character.' end,
            format('Choose a %s name; put data into the arguments.',
                   case when octet_length(name_failure.name) > 200 then 'shorter' else 'printable' end));
    end if;
    return null;
end
$$;
comment on function @extschema@.name_failure(text, text) is 'Return what is wrong with a name (PD104), or null.';


create function @extschema@.optional_name_failure(name text, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when optional_name_failure.name is not null then name_failure(optional_name_failure.name, what) end;
end
$$;
comment on function @extschema@.optional_name_failure(text, text) is
    'Return what is wrong with a name that may be left out (PD104), or null.';


create function @extschema@.chosen_name_failure(name text, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if left(chosen_name_failure.name, 1) = '$' then
        return make_failure(
            'PD104', 'InvalidName', format('%s %s is reserved for perdure', what, quote_literal(left(chosen_name_failure.name, 40))),
            'Names of its own jobs, entities and functions begin with $, such as $schedule.', 'Choose another name.');
    end if;
    return name_failure(chosen_name_failure.name, what);
end
$$;
comment on function @extschema@.chosen_name_failure(text, text) is
    'Return what is wrong with a name that a user gives to something of his own (PD104), or null.';


create function @extschema@.check_name(name text, what text) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(name_failure(check_name.name, check_name.what));
end
$$;
comment on function @extschema@.check_name(text, text) is 'Refuse a name that is empty, too long or unprintable (PD104).';


create function @extschema@.shape_failure(value jsonb, written text, what text, max_levels integer) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if length(written) - length(replace(replace(written, '[', ''), '{', '')) > shape_failure.max_levels
        and jsonb_path_exists(shape_failure.value, format('strict $.**{%s}', shape_failure.max_levels + 1)::jsonpath) then
        return make_failure(
            'PD302', 'ValueTooDeep', format('%s is nested too deeply', what),
            format('At most %s levels are allowed.', shape_failure.max_levels), 'Flatten it, or store it as text.');
    end if;
    if written ~ '[0-9]{100}' and jsonb_path_exists(
        shape_failure.value, '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))') then
        return make_failure(
            'PD304', 'NumberOutOfRange', format('%s holds a number that is out of range', what),
            'Numbers lie between -1e308 and 1e308, so that every language can read them.', 'Store it as text.');
    end if;
    return null;
end
$$;
comment on function @extschema@.shape_failure(jsonb, text, text, integer) is
    'Return what is wrong with the shape of a JSON value (PD302 depth, PD304 number), or null; its text form decides cheaply.';


-- A value of up to 200 bytes of text is neither too deep, nor a number that no client can read. Only suspicious values
-- are walked through.
create function @extschema@.value_failure(value jsonb, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written text := value_failure.value::text;
    size integer := octet_length(written);
begin
    if size <= 200 or written is null then
        return null;
    end if;
    if size > 1048576 then
        return make_failure(
            'PD301', 'ValueTooLarge', format('%s is too large', what),
            format('It has %s bytes as JSON; at most 1048576 are allowed.', size),
            'Store it elsewhere and pass a reference.');
    end if;
    return shape_failure(value_failure.value, written, what, 100);
end
$$;
comment on function @extschema@.value_failure(jsonb, text) is
    'Return what is wrong with a JSON value (PD301 size, PD302 depth, PD304 number), or null.';


create function @extschema@.document_failure(context jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- Unpacked by #>, since a document that comes from another table is compressed.
    if pg_column_size(document_failure.context #> '{}') > 8388608 then
        return make_failure(
            'PD303', 'MemoryTooLarge', 'the memory would become too large', 'At most 8 MB are allowed for one document.',
            'Keep large things elsewhere and put a reference into the memory; keep long lists in a log.');
    end if;
    -- Commands may put values of a hundred levels at paths of fifty keys.
    return shape_failure(document_failure.context, document_failure.context::text, 'the memory', 150);
end
$$;
comment on function @extschema@.document_failure(jsonb) is
    'Return what is wrong with a document that was written as a whole (PD302 depth, PD303 size, PD304 number), or null.';


create function @extschema@.check_value(value jsonb, what text) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(value_failure(check_value.value, check_value.what));
end
$$;
comment on function @extschema@.check_value(jsonb, text) is
    'Refuse a JSON value that is too large (PD301), too deep (PD302) or has a number out of range (PD304).';


create function @extschema@.check_protocol(protocol integer) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if check_protocol.protocol is distinct from 1 then
        raise exception 'protocol version % is not supported here', check_protocol.protocol
            using errcode = 'PD004',
                  detail = 'These functions use protocol version 1.',
                  hint = 'Install the version of the worker that belongs to this schema, or upgrade the schema.';
    end if;
end
$$;
comment on function @extschema@.check_protocol(integer) is 'Refuse a worker that uses another protocol (PD004).';


create function @extschema@.check_lease(lease_for interval) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if (check_lease.lease_for between interval '100 ms' and interval '1 day') is not true then
        raise exception 'a lease must last between 100 ms and 1 day'
            using errcode = 'PD107',
                  detail = format('It was given %s.', coalesce(check_lease.lease_for::text, 'null')),
                  hint = 'Choose a few times the interval between your heartbeats. A number without a unit means seconds.';
    end if;
end
$$;
comment on function @extschema@.check_lease(interval) is 'Refuse a lease that is too short or too long (PD107).';
