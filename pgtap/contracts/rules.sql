-- The rules of a contract: each keyword, with values that fit and values that do not (C23).

begin;
select plan(591);

create temporary table rules (schema jsonb, fits jsonb, unfit jsonb) on commit drop;
insert into rules values
    ('{"type": "string"}', '["", "x"]', '[1, null, true, [], {}]'),
    ('{"type": "number"}', '[1, -1.5, 0, 1e300]', '["1", null, false, [1]]'),
    ('{"type": "integer"}', '[1, -7, 2.0, 100000000000000000000]', '[1.5, "1", null]'),
    ('{"type": "boolean"}', '[true, false]', '[0, 1, "true", null]'),
    ('{"type": "null"}', '[null]', '[0, false, "", [], {}]'),
    ('{"type": "array"}', '[[], [1]]', '[{}, "[]", null]'),
    ('{"type": "object"}', '[{}, {"a": 1}]', '[[], "{}", null]'),
    ('{"type": ["string", "null"]}', '["x", null]', '[1, []]'),
    ('{"type": ["integer", "boolean"]}', '[1, true]', '[1.5, null]'),
    ('{"enum": ["draft", 1, null, {"a": [1]}]}', '["draft", 1, 1.0, null, {"a": [1]}]',
     '["other", true, {}, {"a": [1], "b": 2}, []]'),
    ('{"enum": []}', '[]', '[1, null]'),
    ('{"const": "a"}', '["a"]', '["b", null]'),
    ('{"const": null}', '[null]', '[0]'),
    ('{"const": {"a": 1}}', '[{"a": 1.0}]', '[{"a": 1, "b": 2}, {}]'),
    ('{"minimum": 0, "maximum": 1}', '[0, 0.5, 1, "2", null]', '[-0.1, 1.0001]'),
    ('{"minimum": 9, "maximum": 100}', '[10, 100]', '[-10, 1000]'),
    ('{"exclusiveMinimum": 0, "exclusiveMaximum": 1}', '[0.5, []]', '[0, 1, 2]'),
    ('{"multipleOf": 0.5}', '[1, 1.5, 0, "1.2"]', '[0.7]'),
    ('{"minLength": 2, "maxLength": 3}', '["ab", "🙂🙂🙂", 1, []]', '["", "a", "🙂", "abcd"]'),
    ('{"minLength": 1.0, "maxLength": 2.0}', '["a"]', '["", "abc"]'),
    ('{"pattern": "^a+$"}', '["a", "aaa", 1]', '["", "ab", "ba"]'),
    ('{"pattern": "b"}', '["abc"]', '["ac"]'),
    ('{"minItems": 1, "maxItems": 2}', '[[1], [1, 2], "abc", {}]', '[[], [1, 2, 3]]'),
    ('{"uniqueItems": true}', '[[], [1, "1", true], {"a": 1}]', '[[1, 1.0], [{"a": 1}, {"a": 1}]]'),
    ('{"uniqueItems": false}', '[[1, 1]]', '[]'),
    ('{"items": {"type": "number"}}', '[[], [1, 2], "x"]', '[["x"], [1, null]]'),
    ('{"items": false}', '[[]]', '[[1]]'),
    ('{"prefixItems": [{"type": "number"}, {"type": "string"}]}', '[[], [1], [1, "x"], [1, "x", null]]',
     '[["x"], [1, 2]]'),
    ('{"prefixItems": [{"type": "number"}], "items": {"type": "null"}}', '[[1], [1, null]]', '[[1, 2], [null]]'),
    ('{"properties": {"a": {"type": "number"}}}', '[{}, {"a": 1}, {"b": "x"}, [], "a"]', '[{"a": "x"}, {"a": null}]'),
    ('{"required": ["a", "b"]}', '[{"a": null, "b": 1}, [], "a"]', '[{}, {"a": 1}, {"b": 1}]'),
    ('{"required": []}', '[{}]', '[]'),
    ('{"properties": {"a": true}, "additionalProperties": false}', '[{}, {"a": [1]}, []]',
     '[{"b": 1}, {"a": 1, "b": null}]'),
    ('{"properties": {"a": true}, "additionalProperties": {"type": "number"}}', '[{"a": "x"}, {"b": 1}]',
     '[{"b": "x"}]'),
    ('{"additionalProperties": {"type": "number"}}', '[{}, {"a": 1}]', '[{"a": "x"}]'),
    ('{"properties": {"a": false}}', '[{}, {"b": 1}]', '[{"a": 1}, {"a": null}]'),
    ('{"patternProperties": {"^n_": {"type": "number"}}}', '[{"n_a": 1}, {"a": "x"}]', '[{"n_a": "x"}]'),
    ('{"patternProperties": {"b": true}, "additionalProperties": false}', '[{"abc": 1}]', '[{"ac": 1}]'),
    ('{"patternProperties": {"a": {"minimum": 1}, "b": {"maximum": 2}}, "properties": {"ab": {"type": "number"}},
       "additionalProperties": false}', '[{"ab": 1}, {"a": 7}, {"b": 0}]', '[{"ab": 0}, {"ab": 3}, {"ab": "x"},
       {"c": 1}]'),
    ('{"propertyNames": {"enum": ["x", "y"]}}', '[{}, {"x": 1, "y": 2}]', '[{"z": 1}]'),
    ('{"minProperties": 1, "maxProperties": 2}', '[{"a": 1}, {"a": 1, "b": 2}, []]', '[{}, {"a": 1, "b": 2, "c": 3}]'),
    ('{"anyOf": [{"type": "number", "maximum": 1}, {"type": "null"}]}', '[1, null]', '[2, "x"]'),
    ('{"anyOf": [{"type": "string", "enum": ["a", 1]}, {"type": "null"}]}', '["a", null]', '["b", 1]'),
    ('{"anyOf": [{"type": "string"}, {"type": "number"}]}', '["a", 1]', '[null, true]'),
    ('{"anyOf": [{"type": "string"}, {"type": "null"}], "minLength": 2}', '["ab", null]', '["a", 12]'),
    ('{"anyOf": [{"type": "object", "allOf": [{"type": "object"}]}, {"type": "null"}]}', '[{}, null]', '[1]'),
    ('{"anyOf": [{"type": "object", "$ref": "#/$defs/A"}, {"type": "null"}], "$defs": {"A": {"type": "object"}}}',
     '[{}, null]', '[1]'),
    ('{"items": {"anyOf": [{"type": "object", "$ref": "#/$defs/A"}, {"type": "null"}]},
       "$defs": {"A": {"type": "object"}}}', '[[{}, null]]', '[[1]]'),
    ('{"oneOf": [{"minimum": 2}, {"maximum": 4}]}', '[1, 5]', '[3, "x"]'),
    ('{"allOf": [{"minimum": 2}, {"maximum": 4}], "type": "number"}', '[2, 4]', '[1, 5, "x"]'),
    ('{"properties": {"a": {"minimum": 2}}, "allOf": [{"required": ["b"]}]}', '[{"a": 2, "b": 1}]',
     '[{"a": 1, "b": 1}, {"a": 2}]'),
    ('{"anyOf": [{"type": "number"}, {"type": "string"}], "oneOf": [{"const": 1}, {"const": "x"}]}', '[1, "x"]',
     '[2, null]'),
    ('{"$ref": "#/$defs/n", "maximum": 4, "$defs": {"n": {"$ref": "#/$defs/m"}, "m": {"minimum": 2}}}', '[2, 4]',
     '[1, 5]'),
    ('{"type": "object", "properties": {"next": {"$ref": "#"}}}', '[{}, {"next": {"next": {}}}]',
     '[{"next": {"next": 1}}]'),
    ('{"$ref": "#/definitions/a~1b~0c", "definitions": {"a/b~c": {"type": "null"}}}', '[null]', '[1]'),
    ('{"$ref": "#/$defs/a~01b", "$defs": {"a~1b": {"type": "null"}, "a/b": {}}}', '[null]', '[1]'),
    ('{"items": {"$ref": "#/$defs/Page"}, "$defs": {"Page": {"type": "object", "required": ["n"]}}}',
     '[[{"n": 1}]]', '[[{"n": 1}, {}]]'),
    ('{"title": "T", "description": "D", "default": 1, "examples": [1], "format": "date", "$schema": "s", "$id": "i"}',
     '["no date", 1, null]', '[]'),
    ('{}', '[1, null, {"a": []}]', '[]');

