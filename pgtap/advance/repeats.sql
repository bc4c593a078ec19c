-- Lost replies: every call can be repeated. The repetition changes nothing and returns a useful answer [P12].

begin;
select plan(60);

select the_time_is('2030-01-01 12:00+00');

-- All rows as one value, to compare them before and after a repeated call.
create function everything() returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(
        (select jsonb_agg(to_jsonb(j) order by j.id) from jobs as j),
        (select jsonb_agg(to_jsonb(t) order by t.job_id, t.task) from tasks as t),
        (select jsonb_agg(to_jsonb(f) order by f.job_id, f.task, f.seq) from journal as f),
        (select jsonb_agg(to_jsonb(i) order by i.id) from inbox as i));
end
$$;

create temporary table calls (
    number    serial,
    about     text,
    turn      jsonb,
    first     jsonb,
    then_all  jsonb,
    second    jsonb,
    at_last   jsonb
) on commit drop;

create function repeat_the_call(about text, turn jsonb) returns void
language plpgsql
as $$
declare
    this calls;
begin
    this.about := repeat_the_call.about;
    this.turn := repeat_the_call.turn;
    this.first := tell(this.turn);
    this.then_all := everything();
    this.second := tell(this.turn);
    this.at_last := everything();
    insert into calls (about, turn, first, then_all, second, at_last)
    values (this.about, this.turn, this.first, this.then_all, this.second, this.at_last);
end
$$;

-- Every kind of turn, each on a job of its own.

select have_held_job(id, '{"n": 1}')
  from unnest('{keep,commands,requests,signals,consume,park,nap,mail,retry,stuck,release,cancels,ask}'::text[]) as id;
select have_held_job(id) from unnest('{done,failed,cancelled}'::text[]) as id;
select given(signal('consume', 'go', '1'));
select given(signal('mail', 'go', '1'));
select given(tell(a_turn('cancels', requests => '[{"key": "h", "name": "h"}]')));
select given(tell(a_turn('ask', requests => '[{"key": "h", "name": "h", "queue": "asked"}]')));
select given(take('ada', '{asked}'));

