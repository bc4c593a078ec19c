-- The verbs of a memory, as any SQL client calls them: answers, versions and keys.

begin;
select plan(63);

select the_time_is('2030-01-01 12:00+00');

-- entity_create

select is(entity_create('e', 'note', '{"n": 1}'), true, 'entity_create() makes a new memory');
select is(entity_create('e', 'other', '{"n": 2}'), false, 'entity_create() of an id that exists makes nothing');
select is(
    the_job('e') - '{watched,paused,asked_as}'::text[],
    jsonb_build_object('id', 'e', 'entity', 'note', 'context', '{"n": 1}'::jsonb, 'version', 1, 'run', 1,
                       'workflow', null, 'status', null, 'args', null, 'result', null, 'error', null, 'parent', null,
                       'headers', null, 'pinned_version', null, 'start_key', null, 'queue', null, 'priority', null,
                       'limit_key', null, 'timeout', null, 'started_at', null, 'forked_from', null,
                       'on_parent_end', null, 'created_at', clock(),
                       'updated_at', clock(), 'finished_at', null),
    'a plain entity has a document and no workflow (C19)');
select is(tasks_of('e'), '{}', 'a plain entity has no tasks');
select is(entity_create('empty', 'note'), true, 'a memory may begin empty');
select is(the_job('empty') ->> 'version', '0', 'an empty memory has version 0');
select is(error_of($$ select entity_create('x', 'note', '[1]') $$), 'PD103',
          'a memory that is not an object is refused');
select is(error_of($$ select entity_create('x', 'note', null) $$), 'PD103', 'a memory of null is refused');

-- Each verb in turn on one document: its answer and its result.

create temporary table verbs (number serial, verb text, answer jsonb, made jsonb) on commit drop;
insert into verbs (verb, answer, made) values
    ($$ entity_set('v', '{"n": 1}', '') $$, '1', '{"n": 1}'),
    ($$ entity_set('v', '"x"', 'a.b') $$, '2', '{"n": 1, "a": {"b": "x"}}'),
    ($$ entity_merge('v', '{"a": {"c": 2}}') $$, '3', '{"n": 1, "a": {"b": "x", "c": 2}}'),
    ($$ entity_merge('v', '{"d": 3}', 'a') $$, '4', '{"n": 1, "a": {"b": "x", "c": 2, "d": 3}}'),
    ($$ entity_delete('v', 'a') $$, '{"b": "x", "c": 2, "d": 3}', '{"n": 1}'),
    ($$ entity_append('v', 'l', '[2, 3]') $$, '2', '{"n": 1, "l": [2, 3]}'),
    ($$ entity_append('v', 'l', '4') $$, '3', '{"n": 1, "l": [2, 3, 4]}'),
    ($$ entity_append('v', 'l', '{"x": 5}') $$, '4', '{"n": 1, "l": [2, 3, 4, {"x": 5}]}'),
    ($$ entity_prepend('v', 'l', '"first"') $$, '5', '{"n": 1, "l": ["first", 2, 3, 4, {"x": 5}]}'),
    ($$ entity_prepend('v', 'l', '[0, 1]') $$, '7', '{"n": 1, "l": [0, 1, "first", 2, 3, 4, {"x": 5}]}'),
    ($$ entity_remove('v', 'l', 2) $$, '"first"', '{"n": 1, "l": [0, 1, 2, 3, 4, {"x": 5}]}'),
    ($$ entity_remove('v', 'l', -1) $$, '{"x": 5}', '{"n": 1, "l": [0, 1, 2, 3, 4]}'),
    ($$ entity_increment('v', 'n') $$, '2', '{"n": 2, "l": [0, 1, 2, 3, 4]}'),
    ($$ entity_increment('v', 'n', -0.5) $$, '1.5', '{"n": 1.5, "l": [0, 1, 2, 3, 4]}'),
    ($$ entity_toggle('v', 'on') $$, 'true', '{"n": 1.5, "l": [0, 1, 2, 3, 4], "on": true}'),
    ($$ entity_set_if_not_exists('v', 'l', '[]') $$, '[0, 1, 2, 3, 4]', '{"n": 1.5, "l": [0, 1, 2, 3, 4], "on": true}'),
    ($$ entity_set_if_not_exists('v', 'a.b', '[]') $$,
     '[]', '{"n": 1.5, "l": [0, 1, 2, 3, 4], "on": true, "a": {"b": []}}'),
    ($$ entity_delete('v') $$, '{"n": 1.5, "l": [0, 1, 2, 3, 4], "on": true, "a": {"b": []}}', '{}');

create function done_by(verb text) returns jsonb
language plpgsql
as $$
declare
    answer jsonb;
begin
    execute 'select' || done_by.verb into answer;
    return jsonb_build_array(answer, the_job('v') -> 'context', the_job('v') -> 'version');
end
$$;

select given(entity_create('v', 'note'));
select is(done_by(verb), jsonb_build_array(answer, made, number), format('%s makes version %s', trim(verb), number))
  from (select * from verbs order by number) as verbs;
