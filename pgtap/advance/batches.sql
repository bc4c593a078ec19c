-- Batches: turns of many tasks in one call. Each gets its own answer, in its place, and a wrong one does not affect the
-- others.

begin;
select plan(29);

select the_time_is('2030-01-01 12:00+00');

-- A hundred turns: one refused, one fenced, one gone, one stale, one in the future.

select have_held_job('b' || n, worker => case n when 20 then 'bob' else 'ada' end) from generate_series(1, 100) as n;
select given(tell(a_turn('b30', state => 'done')));
create temporary table batch as
select n, a_turn('b' || n, facts => jsonb_build_array(
              jsonb_build_object('op', 'set', 'path', '{n}'::text[], 'value', n),
              case n when 40 then '{"kind": "signal", "message": -1}'
                     when 50 then '{"kind": "note", "at": "2031-01-01T00:00:00Z"}'
                     else '{"kind": "note"}'::jsonb end),
              state => case n when 10 then 'finish' else 'keep' end) as turn
  from generate_series(1, 100) as n;
create temporary table answers as
select a.n, a.answer
  from (select tell(variadic array_agg(turn order by n)) as all_of_them from batch) as b
 cross join jsonb_array_elements(all_of_them) with ordinality as a (answer, n);
select is((select count(*) from answers), 100::bigint, 'a batch of a hundred turns has a hundred answers');
select is(
    (select jsonb_object_agg(n, answer -> 'state') from answers where answer ->> 'state' <> 'keep'),
    '{"10": "refused", "20": "fenced", "30": "gone", "40": "stale", "50": "replay"}',
    'each turn is judged separately');
