-- Families: the fate of children when the task that asked for them ends (E3), requests of a task that is asked to
-- cancel (E2), and the descendants of a job.

begin;
select plan(61);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.see_to(job text, task text default '1/main', worker text default 'ada') returns text
language plpgsql
as $$
begin
    perform take(worker, '{$sql}', 100);
    return perdure.run_task(job, '$parent_end/' || task, token_of(worker));
end
$$;

create function pg_temp.fates_of(parent text) returns jsonb
language plpgsql
as $$
begin
    return (select jsonb_object_agg(substr(j.id, length(fates_of.parent) + 2), case
                       when j.status <> 'running' then j.error ->> 'message'
                       else coalesce((select m #>> '{3}' from jsonb_array_elements(mail_of(j.id)) as m), 'goes on') end)
              from jobs as j
             where j.parent = fates_of.parent);
end
$$;

-- Each policy for each end of a parent.

create temporary table ends on commit drop as
select *
  from (values ('done', '1'), ('failed', '{"type": "E"}'), ('cancelled', '{}'), ('terminated', null))
       as e (state, value);
select have_held_job(state) from ends;
select given(tell(a_turn(state, requests => '[
    {"key": "default", "kind": "job", "name": "c"},
    {"key": "continues", "kind": "job", "name": "c", "on_parent_end": "continue"},
    {"key": "cancels", "kind": "job", "name": "c", "on_parent_end": "cancel"},
    {"key": "terminates", "kind": "job", "name": "c", "on_parent_end": "terminate"},
    {"key": "detached", "kind": "job", "name": "c", "detached": true},
    {"key": "detached_cancels", "kind": "job", "name": "c", "detached": true, "on_parent_end": "cancel"}]')))
  from ends;
select given(case state when 'terminated' then to_jsonb(terminate(state))
                        else tell(a_turn(state, state => state, value => value::jsonb)) end) from ends;
select is(the_job(state) ->> 'status', case state when 'done' then 'completed' when 'failed' then 'failed'
                                                  else 'cancelled' end, format('a parent is %s', state)) from ends;
select is(
    pg_temp.fates_of(state) - 'default',
    '{"cancels": "goes on", "continues": "goes on", "terminates": "goes on", "detached": "goes on",
      "detached_cancels": "goes on"}',
    format('if a parent is %s, its children run until its task $parent_end runs', state)) from ends;
select is(tasks_of(state), '{$parent_end/1/main}',
          'the end of a parent leaves the task $parent_end in the same transaction [P8]')
  from ends;
select is(pg_temp.see_to(state), 'done', 'the task $parent_end runs inside the database') from ends;
select is(
    pg_temp.fates_of(state),
    '{"default": "the parent has ended", "cancels": "the parent has ended", "continues": "goes on",
      "terminates": "the parent has ended", "detached": "goes on", "detached_cancels": "the parent has ended"}',
    format('if a parent is %s, each child has the fate that it was given; awaited ones are cancelled (E3)',
           state)) from ends;
select is(
    (select jsonb_object_agg(substr(j.id, 6), j.status order by j.id) from jobs as j where j.parent = 'done'),
    '{"default": "running", "cancels": "running", "continues": "running", "terminates": "cancelled",
      "detached": "running", "detached_cancels": "running"}',
    'a cancelled child may still clean up, a terminated one has ended');
select is(tasks_of('done'), '{}', 'the task $parent_end is gone afterwards');
select is(perdure.run_task('done', '$parent_end/1/main', token_of('ada')), 'gone',
          'a repeated run of $parent_end does nothing [P12]');
select is(journal_of('done', '$parent_end/1/main'), '[]', 'the task $parent_end writes no facts');

-- No task $parent_end without a child that needs it.

select have_held_job('needless');
select given(tell(a_turn('needless', requests => '[
    {"key": "c", "kind": "job", "name": "c", "queue": "needless"},
    {"key": "d", "kind": "job", "name": "c", "detached": true}]')));
select given(take('ada', '{needless}'));
select given(tell(a_turn('needless/c', state => 'done', touches => '{needless}')));
select given(tell(a_turn('needless', state => 'done')));
select is(tasks_of('needless'), '{}', 'a parent whose children have ended or continue leaves no task behind');

-- A hook has children of its own.

select have_held_job('p');
select given(tell(a_turn('p', requests => '[
    {"key": "h", "name": "h", "queue": "ph"}, {"key": "h2", "name": "h", "queue": "ph"},
    {"key": "c", "kind": "job", "name": "c"}]')));
select given(hook('p', 'h', queue => 'ph', key => 'k'));
select given(take('ada', '{ph}', 3));
select given(tell(a_turn('p', task, requests => jsonb_build_array(jsonb_build_object(
    'key', 'c', 'kind', 'job', 'name', 'c', 'id', 'p/' || task)))))
  from unnest('{1/main/h,1/main/h2,$hook/k}'::text[]) as task;
select given(tell(a_turn('p', '1/main/h', 'done')));
select is(pg_temp.see_to('p', '1/main/h'), 'done', 'the end of a hook leaves a task $parent_end for its children');
select is(
    pg_temp.fates_of('p'),
    '{"c": "goes on", "1/main/h": "the parent has ended", "1/main/h2": "goes on", "$hook/k": "goes on"}',
    'the end of a hook ends only its own children');
select given(tell(a_turn('p', state => 'done')));
select is(pg_temp.see_to('p'), 'done', 'the end of a coordinator leaves a task $parent_end');
select is(
    pg_temp.fates_of('p'),
    '{"c": "the parent has ended", "1/main/h": "the parent has ended", "1/main/h2": "the parent has ended",
      "$hook/k": "goes on"}',
    'the end of a coordinator ends the children of its hooks, but not those of a hook from outside');

-- Grandchildren.

select have_held_job('top');
select given(tell(a_turn('top', requests => '[
    {"key": "c", "kind": "job", "name": "c", "queue": "topc", "on_parent_end": "terminate"}]')));
select given(take('ada', '{topc}'));
select given(tell(a_turn('top/c', requests => '[
    {"key": "g", "kind": "job", "name": "c", "on_parent_end": "terminate"}]')));
select given(terminate('top'));
select is(pg_temp.see_to('top'), 'done', 'the task $parent_end of the head terminates its child');
select is(verdict_of(a_turn('top/c', state => 'done', touches => '{top}')), 'gone',
          'the holder of a child that was terminated with its parent is fenced [P6]');
select is(pg_temp.see_to('top/c'), 'done', 'a terminated child leaves a task $parent_end for its own children');
select is(
    (select array_agg(f.id || ' ' || f.depth || ' ' || f.status) from family('top') as f),
    '{top 0 cancelled,top/c 1 cancelled,top/c/g 2 cancelled}',
    'termination reaches all descendants');

-- Many children, a hundred at a time.

select have_held_job('many');
select given(tell(a_turn('many', state => 'done', requests => (
    select jsonb_agg(jsonb_build_object('key', 'c' || n, 'kind', 'job', 'name', 'c'))
      from generate_series(1, 250) as n))));
select is(pg_temp.see_to('many'), wanted, format('part %s of 250 children: %s', n, wanted))
  from (values (1, 'retry'), (2, 'retry'), (3, 'done')) as parts (n, wanted);
select is(
    (select count(*) from inbox as i join jobs as j on i.job_id = j.id where j.parent = 'many' and i.key = '$cancel'),
    250::bigint,
    'each child is asked once to cancel');

-- Children that were asked to cancel before, and hooks with a reserved name.

select have_held_job('asked');
select given(tell(a_turn('asked', requests => '[{"key": "c", "kind": "job", "name": "c", "queue": "askedc"}]')));
select given(tell(a_turn('asked', cancels => '["c"]')));
select given(tell(a_turn('asked', state => 'done')));
select is(pg_temp.see_to('asked'), 'done', '$parent_end runs for a child that was asked to cancel before');
select is(jsonb_array_length(mail_of('asked/c')), 1, 'a child that was asked to cancel before is not asked again');
select throws_ok(
    $$ select hook('asked', '$parent_end', queue => '$sql') $$, 'PD104', null,
    'a hook named $parent_end is refused');

-- Forgetting waits for $parent_end.

select have_held_job('old');
select given(tell(a_turn('old', state => 'done', requests => '[{"key": "c", "kind": "job", "name": "c"}]')));
select throws_ok(
    $$ select forget('old') $$, 'PD407', null, 'a parent is not forgotten before its children are ended');

-- Wrong policies.

select have_held_job('wrong');
select is(
    tell(a_turn('wrong', requests => jsonb_build_array(
        jsonb_build_object('key', 'c', 'kind', 'job', 'name', 'c', 'on_parent_end', wrong)))) #>> '{error,code}',
    'PD107',
    format('a policy of %s is refused', wrong))
  from jsonb_array_elements('["", "Cancel", "abandon", 1, {}]') as wrong;
select is(
    verdict_of(a_turn('wrong', requests => '[{"key": "c", "kind": "job", "name": "c", "on_parent_end": null}]')),
    'keep',
    'a policy of null counts as none');

-- Requests of a task that is asked to cancel and has not yet received the request (E2).

select have_held_job('unaware');
select given(cancel('unaware'));
select given(tell(a_turn('unaware', requests => '[
    {"key": "c", "kind": "job", "name": "c"}, {"key": "d", "kind": "job", "name": "c", "detached": true},
    {"key": "s", "kind": "job", "name": "c", "shielded": true},
    {"key": "later", "kind": "job", "name": "c", "due_at": "2031-01-01T00:00:00Z", "queue": "later"},
    {"key": "h", "name": "h", "queue": "uh"}, {"key": "dh", "name": "h", "queue": "uh", "detached": true},
    {"key": "a", "kind": "activity", "name": "a", "queue": "uh"}, {"key": "sh", "name": "h", "shielded": true},
    {"key": "u", "kind": "until", "condition": "$.n == 1"}]')));
select is(
    (select array_agg(m #>> '{0}' order by m #>> '{0}')
       from jsonb_array_elements(mail_of('unaware')) as m where m ->> 1 = '$cancel'),
    '{1/main}',
    'hooks and activities do not begin, unless they are shielded');
select is(
    (select array_agg(task) from jsonb_array_elements_text(to_jsonb(tasks_of('unaware'))) as task where task ~ 'h$'),
    '{1/main/sh}',
    'a shielded hook begins');
select is(
    (select jsonb_agg(m -> 1) from jsonb_array_elements(mail_of('unaware')) as m where m ->> 0 = '1/main'),
    '["$cancel", "a", "h"]',
    'the answers of what does not begin follow the request to cancel');
select is(
    (select array_agg(j.id order by j.id)
       from jobs as j
       join inbox as i on j.id = i.job_id and i.key = '$cancel' where j.parent = 'unaware'),
    '{unaware/c,unaware/d,unaware/later}',
    'children begin with a request to cancel, unless they are shielded');
select is(take('ada', '{later}') #>> '{0,messages,0,key}', '$cancel',
          'a child that begins later has a request to cancel too');
select given(tell(a_turn('unaware',
    facts => jsonb_build_array(jsonb_build_object('kind', 'cancel', 'key', '$cancel',
                                                  'message', (select i.id from inbox as i where i.job_id = 'unaware'
                                                                 and i.task = '1/main' and i.key = '$cancel'))),
    requests => '[{"key": "cleanup", "kind": "job", "name": "c"}, {"key": "ch", "name": "h"}]')));
select is(mail_of('unaware/cleanup'), '[]', 'a child that is requested after the request was consumed runs normally');
select is(
    (select count(*) from jsonb_array_elements(mail_of('unaware')) as m where m ->> 0 = '1/main/ch'),
    0::bigint,
    'a hook that is requested after the request was consumed runs normally');
select have_held_job('last');
select given(cancel('last'));
select given(tell(a_turn('last', state => 'done', requests => '[
    {"key": "d", "kind": "job", "name": "c", "detached": true}]')));
select is(jsonb_path_query_array(mail_of('last/d'), '$[*][1]'), '["$cancel"]',
          'a detached child of a job that ends before it received its request to cancel is asked too');

-- family(): the descendants of a job.

select is(
    (select jsonb_agg(jsonb_build_array(f.id, f.parent, f.depth, f.asked_as, f.on_parent_end)) from family('top') as f),
    '[["top", null, 0, null, null], ["top/c", "top", 1, "1/main/c", "terminate"],
      ["top/c/g", "top/c", 2, "1/main/g", "terminate"]]',
    'family() lists a job and its descendants, each after its parent');
select is((select count(*) from family('top/c/g')), 1::bigint, 'a job without children is a family of one');
select is((select count(*) from family('many', max_rows => 100)), 100::bigint,
          'family() returns at most max_rows rows');
select throws_ok($$ select * from family('nobody') $$, 'PD401', null, 'a job that does not exist has no family');
update perdure.jobs set parent = 'top/c/g', asked_as = '1/main/x' where id = 'top';
select is(
    (select count(*) from family('top')), 3::bigint, 'family() ends on a circle of parents, as reused ids may form');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