create function fault(value jsonb, schema jsonb) returns text
language plpgsql
as $$
begin
    return (first_broken_rule(fault.value, fault.schema, fault.schema, '{}')).rule;
end
$$;

select is(schema_failure(schema), null, format('%s is a contract', schema)) from rules;
select is(fault(value, schema), null, format('%s fits %s', schema, value))
  from rules
 cross join jsonb_array_elements(fits) as value;
select isnt(fault(value, schema), null, format('%s does not fit %s', schema, value))
  from rules
 cross join jsonb_array_elements(unfit) as value;

-- The rules against which writes are checked are shorter than the schema, and as strict.

select is(fault(value, rules_of(schema)) is null, fault(value, schema) is null, format('%s is as strict for %s',
          rules_of(schema), value))
  from rules
 cross join jsonb_array_elements(fits || unfit) as value;
select is(rules_of(schema), rules, format('%s has the rules %s', schema, rules))
  from (values
        ('{"title": "T", "description": "D", "default": 1}'::jsonb, '{}'::jsonb),
        ('{"properties": {"title": {"title": "Title", "type": "string"}}}',
         '{"properties": {"title": {"type": "string"}}}'),
        ('{"const": {"title": 1}, "enum": ["title"], "required": ["title"]}',
         '{"const": {"title": 1}, "enum": ["title"], "required": ["title"]}'),
        ('{"items": true, "properties": {}, "$defs": {"A": {"title": "A"}}}',
         '{"items": {}, "properties": {}, "$defs": {"A": {}}}'),
        ('{"anyOf": [{"type": "number", "minimum": 1}, {"type": "null"}], "default": null}',
         '{"type": ["number", "null"], "minimum": 1}'),
        ('{"anyOf": [{"type": "null"}, {"type": "string", "title": "T"}]}', '{"type": ["string", "null"]}'),
        ('{"anyOf": [{"enum": [1], "type": "number"}, {"type": "null"}]}',
         '{"enum": [1, null], "type": ["number", "null"]}'),
        ('{"anyOf": [{"const": 1, "type": "number"}, {"type": "null"}]}',
         '{"anyOf": [{"const": 1, "type": "number"}, {"type": "null"}]}'),
        ('{"anyOf": [{"$ref": "#"}, {"type": "null"}], "type": "object"}',
         '{"anyOf": [{"$ref": "#"}, {"type": "null"}], "type": "object"}'),
        ('{"anyOf": [{"type": "null"}, {"type": "null"}]}', '{"type": ["null", "null"]}')
       ) as cases (schema, rules);

