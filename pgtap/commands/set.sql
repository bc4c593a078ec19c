-- set (C26) replaces a value, or the whole memory. set_if_not_exists (C33) sets only a value that is missing.

begin;
select plan(95);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('a value is replaced',
     '{"a": 1, "b": 2}', 'set', 'a', '"new"', '{"a": "new", "b": 2}', '"version"', null),
    ('a missing key is made',
     '{"b": 2}', 'set', 'a', '1', '{"a": 1, "b": 2}', '"version"', null),
    ('a nested value is replaced, and its neighbours stay',
     '{"user": {"name": "Jane", "age": 3}}', 'set', 'user.name', '"Joe"',
     '{"user": {"name": "Joe", "age": 3}}', '"version"', null),
    ('missing parents are made as objects',
     '{}', 'set', 'a.b.c', '1', '{"a": {"b": {"c": 1}}}', '"version"', null),
    ('a missing parent of a numeric key is an object too',
     '{}', 'set', 'items.0', '1', '{"items": {"0": 1}}', '"version"', null),
    ('missing parents are made beside existing keys',
     '{"a": {"x": 1}}', 'set', 'a.b.c', '1', '{"a": {"x": 1, "b": {"c": 1}}}', '"version"', null),
    ('the whole memory is replaced',
     '{"a": 1, "b": {"c": 2}}', 'set', '', '{"d": 3}', '{"d": 3}', '"version"', null),
    ('the whole memory is emptied',
     '{"a": 1}', 'set', '', '{}', '{}', '"version"', null),
    ('an object is replaced, not merged',
     '{"a": {"b": 1}}', 'set', 'a', '{"c": 2}', '{"a": {"c": 2}}', '"version"', null),
    ('a number replaces an object',
     '{"a": {"b": 1}}', 'set', 'a', '5', '{"a": 5}', '"version"', null),
    ('a null is stored as null',
     '{"a": 1}', 'set', 'a', 'null', '{"a": null}', '"version"', null),
    ('a value replaces a null',
     '{"a": null}', 'set', 'a', '1', '{"a": 1}', '"version"', null),
    ('an empty array stays an array',
     '{}', 'set', 'a', '[]', '{"a": []}', '"version"', null),
    ('an empty object stays an object',
     '{}', 'set', 'a', '{}', '{"a": {}}', '"version"', null),
    ('false, zero and the empty text are values',
     '{}', 'set', 'a', '[false, 0, ""]', '{"a": [false, 0, ""]}', '"version"', null),
    ('an element of an array is replaced',
     '{"a": [1, 2, 3]}', 'set', 'a.1', '"x"', '{"a": [1, "x", 3]}', '"version"', null),
    ('the last element of an array is -1',
     '{"a": [1, 2, 3]}', 'set', 'a.-1', '"x"', '{"a": [1, 2, "x"]}', '"version"', null),
    ('a key inside an element is replaced',
     '{"a": [{"b": 1}, {"b": 2}]}', 'set', 'a.1.b', '3', '{"a": [{"b": 1}, {"b": 3}]}', '"version"', null),
    ('missing parents are made inside an element',
     '{"a": [{}]}', 'set', 'a.0.b.c', '1', '{"a": [{"b": {"c": 1}}]}', '"version"', null),
    ('an element inside an element is replaced',
     '{"a": [[1, 2], [3]]}', 'set', 'a.0.-1', '9', '{"a": [[1, 9], [3]]}', '"version"', null),
    ('a number is a key in an object',
     '{"a": {"0": "x"}}', 'set', 'a.0', '"y"', '{"a": {"0": "y"}}', '"version"', null),
    ('a key with dots is one key',
     '{"a": {"b": 1}}', 'set', '"a.b"', '2', '{"a": {"b": 1}, "a.b": 2}', '"version"', null),
    ('the empty key is a key',
     '{}', 'set', '"".a', '1', '{"": {"a": 1}}', '"version"', null),
    ('keys of other alphabets are keys',
     '{}', 'set', 'größe.数', '"🙂"', '{"größe": {"数": "🙂"}}', '"version"', null),
    ('an equal value makes a version too',
     '{"a": 1}', 'set', 'a', '1', '{"a": 1}', '"version"', null),
    ('an element beyond the end is refused',
     '{"a": [1]}', 'set', 'a.1', '2', null, null, 'PD102'),
    ('an element before the beginning is refused',
     '{"a": [1]}', 'set', 'a.-2', '2', null, null, 'PD102'),
    ('an element of an empty array is refused',
     '{"a": []}', 'set', 'a.0', '2', null, null, 'PD102'),
    ('an index that is too large is refused',
     '{"a": [1]}', 'set', 'a.99999999999', '2', null, null, 'PD102'),
    ('a key of an array is refused',
     '{"a": [1]}', 'set', 'a.b', '2', null, null, 'PD102'),
    ('a key below a missing element is refused',
     '{"a": [1]}', 'set', 'a.5.b', '2', null, null, 'PD102'),
    ('a key of a number is refused',
     '{"a": 5}', 'set', 'a.b', '2', null, null, 'PD102'),
    ('a key of a text is refused',
     '{"a": "text"}', 'set', 'a.b.c', '2', null, null, 'PD102'),
    ('a key of a null is refused',
     '{"a": null}', 'set', 'a.b', '2', null, null, 'PD102'),
    ('a memory that is an array is refused',
     '{"a": 1}', 'set', '', '[1]', null, null, 'PD103'),
    ('a memory that is a number is refused',
     '{"a": 1}', 'set', '', '1', null, null, 'PD103'),
    ('a memory that is null is refused',
     '{"a": 1}', 'set', '', 'null', null, null, 'PD103'),

    ('a missing value is set',
     '{}', 'set_if_not_exists', 'a', '1', '{"a": 1}', '1', null),
    ('an existing value is kept and returned',
     '{"a": {"b": 1}}', 'set_if_not_exists', 'a', '2', '{"a": {"b": 1}}', '{"b": 1}', null),
    ('missing parents are made',
     '{}', 'set_if_not_exists', 'a.b.c', '[1]', '{"a": {"b": {"c": [1]}}}', '[1]', null),
    ('an existing null is kept',
     '{"a": null}', 'set_if_not_exists', 'a', '1', '{"a": null}', 'null', null),
    ('a null may be set',
     '{}', 'set_if_not_exists', 'a', 'null', '{"a": null}', 'null', null),
    ('an existing element is kept',
     '{"a": [7]}', 'set_if_not_exists', 'a.0', '1', '{"a": [7]}', '7', null),
    ('the whole memory always exists',
     '{"a": 1}', 'set_if_not_exists', '', '{"b": 2}', '{"a": 1}', '{"a": 1}', null),
    ('an element that does not exist is refused',
     '{"a": [7]}', 'set_if_not_exists', 'a.1', '1', null, null, 'PD102'),
    ('a key of a number is refused',
     '{"a": 7}', 'set_if_not_exists', 'a.b', '1', null, null, 'PD102');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s: %s (%s)', op, about, case op when 'set' then 'C26' else 'C33' end))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s in a turn: %s (%s)', op, about, case op when 'set' then 'C26' else 'C33' end))
  from cases;

select given(entity_create('e', 'note', '{"user": {"age": 3}}'));
select throws_ok(
    $$ select entity_set('e', '1', 'user.age.years') $$, 'PD102', 'user.age is a number, not an object',
    'the error names the path, the type found and the type expected');
select is(the_job('e') ->> 'version', '1', 'a refused command makes no version');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