select is((select jsonb_agg(h.op order by h.version) from history as h where h.job_id = 'v'),
          (select jsonb_agg(substring(verb from '^ entity_(\w+)') order by number) from verbs),
          'the history has every command in order (C21) (C72)');
select throws_ok(
    format('select %s', replace(verb, '''v''', '''nobody''')),
    'PD401',
    null,
    format('%s on a job that does not exist is refused', substring(verb from '^ (\w+)')))
  from (select distinct on (substring(verb from '^ (\w+)')) verb
          from verbs
         order by substring(verb from '^ (\w+)'), number) as verbs;

-- expected_version: compare and set (E11).

select given(entity_create('cas', 'note', '{"n": 1}'));
select is(entity_set('cas', '2', 'n', expected_version => 1), '2',
          'a command that expects the present version is applied');
select throws_ok(
    $$ select entity_set('cas', '3', 'n', expected_version => 1) $$, 'PD105', 'job ''cas'' is at version 2, not 1',
    'a command that expects an old version is refused [P3]');
select throws_ok(
    $$ select entity_toggle('cas', 'on', expected_version => 7) $$, 'PD105', null,
    'a command that expects a later version is refused');
select is(the_job('cas') -> 'context', '{"n": 2}', 'a command that was refused for its version changes nothing');

-- key: a command with a key is applied once [P2].

select given(entity_create('keys', 'note', '{"n": 1}'));
select is(entity_increment('keys', 'n', 5, key => 'k1'), '6', 'the first call with a key is applied [P2]');
select is(entity_increment('keys', 'n', 5, key => 'k1'), '6', 'a repeated call gets the first answer [P2] [P12]');
select is(entity_increment('keys', 'n', 1), '7', 'a call without a key is always applied');
select is(
    entity_increment('keys', 'n', 5, key => 'k1'),
    '6',
    'a repeated call gets the first answer after other commands [P2]');
select is(the_job('keys') ->> 'version', '3', 'a repeated call makes no version');
select is(
    entity_increment('keys', 'n', 5, expected_version => 1, key => 'k1'),
    '6',
    'a repeated call may name the version of its first call');
select is(entity_delete('keys', 'nothing', key => 'k2'), 'null', 'a command that finds nothing may have a key');
select is(entity_delete('keys', 'nothing', key => 'k2'), 'null',
          'a repeated command that found nothing returns null again');
select throws_ok(
    format('select %s', verb),
    'PD106',
    null,
    format('a key that was used for another %s is refused [P2]', about))
  from (values
        ('command', $$ entity_toggle('keys', 'on', key => 'k1') $$),
        ('path', $$ entity_increment('keys', 'm', 5, key => 'k1') $$),
        ('value', $$ entity_increment('keys', 'n', 6, key => 'k1') $$)
       ) as cases (about, verb);
select is(entity_increment('cas', 'n', 6, key => 'k1'), '8', 'a key belongs to one memory');
select is(the_job('keys') -> 'context', '{"n": 7}', 'refused and repeated calls leave the memory unchanged');
select is(
    error_of($$ select entity_set('keys', '"x"', 'n.m', key => 'k3') $$),
    'PD102',
    'a refused command does not use up its key');
select is(entity_set('keys', '"x"', 'm', key => 'k3'), '5', 'the key of a refused command may be used again');

select have_held_job('notes');
select given(tell(a_turn('notes', facts => '[{"kind": "note", "key": "k"}]')));
select is(entity_set('notes', '1', 'n', key => 'k'), '1', 'a key in the journal of a task is not that of a client');

-- Stored answers.

select is(
    (select h.value from history as h where h.job_id = 'keys' and h.version = 2),
    '6',
    'the history has the answer of a command');
select is(
    (select h.argument from history as h where h.job_id = 'keys' and h.version = 2),
    '5',
    'the history has the argument of a command');
select is(
    (select h.task from history as h where h.job_id = 'keys' and h.version = 2),
    '$outside',
    'a command from outside has $outside as its task');
select is(
    (select array_agg(h.version order by h.version) from history as h where h.job_id = 'keys'),
    '{1,2,3,4,5}',
    'versions have no gap [P3]');

-- A memory may be changed after its run has ended (C25).

select have_held_job('over');
select given(tell(a_turn('over', state => 'done', value => '1')));
select is(entity_set('over', '1', 'a'), '1', 'the memory of a finished job can be changed');

-- Texts from a column with a collation of its own.

create temporary table people (email text collate "POSIX", name text collate "POSIX") on commit drop;
insert into people values ('jane@example.org', 'Jane');
select given(start('w', id => p.email, key => p.name)) from people as p;
select results_eq(
    $$ select jsonb_build_array(entity_set(p.email collate "C", '1', 'n'),
                                signal(p.email collate "C", 'go', key => p.name),
                                (start('w', id => p.email collate "C", key => p.name)).is_new,
                                (status(p.email collate "C")).status, hook(p.email collate "C", p.name, key => p.name))
         from people as p $$,
    $$ values ('[1, true, false, "running", "$hook/Jane"]'::jsonb) $$,
    'texts with a collation are accepted');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
