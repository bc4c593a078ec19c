-- Schemas: a contract is a subset of JSON Schema, large enough for what pydantic writes. It is checked completely when it
-- is defined, so that no write ever meets a mistake in it.

-- A contract is small. If the planner expected a thousand schemas in each, the server would compile the queries here with
-- JIT, which takes a second for each.
create function @extschema@.subschemas(schema jsonb) returns setof @extschema@.schema_part
language plpgsql
immutable
parallel safe
rows 10
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keywords jsonb := case when jsonb_typeof(subschemas.schema) = 'object' then subschemas.schema end;
begin
    return query
    select array[k.keyword], null::jsonb, k.argument
      from jsonb_each(keywords) as k (keyword, argument)
     where k.keyword in ('items', 'additionalProperties', 'propertyNames')
     union all
    select array[k.keyword, named.name], null::jsonb, named.schema
      from jsonb_each(keywords) as k (keyword, argument)
     cross join lateral jsonb_each(case when jsonb_typeof(k.argument) = 'object' then k.argument end) as named (name, schema)
     where k.keyword in ('properties', 'patternProperties', '$defs', 'definitions')
     union all
    select array[k.keyword, (listed.place - 1)::text], null::jsonb, listed.schema
      from jsonb_each(keywords) as k (keyword, argument)
     cross join lateral jsonb_array_elements(case when jsonb_typeof(k.argument) = 'array' then k.argument end)
           with ordinality as listed (schema, place)
     where k.keyword in ('allOf', 'anyOf', 'oneOf', 'prefixItems');
end
$$;
comment on function @extschema@.subschemas(jsonb) is
    'List the schemas directly inside a schema, with the steps that lead to them.';


create function @extschema@.all_schemas(schema jsonb) returns setof @extschema@.schema_part
language plpgsql
immutable
parallel safe
rows 10
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    with recursive part (path, schema) as (
        select '{}'::text[], all_schemas.schema
         union all
        select p.path || s.step, s.schema
          from part as p
         cross join lateral subschemas(p.schema) as s
    )
    select p.path, null::jsonb, p.schema from part as p;
end
$$;
comment on function @extschema@.all_schemas(jsonb) is
    'List a schema and all schemas inside it at any depth, with the paths that lead to them.';


create function @extschema@.is_pattern(pattern text) returns boolean
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return ('' ~ is_pattern.pattern) is not null;
exception
    when invalid_regular_expression then
        return false;
end
$$;
comment on function @extschema@.is_pattern(text) is 'Tell whether PostgreSQL can read a regular expression.';


