-- Conditions: what find() asks of a memory, from JSON to the text of a WHERE clause. Law: what a caller gives reaches the
-- text only as a quoted literal; operators, columns and types are words of our own. A condition holds or does not: SQL's
-- third answer, null, counts as "does not" (so a negation is `is not true`).

-- Volatile: otherwise a plan would raise it in advance if all its arguments are constants.
create function @extschema@.refuse_argument(message text, detail text, hint text) returns void
language plpgsql
volatile
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(make_failure('PD107', 'InvalidArgument', message, detail, hint));
end
$$;
comment on function @extschema@.refuse_argument(text, text, text) is
    'Refuse an argument that is not understood (PD107).';


create function @extschema@.check_conditions(conditions jsonb) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_value(check_conditions.conditions, 'the conditions');
    if jsonb_typeof(check_conditions.conditions) is distinct from 'object' then
        perform refuse_argument('conditions are an object', format('This is %s.', type_found(check_conditions.conditions)),
                                'Write {"path": value} or {"path": {"$gt": value}}; {} asks for everything.');
    end if;
    if jsonb_path_exists(check_conditions.conditions, 'strict $.**{21}')
        or jsonb_array_length(jsonb_path_query_array(check_conditions.conditions, 'strict $.**')) > 2000 then
        perform refuse_argument('these are too many conditions', 'They have at most 20 levels and 2000 values in all.',
                                'Ask several times, or keep what you ask for in one field of the memory.');
    end if;
end
$$;
comment on function @extschema@.check_conditions(jsonb) is
    'Refuse conditions that are no object, or are too many or too deep (PD107), or too large (PD301).';


