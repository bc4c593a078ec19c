-- What a task can wait for: a JSON path predicate, checked when it is given.

-- The @@ operator holds if the path itself returns true. A path that ends in a filter returns what passes the filter; if
-- that cannot be true, the condition never holds. A filter that looks at the whole document ($) is not examined. Outside
-- of quotes, PostgreSQL writes parentheses into a path only in pairs.
create function @extschema@.never_holds(path jsonpath) returns boolean
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    mode text := case when never_holds.path::text like 'strict %' then 'strict ' else '' end;
    tokens text[];
    filter_start bigint;
    filter_text text;
begin
    with tokenized as (
        select m.token[1] as token, m.place
          from regexp_matches(never_holds.path::text, E'"(?:[^"\\\\]|\\\\.)*"|[()]|[^"()]+', 'g')
          with ordinality as m (token, place)
    ),
    nested as (
        select k.token, k.place, sum(case k.token when '(' then 1 when ')' then -1 else 0 end) over (order by k.place) as depth
          from tokenized as k
    )
    select array_agg(n.token order by n.place), max(n.place) filter (where n.token = '(' and n.depth = 1)
      into tokens, filter_start
      from nested as n;
    if tokens[cardinality(tokens)] <> ')' or (tokens[filter_start - 1] like '%?') is not true then
        return false;
    end if;
    filter_text := array_to_string(tokens[filter_start:], '');
    return regexp_replace(filter_text, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g') not like '%$%'
       and jsonb_path_exists('true', (mode || '$?' || filter_text)::jsonpath, silent => true) is false;
end
$$;
comment on function @extschema@.never_holds(jsonpath) is
    'Tell whether a path ends in a filter that lets no true pass, so that as a condition it never holds.';


-- A variable would have no value, and would raise when the path is evaluated: in the writer, who does not know the
-- condition. Text inside quotes does not count. (A block that catches errors cannot be used in parallel plans.)
create function @extschema@.condition_failure(condition text) returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    hint text := 'Write a JSON path predicate: $.votes >= 3 && $.state == "open", exists($.items[*] ? (@.done == true)).';
begin
    if (octet_length(condition_failure.condition) <= 1000) is not true then
        return make_failure(
            'PD108', 'InvalidCondition', 'a condition is a text of at most 1000 bytes',
            coalesce('It has ' || octet_length(condition_failure.condition)::text || ' bytes.', 'It is null.'), hint);
    end if;
    if regexp_replace(condition_failure.condition::jsonpath::text, E'"(?:[^"\\\\]|\\\\.)*"', '""', 'g') like '%$""%' then
        return make_failure(
            'PD108', 'InvalidCondition',
            format('this condition has a variable: %s', left(condition_failure.condition, 100)),
            'Conditions cannot have variables.', hint);
    end if;
    if never_holds(condition_failure.condition::jsonpath) then
        return make_failure(
            'PD108', 'InvalidCondition',
            format('this condition never holds: %s', left(condition_failure.condition, 100)),
            'It is a path that ends in a filter: it returns what passes the filter, not true or false.',
            'Ask whether anything passes: exists($.items[*] ? (@.done == true)).');
    end if;
    return null;
exception
    when syntax_error or data_exception or feature_not_supported or program_limit_exceeded then
        return make_failure(
            'PD108', 'InvalidCondition',
            format('this is not a condition on a memory: %s', left(condition_failure.condition, 100)), sqlerrm, hint);
end
$$;
comment on function @extschema@.condition_failure(text) is
    'Return what is wrong with a condition on a memory (PD108), or null.';
