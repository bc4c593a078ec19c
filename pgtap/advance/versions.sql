-- The expected version and the path of a command in a turn. A refused command is an answer, and its neighbours are
-- applied. [P3]

begin;
select plan(16);

select the_time_is('2030-01-01 12:00+00');

select have_held_job('cas', '{"n": 1}');
create temporary table told as
select tell(a_turn('cas', facts => '[
    {"key": "c1", "op": "increment", "path": ["n"], "value": 1, "expected_version": 1},
    {"key": "c2", "op": "increment", "path": ["n"], "value": 10, "expected_version": 1},
    {"key": "c3", "op": "increment", "path": ["n"], "value": 100, "expected_version": 2},
    {"key": "c4", "op": "set", "path": ["t"], "value": 1, "expected_version": 9},
    {"key": "c5", "op": "set", "path": ["t"], "value": 2, "expected_version": null},
    {"key": "c6", "op": "log", "path": ["l"], "value": [1], "expected_version": 3},
    {"key": "n1", "kind": "note"}]')) as answer;
select is(
    (select jsonb_agg(jsonb_build_array(a -> 0, a -> 1, coalesce(a #> '{2,code}', a -> 2)))
       from told, jsonb_array_elements(answer -> 'answers') as a),
    '[[1, true, 2], [2, false, "PD105"], [3, true, 102], [4, false, "PD105"], [5, true, 4], [6, false, "PD105"]]',
    'a command that expects another version is answered with PD105 [P3]');
select is((select answer ->> 'state' from told), 'keep', 'a turn with refused commands keeps its task');
select is(jsonb_build_array(the_job('cas') -> 'context', the_job('cas') -> 'version'), '[{"n": 102, "t": 2}, 4]',
          'the neighbours of refused commands are applied');
select is((select a #>> '{2,message}' from told, jsonb_array_elements(answer -> 'answers') as a where a -> 0 = '2'),
          'job ''cas'' is at version 2, not 1', 'the failure names the current version');
select is((select jsonb_agg(jsonb_build_array(f -> 0, f -> 3)) from jsonb_array_elements(journal_of('cas')) as f),
          '[[1, true], [2, false], [3, true], [4, false], [5, true], [6, false], [7, true]]',
          'a refused command is a fact like any other (C35) [P4]');
select is(entity_get('cas', 'l'), null, 'a refused log adds nothing');
select is(
    tell(a_turn('cas', seen => 0, facts => '[
    {"key": "c1", "op": "increment", "path": ["n"], "value": 1, "expected_version": 1},
    {"key": "c2", "op": "increment", "path": ["n"], "value": 10, "expected_version": 1}]')) #> '{answers,1,2,code}',
    '"PD105"',
    'a repeated turn gets the same failure [P12]');

select is(
    (select jsonb_agg(a #> '{2,code}')
       from jsonb_array_elements(tell(a_turn('cas', facts => '[
            {"op": "set", "path": ["t"], "value": 1, "expected_version": 1000000000000000000000},
            {"op": "set", "path": ["t"], "value": 1, "expected_version": -1},
            {"op": "set", "path": ["t"], "value": 1, "expected_version": 4.5},
            {"op": "set", "path": ["t"], "value": 1, "expected_version": "four"}]')) -> 'answers') as a),
    '["PD105", "PD105", "PD105", "PD105"]',
    'an expected version that is impossible refuses only its own command');

-- Two tasks of one batch expect the same version: only the first is applied.

select given(hook('cas', 'h', key => 'h', queue => 'hooks'));
select given(take('bob', '{hooks}'));
select is(
    (select jsonb_agg(turn #> '{answers,0,1}')
       from jsonb_array_elements(tell(
            a_turn('cas', facts => '[{"op": "set", "path": ["by"], "value": "main", "expected_version": 4}]'),
            a_turn('cas', '$hook/h', worker => 'bob',
                   facts => '[{"op": "set", "path": ["by"], "value": "hook", "expected_version": 4}]'))) as turn),
    '[true, false]',
    'of two commands that expect one version, only the first is applied [P3]');

-- Paths with a null, and paths that are too long.

select have_held_job('paths', '{"a": {"b": 1}}');
select is(
    (select jsonb_agg(jsonb_build_array(a -> 1, a #> '{2,code}'))
       from jsonb_array_elements(tell(a_turn('paths', facts => jsonb_build_array(
            '{"op": "set", "path": ["a", null], "value": 1}'::jsonb,
            '{"op": "delete", "path": [null]}'::jsonb,
            '{"op": "log", "path": [null], "value": [1]}'::jsonb,
            jsonb_build_object('op', 'set', 'path', array_fill('k'::text, '{51}'), 'value', 1),
            jsonb_build_object('op', 'log', 'path', array[repeat('k', 1001)], 'value', '[1]'::jsonb),
            '{"op": "increment", "path": ["a", "b"], "value": 1}'::jsonb))) -> 'answers') as a),
    '[[false, "PD101"], [false, "PD101"], [false, "PD101"], [false, "PD101"], [false, "PD101"], [true, null]]',
    'a wrong path is answered with PD101, and its neighbours are applied');
select is(the_job('paths') -> 'context', '{"a": {"b": 2}}', 'commands with wrong paths change nothing');
select is(
    tell(a_turn('paths', facts => '[{"op": "get", "path": ["a", null]}]')) #> '{answers,0,2}',
    'null',
    'a read at a path with a null returns null');

-- Each document is written once, whatever the number of commands.

select have_held_job('one', '{"n": 0}');
select have_held_job('two', '{"n": 0}', worker => 'bob');
create temporary table counted as select writes_of_jobs() as before;
select given(
    tell(a_turn('one', facts => (select jsonb_agg('{"op": "increment", "path": ["n"], "value": 1}'::jsonb)
                                   from generate_series(1, 50))),
         a_turn('two', worker => 'bob', facts => '[{"op": "set", "path": ["a"], "value": 1},
                                                   {"op": "merge", "path": [], "value": {"b": 2}}]')));
select is(writes_of_jobs() - before, 2::bigint, 'a document is written once for all commands of its turns [P3]')
  from counted;
select is(jsonb_build_array(the_job('one') -> 'version', the_job('two') -> 'version'), '[51, 3]',
          'each command has its own version');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
