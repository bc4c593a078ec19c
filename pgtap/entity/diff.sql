-- Differences between two versions of a memory, and between a version and the present.

begin;
select plan(28);

select the_time_is('2030-01-01 12:00+00');

create function differences_of(old jsonb, new jsonb) returns jsonb
language plpgsql
as $$
begin
    return (select coalesce(jsonb_agg(jsonb_build_array(d.path, d.change, d.old, d.new) order by d.path), '[]')
              from differences(differences_of.old, differences_of.new, '{}') as d);
end
$$;

select is(differences_of(old, new), wanted, format('from %s to %s', old, new))
  from (values
        ('{"a": 1}'::jsonb, '{"a": 1}'::jsonb, '[]'::jsonb),
        ('{}', '{}', '[]'),
        ('{"a": 1}', '{"a": 1.0}', '[]'),
        ('{"a": 1}', '{"a": 2}', '[["a", "changed", 1, 2]]'),
        ('{}', '{"a": null}', '[["a", "added", null, null]]'),
        ('{"a": null}', '{}', '[["a", "removed", null, null]]'),
        ('{"a": null}', '{"a": 1}', '[["a", "changed", null, 1]]'),
        ('{"a": 1}', '{"a": "1"}', '[["a", "changed", 1, "1"]]'),
        ('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1, "c": 3, "d": 4}}',
         '[["a.c", "changed", 2, 3], ["a.d", "added", null, 4]]'),
        ('{"a": {"b": 1}}', '{"a": [1]}', '[["a", "changed", {"b": 1}, [1]]]'),
        ('{"a": {}}', '{"a": []}', '[["a", "changed", {}, []]]'),
        ('{"a": {"b": 1}}', '{"a": {}}', '[["a.b", "removed", 1, null]]'),
        ('{"l": [1, 2, 3]}', '{"l": [1, 5]}', '[["l.1", "changed", 2, 5], ["l.2", "removed", 3, null]]'),
        ('{"l": []}', '{"l": [{"a": 1}]}', '[["l.0", "added", null, {"a": 1}]]'),
        ('{"l": [{"a": 1}]}', '{"l": [{"a": 2}]}', '[["l.0.a", "changed", 1, 2]]'),
        ('{"a.b": {"": 1}}', '{"a.b": {"": 2}}', '[["\"a.b\".\"\"", "changed", 1, 2]]')
       ) as cases (old, new, wanted);

select given(entity_create('e', 'note', '{"a": {"b": 1}, "l": [1]}'));
select given(entity_merge('e', '{"a": {"b": 2}}'));
select given(entity_append('e', 'l', '2'));
select given(entity_delete('e', 'a'));
select is(
    (select jsonb_agg(to_jsonb(d) order by d.path) from entity_diff('e', 1, 3) as d),
    '[{"path": "a.b", "change": "changed", "old": 1, "new": 2},
      {"path": "l.1", "change": "added", "old": null, "new": 2}]',
    'entity_diff() returns the changes of the commands between two versions');
select is(
    (select jsonb_agg(to_jsonb(d) order by d.path) from entity_diff('e', 3) as d),
    '[{"path": "a", "change": "removed", "old": {"b": 2}, "new": null}]',
    'entity_diff() without a second version compares with the present');
select is(
    (select jsonb_agg(jsonb_build_array(d.path, d.change) order by d.path) from entity_diff('e', 3, 1) as d),
    '[["a.b", "changed"], ["l.1", "removed"]]',
    'entity_diff() may compare backwards');
select is_empty($$ select from entity_diff('e', 2, 2) $$, 'entity_diff() of a version with itself is empty');
select is_empty($$ select from entity_diff('e', 4) $$,
                'entity_diff() of the present version with the present is empty');
select is((select jsonb_agg(d.path order by d.path) from entity_diff('e', 0, 1) as d), '["a", "l"]',
          'entity_diff() of version 0 compares with an empty memory');
select throws_ok(format('select from entity_diff(''%s'', %s)', id, versions), code, null,
                 format('entity_diff() of versions %s of %s is refused', versions, id))
  from (values ('e', '5, 1', 'PD404'), ('e', '1, 5', 'PD404'), ('e', '-1, 1', 'PD404'), ('nobody', '0, 0', 'PD401'),
               ('e', 'null, 1', 'PD107'))
    as cases (id, versions, code);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
