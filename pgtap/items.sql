-- Items: a task asks people and waits; the person who resolves an item answers it, once. [P5] [P8] [P12] (E19)

begin;
select plan(104);

select the_time_is('2030-01-01 12:00+00');

-- Functions of this file.

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

-- Requests.

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
    'an item has all the fields of its request');
select is(
    (status('first')).waiting_for,
    'people: approve invoice by finance',
    'the status of a job names the people for whom it waits');
select is_empty('select * from assert_invariants()', 'a task may wait for nothing but people [P8]');
select have_held_job('plain');
select given(tell(a_turn('plain', requests => ask())));
select is(
    seen(item_of('plain')) -> 'priority', '5', 'an item has priority 5 by default');
select given(tell(a_turn('plain', requests => ask('another'))));
select is(
    (select jsonb_agg(i.name) from items as i where i.job_id = 'plain'),
    '["approve"]',
    'a repeated request makes one item [P12]');
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
        ('a priority that is not a number', ask('n', 'x', '{"priority": "high"}'), 'PD107'),
        ('a payload that is too large', ask('n', 'x', jsonb_build_object('payload', repeat('p', 1048577))), 'PD301')
       ) as cases (about, request, code);
select is(item_of('plain', 'x'), null, 'a refused request makes no item');

-- A key stands for one request of any kind: its first answer is the only one.

select have_held_job('twice ' || kind) from unnest('{hook,job,until}'::text[]) as kind;
select given(tell(a_turn('twice ' || kind, requests => jsonb_build_array(request))))
  from (values
        ('hook', '{"key": "a", "name": "h", "queue": "twice"}'::jsonb),
        ('job', '{"key": "a", "kind": "job", "name": "w", "queue": "twice"}'),
        ('until', '{"key": "a", "kind": "until", "condition": "$.n == 1"}')
       ) as asked (kind, request);
select given(tell(a_turn('twice ' || kind, requests => ask()))) from unnest('{hook,job,until}'::text[]) as kind;
select is(
    item_of('twice ' || kind), null, format('a key under which a %s was requested makes no item', kind))
  from unnest('{hook,job,until}'::text[]) as kind;
select given(tell(a_turn('twice ' || kind, requests => '[{"key": "a", "kind": "until", "condition": "$.n == 1"}]')))
  from unnest('{hook,job}'::text[]) as kind;
select have_held_job('twice item');
select given(tell(a_turn('twice item', requests => ask())));
select given(tell(a_turn('twice item', requests => '[{"key": "a", "kind": "until", "condition": "$.n == 1"}]')));
select is(
    (select jsonb_agg(c.key) from conditions as c where c.job_id = 'twice ' || asked.kind), null,
    format('a key under which a %s was requested makes no condition', asked.kind))
  from unnest('{hook,job,item}'::text[]) as asked (kind);

-- Resolving.

create temporary table told as
select resolve_item(item_of('first'), '{"ok": true}', by => 'jane') as item;
select is((select (item).resolution from told), '{"ok": true}', 'resolve_item() returns the resolved item');
select ok(is_awake('first'), 'a resolution wakes the asker');
select is(mail_of('first'), '[["1/main", "a", true, {"ok": true}]]', 'the asker gets the resolution as its answer');
select is(
    (select to_jsonb(resolve_item(item_of('first'), '{"ok": true}', by => 'jane'))),
    (select to_jsonb(item) from told),
    'a repeated resolution gets the same answer [P12]');
select is(mail_of('first'), '[["1/main", "a", true, {"ok": true}]]', 'a repeated resolution answers once');
select throws_ok(
    format('select resolve_item(%L, %L, %L)', item_of('first'), resolution, person), 'PD411', null,
    format('a second resolution with %s is refused', about))
  from (values ('another person', '{"ok": true}', 'bob'), ('another resolution', '{"ok": false}', 'jane'),
               ('nobody in particular', '{"ok": true}', null)) as cases (about, resolution, person);
select throws_ok(
    format('select claim_item(%L, %L)', item_of('first'), 'jane'), 'PD411', null, 'a resolved item cannot be claimed');
select throws_ok(
    format('select assign_item(%L, %L)', item_of('first'), 'legal'), 'PD411', null,
    'a resolved item cannot be assigned');
select is(seen(item_of('first')) ->> 'status', 'resolved', 'a resolved item stays readable');
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
    'the error of a second resolution names the first person');
select given(take('bob', '{first}'));
select given(tell(a_turn('first', state => 'done', worker => 'bob')));
select is(seen(item_of('first')) ->> 'resolved_by', 'jane', 'an item shows who resolved it after its job has ended');
select is(
    (resolve_item(item_of('first'), '{"ok": true}', by => 'jane')).resolved_at, clock(),
    'a resolution may be repeated after the job has ended [P12]');
