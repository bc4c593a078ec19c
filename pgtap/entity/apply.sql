-- Several commands in one call: all or none, a version for each, and one write of the row. [P2] [P3]

begin;
select plan(50);

select the_time_is('2030-01-01 12:00+00');

-- Results and answers.

select given(entity_create('e', 'note', '{"n": 1}'));
select is(entity_apply('e', '[
    {"op": "increment", "path": "n", "value": 4},
    {"op": "merge", "value": {"a": {"b": 1}}},
    {"op": "merge", "path": "a", "value": {"c": [1]}},
    {"op": "append", "path": "a.c", "value": 2},
    {"op": "append", "path": "a.c", "value": [3, 4]},
    {"op": "prepend", "path": ["a", "c"], "value": 0}]'),
    '[5, 3, 4, 2, 4, 5]',
    'each command gets the answer that it would get alone');
select is(entity_apply('e', '[
    {"op": "remove", "path": "a.c", "value": -1},
    {"op": "toggle", "path": "on"},
    {"op": "set_if_not_exists", "path": "n", "value": 7},
    {"op": "set", "path": ["a.b", "c"], "value": null},
    {"op": "log", "path": "events", "value": {"x": 1}},
    {"op": "delete", "path": "a"}]'),
    '[4, true, 5, 11, 12, {"b": 1, "c": [0, 1, 2, 3]}]',
    'every command may be in the list');
select is(the_job('e') -> 'context', '{"n": 5, "on": true, "a.b": {"c": null}}',
          'each command sees the results of those before it');
select is(the_job('e') ->> 'version', '13', 'each command makes a version');
select is(
    (select jsonb_agg(jsonb_build_array(h.version, h.op, h.path, h.answer) order by h.version)
       from entity_history('e', after => 10) as h),
    '[[11, "set", "\"a.b\".c", 11], [12, "log", "events", 12], [13, "delete", "a", {"b": 1, "c": [0, 1, 2, 3]}]]',
    'each command is in the history with its answer (C21)');
select is(entity_at('e', 8), '{"n": 5, "a": {"b": 1, "c": [0, 1, 2, 3]}}',
          'the versions between the commands can be read');
select is(entity_get('e', 'events'), '[{"x": 1}]', 'a log may be written between other commands');

-- One write of the row, as PostgreSQL counts it.

create temporary table counted as select writes_of_jobs() as before;
select given(entity_apply('e', jsonb_agg('{"op": "increment", "path": "n"}'::jsonb || jsonb_build_object('value', n))))
  from generate_series(1, 250) as n;
select is(writes_of_jobs() - before, 1::bigint, 'the row is written once for all commands')
  from counted;
select is(the_job('e') ->> 'version', '263', 'each of 250 commands makes a version');
select is(
    (select jsonb_agg(jsonb_build_array(s.version, s.context -> 'n') order by s.version)
       from perdure.snapshots as s
      where s.job_id = 'e'),
    jsonb_build_array(jsonb_build_array(100, 5 + 87 * 88 / 2), jsonb_build_array(200, 5 + 187 * 188 / 2)),
    'a hundredth version in the middle of the list has its snapshot');

-- All or none.

select given(entity_create('all', 'note', '{"n": 1, "t": "text"}'));
create function refusal_of(commands jsonb) returns text[]
language plpgsql
as $$
declare
    code text;
    message text;
    detail text;
begin
    perform entity_apply('all', refusal_of.commands);
    return null;
exception when others then
    get stacked diagnostics code = returned_sqlstate, message = message_text, detail = pg_exception_detail;
    return array[code, message, detail];
end
$$;
select is(
    refusal_of('[
        {"op": "increment", "path": "n", "value": 1},
        {"op": "increment", "path": "t", "value": 1},
        {"op": "toggle", "path": "b"}]'),
    array['PD102', 't is a string, not a number',
          'It is command 2 of 3; none of them was carried out. The memory was not changed.'],
    'the error names the command that was refused');
select is(jsonb_build_array(the_job('all') -> 'context', the_job('all') -> 'version'), '[{"n": 1, "t": "text"}, 1]',
          'a list with one bad command changes nothing [P3]');
