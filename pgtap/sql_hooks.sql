-- Hooks in SQL: functions that the database runs, with their task, in one transaction.

begin;
select plan(81);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.count_words(job text, args jsonb) returns jsonb
language plpgsql
as $$
begin
    perform perdure.entity_increment(job, 'runs');
    if args ->> 0 = 'fail' then
        raise exception 'no words' using errcode = 'P0001', detail = 'There were none.';
    elsif args ->> 0 = 'terminate' then
        perform perdure.terminate(job);
    end if;
    return to_jsonb(cardinality(regexp_split_to_array(args ->> 0, '\s+')));
end
$$;
create function pg_temp.count_args(job text, args jsonb) returns jsonb
language sql
strict
as $$ select to_jsonb(jsonb_array_length(args)) $$;
create function pg_temp.of_text(job text) returns jsonb language sql as $$ select '1'::jsonb $$;

create temporary table words (word text unique deferrable initially deferred);
create function pg_temp.say(job text, args jsonb) returns void
language plpgsql
as $$
begin
    insert into words (word) values (args ->> 'word');
end
$$;

create function pg_temp.run(job text, task text) returns text
language plpgsql
as $$
begin
    perform take('ada', '{$sql}', 10);
    return perdure.run_task(job, task, token_of('ada'));
end
$$;

-- Registration.

select lives_ok($$ select register_sql_hook('count', 'pg_temp.count_words') $$, 'a function can be a hook');
select lives_ok(
    $$ select register_sql_hook('count', 'pg_temp.count_words', attempts => 2, retry_in => '10 s') $$,
    'a hook may be registered again, with other options');
select throws_ok(
    $$ select register_sql_hook('text', 'pg_temp.of_text') $$, 'PD107', null,
    'a function with other arguments is refused');
select throws_ok(
    $$ select register_sql_hook('none', to_regproc('pg_temp.nowhere')) $$, 'PD107',
    'there is no function for the hook ''none''', 'a function that does not exist is refused');
select throws_ok(
    $$ select register_sql_hook('$own', 'pg_temp.count_words') $$, 'PD107', null,
    'a name that begins with a dollar is refused');
select is(error_of(statement), 'PD107', format('%s is refused', about))
  from (values
        ('no attempt',       $$ select register_sql_hook('n', 'pg_temp.say', attempts => 0) $$),
        ('attempts of null', $$ select register_sql_hook('n', 'pg_temp.say', attempts => null) $$),
        ('no pause',         $$ select register_sql_hook('n', 'pg_temp.say', retry_in => '0 s') $$),
        ('a pause of null',  $$ select register_sql_hook('n', 'pg_temp.say', retry_in => null) $$),
        ('a pause that is too long',  $$ select register_sql_hook('n', 'pg_temp.say', retry_in => '178000000 years') $$)
       ) as cases (about, statement);
select throws_ok(
    $$ select register_sql_hook('', 'pg_temp.count_words') $$, 'PD104', null, 'a hook without a name is refused');

-- Owners: the function runs with the rights of the owner of the app.

create role stranger;
create function pg_temp.planted(job text, args jsonb) returns jsonb language sql as $$ select '"owned"'::jsonb $$;
select lives_ok($$ select register_sql_hook('planted', 'pg_temp.planted') $$, 'a function of the owner can be a hook');
alter function pg_temp.planted(text, jsonb) owner to stranger;
select is(error_of($$ select register_sql_hook('theirs', 'pg_temp.planted') $$), 'PD107',
          'a function that belongs to another role cannot be a hook');
select given(entity_create('owners', 'note'));
select given(hook('owners', 'planted', queue => '$sql', key => 'k'));
select is(pg_temp.run('owners', '$hook/k'), 'failed',
          'a function that was replaced by that of another role is not called');
select is((hook_result('owners', '$hook/k')).error ->> 'code', 'PD107', 'its hook fails with the reason');
do $$ begin execute format('grant %I to stranger', current_user); end $$;
select given(hook('owners', 'planted', queue => '$sql', key => 'member'));
select is(pg_temp.run('owners', '$hook/member'), 'done', 'a function of a member of the owner''s role is called');

-- From outside.

select given(entity_create('e', 'note'));
select given(hook('e', 'count', '["a b c"]', queue => '$sql', key => 'k'));
select is(pg_temp.run('e', '$hook/k'), 'done', 'a hook in SQL runs');
select is(the_job('e') -> 'context', '{"runs": 1}', 'a hook in SQL changes the memory');
select is(journal_of('e', '$hook/k') -> 0, '[1, "end", null, true, 3]', 'the journal has the answer of a hook in SQL');
create function pg_temp.tell_settings(job text, args jsonb) returns jsonb
language sql
as $$
    select jsonb_agg(current_setting(name) order by place)
      from jsonb_array_elements_text(args) with ordinality as g (name, place)