create function @extschema@.operand_kind(operand jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if operand_kind.operand = jsonb_build_object('$time', operand_kind.operand -> '$time') then
        if time_at(operand_kind.operand, '{$time}') is null then
            perform refuse_argument(
                format('%s is not a time', type_found(operand_kind.operand -> '$time')),
                'A time has a date from 0001-01-02 to 9999-12-30, a time of day and a zone.', 'Write it as {"$time": "2026-01-31T12:00:00Z"}.');
        end if;
        return 'time';
    end if;
    if jsonb_path_exists(operand_kind.operand, '$.**."$time"') then
        perform refuse_argument('a time cannot be compared inside a value', 'It is compared with one place of the memory.',
                                'Ask for its own path.');
    end if;
    return case jsonb_typeof(operand_kind.operand)
               when 'string' then 'text'
               when 'array' then 'value'
               when 'object' then 'value'
               else jsonb_typeof(operand_kind.operand)
           end;
end
$$;
comment on function @extschema@.operand_kind(jsonb) is
    'Return as what a value is compared: text, number, boolean, time, null or value (the whole of it). Errors: PD107 (an invalid time).';


create function @extschema@.kind_type(kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case kind_type.kind
               when 'text' then 'text'
               when 'number' then 'numeric'
               when 'boolean' then 'boolean'
               when 'time' then 'timestamptz'
               when 'rank' then 'double precision'
               when 'distance' then 'double precision'
               else 'jsonb'
           end;
end
$$;
comment on function @extschema@.kind_type(text) is 'Name the SQL type of a kind.';


create function @extschema@.operand_text(operand jsonb, kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case operand_text.kind
               when 'text' then operand_text.operand #>> '{}'
               when 'number' then number_at(operand_text.operand, '{}')::text
               when 'time' then written_time(time_at(operand_text.operand, '{$time}'))
               else operand_text.operand::text
           end;
end
$$;
comment on function @extschema@.operand_text(jsonb, text) is 'Write a value so that the type of its kind can read it.';


create function @extschema@.column_kind(name text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    kind text := case when column_kind.name in ('$id', '$status', '$workflow') then 'text'
                      when column_kind.name in ('$created_at', '$updated_at') then 'time'
                      when column_kind.name = '$version' then 'number' end;
begin
    if kind is null then
        perform refuse_argument(
            format('%s is not known', quote_literal(left(column_kind.name, 40))),
            'Columns are $id, $status, $workflow, $version, $created_at and $updated_at; conditions are combined by $and, $or and $not.',
            'Put a key of the memory that begins with $ into double quotes: "$key".x');
    end if;
    return kind;
end
$$;
comment on function @extschema@.column_kind(text) is
    'Return the kind of a column, by its name with $. Errors: PD107 (an unknown column).';


create function @extschema@.is_column(path text) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return left(is_column.path, 1) = '$';
end
$$;
comment on function @extschema@.is_column(text) is
    'Tell whether a path names a column of the job, not a place in its memory.';


create function @extschema@.path_expression(path text, kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    own text;
begin
    if not is_column(path_expression.path) then
        return extraction(parse_path(path_expression.path), path_expression.kind);
    end if;
    own := column_kind(path_expression.path);
    if path_expression.kind not in (own, 'null') then
        perform refuse_argument(
            format('%s is a %s', path_expression.path, own), format('It was used as a %s.', path_expression.kind),
            case own when 'time' then 'Write {"$time": "2026-01-31T12:00:00Z"}.' else format('Use it as a %s.', own) end);
    end if;
    return substr(path_expression.path, 2) || case own when 'text' then ' collate "C"' else '' end;
end
$$;
comment on function @extschema@.path_expression(text, text) is
    'Write the expression that reads a path, or a column, as one kind. Errors: PD101 (no path), PD107 (a column of another kind).';


-- Texts longer than an extractor returns are found by their beginning, and then compared as a whole.
create function @extschema@.long_comparison(path text, sign text, operand text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format(
        '(%s %s %L and (context #>> %L::text[]) collate "C" %s %L)', path_expression(long_comparison.path, 'text'),
        case long_comparison.sign when '>' then '>=' when '<' then '<=' else long_comparison.sign end,
        left(long_comparison.operand, 512),
        parse_path(long_comparison.path), long_comparison.sign, long_comparison.operand);
end
$$;
comment on function @extschema@.long_comparison(text, text, text) is
    'Compare a path with a text of 512 characters or more.';


create function @extschema@.comparison(path text, sign text, operand jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    kind text := operand_kind(comparison.operand);
begin
    if comparison.sign <> '=' and kind in ('null', 'value') then
        perform refuse_argument(
            format('%s has no order', type_found(comparison.operand)),
            'Only texts, numbers, booleans and times have an order.', 'Compare with one of these, or use $eq.');
    end if;
    if is_column(comparison.path) and kind = 'null' then
        return path_expression(comparison.path, kind) || ' is null';
    end if;
    if kind = 'text' and length(comparison.operand #>> '{}') >= 512 and not is_column(comparison.path) then
        return long_comparison(comparison.path, comparison.sign, comparison.operand #>> '{}');
    end if;
    return format('%s %s %L::%s', path_expression(comparison.path, kind), comparison.sign, operand_text(comparison.operand, kind),
                  kind_type(kind));
end
$$;
comment on function @extschema@.comparison(text, text, jsonb) is
    'Compare a path with a value of the same kind. A value of another kind is neither equal nor before nor after. Errors: PD107 (values without an order).';


-- Values of the same kind are asked for together, so that one index scan finds them all.
create function @extschema@.membership(path text, operand jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(membership.operand) <> 'array' then
        perform refuse_argument('$in and $nin take an array', format('This is %s.', type_found(membership.operand)),
                                'Write {"$in": ["a", "b"]}.');
    end if;
    return coalesce((
        select '(' || string_agg(
                          case when cardinality(same_kind.texts) = 1 then comparison(membership.path, '=', same_kind.first)
                               else format('%s = any(%L::%s[])', path_expression(membership.path, same_kind.kind), same_kind.texts,
                                           kind_type(same_kind.kind)) end,
                          ' or ') || ')'
          from (select item.kind, jsonb_agg(item.value) -> 0 as first,
                       array_agg(distinct operand_text(item.value, item.kind)) as texts
                  from (select each.value,
                               case when jsonb_typeof(each.value) = 'string' and length(each.value #>> '{}') >= 512
                                         and not is_column(membership.path) then 'value'
                                    else operand_kind(each.value) end as kind
                          from jsonb_array_elements(membership.operand) as each) as item
                 group by item.kind) as same_kind), 'false');
end
$$;
comment on function @extschema@.membership(text, jsonb) is
    'Compare a path with each of many values. Errors: PD107 (no array).';


create function @extschema@.existence(path text, operand jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(existence.operand) <> 'boolean' then
        perform refuse_argument('$exists takes true or false', format('This is %s.', type_found(existence.operand)),
                                'Write {"$exists": false} for what is missing.');
    end if;
    return format('%s is %s', path_expression(existence.path, 'null'), case when existence.operand::boolean then 'not null' else 'null' end);
end
$$;
comment on function @extschema@.existence(text, jsonb) is
    'Ask whether anything is at a path; JSON null is something. Errors: PD107 (neither true nor false).';


create function @extschema@.check_predicate(operand jsonb) returns void
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    failure jsonb := condition_failure(case when jsonb_typeof(check_predicate.operand) = 'string'
                                            then check_predicate.operand #>> '{}' end);
begin
    if failure is not null then
        perform refuse_argument(
            format('this is not a predicate for $match: %s', case jsonb_typeof(check_predicate.operand)
                       when 'string' then left(check_predicate.operand::text, 100)
                       else type_found(check_predicate.operand) end),
            failure ->> 'detail', failure ->> 'hint');
    end if;
end
$$;
comment on function @extschema@.check_predicate(jsonb) is
    'Refuse what is no jsonpath predicate or has variables (PD107), as for conditions that tasks wait for.';
