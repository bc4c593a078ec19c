-- append (C28), prepend (C29) and remove (C30): the commands of arrays.

begin;
select plan(105);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('an item stands at the end',
     '{"a": [1]}', 'append', 'a', '["x"]', '{"a": [1, "x"]}', '2', null),
    ('several items stand at the end in their order',
     '{"a": [1]}', 'append', 'a', '[2, 3, 4]', '{"a": [1, 2, 3, 4]}', '4', null),
    ('an array that is missing is made, with its parents',
     '{}', 'append', 'a.b', '[1]', '{"a": {"b": [1]}}', '1', null),
    ('no item is no change, and tells the length',
     '{"a": [1, 2]}', 'append', 'a', '[]', '{"a": [1, 2]}', '2', null),
    ('no item makes an empty array where nothing is',
     '{}', 'append', 'a', '[]', '{"a": []}', '0', null),
    ('an array is one item of an array of items',
     '{"a": [1]}', 'append', 'a', '[[2, 3]]', '{"a": [1, [2, 3]]}', '2', null),
    ('objects and nulls are items',
     '{"a": []}', 'append', 'a', '[{"b": 1}, null]', '{"a": [{"b": 1}, null]}', '2', null),
    ('an array inside an element grows',
     '{"a": [{"b": [1]}]}', 'append', 'a.0.b', '[2]', '{"a": [{"b": [1, 2]}]}', '2', null),
    ('an element that is an array grows',
     '{"a": [[1], [2]]}', 'append', 'a.-1', '[3]', '{"a": [[1], [2, 3]]}', '2', null),
    ('a key with dots is one key',
     '{"a.b": [1]}', 'append', '"a.b"', '[2]', '{"a.b": [1, 2]}', '2', null),
    ('an object takes no items',
     '{"a": {}}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('a text takes no items',
     '{"a": "text"}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('a null takes no items',
     '{"a": null}', 'append', 'a', '[1]', null, null, 'PD102'),
    ('the memory itself takes no items',
     '{"a": [1]}', 'append', '', '[1]', null, null, 'PD102'),
    ('a key of an array takes no items',
     '{"a": [1]}', 'append', 'a.b', '[1]', null, null, 'PD102'),
    ('an element that does not exist takes no items',
     '{"a": [1]}', 'append', 'a.1', '[1]', null, null, 'PD102'),
    ('a number is no array of items',
     '{"a": [1]}', 'append', 'a', '2', null, null, 'PD103'),
    ('an object is no array of items',
     '{"a": [1]}', 'append', 'a', '{"b": 2}', null, null, 'PD103'),

    ('an item stands at the beginning',
     '{"a": [1]}', 'prepend', 'a', '["x"]', '{"a": ["x", 1]}', '2', null),
    ('several items stand at the beginning in their order',
     '{"a": [1]}', 'prepend', 'a', '[2, 3]', '{"a": [2, 3, 1]}', '3', null),
    ('an array that is missing is made, with its parents',
     '{}', 'prepend', 'a.b', '[1]', '{"a": {"b": [1]}}', '1', null),
    ('no item is no change, and tells the length',
     '{"a": [1, 2]}', 'prepend', 'a', '[]', '{"a": [1, 2]}', '2', null),
    ('an array is one item of an array of items',
     '{"a": [1]}', 'prepend', 'a', '[[2, 3]]', '{"a": [[2, 3], 1]}', '2', null),
    ('an array inside an element grows',
     '{"a": [{"b": [1]}]}', 'prepend', 'a.-1.b', '[2]', '{"a": [{"b": [2, 1]}]}', '2', null),
    ('an object takes no items',
     '{"a": {}}', 'prepend', 'a', '[1]', null, null, 'PD102'),
    ('a null takes no items',
     '{"a": null}', 'prepend', 'a', '[1]', null, null, 'PD102'),
    ('the memory itself takes no items',
     '{"a": [1]}', 'prepend', '', '[1]', null, null, 'PD102'),
    ('a key of a number takes no items',
     '{"a": 5}', 'prepend', 'a.b', '[1]', null, null, 'PD102'),
    ('a text is no array of items',
     '{"a": [1]}', 'prepend', 'a', '"x"', null, null, 'PD103'),

    ('the first element goes, and is told',
     '{"a": [1, 2, 3]}', 'remove', 'a', '0', '{"a": [2, 3]}', '1', null),
    ('an element between others goes',
     '{"a": [1, {"b": 2}, 3]}', 'remove', 'a', '1', '{"a": [1, 3]}', '{"b": 2}', null),
    ('the last element goes, by its place',
     '{"a": [1, 2, 3]}', 'remove', 'a', '2', '{"a": [1, 2]}', '3', null),
    ('the last element goes, as -1',
     '{"a": [1, 2, 3]}', 'remove', 'a', '-1', '{"a": [1, 2]}', '3', null),
    ('the only element goes, and an empty array and its neighbours stay',
     '{"a": ["only"], "b": 1}', 'remove', 'a', '0', '{"a": [], "b": 1}', '"only"', null),
    ('a null is an element',
     '{"a": [null, 1]}', 'remove', 'a', '0', '{"a": [1]}', 'null', null),
    ('an element of an inner array goes',
     '{"a": [{"b": [1, 2]}]}', 'remove', 'a.0.b', '1', '{"a": [{"b": [1]}]}', '2', null),
    ('an element of an array in an array goes',
     '{"a": [[1, 2], [3]]}', 'remove', 'a.-2', '0', '{"a": [[2], [3]]}', '1', null),
    ('an element of a quoted key goes',
     '{"a.b": [1, 2]}', 'remove', '"a.b"', '0', '{"a.b": [2]}', '1', null),
    ('an element beyond the end is refused',
     '{"a": [1]}', 'remove', 'a', '1', null, null, 'PD102'),
    ('an element before the beginning is refused',
     '{"a": [1]}', 'remove', 'a', '-2', null, null, 'PD102'),
    ('an element of an empty array is refused',
     '{"a": []}', 'remove', 'a', '-1', null, null, 'PD102'),
    ('an element of nothing is refused',
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
    ('a fraction is no index',
     '{"a": [1]}', 'remove', 'a', '0.5', null, null, 'PD103'),
    ('a text is no index',
     '{"a": [1]}', 'remove', 'a', '"0"', null, null, 'PD103'),
    ('a number without an end is no index',
     '{"a": [1]}', 'remove', 'a', '99999999999', null, null, 'PD103'),
    ('a null is no index',
     '{"a": [1]}', 'remove', 'a', 'null', null, null, 'PD103');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s: %s (%s)', op, about,
                 case op when 'append' then 'C28' when 'prepend' then 'C29' else 'C30' end))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s in a turn: %s (%s)', op, about,
                 case op when 'append' then 'C28' when 'prepend' then 'C29' else 'C30' end))
  from cases;

-- What came in order stays in order, whoever sent it (C66).

select given(entity_create('steps', 'note', '{}'));
select given(entity_append('steps', 'list', to_jsonb(n))) from generate_series(1, 20) as n;
select is(the_job('steps') #> '{context,list}', (select jsonb_agg(n) from generate_series(1, 20) as n),
          'items stand in the order in which they were appended (C28) (C66)');
select given(entity_remove('steps', 'list', -1)) from generate_series(1, 20);
select is(the_job('steps') -> 'context', '{"list": []}', 'twenty removals of the last leave an empty array (C30)');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