$$;
select register_sql_hook('settings', 'pg_temp.tell_settings');
select given(hook('e', 'settings', '["plan_cache_mode", "enable_seqscan", "search_path"]',
                  queue => '$sql', key => 's'));
select given(pg_temp.run('e', '$hook/s'));
select is((hook_result('e', '$hook/s')).result, '["auto", "on", "pg_catalog, perdure, pg_temp"]',
          'the planner settings of the core do not apply in a hook in SQL');
select lives_ok($$ select register_sql_hook('args', 'pg_temp.count_args') $$, 'a hook may be strict');
select have_held_job('bare');
select given(tell(a_turn('bare', requests => '[{"key": "a", "name": "args", "queue": "$sql"}]')));
select given(pg_temp.run('bare', '1/main/a'));
select is(mail_of('bare'), '[["1/main", "a", true, 0]]',
          'a strict hook that is requested without arguments runs with an empty list');
select is(tasks_of('e'), '{}', 'a hook in SQL that has ended is gone');
select is(perdure.run_task('e', '$hook/k', token_of('ada')), 'gone', 'a repeated call does nothing [P12]');
select is(the_job('e') -> 'context', '{"runs": 1}', 'a repeated call does not run the hook again [P6]');
select is(perdure.run_task('nobody', '$hook/k', token_of('ada')), 'gone',
          'run_task() on a job that does not exist answers gone');

select register_sql_hook('say', 'pg_temp.say');
select given(hook('e', 'say', '{"word": "a"}', queue => '$sql', key => 's1'));
select is(pg_temp.run('e', '$hook/s1'), 'done', 'a hook may be a function that returns nothing');
select is(journal_of('e', '$hook/s1') -> 0, '[1, "end", null, true, null]', 'a hook that returns nothing answers null');
select given(hook('e', 'say', '{"word": "a"}', queue => '$sql', key => 's2'));
select is(pg_temp.run('e', '$hook/s2'), 'failed', 'a hook that violates a deferred constraint fails [P10]');
select is((select array_agg(w.word) from words as w), '{a}', 'a failed hook is undone, and nothing before it');

-- Requests of a coordinator.

