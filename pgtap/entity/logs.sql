-- Logs: lists beside the document without a limit; each item costs the same.

begin;
select plan(57);

select the_time_is('2030-01-01 12:00+00');

-- Adding and reading items.

select given(entity_create('e', 'note', '{"n": 1}'));
select is(entity_log('e', 'events', '{"x": 1}'), '2', 'entity_log() returns the version');
select is(entity_log('e', 'events', '[2, [3]]'), '3', 'entity_log() adds several items at once');
select time_passes('1 minute');
select is(entity_log('e', 'events', '[]'), '4', 'entity_log() without an item makes a version too');
select is(entity_log('e', 'events', 'null'), '5', 'entity_log() adds null as an item');
select is(entity_get('e', 'events'), '[{"x": 1}, 2, [3], null]', 'a log reads as an array, in the order of its items');
select is(the_job('e') -> 'context', '{"n": 1}', 'a log does not change the document');
select is(
    (select jsonb_agg(jsonb_build_array(i.version, i.place, i.item, i.task, clock() - i.at) order by i.version, i.place)
       from entity_items('e', 'events') as i),
    '[[2, 1, {"x": 1}, "$outside", "00:01:00"], [3, 1, 2, "$outside", "00:01:00"], [3, 2, [3], "$outside", "00:01:00"],
      [5, 1, null, "$outside", "00:00:00"]]',
    'each item has its version, its place in that version, its time and its task');
select is(entity_get('e', 'other'), null, 'a log without items reads as null');
select is_empty($$ select from entity_items('e', 'other') $$, 'a log without items has no items');
select is(entity_get('e', 'events.0'), null, 'a path into a log reads as null');
select is(entity_get('e'), '{"n": 1}', 'a log is not part of the document');
select given(entity_log('e', '"a.b".c', '1'));
select is(entity_get('e', '"a.b".c'), '[1]', 'the name of a log is a path');

-- A log and a value of the document at the same path.

select given(entity_log('e', 'n', '"beside"'));
select is(entity_get('e', 'n'), '1', 'entity_get() reads the value of the document before the log');
select is(
    (select jsonb_agg(i.item) from entity_items('e', 'n') as i),
    '["beside"]',
    'entity_items() reads the log although the document has a value');
select given(entity_delete('e', 'n'));
select is(entity_get('e', 'n'), '["beside"]', 'entity_get() reads the log if the document has no value');
select given(entity_set('e', 'null', 'n'));
select is(entity_get('e', 'n'), 'null', 'a null in the document counts as a value');
select is(entity_log('e', 'n.m', '1'), '10', 'a log may be beneath a value of the document');

-- Order and pages.

select given(entity_create('p', 'note'));
select given(entity_log('p', 'l', (select jsonb_agg(10 * n + m) from generate_series(0, n - 1) as m)))
  from generate_series(1, 5) as n;
select given(entity_log('p', 'other', '0'));
select is(
    (select jsonb_agg(i.item) from entity_items('p', 'l', cases.after, cases.max_rows) as i),
    items,
    format('%s items after version %s are %s', max_rows, after, items))
  from (values
        (0, 1000, '[10, 20, 21, 30, 31, 32, 40, 41, 42, 43, 50, 51, 52, 53, 54]'::jsonb),
        (0, 1, '[10]'),
        (0, 3, '[10, 20, 21]'),
        (0, 2, '[10, 20, 21]'),
        (2, 1, '[30, 31, 32]'),
        (3, 6, '[40, 41, 42, 43, 50, 51, 52, 53, 54]'),
        (5, 10, null),
        (0, 0, null)
       ) as cases (after, max_rows, items);
select is(entity_at('p', 2, path => 'l'), '[10, 20, 21]', 'entity_at() reads a log at a version');

-- Refusals, versions and keys: as with every command.

