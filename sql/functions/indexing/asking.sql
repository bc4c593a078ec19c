-- Asking: operators and their combinations, each a piece of a WHERE clause.

create function @extschema@.negated(condition text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format('(%s) is not true', negated.condition);
end
$$;
comment on function @extschema@.negated(text) is
    'Negate a condition: the result holds wherever the condition does not, also if nothing is there.';


create function @extschema@.value_question(path text, operator text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if is_column(value_question.path) then
        perform refuse_argument(
            format('%s asks about JSON, and %s is a column', value_question.operator, value_question.path),
            'It looks inside a value of the memory.', 'Compare the column with $eq, $in or $gt.');
    end if;
    if value_question.operator = '$search' then
        return search_question(value_question.path, value_question.operand);
    end if;
    if value_question.operator = '$contains' then
        perform operand_kind(value_question.operand);
        return format('%s @> %L::jsonb', reading(value_question.path, 'value'), value_question.operand);
    end if;
    perform check_predicate(value_question.operand);
    -- Times and decimals may raise in the operator, even if it is told to hide errors. So predicates are evaluated as
    -- conditions of tasks are.
    return format(case when (value_question.operand #>> '{}')::jsonpath::text ~ '[.](date|time|decimal)[a-z_]*[(]'
                       then '%3$s.fulfils(%1$s, %2$L::jsonpath)' else '%s @@ %L::jsonpath' end,
                  reading(value_question.path, 'value'), value_question.operand #>> '{}', '@extschema@');
end
$$;
comment on function @extschema@.value_question(text, text, jsonb) is
    'Ask whether the value at a path contains another, matches a jsonpath predicate or has the words of a search. Errors: PD107 (a column, or a question that is not understood).';


create function @extschema@.operation(path text, operator text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    case operation.operator
        when '$eq' then return comparison(operation.path, '=', operation.operand);
        when '$ne' then return negated(comparison(operation.path, '=', operation.operand));
        when '$gt' then return comparison(operation.path, '>', operation.operand);
        when '$gte' then return comparison(operation.path, '>=', operation.operand);
        when '$lt' then return comparison(operation.path, '<', operation.operand);
        when '$lte' then return comparison(operation.path, '<=', operation.operand);
        when '$in' then return membership(operation.path, operation.operand);
        when '$nin' then return negated(membership(operation.path, operation.operand));
        when '$exists' then return existence(operation.path, operation.operand);
        when '$contains', '$match', '$search' then return value_question(operation.path, operation.operator, operation.operand);
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
create function @extschema@.condition_on(path text, asked jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    words bigint := 0;
    members bigint;
begin
    if jsonb_typeof(condition_on.asked) = 'object' and not condition_on.asked ? '$time' then
        select count(*) filter (where is_column(key)), count(*)
          into words, members
          from jsonb_object_keys(condition_on.asked) as key;
    end if;
    if words = 0 then
        return comparison(condition_on.path, '=', condition_on.asked);
    end if;
    if words < members then
        perform refuse_argument(
            'operators and keys cannot be mixed',
            format('%s of %s keys are operators.', words, members),
            'Compare with a whole value by $eq.');
    end if;
    return (
        select string_agg(case asked.key when '$not' then negated(condition_on(condition_on.path, asked.value))
                                         else operation(condition_on.path, asked.key, asked.value) end, ' and ')
          from jsonb_each(condition_on.asked) as asked);
end
$$;
comment on function @extschema@.condition_on(text, jsonb) is
    'Write what is asked of one path: that it equals a value, or what an object of operators says. Errors: PD107.';


create function @extschema@.listed(conditions jsonb, word text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(listed.conditions) <> 'array' then
        perform refuse_argument(format('%s takes an array of conditions', listed.word),
                                format('This is %s.', type_found(listed.conditions)), 'Write {"$or": [{"a": 1}, {"b": 2}]}.');
    end if;
    return listed.conditions;
end
$$;
comment on function @extschema@.listed(jsonb, text) is
    'Return the conditions that $and or $or combine. Errors: PD107 (no array).';


create function @extschema@.all_of(conditions jsonb, word text default 'and') returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(all_of.conditions) = 'array' then
        return coalesce(
            (select '(' || string_agg(all_of(each.value), format(' %s ', all_of.word)) || ')'
               from jsonb_array_elements(all_of.conditions) as each),
            case all_of.word when 'and' then 'true' else 'false' end);
    end if;
    if jsonb_typeof(all_of.conditions) <> 'object' then
        perform refuse_argument('a condition is an object', format('This is %s.', type_found(all_of.conditions)),
                                'Write {"path": value}.');
    end if;
    return coalesce(
        (select string_agg(case asked.key when '$and' then all_of(listed(asked.value, asked.key), 'and')
                                          when '$or' then all_of(listed(asked.value, asked.key), 'or')
                                          when '$not' then negated(all_of(asked.value))
                                          else condition_on(asked.key, asked.value) end, ' and ')
           from jsonb_each(all_of.conditions) as asked),
        'true');
end
$$;
comment on function @extschema@.all_of(jsonb, text) is
    'Write conditions as the text of a WHERE clause: an object whose members must all hold, or a list of such objects joined by "and" or "or".';
