-- merge (C27): objects are merged key by key at any depth; arrays and scalars are replaced.

begin;
select plan(75);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('a key is added, and the others stay',
     '{"a": 1}', 'merge', '', '{"b": 2}', '{"a": 1, "b": 2}', '"version"', null),
    ('a value is replaced',
     '{"a": 1, "b": 2}', 'merge', '', '{"a": 3}', '{"a": 3, "b": 2}', '"version"', null),
    ('an object is merged, not replaced',
     '{"a": {"x": 1}}', 'merge', '', '{"a": {"y": 2}}', '{"a": {"x": 1, "y": 2}}', '"version"', null),
    ('siblings stay at the third level',
     '{"a": {"b": {"x": 1}, "k": 0}}', 'merge', '', '{"a": {"b": {"y": 2}}}',
     '{"a": {"b": {"x": 1, "y": 2}, "k": 0}}', '"version"', null),
    ('siblings stay at the sixth level',
     '{"a": {"b": {"c": {"d": {"e": {"x": 1}, "k": 0}}}}}', 'merge', '', '{"a": {"b": {"c": {"d": {"e": {"y": 2}}}}}}',
     '{"a": {"b": {"c": {"d": {"e": {"x": 1, "y": 2}, "k": 0}}}}}', '"version"', null),
    ('several branches are merged at once',
     '{"a": {"x": 1}, "b": {"y": {"z": 1}}, "c": 1}', 'merge', '', '{"a": {"n": 2}, "b": {"y": {"n": 2}}, "d": 2}',
     '{"a": {"x": 1, "n": 2}, "b": {"y": {"z": 1, "n": 2}}, "c": 1, "d": 2}', '"version"', null),
    ('a merge leaves siblings as they are (C61)',
     '{"perspectives": {"optimistic": {"f": [1]}, "skeptical": {"f": [2]}}, "status": "researching"}', 'merge', '',
     '{"perspectives": {"synthesis": {"confidence": 0.8}}, "status": "completed"}',
     '{"perspectives": {"optimistic": {"f": [1]}, "skeptical": {"f": [2]}, "synthesis": {"confidence": 0.8}},
       "status": "completed"}', '"version"', null),
    ('missing objects are made',
     '{}', 'merge', '', '{"a": {"b": {"c": 1}}}', '{"a": {"b": {"c": 1}}}', '"version"', null),
    ('an array replaces an array',
     '{"a": [1, 2]}', 'merge', '', '{"a": [3]}', '{"a": [3]}', '"version"', null),
    ('an empty array replaces an array',
     '{"a": [1, 2]}', 'merge', '', '{"a": []}', '{"a": []}', '"version"', null),
    ('an object replaces an array',
     '{"a": [{"x": 1}]}', 'merge', '', '{"a": {"0": {"y": 2}}}', '{"a": {"0": {"y": 2}}}', '"version"', null),
    ('an object replaces a number',
     '{"a": 5}', 'merge', '', '{"a": {"b": {"c": 1}}}', '{"a": {"b": {"c": 1}}}', '"version"', null),
    ('an object replaces a null',
     '{"a": null}', 'merge', '', '{"a": {"b": 1}}', '{"a": {"b": 1}}', '"version"', null),
    ('a number replaces an object',
     '{"a": {"b": 1}}', 'merge', '', '{"a": 5}', '{"a": 5}', '"version"', null),
    ('an empty object leaves an object as it is',
     '{"a": {"b": 1}}', 'merge', '', '{"a": {}}', '{"a": {"b": 1}}', '"version"', null),
    ('a null is stored as null',
     '{"a": {"b": 1, "c": 2}}', 'merge', '', '{"a": {"b": null}}', '{"a": {"b": null, "c": 2}}', '"version"', null),
    ('an empty patch makes a version too',
     '{"a": 1}', 'merge', '', '{}', '{"a": 1}', '"version"', null),
    ('an object is merged at a path',
     '{"a": {"b": {"x": 1}}, "c": 1}', 'merge', 'a.b', '{"y": {"z": 2}}',
     '{"a": {"b": {"x": 1, "y": {"z": 2}}}, "c": 1}', '"version"', null),
    ('a missing path is made',
     '{"c": 1}', 'merge', 'a.b', '{"y": 2}', '{"a": {"b": {"y": 2}}, "c": 1}', '"version"', null),
    ('an empty object is made at a path',
     '{}', 'merge', 'a.b', '{}', '{"a": {"b": {}}}', '"version"', null),
    ('an element of an array is merged',
     '{"a": [{"x": {"y": 1}}, 2]}', 'merge', 'a.0', '{"x": {"z": 2}}',
     '{"a": [{"x": {"y": 1, "z": 2}}, 2]}', '"version"', null),
    ('the last element of an array is merged',
     '{"a": [1, {"x": 1}]}', 'merge', 'a.-1', '{"y": 2}', '{"a": [1, {"x": 1, "y": 2}]}', '"version"', null),
    ('a key with dots is one key',
     '{"a": {"b": 1}}', 'merge', '', '{"a.b": {"c": 1}}', '{"a": {"b": 1}, "a.b": {"c": 1}}', '"version"', null),
    ('the empty key is a key',
     '{"": {"": {"x": 1}}}', 'merge', '', '{"": {"": {"y": 2}}}', '{"": {"": {"x": 1, "y": 2}}}', '"version"', null),
    ('a quoted path is one key',
     '{"a.b": {"x": 1}}', 'merge', '"a.b"', '{"y": 2}', '{"a.b": {"x": 1, "y": 2}}', '"version"', null),
    ('a text cannot be merged into',
     '{"a": "text"}', 'merge', 'a', '{"b": 1}', null, null, 'PD102'),
    ('an array cannot be merged into',
     '{"a": [1]}', 'merge', 'a', '{"b": 1}', null, null, 'PD102'),
    ('a null cannot be merged into',
     '{"a": null}', 'merge', 'a', '{"b": 1}', null, null, 'PD102'),
    ('an element that does not exist cannot be merged into',
     '{"a": []}', 'merge', 'a.0', '{"b": 1}', null, null, 'PD102'),
    ('a key of a number cannot be merged into',
     '{"a": 5}', 'merge', 'a.b', '{"c": 1}', null, null, 'PD102'),
    ('an array is not a patch',
     '{"a": 1}', 'merge', '', '[1]', null, null, 'PD103'),
    ('a number is not a patch',
     '{"a": 1}', 'merge', '', '1', null, null, 'PD103'),
    ('a null is not a patch',
     '{"a": 1}', 'merge', '', 'null', null, null, 'PD103');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('merge: %s (C27)', about))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('merge in a turn: %s (C27)', about))
  from cases;