select ok(forget('first'), 'a job with items can be forgotten');
select is(item_of('first'), null, 'the items of a forgotten job are gone');
select isnt(have_asked('anonymous'), null, 'an item needs no assignee');
select is(
    (resolve_item(item_of('anonymous'))).resolved_by,
    null,
    'an item may be resolved by no one in particular, without a value');
select is((resolve_item(item_of('anonymous'))).status, 'resolved',
          'a resolution by no one in particular may be repeated [P12]');
select is(mail_of('anonymous'), '[["1/main", "a", true, null]]', 'a resolution without a value answers with null');
select throws_ok($$ select resolve_item('nothing', '1') $$, 'PD411', null,
                 'an item that does not exist cannot be resolved');
select throws_ok($$ select resolve_item(null, '1') $$, 'PD411', null, 'an item of null cannot be resolved');
select given(have_asked('bad'));
select is(error_of(format('select resolve_item(%L, %L, %L)', item_of('bad'), resolution, person)), code,
          format('a resolution with %s is refused', about))
  from (values ('an empty person', '1', '', 'PD104'), ('a person of two lines', '1', E'a\nb', 'PD104'),
               ('a value that is too large', jsonb_build_array(repeat('r', 1048577))::text, 'jane', 'PD301')
       ) as cases (about, resolution, person, code);
select is(seen(item_of('bad')) ->> 'status', 'unclaimed', 'a refused resolution does not change the item');

-- Claiming.

select given(have_asked('c'));
select is((claim_item(item_of('c'), 'jane')).status, 'claimed', 'a person may claim an item');
select time_passes('1 second');
select is(
    (claim_item(item_of('c'), 'jane')).claimed_at,
    clock() - interval '1 second',
    'a repeated claim gets the same answer [P12]');
select is((status('c')).waiting_for, 'people: approve by jane',
          'the status of a job names the person who has claimed its item');
select is(error_of(format(statement, item_of('c'))), 'PD112', format('%s', about))
  from (values
        ('another person cannot claim a claimed item', $$ select claim_item(%L, 'bob') $$),
        ('another person cannot resolve a claimed item', $$ select resolve_item(%L, '1', 'bob') $$),
        ('a claimed item cannot be resolved without a person', $$ select resolve_item(%L, '1') $$)
       ) as cases (about, statement);
select is((release_item(item_of('c'), 'bob')).claimed_by, 'jane', 'a person cannot release the item of another');
select is((release_item(item_of('c'), 'jane')).claimed_by, null, 'a person may release the own item');
select is((claim_item(item_of('c'), 'bob')).claimed_by, 'bob', 'another person may claim a released item');
select is((release_item(item_of('c'), 'jane')).claimed_by, 'bob', 'a repeated call takes the item from no one [P12]');
select is((release_item(item_of('c'))).claimed_by, null, 'a release without a person releases the item of anyone');
select given(claim_item(item_of('c'), 'bob'));
select is((assign_item(item_of('c'), 'legal')).assignee, 'legal', 'a claimed item may be assigned to others');
select is(seen(item_of('c')) ->> 'status', 'unclaimed', 'an assignment ends the claim');
select given(claim_item(item_of('c'), 'zoe'));
select is((assign_item(item_of('c'), 'legal')).claimed_by, 'zoe', 'a repeated call takes the item from no one [P12]');
select is((assign_item(item_of('c'), null)).assignee, null, 'an item may be assigned to everyone');
select is(error_of(format(statement, item_of('c'))), 'PD104', statement || ' is refused')
  from unnest(array[$$ select claim_item(%L, '') $$, $$ select claim_item(%L, null) $$,
                    $$ select assign_item(%L, '') $$]) as statement;
select given(claim_item(item_of('c'), 'jane'));
select is((resolve_item(item_of('c'), '1', 'jane')).status, 'resolved', 'the person who claimed an item resolves it');
select is((release_item(item_of('c'), 'jane')).claimed_by, 'jane', 'the release of a resolved item changes nothing');

-- Items whose asker no longer waits.

select given(have_asked('late', more => '{"expires_at": "2030-01-01T13:00:00Z"}'));
select given(have_asked('just', more => '{"expires_at": "2030-01-01T13:00:00Z"}'));
select the_time_is('2030-01-01 13:00+00');
select is((resolve_item(item_of('just'), '1')).status, 'resolved',
          'an item can be resolved at the moment when it expires');
select time_passes('1 microsecond');
select is(error_of(format(statement, item_of('late'))), 'PD411', statement || ' is refused when time is up')
  from unnest(array[$$ select resolve_item(%L, '1') $$, $$ select claim_item(%L, 'jane') $$,
                    $$ select assign_item(%L, 'x') $$]) as statement;
