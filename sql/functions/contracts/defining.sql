-- Defining: contracts are created, changed and dropped while work continues. Existing memories are neither locked nor
-- read.

-- Pydantic writes an optional field as a choice between a schema and null. If only its type and list keep null out, it
-- can be written as one schema that accepts null, which costs a fifth.
create function @extschema@.simplify_nullable(schema jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    choices jsonb := schema -> 'anyOf';
    other jsonb := case choices -> 0 when '{"type": "null"}' then choices -> 1 else choices -> 0 end;
begin
    if jsonb_array_length(choices) = 2
        and choices @> '[{"type": "null"}]'
        and schema - 'anyOf' = '{}'
        and jsonb_typeof(other -> 'type') = 'string'
        and not other ?| '{const,allOf,anyOf,oneOf,$ref}' then
        return other || jsonb_build_object('type', jsonb_build_array(other -> 'type', 'null'))
            || case when other ? 'enum' then jsonb_build_object('enum', (other -> 'enum') || 'null') else '{}' end;
    end if;
    return schema;
end
$$;
comment on function @extschema@.simplify_nullable(jsonb) is
    'Write an optional field as one schema instead of two, if that means the same.';


create function @extschema@.rules_of(schema jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    rules jsonb;
begin
    if jsonb_typeof(rules_of.schema) <> 'object' then
        return case rules_of.schema when 'true' then '{}' else rules_of.schema end;
    end if;
    select jsonb_object_agg(k.keyword, case
               when k.wants = 'a schema' then rules_of(k.argument)
               when k.wants = 'a list of schemas' then (
                   select jsonb_agg(rules_of(listed.schema) order by listed.place)
                     from jsonb_array_elements(k.argument) with ordinality as listed (schema, place))
               when k.wants like 'an object of %' then (
                   select coalesce(jsonb_object_agg(named.name, rules_of(named.schema)), '{}')
                     from jsonb_each(k.argument) as named (name, schema))
               else k.argument end)
      into rules
      from (select e.key as keyword, keyword_wants(e.key) as wants, e.value as argument
              from jsonb_each(rules_of.schema) as e
            offset 0) as k
     where k.wants <> 'a note';
    return simplify_nullable(coalesce(rules, '{}'));
end
$$;
comment on function @extschema@.rules_of(jsonb) is
    'Reduce a valid schema to what a document can break: no titles, no descriptions, nothing said in two ways.';


create function @extschema@.accepts_objects(schema jsonb) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return not (accepts_objects.schema ? 'type' and not accepts_objects.schema -> 'type' @> '"object"')
        and not exists (
            select from jsonb_array_elements(accepts_objects.schema -> 'allOf') as part (schema)
             where not accepts_objects(part.schema))
        and not exists (
            select from (values ('anyOf'), ('oneOf')) as choice (keyword)
             where accepts_objects.schema ? choice.keyword
               and not exists (
                   select from jsonb_array_elements(accepts_objects.schema -> choice.keyword) as part (schema)
                    where accepts_objects(part.schema)));
end
$$;
comment on function @extschema@.accepts_objects(jsonb) is
    'Tell whether the types in a valid schema let an object pass. What is behind a reference, and other rules, may still refuse it.';


create function @extschema@.define_contract(entity text, schema jsonb) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    defined_at timestamptz;
begin
    perform raise_failure(coalesce(chosen_name_failure(define_contract.entity, 'an entity'), schema_failure(define_contract.schema)));
    if not accepts_objects(define_contract.schema) then
        raise exception 'no memory can meet this contract'
            using errcode = 'PD107', detail = 'A memory is an object, but the type of this schema allows none.',
                  hint = 'Describe the members of the object: {"properties": {"steps": {"type": "array"}}}.';
    end if;
    perform from contracts as c where c.entity = define_contract.entity for no key update;
    defined_at := clock();
    insert into contracts as c (entity, schema, rules, defined_at)
    values (define_contract.entity, define_contract.schema, rules_of(define_contract.schema), defined_at)
        on conflict on constraint one_contract_per_entity
        do update set schema = excluded.schema,
                      rules = excluded.rules,
                      defined_at = excluded.defined_at;
end
$$;
comment on function @extschema@.define_contract(text, jsonb) is
    'Define or change the contract of an entity: a JSON Schema that every later write must meet (PD109). Existing memories are neither locked nor checked; see broken_contracts(). Errors: PD104, PD107, PD30x.';


create function @extschema@.drop_contract(entity text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from contracts as c where c.entity = drop_contract.entity;
    return found;
end
$$;
comment on function @extschema@.drop_contract(text) is
    'Remove the contract of an entity; return false if there was none.';


create function @extschema@.contract_of(entity text) returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select c.schema from contracts as c where c.entity = contract_of.entity);
end
$$;
comment on function @extschema@.contract_of(text) is 'Return the contract of an entity, or null.';


create function @extschema@.broken_contracts(
    entity    text,
    schema    jsonb    default null,
    after     text     default '',
    max_rows  integer  default 100
) returns setof @extschema@.broken_contract
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wanted jsonb := coalesce(broken_contracts.schema, contract_of(broken_contracts.entity));
    rules jsonb;
begin
    perform check_rows(broken_contracts.max_rows);
    if wanted is null then
        raise exception 'entity % has no contract', quote_literal(broken_contracts.entity)
            using errcode = 'PD107', detail = 'Its memories have no contract to break.',
                  hint = 'Give a schema to try, or define_contract() first.';
    end if;
    perform raise_failure(schema_failure(wanted));
    rules := rules_of(wanted);
    return query
    select j.id, write_path((b.broken).path), (b.broken).rule,
           broken_rule_failure(broken_contracts.entity, b.broken) ->> 'message'
      from jobs as j
     cross join lateral (select broken_rule_of(j.context, rules) as broken offset 0) as b
     where j.entity = broken_contracts.entity
       and j.id > coalesce(broken_contracts.after, '')
       and (j.context <> '{}' or exists (
                select from journal as f where f.job_id = j.id and f.version is not null and f.op <> 'log' offset 0))
       and (b.broken).rule is not null
     order by j.id
     limit broken_contracts.max_rows;
end
$$;
comment on function @extschema@.broken_contracts(text, jsonb, text, integer) is
    'List memories of an entity that break its contract, or another schema, in order of id, at most max_rows. Locks nothing. Errors: PD107.';