select throws_ok(format('select entity_log(%s)', call), code, null, format('a log with %s is refused', about))
  from (values
        ('no name', '''e'', '''', ''1''', 'PD103'),
        ('no item', '''e'', ''l'', null', 'PD103'),
        ('a name of more than 1000 bytes', '''e'', repeat(''x'', 1001), ''1''', 'PD101'),
        ('an item of more than 1 MB', '''e'', ''l'', to_jsonb(repeat(''x'', 1048576))', 'PD301'),
        ('an old version', '''e'', ''l'', ''1'', expected_version => 1', 'PD105'),
        ('no memory', '''nobody'', ''l'', ''1''', 'PD401')
       ) as cases (about, call, code);
select throws_ok($$ select entity_items('e', '') $$, 'PD101', null, 'entity_items() without a name is refused');
select is(entity_log('e', repeat('x', 990), '1'), '11', 'a name may have nearly 1000 bytes');
select is(entity_log('e', 'k', '1', key => 'k'), '12', 'the first call with a key is applied [P2]');
select is(entity_log('e', 'k', '1', key => 'k'), '12', 'a repeated call adds nothing [P2] [P12]');
select is(error_of($$ select entity_log('e', 'k', '2', key => 'k') $$), 'PD106',
          'a key with another item is refused [P2]');
select is(entity_get('e', 'k'), '[1]', 'a repeated call adds its item once');

-- Logs in a turn.

select have_held_job('j', '{"n": 1}');
select given(entity_log('j', 'l', '"before"'));
select is(tell(a_turn('j', facts => '[
    {"key": "r1", "op": "get", "path": ["l"]},
    {"key": "l1", "op": "log", "path": ["l"], "value": [1, 2]},
    {"key": "r2", "op": "get", "path": ["l"]},
    {"key": "l2", "op": "log", "path": ["l"], "value": 3},
    {"key": "l3", "op": "log", "path": [], "value": [3]},
    {"key": "l4", "op": "log", "path": ["m"], "value": [4]},
    {"key": "l5", "op": "log", "path": ["l"], "value": [5]},
    {"key": "r3", "op": "get", "path": ["l"]},
    {"key": "r4", "op": "get", "path": ["m"]},
    {"key": "r5", "op": "get"}]')) -> 'answers' #- '{3,2}' #- '{4,2}', '[
    [1, true, ["before"]],
    [2, true, 3],
    [3, true, ["before", 1, 2]],
    [4, false],
    [5, false],
    [6, true, 4],
    [7, true, 5],
    [8, true, ["before", 1, 2, 5]],
    [9, true, [4]],
    [10, true, {"n": 1}]]',
    'a turn reads the items that it added; an item outside a list and a log without a name are refused [P4]');
select is(
    tell(a_turn('j', facts => jsonb_build_array(
             jsonb_build_object('op', 'log', 'value', '[1]'::jsonb, 'path', array[(
                 select string_agg(md5(n::text), '') from generate_series(1, 200) as n)]))))
        #>> '{answers,0,2,code}', 'PD101', 'a path that is too long is refused in a turn, and aborts nothing');
select is(
    (select jsonb_agg(f -> 4) from jsonb_array_elements(journal_of('j')) as f where f -> 1 = '"read"'),
    '[["before"], ["before", 1, 2], ["before", 1, 2, 5], [4], {"n": 1}]',
    'the journal has the items that were read (C35) [P4]');
select is(
    (select jsonb_agg(jsonb_build_array(i.version, i.item, i.task) order by i.version, i.place)
       from entity_items('j', 'l') as i),
    '[[2, "before", "$outside"], [3, 1, "1/main"], [3, 2, "1/main"], [5, 5, "1/main"]]',
    'an item has the task that added it');
select given(hook('j', 'h', key => 'h', queue => 'hooks'));
select given(take('bob', '{hooks}'));
select is(tell(a_turn('j', facts => '[{"op": "log", "path": ["l"], "value": [6]}]'),
               a_turn('j', '$hook/h', worker => 'bob', facts => '[{"op": "log", "path": ["l"], "value": [7]},
                                                                   {"op": "get", "path": ["l"]}]'))
               #> '{1,answers,1,2}',
          '["before", 1, 2, 5, 6, 7]', 'a task reads the items that another task of its batch added');

-- A log does not write the document again: its row keeps the pointer to the TOAST table.

select given(entity_create('large', 'note', (
    select jsonb_object_agg('k' || n, md5(n::text)) from generate_series(1, 2000) as n)));
create function stored_apart() returns bigint
language plpgsql
as $$
begin
    return (select pg_relation_size(c.reltoastrelid) from pg_class as c where c.oid = 'perdure.jobs'::regclass);
end
$$;
create temporary table size as select stored_apart() as before;
select given(entity_log('large', 'l', to_jsonb(n))) from generate_series(1, 120) as n;
select given(entity_apply('large', '[{"op": "log", "path": "l", "value": 1}, {"op": "log", "path": "m", "value": 2}]'));
select is(stored_apart() - before, 0::bigint, 'a log does not write the document again') from size;
select is(
    (select jsonb_agg(jsonb_build_array(s.version, s.context is null))
       from perdure.snapshots as s
      where s.job_id = 'large'),
    '[[100, false]]',
    'the hundredth version has a snapshot of the document');
select given(entity_log('large', 'l', to_jsonb(n))) from generate_series(1, 100) as n;
select is((select jsonb_agg(jsonb_build_array(s.version, s.context is null) order by s.version)
             from perdure.snapshots as s where s.job_id = 'large'),
          '[[100, false], [200, true]]', 'an unchanged document is not stored again in the next snapshot');
select is(entity_at('large', 223), entity_at('large', 1), 'an unchanged document is found at a later version');
select given(entity_set('large', '1', 'n'));
select is(entity_at('large', 224), the_job('large') -> 'context', 'commands continue after unchanged snapshots');

-- A log has no limit, but one read of it has.

select have_held_job('endless');
select given(entity_log('endless', 'l', to_jsonb(repeat('x', 1000000)))) from generate_series(1, 9);
select throws_ok($$ select entity_get('endless', 'l') $$, 'PD303', null,
                 'a log of more than 8 MB is not read as one value');
select throws_ok($$ select entity_at('endless', 9, path => 'l') $$, 'PD303', null,
                 'a log of more than 8 MB at an earlier version is not read as one value');
select is(jsonb_array_length(entity_at('endless', 8, path => 'l')), 8,
          'a smaller earlier version of a large log can be read');
select is(
    (select jsonb_agg(jsonb_build_array(a.answer -> 1, a.answer #> '{2,code}') order by a.answer -> 0)
       from jsonb_array_elements(tell(a_turn('endless', facts => '[{"op": "get", "path": ["l"]},
                                                                   {"op": "get", "path": ["n"]}]')) -> 'answers')
         as a (answer)),
    '[[false, "PD303"], [true, null]]',
    'a read of a large log in a turn is answered with a failure, and its neighbours are applied');
select given(entity_log('endless', 'l', to_jsonb(repeat('x', 1000000)))) from generate_series(1, 20);
create function facts_read(statement text) returns bigint
language plpgsql
as $$
declare
    before bigint := (select s.idx_tup_fetch from pg_stat_xact_user_tables as s where s.relid = 'perdure.journal'::regclass);
begin
    execute facts_read.statement;
    return (select s.idx_tup_fetch - before from pg_stat_xact_user_tables as s where s.relid = 'perdure.journal'::regclass);
end
$$;
select cmp_ok(facts_read($$ select log_failure('endless', '{l}', 29) $$), '<=', 10::bigint,
              'refusing a large log reads at most 8 MB of it');
select have_held_job('brim');
select given(entity_log('brim', 'l', to_jsonb(repeat('x', 1000000)))) from generate_series(1, 8);
create temporary table brim as
select tell(a_turn('brim', facts => jsonb_build_array(
                jsonb_build_object('op', 'log', 'path', '{l}'::text[], 'value', jsonb_build_array(repeat('y', 900000))),
                jsonb_build_object('op', 'get', 'path', '{l}'::text[])))) -> 'answers' -> 1 as told;
select is(jsonb_array_length(told -> 2), 9, 'a turn reads a log that its own batch has filled to the limit') from brim;
select is(md5(read_journal('brim', '1/main')::jsonb #>> '{1,6}'), md5(told ->> 2), 'a replay reads the same value [P4]')
  from brim;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
