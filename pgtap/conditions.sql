-- Conditions: a task waits until its memory meets a condition. The writer that makes the condition true answers at that
-- moment. [P5] [P8] (E10)

begin;
select plan(147);

select the_time_is('2030-01-01 12:00+00');

-- Functions of this file.

create function until(condition text, key text default 'u') returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(jsonb_build_object('key', until.key, 'kind', 'until', 'condition', until.condition));
end
$$;

create function have_waiting(id text, condition text, context jsonb default '{}') returns void
language plpgsql
as $$
begin
    perform have_held_job(have_waiting.id, have_waiting.context);
    perform tell(a_turn(have_waiting.id, state => 'park', requests => until(have_waiting.condition)));
end
$$;

create function is_awake(job text, task text default '1/main') returns boolean
language plpgsql
as $$
begin
    return (the_task(is_awake.job, is_awake.task) ->> 'due_at')::timestamptz <= clock();
end
$$;

create function awaited_by(job text) returns jsonb
language plpgsql
as $$
begin
    return coalesce((select jsonb_agg(jsonb_build_array(c.task, c.key) order by c.task, c.key)
                       from conditions as c
                      where c.job_id = awaited_by.job), '[]');
end
$$;

-- A condition that is already true.

select have_held_job('now', '{"n": 5}');
select is(tell(a_turn('now', requests => until('$.n > 3'))), '{"state": "keep"}', 'a turn may ask for a condition');
select is(mail_of('now'), '[["1/main", "u", true, 1]]',
          'a condition that is true already is answered at once, with the version');
select is(awaited_by('now'), '[]', 'an answered condition is no longer awaited');
select is(
    tell(a_turn('now', state => 'park')) #> '{messages,0,payload}',
    '1',
    'a task that parks with a true condition keeps its lease and gets the answer');
select have_held_job('own');
select is(
    tell(a_turn('own', state => 'park', facts => '[{"op": "set", "path": ["n"], "value": 4}]',
                requests => until('$.n == 4'))) #> '{messages,0,payload}',
    '1',
    'a condition sees the commands of its own turn');
select have_held_job('own middle');
select is(
    tell(a_turn('own middle', state => 'park', requests => until('$.n == 1'),
                facts => '[{"op": "set", "path": ["n"], "value": 1}, {"op": "set", "path": ["n"], "value": 2}]'))
        ->> 'state',
    'parked',
    'a condition that was true only in the middle of its own turn is not met');
select is(
    jsonb_build_array(the_job('own middle') -> 'watched', awaited_by('own middle')),
    '[true, [["1/main", "u"]]]',
    'an unmet condition is recorded, and its memory is marked as watched');

-- Every way to write answers a condition.

