-- increment (C31) and toggle (C32): the commands of numbers and booleans.

begin;
select plan(77);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('a number is increased',
     '{"n": 1}', 'increment', 'n', '2', '{"n": 3}', '3', null),
    ('a number is decreased',
     '{"n": 1}', 'increment', 'n', '-5', '{"n": -4}', '-4', null),
    ('a missing number starts at zero',
     '{}', 'increment', 'n', '1', '{"n": 1}', '1', null),
    ('missing parents are made',
     '{}', 'increment', 'a.b.n', '7', '{"a": {"b": {"n": 7}}}', '7', null),
    ('zero may be added',
     '{"n": 5}', 'increment', 'n', '0', '{"n": 5}', '5', null),
    ('decimal fractions add up exactly',
     '{"n": 0.1}', 'increment', 'n', '0.2', '{"n": 0.3}', '0.3', null),
    ('numbers beyond 2^53 add up exactly',
     '{"n": 9007199254740993}', 'increment', 'n', '1', '{"n": 9007199254740994}', '9007199254740994', null),
    ('numbers beyond 2^63 add up exactly',
     '{"n": 9223372036854775807}', 'increment', 'n', '1', '{"n": 9223372036854775808}', '9223372036854775808', null),
    ('an element of an array is increased',
     '{"a": [1, 2]}', 'increment', 'a.-1', '1', '{"a": [1, 3]}', '3', null),
    ('a number inside an element is increased',
     '{"a": [{"n": 1}]}', 'increment', 'a.0.n', '1', '{"a": [{"n": 2}]}', '2', null),
    ('a number under a quoted key is increased',
     '{"a.b": 1}', 'increment', '"a.b"', '1', '{"a.b": 2}', '2', null),
    ('the largest number may be reached',
     '{"n": 0}', 'increment', 'n', '1e308',
     ('{"n": 1' || repeat('0', 308) || '}')::jsonb, ('1' || repeat('0', 308))::jsonb, null),
    ('a sum that is too large is refused',
     '{"n": 1e308}', 'increment', 'n', '1', null, null, 'PD304'),
    ('a sum that is too small is refused',
     '{"n": -1e308}', 'increment', 'n', '-1e308', null, null, 'PD304'),
    ('a text of digits is not a number',
     '{"n": "5"}', 'increment', 'n', '1', null, null, 'PD102'),
    ('a null is not a number',
     '{"n": null}', 'increment', 'n', '1', null, null, 'PD102'),
    ('a boolean is not a number',
     '{"n": true}', 'increment', 'n', '1', null, null, 'PD102'),
    ('an array is not a number',
     '{"n": [1]}', 'increment', 'n', '1', null, null, 'PD102'),
    ('the memory itself is not a number',
     '{"n": 1}', 'increment', '', '1', null, null, 'PD102'),
    ('an element that does not exist is refused',
     '{"a": [1]}', 'increment', 'a.1', '1', null, null, 'PD102'),
    ('a key of a number is refused',
     '{"n": 1}', 'increment', 'n.m', '1', null, null, 'PD102'),
    ('a text cannot be added',
     '{"n": 1}', 'increment', 'n', '"1"', null, null, 'PD103'),
    ('a null cannot be added',
     '{"n": 1}', 'increment', 'n', 'null', null, null, 'PD103'),

    ('false becomes true',
     '{"on": false}', 'toggle', 'on', null, '{"on": true}', 'true', null),
    ('true becomes false',
     '{"on": true}', 'toggle', 'on', null, '{"on": false}', 'false', null),
    ('a missing value becomes true, with its parents',
     '{}', 'toggle', 'a.b.on', null, '{"a": {"b": {"on": true}}}', 'true', null),
    ('a nested boolean changes, and its neighbours stay',
     '{"a": {"on": true, "x": 1}}', 'toggle', 'a.on', null, '{"a": {"on": false, "x": 1}}', 'false', null),
    ('an element of an array changes',
     '{"a": [false, 1]}', 'toggle', 'a.0', null, '{"a": [true, 1]}', 'true', null),
    ('a text is not a boolean',
     '{"on": "true"}', 'toggle', 'on', null, null, null, 'PD102'),
    ('a number is not a boolean',
     '{"on": 1}', 'toggle', 'on', null, null, null, 'PD102'),
    ('a null is not a boolean',
     '{"on": null}', 'toggle', 'on', null, null, null, 'PD102'),
    ('the memory itself is not a boolean',
     '{"on": true}', 'toggle', '', null, null, null, 'PD102'),
    ('an element that does not exist is refused',
     '{"a": [true]}', 'toggle', 'a.-2', null, null, null, 'PD102'),
    ('a key of a boolean is refused',
     '{"on": true}', 'toggle', 'on.x', null, null, null, 'PD102');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s: %s (%s)', op, about, case op when 'increment' then 'C31' else 'C32' end))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s in a turn: %s (%s)', op, about, case op when 'increment' then 'C31' else 'C32' end))
  from cases;

select given(entity_create('e', 'note', '{"n": 1}'));
select is(entity_increment('e', 'n'), '2', 'increment adds one by default (C31)');
select throws_ok(
    format($$ select entity_increment('e', 'n', %L) $$, number), 'PD103', 'increment needs a finite number',
    format('%s cannot be added (C31)', number))
  from unnest(array['NaN', 'Infinity', '-Infinity']) as number;
select throws_ok(
    $$ select entity_increment('e', 'n', '1e400') $$, 'PD304', null,
    'a number that no client can read cannot be added (C31)');
select is(the_job('e') -> 'context', '{"n": 2}', 'refused numbers do not change the memory');
select is(entity_toggle('e', 'on'), 'true', 'the first toggle returns true (C32)');
select is(entity_toggle('e', 'on'), 'false', 'the second toggle returns false (C32)');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
