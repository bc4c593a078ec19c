-- What a contract may say: a mistake in it is refused when it is defined, never met by a write.

begin;
select plan(75);

select the_time_is('2030-01-01 12:00+00');

-- The keyword at fault is named by its path.

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

-- What goes into the document may come back to itself.

select is(schema_failure(schema), null, format('%s is a contract', schema))
  from (values
        ('{"properties": {"next": {"$ref": "#"}}}'::jsonb),
        ('{"$ref": "#/$defs/N", "$defs": {"N": {"items": {"$ref": "#/$defs/N"}}}}'),
        ('{"$defs": {"A": {"anyOf": [{"type": "null"}, {"properties": {"a": {"$ref": "#/$defs/A"}}}]}}}'),
        ('{"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}], "$defs": {"A": {}}}'),
        ('{"properties": {"properties": {"type": "object"}, "anyOf": {"type": "array"}, "$ref": {"type": "string"}}}'),
        ('{"const": {"typ": 1}, "enum": [{"typ": 1}], "default": {"typ": 1}}')
       ) as cases (schema);

-- define_contract, contract_of, drop_contract

select throws_ok(
    $$ select define_contract('note', '{"properties": {"confidence": {"maximun": 1}}}') $$,
    'PD107', 'properties.confidence.maximun is not a rule of a contract',
    'a keyword that is misspelt is refused by its path');
select is(error_of(statement), code, about)
  from (values
        ($$ select define_contract('note', '[]') $$, 'PD107', 'a contract is an object'),
        ($$ select define_contract('note', null) $$, 'PD107', 'a contract is not null'),
        ($$ select define_contract('', '{}') $$, 'PD104', 'a contract belongs to an entity'),
        ($$ select define_contract(null, '{}') $$, 'PD104', 'a contract belongs to an entity that has a name'),
        ($$ select define_contract('$schedule', '{}') $$, 'PD104', 'what belongs to perdure has no contract of yours'),
        ($$ select define_contract('note', (repeat('{"items": ', 101) || '{}' || repeat('}', 101))::jsonb) $$, 'PD302',
         'a contract is at most as deep as a memory'),
        ($$ select define_contract('note', jsonb_build_object('title', repeat('x', 1048576))) $$, 'PD301',
         'a contract has a size')
       ) as cases (statement, code, about);
select is(contract_of('note'), null, 'what was refused is no contract');

select define_contract('note', '{"title": "Note", "required": ["a"]}');
select is(contract_of('note'), '{"title": "Note", "required": ["a"]}', 'a contract is read as it was defined');
select is((select c.rules from contracts as c), '{"required": ["a"]}', 'writes are held against the rules alone');
select is((select c.defined_at from contracts as c), clock(), 'a contract tells when it was defined');
select time_passes('1 hour');
select define_contract('note', '{"required": ["b"]}');
select is((select jsonb_build_array(c.schema, c.rules, c.defined_at) from contracts as c),
          jsonb_build_array('{"required": ["b"]}'::jsonb, '{"required": ["b"]}'::jsonb, clock()),
          'a contract can be changed');
select is(error_of($$ select define_contract('note', '{"typ": 1}') $$), 'PD107', 'a change is looked at too');
select is(contract_of('note'), '{"required": ["b"]}', 'a change that was refused leaves the contract as it was');
select define_contract('memo', '{"required": ["c"]}');
select is(drop_contract('note'), true, 'a contract can be dropped');
select is(drop_contract('note'), false, 'a contract that is not there cannot be dropped');
select is(contract_of('note'), null, 'a contract that was dropped is gone');
select is(contract_of('memo'), '{"required": ["c"]}', 'the contracts of other entities stay');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');

-- A memory is an object.

select throws_ok(
    format($$ select define_contract('impossible', %L) $$, schema),
    'PD107', 'no memory can meet this contract', format('%s is no contract: a memory is an object', schema))
  from (values ('{"type": "array"}'), ('{"type": "integer", "minimum": 3}'), ('{"type": ["string", "null"]}'),
               ('{"anyOf": [{"type": "string"}, {"type": "null"}]}'), ('{"allOf": [{}, {"type": "array"}]}'),
               ('{"oneOf": [{"anyOf": [{"type": "null"}]}]}')) as cases (schema);
select lives_ok(
    format($$ select define_contract('possible', %L) $$, schema), format('%s is one', schema))
  from (values ('{"type": "object"}'), ('{"type": ["null", "object"]}'), ('{}'),
               ('{"anyOf": [true]}'), ('{"required": ["a"]}'),
               ('{"anyOf": [{"type": "string"}, {"type": "object"}]}'), ('{"anyOf": [{"type": "null"}, {}]}'),
               ('{"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}'),
               ('{"properties": {"a": {"type": "array"}}}')) as cases (schema);

select finish();
rollback;
