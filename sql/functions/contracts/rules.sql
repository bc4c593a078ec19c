-- Rules: what one place of a schema asks of one value, not of what is inside the value. The schema is valid: it was
-- checked when the contract was defined. A keyword that is missing asks nothing, since a comparison with null is not
-- true. Rules that need a query are in functions of their own (an expression without a query costs PL/pgSQL a tenth),
-- behind a condition that is never null (after null, the next operand would be evaluated too).

create function @extschema@.type_fits(value jsonb, wanted jsonb) returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- The operator ? finds a name in a list of names, and equals a single name.
    return case
        when wanted ? jsonb_typeof(value) then true
        when wanted ? 'integer' and jsonb_typeof(value) = 'number' then value::numeric % 1 = 0
        else false
    end;
end
$$;
comment on function @extschema@.type_fits(jsonb, jsonb) is
    'Tell whether a value is of the type, or of one of the types, that a schema names.';


create function @extschema@.needs_check(value jsonb, schema jsonb) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case jsonb_typeof(schema)
        when 'object' then schema - 'type' <> '{}' or not schema -> 'type' ? jsonb_typeof(value)
        else schema = 'false'
    end;
end
$$;
comment on function @extschema@.needs_check(jsonb, jsonb) is
    'Tell whether a schema asks more of a value than its type, or the type does not fit. Most parts of a document need no further check.';


create function @extschema@.is_in_list(value jsonb, list jsonb) returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- An array or object is contained in larger ones, so containment means equality for scalars only.
    if jsonb_typeof(value) in ('array', 'object') then
        return exists (select from jsonb_array_elements(list) as listed (value) where listed.value = is_in_list.value);
    end if;
    return list @> value;
end
$$;
comment on function @extschema@.is_in_list(jsonb, jsonb) is 'Tell whether a value is an element of a JSON array.';


