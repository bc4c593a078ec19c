-- Checking: whether a document meets the contract of its entity. All functions are pure except for the look-up of the
-- contract. A document that does not fit is refused after the command was tried, and before anything is written. [P3]

create function @extschema@.reference_path(reference text) returns text[]
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if reference_path.reference !~ '~' then
        return string_to_array(substr(reference_path.reference, 3), '/');
    end if;
    return array(
        select replace(replace(key, '~1', '/'), '~0', '~')
          from unnest(string_to_array(substr(reference_path.reference, 3), '/')) with ordinality as step (key, place)
         order by place);
end
$$;
comment on function @extschema@.reference_path(text) is
    'Parse where a $ref of a schema leads: #/$defs/Page is {$defs,Page}, and # is the root.';


-- Patterns and rules for unnamed members and for names are rare; only for them the whole object is unpacked.
create function @extschema@.unnamed_parts(value jsonb, schema jsonb) returns @extschema@.schema_part[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (array[given.key], part.value, part.schema)::schema_part
          from jsonb_each(unnamed_parts.value) as given (key, value)
          left join lateral (
            select count(*) as number, jsonb_agg(pattern.schema) as schemas
              from jsonb_each(unnamed_parts.schema -> 'patternProperties') as pattern (pattern, schema)
             where given.key ~ pattern.pattern
          ) as matching on true
         cross join lateral (values
            (given.value, jsonb_build_object('allOf', matching.schemas), matching.number > 0),
            (given.value, unnamed_parts.schema -> 'additionalProperties',
             matching.number = 0 and not coalesce(unnamed_parts.schema -> 'properties' ? given.key, false)),
            (to_jsonb(given.key), unnamed_parts.schema -> 'propertyNames', true)
         ) as part (value, schema, applies)
         where part.applies
           and part.schema is not null);
end
$$;
comment on function @extschema@.unnamed_parts(jsonb, jsonb) is
    'Pair the members of an object with what a schema says of names that match a pattern, of other names, and of all names.';