-- The error: the path, what is there, and what the contract wants.

create temporary table told (schema jsonb, context jsonb, path text, rule text, message text) on commit drop;
insert into told values
    ('{"properties": {"confidence": {"type": "number", "maximum": 1}}}', '{"confidence": 1.5}', 'confidence', 'maximum',
     'confidence is a number, but the contract of note wants at most 1'),
    ('{"properties": {"a": {"type": "string"}}}', '{"a": 5}', 'a', 'type',
     'a is a number, but the contract of note wants a string'),
    ('{"properties": {"a": {"type": ["integer", "null"]}}}', '{"a": [1]}', 'a', 'type',
     'a is an array of length 1, but the contract of note wants an integer or null'),
    ('{"required": ["status"]}', '{}', 'status', 'required', 'status is missing, but the contract of note wants it'),
    ('{"properties": {"a": {"required": ["b.c"]}}}', '{"a": {}}', 'a."b.c"', 'required',
     'a."b.c" is missing, but the contract of note wants it'),
    ('{"additionalProperties": false}', '{"extra": {"n": 1}}', 'extra', 'additionalProperties',
     'extra is an object, but the contract of note wants nothing there'),
    ('{"additionalProperties": false}', '{"later": 1, "extra": 1}', 'extra', 'additionalProperties',
     'extra is a number, but the contract of note wants nothing there'),
    ('{"properties": {"a": {"enum": ["x", "y"]}}}', '{"a": "z"}', 'a', 'enum',
     'a is a string of length 1, but the contract of note wants one of ["x", "y"]'),
    ('{"properties": {"a": {"pattern": "^b"}}}', '{"a": "z"}', 'a', 'pattern',
     'a is a string of length 1, but the contract of note wants a text like "^b"'),
    ('{"properties": {"tags": {"items": {"properties": {"n": {"minimum": 3}}}}}}', '{"tags": [{"n": 3}, {"n": 2}]}',
     'tags.1.n',
     'minimum', 'tags.1.n is a number, but the contract of note wants at least 3'),
    ('{"properties": {"a": {"minItems": 2}}}', '{"a": [1]}', 'a', 'minItems',
     'a is an array of length 1, but the contract of note wants a length of at least 2'),
    ('{"properties": {"a": {"maxLength": 2}}}', '{"a": "abc"}', 'a', 'maxLength',
     'a is a string of length 3, but the contract of note wants a length of at most 2'),
    ('{"properties": {"a": {"anyOf": [{"type": "number", "maximum": 1}, {"type": "null"}]}}}', '{"a": 2}', 'a',
     'maximum',
     'a is a number, but the contract of note wants at most 1'),
    ('{"properties": {"a": {"anyOf": [{"type": "number", "maximum": 1}, {"type": "null"}]}}}', '{"a": "x"}', 'a',
     'type',
     'a is a string of length 1, but the contract of note wants a number or null'),
    ('{"properties": {"a": {"anyOf": [{"type": "number"}, {"type": "array"}, {"type": "null"}]}}}', '{"a": "x"}', 'a',
     'anyOf',
     'a is a string of length 1, but the contract of note wants a number or an array or null'),
    ('{"properties": {"u": {"oneOf": [{"properties": {"kind": {"const": "a"}, "x": {"type": "number"}}},
                                      {"properties": {"kind": {"const": "b"}, "y": {"type": "number"}}}]}}}',
     '{"u": {"kind": "b", "y": "z"}}', 'u.y', 'type',
     'u.y is a string of length 1, but the contract of note wants a number'),
    ('{"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "number", "maximum": 1}]}}}', '{"a": 2}', 'a',
     'maximum', 'a is a number, but the contract of note wants at most 1'),
    ('{"properties": {"u": {"anyOf": [{"maxProperties": 0}, {"properties": {"n": {"type": "null"}}}]}}}',
     '{"u": {"n": 1}}', 'u.n', 'type', 'u.n is a number, but the contract of note wants null'),
    ('{"properties": {"a": {"oneOf": [{"minimum": 2}, {"maximum": 4}]}}}', '{"a": 3}', 'a', 'oneOf',
     'a is a number, but the contract of note wants one of 2 shapes, not 2 of them'),
    ('{"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}}', '{"a": "x"}', 'a', 'type',
     'a is a string of length 1, but the contract of note wants a number'),
    ('{"maxProperties": 1}', '{"a": 1, "b": 2}', 'the memory', 'maxProperties',
     'the memory is an object, but the contract of note wants at most 1 keys');

create function told_of(schema jsonb, context jsonb) returns jsonb
language plpgsql
as $$
begin
    perform define_contract('note', told_of.schema);
    return contract_failure('note', told_of.context);
end
$$;

with answers as materialized (
    select told.path, told.rule, told.message, told_of(told.schema, told.context) as failure from told
)

select is(failure - '{detail,hint}'::text[],
          jsonb_build_object('code', 'PD109', 'type', 'ContractBroken', 'path', path, 'rule', rule, 'message',
          message), message)
  from answers;

select is(contract_failure('memo', '{"a": 1}'), null, 'an entity without a contract has no rules');
select is(contract_failure(null, '{"a": 1}'), null, 'a job without an entity has no rules');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
