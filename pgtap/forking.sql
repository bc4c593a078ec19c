-- Forks: a new job that begins where the coordinator of another job was.

begin;
select plan(58);

select the_time_is('2030-01-01 12:00+00');

-- A job with a past: commands of its own, of a hook and from outside; a large read; a hook without an answer.

select given(start('w', '["x"]', 'j', 'agent', queue => 'j', context => '{"n": 0}', headers => '{"h": 1}',
                   priority => 3, limit_key => 'l', timeout => '1 d'));
select given(take('ada', '{j}'));
select given(tell(a_turn('j', facts => '[{"op": "set", "path": ["n"], "value": 1, "key": "set#1"}]')));
select time_passes('1 min');
select given(tell(a_turn('j', requests => '[{"key": "h#1", "name": "h", "queue": "hooks"},
                                            {"key": "h#2", "name": "h", "queue": "hooks"}]')));
select given(take('bob', '{hooks}', 10));
select given(tell(a_turn('j', '1/main/h#1', 'done', facts => '[{"op": "increment", "path": ["n"], "value": 10}]',
                         worker => 'bob', value => '"hook"')));
select given(entity_set('j', to_jsonb(repeat('x', 3000)), 'text'));
select time_passes('1 min');
select given(tell(a_turn('j', facts => jsonb_build_array(
    jsonb_build_object('kind', 'answer', 'key', 'h#1', 'name', 'h', 'message', message_of('j', 'h#1')),
    jsonb_build_object('op', 'get', 'path', '{text}'::text[], 'key', 'get#1'),
    jsonb_build_object('op', 'set', 'path', '{n}'::text[], 'value', 99, 'key', 'set#2')))));
select time_passes('1 min');
select given(entity_set('j', '"late"', 'text'));
create temporary table source as select journal_of('j') as journal;

select is(fork('j', 'all')::text, '(all,t)', 'a job is forked');
select is(
    the_job('all') - '{created_at,updated_at,watched,paused,context}'::text[],
    jsonb_build_object('id', 'all', 'entity', 'agent', 'workflow', 'w', 'status', 'running', 'version', 1, 'run', 1,
                       'args', '["x"]'::jsonb, 'result', null, 'error', null, 'parent', null, 'asked_as', null,
                       'on_parent_end', null,
                       'headers', '{"h": 1}'::jsonb, 'pinned_version', null, 'start_key', null, 'queue', 'j',
                       'priority', 3, 'limit_key', 'l', 'timeout', interval '1 d', 'started_at', null,
                       'finished_at', null,
                       'forked_from', '[{"job": "j", "task": "1/main", "position": 4}]'::jsonb),
    'a fork is a new job with all that the other job was given');
select is(the_job('all') -> 'context', the_job('j') -> 'context', 'a fork begins with the memory of the other job');
select is(
    (select jsonb_agg(f - 4 order by f -> 0) from jsonb_array_elements(journal_of('all')) as f),
    (select jsonb_agg(f - 4 order by f -> 0) from source, jsonb_array_elements(journal) as f),
    'a fork has the journal of the other coordinator [P9]');
select is(
    length(journal_of('all') #>> '{2,4}'),
    3000,
    'a large read is copied into the fork, because the fork has another history');
select is(
    jsonb_build_array(the_task('all') -> 'position', the_task('all') -> 'started_at', the_task('all') -> 'told_at'),
    jsonb_build_array(4, the_task('j') -> 'started_at', the_task('j') -> 'told_at'),
    'the workflow time of a fork goes on where it was');
select is(tasks_of('all'), '{1/main,1/main/$deadline}',
          'the hooks that were requested are not in the fork: its coordinator requests them again');
select is(
    (select count(*) from history where job_id = 'all'),
    1::bigint,
    'copied commands make no version of the fork [P3]');

-- A fork at a place has the memory of that place.

select is(fork('j', 'at ' || seq, seq)::text, format('("at %s",t)', seq), format('a job is forked at place %s', seq))
  from generate_series(0, 4) as seq;
select is(
    jsonb_build_array(the_job('at ' || seq) #> '{context,n}', the_job('at ' || seq) #> '{context,text}' is not null,
                      the_task('at ' || seq) -> 'position'),
    jsonb_build_array(n, text, seq),
    format('a fork at place %s has the memory of that place', seq))
  from (values (0, 0, false), (1, 1, false), (2, 11, true), (3, 11, true), (4, 99, true)) as cases (seq, n, text);
select have_held_job('quiet', '{"n": 0}');
select time_passes('1 min');
select given(entity_set('quiet', '1', 'n'));
select given(fork('quiet', 'of quiet', 0));
select is(the_job('of quiet') -> 'context', '{"n": 0}',
          'a fork at the beginning has the first memory, although its coordinator was told nothing');
select is(
    the_job('at 4') #>> '{context,text}',
    repeat('x', 3000),
    'a fork at a place has nothing that was written later');
select is(fork('j', 'edited', 2, '{"n": 7}')::text, '(edited,t)', 'a fork may be given another memory');
select is(the_job('edited') -> 'context', '{"n": 7}', 'the memory that a fork is given replaces the old one (E9)');

select is((select array_agg(o.id) from origins_of('{j,all,nobody}') as o), '{all}',
          'origins_of() returns no row for a job that is neither a fork nor a child');

-- Forks of forks, and of jobs that have ended.

select given(take('cem', '{j}', 10));
select given(tell(a_turn('at 2', facts => '[{"kind": "note", "key": "a"}, {"kind": "note", "key": "b"}]',
                         worker => 'cem')));
select is(
    fork('at 2', 'second ' || seq, seq)::text,
    format('("second %s",t)', seq),
    format('a fork may be forked at %s', seq))
  from unnest(array[1, 3]) as seq;
select is(
    the_job('second ' || seq) -> 'forked_from',
    authors,
    format('a fork at %s names the jobs from which it has its journal', seq))
  from (values (1, '[{"job": "j", "task": "1/main", "position": 1},
                    {"job": "at 2", "task": "1/main", "position": 1}]'::jsonb),
               (3, '[{"job": "j", "task": "1/main", "position": 2}, {"job": "at 2", "task": "1/main", "position": 3}]')
       ) as cases (seq, authors);
select given(tell(a_turn('j', state => 'failed', value => '{"message": "m"}', worker => 'cem')));
select is(fork('j', 'dead', 4)::text, '(dead,t)', 'a job that has ended may be forked');
select is((the_task('dead') ->> 'started_at')::timestamptz, '2030-01-01 12:00+00'::timestamptz,
          'a fork of a job that has ended keeps its workflow time');

-- The place in the history is found by the time of a fact; for a read by its version, whatever the clocks say.

select have_held_job('r');
select given(entity_set('r', '1', 'n'));
select time_passes('1 s');
select given(entity_set('r', '2', 'n'));
select given(tell(a_turn('r', facts => jsonb_build_array(
    jsonb_build_object('op', 'get', 'path', '{n}'::text[], 'key', 'get#1', 'at', clock() - interval '1 s')))));
select given(entity_set('r', '3', 'n'));
select given(fork('r', 'of r', 1));
select is(the_job('of r') -> 'context', '{"n": 2}', 'the memory of a fork is at least at the version that was read');

-- Logs.

select have_held_job('l', '{"n": 1}');
select given(entity_log('l', 'messages', '"a"', key => 'k'));
select given(publish('l', '1/main', token_of('ada'), 'tokens', '["t", "u"]', key => '1/1', source => 'writer'));
select given(tell(a_turn('l', facts => '[
    {"op": "log", "path": ["messages"], "value": ["b"], "key": "log#1"}, {"op": "get", "path": ["messages"], "key": "get#1"}]')));
select time_passes('1 s');
select given(entity_log('l', 'messages', to_jsonb(n))) from generate_series(1, 250) as n;
select given(tell(a_turn('l', facts => '[{"op": "get", "path": ["messages"], "key": "get#2"}]')));
select given(fork('l', 'logs at 2', 2));
select given(fork('l', 'logs', context => '{"m": 1}'));
select is(entity_get('logs at 2', 'messages'), '["a", "b"]', 'a fork at a place has the logs as they were there (E9)');
select is(entity_get('logs', path), entity_get('l', path),
          format('a fork has all of %s, whatever document it is given', path))
  from unnest('{messages,tokens}'::text[]) as path;
select is(
    (select array_agg(s.source order by s.place) from stream_items('logs', 'tokens') as s),
    '{writer,writer}',
    'the items of a stream keep their sources in a fork');
select is(the_job('logs') -> 'version', '254', 'each command on a log is a version of the fork');
select is(entity_at('logs', 100), '{"m": 1}', 'commands on logs leave the document of a fork unchanged');
select is(entity_log('logs at 2', 'messages', '"c"', key => 'k'), '5', 'keys of the other job do not count in a fork');
select given(fork('logs at 2', 'logs again'));
select is(entity_get('logs again', 'messages'), '["a", "b", "c"]', 'a fork of a fork has all items of a log');

-- Repeated and refused forks.

select is(fork('j', 'keyed', key => 'k')::text, '(keyed,t)', 'a fork may have a key');
select is(fork('j', 'keyed', key => 'k')::text, '(keyed,f)', 'a fork may be repeated with its key [P12]');
select given(entity_create('e', 'note'));
select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a fork of nothing', 'select fork(''none'')', 'PD401'),
        ('a fork of a plain entity', 'select fork(''e'')', 'PD107'),
        ('a fork at a place that does not exist', 'select fork(''j'', ''x'', 5)', 'PD107'),
        ('a fork before the beginning', 'select fork(''j'', ''x'', -1)', 'PD107'),
        ('a fork whose key repeats nothing', 'select fork(''j'', key => ''k'')', 'PD107'),
        ('a fork with an empty name', 'select fork(''j'', '''')', 'PD104'),
        ('a fork in place of a schedule', 'select fork(''j'', ''$schedule/nightly'')', 'PD104'),
        ('a fork with a memory that is not an object', 'select fork(''j'', ''x'', context => ''[1]'')', 'PD103'),
        ('a fork with the name of another', 'select fork(''j'', ''all'')', 'PD402')
       ) as cases (about, statement, code);
select is(the_job('x'), null, 'a refused fork leaves nothing');

-- The version in a fact counts only for reads: a payload, or the argument of a refused command, may contain anything.

select have_held_job('says', context => '{"n": 0}');
select given(tell(a_turn('says', facts => '[
    {"signal": "go", "value": {"version": 6}}, {"signal": "go", "value": {"version": "six"}},
    {"op": "merge", "path": ["n"], "value": {"version": "x"}}]')));
select time_passes('1 s');
select given(entity_increment('says', 'n')) from generate_series(1, 6);
select given(fork('says', 'says at ' || seq, seq)) from generate_series(1, 3) as seq;
select is(the_job('says at ' || seq) -> 'context', '{"n": 0}',
          format('a fork at place %s has the memory as it was there [P9]', seq))
  from generate_series(1, 3) as seq;

-- A fork of a job that was cancelled has heard of that. It can be asked to cancel all the same, as a job of its own.

select have_held_job('cancelled');
select given(cancel('cancelled'));
select given(tell(a_turn('cancelled', facts => jsonb_build_array(jsonb_build_object(
    'kind', 'cancel', 'key', '$cancel', 'message', (
        select i.id from inbox as i where i.job_id = 'cancelled' and i.key = '$cancel'))))));
select given(fork('cancelled', 'cleaning'));
select is(cancel('cleaning'), true, 'a fork whose journal has a cancel can be asked to cancel');
select given(take('ada', '{cancelled}'));
select is(
    tell(a_turn('cleaning', facts => jsonb_build_array(jsonb_build_object(
        'kind', 'cancel', 'key', '$cancel', 'message', (
            select i.id from inbox as i where i.job_id = 'cleaning' and i.key = '$cancel'))))) ->> 'state',
    'keep',
    'such a fork is told of its own cancel too');
select is_empty($$ select * from assert_invariants() where job = 'cleaning' $$,
                'a cancel that a fork has copied and one of its own break no invariant [P8]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands [P3]');
select finish();
rollback;