create function @extschema@.broken_number_rule(value jsonb, schema jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when value < schema -> 'minimum' then 'minimum'
        when value > schema -> 'maximum' then 'maximum'
        when value <= schema -> 'exclusiveMinimum' then 'exclusiveMinimum'
        when value >= schema -> 'exclusiveMaximum' then 'exclusiveMaximum'
        when value::numeric % (schema -> 'multipleOf')::numeric <> 0 then 'multipleOf'
    end;
end
$$;
comment on function @extschema@.broken_number_rule(jsonb, jsonb) is
    'Return the rule for numbers that a number breaks, or null.';


create function @extschema@.broken_text_rule(value jsonb, schema jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when length(value #>> '{}') < (schema -> 'minLength')::numeric then 'minLength'
        when length(value #>> '{}') > (schema -> 'maxLength')::numeric then 'maxLength'
        when (value #>> '{}') !~ (schema ->> 'pattern') then 'pattern'
    end;
end
$$;
comment on function @extschema@.broken_text_rule(jsonb, jsonb) is
    'Return the rule for texts that a text breaks, or null.';


create function @extschema@.has_duplicates(value jsonb) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_array_length(value) > (select count(distinct item) from jsonb_array_elements(value) as item);
end
$$;
comment on function @extschema@.has_duplicates(jsonb) is 'Tell whether an array has equal elements.';


create function @extschema@.key_count(value jsonb) returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select count(*) from jsonb_object_keys(value));
end
$$;
comment on function @extschema@.key_count(jsonb) is 'Count the keys of an object.';


create function @extschema@.broken_array_rule(value jsonb, schema jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when jsonb_array_length(value) < (schema -> 'minItems')::numeric then 'minItems'
        when jsonb_array_length(value) > (schema -> 'maxItems')::numeric then 'maxItems'
        when schema @> '{"uniqueItems": true}' and has_duplicates(value) then 'uniqueItems'
    end;
end
$$;
comment on function @extschema@.broken_array_rule(jsonb, jsonb) is
    'Return the rule for arrays that an array breaks, or null.';


-- The key at which an object breaks a rule about its keys.
create function @extschema@.offending_key(value jsonb, schema jsonb, rule text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if offending_key.rule = 'required' then
        return (select wanted.key
                  from jsonb_array_elements_text(offending_key.schema -> 'required') with ordinality as wanted (key, place)
                 where not offending_key.value ? wanted.key
                 order by wanted.place
                 limit 1);
    end if;
    if offending_key.rule = 'additionalProperties' then
        return (select min(given.key)
                  from jsonb_object_keys(offending_key.value) as given (key)
                 where not coalesce(offending_key.schema -> 'properties' ? given.key, false)
                   and not exists (select from jsonb_object_keys(offending_key.schema -> 'patternProperties') as pattern
                                    where given.key ~ pattern));
    end if;
    return null;
end
$$;
comment on function @extschema@.offending_key(jsonb, jsonb, text) is
    'Return the key that an object lacks (required) or must not have (additionalProperties), or null.';


create function @extschema@.broken_object_rule(value jsonb, schema jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when schema ? 'required' and offending_key(value, schema, 'required') is not null then 'required'
        when schema @> '{"additionalProperties": false}'
             and offending_key(value, schema, 'additionalProperties') is not null then 'additionalProperties'
        when not schema ?| '{minProperties,maxProperties}' then null
        when key_count(value) < (schema -> 'minProperties')::numeric then 'minProperties'
        when key_count(value) > (schema -> 'maxProperties')::numeric then 'maxProperties'
    end;
end
$$;
comment on function @extschema@.broken_object_rule(jsonb, jsonb) is
    'Return the rule for objects that an object breaks, or null.';


create function @extschema@.broken_rule_name(value jsonb, schema jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when not type_fits(value, schema -> 'type') then 'type'
        when value <> schema -> 'const' then 'const'
        when not is_in_list(value, schema -> 'enum') then 'enum'
        when schema = 'false' then 'false'
        when jsonb_typeof(value) = 'number' then broken_number_rule(value, schema)
        when jsonb_typeof(value) = 'string' then broken_text_rule(value, schema)
        when jsonb_typeof(value) = 'array' then broken_array_rule(value, schema)
        when jsonb_typeof(value) = 'object' then broken_object_rule(value, schema)
    end;
end
$$;
comment on function @extschema@.broken_rule_name(jsonb, jsonb) is
    'Return the first rule of a schema that a value itself breaks, or null; what is inside the value is not checked.';


create function @extschema@.type_words(types jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select string_agg(case when name = 'null' then name when name ~ '^[aio]' then 'an ' || name else 'a ' || name end,
                          ' or ' order by place)
          from jsonb_array_elements_text(case jsonb_typeof(type_words.types) when 'array' then type_words.types
                                              else jsonb_build_array(type_words.types) end)
               with ordinality as wanted (name, place));
end
$$;
comment on function @extschema@.type_words(jsonb) is 'Write a type, or a list of types, for an error message.';


create function @extschema@.wanted_words(rule text, argument jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if wanted_words.rule = 'type' then
        return type_words(wanted_words.argument);
    end if;
    return format(case wanted_words.rule
        when 'required' then 'it'
        when 'const' then '%s'
        when 'enum' then 'one of %s'
        when 'pattern' then 'a text like %s'
        when 'minimum' then 'at least %s'
        when 'maximum' then 'at most %s'
        when 'exclusiveMinimum' then 'more than %s'
        when 'exclusiveMaximum' then 'less than %s'
        when 'multipleOf' then 'a multiple of %s'
        when 'minLength' then 'a length of at least %s'
        when 'maxLength' then 'a length of at most %s'
        when 'minItems' then 'a length of at least %s'
        when 'maxItems' then 'a length of at most %s'
        when 'uniqueItems' then 'each element once'
        when 'minProperties' then 'at least %s keys'
        when 'maxProperties' then 'at most %s keys'
        else 'nothing there'
    end, left(wanted_words.argument::text, 200));
end
$$;
comment on function @extschema@.wanted_words(text, jsonb) is 'Write what a rule wants for an error message.';


create function @extschema@.found_words(value jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return type_found(value) || case jsonb_typeof(value)
        when 'array' then ' of length ' || jsonb_array_length(value)::text
        when 'string' then ' of length ' || length(value #>> '{}')::text
        else '' end;
end
$$;
comment on function @extschema@.found_words(jsonb) is
    'Write what was found for an error message: its type and length, not the value itself, since messages go to the log of the server.';
