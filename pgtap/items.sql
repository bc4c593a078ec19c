-- Items: a task asks people and waits; whoever resolves one answers, once. [P5] [P8] [P12] (E19)

begin;
select plan(97);

select the_time_is('2030-01-01 12:00+00');

-- The verbs of this file.

create function ask(name text default 'approve', key text default 'a', more jsonb default '{}') returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_array(jsonb_build_object('key', ask.key, 'kind', 'item', 'name', ask.name) || ask.more);
end
$$;

create function have_asked(id text, name text default 'approve', more jsonb default '{}') returns text
language plpgsql
as $$
begin
    perform have_held_job(have_asked.id);
    perform tell(a_turn(have_asked.id, state => 'park', requests => ask(have_asked.name, 'a', have_asked.more)));
    return item_of(have_asked.id);
end
$$;

create function item_of(job text, key text default 'a') returns text
language plpgsql
as $$
begin
    return (select i.id
              from perdure.items as i
             where i.job_id = item_of.job
               and i.key = item_of.key
             order by i.is_open desc
             limit 1);
end
$$;

create function seen(item text) returns jsonb
language plpgsql
as $$
begin
    return (select to_jsonb(i) from read_item(seen.item) as i);
end
$$;

create function jobs_listed(
    assignee text default null, name text default null, status text default 'open', after jsonb default null,
    max_rows integer default 100
) returns text[]
language plpgsql
as $$
begin
    return array(
        select i.job
          from list_items(jobs_listed.assignee, jobs_listed.name, jobs_listed.status, jobs_listed.after,
                          jobs_listed.max_rows) as i);
end
$$;

create function is_awake(job text, task text default '1/main') returns boolean
language plpgsql
as $$
begin
    return (the_task(is_awake.job, is_awake.task) ->> 'due_at')::timestamptz <= clock();
end
$$;

-- Asking.

select isnt(
    have_asked('first', 'approve invoice', '{"payload": {"amount": 900}, "assignee": "finance", "priority": 3,
                                             "expires_at": "2030-01-03T12:00:00Z"}'),
    null,
    'a turn may ask people');
select is(
    seen(item_of('first')) - '{id,place}'::text[],
    '{"job": "first", "task": "1/main", "key": "a", "name": "approve invoice", "payload": {"amount": 900},
      "assignee": "finance", "priority": 3, "status": "unclaimed", "asked_at": "2030-01-01T12:00:00+00:00",
      "expires_at": "2030-01-03T12:00:00+00:00", "claimed_by": null, "claimed_at": null, "resolution": null,
      "resolved_by": null, "resolved_at": null}',
    'what is asked stands in the item');
select is(
    (status('first')).waiting_for,
    'people: approve invoice by finance',
    'the status of the job tells for whom it waits');
select is_empty('select * from assert_invariants()', 'a task that waits for people alone waits for something [P8]');
select have_held_job('plain');
select given(tell(a_turn('plain', requests => ask())));
select is(
    seen(item_of('plain')) -> 'priority', '5', 'without anything said, an item has the priority in the middle');
select given(tell(a_turn('plain', requests => ask('another'))));
select is(
    (select jsonb_agg(i.name) from items as i where i.job_id = 'plain'),
    '["approve"]',
    'a request that is repeated asks once [P12]');
