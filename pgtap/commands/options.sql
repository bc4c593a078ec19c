-- expected_version and key of every command: compare and set [P3], and at most once [P2].

begin;
select plan(132);

-- Each verb with a place for its options; its answer and its result on version 1; another command for the same key.
create temporary table verbs (
    op       text,
    claim    text,
    verb     text,
    answer   jsonb,
    leaves   jsonb,
    another  text
) on commit drop;
insert into verbs (op, claim, verb, answer, leaves, another) values
    ('set', 'C26', $$ entity_set(%1$L, '7', 'n' %2$s) $$, '2', '{"n": 7, "on": true, "list": [1, 2], "in": {"a": 1}}',
     $$ entity_set(%1$L, '8', 'n' %2$s) $$),
    ('merge', 'C27', $$ entity_merge(%1$L, '{"x": 7}', 'in' %2$s) $$, '2',
     '{"n": 1, "on": true, "list": [1, 2], "in": {"a": 1, "x": 7}}', $$ entity_merge(%1$L, '{"x": 8}', 'in' %2$s) $$),
    ('append', 'C28', $$ entity_append(%1$L, 'list', '[7]' %2$s) $$, '3',
     '{"n": 1, "on": true, "list": [1, 2, 7], "in": {"a": 1}}', $$ entity_append(%1$L, 'list', '[7, 7]' %2$s) $$),
    ('prepend', 'C29', $$ entity_prepend(%1$L, 'list', '7' %2$s) $$, '3',
     '{"n": 1, "on": true, "list": [7, 1, 2], "in": {"a": 1}}', $$ entity_append(%1$L, 'list', '7' %2$s) $$),
    ('remove', 'C30', $$ entity_remove(%1$L, 'list', 0 %2$s) $$, '1',
     '{"n": 1, "on": true, "list": [2], "in": {"a": 1}}', $$ entity_remove(%1$L, 'list', -1 %2$s) $$),
    ('increment', 'C31', $$ entity_increment(%1$L, 'n', 7 %2$s) $$, '8',
     '{"n": 8, "on": true, "list": [1, 2], "in": {"a": 1}}', $$ entity_increment(%1$L, 'm', 7 %2$s) $$),
    ('toggle', 'C32', $$ entity_toggle(%1$L, 'on' %2$s) $$, 'false',
     '{"n": 1, "on": false, "list": [1, 2], "in": {"a": 1}}', $$ entity_delete(%1$L, 'on' %2$s) $$),
    ('set_if_not_exists', 'C33', $$ entity_set_if_not_exists(%1$L, 'in.b', '[]' %2$s) $$, '[]',
     '{"n": 1, "on": true, "list": [1, 2], "in": {"a": 1, "b": []}}',
     $$ entity_set_if_not_exists(%1$L, 'in.b', '{}' %2$s) $$),
    ('delete', 'C34', $$ entity_delete(%1$L, 'in.a' %2$s) $$, '1',
     '{"n": 1, "on": true, "list": [1, 2], "in": {}}', $$ entity_delete(%1$L, 'in' %2$s) $$);

create function done_by(statement text) returns jsonb
language plpgsql
as $$
declare
    answer jsonb;
begin
    execute 'select' || done_by.statement into answer;
    return answer;
exception when others then
    return to_jsonb(sqlstate);
end
$$;

create function memory_of(id text) returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(the_job(id) -> 'context', the_job(id) -> 'version',
                             (select count(*) from history as h where h.job_id = memory_of.id));
end
$$;

create function fresh(id text) returns jsonb
language plpgsql
as $$
begin
    perform entity_create(id, 'note', '{"n": 1, "on": true, "list": [1, 2], "in": {"a": 1}}');
    return memory_of(id);
end
$$;

-- expected_version

select given(fresh('version ' || op)) from verbs;