select repeat_the_call('nothing',              a_turn('keep'));
select repeat_the_call('facts', a_turn('keep', facts => '[{"kind": "activity", "key": "a", "value": 1}]'));
select repeat_the_call('commands',
                       a_turn('commands',
                              facts => '[
    {"op": "increment", "path": ["n"], "value": 1},
    {"op": "append", "path": ["n"], "value": [1]},
    {"op": "get", "path": ["n"]},
    {"op": "set", "path": ["m"], "value": null}]'));
select repeat_the_call('requests',
                       a_turn('requests',
                              requests => '[
    {"key": "h", "name": "h"},
    {"key": "d", "name": "h", "detached": true},
    {"key": "a", "kind": "activity", "name": "a"},
    {"key": "c", "kind": "job", "name": "c"}]'));
select repeat_the_call('requests and facts',
                       a_turn('requests', facts => '[{"kind": "note", "key": "n"}]',
                              requests => '[{"key": "h2", "name": "h"}, {"key": "c2", "kind": "job", "name": "c"}]'));
select repeat_the_call('signals sent',
                       a_turn('signals',
                              facts => '[{"signal": "go", "target": "keep", "value": 1},
                                         {"signal": "go", "target": "nobody"}]'));
select repeat_the_call('a signal consumed',
                       a_turn('consume',
                              facts => jsonb_build_array(jsonb_build_object('kind', 'signal',
                                                                            'message', message_of('consume',
                                                                                                  'go')))));
select repeat_the_call('a park',
                       a_turn('park', state => 'park', awaits => '{go}',
                              facts => '[{"op": "set", "path": ["n"], "value": 5}]'));
select repeat_the_call('a nap',                a_turn('nap', state => 'park', until => clock() + interval '1 h'));
select repeat_the_call('a park that finds mail',
                       a_turn('mail', state => 'park', awaits => '{go}', facts => '[{"kind": "note", "key": "n"}]'));
select repeat_the_call('a park without facts that finds mail', a_turn('mail', state => 'park', awaits => '{go}'));
select repeat_the_call('a request to cancel',  a_turn('cancels', cancels => '["h"]'));
select repeat_the_call('a retry',
                       a_turn('retry', state => 'retry', until => clock() + interval '1 min',
                              value => '{"message": "m"}'));
select repeat_the_call('a stuck turn',         a_turn('stuck', state => 'stuck', value => '{"message": "m"}'));
select repeat_the_call('a release', a_turn('release', state => 'release', until => clock() + interval '1 min'));
select repeat_the_call('a result',
                       a_turn('done', state => 'done', value => '1',
                              facts => '[{"op": "increment", "path": ["n"], "value": 1}]'));
select repeat_the_call('a failure',            a_turn('failed', state => 'failed', value => '{"message": "m"}'));
select repeat_the_call('a cancelled run',      a_turn('cancelled', state => 'cancelled'));
select repeat_the_call('the result of a hook',
                       a_turn('ask', '1/main/h', 'done', value => '{"n": 1}',
                              facts => '[{"op": "increment", "path": ["n"], "value": 1}]'));

select is(at_last, then_all, format('a repeated call changes nothing: %s [P12]', about))
  from (select * from calls order by number) as calls;

select is(second, first || changed, format('a repeated call gets the answer of the first: %s [P12]', calls.about))
  from (values
        ('nothing', '{}'::jsonb), ('requests', '{}'), ('a park', '{"answers": null, "again": true}'),
        ('a nap', '{"again": true}'),
        ('a park without facts that finds mail', '{}'), ('a request to cancel', '{}')
       ) as cases (about, changed)
  join calls on cases.about = calls.about;

select set_eq(
    $$ select about from calls where first -> 'again' = 'true' $$, '{}'::text[], 'a first call is not marked as again');
select set_eq(
    $$ select about from calls where second -> 'again' = 'true' $$,
    array['facts', 'commands', 'requests and facts', 'signals sent', 'a signal consumed', 'a park', 'a nap',
          'a park that finds mail', 'a retry', 'a stuck turn', 'a release'],
    'a repeated call is marked as again, so that a caller can roll back its own transaction [P12]');

select is(
    second -> 'answers',
    first -> 'answers',
    format('the answers of %s are repeated from the journal [P12]', about))
  from (select * from calls where about in ('commands', 'signals sent') order by number) as calls;
select is(second -> 'messages', first -> 'messages',
          'the messages that kept a task from parking are delivered again [P12]')
  from calls where about = 'a park that finds mail';
select is(second ->> 'state', wanted, format('a repeated call is answered with %s: %s [P12]', wanted, calls.about))
  from (values
        ('facts', 'keep'),
        ('requests and facts', 'keep'),
        ('a signal consumed', 'keep'),
        ('a retry', 'parked'),
        ('a stuck turn', 'parked'),
        ('a release', 'parked'),
        ('a result', 'gone'),
        ('a failure', 'gone'),
        ('a cancelled run', 'gone'),
        ('the result of a hook', 'gone')
       ) as cases (about, wanted)
  join calls on cases.about = calls.about;

-- A late repetition, after other turns.

select have_held_job('late', '{"n": 1}');
create temporary table late_turn as
select a_turn('late', facts => '[{"op": "increment", "path": ["n"], "value": 1}]') as turn;
select given(tell(turn)) from late_turn;
select given(tell(a_turn('late', facts => '[{"op": "increment", "path": ["n"], "value": 1}]')));
select is(tell(turn) -> 'answers', '[[1, true, 2], [2, true, 3]]', 'a late repetition gets all later answers too [P12]')
  from late_turn;
select is(the_job('late') -> 'context', '{"n": 3}', 'a late repetition applies nothing [P2]');

-- A turn that names an earlier position and was never applied: its holder has lost count of its facts.

select have_held_job('lost', '{"n": 1}');
select given(tell(a_turn('lost', facts => '[
    {"kind": "activity", "key": "a#1", "value": 1}, {"op": "increment", "path": ["n"], "value": 1, "key": "b#1"}]')));
select is(
    tell(a_turn('lost', state => state, seen => seen, facts => facts, value => '{}')) ->> 'state',
    'refused',
    format('a turn at an earlier position that was not applied before is refused: %s [P2]', about))
  from (values
        ('a fact under another key', 'keep', 1, '[{"kind": "activity", "key": "c#1", "value": 1}]'::jsonb),
        ('another command under the same key', 'keep', 1, '[{"op": "set", "path": ["n"], "value": 9, "key": "b#1"}]'),
        ('a fact without a key', 'park', 0, '[{"kind": "activity", "value": 1}]'),
        ('facts of which only some are recorded', 'keep', 1,
         '[{"op": "increment", "path": ["n"], "value": 1, "key": "b#1"}, {"kind": "note", "key": "c#1"}]'),
        ('the end of the task', 'done', 0, null),
        ('a failed attempt', 'retry', 1, null),
        ('a task that is given back', 'release', 1, null)
       ) as cases (about, state, seen, facts);
select is(
    tell(a_turn('lost', seen => 1, facts => '[{"op": "increment", "path": ["n"], "value": 1, "key": "c#1"}]'))
    #- '{error,type}' -> 'error',
    '{"code": "PD107",
      "message": "the turn begins at position 1, where other facts are recorded",
      "detail": "The task has been told more facts than that. So the turn would repeat an earlier one, but it is another.",
      "hint": "Give as position how many facts are recorded. If you have lost count, run it again from the journal."}',
    'a turn at a wrong position is told what is wrong');
select is(
    tell(a_turn('lost', seen => seen)) -> 'again',
    'true',
    'a turn without facts at an earlier position asks whether that turn was applied')
  from generate_series(0, 1) as seen;
select is(
    jsonb_build_array(the_job('lost') -> 'context', the_task('lost') -> 'position'),
    '[{"n": 2}, 2]',
    'nothing of a turn at a wrong position is applied');

-- Other calls.

create function repeated(statement text) returns text[]
language plpgsql
as $$
declare
    first text;
    second text;
begin
    execute repeated.statement into first;
    execute repeated.statement into second;
    return array[first, second];
end
$$;

select is(
    repeated($$ select start('w', id => 'again', key => 'k') $$),
    '{"(again,t)","(again,f)"}',
    'a repeated start makes one job [P1] [P12]');
select is(
    repeated($$ select hook('again', 'h', key => 'k') $$),
    '{$hook/k,$hook/k}',
    'a repeated hook() makes one hook [P12]');
select is(
    repeated($$ select signal('again', 'go', key => 'k') $$),
    '{true,false}',
    'a repeated signal() sends one signal [P5] [P12]');
select is(
    repeated($$ select entity_increment('again', 'n', key => 'k') $$),
    '{1,1}',
    'a repeated command is applied once [P2] [P12]');
select is(repeated($$ select cancel('again') $$), '{true,false}', 'a repeated request to cancel does nothing [P12]');
select is(repeated($$ select terminate('again') $$), '{true,false}', 'a repeated terminate() does nothing [P12]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