select is(
    tell(a_turn('plain', requests => request)) #>> '{error,code}', code, format('an item with %s is refused', about))
  from (values
        ('no name', '[{"key": "x", "kind": "item"}]'::jsonb, 'PD104'),
        ('an empty name', ask('', 'x'), 'PD104'),
        ('a name that is too long', ask(repeat('n', 201), 'x'), 'PD104'),
        ('a name of two lines', ask(E'a\nb', 'x'), 'PD104'),
        ('no key', '[{"kind": "item", "name": "n"}]', 'PD104'),
        ('an empty assignee', ask('n', 'x', '{"assignee": ""}'), 'PD104'),
        ('an assignee that is too long', ask('n', 'x', jsonb_build_object('assignee', repeat('n', 201))), 'PD104'),
        ('a priority beyond 9', ask('n', 'x', '{"priority": 10}'), 'PD107'),
        ('a priority that is none', ask('n', 'x', '{"priority": "high"}'), 'PD107'),
        ('a payload that is too large', ask('n', 'x', jsonb_build_object('payload', repeat('p', 1048577))), 'PD301')
       ) as cases (about, request, code);
select is(item_of('plain', 'x'), null, 'of what is refused nothing is there');

-- A key asks once, whatever it asks for: the first answer is the only one.

select have_held_job('twice ' || kind) from unnest('{hook,job,until}'::text[]) as kind;
select given(tell(a_turn('twice ' || kind, requests => jsonb_build_array(request) || ask())))
  from (values
        ('hook', '{"key": "a", "name": "h", "queue": "twice"}'::jsonb),
        ('job', '{"key": "a", "kind": "job", "name": "w", "queue": "twice"}'),
        ('until', '{"key": "a", "kind": "until", "condition": "$.n == 1"}')
       ) as asked (kind, request);
select is(
    item_of('twice ' || kind), null, format('where a %s is asked for under a key, no people are under the same', kind))
  from unnest('{hook,job,until}'::text[]) as kind;
select given(tell(a_turn('twice ' || kind, requests => '[{"key": "a", "kind": "until", "condition": "$.n == 1"}]')))
  from unnest('{hook,job}'::text[]) as kind;
select have_held_job('twice item');
select given(tell(a_turn('twice item', requests => ask())));
select given(tell(a_turn('twice item', requests => '[{"key": "a", "kind": "until", "condition": "$.n == 1"}]')));
select is(
    (select jsonb_agg(c.key) from conditions as c where c.job_id = 'twice ' || asked.kind), null,
    format('nor is a memory waited for where a %s is asked for', asked.kind))
  from unnest('{hook,job,item}'::text[]) as asked (kind);

-- Resolving.

create temporary table told as
select resolve_item(item_of('first'), '{"ok": true}', by => 'jane') as item;
select is((select (item).resolution from told), '{"ok": true}', 'whoever resolves an item gets it back');
select ok(is_awake('first'), 'who asked wakes');
select is(mail_of('first'), '[["1/main", "a", true, {"ok": true}]]', 'and finds the resolution as the answer');
select is(
    (select to_jsonb(resolve_item(item_of('first'), '{"ok": true}', by => 'jane'))),
    (select to_jsonb(item) from told),
    'the same call gets the same answer again [P12]');
select is(mail_of('first'), '[["1/main", "a", true, {"ok": true}]]', 'and answers once');
select throws_ok(
    format('select resolve_item(%L, %L, %L)', item_of('first'), resolution, person), 'PD411', null,
    format('%s comes too late', about))
  from (values ('another person', '{"ok": true}', 'bob'), ('another resolution', '{"ok": false}', 'jane'),
               ('nobody in particular', '{"ok": true}', null)) as cases (about, resolution, person);
select throws_ok(
    format('select claim_item(%L, %L)', item_of('first'), 'jane'), 'PD411', null, 'what is resolved is not claimed');
select throws_ok(
    format('select assign_item(%L, %L)', item_of('first'), 'legal'), 'PD411', null, 'nor assigned');
select is(seen(item_of('first')) ->> 'status', 'resolved', 'everybody can read how it was resolved');
create function detail_of(statement text) returns text
language plpgsql
as $$
declare
    detail text;
begin
    execute detail_of.statement;
    return null;
exception when others then
    get stacked diagnostics detail = pg_exception_detail;
    return detail;
end
$$;
select alike(
    detail_of(format('select resolve_item(%L, null, %L)', item_of('first'), 'bob')), 'jane resolved it at 2030-01-01%',
    'who comes second is told who was first');
select given(take('bob', '{first}'));
select given(tell(a_turn('first', state => 'done', worker => 'bob')));
select is(seen(item_of('first')) ->> 'resolved_by', 'jane', 'it tells who decided what when its job has ended, too');
select is(
    (resolve_item(item_of('first'), '{"ok": true}', by => 'jane')).resolved_at, clock(),
    'and the same call still gets the same answer [P12]');
select ok(forget('first'), 'a job is forgotten');
select is(item_of('first'), null, 'with its items');
select isnt(have_asked('anonymous'), null, 'an item needs no assignee');
select is(
    (resolve_item(item_of('anonymous'))).resolved_by,
    null,
    'and may be resolved by nobody in particular, with nothing');
select is(mail_of('anonymous'), '[["1/main", "a", true, null]]', 'that is an answer too');
select throws_ok($$ select resolve_item('nothing', '1') $$, 'PD411', null, 'an item that is not there is not resolved');
select throws_ok($$ select resolve_item(null, '1') $$, 'PD411', null, 'nor is none');
select given(have_asked('bad'));
select is(error_of(format('select resolve_item(%L, %L, %L)', item_of('bad'), resolution, person)), code,
          format('a resolution with %s is refused', about))
  from (values ('an empty person', '1', '', 'PD104'), ('a person of two lines', '1', E'a\nb', 'PD104'),
               ('too much', jsonb_build_array(repeat('r', 1048577))::text, 'jane', 'PD301')
       ) as cases (about, resolution, person, code);
select is(seen(item_of('bad')) ->> 'status', 'unclaimed', 'what is refused changes nothing');

-- Claiming.

select given(have_asked('c'));
select is((claim_item(item_of('c'), 'jane')).status, 'claimed', 'a person may claim an item');
select time_passes('1 second');
select is(
    (claim_item(item_of('c'), 'jane')).claimed_at,
    clock() - interval '1 second',
    'the same call gets the same answer again [P12]');
select is((status('c')).waiting_for, 'people: approve by jane', 'the status of the job tells who works on it');
select is(error_of(format(statement, item_of('c'))), 'PD112', format('%s', about))
  from (values
        ('what somebody has claimed nobody else claims', $$ select claim_item(%L, 'bob') $$),
        ('nobody else resolves it', $$ select resolve_item(%L, '1', 'bob') $$),
        ('not even nobody in particular', $$ select resolve_item(%L, '1') $$)
       ) as cases (about, statement);
select is((release_item(item_of('c'), 'bob')).claimed_by, 'jane', 'nobody gives back what he does not have');
select is((release_item(item_of('c'), 'jane')).claimed_by, null, 'who has it may give it back');
select is((claim_item(item_of('c'), 'bob')).claimed_by, 'bob', 'then others may claim it');
select is((release_item(item_of('c'), 'jane')).claimed_by, 'bob', 'a repeated call takes it from nobody [P12]');
select is((release_item(item_of('c'))).claimed_by, null, 'an operator gives it back whoever has it');
select given(claim_item(item_of('c'), 'bob'));
select is((assign_item(item_of('c'), 'legal')).assignee, 'legal', 'it may be given to others');
select is(seen(item_of('c')) ->> 'status', 'unclaimed', 'who had claimed it has it no more');
select given(claim_item(item_of('c'), 'zoe'));
select is((assign_item(item_of('c'), 'legal')).claimed_by, 'zoe', 'a repeated call takes it from nobody [P12]');
select is((assign_item(item_of('c'), null)).assignee, null, 'it may be given to anybody');
select is(error_of(format(statement, item_of('c'))), 'PD104', statement || ' is refused')
  from unnest(array[$$ select claim_item(%L, '') $$, $$ select claim_item(%L, null) $$,
                    $$ select assign_item(%L, '') $$]) as statement;
select given(claim_item(item_of('c'), 'jane'));
select is((resolve_item(item_of('c'), '1', 'jane')).status, 'resolved', 'who has claimed it resolves it');
select is((release_item(item_of('c'), 'jane')).claimed_by, 'jane', 'what is resolved stays as it is');

-- When nobody waits any more.

select given(have_asked('late', more => '{"expires_at": "2030-01-01T13:00:00Z"}'));
select given(have_asked('just', more => '{"expires_at": "2030-01-01T13:00:00Z"}'));
select the_time_is('2030-01-01 13:00+00');
select is((resolve_item(item_of('just'), '1')).status, 'resolved', 'at its last moment an item is still open');
select time_passes('1 microsecond');
select is(error_of(format(statement, item_of('late'))), 'PD411', statement || ' is refused when time is up')
  from unnest(array[$$ select resolve_item(%L, '1') $$, $$ select claim_item(%L, 'jane') $$,
                    $$ select assign_item(%L, 'x') $$]) as statement;
select have_held_job('gone');
select given(tell(a_turn('gone', state => 'keep', requests => ask() || ask('other', 'b'), cancels => '["b"]')));
select is(item_of('gone', 'b'), null, 'what is withdrawn in the turn that asks for it is not there');
select given(tell(a_turn('gone', state => 'keep', cancels => '["a", "none"]')));
select is(item_of('gone'), null, 'an item that is withdrawn is gone');
select given(tell(a_turn('gone', state => 'keep', requests => ask())));
select given(resolve_item(item_of('gone'), '1', 'jane'));
select given(tell(a_turn('gone', state => 'keep', cancels => '["a"]')));
select is(seen(item_of('gone')) ->> 'resolved_by', 'jane', 'one that is resolved stays');
select given(tell(a_turn('gone', state => 'keep', requests => ask())));
select is(
    (select count(*) from items as i where i.job_id = 'gone'), 1::bigint,
    'what was answered, taken or not, is not asked again [P4] [P12]');
select have_held_job('ends');
select given(tell(a_turn('ends', state => 'keep',
                         requests => ask() || '[{"key": "h", "name": "h", "queue": "ends"}]')));
select given(take('bob', '{ends}'));
select given(tell(a_turn('ends', '1/main/h', 'park', requests => ask('of a hook'), worker => 'bob')));
select given(resolve_item(i.id, '1', 'jane')) from items as i where i.job_id = 'ends' and i.task = '1/main';
select given(tell(a_turn('ends', state => 'done')));
select is(
    (select jsonb_agg(seen(i.id) -> 'status') from items as i where i.job_id = 'ends'),
    '["resolved"]',
    'with a task end its open items, and those of all beneath it');
select have_held_job('beside');
select given(tell(a_turn('beside', state => 'keep', requests => '[
    {"key": "h", "name": "h", "queue": "beside"}, {"key": "h-2", "name": "h", "queue": "beside"}]')));
select given(take('bob', '{beside}', 10));
select given(tell(a_turn('beside', '1/main/' || key, 'keep', requests => ask(), worker => 'bob')))
  from unnest('{h,h-2}'::text[]) as key;
select given(tell(a_turn('beside', '1/main/h', 'done', worker => 'bob')));
select is(
    (select jsonb_agg(i.task) from items as i where i.job_id = 'beside'),
    '["1/main/h-2"]',
    'a task whose name only begins alike goes on asking');
select given(terminate('beside'));
select given(have_asked('terminated'));
select ok(terminate('terminated'), 'a job that waits for people may be terminated');
select is(item_of('terminated'), null, 'then it asks nobody any more');

-- Listing.

select given(resolve_item(i.id, null, i.claimed_by)) from list_items(max_rows => 1000) as i
 where i.expires_at is null;
select is(
    jobs_listed(status => 'unclaimed'),
    '{late}',
    'an item whose time is up is listed until whoever asked has withdrawn it');
select given(terminate('late'));
select given(have_asked(id, name, more))
  from (values
        ('l1', 'approve', '{"priority": 5, "assignee": "finance"}'::jsonb),
        ('l2', 'approve', '{"priority": 1, "assignee": "legal"}'),
        ('l3', 'translate', '{"priority": 5}'),
        ('l4', 'approve', '{"priority": 0, "assignee": "finance"}')
       ) as cases (id, name, more);
select time_passes('1 minute');
select given(have_asked('l5', 'approve', '{"priority": 5, "assignee": "finance"}'));
select given(claim_item(item_of('l1'), 'jane'));
select is(
    array(select i.priority from list_items() as i), '{0,1,5,5,5}', 'items are listed most urgent first');
select is((jobs_listed())[5], 'l5', 'of the same urgency the oldest first');
select is(jobs_listed('finance'), '{l4,l1,l5}', 'those of an assignee');
select is(jobs_listed(name => 'translate'), '{l3}', 'those of a name');
select is(jobs_listed('finance', status => 'claimed'), '{l1}', 'those that are claimed');
select is(jobs_listed('finance', status => 'unclaimed'), '{l4,l5}', 'those that are not');
select ok('c' = any(jobs_listed(status => 'resolved')), 'those that are resolved');
select is(
    array(select p.job
            from generate_series(0, 4) as n
           cross join lateral jobs_listed(max_rows => greatest(n, 1)) as before
           cross join lateral list_items(after => case when n > 0 then seen(item_of(before[n])) -> 'place' end,
                                         max_rows => 1) as p
           order by n),
    jobs_listed(),
    'page by page, each item once');
select is(
    error_of(statement), 'PD107', statement || ' is refused')
  from unnest(array[
        $$ select list_items(status => 'lost') $$, $$ select list_items(status => null) $$,
        $$ select list_items(max_rows => 1001) $$,
        $$ select list_items(after => '[]') $$, $$ select list_items(after => '[5, 1.5, "x"]') $$,
        $$ select list_items(after => '[5, 1, "x", 2]') $$, $$ select list_items(after => '"x"') $$]) as statement;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
