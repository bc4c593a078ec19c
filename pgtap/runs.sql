-- Runs: a job continues as its next run, or runs again after it has ended.

begin;
select plan(77);

select the_time_is('2030-01-01 12:00+00');

-- continue: a run ends as the beginning of the next.

select have_held_job('p');
select given(tell(a_turn('p', requests => '[
    {"key": "c#1", "kind": "job", "fingerprint": "c4", "name": "loop", "id": "j", "queue": "loops", "priority": 2, "args": [1],
     "context": {"n": 1}, "entity": "agent", "headers": {"h": 1}, "timeout": "1 d", "limit_key": "l"}]')));
select given(take('ada', '{loops}'));
select given(tell(a_turn('j', requests => '[
    {"key": "h#1", "name": "h"}, {"key": "u#1", "kind": "until", "condition": "$.n > 9"},
    {"key": "c#1", "kind": "job", "name": "child"}]')));
select given(take('bob', '{default}', 10));
select given(hook('j', 'outside', key => 'k'));
select given(signal('j', 'later', '1', 'kept'));
select given(signal('j', 'now', '2'));
select given(tell(a_turn('j/c#1', state => 'done', value => '"late"', touches => '{j}', worker => 'bob')));
create temporary table before_it as select the_job('j') as job;
select time_passes('1 min');
select is(
    tell(a_turn('j', state => 'continue', value => '{"page": 2}',
                facts => '[{"op": "set", "path": ["n"], "value": 2}, {"kind": "note", "key": "x"}]',
                requests => '[{"key": "d#1", "name": "d", "detached": true}]')),
    '{"state": "continue", "answers": [[1, true, 2]], "messages": null, "error": null, "again": null}',
    'a run may continue as the next one, with its last facts (E17)');
select is(
    the_job('j'),
    (select job || jsonb_build_object('run', 2, 'args', '{"page": 2}'::jsonb, 'context', '{"n": 2}'::jsonb,
                                      'version', 2, 'updated_at', clock())
       from before_it),
    'the next run has the same job and the same memory');
select is(
    tasks_of('j'),
    '{$hook/1:main:d#1,$hook/k,2/main,2/main/$deadline}',
    'the hooks of a run end; detached hooks, hooks from outside and the deadline stay [P6]');
select is(
    the_task('j', '2/main') - '{job_id,task}'::text[],
    jsonb_build_object('kind', 'coordinator', 'name', 'loop', 'queue', 'loops', 'priority', 2, 'due_at', clock(),
                       'token', null, 'last_token', null, 'worker', null, 'last_worker', null, 'position', 0,
                       'asked', 0, 'deliveries', 0, 'attempt', 0, 'in_line', false, 'paused', false, 'limit_key', 'l',
                       'pinned_version', null, 'args', null, 'awaits', null, 'until', null, 'signal', null,
                       'detached', false, 'accept_changes', false,
                       'asker_job', 'p', 'asker_task', '1/main', 'asker_key', 'c#1', 'progress', null, 'failure', null,
                       'stuck_reason', null, 'started_at', null, 'told_at', null, 'is_suspect', false,
                       'fingerprint', 'c4'),
    'the next run has the queue and the asker of the last, and an empty journal');
select is(
    (the_task('j', '2/main/$deadline') ->> 'due_at')::timestamptz,
    clock() - interval '1 min' + interval '1 d',
    'the next run keeps the deadline of the job');
select is(mail_of('j'), '[[null, "later", true, 1], [null, "now", true, 2]]',
          'open signals reach the next run, answers to the last run are dropped [P5]');
select is((select count(*) from conditions where job_id = 'j'), 0::bigint, 'the conditions of a run end with it');
select is(
    (select jsonb_agg(jsonb_build_array(f.seq, f.kind, f.name, f.value, f.argument))
       from journal as f
      where f.job_id = 'j' and f.task = '$run'),
    '[[2, "run", "continue", {"status": "continued"}, {"page": 2}]]',
    'the journal records the start of the next run, with its arguments');
select is(jsonb_array_length(journal_of('j')), 2, 'the facts of the last run stay until they are forgotten');
select is((select count(*) from history where job_id = 'j'), 2::bigint, 'the history continues through runs [P3]');
select is(verdict_of(a_turn('j', state => 'continue', value => '{"page": 2}', seen => 0)), 'gone',
          'a repeated turn does not begin a third run [P12]');
select is(
    verdict_of(a_turn('j', '1/main/h#1', 'done', worker => 'bob')),
    'gone',
    'the hooks of the last run are fenced [P6]');
select is(the_job('p') ->> 'status', 'running', 'the asker still waits');
create temporary table taken as select take('ada', '{loops}') -> 0 as task;
select is((select task -> key from taken), wanted, format('the next run is claimed with its %s', key))
  from (values ('args', '{"page": 2}'::jsonb), ('run', '2'), ('journal', '[]'), ('attempt', '0'))
    as cases (key, wanted);
select is(
    tell(a_turn('j', '2/main', requests => '[{"key": "c#1", "kind": "job", "name": "child"}]')) ->> 'state',
    'keep',
    'the next run may request a child under the same key');
select is(the_job('j/2/main/c#1') ->> 'status', 'running', 'the children of later runs have ids with their run');
select is(
    tell(a_turn('p', requests => '[{"key": "c#1", "kind": "job", "name": "loop", "id": "j", "queue": "loops"}]'))
        ->> 'state',
    'keep',
    'a request for a child may be repeated in any run of the child');
select is(mail_of('p'), '[]', 'a child in its next run counts as the same child [P12]');
select given(tell(a_turn('j', '2/main', 'done', value => '"all"', touches => '{p}')));
select is(mail_of('p'), '[["1/main", "c#1", true, "all"]]', 'a parent gets the result of the last run (E17)');

-- Turns that are refused.

select have_held_job('bad');
select given(tell(a_turn('bad', requests => '[{"key": "h", "name": "h", "queue": "bad"}]')));
select given(take('bob', '{bad}'));
select is(
    tell(turn) #>> '{error,code}',
    code,
    format('%s is refused', about))
  from (values
        ('an argument that is not a list', a_turn('bad', state => 'continue', value => '"x"'), 'PD103'),
        ('a failure that is too deep', a_turn('bad', state => 'continue') || jsonb_build_object(
            'failure', (repeat('[', 200) || repeat(']', 200))::jsonb), 'PD302'),
        ('a hook that continues', a_turn('bad', '1/main/h', 'continue', worker => 'bob'), 'PD107')
       ) as cases (about, turn, code);
select is((the_job('bad') ->> 'run')::integer, 1, 'nothing of a refused turn is applied');

-- A job that awaits signals when its code returns ends only if none has come.

select have_held_job('gather');
select given(signal('gather', 'other'));
select given(signal('gather', 'row', '1'));
select is(
    tell(a_turn('gather', state => 'done', value => '"first"', awaits => '{column,row}')),
    '{"state": "continue"}',
    'a job does not end while a signal is open that it awaits [P5]');
select is(
    jsonb_build_array(the_job('gather') -> 'status', the_job('gather') -> 'run', the_job('gather') -> 'args',
                      the_job('gather') -> 'result', tasks_of('gather')),
    '["running", 2, [], null, ["2/main"]]',
    'its next run begins instead, with the same arguments');
select is(take('ada', '{gather}'), '[]', 'after a run that has taken no signal, the next waits for a second');
select time_passes('1 s');
select given(take('ada', '{gather}'));
select is(
    tell(a_turn('gather', '2/main', 'done', value => '"second"', awaits => '{row}',
                facts => jsonb_build_array(jsonb_build_object('message', message_of('gather', 'row'))))) ->> 'state',
    'done',
    'a job ends with a turn that takes the last signal, though others are open');
select is((result('gather')).result, '"second"', 'its result is that of the last run');
select is(tell(a_turn('gather', '2/main', 'done', awaits => '{other}')) ->> 'state', 'gone', 'it has ended');
select have_held_job('gather more');
select given(tell(a_turn('gather more', requests => '[{"key": "h", "name": "h", "queue": "gather more"}]')));
select given(take('bob', '{gather more}'));
select given(signal('gather more', 'row'));
select is(
    tell(a_turn('gather more', '1/main/h', 'done', awaits => '{row}', worker => 'bob')) ->> 'state',
    'done',
    'a hook ends, whatever it awaits');
select given(tell(a_turn('gather more', facts => jsonb_build_array(
    jsonb_build_object('message', message_of('gather more', 'row')),
    jsonb_build_object('message', message_of('gather more', 'h'))))));
select given(hook('gather more', 'late', key => 'late', queue => 'gather more'));
select given(take('bob', '{gather more}'));
select is(
    tell(a_turn('gather more', state => 'done', awaits => '{row}'),
         a_turn('gather more', '$hook/late', facts => '[{"signal": "row"}]', worker => 'bob')) #>> '{0,state}',
    'continue',
    'a signal of the same batch counts');

-- A request to cancel reaches the next run.

select have_held_job('c');
select given(cancel('c', 'enough'));
select given(tell(a_turn('c', state => 'continue', until => clock() + interval '1 h')));
select is(
    mail_of('c'),
    '[["2/main", "$cancel", false, "enough"]]',
    'a request to cancel that was not consumed moves to the next run (E2)');
select is(
    take('ada', '{c}') #>> '{0,messages,0,key}',
    '$cancel',
    'the next run receives a request to cancel at once, whatever its due time');

-- The requests of a run end with it.

select have_held_job('f');
select given(tell(a_turn('f', requests => '[
    {"key": "h", "name": "h", "queue": "f"}, {"key": "i", "kind": "item", "name": "ask"},
    {"key": "c", "kind": "job", "name": "child", "queue": "fc"},
    {"key": "d", "kind": "job", "name": "child", "queue": "fc", "detached": true}]')));
select given(take('bob', '{f}'));
select given(cancel_hook('f', '1/main/h'));
select given(tell(a_turn('f', state => 'continue')));
select is(
    tasks_of('f'),
    '{$parent_end/1/main,1/main/h,2/main}',
    'a hook that was asked to cancel may clean up, and $parent_end is left for the children');
select is(
    (select count(*) from items where job_id = 'f' and is_open),
    0::bigint,
    'the items of a run that is over are closed');
select given(run_task('f', '$parent_end/1/main', token_of('clock'))) from take('clock', '{$sql}', 100);
select is(
    (select jsonb_object_agg(i.job_id, i.task) from inbox as i where i.job_id in ('f/c', 'f/d') and i.key = '$cancel'),
    '{"f/c": "1/main"}',
    'the child that the last run awaited is asked to cancel, the detached one is not (E3)');

-- A failed run and its next attempt.

select have_held_job('r');
select given(tell(a_turn('r', state => 'continue', until => clock() + interval '10 s')
                  || '{"failure": {"type": "OSError", "message": "no answer"}}'));
select is(
    jsonb_build_array(the_job('r') -> 'run', the_job('r') -> 'args', the_task('r', '2/main') -> 'attempt',
                      (the_task('r', '2/main') ->> 'due_at')::timestamptz = clock() + interval '10 s'),
    '[2, [], 1, true]',
    'a failed run begins again with its arguments, after a pause (E4)');
select matches(
    (status('r')).waiting_for,
    '^attempt 2 at 2030.*, after: no answer$',
    'the status of a job shows its next attempt, and the failure (E6)');
select is(take('ada', '{r}'), '[]', 'the next attempt is not claimed before it is due [P7]');
select time_passes('10 s');
select is(take('ada', '{r}') #> '{0,attempt}', '1', 'an attempt knows the number of earlier ones');
select is(
    (select f.value from journal as f where f.job_id = 'r' and f.task = '$run'),
    '{"status": "failed", "error": {"type": "OSError", "message": "no answer"}}',
    'the journal has the failure of each attempt');
select given(tell(a_turn('r', '2/main', 'failed', value => '{"type": "OSError", "message": "still none"}')));

-- retry().

select is(retry(id), false, format('%s cannot be retried', about))
  from (values ('a job that runs', 'c'), ('a job that has completed', 'j'), ('a plain entity', 'e'))
    as cases (about, id)
  join entity_create('e', 'note') on true;
select given(signal('r', 'old', key => 's')) from hook('r', 'h', key => 'h');
select given(take('bob', '{default}', 10));
select given(tell(a_turn('r', '$hook/h', 'done', worker => 'bob')));
select is(retry('r', key => 'again'), true, 'a failed job can be retried');
select is(
    jsonb_build_array(the_job('r') -> 'run', the_job('r') -> 'args', the_job('r') -> 'status', the_job('r') -> 'error'),
    '[3, [], "running", null]',
    'a retry is a new run with the last arguments');
select is(the_task('r', '3/main') ->> 'queue', 'r', 'a retry is on the queue of the last run');
select is(mail_of('r'), '[]', 'messages to the ended run do not reach the retry');
select is(retry('r', key => 'again'), true, 'a repeated retry returns the same answer [P12]');
select is((the_job('r') ->> 'run')::integer, 3, 'a repeated retry begins no run');
select given(start('w', id => 'same key', key => 'k'));
select given(terminate('same key'));
select is(
    jsonb_build_array(retry('same key', key => 'k'), the_job('same key') -> 'status'), '[true, "cancelled"]',
    'a retry with the key of the start begins no run, because a key stands for one call');
select given(terminate('r'));
select is(
    retry('r', '["other"]', timeout => '1 h'),
    true,
    'a cancelled job can be retried, with other arguments');
select is(
    jsonb_build_array(the_job('r') -> 'args', the_job('r') -> 'timeout', tasks_of('r')),
    '[["other"], "01:00:00", ["4/main", "4/main/$deadline"]]',
    'a retry may have another timeout');
select given(pause('r')) from terminate('r');
select given(retry('r'));
select is(
    (select jsonb_object_agg(t.task, t.paused) from tasks as t where t.job_id = 'r'),
    '{"5/main": true, "5/main/$deadline": false}',
    'a retry of a paused job begins paused, but its deadline does not');
select given(resume('r'));
select given(pause('r')) from take('ada', '{r}');
select given(tell(a_turn('r', '5/main', 'continue')));
select is(
    (select jsonb_object_agg(t.task, t.paused) from tasks as t where t.job_id = 'r'),
    '{"6/main": true, "6/main/$deadline": false}',
    'a job that was paused before it continued is paused in its next run');
select given(resume('r'));
select is(error_of(statement), code, format('%s is refused', about))
  from (values ('a retry of a job that does not exist', 'select retry(''none'')', 'PD401'),
               ('a retry with bad arguments', 'select retry(''bad'', ''"x"'') from terminate(''bad'')', 'PD103'),
               ('a retry with a timeout of zero', 'select retry(''bad'', timeout => ''0'') from terminate(''bad'')',
               'PD107'))
    as cases (about, statement, code);

-- Old runs: their facts are forgotten, but not the commands on the memory.

select is((select count(*) from generate_series(1, 3) where forget_old_runs('j', 1) = 1), 1::bigint,
          'forget_old_runs() deletes facts of old runs, a few at a time (E17)');
select is(journal_of('j') #> '{0,1}', '"command"', 'forget_old_runs() keeps the commands of old runs');
select is(jsonb_array_length(journal_of('j')), 1, 'forget_old_runs() keeps nothing but the commands');
select is(error_of($$ select forget_old_runs('none') $$), 'PD401',
          'forget_old_runs() refuses a job that does not exist');

select have_held_job('keys');
create function pg_temp.take_signal(key text) returns void
language plpgsql
as $$
begin
    perform signal('keys', 'go', key => take_signal.key);
    perform tell(a_turn('keys', facts => jsonb_build_array(jsonb_build_object('message', message_of('keys', 'go')))));
end
$$;
do $$ begin perform pg_temp.take_signal(key) from unnest('{a,b}'::text[]) as key; end $$;
select time_passes('23 h');
select given(take('ada', '{keys}'));
do $$ begin perform pg_temp.take_signal('c'); end $$;
select given(signal('keys', 'go', key => 'd'));
select time_passes('2 h');
select is(
    array(select forget_old_runs('keys', 1) from generate_series(1, 3)),
    '{1,1,0}',
    'forget_old_runs() deletes keys of signals that were taken more than a day ago, a few at a time');
select is(
    array(select signal('keys', 'go', key => key) from unnest('{a,c,d}'::text[]) as key),
    '{t,f,f}',
    'keys of signals that were taken later, or never, stay [P12]');

-- Open signals stay for hooks that are alive.

select have_held_job('hooked');
select given(hook('hooked', 'h', key => 'h', queue => 'hooks'));
select given(signal('hooked', 'go', '"old"'));
select given(tell(a_turn('hooked', state => 'done')));
select given(start('research', id => 'hooked', queue => 'hooked', if_exists => 'new_run'));
select is(
    mail_of('hooked'),
    '[[null, "go", true, "old"]]',
    'a signal survives a new run while a live hook may take it [P5]');

-- Signals that a run consumed are deleted with it, but their keys stay. Open signals stay.

select have_held_job('actor');
create function pg_temp.take_signals(many integer) returns void
language plpgsql
as $$
begin
    perform signal('actor', 'job', to_jsonb(n), key => case when n % 2 = 0 then gen_random_uuid()::text end)
       from generate_series(1, take_signals.many) as n;
    perform tell(a_turn('actor', the_job('actor') ->> 'run' || '/main', state => 'continue', facts => (
        select jsonb_agg(jsonb_build_object('kind', 'signal', 'key', 's' || i.id, 'name', 'job',
                         'message', i.id) order by i.id)
          from inbox as i
         where i.job_id = 'actor' and i.task is null and i.name = 'job' and i.consumed_at is null)));
    perform take('ada', '{actor}');
end
$$;
create function pg_temp.messages_read(statement text) returns bigint
language plpgsql
as $$
declare
    before bigint := (select s.idx_tup_fetch from pg_stat_xact_user_tables as s where s.relid = 'perdure.inbox'::regclass);
begin
    execute messages_read.statement;
    return (select s.idx_tup_fetch - before from pg_stat_xact_user_tables as s where s.relid = 'perdure.inbox'::regclass);
end
$$;
select given(signal('actor', 'job', '"first"', key => 'k'));
select given(signal('actor', 'later', '"open"', key => 'open'));
select pg_temp.take_signals(1);
select is(the_job('actor') ->> 'run', '2', 'a run that has consumed signals may continue');
select is(
    (select jsonb_agg(jsonb_build_array(i.name, i.payload, i.dedupe_key) order by i.id)
       from inbox as i
      where i.job_id = 'actor'),
    '[["job", null, "k"], ["later", "open", "open"]]',
    'of consumed signals only the keys stay, open signals stay whole');
select is(signal('actor', 'job', '"first"', key => 'k'), false,
          'a repeated signal is recognized in the next run [P12]');
select is((select jsonb_agg(f.value) from journal as f where f.job_id = 'actor' and f.kind = 'signal'),
          '["first", 1]', 'the journal has the payloads of consumed signals');
select pg_temp.take_signals(300) from generate_series(1, 3);
select given(tell(a_turn('actor', '5/main', state => 'park', awaits => '{job}')));
select cmp_ok(pg_temp.messages_read($$ select signal('actor', 'job', key => 'next') $$), '<=', 10::bigint,
              'a signal does not read the messages of earlier runs');
select is(take('ada', '{actor}') #>> '{0,messages,0,name}', 'job', 'a signal wakes the waiting run [P5]');
select given(terminate('actor'));
select is((retry('actor'), retry('actor'))::text, '(t,f)', 'a terminated job can be retried, a running one cannot');
select given(terminate('actor'));

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands [P3]');
select finish();
rollback;