select is((refusal_of(commands))[1], code, format('%s is refused with %s', about, code))
  from (values
        ('no command', '[]'::jsonb, 'PD107'),
        ('a list of 1001', (select jsonb_agg('{"op": "toggle", "path": "b"}'::jsonb) from generate_series(1, 1001)),
         'PD107'),
        ('an object', '{"op": "toggle", "path": "b"}', 'PD107'),
        ('null', 'null', 'PD107'),
        ('nothing', null, 'PD107'),
        ('a list in a list', '[[]]', 'PD107'),
        ('a text in a list', '[{"op": "toggle", "path": "b"}, "toggle"]', 'PD107'),
        ('a misspelt path', '[{"op": "merge", "pth": "t", "value": {}}]', 'PD107'),
        ('a command without a name', '[{"path": "b", "value": 1}]', 'PD103'),
        ('a command that does not exist', '[{"op": "get", "path": "n"}]', 'PD103'),
        ('a set without a value', '[{"op": "set", "path": "n"}]', 'PD103'),
        ('an append without a value', '[{"op": "append", "path": "l"}]', 'PD103'),
        ('a log without a value', '[{"op": "log", "path": "l"}]', 'PD103'),
        ('a log without a path', '[{"op": "log", "value": 1}]', 'PD103'),
        ('a path that does not parse', '[{"op": "toggle", "path": "b..c"}]', 'PD101'),
        ('a path with a null', '[{"op": "toggle", "path": ["b", null]}]', 'PD101'),
        ('a path of 51 keys', jsonb_build_array(jsonb_build_object(
            'op', 'toggle', 'path', array_fill('k'::text, '{51}'))), 'PD101'),
        ('a value that is too deep', jsonb_build_array(jsonb_build_object(
            'op', 'set', 'path', 'd', 'value', (repeat('[', 102) || repeat(']', 102))::jsonb)), 'PD302'),
        ('a value that is too large', jsonb_build_array(jsonb_build_object(
            'op', 'set', 'path', 'd', 'value', repeat('x', 1048576))), 'PD301')
       ) as cases (about, commands, code);
select is(the_job('all') ->> 'version', '1', 'refused lists make no version');
select is(
    jsonb_array_length(entity_apply('all', (select jsonb_agg('{"op": "toggle", "path": "b"}'::jsonb)
                                                    from generate_series(1, 1000)))),
    1000,
    'a list may have a thousand commands');
select throws_ok($$ select entity_apply('nobody', '[{"op": "toggle", "path": "b"}]') $$, 'PD401', null,
                 'commands on a job that does not exist are refused');

-- expected_version: the version before the first command.

select given(entity_create('cas', 'note'));
select is(
    entity_apply('cas', '[{"op": "increment", "path": "n", "value": 1}, {"op": "toggle", "path": "b"}]',
                 expected_version => 0),
    '[1, true]',
    'the expected version is the one before the first command');
select throws_ok(
    $$ select entity_apply('cas', '[{"op": "toggle", "path": "b"}]', expected_version => 1) $$,
    'PD105',
    null,
    'a list that expects an old version is refused [P3]');

-- key: a list with a key is applied once [P2].

select given(entity_create('keys', 'note'));
create function twice(times integer, key text default 'k') returns jsonb
language plpgsql
as $$
begin
    return entity_apply('keys', (select jsonb_agg(jsonb_build_object('op', 'increment', 'path', 'n', 'value', 1))
                                   from generate_series(1, twice.times)), key => twice.key);
end
$$;
select is(twice(2), '[1, 2]', 'the first call with a key is applied [P2]');
select is(entity_increment('keys', 'n', 1), '3', 'another client applies the same command afterwards');
select is(twice(2), '[1, 2]', 'a repeated call gets the first answers [P2] [P12]');
select is(error_of('select twice(1)'), 'PD106', 'a key with a shorter list is refused [P2]');
select is(error_of('select twice(3)'), 'PD106',
          'a key with a longer list is refused, even if later commands match it [P2]');
select is(
    error_of($$ select entity_increment('keys', 'n', 1, key => 'k') $$),
    'PD106',
    'the key of a list is refused for a single command [P2]');
select is(
    error_of($$ select entity_apply('keys', '[
        {"op": "increment", "path": "n", "value": 1},
        {"op": "toggle", "path": "b"}]', key => 'k') $$),
    'PD106',
    'a key with another second command is refused [P2]');
select is(entity_increment('keys', 'n', 1, key => 'alone'), '4', 'a single command may have a key');
select is(error_of($$ select twice(1, 'alone') $$), 'PD106', 'the key of a single command is refused for a list [P2]');
select is(
    entity_apply('keys', '[{"op": "increment", "path": "n", "value": 1}, {"op": "increment", "path": "n", "value": 1}]',
                       expected_version => 0, key => 'k'),
    '[1, 2]',
    'a repeated call may name the version of its first call');
select is(the_job('keys') ->> 'version', '4', 'repeated and refused calls make no version');

select matches(
    argument_failure('get', '{n}', null) ->> 'hint', 'set_if_not_exists.*entity_get',
    'the error for an unknown command lists the commands, and how to read');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
