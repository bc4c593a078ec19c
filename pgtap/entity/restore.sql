-- Back: a memory is made again what it was, as a new version; nothing is lost on the way.

begin;
select plan(27);

select the_time_is('2030-01-01 12:00+00');

select given(entity_create('e', 'note', '{"n": 1}'));
select given(entity_merge('e', '{"a": {"b": [1, 2]}}'));
select given(entity_set('e', '{"other": true}'));
select is(entity_restore('e', 2), '4', 'going back makes a new version');
select is(the_job('e') -> 'context', '{"n": 1, "a": {"b": [1, 2]}}', 'the memory is what it was');
select is(entity_at('e', 3), '{"other": true}', 'what was there before it went back is not lost');
select is(
    (select jsonb_build_array(h.task, h.op, h.path, h.argument, h.answer) from entity_history('e', after => 3) as h),
    '["$outside", "set", "", {"n": 1, "a": {"b": [1, 2]}}, 4]',
    'going back is a change like any other (C21)');
select is(entity_restore('e', 4), '5', 'going back to where one is has a version too');
select is(entity_restore('e', 0), '6', 'one may go back to the beginning');
select is(the_job('e') -> 'context', '{}', 'in the beginning a memory was empty');
select is(entity_increment('e', 'n'), '1', 'life goes on from there');

-- expected_version and key, as with every command [P2] [P3]

select throws_ok($$ select entity_restore('e', 1, expected_version => 6) $$, 'PD105', null,
                 'nobody goes back over a change that he has not seen [P3]');
select is(entity_restore('e', 1, expected_version => 7), '8', 'whoever knows the version may go back');
select is(entity_restore('e', 3, key => 'k'), '9', 'the first call with a key goes back [P2]');
select given(entity_increment('e', 'n'));
select is(entity_restore('e', 3, key => 'k'), '9', 'a repeated call gets the first answer [P2] [P12]');
select is(the_job('e') -> 'context', '{"n": 1, "other": true}', 'a repeated call changes nothing');
select throws_ok($$ select entity_restore('e', 2, key => 'k') $$, 'PD106', null,
                 'a key stands for one way back [P2]');

-- Refusals.

select throws_ok(format('select entity_restore(%s)', call), code, null, format('there is no way back to %s', about))
  from (values
        ('a version that is not yet', '''e'', 11', 'PD404'),
        ('a version before the first', '''e'', -1', 'PD404'),
        ('nothing', '''e'', null', 'PD107'),
        ('a version of nobody', '''nobody'', 0', 'PD401')
       ) as cases (about, call, code);
select is(the_job('e') ->> 'version', '10', 'what was refused has no version');

-- What was once good is good again: a document of more than a single value may have.

select given(entity_create('large', 'note'));
select given(entity_set('large', to_jsonb(repeat(md5(n::text), 20000)), 'part' || n)) from generate_series(1, 3) as n;
select given(entity_delete('large'));
select is(entity_restore('large', 3), '5', 'a memory of more than 1 MB goes back as well');
select is(length(the_job('large') ->> 'context') > 1048576, true, 'it has more than 1 MB');
select is(the_job('large') -> 'context', entity_at('large', 3), 'nothing of it is missing');
select is(entity_increment('large', 'n'), '1', 'it takes commands');

-- A log is not taken back: it stands beside the document.

select given(entity_create('log', 'note'));
select given(entity_log('log', 'l', '[1, 2]'));
select given(entity_restore('log', 0));
select is(entity_get('log', 'l'), '[1, 2]', 'what was logged stays logged');

-- A task goes on from where the memory is.

select have_held_job('j', '{"n": 1}');
select given(tell(a_turn('j', facts => '[{"op": "set", "path": ["n"], "value": 2}]')));
select given(entity_restore('j', 1));
select is(tell(a_turn('j', facts => '[{"op": "get", "path": ["n"]}]')) #> '{answers,0,2}', '1',
          'a running workflow sees that its memory went back (C25)');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
