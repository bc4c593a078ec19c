-- Blame: the author of each value of a memory. (E9)

begin;
select plan(29);

select the_time_is('2030-01-01 12:00+00');

create function blame_of(id text, path text default '') returns jsonb
language plpgsql
as $$
begin
    return (select coalesce(jsonb_agg(jsonb_build_array(b.path, b.value, b.version, b.op) order by b.path), '[]')
              from entity_blame(blame_of.id, blame_of.path) as b);
end
$$;

-- Each value has its own author.

select have_held_job('j', '{"a": {"b": 1, "c": 2}, "l": [1, 2]}');
select time_passes('1 minute');
select given(tell(a_turn('j', facts => '[{"op": "merge", "value": {"a": {"c": 3, "d": {}}}}]')));
select given(entity_increment('j', 'a.b'));
select is((select jsonb_agg(jsonb_build_array(b.path, b.value, b.version, b.task, b.op, b.at = clock()) order by b.path)
             from entity_blame('j') as b),
          '[["a.b", 2, 3, "$outside", "increment", true], ["a.c", 3, 2, "1/main", "merge", true],
            ["a.d", {}, 2, "1/main", "merge", true], ["l", [1, 2], 1, "$outside", "set", false]]',
          'each value has the task, the version, the command and the time that wrote it');
select is(blame_of('j', 'a.c'), '[["a.c", 3, 2, "merge"]]', 'entity_blame() of a path returns its value');
select is(blame_of('j', 'a'), '[["a.b", 2, 3, "increment"], ["a.c", 3, 2, "merge"], ["a.d", {}, 2, "merge"]]',
          'entity_blame() of a path returns all values beneath it');
select is(blame_of('j', 'nothing'), '[]', 'entity_blame() of a path without a value is empty');
select throws_ok($$ select from entity_blame('nobody') $$, 'PD401', null,
                 'entity_blame() of a job that does not exist is refused');

-- Which commands count as writing a value.

create temporary table steps (number serial, op text, path text, value jsonb, blamed jsonb) on commit drop;
insert into steps (op, path, value, blamed) values
    ('set', '', '{"a": {"b": 1}}', '[["a.b", 1, 1, "set"]]'),
    ('merge', '', '{"a": {}}', '[["a.b", 1, 1, "set"]]'),
    ('merge', 'a', '{}', '[["a.b", 1, 1, "set"]]'),
    ('merge', '', '{"a": {"b": 1}}', '[["a.b", 1, 4, "merge"]]'),
    ('set_if_not_exists', 'a.b', '2', '[["a.b", 1, 4, "merge"]]'),
    ('set_if_not_exists', 'a', '{}', '[["a.b", 1, 4, "merge"]]'),
    ('log', 'a', '[1]', '[["a.b", 1, 4, "merge"]]'),
    ('log', 'a.b', '[1]', '[["a.b", 1, 4, "merge"]]'),
    ('delete', 'a.b', null, '[["a", {}, 9, "delete"]]'),
    ('set_if_not_exists', 'a.b', '2', '[["a.b", 2, 10, "set_if_not_exists"]]'),
    ('delete', 'a', null, '[["", {}, 11, "delete"]]'),
    ('merge', '', '{"a": {}}', '[["a", {}, 12, "merge"]]'),
    ('set', 'a.b', '{"c": {"d": 1}, "e": 2}', '[["a.b.c.d", 1, 13, "set"], ["a.b.e", 2, 13, "set"]]'),
    ('toggle', 'a.b.t', null,
     '[["a.b.c.d", 1, 13, "set"], ["a.b.e", 2, 13, "set"], ["a.b.t", true, 14, "toggle"]]'),
    ('merge', 'a', '{"b": 7}', '[["a.b", 7, 15, "merge"]]'),
    ('set', 'a.b', '[{"n": 1}]', '[["a.b", [{"n": 1}], 16, "set"]]'),
    ('append', 'a.b', '[{"n": 2}]', '[["a.b", [{"n": 1}, {"n": 2}], 17, "append"]]'),
    ('set', 'a.b.-1.n', '3', '[["a.b", [{"n": 1}, {"n": 3}], 18, "set"]]'),
    ('remove', 'a.b', '0', '[["a.b", [{"n": 3}], 19, "remove"]]'),
    ('delete', '', null, '[["", {}, 20, "delete"]]');
create function blame_after(op text, path text, value jsonb) returns jsonb
language plpgsql
as $$
begin
    perform run_command('steps', blame_after.op, parse_path(blame_after.path), blame_after.value, null, null);
    return blame_of('steps');
end
$$;
select given(entity_create('steps', 'note'));
select is(blame_after(op, path, value), blamed,
          format('%s. %s at %s with %s', number, op, coalesce(nullif(path, ''), 'the top'),
                 coalesce(value::text, 'nothing')))
  from (select * from steps order by number) as steps;

-- Elements of an array move, so the whole array counts as one value.

select given(entity_create('list', 'note', '{"l": [{"n": 1}, {"n": 2}]}'));
select given(entity_set('list', '5', 'l.1.n'));
select is(blame_of('list', 'l.0'), '[["l.0.n", 1, 2, "set"]]', 'a value in an array has the author of the array');
select given(entity_create('nested', 'note', '{"l": [[1], [[2]]]}'));
select given(entity_set('nested', '5', 'l.0.0'));
select is(blame_of('nested', 'l.1.0'), '[["l.1.0", [2], 2, "set"]]',
          'a value in nested arrays has the author of the outermost');

select given(entity_create('empty', 'note'));
select is(blame_of('empty'), '[]', 'a memory that was never written has no authors');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
