-- Every command at every kind of path, from outside and in a turn, one case for each. sql/memory.md has the same table
-- for people; it is repeated here, so that neither is derived from the other.

begin;
select plan(491);

-- The argument of a command; the value at V before it and after it; its answer; and the value and the answer if nothing
-- was there. Without `leaves`, the path is gone afterwards.
create temporary table commands (
    number   serial,
    op       text,
    claim    text,
    given    jsonb,
    finds    jsonb,
    leaves   jsonb,
    answers  jsonb,
    makes    jsonb,
    tells    jsonb
) on commit drop;
insert into commands (op, claim, given, finds, leaves, answers, makes, tells) values
    ('set',               'C26', '{"x": 7}', '{"a": 1}', '{"x": 7}',         '"version"', '{"x": 7}', '"version"'),
    ('merge',             'C27', '{"x": 7}', '{"a": 1}', '{"a": 1, "x": 7}', '"version"', '{"x": 7}', '"version"'),
    ('append',            'C28', '[7]',      '[1]',      '[1, 7]',           '2',         '[7]',      '1'),
    ('prepend',           'C29', '[7]',      '[1]',      '[7, 1]',           '2',         '[7]',      '1'),
    ('remove',            'C30', '-1',       '[2]',      '[]',               '2',         null,       null),
    ('increment',         'C31', '7',        '1',        '8',                '8',         '7',        '7'),
    ('toggle',            'C32', null,       'true',     'false',            'false',     'true',     'true'),
    ('set_if_not_exists', 'C33', '{"x": 7}', '{"a": 1}', '{"a": 1}',         '{"a": 1}',  '{"x": 7}', '{"x": 7}'),
    ('delete',            'C34', null,       '{"a": 1}', null,               '{"a": 1}',  null,       null),
    ('get',               'C35', null,       '{"a": 1}', '{"a": 1}',         '{"a": 1}',  null,       null);

-- The outcomes are in the order of the commands. `makes` is the memory after a command that has set V; `without` the
-- memory from which V is gone.
create temporary table places (
    about     text,
    memory    text,
    path      text,
    makes     text,
    without   jsonb,
    outcomes  text[]
) on commit drop;
insert into places (about, memory, path, makes, without, outcomes) values
    ('where nothing is', '{}', 'a', '{"a": V}', null,
     '{new, new, new, new, PD102, new, new, new, nothing, nothing}'),
    ('where no parent is', '{}', 'a.b.c', '{"a": {"b": {"c": V}}}', null,
     '{new, new, new, new, PD102, new, new, new, nothing, nothing}'),
    ('where another type is', '{"a": "x"}', 'a', '{"a": V}', '{}',
     '{new, PD102, PD102, PD102, PD102, PD102, PD102, found, found, found}'),
    ('below another type', '{"a": "x"}', 'a.b', null, null,
     '{PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, nothing}'),
    ('where a JSON null is', '{"a": null}', 'a', '{"a": V}', '{}',
     '{new, PD102, PD102, PD102, PD102, PD102, PD102, found, found, found}'),
    ('below a JSON null', '{"a": null}', 'a.b', null, null,
     '{PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, nothing}'),
    ('where the right type is', '{"a": V}', 'a', '{"a": V}', '{}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('at a nested key', '{"a": {"b": V}, "c": 0}', 'a.b', '{"a": {"b": V}, "c": 0}', '{"a": {}, "c": 0}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('at an element', '{"a": [V, 0]}', 'a.0', '{"a": [V, 0]}', '{"a": [0]}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('at the last element', '{"a": [0, V]}', 'a.-1', '{"a": [0, V]}', '{"a": [0]}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('below an element', '{"a": [0, {"b": V}]}', 'a.-1.b', '{"a": [0, {"b": V}]}', '{"a": [0, {}]}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('at an index with a sign', '{"a": [0, V]}', 'a.+1', '{"a": [0, V]}', '{"a": [0]}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('below an index with a sign', '{"a": [0, {"b": V}]}', 'a.+1.b', '{"a": [0, {"b": V}]}', '{"a": [0, {}]}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('at an index of many digits', '{"a": [V]}', 'a.0000000000', '{"a": [V]}', '{"a": []}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('beyond the last element', '{"a": [0]}', 'a.1', null, null,
     '{PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, nothing}'),
    ('before the first element', '{"a": [0]}', 'a.-2', null, null,
     '{PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, nothing}'),
    ('at a word in an array', '{"a": [0]}', 'a.b', null, null,
     '{PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, PD102, nothing}'),
    ('at the whole memory', '{"a": 1}', '', 'V', '{}',
     '{done, done, PD102, PD102, PD102, PD102, PD102, done, done, done}'),
    ('at a quoted key', '{"a.b": {"c": V}, "a": 0}', '"a.b".c', '{"a.b": {"c": V}, "a": 0}', '{"a.b": {}, "a": 0}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('where no quoted key is', '{}', '"a.b".c', '{"a.b": {"c": V}}', null,
     '{new, new, new, new, PD102, new, new, new, nothing, nothing}'),
    ('at a key like a number', '{"0": {"-1": V}}', '0.-1', '{"0": {"-1": V}}', '{"0": {}}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('where no key like a number is', '{}', '0.-1', '{"0": {"-1": V}}', null,
     '{new, new, new, new, PD102, new, new, new, nothing, nothing}'),
    ('at an empty key', '{"": V}', '""', '{"": V}', '{}',
     '{done, done, done, done, done, done, done, done, done, done}'),
    ('where no empty key is', '{}', '""', '{"": V}', null,
     '{new, new, new, new, PD102, new, new, new, nothing, nothing}');

create temporary table cells on commit drop as
select
    format('%s %s: %s', c.op, p.about, p.outcomes[c.number]) as about,
    c.claim,
    c.op,
    p.path,
    c.given,
    replace(p.memory, 'V', c.finds::text)::jsonb as context,
    case p.outcomes[c.number]
        when 'new' then replace(p.makes, 'V', c.makes::text)::jsonb
        when 'done' then coalesce(replace(p.makes, 'V', c.leaves::text)::jsonb, p.without)
        when 'found' then case when c.op = 'delete' then p.without end
    end as made,
    case p.outcomes[c.number]
        when 'new' then c.tells
        when 'done' then c.answers
        when 'found' then p.memory::jsonb #> parse_path(p.path)
    end as answer,
    case when p.outcomes[c.number] = 'PD102' then 'PD102' end as code
  from places as p
 cross join commands as c;

select is(outcome_by_verb(context, op, path, given), wanted_outcome(context, made, answer, code),
          format('%s (%s)', about, claim))
  from cells;
select is(outcome_by_turn(context, op, path, given), wanted_outcome(context, made, answer, code),
          format('in a turn %s (%s)', about, claim))
  from cells;

-- A path in a turn is a list of keys, which may contain a null.

select have_held_job('hole', '{"a": 1}');
select is(
    tell(a_turn('hole', facts => jsonb_build_array(
        jsonb_build_object('op', op, 'path', '["a", null]'::jsonb, 'value', given),
        '{"op": "increment", "path": ["a"], "value": 1}'::jsonb))) #> '{answers,0,2}' ->> 'code',
    'PD101',
    format('in a turn %s at a path with a null is refused, and its neighbours are applied (%s)', op, claim))
  from commands
 where op <> 'get';
select is(the_job('hole') -> 'context', '{"a": 10}', 'the neighbours of refused commands are applied [P3]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
