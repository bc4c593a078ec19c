-- Schemas: a mistake in a contract is refused when it is defined, so no write ever meets it.

begin;
select plan(80);

select the_time_is('2030-01-01 12:00+00');

-- The error names the path of the wrong keyword.

create temporary table wrong (schema jsonb, path text, detail text) on commit drop;
insert into wrong values
    ('{"typ": "string"}', 'typ', 'Contracts do not know this keyword.'),
    ('{"not": {}}', 'not', 'Contracts do not know this keyword.'),
    ('{"properties": {"confidence": {"maximun": 1}}}', 'properties.confidence.maximun',
     'Contracts do not know this keyword.'),
    ('{"items": {"anyOf": [{}, {"if": true}]}}', 'items.anyOf.1.if', 'Contracts do not know this keyword.'),
    ('{"$defs": {"never used": {"typ": 1}}}', '$defs.never used.typ', 'Contracts do not know this keyword.'),
    ('{"type": "text"}', 'type', 'It must be a type, or a list of types; this is "text".'),
    ('{"type": ["string", "text"]}', 'type', null),
    ('{"type": []}', 'type', null),
    ('{"type": {"string": 1}}', 'type', null),
    ('{"properties": ["a"]}', 'properties', 'It must be an object of schemas; this is ["a"].'),
    ('{"properties": {"a": 1}}', 'properties', null),
    ('{"additionalProperties": "no"}', 'additionalProperties', 'It must be a schema; this is "no".'),
    ('{"items": [{"type": "string"}]}', 'items', null),
    ('{"anyOf": []}', 'anyOf', 'It must be a list of schemas; this is [].'),
    ('{"allOf": [1]}', 'allOf', null),
    ('{"oneOf": {"a": {}}}', 'oneOf', null),
    ('{"required": "a"}', 'required', 'It must be a list of names; this is "a".'),
    ('{"required": [1]}', 'required', null),
    ('{"enum": "a"}', 'enum', 'It must be a list of values; this is "a".'),
    ('{"minimum": "1"}', 'minimum', 'It must be a number; this is "1".'),
    ('{"multipleOf": 0}', 'multipleOf', 'It must be a number above 0; this is 0.'),
    ('{"minLength": -1}', 'minLength', 'It must be a count; this is -1.'),
    ('{"maxItems": 1.5}', 'maxItems', null),
    ('{"maxItems": 1000000000}', 'maxItems', null),
    ('{"zz": 1, "aaa": 1}', 'aaa', null),
    ('{"propertyNames": {"typ": 1}}', 'propertyNames.typ', null),
    ('{"$ref": "#/$defs/A/properties/b", "$defs": {"A": {"properties": {"b": {}}}}}', '$ref', null),
    ('{"uniqueItems": 1}', 'uniqueItems', 'It must be true or false; this is 1.'),
    ('{"properties": {"a": {"pattern": "(a"}}}', 'properties.a.pattern', 'It must be a pattern; this is "(a".'),
    ('{"pattern": 1}', 'pattern', null),
    ('{"patternProperties": {"[a": {}}}', 'patternProperties', null),
    ('{"$ref": "other.json"}', '$ref', 'It must be a reference like #/$defs/Page; this is "other.json".'),
    ('{"$ref": "#/properties/a", "properties": {"a": {}}}', '$ref', null),
    ('{"properties": {"a": {"$ref": "#/$defs/Page"}}}', 'properties.a.$ref', 'It leads nowhere in the schema.'),
    ('{"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}}}', '$defs.A.$ref', 'It leads nowhere in the schema.'),
    ('{"$ref": "#"}', '$ref', 'It comes back to itself.'),
    ('{"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}}}',
     '$defs.A.$ref',
     'It comes back to itself.'),
    ('{"allOf": [{"oneOf": [{"$ref": "#"}]}]}', 'allOf.0.oneOf.0.$ref', 'It comes back to itself.');

with answers as materialized (
    select wrong.schema, wrong.path, wrong.detail, schema_failure(wrong.schema) as failure from wrong
)

select is(jsonb_build_array(failure -> 'code', failure -> 'path',
          case when detail is not null then failure ->> 'detail' end),
          jsonb_build_array('PD107', path, detail), format('%s: %s is refused', schema, path))
  from answers;

-- Recursion into the document is allowed.