create temporary table writers (
    number     serial,
    about      text,
    context    jsonb,
    condition  text,
    statement  text
) on commit drop;
insert into writers (about, context, condition, statement) values
    ('set', '{}', '$.n == 1', $$ select entity_set(%L, '1', 'n') $$),
    ('merge', '{}', '$.a.b == "x"', $$ select entity_merge(%L, '{"a": {"b": "x"}}') $$),
    ('append', '{"l": [1]}', '$.l.size() == 2', $$ select entity_append(%L, 'l', '2') $$),
    ('prepend', '{"l": [1]}', '$.l[0] == 0', $$ select entity_prepend(%L, 'l', '0') $$),
    ('remove', '{"l": [1, 2]}', '$.l.size() == 1', $$ select entity_remove(%L, 'l', 0) $$),
    ('increment', '{"n": 2}', '$.n > 2', $$ select entity_increment(%L, 'n') $$),
    ('toggle', '{}', '$.ok == true', $$ select entity_toggle(%L, 'ok') $$),
    ('set_if_not_exists', '{}', 'exists($.n)', $$ select entity_set_if_not_exists(%L, 'n', 'null') $$),
    ('delete', '{"n": 1}', '!exists($.n)', $$ select entity_delete(%L, 'n') $$),
    ('apply', '{}', '$.n == 2',
     $$ select entity_apply(%L, '[{"op": "set", "path": "n", "value": 1}, {"op": "set", "path": "n", "value": 2}]') $$),
    ('apply, only in the middle', '{}', '$.n == 1',
     $$ select entity_apply(%L, '[{"op": "set", "path": "n", "value": 1}, {"op": "set", "path": "n", "value": 2}]') $$),
    ('a plain UPDATE', '{}', '$.n == 1', $$ update perdure.jobs set context = '{"n": 1}' where id = %L $$),
    ('a plain UPDATE that writes a whole row back', '{}', '$.n == 1',
     $$ update perdure.jobs set context = '{"n": 1}', watched = false where id = %L $$),
    ('restore', '{"n": 1}', '$.n == 1 && !exists($.m)', $$ select entity_restore(%L, 1) $$),
    ('a turn of another task', '{}', '$.n == 1',
     $$ select tell(a_turn(%L, '$hook/h', worker => 'bob', facts => '[{"op": "set", "path": ["n"], "value": 1}]')) $$),
    ('a turn of another task, only in the middle', '{}', '$.n == 1',
     $$ select tell(a_turn(%L, '$hook/h', worker => 'bob', facts => '[{"op": "set", "path": ["n"], "value": 1},
                                                                      {"op": "set", "path": ["n"], "value": 2}]')) $$),
    ('the last turn of another task', '{}', '$.n == 1',
     $$ select tell(a_turn(%L, '$hook/h', 'done', worker => 'bob',
                           facts => '[{"op": "set", "path": ["n"], "value": 1}]')) $$),
    ('a predicate that is only a value', '{}', '$.ok', $$ select entity_set(%L, 'true', 'ok') $$);
select have_held_job(about, context) from writers;
select given(entity_set('restore', '2', 'n'));
select given(entity_set('restore', '2', 'm'));
select given(hook(about, 'h', queue => 'hooks', key => 'h')) from writers;
select given(take('bob', '{hooks}', 100));
select given(tell(a_turn(about, state => 'park', requests => until(condition)))) from writers;
select is_empty($$ select about from writers where is_awake(about) $$, 'a task that waits for a condition sleeps');
select is_empty(
    'select * from assert_invariants()',
    'a task may wait for nothing but a condition [P8]');
select given(entity_set(about, '0', 'else')) from writers where about <> 'restore';
select is_empty(
    $$ select about from writers where is_awake(about) $$,
    'a write that does not make a condition true wakes no task');
select lives_ok(format(statement, about), about || ' is written where somebody waits')
  from (select * from writers order by number) as writers;
select is(
    jsonb_build_array(is_awake(about), mail_of(about) #- '{0,3}', awaited_by(about)),
    '[true, [["1/main", "u", true]], []]',
    format('%s wakes the waiting task once, by making its condition true', about))
  from (select * from writers order by number) as writers;
select is(mail_of('apply, only in the middle') #> '{0,3}', '2',
          'the answer is the version that made the condition true');
select is(mail_of('a turn of another task, only in the middle') #> '{0,3}', '2',
          'the answer is the right version for a command in the middle of a turn');
select is(mail_of('a plain UPDATE') #> '{0,3}', '2', 'the answer is the right version for a plain UPDATE');
select is(
    (select array_agg(distinct the_job(about) ->> 'watched') from writers),
    '{false}',
    'the writer that answers the last condition ends the watching');
select is(the_job('a plain UPDATE') #> '{context}', '{"n": 1}', 'a plain UPDATE writes its document unchanged');

-- A condition needs to be true only once.

select have_waiting('brief', '$.n == 1');
select given(entity_set('brief', '1', 'n'));
select given(entity_set('brief', '2', 'n'));
select is(
    jsonb_build_array(is_awake('brief'), mail_of('brief')),
    '[true, [["1/main", "u", true, 1]]]',
    'a condition that is true for a moment is met, although it is false when the task wakes');
select given(entity_set('brief', '1', 'n'));
select is(mail_of('brief'), '[["1/main", "u", true, 1]]', 'a condition is answered only once');

-- A condition of a task that is held.

select have_held_job('held');
select given(tell(a_turn('held', requests => until('$.n == 1'))));
select given(entity_set('held', '1', 'n'));
select isnt(the_task('held') ->> 'token', null, 'an answer does not move the lease of a held task');
select is(tell(a_turn('held', state => 'park')) ->> 'state', 'keep',
          'a task that parks when its answer is in the inbox keeps its lease');

-- A condition with a deadline.

select have_held_job('late');
select given(tell(a_turn('late', state => 'park', until => clock() + interval '1 h', requests => until('$.n == 1'))));
select time_passes('10 min');
select given(entity_set('late', '1', 'n'));
select is(is_awake('late'), true, 'a condition that is met before the deadline wakes the task at once');
select time_passes('2 h');
select is(
    (take('ada', '{late}') #>> '{0,messages,0,sent_at}')::timestamptz,
    clock() - interval '2 h',
    'an answer that is read late has the time when the condition was met');

-- Several conditions of several tasks.

select have_held_job('many');
select given(hook('many', 'h', queue => 'many hooks', key => k)) from unnest('{a,b}'::text[]) as k;
select given(take('bob', '{many hooks}', 2));
select given(tell(a_turn('many', state => 'park', requests => until('$.n >= 1', 'one') || until('$.n >= 2', 'two'))));
select given(tell(a_turn('many', '$hook/a', 'park', worker => 'bob', requests => until('$.n >= 2', 'two'))));
select given(tell(a_turn('many', '$hook/b', 'park', worker => 'bob', requests => until('$.n >= 3', 'three'))));
select given(entity_set('many', '2', 'n'));
select is(
    mail_of('many'),
    '[["$hook/a", "two", true, 1], ["1/main", "one", true, 1], ["1/main", "two", true, 1]]',
    'one write answers all conditions that it makes true');
select is(
    jsonb_build_array(is_awake('many'), is_awake('many', '$hook/a'), is_awake('many', '$hook/b'),
                      the_job('many') -> 'watched'),
    '[true, true, false, true]',
    'a task with another condition sleeps on, and the memory stays watched');

-- A repeated request.

select have_held_job('again');
select given(tell(a_turn('again', requests => until('$.n == 1')))) from generate_series(1, 2);
select is(awaited_by('again'), '[["1/main", "u"]]', 'a request that is repeated while it waits changes nothing [P12]');
select given(entity_set('again', '1', 'n'));
select given(entity_set('again', '2', 'n'));
select given(tell(a_turn('again', requests => until('$.n == 1'))));
select is(
    jsonb_build_array(awaited_by('again'), mail_of('again')),
    '[[], [["1/main", "u", true, 1]]]',
    'a request that is repeated while its answer is in the inbox changes nothing [P12]');
select given(tell(a_turn('again', facts => jsonb_build_array(jsonb_build_object(
    'kind', 'answer', 'key', 'u', 'message', message_of('again', 'u'))))));
select given(tell(a_turn('again', requests => until('$.n == 1'))));
select is(
    jsonb_build_array(awaited_by('again'), mail_of('again'), journal_of('again')),
    '[[], [], [[1, "answer", "u", true, 1]]]',
    'a request that is repeated after its answer was consumed changes nothing [P12]');
select given(tell(a_turn('again', requests => until('$.n == 2', 'other'))));
select is(mail_of('again'), '[["1/main", "other", true, 2]]', 'a request with another key is another condition');

-- Withdrawn conditions, and conditions of tasks that have ended.

select have_held_job('withdrawn');
select given(tell(a_turn('withdrawn', requests => until('$.n == 1', 'a') || until('$.n == 1', 'b'))));
select given(tell(a_turn('withdrawn', cancels => '["a"]')));
select is(awaited_by('withdrawn'), '[["1/main", "b"]]', 'a task withdraws one condition and keeps the others');
select given(entity_set('withdrawn', '1', 'n'));
select is(mail_of('withdrawn'), '[["1/main", "b", true, 1]]', 'a withdrawn condition is not answered');
select have_held_job('theirs');
select given(tell(a_turn('theirs', requests => until('$.n == 1')
                         || '[{"key": "h", "name": "h", "queue": "their hooks"}]')));
select given(take('bob', '{their hooks}'));
select given(tell(a_turn('theirs', '1/main/h', worker => 'bob', requests => until('$.n == 1'))));
select given(tell(a_turn('theirs', cancels => '["u"]')));
select is(awaited_by('theirs'), '[["1/main/h", "u"]]', 'a task withdraws no condition of another task');
select given(cancel_hook('theirs', '1/main/h'));
select given(tell(a_turn('theirs', state => 'done')));
select is(awaited_by('theirs'), '[["1/main/h", "u"]]',
          'a condition of a hook that cleans up stays when its asker ends');
select given(tell(a_turn('theirs', '1/main/h', 'done', worker => 'bob')));
select have_held_job('end');
select given(tell(a_turn('end', requests => until('$.n == 1') || '[{"key": "h", "name": "h", "queue": "end hooks"}]')));
select given(hook('end', 'h', queue => 'end hooks', key => 'h'));
select given(take('bob', '{end hooks}', 2));
select given(tell(a_turn('end', task, 'park', worker => 'bob', requests => until('$.n == 1'))))
  from unnest('{1/main/h,$hook/h}'::text[]) as task;
select is(
    awaited_by('end'),
    '[["$hook/h", "u"], ["1/main", "u"], ["1/main/h", "u"]]',
    'hooks may wait for conditions too');
select given(tell(a_turn('end', state => 'done')));
select is(
    awaited_by('end'),
    '[["$hook/h", "u"]]',
    'a task that ends takes its conditions and those beneath it along; a hook from outside keeps its own');
select given(entity_set('end', '1', 'n'));
select is(mail_of('end'), '[["$hook/h", "u", true, 1]]',
          'a condition of a hook from outside is answered after the job has finished');
select have_waiting('terminated', '$.n == 1');
select given(terminate('terminated'));
select is(awaited_by('terminated'), '[]', 'terminate() removes the conditions of a job');
select is(the_job('terminated') ->> 'watched', 'true', 'terminate() leaves the memory watched');
select given(entity_set('terminated', '1', 'n'));
select is(
    jsonb_build_array(the_job('terminated') -> 'watched', mail_of('terminated')),
    '[false, []]',
    'the next write ends the watching, and sends no answer');
select is(forget('terminated'), true, 'a memory that was watched can be forgotten');

-- What is not a valid condition.

select have_held_job('bad', '{"n": 1}');
select is(
    jsonb_build_array(
        tell(a_turn('bad', facts => '[{"op": "set", "path": ["n"], "value": 2}]', requests => until(condition)))
            #> '{error,code}',
        the_job('bad') -> 'version'),
    '["PD108", 1]',
    format('%s is not a condition: the whole turn is refused', about))
  from (values
        ('a syntax error', '$.n >'),
        ('no path', 'n > 3'),
        ('nothing', ''),
        ('a wrong regular expression', '$.n like_regex "("'),
        ('a wrong flag', '$.n like_regex "a" flag "y"'),
        ('a flag that PostgreSQL does not have', '$.n like_regex "a" flag "x"'),
        ('a number out of range', '$.n > 1e999999'),
        ('half a character', '$.n == "\ud800"'),
        ('a character that text cannot hold', '$.n == "\u0000"'),
        ('last outside of an array', '$.n == last'),
        ('a variable', '$.n > $limit'),
        ('a variable in a corner', '$.n > 3 && $."a" == $"b c"'),
        ('a path that ends in a filter', '$.l[*] ? (@.done == true)'),
        ('a path with several filters that ends in one', '$.l ? (@.a ? (@ > 1).b == 2) ? (@."?(" == ")" || @ > 3)'),
        ('a strict path that ends in a filter', 'strict $.l[*] ? (exists(@.done))'),
        ('a filter that compares with false', '$.approved ? (@ == false)'),
        ('a strict filter for what true is not', 'strict $.l ? (@.size() == 1)'),
        ('a filter with a dollar in a text', '$.l[*] ? (@.price == "$5")'),
        ('a text of 1001 bytes', '$.n == "' || repeat('x', 992) || '"'),
        ('a text of more bytes than characters', '$.n == "' || repeat('é', 600) || '"')
       ) as cases (about, condition);
select is(
    tell(a_turn('bad', requests => '[{"key": "u", "kind": "until"}]')) #>> '{error,code}',
    'PD108',
    'null is not a condition');
select is(condition_failure(condition), null::jsonb, format('%s is a condition', condition))
  from (values ('$.n == "' || repeat('x', 991) || '"'), ('$.n == "$\"x\""'), ('$."$\"x\"" > 1'), ('$.price == "$5"'),
               ('exists($.a[*] ? (@.b like_regex "^\"$"))'),
               ('strict $.a.b > 1'), ('$ == null'), ('$.b'), ('$.l[*]'), ('$.b ? (@ == true)'),
               ('strict $.b ? (@ != false)'), ('$.b ? (!(@.x == true))'), ('$.b ? ($.n > 3)'), ('$.l ? (@.a == 1).b'),
               ('$.l ? (@.a == 1)[0]'),
               ('exists($.l[*] ? (@.done == true))'), ('$.l ? (@.a > 1).size() > 1'), ('!($.l ? (@ > 1) == 2)'),
               ('$.a ? (@.b > 1) > 2'), ('$."?(1 > 2)"'), ('$.a == "?(@.b > 1)"')) as cases (condition);
select is(awaited_by('bad'), '[]', 'a refused condition is not recorded');

-- Errors that a condition raises never reach a writer.

select have_waiting('odd ' || about, condition)
  from (values
        ('type', '$.n > 3'),
        ('arithmetic', '$.n / $.m > 1'),
        ('strict', 'strict $.a.b.c == 1'),
        ('times', '$.at.datetime() > "2030-01-01 00:00:00+00".datetime()'),
        ('template', '$.at.datetime("?!") > "2030-01-01".datetime()'),
        ('several', '$.l[*]')
       ) as cases (about, condition);
select lives_ok(
    format($$ select entity_set(%L, '{"n": "text", "m": 0, "a": 1, "at": "2030-01-01", "l": [true, true]}') $$,
           j.id),
    format('a condition that cannot be evaluated does not disturb the writer: %s', j.id))
  from jobs as j
 where j.id like 'odd %';
select is_empty($$ select j.id from jobs as j where j.id like 'odd %' and is_awake(j.id) $$,
                'a condition that cannot be evaluated is not met');
select given(entity_set('odd times', '"2030-01-02 00:00:00+00"', 'at'));
select is(is_awake('odd times'), true, 'a condition is met as soon as it can be evaluated and is true');

-- Conditions in views.

select have_held_job('seen');
select given(tell(a_turn('seen', state => 'park', awaits => '{go}', until => clock() + interval '1 h',
                         requests => until('$.n>3', 'a') || until('exists($.m)', 'b'))));
select is(
    (select w.state || ': ' || w.waits_for from waiting as w where w.job_id = 'seen'),
    format('waiting: signal go, its memory: ($."n" > 3) or exists ($."m"), its time: %s', clock() + interval '1 h'),
    'the view waiting shows the conditions of a task');
select matches((status('seen')).waiting_for, 'its memory: ', 'the status of a job shows its conditions');

-- entity_meets: asks from outside.

select is(entity_meets('now', '$.n == 5'), 1::bigint, 'a memory that meets a condition returns its version');
select is(entity_meets('now', '$.n == 6'), null::bigint, 'a memory that does not meet a condition returns null');
select is(
    entity_meets('odd times', '$.at.datetime() > "2030-01-01".datetime()'),
    null::bigint,
    'a condition that cannot be evaluated returns null');
select throws_ok($$ select entity_meets('now', '$.n >') $$, 'PD108', null, 'an invalid condition is refused');
select throws_ok($$ select entity_meets('now', null) $$, 'PD108', null, 'a condition of null is refused');
select throws_ok($$ select entity_meets('nobody', '$.n > 1') $$, 'PD401', null,
                 'the condition of a job that does not exist is refused');

-- entity_watch: clients that watch a memory.

select given(entity_create('w', 'note', '{"n": 1}'));
select is(entity_watch('w', 'client'), 1::bigint, 'a client that watches a memory gets its version');
select is(
    jsonb_build_array(the_job('w') -> 'watched', (select jsonb_agg(l.topic || ' ' || l.listener) from listeners as l)),
    '[true, ["$memory/w client"]]',
    'a memory with a client is watched, and the client is a listener');
select given(entity_set('w', '2', 'n'));
select is(the_job('w') ->> 'watched', 'true', 'a write leaves a memory watched while a client listens');
select time_passes('40 min');
select is(entity_watch('w', 'client'), 2::bigint, 'a client repeats entity_watch() from time to time');
select time_passes('40 min');
select given(entity_set('w', '3', 'n'));
select is(the_job('w') ->> 'watched', 'true', 'a client that repeats entity_watch() keeps the memory watched');
select time_passes('1 h');
select given(entity_set('w', '4', 'n'));
select is(the_job('w') ->> 'watched', 'false', 'a client that was silent for an hour is forgotten');
select is(entity_watch('w', 'client'), 4::bigint, 'a client that was forgotten may come back');
select is(the_job('w') ->> 'watched', 'true', 'the memory of a client that came back is watched again');
select is(entity_watch('w', 'another'), 4::bigint, 'a second client may watch the same memory');
select is((select array_agg(l.listener order by l.listener) from listeners as l where l.topic = '$memory/w'),
          '{another,client}', 'each client that watches a memory is a listener of its own');
select stop_listening('another');
select stop_listening('client');
select given(entity_set('w', '5', 'n'));
select is(the_job('w') ->> 'watched', 'false', 'the write after the last client has gone ends the watching');
select throws_ok($$ select entity_watch('nobody', 'client') $$, 'PD401', null,
                 'a memory that does not exist cannot be watched');
select throws_ok($$ select entity_watch('w', '') $$, 'PD104', null, 'a listener without a name is refused');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
