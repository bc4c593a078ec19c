-- append (C28), prepend (C29) and remove (C30): the commands of arrays.

begin;
select plan(105);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('an item is added at the end',
     '{"a": [1]}', 'append', 'a', '["x"]', '{"a": [1, "x"]}', '2', null),
    ('several items are added at the end in order',
     '{"a": [1]}', 'append', 'a', '[2, 3, 4]', '{"a": [1, 2, 3, 4]}', '4', null),
    ('a missing array is made, with its parents',
     '{}', 'append', 'a.b', '[1]', '{"a": {"b": [1]}}', '1', null),
    ('no item changes nothing, and returns the length',
     '{"a": [1, 2]}', 'append', 'a', '[]', '{"a": [1, 2]}', '2', null),
    ('no item makes a missing array',
     '{}', 'append', 'a', '[]', '{"a": []}', '0', null),
    ('an array counts as one item',
     '{"a": [1]}', 'append', 'a', '[[2, 3]]', '{"a": [1, [2, 3]]}', '2', null),
    ('objects and nulls are items',
     '{"a": []}', 'append', 'a', '[{"b": 1}, null]', '{"a": [{"b": 1}, null]}', '2', null),
    ('an array inside an element gets an item',
     '{"a": [{"b": [1]}]}', 'append', 'a.0.b', '[2]', '{"a": [{"b": [1, 2]}]}', '2', null),
    ('an element that is an array gets an item',
     '{"a": [[1], [2]]}', 'append', 'a.-1', '[3]', '{"a": [[1], [2, 3]]}', '2', null),
    ('a key with dots is one key',
     '{"a.b": [1]}', 'append', '"a.b"', '[2]', '{"a.b": [1, 2]}', '2', null),
    ('items cannot be added to an object',
     '{"a": {}}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('items cannot be added to a text',
     '{"a": "text"}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('items cannot be added to a null',
     '{"a": null}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('items cannot be added to the memory itself',
     '{"a": [1]}', 'append', '', '[1]', null, null, 'PD102'),
    ('items cannot be added to a key of an array',
     '{"a": [1]}', 'append', 'a.b', '[1]', null, null, 'PD102'),
    ('items cannot be added to an element that does not exist',
     '{"a": [1]}', 'append', 'a.1', '[1]', null, null, 'PD102'),
    ('a number is not an array of items',
     '{"a": [1]}', 'append', 'a', '2', null, null, 'PD103'),
    ('an object is not an array of items',
     '{"a": [1]}', 'append', 'a', '{"b": 2}', null, null, 'PD103'),

    ('an item is added at the beginning',
     '{"a": [1]}', 'prepend', 'a', '["x"]', '{"a": ["x", 1]}', '2', null),
    ('several items are added at the beginning in order',
     '{"a": [1]}', 'prepend', 'a', '[2, 3]', '{"a": [2, 3, 1]}', '3', null),
    ('a missing array is made, with its parents',
     '{}', 'prepend', 'a.b', '[1]', '{"a": {"b": [1]}}', '1', null),
    ('no item changes nothing, and returns the length',
     '{"a": [1, 2]}', 'prepend', 'a', '[]', '{"a": [1, 2]}', '2', null),
    ('an array counts as one item',
     '{"a": [1]}', 'prepend', 'a', '[[2, 3]]', '{"a": [[2, 3], 1]}', '2', null),
    ('an array inside an element gets an item',
     '{"a": [{"b": [1]}]}', 'prepend', 'a.-1.b', '[2]', '{"a": [{"b": [2, 1]}]}', '2', null),
    ('items cannot be added to an object',
     '{"a": {}}', 'prepend', 'a', '[1]', null, null, 'PD102'),
    ('items cannot be added to a null',
     '{"a": null}', 'prepend', 'a', '[1]', null, null, 'PD102'),
    ('items cannot be added to the memory itself',
     '{"a": [1]}', 'prepend', '', '[1]', null, null, 'PD102'),
    ('items cannot be added to a key of a number',
     '{"a": 5}', 'prepend', 'a.b', '[1]', null, null, 'PD102'),
    ('a text is not an array of items',
     '{"a": [1]}', 'prepend', 'a', '"x"', null, null, 'PD103'),

    ('the first element is removed and returned',
     '{"a": [1, 2, 3]}', 'remove', 'a', '0', '{"a": [2, 3]}', '1', null),
    ('an element in the middle is removed',
     '{"a": [1, {"b": 2}, 3]}', 'remove', 'a', '1', '{"a": [1, 3]}', '{"b": 2}', null),
    ('the last element is removed by its index',
     '{"a": [1, 2, 3]}', 'remove', 'a', '2', '{"a": [1, 2]}', '3', null),
    ('the last element is removed as -1',
     '{"a": [1, 2, 3]}', 'remove', 'a', '-1', '{"a": [1, 2]}', '3', null),
    ('the only element is removed, and an empty array stays',
     '{"a": ["only"], "b": 1}', 'remove', 'a', '0', '{"a": [], "b": 1}', '"only"', null),
    ('a null is removed',
     '{"a": [null, 1]}', 'remove', 'a', '0', '{"a": [1]}', 'null', null),
    ('an element of an inner array is removed',
     '{"a": [{"b": [1, 2]}]}', 'remove', 'a.0.b', '1', '{"a": [{"b": [1]}]}', '2', null),
    ('an element of an array in an array is removed',
     '{"a": [[1, 2], [3]]}', 'remove', 'a.-2', '0', '{"a": [[2], [3]]}', '1', null),
    ('an element of an array under a quoted key is removed',
     '{"a.b": [1, 2]}', 'remove', '"a.b"', '0', '{"a.b": [2]}', '1', null),
    ('an element beyond the end is refused',
     '{"a": [1]}', 'remove', 'a', '1', null, null, 'PD102'),
    ('an element before the beginning is refused',
     '{"a": [1]}', 'remove', 'a', '-2', null, null, 'PD102'),
    ('an element of an empty array is refused',
     '{"a": []}', 'remove', 'a', '-1', null, null, 'PD102'),
    ('an element of a missing array is refused',
     '{"b": 1}', 'remove', 'a', '0', null, null, 'PD102'),
    ('an element of a null is refused',
     '{"a": null}', 'remove', 'a', '0', null, null, 'PD102'),
    ('an element of an object is refused',
     '{"a": {"0": 1}}', 'remove', 'a', '0', null, null, 'PD102'),
    ('an element of a text is refused',
     '{"a": "text"}', 'remove', 'a', '0', null, null, 'PD102'),
    ('an element of the memory itself is refused',
     '{"a": [1]}', 'remove', '', '0', null, null, 'PD102'),
    ('an element of a key of an array is refused',
     '{"a": [[1]]}', 'remove', 'a.b', '0', null, null, 'PD102'),
    ('a fraction is not an index',
     '{"a": [1]}', 'remove', 'a', '0.5', null, null, 'PD103'),
    ('a text is not an index',
     '{"a": [1]}', 'remove', 'a', '"0"', null, null, 'PD103'),
    ('a number that is too large is not an index',
     '{"a": [1]}', 'remove', 'a', '99999999999', null, null, 'PD103'),
    ('a null is not an index',
     '{"a": [1]}', 'remove', 'a', 'null', null, null, 'PD103');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s: %s (%s)', op, about,
                 case op when 'append' then 'C28' when 'prepend' then 'C29' else 'C30' end))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s in a turn: %s (%s)', op, about,
                 case op when 'append' then 'C28' when 'prepend' then 'C29' else 'C30' end))
  from cases;

-- Items keep their order (C66).

select given(entity_create('steps', 'note', '{}'));
select given(entity_append('steps', 'list', to_jsonb(n))) from generate_series(1, 20) as n;
select is(the_job('steps') #> '{context,list}', (select jsonb_agg(n) from generate_series(1, 20) as n),
          'items are in the order in which they were appended (C28) (C66)');
select given(entity_remove('steps', 'list', -1)) from generate_series(1, 20);
select is(the_job('steps') -> 'context', '{"list": []}', 'twenty removals of the last leave an empty array (C30)');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