select is(schema_failure(schema), null, format('%s is a contract', schema))
  from (values
        ('{"properties": {"next": {"$ref": "#"}}}'::jsonb),
        ('{"$ref": "#/$defs/N", "$defs": {"N": {"items": {"$ref": "#/$defs/N"}}}}'),
        ('{"$defs": {"A": {"anyOf": [{"type": "null"}, {"properties": {"a": {"$ref": "#/$defs/A"}}}]}}}'),
        ('{"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}], "$defs": {"A": {}}}'),
        ('{"properties": {"properties": {"type": "object"}, "anyOf": {"type": "array"}, "$ref": {"type": "string"}}}'),
        ('{"const": {"typ": 1}, "enum": [{"typ": 1}], "default": {"typ": 1}}'),
        ('{"maxItems": 999999999, "minItems": 1.0}')
       ) as cases (schema);

-- define_contract, contract_of, drop_contract

select throws_ok(
    $$ select define_contract('note', '{"properties": {"confidence": {"maximun": 1}}}') $$,
    'PD107', 'properties.confidence.maximun is not a rule of a contract',
    'the error names the path of a misspelt keyword');
select is(error_of(statement), code, about)
  from (values
        ($$ select define_contract('note', '[]') $$, 'PD107', 'a contract that is not an object is refused'),
        ($$ select define_contract('note', null) $$, 'PD107', 'a contract of null is refused'),
        ($$ select define_contract('', '{}') $$, 'PD104', 'a contract of an empty entity is refused'),
        ($$ select define_contract(null, '{}') $$, 'PD104', 'a contract of an entity of null is refused'),
        ($$ select define_contract('$schedule', '{}') $$, 'PD104', 'a contract of an entity of perdure is refused'),
        ($$ select define_contract('note', (repeat('{"items": ', 101) || '{}' || repeat('}', 101))::jsonb) $$, 'PD302',
         'a contract that is too deep is refused'),
        ($$ select define_contract('note', jsonb_build_object('title', repeat('x', 1048576))) $$, 'PD301',
         'a contract that is too large is refused')
       ) as cases (statement, code, about);
select is(contract_of('note'), null, 'a refused contract is not defined');

select define_contract('note', '{"title": "Note", "required": ["a"]}');
select is(contract_of('note'), '{"title": "Note", "required": ["a"]}',
          'contract_of() returns a contract as it was defined');
select is((select c.rules from contracts as c), '{"required": ["a"]}',
          'writes are checked against the rules without titles');
select is((select c.defined_at from contracts as c), clock(), 'a contract has the time of its definition');
select time_passes('1 hour');
select define_contract('note', '{"required": ["b"]}');
select is((select jsonb_build_array(c.schema, c.rules, c.defined_at) from contracts as c),
          jsonb_build_array('{"required": ["b"]}'::jsonb, '{"required": ["b"]}'::jsonb, clock()),
          'a contract can be changed');
select is(error_of($$ select define_contract('note', '{"typ": 1}') $$), 'PD107', 'a wrong change is refused');
select is(contract_of('note'), '{"required": ["b"]}', 'a refused change keeps the old contract');
select define_contract('memo', '{"required": ["c"]}');
select is(drop_contract('note'), true, 'a contract can be dropped');
select is(drop_contract('note'), false, 'a contract that does not exist cannot be dropped');
select is(contract_of('note'), null, 'a dropped contract is gone');
select is(contract_of('memo'), '{"required": ["c"]}', 'the contracts of other entities stay');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- A contract must allow an object, because a memory is one.

select throws_ok(
    format($$ select define_contract('impossible', %L) $$, schema),
    'PD107', 'no memory can meet this contract', format('%s is refused, because a memory is an object', schema))
  from (values ('{"type": "array"}'), ('{"type": "integer", "minimum": 3}'), ('{"type": ["string", "null"]}'),
               ('{"anyOf": [{"type": "string"}, {"type": "null"}]}'), ('{"allOf": [{}, {"type": "array"}]}'),
               ('{"oneOf": [{"anyOf": [{"type": "null"}]}]}')) as cases (schema);
select lives_ok(
    format($$ select define_contract('possible', %L) $$, schema), format('%s is a contract', schema))
  from (values ('{"type": "object"}'), ('{"type": ["null", "object"]}'), ('{}'),
               ('{"anyOf": [true]}'), ('{"required": ["a"]}'),
               ('{"anyOf": [{"type": "string"}, {"type": "object"}]}'), ('{"anyOf": [{"type": "null"}, {}]}'),
               ('{"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}'),
               ('{"properties": {"a": {"type": "array"}}}')) as cases (schema);

select finish();
rollback;
