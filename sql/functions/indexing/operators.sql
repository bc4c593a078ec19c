-- Operators and their combinations, each a piece of a WHERE clause.

create function @extschema@.negation(condition text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format('(%s) is not true', negation.condition);
end
$$;
comment on function @extschema@.negation(text) is
    'Negate a condition: the result holds wherever the condition does not, also if nothing is there.';


create function @extschema@.value_condition(path text, operator text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if is_column(value_condition.path) then
        perform refuse_argument(
            format('%s asks about JSON, and %s is a column', value_condition.operator, value_condition.path),
            'It looks inside a value of the memory.', 'Compare the column with $eq, $in or $gt.');
    end if;
    if value_condition.operator = '$search' then
        return search_condition(value_condition.path, value_condition.operand);
    end if;
    if value_condition.operator = '$contains' then
        perform operand_kind(value_condition.operand);
        return format('%s @> %L::jsonb', path_expression(value_condition.path, 'value'), value_condition.operand);
    end if;
    perform check_predicate(value_condition.operand);
    -- Times and decimals may raise in the operator, even if it is told to hide errors. So predicates are evaluated as
    -- conditions of tasks are.
    return format(case when (value_condition.operand #>> '{}')::jsonpath::text ~ '[.](date|time|decimal)[a-z_]*[(]'
                       then '%3$s.fulfils(%1$s, %2$L::jsonpath)' else '%s @@ %L::jsonpath' end,
                  path_expression(value_condition.path, 'value'), value_condition.operand #>> '{}', '@extschema@');
end
$$;
comment on function @extschema@.value_condition(text, text, jsonb) is
    'Ask whether the value at a path contains another, matches a jsonpath predicate or has the words of a search. Errors: PD107 (a column, or a question that is not understood).';


create function @extschema@.operation(path text, operator text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    case operation.operator
        when '$eq' then return comparison(operation.path, '=', operation.operand);
        when '$ne' then return negation(comparison(operation.path, '=', operation.operand));
        when '$gt' then return comparison(operation.path, '>', operation.operand);
        when '$gte' then return comparison(operation.path, '>=', operation.operand);
        when '$lt' then return comparison(operation.path, '<', operation.operand);
        when '$lte' then return comparison(operation.path, '<=', operation.operand);
        when '$in' then return membership(operation.path, operation.operand);
        when '$nin' then return negation(membership(operation.path, operation.operand));
        when '$exists' then return existence(operation.path, operation.operand);
        when '$contains', '$match', '$search' then return value_condition(operation.path, operation.operator, operation.operand);
        else
            perform refuse_argument(
                format('there is no operator %s', quote_literal(left(operation.operator, 40))),
                'Operators are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $contains, $match, $search and $not.',
                'Use one of these; write a value whose keys begin with $ after $eq.');
            return null;
    end case;
end
$$;
comment on function @extschema@.operation(text, text, jsonb) is
    'Apply one operator to a path. Errors: PD107 (an unknown operator).';


-- An object whose keys begin with $ holds operators. Any other value is what the place must equal.
create function @extschema@.path_condition(path text, given jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    words bigint := 0;
    members bigint;
begin
    if jsonb_typeof(path_condition.given) = 'object' and not path_condition.given ? '$time' then
        select count(*) filter (where is_column(key)), count(*)
          into words, members
          from jsonb_object_keys(path_condition.given) as key;
    end if;
    if words = 0 then
        return comparison(path_condition.path, '=', path_condition.given);
    end if;
    if words < members then
        perform refuse_argument(
            'operators and keys cannot be mixed',
            format('%s of %s keys are operators.', words, members),
            'Compare with a whole value by $eq.');
    end if;
    return (
        select string_agg(case given.key when '$not' then negation(path_condition(path_condition.path, given.value))
                                         else operation(path_condition.path, given.key, given.value) end, ' and ')
          from jsonb_each(path_condition.given) as given);
end
$$;
comment on function @extschema@.path_condition(text, jsonb) is
    'Write what is asked of one path: that it equals a value, or what an object of operators says. Errors: PD107.';


create function @extschema@.condition_list(conditions jsonb, word text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(condition_list.conditions) <> 'array' then
        perform refuse_argument(format('%s takes an array of conditions', condition_list.word),
                                format('This is %s.', type_found(condition_list.conditions)), 'Write {"$or": [{"a": 1}, {"b": 2}]}.');
    end if;
    return condition_list.conditions;
end
$$;
comment on function @extschema@.condition_list(jsonb, text) is
    'Return the conditions that $and or $or combine. Errors: PD107 (no array).';


create function @extschema@.where_clause(conditions jsonb, word text default 'and') returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(where_clause.conditions) = 'array' then
        return coalesce(
            (select '(' || string_agg(where_clause(each.value), format(' %s ', where_clause.word)) || ')'
               from jsonb_array_elements(where_clause.conditions) as each),
            case where_clause.word when 'and' then 'true' else 'false' end);
    end if;
    if jsonb_typeof(where_clause.conditions) <> 'object' then
        perform refuse_argument('a condition is an object', format('This is %s.', type_found(where_clause.conditions)),
                                'Write {"path": value}.');
    end if;
    return coalesce(
        (select string_agg(case member.key when '$and' then where_clause(condition_list(member.value, member.key), 'and')
                                           when '$or' then where_clause(condition_list(member.value, member.key), 'or')
                                           when '$not' then negation(where_clause(member.value))
                                           else path_condition(member.key, member.value) end, ' and ')
           from jsonb_each(where_clause.conditions) as member),
        'true');
end
$$;
comment on function @extschema@.where_clause(jsonb, text) is
    'Write conditions as the text of a WHERE clause: an object whose members must all hold, or a list of such objects joined by "and" or "or".';
