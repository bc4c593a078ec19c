-- History: the versions of a whole memory or of one path, page by page. (C21) (E9)

begin;
select plan(60);

select the_time_is('2030-01-01 12:00+00');

-- The whole memory.

select given(entity_create('e', 'note', '{"n": 1}', key => 'made'));
select given(entity_increment('e', 'n', 4, key => 'k'));
select time_passes('1 minute');
update perdure.jobs set context = context || '{"m": 2}' where id = 'e';
select given(entity_log('e', 'events', '"seen"'));
select is(
    (select jsonb_agg(to_jsonb(h) - 'at' order by h.version) from entity_history('e') as h),
    '[
    {"version": 1, "task": "$outside", "op": "set", "path": "", "argument": {"n": 1}, "answer": 1, "key": null},
    {"version": 2, "task": "$outside", "op": "increment", "path": "n", "argument": 4, "answer": 5, "key": "k"},
    {"version": 3, "task": "$outside", "op": "set", "path": "", "argument": {"n": 5, "m": 2}, "answer": 3, "key": null},
    {"version": 4, "task": "$outside", "op": "log", "path": "events", "argument": ["seen"], "answer": 4, "key": null}]',
    'the history has the task, the command and the answer of each version');
select is(
    (select array_agg(clock() - h.at order by h.version) from entity_history('e') as h),
    '{1 min,1 min,0,0}'::interval[],
    'the history has the time of each version');

select have_held_job('j', '{"n": 1}');
select given(tell(a_turn('j', facts => '[
    {"kind": "command", "key": "set#1", "op": "set", "path": ["a.b", "c"], "value": 1},
    {"kind": "command", "key": "append#1", "op": "append", "path": ["n"], "value": [1]},
    {"kind": "read", "op": "get"}, {"kind": "note"}]')));
select is(
    (select jsonb_agg(jsonb_build_array(h.version, h.task, h.op, h.path, h.key) order by h.version)
       from entity_history('j') as h),
    '[[1, "$outside", "set", "", null], [2, "1/main", "set", "\"a.b\".c", "set#1"]]',
    'refused commands, reads and notes are not in the history of the memory');
select is_empty($$ select from entity_history('j', after => 2) $$, 'the page after the last version is empty');
select given(entity_create('empty', 'note'));
select is_empty($$ select from entity_history('empty') $$, 'a memory that was never changed has no history');
select throws_ok($$ select from entity_history('nobody') $$, 'PD401', null,
                 'the history of a job that does not exist is refused');
select throws_ok($$ select from entity_history('e', 'a..b') $$, 'PD101', null, 'a path that does not parse is refused');

-- One path: commands above it, at it and beneath it. `reaches` says of each command whether it affects the path.

create temporary table written (number serial, op text, path text, value jsonb, reaches boolean) on commit drop;
insert into written (op, path, value, reaches) values
    ('set', '', '{"a": {"b": {"c": 1}, "x": 1}, "n": 1}', true),
    ('set', 'a', '{"b": {"c": 1}, "x": 1}', true),
    ('set', 'a.b', '{"c": 1}', true),
    ('set', 'a.b.c', '2', true),
    ('set', 'a.x', '2', false),
    ('set', 'n', '2', false),
    ('set', 'a.bc', '2', false),
    ('set', '"a.b"', '2', false),
    ('merge', '', '{"a": {"b": {"c": 3}}}', true),
    ('merge', '', '{"a": {"b": {}}}', true),
    ('merge', '', '{"a": {"x": 3}}', false),
    ('merge', '', '{"n": 3}', false),
    ('merge', '', '{}', false),
    ('merge', 'a', '{"b": {"d": 1}}', true),
    ('merge', 'a', '{"x": 4, "y": {"b": 1}}', false),
    ('merge', 'a.b', '{"e": 1}', true),
    ('merge', 'a.b.f', '{"g": 1}', true),
    ('set_if_not_exists', 'a.b.h', '[1]', true),
    ('append', 'a.b.h', '[2]', true),
    ('prepend', 'a.b.h', '[0]', true),
    ('remove', 'a.b.h', '-1', true),
    ('increment', 'a.b.c', '1', true),
    ('increment', 'n', '1', false),
    ('toggle', 'a.b.t', null, true),
    ('toggle', 'a.t', null, false),
    ('log', 'a.b', '[1]', true),
    ('log', 'a.l', '[1]', false),
    ('delete', 'a.b.c', null, true),
    ('delete', 'a.x', null, false),
    ('delete', 'a.b', null, true),
    ('merge', '', '{"a": 5}', true),
    ('set', 'a', '{}', true),
    ('delete', 'a', null, true),
    ('delete', '', null, true);
select given(entity_create('places', 'note'));
select given(run_command('places', op, parse_path(path), value, null, null))
  from (select * from written order by number) as written;
select is(
    coalesce(h.version is not null, false),
    w.reaches,
    format('%s at %s with %s %s a.b', w.op, coalesce(nullif(w.path, ''), 'the top'), coalesce(w.value::text, 'nothing'),
           case when w.reaches then 'reaches' else 'does not reach' end))
  from written as w
  left join entity_history('places', 'a.b') as h on w.number = h.version
 order by w.number;

-- A negative index may mean any element, and one element may have several spellings.

select given(entity_create('list', 'note', '{"l": [{"n": 1}, {"n": 2}], "m": {"-1": 1}}'));
select given(entity_set('list', '5', 'l.0.n'));
select given(entity_set('list', '6', 'l.-1.n'));
select given(entity_set('list', '7', 'm.-1'));
select given(entity_append('list', 'l', '{"n": 3}'));
select given(entity_set('list', '8', 'l.01.n'));
select is(
    (select array_agg(h.version order by h.version) from entity_history('list', cases.place) as h),
    versions,
    format('%s was written by versions %s', place, versions))
  from (values
        ('l.0', '{1,2,3,5}'::bigint[]),
        ('l.1', '{1,3,5,6}'),
        ('l.+1', '{1,3,5,6}'),
        ('l. 1', '{1,3,5,6}'),
        ('l.10', '{1,3,5}'),
        ('l.-1', '{1,2,3,5,6}'),
        ('l.1.n', '{1,3,5,6}'),
        ('l.1.m', '{1,5}'),
        ('l', '{1,2,3,5,6}'),
        ('m', '{1,4}'),
        ('', '{1,2,3,4,5,6}')
       ) as cases (place, versions);

-- Page by page.

select given(entity_create('pages', 'note'));
select given(entity_increment('pages', case when n % 2 = 0 then 'even' else 'odd' end))
  from generate_series(1, 20) as n;
select is(
    array(select h.version from entity_history('pages', '', cases.after, cases.max_rows) as h),
    versions,
    format('%s changes after version %s are %s', max_rows, after, versions))
  from (values
        (0, 3, '{1,2,3}'::bigint[]),
        (3, 3, '{4,5,6}'),
        (18, 3, '{19,20}'),
        (20, 3, '{}'),
        (0, 0, '{}')
       ) as cases (after, max_rows, versions);
select is(
    array(select h.version from entity_history('pages', 'even', 7, 3) as h),
    '{8,10,12}'::bigint[],
    'a page of one path has as many changes as were asked for');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
