-- Children: jobs that a task requests. They answer their parent. When the parent ends: `family.sql` (E3).

begin;
select plan(59);

select the_time_is('2030-01-01 12:00+00');

-- The rows of a request.

select have_held_job('p');
select is(
    tell(a_turn('p',
                requests => '[
    {"key": "c#1", "kind": "job", "name": "child"},
    {"key": "c#2", "kind": "job", "name": "child", "id": "named", "entity": "agent", "args": ["x"], "context": {"n": 1},
     "headers": {"h": 1}, "queue": "agents", "priority": 1, "due_at": "2030-01-01T13:00:00Z", "pinned_version": "v2"},
    {"key": "c#3", "kind": "job", "name": "child", "detached": true}]')),
    '{"state": "keep"}',
    'a turn may ask for children');
select is(
    the_job('p/c#1')
        - '{watched,paused,created_at,updated_at,queue,priority,limit_key,timeout}'::text[]
        - '{started_at,forked_from,on_parent_end}'::text[],
    '{"id": "p/c#1", "entity": null, "workflow": "child", "status": "running", "context": {}, "version": 0, "run": 1,
    "args": [], "result": null, "error": null, "parent": "p", "asked_as": "1/main/c#1", "headers": null,
     "pinned_version": null, "start_key": null, "finished_at": null}',
    'the id of a child is made of its parent and its key');
select is(
    the_job('named')
        - '{watched,paused,created_at,updated_at,queue,priority,limit_key,timeout}'::text[]
        - '{started_at,forked_from,on_parent_end}'::text[],
    '{"id": "named", "entity": "agent", "workflow": "child", "status": "running", "context": {"n": 1}, "version": 1,
    "run": 1, "args": ["x"], "result": null, "error": null, "parent": "p", "asked_as": "1/main/c#2",
    "headers": {"h": 1},
     "pinned_version": "v2", "start_key": null, "finished_at": null}',
    'a child has all options of its request');
select is(
    jsonb_build_array(t -> 'queue', t -> 'priority', (t ->> 'due_at')::timestamptz, t -> 'pinned_version',
                      t -> 'asker_job', t -> 'asker_task', t -> 'asker_key'),
    wanted,
    format('the coordinator of %s has its queue and its asker', id))
  from (values
        ('p/c#1', jsonb_build_array('default', 5, clock(), null, 'p', '1/main', 'c#1')),
        ('named', jsonb_build_array('agents@v2', 1, '2030-01-01 13:00+00'::timestamptz, 'v2', 'p', '1/main', 'c#2')),
        ('p/c#3', jsonb_build_array('default', 5, clock(), null, null, null, null))
       ) as cases (id, wanted)
 cross join lateral the_task(id) as t;
select is(
    (select array_agg(j.id order by j.id) from jobs as j where j.parent = 'p'),
    '{named,p/c#1,p/c#3}',
    'the children of a parent can be found');
select is(
    (select jsonb_build_array(h.version, h.argument) from history as h where h.job_id = 'named'),
    '[1, {"n": 1}]',
    'the history of a child begins with its document');

-- Repeated requests.

