-- Restoring: an earlier memory comes back as a new version, and no version is lost.

begin;
select plan(27);

select the_time_is('2030-01-01 12:00+00');

select given(entity_create('e', 'note', '{"n": 1}'));
select given(entity_merge('e', '{"a": {"b": [1, 2]}}'));
select given(entity_set('e', '{"other": true}'));
select is(entity_restore('e', 2), '4', 'entity_restore() makes a new version');
select is(the_job('e') -> 'context', '{"n": 1, "a": {"b": [1, 2]}}', 'the memory has its earlier value');
select is(entity_at('e', 3), '{"other": true}', 'the memory from before the restore stays in the history');
select is(
    (select jsonb_build_array(h.task, h.op, h.path, h.argument, h.answer) from entity_history('e', after => 3) as h),
    '["$outside", "set", "", {"n": 1, "a": {"b": [1, 2]}}, 4]',
    'a restore is in the history like any change (C21)');
select is(entity_restore('e', 4), '5', 'a restore of the present version makes a version too');
select is(entity_restore('e', 0), '6', 'version 0 may be restored');
select is(the_job('e') -> 'context', '{}', 'version 0 is empty');
select is(entity_increment('e', 'n'), '1', 'commands continue after a restore');

-- expected_version and key, as with every command [P2] [P3]

select throws_ok($$ select entity_restore('e', 1, expected_version => 6) $$, 'PD105', null,
                 'a restore with an old expected version is refused [P3]');
select is(entity_restore('e', 1, expected_version => 7), '8', 'a restore with the present version is applied');
select is(entity_restore('e', 3, key => 'k'), '9', 'the first call with a key is applied [P2]');
select given(entity_increment('e', 'n'));
select is(entity_restore('e', 3, key => 'k'), '9', 'a repeated call gets the first answer [P2] [P12]');
select is(the_job('e') -> 'context', '{"n": 1, "other": true}', 'a repeated call changes nothing');
select throws_ok($$ select entity_restore('e', 2, key => 'k') $$, 'PD106', null,
                 'a key with another version is refused [P2]');

-- Refused restores.

select throws_ok(format('select entity_restore(%s)', call), code, null, format('%s cannot be restored', about))
  from (values
        ('a future version', '''e'', 11', 'PD404'),
        ('a version before the first', '''e'', -1', 'PD404'),
        ('a version of null', '''e'', null', 'PD107'),
        ('a version of a job that does not exist', '''nobody'', 0', 'PD401')
       ) as cases (about, call, code);
select is(the_job('e') ->> 'version', '10', 'a refused restore makes no version');

-- A document that is larger than a single value may be.

select given(entity_create('large', 'note'));
select given(entity_set('large', to_jsonb(repeat(md5(n::text), 20000)), 'part' || n)) from generate_series(1, 3) as n;
select given(entity_delete('large'));
select is(entity_restore('large', 3), '5', 'a memory of more than 1 MB can be restored');
select is(length(the_job('large') ->> 'context') > 1048576, true, 'the restored memory has more than 1 MB');
select is(the_job('large') -> 'context', entity_at('large', 3), 'the restored memory is complete');
select is(entity_increment('large', 'n'), '1', 'the restored memory takes commands');

-- A restore does not change logs, which are beside the document.

select given(entity_create('log', 'note'));
select given(entity_log('log', 'l', '[1, 2]'));
select given(entity_restore('log', 0));
select is(entity_get('log', 'l'), '[1, 2]', 'a restore keeps the items of a log');

-- A running task sees the restored memory.

select have_held_job('j', '{"n": 1}');
select given(tell(a_turn('j', facts => '[{"op": "set", "path": ["n"], "value": 2}]')));
select given(entity_restore('j', 1));
select is(tell(a_turn('j', facts => '[{"op": "get", "path": ["n"]}]')) #> '{answers,0,2}', '1',
          'a running workflow reads the restored memory (C25)');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