select have_held_job('j');
select given(tell(a_turn('j', state => 'park', requests => '[
    {"key": "count#1", "name": "count", "queue": "$sql", "args": ["a b"]}]')));
select is(pg_temp.run('j', '1/main/count#1'), 'done', 'a coordinator may request a hook in SQL');
select is(
    take('ada', '{j}') -> 0 -> 'messages' -> 0 -> 'payload', '2', 'the answer of a hook in SQL wakes the coordinator');

-- Failures.

select given(tell(a_turn('j', state => 'keep', requests => '[
    {"key": "fail#1", "name": "count", "queue": "$sql", "args": ["fail"]},
    {"key": "none#1", "name": "nothing", "queue": "$sql"}]')));
select is(pg_temp.run('j', '1/main/fail#1'), 'retry', 'a hook that fails is retried');
select is(the_job('j') -> 'context', '{"runs": 1}', 'the changes of a failed attempt are undone');
select is(
    jsonb_build_array(the_task('j', '1/main/fail#1') -> 'attempt',
                      (the_task('j', '1/main/fail#1') ->> 'due_at')::timestamptz),
    jsonb_build_array(1, clock() + interval '10 s'),
    'the next attempt is due after the pause');
select time_passes('10 s');
select is(pg_temp.run('j', '1/main/fail#1'), 'failed', 'a hook fails after its last attempt');
select is(perdure.run_task('j', '1/main/none#1', token_of('ada')), 'failed', 'a hook that is not registered fails');
select is(
    (select jsonb_object_agg(i.key, jsonb_build_array(i.ok, i.payload -> 'code', i.payload -> 'message'))
       from inbox as i where i.job_id = 'j' and i.consumed_at is null and i.key <> 'count#1'),
    '{"fail#1": [false, "P0001", "no words"], "none#1": [false, "PD406", "no hook in SQL is named ''nothing''"]}',
    'the asker receives the failure [P10]');

-- Workflows cannot run in the database: run_task() locks only its own job, so an answer to another job could be lost.

select is(error_of(statement), 'PD107', format('%s does not run in the database', about))
  from (values
        ('a workflow',           $$ select start('count', queue => '$sql') $$),
        ('one of many starts',          $$ select start_many('[{"workflow": "count", "queue": "$sql"}]') $$),
        ('a start with a signal',    $$ select signal_with_start('count', 's', 'go', queue => '$sql') $$),
        ('a workflow of a schedule', $$ select create_schedule('s', 'count', '@daily', queue => '$sql') $$),
        ('a workflow on a topic of hints', $$ select start('count', queue => '$job/j') $$)
       ) as cases (about, statement);
select is(
    tell(a_turn('j', state => 'keep', requests => '[{"key": "c#1", "kind": "job", "name": "count", "queue": "$sql"}]'))
        #> '{error,code}',
    '"PD107"',
    'a child does not run in the database [P5]');
select is((select count(*) from jobs where parent = 'j'), 0::bigint, 'the refused child is not started');

-- Leases.

select given(hook('e', 'count', '["a"]', queue => '$sql', key => 'late'));
select given(take('ada', '{$sql}'));
select time_passes('31 s');
select given(take('bob', '{$sql}'));
select is(perdure.run_task('e', '$hook/late', token_of('ada')), 'gone',
          'a worker that has lost the lease runs nothing [P6]');
select is(perdure.run_task('e', '$hook/late', token_of('bob')), 'done', 'the holder of the lease runs the hook');
select have_held_job('t');
select given(tell(a_turn('t', state => 'keep', requests => '[
    {"key": "end#1", "name": "count", "queue": "$sql", "args": ["terminate"]},
    {"key": "not#1", "name": "count", "queue": "$sql", "args": ["a"]}]')));
select given(take('ada', '{$sql}', 10));
select given(tell(a_turn('t', state => 'keep', cancels => '["not#1"]')));
select is(perdure.run_task('t', '1/main/not#1', token_of('ada')), 'cancelled',
          'a claimed hook that is asked to cancel does not begin');
select is(perdure.run_task('t', '1/main/end#1', token_of('ada')), 'gone', 'a hook may terminate its own job');
select is(the_job('t') -> 'status', '"cancelled"', 'the job that its hook terminated has ended');

-- Limits of time.

create function pg_temp.take_time(job text, args jsonb) returns jsonb
language plpgsql
as $$
begin
    perform perdure.entity_increment(job, 'slow');
    perform set_config('tap.time', (perdure.clock() + (args ->> 0)::interval)::text, true);
    return '"done"';
end
$$;
select register_sql_hook(
    'slow', 'pg_temp.take_time', attempts => 3, retry_in => '10 s', timeout => '1 min', within => '150 s');
select is(error_of(format($$ select register_sql_hook('n', 'pg_temp.say', %s => '0 s') $$, limit_of)), 'PD107',
          format('a %s of zero is refused', limit_of))
  from unnest('{timeout,within}'::text[]) as limit_of;
select given(entity_create('slow', 'note'));
select given(hook('slow', 'slow', '["60 s"]', queue => '$sql', key => 'in time'));
select is(pg_temp.run('slow', '$hook/in time'), 'done', 'an attempt may take as long as its timeout');
select given(hook('slow', 'slow', '["61 s"]', queue => '$sql', key => 'k'));
select is(pg_temp.run('slow', '$hook/k'), 'retry', 'an attempt that takes longer has failed, and is retried [P10]');
select is(the_job('slow') -> 'context', '{"slow": 1}', 'the changes of an attempt that took too long are undone');
select is(
    the_task('slow', '$hook/k') #>> '{failure,message}', 'hook slow took longer than 00:01:00',
    'the failure names the timeout');
select time_passes('135 s');
select is(pg_temp.run('slow', '$hook/k'), 'failed', 'a hook fails if its next attempt would begin too late');
select is(
    (select f.value - 'hint' from journal as f where f.job_id = 'slow' and f.task = '$hook/k' and f.kind = 'end'),
    '{"code": "PD604", "type": "TimeoutError", "message": "hook slow was not done within 00:02:30",
      "detail": "It was tried 2 times; the last failed with: hook slow took longer than 00:01:00"}',
    'the failure names the limit and the last failure');
select given(hook('slow', 'slow', '["1 s"]', queue => '$sql', key => 'lost'));
select given(take('ada', '{$sql}'));
select time_passes('150 s');
select is(pg_temp.run('slow', '$hook/lost'), 'failed',
          'a hook whose worker was lost fails without an attempt when its time is up');
select is(the_job('slow') -> 'context', '{"slow": 1}', 'the hook whose time is up did not run');
select given(hook('slow', 'slow', '["1 s"]', queue => '$sql', key => 'hung'));
select given(take('ada', '{$sql}'));
select is(time_out_task('slow', '$hook/hung', token_of('bob')), 'gone',
          'time_out_task() refuses a worker that does not hold the task [P6]');
select is(time_out_task('slow', '$hook/hung', token_of('ada')), 'retry', 'time_out_task() counts the attempt');
select is(time_out_task('slow', '$hook/hung', token_of('ada')), 'gone',
          'a repeated time_out_task() does nothing [P12]');
select is(
    the_task('slow', '$hook/hung') @> jsonb_build_object('attempt', 1, 'due_at', clock() + interval '10 s'), true,
    'an attempt that timed out is retried after the pause');

select given(hook('slow', 'slow', '["1 s"]', queue => '$sql', key => 'unwanted'));
select given(take('ada', '{$sql}'));
select is(cancel_hook('slow', '$hook/unwanted'), true, 'a hook that is running may be asked to cancel');
select is(time_out_task('slow', '$hook/unwanted', token_of('ada')), 'cancelled',
          'a hook that times out after a request to cancel is cancelled [P5]');
select is(the_task('slow', '$hook/unwanted'), null, 'a cancelled hook is not retried');

-- run_task() and time_out_task() refuse tasks of workers.

select have_held_job('other');
select is(error_of(statement), 'PD107', format('%s is for hooks in SQL', verb))
  from (values
        ('run_task()',      $$ select run_task('other', '1/main', token_of('ada')) $$),
        ('time_out_task()', $$ select time_out_task('other', '1/main', token_of('ada')) $$)
       ) as cases (verb, statement);
select is((status('other')).status, 'running', 'a refused call does not end the coordinator');

-- drop_sql_hook.

select ok(drop_sql_hook('count'), 'a hook can be dropped');
select ok(not drop_sql_hook('count'), 'a dropped hook cannot be dropped again');

-- A day is 24 hours long, even if the clocks go forward on that day.

set local timezone = 'America/New_York';
select the_time_is('2030-03-09 12:00+00');
select register_sql_hook('daily', 'pg_temp.count_words', attempts => 9, retry_in => '1 day', within => '2 days');
select given(entity_create('daily', 'note'));
select given(hook('daily', 'daily', '["fail"]', queue => '$sql', key => 'h'));
select is(pg_temp.run('daily', '$hook/h'), 'retry', 'a hook with a pause of a day is retried');
select is((the_task('daily', '$hook/h') ->> 'due_at')::timestamptz, '2030-03-10 12:00+00',
          'a pause of a day is 24 hours long');
set local timezone = 'UTC';

-- The size of a failure is limited, as for workers.

create function pg_temp.lament(job text, args jsonb) returns void
language plpgsql
as $$
begin
    raise exception '%', repeat('x', 3000000) using detail = repeat('y', 3000000), hint = repeat('z', 3000000);
end
$$;
select register_sql_hook('lament', 'pg_temp.lament', attempts => 1);
select given(hook('e', 'lament', queue => '$sql', key => 'long'));
select is(pg_temp.run('e', '$hook/long'), 'failed', 'a hook with a long failure fails');
select is(
    (select jsonb_object_agg(p.key, left(p.value, 1) || length(p.value))
       from journal_of('e', '$hook/long') as told
      cross join jsonb_each_text(told -> 0 -> 4) as p
      where p.key in ('message', 'detail', 'hint')),
    '{"message": "x10000", "detail": "y10000", "hint": "z10000"}',
    'the texts of a failure are cut to 10000 letters [P10]');

-- The longest pause is not doubled.

select register_sql_hook('rare', 'pg_temp.count_words', attempts => 99, retry_in => '1000 years');
select given(hook('daily', 'rare', '["fail"]', queue => '$sql', key => 'rare'));
select is(pg_temp.run('daily', '$hook/rare'), 'retry', 'a hook with a pause of a thousand years is retried');
select register_sql_hook('rarer', 'pg_temp.count_words', attempts => 99, retry_in => '359000 days');
select given(hook('daily', 'rarer', '["fail"]', queue => '$sql', key => 'rarer'));
update tasks set attempt = 14 where task = '$hook/rarer';
select is(pg_temp.run('daily', '$hook/rarer'), 'retry', 'a hook with a long pause is retried after many attempts');
select the_time_is('3030-03-09 12:00+00');
select is(pg_temp.run('daily', '$hook/rare'), 'retry', 'a hook with the longest pause is retried again');
select is((the_task('daily', '$hook/rare') ->> 'due_at')::timestamptz, '4030-03-09 12:00+00',
          'the longest pause is not doubled');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