select given(tell(a_turn('p',
                         requests => '[{"key": "c#1", "kind": "job", "name": "child"},
                                       {"key": "c#3", "kind": "job", "name": "child", "detached": true}]')));
select is(
    (select count(*) from jobs where parent = 'p'),
    3::bigint,
    'a repeated request starts no other child [P1] [P12]');
select is(mail_of('p'), '[]', 'a repeated request for a live child is no error');
select is(
    tell(a_turn('p',
                facts => '[{"signal": "go", "target": "told", "value": 1},
                           {"signal": "go", "target": "p/c#1", "value": 2}]',
                requests => '[{"key": "c#4", "kind": "job", "name": "child", "id": "told", "detached": true}]'))
        #> '{answers}',
    '[[1, true, null], [2, true, null]]',
    'a turn may signal the child that it requests [P5]');
select is(mail_of('told'), '[[null, "go", true, 1]]', 'the child has the signal in its inbox');

select given(tell(a_turn('p',
                         requests => '[{"key": "c#2", "kind": "job", "name": "child", "id": "named again"},
                                       {"key": "c#4", "kind": "job", "name": "child", "id": "told again",
                                        "detached": true}]')));
select is(
    (select array_agg(j.id order by j.id) from jobs as j where j.parent = 'p'),
    '{named,p/c#1,p/c#3,told}',
    'a repeated request with another id starts no other child [P12]');
select is(mail_of('p'), '[]', 'a repeated request with another id is no error');
select have_held_job('fast');
select given(tell(a_turn('fast', requests => '[{"key": "c#1", "kind": "job", "name": "child", "id": "brief",
                                               "detached": true}]')));
select given(terminate('brief'));
select given(tell(a_turn('fast', requests => '[{"key": "c#1", "kind": "job", "name": "child", "id": "brief again",
                                               "detached": true}]')));
select is((select array_agg(j.id) from jobs as j where j.parent = 'fast'), '{brief}',
          'a detached child that began at the same time as its parent, and has ended, is not started again [P12]');
select is(
    (select array_agg(tell(a_turn('fast', requests => jsonb_build_array(
         '{"key": "plain", "kind": "job", "name": "child"}'::jsonb || jsonb_build_object('id', id)))) ->> 'state')
       from unnest('{plain,plain again}'::text[]) as id),
    '{keep,keep}', 'a request under a key without a number may be repeated with another id too');

-- Ids that are reused.

select have_held_job('again');
select given(tell(a_turn('again',
                         state => 'done',
                         requests => '[{"key": "c#1", "kind": "job", "name": "child", "id": "left", "detached": true,
                                        "queue": "left"}]')));
select given(take('bob', '{left}', claim_as => 'bob left'));
select given(tell(a_turn('left', state => 'done', worker => 'bob left')));
select is(forget('again'), true, 'a job whose child has ended can be forgotten');
select time_passes('1 s');
select have_held_job('again');
select given(tell(a_turn('again', requests => '[{"key": "c#1", "kind": "job", "name": "child"}]')));
select is(
    the_job('again/c#1') ->> 'status',
    'running',
    'a job does not take over a child of an earlier job with its id [P1]');
select time_passes('-1 s');

-- Clocks that are set back.

select have_held_job('set back');
select time_passes('-1 s');
select given(tell(a_turn('set back', requests => jsonb_build_array(
           '{"key": "c#1", "kind": "job", "name": "child", "detached": true}'::jsonb || jsonb_build_object('id', id)))))
  from unnest('{first drawn,drawn again}'::text[]) as id;
select is(
    (select array_agg(j.id) from jobs as j where j.parent = 'set back'),
    '{first drawn}',
    'a repeated request starts no other child, although the clock was set back [P12]');
select given(tell(a_turn('set back', state => 'done')));
select given(terminate(j.id)) from jobs as j where j.parent = 'set back' and j.status = 'running';
select is(forget('set back'), true, 'a job can be forgotten before the clock shows the time of its start');
select time_passes('-1 s');
select have_held_job('set back');
select given(tell(a_turn('set back', requests => '[{"key": "c#1", "kind": "job", "name": "child"}]')));
select is(
    the_job('set back/c#1') ->> 'status',
    'running',
    'a job that starts before an earlier one with its id does not take over its child [P1]');
select given(tell(a_turn('set back', state => 'done')));
select given(terminate(j.id)) from jobs as j where j.parent = 'set back' and j.status = 'running';
select time_passes('2 s');

-- The answer.

select given(take('bob', max_tasks => 10));
select is(
    tell(a_turn('p/c#1', state => 'done', value => '{"n": 1}', worker => 'bob'))
        - '{error,answers,messages,again}'::text[],
    '{"state": "refused"}',
    'a child that ends without naming the job of its parent is refused');
select is(
    tell(a_turn('p/c#1', state => 'done', worker => 'bob')) #>> '{error,code}',
    'PD107',
    'the error for a child that does not name its parent is PD107');
select is((the_job('p/c#1') ->> 'status'), 'running', 'nothing of a turn that does not name its asker is applied');
select is(
    tell(a_turn('p/c#1', state => 'done', value => '{"n": 1}', touches => '{p}', worker => 'bob')),
    '{"state": "done"}',
    'a child that names its parent ends');
select is(mail_of('p'), '[["1/main", "c#1", true, {"n": 1}]]', 'the result of a child is an answer to its parent');
select given(tell(a_turn('p',
                         facts => jsonb_build_array(jsonb_build_object('kind', 'answer', 'key', 'c#1',
                                                                       'message', message_of('p', 'c#1'))),
                         requests => '[{"key": "c#1", "kind": "job", "name": "child"}]')));
select is(mail_of('p'), '[]', 'a request for a child that has answered does nothing [P4]');
select is(tell(a_turn('p', state => 'park')) ->> 'state', 'parked', 'a parent waits for its other child');
select time_passes('1 h');
select given(take('bob', '{agents@v2}', claim_as => 'bob 2'));
select given(tell(a_turn('named', state => 'failed', value => '{"type": "E", "message": "m"}', touches => '{p}',
                         worker => 'bob 2')));
select is(
    jsonb_path_query_array(take('ada', '{p}'), '$[0].messages[*].ok'),
    '[false]',
    'a child that fails wakes its parent [P10]');
select is(mail_of('p') -> 0 -> 3, '{"type": "E", "message": "m"}', 'the parent gets the failure of its child [P10]');
select is(
    tell(a_turn('p/c#3', state => 'done', worker => 'bob')),
    '{"state": "done"}',
    'a detached child ends without naming a job');

-- Ids of other jobs.

select given(entity_create('taken', 'note', '{"n": 1}'));
select have_held_job('q');
select given(tell(a_turn('q',
                         requests => '[{"key": "c#1", "kind": "job", "name": "child", "id": "taken"},
                                       {"key": "c#2", "kind": "job", "name": "child", "id": "q"},
                                            {"key": "c#3", "kind": "job", "name": "child", "id": "p/c#1"},
                                            {"key": "c#4", "kind": "job", "name": "child", "id": "taken",
                                              "detached": true}]')));
select is(
    (select jsonb_agg(jsonb_build_array(m -> 1, m -> 2, m #> '{3,code}') order by m -> 1)
       from jsonb_array_elements(mail_of('q')) as m),
    '[["c#1", false, "PD402"], ["c#2", false, "PD402"], ["c#3", false, "PD402"]]',
    'a child whose id belongs to another job is answered with a failure (PD402)');
select is(the_job('taken') -> 'context', '{"n": 1}', 'the other job is not changed');
select given(tell(a_turn('q', requests => '[{"key": "c#1", "kind": "job", "name": "child", "id": "taken"}]')));
select is(jsonb_array_length(mail_of('q')), 3, 'a request for a refused child is answered once [P12]');
select is(
    tell(a_turn('q', state => 'park')) #> '{messages,0,payload,code}',
    '"PD402"',
    'a parent that parks receives the failure of a refused child at once');

-- Two requests of one turn for one id.

select have_held_job('r');
select is(
    verdict_of(a_turn('r',
                      requests => '[{"key": "c#1", "kind": "job", "name": "second", "id": "r-child"},
                                    {"key": "c#2", "kind": "job", "name": "first", "id": "r-child"}]')),
    'keep',
    'one turn may request one id twice');
select is(the_job('r-child') ->> 'asked_as', '1/main/c#1', 'the first request gets the child, whatever its name');
select is(
    (select jsonb_agg(m #> '{3,code}') from jsonb_array_elements(mail_of('r')) as m),
    '["PD402"]',
    'the second request gets a failure');

-- Cancelling a child.

select have_held_job('s');
select given(tell(a_turn('s',
                         requests => '[{"key": "c#1", "kind": "job", "name": "child", "queue": "sc"},
                                       {"key": "c#2", "kind": "job", "name": "child", "queue": "sc"}]')));
select given(take('bob', '{sc}', 2));
select given(tell(a_turn('s/c#1', state => 'park', awaits => '{go}', worker => 'bob'),
                  a_turn('s/c#2', state => 'park', awaits => '{go}', worker => 'bob')));
select is(tell(a_turn('s', cancels => '["c#1"]')), '{"state": "keep"}', 'a parent may ask a child to cancel (E2)');
select is(mail_of('s/c#1'), '[["1/main", "$cancel", false, null]]', 'the child has a request to cancel');
select is(mail_of('s/c#2'), '[]', 'the sibling has no request to cancel');
select is(
    jsonb_path_query_array(take('bob', '{sc}', 2, claim_as => 'bob 2'), '$[*].job'),
    '["s/c#1"]',
    'the asked child wakes at once (E2)');
select given(tell(a_turn('s/c#1', state => 'cancelled', value => '{"message": "enough"}', touches => '{s}',
                         worker => 'bob 2')));
select is(
    mail_of('s'),
    '[["1/main", "c#1", false, {"message": "enough"}]]',
    'a child that was cancelled answers its parent');
select is(the_job('s/c#1') ->> 'status', 'cancelled', 'the child has the status cancelled');

-- Terminated children, and parents that have ended.

select given(terminate('s/c#2', 'by hand'));
select is(
    jsonb_build_array(mail_of('s') #> '{1,1}', mail_of('s') #> '{1,2}', mail_of('s') #> '{1,3,message}'),
    '["c#2", false, "by hand"]',
    'a terminated child answers its parent [P10]');
select have_held_job('t');
select given(tell(a_turn('t', requests => '[
    {"key": "c", "kind": "job", "name": "child", "queue": "tc", "on_parent_end": "continue"}]')));
select given(take('bob', '{tc}'));
select given(tell(a_turn('t', state => 'done', value => '1')));
select is(the_job('t/c') ->> 'status', 'running', 'a child that is to continue lives on when its parent ends');
select is(
    tell(a_turn('t/c', state => 'done', value => '2', touches => '{t}', worker => 'bob')),
    '{"state": "done"}',
    'a child may end after its parent');
select is(mail_of('t'), '[]', 'a parent that has ended gets no answer');

-- Children of hooks, and grandchildren.

select have_held_job('u');
select given(tell(a_turn('u', requests => '[{"key": "h", "name": "h", "queue": "u"}]')));
select given(take('ada', '{u}'));
select given(tell(a_turn('u', '1/main/h',
                         requests => '[{"key": "c", "kind": "job", "name": "child", "queue": "uc"}]')));
select given(take('ada', '{uc}'));
select given(tell(a_turn('u/c', requests => '[{"key": "g", "kind": "job", "name": "child", "queue": "ug"}]')));
select given(take('ada', '{ug}'));
select given(tell(a_turn('u/c/g', state => 'done', value => '3', touches => '{u/c}')));
select is(mail_of('u/c'), '[["1/main", "g", true, 3]]', 'a grandchild answers the child');
select given(tell(a_turn('u/c', state => 'done', value => '4', touches => '{u}')));
select is(mail_of('u'), '[["1/main/h", "c", true, 4]]', 'a child answers the hook that requested it');

-- Names grow with each level, until no further one fits.

create function pg_temp.asked(parent text, task text, key text, kind text, id text default null) returns text
language plpgsql
as $$
declare
    answer jsonb := tell(a_turn(asked.parent, asked.task, requests => jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'key', asked.key, 'kind', asked.kind, 'name', 'n', 'queue', 'deep', 'id', asked.id,
        'entity', case kind when 'job' then 'deep' end)))));
begin
    return coalesce(answer #>> '{error,code}', answer ->> 'state');
end
$$;

-- Text that an index cannot compress.
create function pg_temp.noise(seed text, size integer) returns text
language sql
as $$
    select left(string_agg(md5(seed || n), ''), size) from generate_series(1, 10) as n
$$;
create function pg_temp.deep() returns text
language sql
as $$
    select pg_temp.noise('d', 200) || '/' || pg_temp.noise('c', 200)
$$;

select have_held_job(pg_temp.noise('d', 200));
select is(
    pg_temp.asked(pg_temp.noise('d', 200), '1/main', pg_temp.noise('c', 200), 'job'),
    'keep',
    'a child may have a long name');
select given(take('ada', '{deep}', 10));
select create_index('deep', 'text', 'text');
select is(
    pg_temp.asked(pg_temp.deep(), '1/main', key, kind, id),
    refusal,
    format('a %s of such a child %s', kind, about))
  from (values
        ('job', pg_temp.noise('e', 180), null, 'PD104', 'may not have a long key'),
        ('job', pg_temp.noise('e', 179), null, 'keep', 'may have a shorter one'),
        ('job', pg_temp.noise('f', 180), 'named', 'keep', 'may have a name of its own'),
        ('hook', pg_temp.noise('h', 200), null, 'keep', 'may have any key')
       ) as cases (kind, key, id, refusal, about);
select lives_ok(
    format('select entity_set(%L, %L, ''text'')', pg_temp.deep() || '/' || pg_temp.noise('e', 179),
           (select to_jsonb(string_agg(chr(131072 + (hashint4(n) & 32767)), '')) from generate_series(1, 600) as n)),
    'the longest name fits an index beside the longest text');
select given(take('ada', '{deep}', 10));
select is(
    pg_temp.asked(pg_temp.deep(), '1/main/' || pg_temp.noise('h', 200), pg_temp.noise('i', 200), 'hook'),
    'keep',
    'a hook of a hook may have a long key');
select given(take('ada', '{deep}', 10));
select is(
    pg_temp.asked(pg_temp.deep(), concat('1/main/', pg_temp.noise('h', 200), '/', pg_temp.noise('i', 200)),
                  pg_temp.noise('k', 180), 'activity'),
    'PD104',
    'a name that would be too long is refused');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
