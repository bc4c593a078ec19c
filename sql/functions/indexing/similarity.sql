-- Similarity: texts with the words of a search, and vectors near another vector. How well they match is a number, by which
-- find() orders.

create function @extschema@.check_language(language text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (
        select
          from pg_ts_config as c
         where c.cfgname = check_language.language
           and c.cfgnamespace = 'pg_catalog'::regnamespace) then
        perform refuse_argument(
            'words cannot be searched in this language',
            'Words are reduced to stems by the text search configurations of PostgreSQL; the one called simple leaves them as they are.',
            'Use one of: select cfgname from pg_ts_config.');
    end if;
end
$$;
comment on function @extschema@.check_language(text) is 'Refuse a language for which the server has no stems (PD107).';


create function @extschema@.parse_search(operand jsonb, out search_text text, out kind text)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    language text := 'english';
begin
    search_text := parse_search.operand #>> '{}';
    if jsonb_typeof(parse_search.operand) = 'object' then
        search_text := parse_search.operand ->> 'text';
        language := parse_search.operand ->> 'language';
    end if;
    if (case jsonb_typeof(parse_search.operand)
            when 'string' then true
            when 'object' then jsonb_typeof(parse_search.operand -> 'text') = 'string'
                               and jsonb_typeof(parse_search.operand -> 'language') = 'string'
                               and parse_search.operand - '{text,language}'::text[] = '{}'
        end) is not true or length(search_text) > 1000 then
        perform refuse_argument(
            format('%s cannot be searched for',
                   case when jsonb_typeof(parse_search.operand) in ('string', 'object') and length(search_text) > 1000
                             then 'a text of more than 1000 characters'
                        else type_found(parse_search.operand) end),
            'Give a text (in English), or an object with text and language.',
            'Write {"$search": "solar -wind"} or {"$search": {"text": "Haus", "language": "german"}}.');
    end if;
    perform check_language(language);
    kind := format('search(%s)', language);
end
$$;
comment on function @extschema@.parse_search(jsonb) is
    'Read what is searched for, and the kind as which a path is read for it. Errors: PD107.';


-- PostgreSQL counts repeated negations of a word, and raises from the thirtieth on. So several are reduced to one.
create function @extschema@.search_query(search_text text, kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format('websearch_to_tsquery(%L::regconfig, %L)', 'pg_catalog.' || kind_argument(search_query.kind),
                  break_long_words(regexp_replace(search_query.search_text, '(-[[:space:]!&|()]*){9,}', '-', 'g')));
end
$$;
comment on function @extschema@.search_query(text, text) is
    'Write the words that are searched for, in the syntax of a search engine.';


create function @extschema@.search_condition(path text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    search_text text;
    kind text;
begin
    select * into search_text, kind from parse_search(search_condition.operand);
    return format('%s @@ %s', path_expression(search_condition.path, kind), search_query(search_text, kind));
end
$$;
comment on function @extschema@.search_condition(text, jsonb) is
    'Ask whether the texts at a path have the words that are searched for. Errors: PD107.';


create function @extschema@.rank(path text, operand jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    search_text text;
    kind text;
begin
    select * into search_text, kind from parse_search(rank.operand);
    return format('coalesce(ts_rank(%s, %s)::double precision, 0)', path_expression(rank.path, kind), search_query(search_text, kind));
end
$$;
comment on function @extschema@.rank(text, jsonb) is
    'Write how well the texts at a path answer a search, as ts_rank() returns it; 0 if nothing is there. Errors: PD107.';


-- From 0.8 on, its scans can continue until a page is full. Before, a page of more than 40 rows would be cut silently.
create function @extschema@.vector_schema() returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    schema_name text;
    version text;
begin
    select quote_ident(n.nspname), substring(e.extversion from '^[0-9]+[.][0-9]+')
      into schema_name, version
      from pg_extension as e
      join pg_namespace as n on e.extnamespace = n.oid
     where e.extname = 'vector';
    if (string_to_array(version, '.')::integer[] >= '{0,8}') is not true then
        perform refuse_argument(
            'vectors need the extension pgvector, 0.8 or later',
            format('This database has %s.', coalesce(version, 'none')),
            'Install it on the server, then: create extension vector; or alter extension vector update.');
    end if;
    return schema_name;
end
$$;
comment on function @extschema@.vector_schema() is
    'Return the schema of pgvector. Errors: PD107 (not installed, or too old).';


create function @extschema@.vector_expression(path text[], dimensions text) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format('(%s.numbers_at(context, %L::text[], %s)::%s.vector(%3$s))', '@extschema@', vector_expression.path,
                  vector_expression.dimensions::integer, vector_schema());
end
$$;
comment on function @extschema@.vector_expression(text[], text) is
    'Write the expression that reads a path of a document as a vector of so many dimensions, for indexes and orders alike.';


create function @extschema@.distance(path text, near jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    dimensions integer;
begin
    if jsonb_typeof(distance.near) = 'array' then
        dimensions := jsonb_array_length(distance.near);
    end if;
    if (dimensions <= 2000 and numbers_at(distance.near, '{}', dimensions) is not null
        and jsonb_path_exists(distance.near, 'strict $[*] ? (@.abs() > 1e-18)')
        and not jsonb_path_exists(distance.near, 'strict $[*] ? (@.abs() > 1e18)')) is not true or is_column(distance.path) then
        perform refuse_argument(
            'this is not a vector to be near to',
            'The vector is an array of 1 to 2000 numbers, up to 1e18 and one of them beyond 1e-18, and is compared with a path of the memory.',
            'Write {"path": "embedding", "near": [0.1, 0.2, 0.3]}.');
    end if;
    return format('%s operator(%s.<=>) %L::%2$s.vector', vector_expression(parse_path(distance.path), dimensions::text),
                  vector_schema(), distance.near);
end
$$;
comment on function @extschema@.distance(text, jsonb) is
    'Write the distance of a path from a vector: 1 minus the cosine of their angle, from 0 to 2. Errors: PD101 (a path), PD107 (no vector).';
