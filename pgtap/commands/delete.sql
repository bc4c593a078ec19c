-- delete (C34) and get (C35).

begin;
select plan(62);

select have_cases();

insert into cases (about, context, op, path, argument, made, answer, code) values
    ('a key is deleted, and its value is returned',
     '{"a": {"x": 1}, "b": 2}', 'delete', 'a', null, '{"b": 2}', '{"x": 1}', null),
    ('a nested key is deleted, and its parents stay',
     '{"a": {"b": {"c": 1}}}', 'delete', 'a.b.c', null, '{"a": {"b": {}}}', '1', null),
    ('the whole memory is emptied, and its value is returned',
     '{"a": 1, "b": 2}', 'delete', '', null, '{}', '{"a": 1, "b": 2}', null),
    ('a null is deleted',
     '{"a": null}', 'delete', 'a', null, '{}', 'null', null),
    ('a missing key is no change',
     '{"a": 1}', 'delete', 'b', null, '{"a": 1}', 'null', null),
    ('a key below a missing one is no change',
     '{"a": 1}', 'delete', 'b.c.d', null, '{"a": 1}', 'null', null),
    ('an element of an array is deleted',
     '{"a": [1, 2, 3]}', 'delete', 'a.1', null, '{"a": [1, 3]}', '2', null),
    ('the last element of an array is deleted',
     '{"a": [1, 2, 3]}', 'delete', 'a.-1', null, '{"a": [1, 2]}', '3', null),
    ('a key inside an element is deleted',
     '{"a": [{"b": 1, "c": 2}]}', 'delete', 'a.0.b', null, '{"a": [{"c": 2}]}', '1', null),
    ('a key with dots is one key',
     '{"a": {"b": 1}, "a.b": 2}', 'delete', '"a.b"', null, '{"a": {"b": 1}}', '2', null),
    ('an element beyond the end is refused',
     '{"a": [1]}', 'delete', 'a.1', null, null, null, 'PD102'),
    ('a key of an array is refused',
     '{"a": [1]}', 'delete', 'a.b', null, null, null, 'PD102'),
    ('a key of a text is refused',
     '{"a": "text"}', 'delete', 'a.b', null, null, null, 'PD102'),

    ('an unknown command is refused',
     '{"a": 1}', 'drop', 'a', '1', null, null, 'PD103');

select is(outcome_by_verb(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s: %s (C34)', op, about))
  from cases;

select is(outcome_by_turn(context, op, path, argument), wanted_outcome(context, made, answer, code),
          format('%s in a turn: %s (C34)', op, about))
  from cases;

-- get: from outside, and as a fact that replay reads again.

create temporary table looks (path text, found jsonb) on commit drop;
insert into looks (path, found) values
    ('',              '{"user": {"name": "Jane", "tags": ["a", {"b": null}]}, "on": true, "n": 1.50, "a.b": []}'),
    ('user',          '{"name": "Jane", "tags": ["a", {"b": null}]}'),
    ('user.name',     '"Jane"'),
    ('user.tags.0',   '"a"'),
    ('user.tags.-1',  '{"b": null}'),
    ('user.tags.1.b', 'null'),
    ('"a.b"',         '[]'),
    ('on',            'true'),
    ('n',             '1.50'),
    ('nothing',       null),
    ('nothing.below', null),
    ('user.name.x',   null),
    ('user.tags.7',   null),
    ('user.tags.x',   null);

select given(entity_create('e', 'note', (select found from looks where path = '')));
select is(
    entity_get('e', path),
    found,
    format('get from outside: %s is %s (C35)', write_path(parse_path(path)), coalesce(found::text, 'nothing')))
  from looks;

select have_held_job('j', (select found from looks where path = ''));
select given(tell(a_turn('j', facts => (
    select jsonb_agg(jsonb_build_object('op', 'get', 'key', path, 'path', parse_path(path)))
      from looks))));
select is(
    (select f.value from journal as f where f.job_id = 'j' and f.kind = 'read' and f.key = l.path),
    coalesce(l.found, 'null'),
    format('get in a turn: %s is %s, and so in the journal (C35)', write_path(parse_path(l.path)),
           coalesce(l.found::text, 'nothing')))
  from looks as l;

select is(the_job('j') ->> 'version', '1', 'reading makes no version (C35)');
select is(entity_get('e'), entity_get('e', ''), 'without a path get returns everything (C35)');
select throws_ok(
    $$ select entity_get('nobody') $$, 'PD401', null,
    'the memory of a job that does not exist cannot be read');
select throws_ok(
    $$ select entity_get('e', 'a..b') $$, 'PD101', null,
    'a path that does not parse cannot be read');
select throws_ok(
    $$ select run_command('e', 'set', null, '1', null, null) $$, 'PD103', null,
    'a command with a path of null is refused');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