-- The depth of a merge.

select given(entity_create('deep', 'note', (repeat('{"a": ', 90) || '{"x": 1}' || repeat('}', 90))::jsonb));
select given(entity_merge('deep', (repeat('{"a": ', 90) || '{"y": 2}' || repeat('}', 90))::jsonb));
select is(the_job('deep') -> 'context', (repeat('{"a": ', 90) || '{"x": 1, "y": 2}' || repeat('}', 90))::jsonb,
          'siblings stay at the ninetieth level (C27)');

-- Many merges of adjacent subtrees (C62).

select given(entity_create('tree', 'note', '{}'));
select given(entity_merge('tree',
                          jsonb_build_object('a',
                                             jsonb_build_object('b' || n % 3, jsonb_build_object('c' || n, n)))))
  from generate_series(1, 30) as n;
select is((select count(c.key)
             from jsonb_each(the_job('tree') #> '{context,a}') as b
            cross join jsonb_each(b.value) as c), 30::bigint,
          'thirty merges of adjacent subtrees leave thirty leaves (C27) (C62)');
select is(the_job('tree') ->> 'version', '30', 'each merge makes a version [P3]');

-- The shape of a patch changes how it is applied, never its result.

select is(merge_values(old, patch), merge_at(jsonb_build_object('p', old), '{p}', patch) -> 'p',
          format('a merge at a path has the result of a merge of values: %s', about))
  from (values
        ('one key at each level', '{"a": {"b": {"c": 1}}, "k": 1}'::jsonb, '{"a": {"b": {"d": 2}}}'::jsonb),
        ('one key, then two',     '{"a": {"b": {"c": 1}}, "k": 1}', '{"a": {"b": {"d": 2}, "e": {"f": 1}}}'),
        ('two keys at once',      '{"a": {"b": 1}, "k": {"l": 1}}', '{"a": {"c": 2}, "k": {"m": 2}}'),
        ('one key to a number',   '{"a": {"b": 1}}', '{"a": {"b": {"c": 2}}}'),
        ('nothing',               '{"a": {"b": 1}}', '{}')
       ) as cases (about, old, patch);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
