-- Writes: every way to write a memory respects the contract of its entity (C23). A write that would break it is refused
-- and leaves no trace.

begin;
select plan(68);

select the_time_is('2030-01-01 12:00+00');
select define_contract('note', '{
    "type": "object",
    "properties": {
        "n": {"type": "integer", "maximum": 10},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "on": {"type": "boolean"},
        "sub": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
    },
    "required": ["n"],
    "additionalProperties": false
}');

create function world(id text) returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(the_job(world.id), (select jsonb_agg(to_jsonb(f) order by f.task, f.seq)
                                                   from journal as f where f.job_id = world.id));
end
$$;

-- The verbs.

select given(entity_create('e', 'note', '{"n": 1, "tags": ["a"], "on": true, "sub": {"a": 1}}'));
create temporary table verbs (verb text, path text, rule text) on commit drop;
insert into verbs values
    ($$ entity_set('e', '{"tags": []}') $$, 'n', 'required'),
    ($$ entity_set('e', '11', 'n') $$, 'n', 'maximum'),
    ($$ entity_set('e', '1', 'other') $$, 'other', 'additionalProperties'),
    ($$ entity_merge('e', '{"sub": {"a": "x"}}') $$, 'sub.a', 'type'),
    ($$ entity_merge('e', '{"n": null}') $$, 'n', 'type'),
    ($$ entity_append('e', 'tags', '[1]') $$, 'tags.1', 'type'),
    ($$ entity_append('e', 'tags', '["b", "c"]') $$, 'tags', 'maxItems'),
    ($$ entity_prepend('e', 'tags', '[["x"]]') $$, 'tags.0', 'type'),
    ($$ entity_increment('e', 'n', 10) $$, 'n', 'maximum'),
    ($$ entity_increment('e', 'n', 0.5) $$, 'n', 'type'),
    ($$ entity_toggle('e', 'off') $$, 'off', 'additionalProperties'),
    ($$ entity_set_if_not_exists('e', 'off', '1') $$, 'off', 'additionalProperties'),
    ($$ entity_delete('e', 'n') $$, 'n', 'required'),
    ($$ entity_delete('e', 'sub.a') $$, 'sub.a', 'required'),
    ($$ entity_delete('e') $$, 'n', 'required'),
    ($$ entity_apply('e', '[{"op": "set", "path": "on", "value": false},
                            {"op": "increment", "path": "n", "value": 10}]') $$, 'n', 'maximum');

create function refusal_of(statement text) returns jsonb
language plpgsql
as $$
declare
    code text;
    place text;
    rule text;
begin
    execute refusal_of.statement;
    return null;
exception when others then
    get stacked diagnostics code = returned_sqlstate, place = column_name, rule = constraint_name;
    return jsonb_build_array(code, place, rule);
end
$$;

create temporary table before as select world('e') as world;
select is(refusal_of('select' || verb), jsonb_build_array('PD109', path, rule), format('%s is refused: %s, %s',
          trim(verb), path, rule))
  from verbs;
select is(world('e'), world, 'refused commands change neither document, version nor journal [P3]') from before;
select throws_ok(
    $$ select entity_set('e', '11', 'n') $$, 'PD109', 'n is a number, but the contract of note wants at most 10',
    'the error names the path, the value, the entity, and what its contract wants');
select is(error_of($$ select entity_set('e', '11', 'n', key => 'k') $$), 'PD109',
          'a command with a key respects the contract');
select is(entity_set('e', '10', 'n', key => 'k'), '2', 'a refused command does not use up its key [P2]');
select is(error_of('select' || verb), null, format('%s respects the contract', trim(verb)))
  from (values
        ($$ entity_increment('e', 'n', -2) $$), ($$ entity_append('e', 'tags', '["b"]') $$), ($$ entity_toggle('e',
         'on') $$),
        ($$ entity_merge('e', '{"sub": {"a": 2, "free": {"form": [1]}}}') $$), ($$ entity_remove('e', 'tags', 0) $$),
        ($$ entity_delete('e', 'on') $$),
        ($$ entity_apply('e', '[{"op": "increment", "path": "n", "value": 90},
                                {"op": "increment", "path": "n", "value": -90}]') $$)
       ) as cases (verb);
select is(error_of($$ select entity_set('e', '"x"', 'n.m') $$), 'PD102',
          'a command that cannot be applied is refused for that reason');

-- First documents.

select is(refusal_of(statement), jsonb_build_array('PD109', 'n', rule), format('%s is refused', trim(statement)))
  from (values
        ($$ select entity_create('x', 'note', '{"tags": []}') $$, 'required'),
        ($$ select start('research', id => 'x', entity => 'note', context => '{"n": 11}') $$, 'maximum'),
        ($$ select start_many('[{"workflow": "w", "id": "y", "entity": "note", "context": {"n": 1}},
                                {"workflow": "w", "id": "x", "entity": "note", "context": {"n": 11}}]') $$, 'maximum'),
        ($$ insert into perdure.jobs (id, entity, context) values ('y', 'note', '{"n": 1}'), ('x', 'note',
         '{"n": "x"}') $$, 'type')
       ) as cases (statement, rule);
select is_empty($$ select from jobs where id in ('x', 'y') $$, 'a refused start leaves no job');
select is_empty($$ select from tasks where job_id in ('x', 'y') $$, 'a refused start leaves no task');
select is(entity_create('empty', 'note'), true,
          'a memory may begin empty: the contract applies from the first command');
select is(error_of($$ select entity_set('empty', '"x"', 'n') $$), 'PD109', 'the first command respects the contract');
select is(entity_set('empty', '{"n": 1}'), '1', 'the first command may make what the contract requires');
select is(error_of($$ select entity_delete('empty') $$), 'PD109',
          'a memory whose contract requires a key cannot be emptied');
select is(entity_create('e', 'note', '{"n": "x"}'), false,
          'entity_create() of an id that exists does not check the contract [P12]');
select is((start('research', id => 's', entity => 'note', context => '{"n": 1}', key => 'k')).is_new, true,
          'a workflow may start with a memory that respects the contract');
select define_contract('note', contract_of('note') || '{"required": ["n", "on"]}');
select is((start('research', id => 's', entity => 'note', context => '{"n": 1}', key => 'k')).is_new, false,
          'a repeated start gets its answer, although the contract has changed [P12]');
select define_contract('note', contract_of('note') || '{"required": ["n"]}');

-- Plain statements.

create temporary table held as select world('e') as world;
select is(refusal_of($$ update perdure.jobs set context = '{"n": 11}' where id = 'e' $$), '["PD109", "n", "maximum"]',
          'a plain UPDATE is refused (C25)');
select throws_ok(
    $$ update perdure.jobs set context = context || '{"other": 1}' where id = 'e' $$, 'PD109',
    'other is a number, but the contract of note wants nothing there',
    'the error of a plain UPDATE says what the contract wants');
select is(refusal_of($$ merge into perdure.jobs as j using (values ('e', '{"n": "x"}'::jsonb)) as new (id,
          context) on j.id = new.id
                        when matched then update set context = new.context $$), '["PD109", "n", "type"]',
                        'a MERGE is refused');
select is(world('e'), world, 'refused statements change neither document, version nor journal [P3]') from held;
update perdure.jobs set context = '{"n": 3}' where id = 'e';
select is(the_job('e') -> 'context', '{"n": 3}', 'a plain UPDATE that respects the contract is a command');
select is(error_of($$ update perdure.jobs set entity = 'memo', context = '{"n": 99}' where id = 'e' $$), null,
          'a statement that changes the entity respects the contract of the new one');

-- Turns: a refused command is a fact, and its neighbours are applied.

select given(start('research', id => 'j', entity => 'note', context => '{"n": 1}', queue => 'j'));
select given(take('ada', '{j}'));
select is(
    (select jsonb_agg(jsonb_build_array(answer -> 0, answer -> 1, coalesce(answer #> '{2,rule}', answer -> 2)))
       from jsonb_array_elements(tell(a_turn('j', facts => '[
           {"key": "a", "op": "increment", "path": ["n"], "value": 1},
           {"key": "b", "op": "increment", "path": ["n"], "value": 100},
           {"key": "c", "op": "set", "path": ["other"], "value": 1},
           {"key": "d", "op": "increment", "path": ["n"], "value": 1}]')) -> 'answers') as answer),
    '[[1, true, 2], [2, false, "maximum"], [3, false, "additionalProperties"], [4, true, 3]]',
    'a command of a turn that breaks the contract is answered with its failure, and its neighbours are applied [P3]');
select is(jsonb_build_array(the_job('j') -> 'context', the_job('j') -> 'version'), '[{"n": 3}, 3]',
          'refused commands of a turn make no version');
select is(
    (select f.value - 'hint' from journal as f where f.job_id = 'j' and f.key = 'b'),
    '{"code": "PD109", "type": "ContractBroken", "path": "n", "rule": "maximum",
      "message": "n is a number, but the contract of note wants at most 10",
      "detail": "The rule is maximum. The memory was not changed."}',
    'the journal has the failure of a refused command, with path and rule [P9]');

-- Children: a child that would break its contract fails, and its asker gets the failure.

select is(
    tell(a_turn('j', state => 'keep', requests => '[
        {"key": "good", "kind": "job", "name": "w", "id": "good", "entity": "note", "context": {"n": 1}},
        {"key": "bad", "kind": "job", "name": "w", "id": "bad", "entity": "note", "context": {"n": 11}},
        {"key": "alone", "kind": "job", "name": "w", "id": "alone", "entity": "note", "context": {}, "detached": true},
        {"key": "lost", "kind": "job", "name": "w", "id": "lost", "entity": "note", "context": {"n": "x"},
        "detached": true}]'))
        ->> 'state', 'keep', 'a turn with a child that breaks its contract is applied');
select is(
    (select jsonb_agg(jsonb_build_array(j.id, j.status, j.error -> 'rule', j.context,
     cardinality(tasks_of(j.id))) order by j.id)
       from jobs as j
      where j.parent = 'j'),
    '[["alone", "running", null, {}, 1], ["bad", "failed", "maximum", {}, 0], ["good", "running", null, {"n": 1}, 1],
      ["lost", "failed", "type", {}, 0]]', 'a child that breaks its contract fails before it begins [P10]');
select is((select jsonb_agg(jsonb_build_array(m -> 0, m -> 1, m -> 2,
          m #> '{3,code}')) from jsonb_array_elements(mail_of('j')) as m),
          '[["1/main", "bad", false, "PD109"]]', 'the asker gets the failure of a child that broke its contract [P10]');
select given(tell(a_turn('j', requests => '[
    {"key": "bad", "kind": "job", "name": "w", "id": "bad", "entity": "note", "context": {"n": 11}},
    {"key": "twin", "kind": "job", "name": "w", "id": "bad", "entity": "note", "context": {"n": 11}}]')));
select is((select jsonb_agg(jsonb_build_array(m -> 1, m #> '{3,code}')) from jsonb_array_elements(mail_of('j')) as m),
          '[["bad", "PD109"], ["twin", "PD402"]]',
          'the failure of a child is answered once, and its id is taken [P12]');

-- Documents that are older than their contract: only their next version is checked.

select given(entity_create('old', 'draft', '{"n": "x", "m": 1}'));
select define_contract('draft', '{"properties": {"n": {"type": "number"}, "m": {"type": "number"}}}');
select is(error_of($$ select entity_set('old', '2', 'm') $$), 'PD109',
          'a document that breaks its contract takes no command that does not repair it');
select is(error_of($$ select entity_apply('old', '[{"op": "log", "path": "l", "value": 1}]') $$), null,
          'items of a log are not part of the document, and may be added');
select is(entity_set('old', '1', 'n'), '3', 'a command may repair a document that breaks its contract');
select is(entity_set('old', '2', 'm'), '4', 'a repaired document takes commands');
select is(error_of($$ select entity_restore('old', 1) $$), 'PD109',
          'a version that breaks the contract cannot be restored');
select is(entity_at('old', 1), '{"n": "x", "m": 1}', 'a version that breaks the contract can be read');
select is(drop_contract('draft'), true, 'a contract can be dropped while documents exist');
select is(entity_set('old', '"y"', 'n'), '5', 'an entity without a contract takes any command');

-- A recursive schema with five alternatives at each level, and a document of the largest depth.

create function nested(levels integer, inside jsonb default '{}') returns jsonb
language sql
as $$
select (repeat('{"c": ', levels) || inside || repeat('}', levels))::jsonb
$$;
select given(entity_create('deep', 'tree', nested(99)));
select given(entity_set('deep', nested(95), repeat('c.', 49) || 'c'));
select given(start('w', id => 'k', queue => 'k', entity => 'tree'));
select define_contract('tree', '{
    "properties": {"c": {"$ref": "#/$defs/node"}},
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"allOf": [{"anyOf": [{"type": "null"}, {"allOf": [{"anyOf": [{"type": "null"},
        {"properties": {"c": {"$ref": "#/$defs/node"}}}]}]}]}]}]}}}');
select is((select jsonb_agg(to_jsonb(b) - 'message') from broken_contracts('tree') as b),
          '[{"id": "deep", "path": "the memory", "rule": "depth"}]',
          'broken_contracts() lists a document that is too deep to be checked');
select is(entity_set('deep', nested(5)), '3', 'a recursive contract is checked to the depth of the document');
select given(take(queues => '{k}'));
select is(
    (select jsonb_agg(jsonb_build_array(answer -> 0, answer -> 1, answer #> '{2,rule}', answer #> '{2,message}'))
       from jsonb_array_elements(tell(a_turn('k', facts => jsonb_build_array(
           jsonb_build_object('key', 'a', 'op', 'set', 'path', array_fill('c'::text, array[50]), 'value', nested(95)),
           jsonb_build_object('key', 'b', 'op', 'set', 'path', array['n'], 'value', 1)))) -> 'answers') as answer),
    jsonb_build_array(
        jsonb_build_array(1, false, 'depth', 'the memory is nested too deeply to be looked through, '
                                             'but the contract of tree wants fewer levels'),
        jsonb_build_array(2, true, null, null)),
    'a document too deep for the stack of the server is refused, and its neighbours are applied [P3]');
select is(error_of($$ select entity_restore('deep', 2) $$), 'PD109',
          'entity_restore() refuses a document that is too deep');
select is(entity_at('deep', 2) #> array_fill('c'::text, array[50]), nested(95),
          'a document that is too deep can be read');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