-- Parts without a rule are not unpacked. A part with no rule but its type is checked here; most parts are like that.
create function @extschema@.schema_parts(value jsonb, schema jsonb, root jsonb) returns @extschema@.schema_part[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    kind text := jsonb_typeof(value);
    parts schema_part[] := '{}'::schema_part[];
begin
    if kind = 'object' and schema ? 'properties' then
        parts := array(
            select (array[member.key], schema_parts.value -> member.key, member.schema)::schema_part
              from jsonb_each(schema_parts.schema -> 'properties') as member (key, schema)
             where schema_parts.value ? member.key
               and needs_check(schema_parts.value -> member.key, member.schema));
    end if;
    if kind = 'object' and schema ?| '{patternProperties,additionalProperties,propertyNames}' then
        parts := parts || unnamed_parts(value, schema);
    elsif kind = 'array' and schema ?| '{items,prefixItems}' then
        parts := array(
            select (array[(item.place - 1)::text], item.value, own.schema)::schema_part
              from jsonb_array_elements(schema_parts.value) with ordinality as item (value, place)
             cross join lateral (values (coalesce(schema_parts.schema -> 'prefixItems' -> (item.place - 1)::integer,
                                                  schema_parts.schema -> 'items'))) as own (schema)
             where needs_check(item.value, own.schema));
    end if;
    if schema ? 'allOf' then
        parts := parts || array(select ('{}', schema_parts.value, each_of.schema)::schema_part
                                  from jsonb_array_elements(schema_parts.schema -> 'allOf') as each_of (schema));
    end if;
    if schema ? '$ref' then
        parts := parts || ('{}', value, root #> reference_path(schema ->> '$ref'))::schema_part;
    end if;
    return parts;
end
$$;
comment on function @extschema@.schema_parts(jsonb, jsonb, jsonb) is
    'Split a value and its schema into the parts to check next, each part with its own schema.';


-- If no alternative fits, the most useful report is about the one that came closest: where the fault is deepest, and is
-- not simply that another alternative was meant.
create function @extschema@.broken_choice(
    keyword  text,
    tried    @extschema@.broken_rule[],
    value    jsonb,
    path     text[]
) returns @extschema@.broken_rule
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    fitting integer := (select count(*) from unnest(broken_choice.tried) as t where t.rule is null);
    closest broken_rule;
    types text;
begin
    if fitting = 1 or (fitting > 1 and broken_choice.keyword = 'anyOf') then
        return null;
    end if;
    if fitting > 1 then
        return (broken_choice.path, 'oneOf', found_words(broken_choice.value),
                format('one of %s shapes, not %s of them', cardinality(broken_choice.tried), fitting))::broken_rule;
    end if;
    select t.path, t.rule, t.found, t.wanted
      into closest
      from unnest(broken_choice.tried) with ordinality as t
     order by cardinality(t.path) desc, t.rule = 'const', t.rule = 'type', t.ordinality
     limit 1;
    if closest.path <> broken_choice.path or closest.rule <> 'type' then
        return closest;
    end if;
    types := (select string_agg(t.wanted, ' or ' order by t.ordinality)
                from unnest(broken_choice.tried) with ordinality as t);
    return (broken_choice.path, broken_choice.keyword, closest.found, types)::broken_rule;
end
$$;
comment on function @extschema@.broken_choice(text, @extschema@.broken_rule[], jsonb, text[]) is
    'Judge alternatives by what each of them found: return null if enough fit (anyOf one, oneOf exactly one), else the broken rule to report.';


create function @extschema@.first_broken_rule(
    value   jsonb,
    schema  jsonb,
    root    jsonb,
    path    text[]
) returns @extschema@.broken_rule
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    rule text := broken_rule_name(value, schema);
    place text[];
    part schema_part;
    keyword text;
    choices broken_rule[];
    broken broken_rule;
begin
    if rule is not null then
        place := array_remove(array[offending_key(value, schema, rule)], null);
        return (path || place, rule, found_words(value #> place), wanted_words(rule, schema -> rule))::broken_rule;
    end if;
    if not schema ?| '{properties,patternProperties,additionalProperties,propertyNames,items,prefixItems,allOf,anyOf,oneOf,$ref}' then
        return null;
    end if;
    -- Loops: the first broken rule ends them.
    foreach part in array schema_parts(value, schema, root) loop
        broken := first_broken_rule(part.value, part.schema, root, path || part.step);
        if broken.rule is not null then
            return broken;
        end if;
    end loop;
    foreach keyword in array array['anyOf', 'oneOf'] loop
        continue when not schema ? keyword;
        choices := array(select first_broken_rule(first_broken_rule.value, choice, root, first_broken_rule.path)
                           from jsonb_array_elements(first_broken_rule.schema -> keyword) as choice);
        broken := broken_choice(keyword, choices, value, path);
        if broken.rule is not null then
            return broken;
        end if;
    end loop;
    return null;
end
$$;
comment on function @extschema@.first_broken_rule(jsonb, jsonb, jsonb, text[]) is
    'Check a value against a schema; return the first rule that it breaks and where, or null.';


-- A schema may refer to itself, and a document may lead it deeper than the stack of the server allows. Such a document is
-- refused as if it broke a rule. An error would undo the other commands of the batch and leave the task stuck.
create function @extschema@.broken_rule_of(document jsonb, rules jsonb) returns @extschema@.broken_rule
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return first_broken_rule(broken_rule_of.document, broken_rule_of.rules, broken_rule_of.rules, '{}');
exception
    when statement_too_complex then
        return ('{}', 'depth', 'nested too deeply to be looked through', 'fewer levels')::broken_rule;
end
$$;
comment on function @extschema@.broken_rule_of(jsonb, jsonb) is
    'Check a document against the rules of a contract; return the first rule that it breaks and where, or null; depth if the document is too deep to be checked.';


create function @extschema@.broken_rule_failure(entity text, broken @extschema@.broken_rule) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if broken.rule is null then
        return null;
    end if;
    return make_failure(
        'PD109', 'ContractBroken',
        format('%s is %s, but the contract of %s wants %s', write_path(broken.path), broken.found, entity, broken.wanted),
        format('The rule is %s. The memory was not changed.', broken.rule),
        'Write a memory that fits the contract, or change the contract with define_contract().')
        || jsonb_build_object('path', write_path(broken.path), 'rule', broken.rule);
end
$$;
comment on function @extschema@.broken_rule_failure(text, @extschema@.broken_rule) is
    'Return which rule of a contract a document breaks, and where, as a failure (PD109); null for no rule.';


create function @extschema@.contract_failure(entity text, context jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    rules jsonb;
begin
    if contract_failure.entity is null then
        return null;
    end if;
    select c.rules into rules from contracts as c where c.entity = contract_failure.entity;
    if rules is null then
        return null;
    end if;
    return broken_rule_failure(contract_failure.entity, broken_rule_of(contract_failure.context, rules));
end
$$;
comment on function @extschema@.contract_failure(text, jsonb) is
    'Return where a document breaks the contract of its entity (PD109), or null. An entity without a contract costs one look-up.';


create function @extschema@.check_contract(id text, entity text, context jsonb) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    failure jsonb := contract_failure(check_contract.entity, check_contract.context);
begin
    perform raise_failure(failure || jsonb_build_object(
        'detail', format('The rule is %s. Nothing was written: this would be the memory of %s.', failure ->> 'rule',
                         quote_literal(check_contract.id))));
end
$$;
comment on function @extschema@.check_contract(text, text, jsonb) is
    'Refuse a document that breaks the contract of its entity (PD109), and name the job, since one statement may write many.';