select is(jsonb_build_array(done_by(format(verb, 'version ' || op, ', expected_version => ' || wrong)),
                            memory_of('version ' || op)),
          jsonb_build_array('PD105', fresh(format('wrong %s %s', op, wrong))),
          format('%s refuses version %s of a memory at version 1, and changes nothing (%s)', op, wrong, claim))
  from verbs
 cross join unnest(array[0, 2, -1]) as wrong;
select is(jsonb_build_array(done_by(format(verb, 'version ' || op, ', expected_version => 1')),
                            memory_of('version ' || op)),
          jsonb_build_array(answer, jsonb_build_array(leaves, 2, 2)),
          format('%s is applied at the version that it expects (%s)', op, claim))
  from verbs;
select is(jsonb_build_array(done_by(format(verb, 'version ' || op, ', expected_version => 1')),
                            memory_of('version ' || op)),
          jsonb_build_array('PD105', jsonb_build_array(leaves, 2, 2)),
          format('%s without a key is refused when repeated with the same version (%s)', op, claim))
  from verbs;
select is(done_by(format(verb, 'nobody', ', expected_version => 1')), '"PD401"',
          format('%s of a job that does not exist is refused, whatever it expects (%s)', op, claim))
  from verbs;

-- key

select given(fresh('key ' || op)) from verbs;

select is(jsonb_build_array(done_by(format(verb, 'key ' || op, format(', key => %L', bad))), memory_of('key ' || op)),
          jsonb_build_array('PD104', fresh(format('bad %s %s', op, number))),
          format('%s refuses a key that is %s, and changes nothing (%s)', op, about, claim))
  from verbs
 cross join (values (1, 'empty', ''), (2, 'two lines long', E'a\nb'), (3, 'not printable', E'a\x1b'))
    as keys (number, about, bad);
select is(jsonb_build_array(done_by(format(verb, 'key ' || op, ', key => ''k''')), memory_of('key ' || op)),
          jsonb_build_array(answer, jsonb_build_array(leaves, 2, 2)),
          format('%s with a new key is applied (%s)', op, claim))
  from verbs;
select given(entity_set('key ' || op, '{"changed": true}')) from verbs;
select is(
    jsonb_build_array(done_by(format(verb, 'key ' || op, ', key => ''k''' || more)), memory_of('key ' || op)),
    jsonb_build_array(answer, '[{"changed": true}, 3, 3]'::jsonb),
    format('%s with the same key gets the first answer%s after other commands (%s)', op, about, claim))
  from verbs
 cross join (values ('', ''), (', expected_version => 1', ' with its version')) as options (more, about);
select is(jsonb_build_array(done_by(format(another, 'key ' || op, ', key => ''k''')), memory_of('key ' || op)),
          '["PD106", [{"changed": true}, 3, 3]]',
          format('%s refuses its key for another command (%s)', op, claim))
  from verbs;

-- A refused command does not use up its key.

select given(fresh('free ' || op)) from verbs;
select is(
    jsonb_build_array(done_by(format(verb, 'free ' || op, ', key => ''k'', expected_version => 9')),
                      done_by(format(verb, 'free ' || op, ', key => ''k'', expected_version => 1'))),
    jsonb_build_array('PD105', answer),
    format('%s may use its key again after it was refused (%s)', op, claim))
  from verbs;

-- Versions after all these commands.

select is_empty(
    $$ select job_id from history group by job_id having max(version) <> count(*) $$,
    'refused and repeated commands leave no gap between versions [P3]');
select is(the_job('wrong set 0') -> 'version', '1', 'a memory without a successful command stays at version 1');
select is(entity_set('key set', '1', 'a', key => repeat('k', 200)), '4', 'a key may have two hundred bytes');
select is(done_by($$ entity_set('key set', '1', 'a', key => repeat('k', 201)) $$), '"PD104"',
          'a key may not have more than two hundred bytes');
select is(entity_set('key set', '2', 'a', key => '''; drop table jobs; --'), '5', 'a key may be any printable text');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