select have_held_job('gone');
select given(tell(a_turn('gone', state => 'keep', requests => ask() || ask('other', 'b'), cancels => '["b"]')));
select is(item_of('gone', 'b'), null, 'an item that is withdrawn in its own turn is not made');
select given(tell(a_turn('gone', state => 'keep', cancels => '["a", "none"]')));
select is(item_of('gone'), null, 'a withdrawn item is gone');
select have_held_job('some');
select given(tell(a_turn('some', state => 'keep', requests => ask() || ask('other', 'b')
                         || '[{"key": "h", "name": "h", "queue": "some"}]')));
select given(take('bob', '{some}'));
select given(tell(a_turn('some', '1/main/h', 'keep', worker => 'bob', requests => ask())));
select given(tell(a_turn('some', state => 'keep', cancels => '["a"]')));
select is(
    (select jsonb_agg(i.task || ' ' || i.key order by i.task) from items as i where i.job_id = 'some'),
    '["1/main b", "1/main/h a"]',
    'a task withdraws one item, and no item of another task');
select given(cancel_hook('some', '1/main/h'));
select given(tell(a_turn('some', state => 'done')));
select is(
    (select jsonb_agg(i.task || ' ' || i.key) from items as i where i.job_id = 'some'),
    '["1/main/h a"]',
    'an item of a hook that cleans up stays when its asker ends');
select given(tell(a_turn('some', '1/main/h', 'done', worker => 'bob')));
select given(tell(a_turn('gone', state => 'keep', requests => ask())));
select given(resolve_item(item_of('gone'), '1', 'jane'));
select given(tell(a_turn('gone', state => 'keep', cancels => '["a"]')));
select is(seen(item_of('gone')) ->> 'resolved_by', 'jane', 'a resolved item stays when its request is withdrawn');
select given(tell(a_turn('gone', state => 'keep', requests => ask())));
select is(
    (select count(*) from items as i where i.job_id = 'gone'), 1::bigint,
    'a request that was answered is not asked again [P4] [P12]');
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
    'the end of a task ends its open items and those beneath it');
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
    'the end of a task keeps the items of a task whose name has the same prefix');
select given(terminate('beside'));
select given(have_asked('terminated'));
select ok(terminate('terminated'), 'a job that waits for people may be terminated');
select is(item_of('terminated'), null, 'a terminated job has no open items');

-- list_items.

select given(resolve_item(i.id, null, i.claimed_by)) from list_items(max_rows => 1000) as i
 where i.expires_at is null;
select is(
    jobs_listed(status => 'unclaimed'),
    '{late}',
    'an expired item is listed until its asker has withdrawn it');
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
    array(select i.priority from list_items() as i), '{0,1,5,5,5}', 'list_items() returns the most urgent items first');
select is((jobs_listed())[5], 'l5', 'list_items() returns the oldest first of the same priority');
select is(jobs_listed('finance'), '{l4,l1,l5}', 'list_items() filters by assignee');
select is(jobs_listed(name => 'translate'), '{l3}', 'list_items() filters by name');
select is(
    array(select i.job from list_items(job => 'l3') as i), '{l3}', 'list_items() filters by job');
select is(jobs_listed('finance', status => 'claimed'), '{l1}', 'list_items() filters claimed items');
select is(jobs_listed('finance', status => 'unclaimed'), '{l4,l5}', 'list_items() filters unclaimed items');
select ok('c' = any(jobs_listed(status => 'resolved')), 'list_items() filters resolved items');
select is(
    array(select p.job
            from generate_series(0, 4) as n
           cross join lateral jobs_listed(max_rows => greatest(n, 1)) as before
           cross join lateral list_items(after => case when n > 0 then seen(item_of(before[n])) -> 'place' end,
                                         max_rows => 1) as p
           order by n),
    jobs_listed(),
    'the pages of list_items() have each item once');
select is(
    error_of(statement), 'PD107', statement || ' is refused')
  from unnest(array[
        $$ select list_items(status => 'lost') $$, $$ select list_items(status => null) $$,
        $$ select list_items(max_rows => 1001) $$,
        $$ select list_items(after => '[]') $$, $$ select list_items(after => '[5, 1.5, "x"]') $$,
        $$ select list_items(after => '[5, 1, "x", 2]') $$,
        $$ select list_items(after => '[5, 1, "x", "y"]') $$,
        $$ select list_items(after => '[55555555555, 1, "x"]') $$,
        $$ select list_items(after => '[5, 11111111111111111111, "x"]') $$,
        $$ select list_items(after => '"x"') $$]) as statement;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