select is(
    (select count(*) from answers where answer #> '{answers,0}' = '[1, true, 1]'),
    95::bigint,
    'the other turns are answered in their places');
select is(
    (select array_agg(n order by n)
       from answers
      where coalesce(the_job('b' || n) #> '{context,n}', 'null') <> to_jsonb(n)),
    '{10,20,30,40,50}',
    'a wrong turn does not affect the others');

-- Many turns of one job: their commands in the order of the turns [P3].

select have_held_job('one');
select given(hook('one', 'h', key => 'h' || n, queue => 'one')) from generate_series(1, 20) as n;
select given(take('ada', '{one}', 20));
create temporary table turns_of_one as
select n, a_turn('one', '$hook/h' || n, facts => jsonb_build_array(jsonb_build_object(
              'op', 'append', 'path', '{list}'::text[], 'value', jsonb_build_array(n)))) as turn
  from generate_series(1, 20) as n;
select is(
    (select jsonb_path_query_array(tell(variadic array_agg(turn order by n desc)), '$[*].answers[0][2]')
       from turns_of_one),
    (select jsonb_agg(n) from generate_series(1, 20) as n),
    'turns of one job are applied in their order (C42) [P3]');
select is(
    the_job('one') #> '{context,list}',
    (select jsonb_agg(n order by n desc) from generate_series(1, 20) as n),
    'no command of a batch is lost (C42) [P3]');
select is(
    (select array_agg(version order by version) from history where job_id = 'one'),
    (select array_agg(n::bigint) from generate_series(1, 20) as n),
    'versions have no gap, whichever tasks write [P3]');

-- Messages between turns of one batch.

select have_held_job(id) from unnest('{left,right}'::text[]) as id;
select is(
    jsonb_path_query_array(
        tell(a_turn('left', state => 'park', awaits => '{hello}',
                    facts => '[{"signal": "hello", "target": "right", "value": "from left"}]'),
             a_turn('right', state => 'park', awaits => '{hello}',
                    facts => '[{"signal": "hello", "target": "left", "value": "from right"}]')),
        '$[*].messages[0].payload'),
    '["from right", "from left"]',
    'a task that parks receives a signal from a neighbour in its batch [P5]');

select have_held_job('asker');
select given(tell(a_turn('asker',
                         requests => '[{"key": "h1", "name": "h", "queue": "asker"},
                                       {"key": "h2", "name": "h", "queue": "asker"}]')));
select given(take('ada', '{asker}', 2));
select is(
    tell(a_turn('asker', state => 'park'),
         a_turn('asker', '1/main/h1', 'done', value => '1')) #>> '{0,messages,0,key}',
    'h1',
    'a coordinator that parks receives the answer of a hook that ends in the same batch');
select given(tell(a_turn('asker',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'h1',
                                                                       'message', message_of('asker', 'h1'))))));
select is(
    tell(a_turn('asker', '1/main/h2', 'done', value => '2'),
         a_turn('asker', state => 'park')) #>> '{1,messages,0,key}',
    'h2',
    'the order of the turns does not matter for the answer');

select have_held_job('both');
select given(tell(a_turn('both', requests => '[{"key": "h", "name": "h", "queue": "both"}]')));
select given(take('ada', '{both}'));
select is(
    jsonb_path_query_array(tell(a_turn('both', state => 'done', value => '1'),
                                a_turn('both', '1/main/h', 'done', value => '2',
                                       facts => '[{"op": "set", "path": ["n"], "value": 1}]')), '$[*].state'),
    '["done", "done"]',
    'a coordinator and its hook may end in one batch');
select is(
    jsonb_build_array(the_job('both') -> 'status', the_job('both') -> 'context', mail_of('both'),
                      to_jsonb(tasks_of('both'))),
    '["completed", {"n": 1}, [], []]',
    'a coordinator and its hook that ended in one batch leave no task and no message');

select have_held_job('ends');
select given(tell(a_turn('ends', requests => '[{"key": "h", "name": "h", "queue": "ends"}]')));
select given(take('ada', '{ends}'));
select given(tell(a_turn('ends', '1/main/h', facts => '[{"op": "set", "path": ["n"], "value": 1}]'),
                  a_turn('ends', state => 'failed', value => '{"message": "m"}')));
select is(
    jsonb_build_array(the_job('ends') -> 'status', to_jsonb(tasks_of('ends'))),
    '["failed", []]',
    'a hook that is kept ends with its coordinator in the same batch');
select is(verdict_of(a_turn('ends', '1/main/h', seen => 1)), 'gone',
          'the holder of that hook is fenced at its next turn [P6]');

-- Two turns want one message: no signal is doubled [P5].

select have_held_job('two');
select given(hook('two', 'h', key => 'h', queue => 'two'));
select given(take('ada', '{two}'));
select given(signal('two', 'go', '"once"'));
create temporary table wanted as
select jsonb_build_array(jsonb_build_object(
           'kind', 'signal', 'key', 'go#1', 'message', message_of('two', 'go'))) as facts;
create temporary table two_turns as
select tell(a_turn('two', facts => facts),
            a_turn('two', '$hook/h', facts => '[{"op": "set", "path": ["n"], "value": 1}]' || facts)) as answers
  from wanted;
select is(
    (select jsonb_path_query_array(answers, '$[*].state') from two_turns),
    '["keep", "stale"]',
    'a signal that two turns of one batch consume goes to one of them [P5]');
select is(
    (select count(*) from journal where job_id = 'two' and value = '"once"'),
    1::bigint,
    'a signal is in one journal only [P5]');
select is(the_job('two') -> 'version', '0', 'nothing of the turn that came second is applied');

select given(signal('two', 'go', '"thrice"'));
select is(
    verdict_of(a_turn('two',
                      facts => (select jsonb_agg(jsonb_build_object('kind', 'signal', 'key', 'go#' || n,
                                                                    'message', message_of('two', 'go')))
                                  from generate_series(2, 3) as n))),
    'stale',
    'a turn that consumes one message twice is stale [P5]');

-- Two turns of one task in one batch.

select have_held_job('twice', '{"n": 0}');
select is(
    error_of($$ select tell(a_turn('twice', facts => '[{"op": "increment", "path": ["n"], "value": 1}]'),
                                  a_turn('twice', facts => '[{"op": "increment", "path": ["n"], "value": 1}]')) $$),
    null,
    'a task that is twice in a batch does not fail the batch');
select is(the_job('twice') -> 'context', '{"n": 1}', 'a turn that is twice in a batch is applied once [P12]');

-- Two coordinators request the same child.

select have_held_job(id) from unnest('{mother,father}'::text[]) as id;
create temporary table same_child as
select '[{"key": "c", "kind": "job", "name": "c", "id": "the child", "queue": "c"}]'::jsonb as request;
select is(
    jsonb_path_query_array(
        tell(a_turn('mother', requests => request), a_turn('father', requests => request)),
        '$[*].state'),
    '["keep", "keep"]',
    'two turns may request a child of the same id')
  from same_child;
select is(the_job('the child') ->> 'parent' in ('mother', 'father'), true, 'one coordinator gets the child');
select is(
    (select jsonb_agg(i.payload -> 'code') from inbox as i where i.job_id in ('mother', 'father') and i.key = 'c'),
    '["PD402"]',
    'the other coordinator gets a failure (PD402)');

-- Parent and child in one batch.

select have_held_job('parent');
select given(tell(a_turn('parent', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "parent"}]')));
select given(take('ada', '{parent}'));
select is(
    tell(a_turn('parent', state => 'park'),
         a_turn('parent/c', state => 'done', value => '7', touches => '{parent}')) #> '{0,messages,0,payload}',
    '7',
    'a parent that parks receives the result of a child that ends in the same batch (E3)');
select given(tell(a_turn('parent',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'c',
                                                                       'message', message_of('parent', 'c'))),
                         requests => '[{"key": "c2", "kind": "job", "name": "c", "queue": "parent"}]')));
select given(take('ada', '{parent}'));
select is(
    jsonb_path_query_array(tell(a_turn('parent', state => 'done'),
                                a_turn('parent/c2', state => 'done', touches => '{parent}')), '$[*].state'),
    '["done", "done"]',
    'a parent and its child may end in one batch');
select is(mail_of('parent'), '[]', 'a parent that has ended gets no messages');

-- waiting => true: the call waits for jobs that are locked. Here none is.

select is(
    advance(jsonb_build_array(a_turn('left'), a_turn('right')), waiting => true)::jsonb -> 'turns',
    '[{"state": "keep"}, {"state": "keep"}]',
    'a batch that waits gets the same answers');

-- touches_any() is a shortcut for touched_jobs(), and must agree with it.

select is_empty(
    $$
    select t.turn, jobs
      from (values
            ('{"job": "a", "state": "keep"}'::jsonb),
            ('{"job": "a"}'),
            ('{"job": "a", "state": null}'),
            ('{"job": "a", "state": "done"}'),
            ('{"job": "a", "state": "done", "touches": ["b"]}'),
            ('{"job": "a", "state": "keep", "touches": ["b"]}'),
            ('{"job": "a", "state": "keep", "touches": null}'),
            ('{"job": "a", "state": "keep", "cancels": ["c"]}'),
            ('{"job": "a", "state": "keep", "requests": []}'),
            ('{"job": "a", "state": "keep", "facts": []}'),
            ('{"job": "a", "state": "keep", "facts": null}'),
            ('{"job": "a", "state": "keep", "facts": [{"kind": "note"}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"kind": "note"}, {"op": "set"}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"op": null}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"message": null}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"message": 7}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"signal": "go"}]}'),
            ('{"job": "a", "state": "keep", "facts": [{"signal": "go", "target": "b"}]}'),
            ('{"job": "a", "state": "keep", "facts": {"op": "set"}}')
           ) as t (turn)
     cross join (values ('{a}'::text[]), ('{b}'), ('{c}'), ('{a,b}')) as m (jobs)
     where touches_any(t.turn, jobs) is distinct from jobs && touched_jobs(jsonb_build_array(t.turn))
    $$,
    'touches_any() agrees with touched_jobs()');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