create function @extschema@.keyword_wants(keyword text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when keyword = 'type' then 'a type, or a list of types'
        when keyword in ('properties', '$defs', 'definitions') then 'an object of schemas'
        when keyword = 'patternProperties' then 'an object of patterns and schemas'
        when keyword in ('items', 'additionalProperties', 'propertyNames') then 'a schema'
        when keyword in ('allOf', 'anyOf', 'oneOf', 'prefixItems') then 'a list of schemas'
        when keyword = 'required' then 'a list of names'
        when keyword = 'enum' then 'a list of values'
        when keyword in ('minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum') then 'a number'
        when keyword = 'multipleOf' then 'a number above 0'
        when keyword in ('minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties', 'maxProperties') then 'a count'
        when keyword = 'uniqueItems' then 'true or false'
        when keyword = 'pattern' then 'a pattern'
        when keyword = '$ref' then 'a reference like #/$defs/Page'
        when keyword = 'const' then 'a value'
        when keyword in ('title', 'description', 'default', 'examples', 'format', 'deprecated', 'readOnly', 'writeOnly',
                         'contentMediaType', 'contentEncoding', 'discriminator', '$schema', '$id', '$comment') then 'a note'
    end;
end
$$;
comment on function @extschema@.keyword_wants(text) is
    'Return what a keyword of a schema must be given; null for a keyword that contracts do not know.';


create function @extschema@.is_schema(value jsonb) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_typeof(value) in ('object', 'boolean');
end
$$;
comment on function @extschema@.is_schema(jsonb) is 'Tell whether a value has the form of a schema: an object, true or false.';


create function @extschema@.keyword_fits(wants text, argument jsonb) returns boolean
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    kind text := jsonb_typeof(argument);
    types jsonb := jsonb_build_array('null', 'boolean', 'integer', 'number', 'string', 'array', 'object');
begin
    return case wants
        when 'a note' then true
        when 'a value' then true
        when 'a type, or a list of types' then types @> argument and argument <> '[]'
        when 'an object of schemas' then
            kind = 'object' and not exists (select from jsonb_each(argument) as m where not is_schema(m.value))
        when 'an object of patterns and schemas' then
            kind = 'object' and not exists (
                select from jsonb_each(argument) as m where not is_schema(m.value) or not is_pattern(m.key))
        when 'a schema' then is_schema(argument)
        when 'a list of schemas' then
            kind = 'array' and argument <> '[]' and not argument @? 'strict $[*] ? (@.type() != "object" && @.type() != "boolean")'
        when 'a list of names' then kind = 'array' and not argument @? 'strict $[*] ? (@.type() != "string")'
        when 'a list of values' then kind = 'array'
        when 'a number' then kind = 'number'
        when 'a number above 0' then kind = 'number' and argument > '0'
        when 'a count' then kind = 'number' and argument::text ~ '^[0-9]{1,9}([.]0+)?$'
        when 'true or false' then kind = 'boolean'
        when 'a pattern' then kind = 'string' and is_pattern(argument #>> '{}')
        when 'a reference like #/$defs/Page' then kind = 'string' and (argument #>> '{}') ~ '^#(/([$]defs|definitions)/[^/]+)?$'
        else false
    end;
end
$$;
comment on function @extschema@.keyword_fits(text, jsonb) is 'Tell whether a keyword was given what it wants.';


create function @extschema@.keyword_failure(path text[], detail text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD107', 'InvalidArgument', format('%s is not a rule of a contract', write_path(path)), detail,
        'A contract is a subset of JSON Schema, as pydantic writes it: correct the schema, or leave the rule out.')
        || jsonb_build_object('path', write_path(path));
end
$$;
comment on function @extschema@.keyword_failure(text[], text) is
    'Return which keyword of a schema is wrong, as a failure (PD107).';


-- A reference that returns to itself without going deeper into the document would be followed for ever.
create function @extschema@.reference_failure(schema jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wrong record;
begin
    with recursive part as (
        select p.step as path, reference_path(p.schema ->> '$ref') as target
          from all_schemas(reference_failure.schema) as p
    ), edges as (
        select p.path as source, p.target from part as p where p.target is not null
         union all
        select p.path[:cardinality(p.path) - 2], p.path
          from part as p
         where p.path[cardinality(p.path) - 1] in ('allOf', 'anyOf', 'oneOf')
    ), reachable (origin, place) as (
        select p.path, p.target from part as p where p.target is not null
         union
        select w.origin, s.target from reachable as w join edges as s on s.source = w.place
    )
    select w.origin || '{$ref}'::text[] as path,
           case when w.origin = w.place then 'It comes back to itself.' else 'It leads nowhere in the schema.' end as detail
      into wrong
      from reachable as w
     where w.origin = w.place
        or not exists (select from part as p where p.path = w.place)
     order by 1
     limit 1;
    if not found then
        return null;
    end if;
    return keyword_failure(wrong.path, wrong.detail);
end
$$;
comment on function @extschema@.reference_failure(jsonb) is
    'Return which $ref of a schema leads nowhere or in a circle (PD107), or null.';


create function @extschema@.schema_failure(schema jsonb) returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    failure jsonb := value_failure(schema_failure.schema, 'the contract');
    wrong record;
begin
    if jsonb_typeof(schema_failure.schema) is distinct from 'object' then
        return make_failure(
            'PD107', 'InvalidArgument', 'a contract is a JSON Schema, which is an object',
            format('This is %s.', type_found(schema_failure.schema)), 'Begin with {"type": "object", "properties": ...}.');
    end if;
    if failure is not null then
        return failure;
    end if;
    select p.step || k.keyword as path, keyword_wants(k.keyword) as wants, k.argument
      into wrong
      from all_schemas(schema_failure.schema) as p
     cross join lateral jsonb_each(case when jsonb_typeof(p.schema) = 'object' then p.schema end) as k (keyword, argument)
     where not keyword_fits(coalesce(keyword_wants(k.keyword), ''), k.argument)
     order by 1
     limit 1;
    if found then
        return keyword_failure(wrong.path, coalesce(
            'It must be ' || wrong.wants || '; this is ' || left(wrong.argument::text, 60) || '.',
            'Contracts do not know this keyword.'));
    end if;
    return reference_failure(schema_failure.schema);
end
$$;
comment on function @extschema@.schema_failure(jsonb) is
    'Return what is wrong with the schema of a contract: a keyword, a pattern or a reference (PD107), its size or depth (PD30x); or null.';
