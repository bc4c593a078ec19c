-- The end of a log: its last items, and page by page towards its beginning.

begin;
select plan(44);

-- Which items, in which order.

select given(entity_create('p', 'note'));
select given(entity_log('p', 'l', (select jsonb_agg(10 * n + m) from generate_series(0, n - 1) as m)))
  from generate_series(1, 5) as n;  -- version n has n items
select given(entity_log('p', 'l', '[]'));
select given(entity_log('p', 'other', '0'));
select is(
    (select jsonb_agg(i.item)
       from entity_items('p', 'l', cases.after, last => cases.last, before => cases.before, place => cases.place) as i),
    items,
    format('the last %s items after version %s and before version %s, place %s: %s', last, after, before, place, items))
  from (values
        (0, 2, null, null, '[53, 54]'::jsonb),
        (0, 1, null, null, '[54]'),
        (0, 5, null, null, '[50, 51, 52, 53, 54]'),
        (0, 6, null, null, '[43, 50, 51, 52, 53, 54]'),
        (0, 100, null, null, '[10, 20, 21, 30, 31, 32, 40, 41, 42, 43, 50, 51, 52, 53, 54]'),
        (0, 2147483647, null, null, '[10, 20, 21, 30, 31, 32, 40, 41, 42, 43, 50, 51, 52, 53, 54]'),
        (0, 0, null, null, null),
        (0, 3, 5, 3, '[43, 50, 51]'),
        (0, 3, 5, 1, '[41, 42, 43]'),
        (0, 3, 5, null, '[41, 42, 43]'),
        (0, 3, 5, 100, '[52, 53, 54]'),
        (0, 3, 6, 1, '[52, 53, 54]'),
        (0, 3, 100, null, '[52, 53, 54]'),
        (0, 3, 9223372036854775807, 1, '[52, 53, 54]'),
        (0, 3, -9223372036854775808, 1, null),
        (0, 3, 1, 1, null),
        (0, 3, 2, 2, '[10, 20]'),
        (3, 9, 5, 3, '[40, 41, 42, 43, 50, 51]'),
        (4, 2, null, null, '[53, 54]'),
        (5, 2, null, null, null),
        (3, 9, 3, null, null),
        (null, 2, null, 1, '[53, 54]'),
        -- Without last: the first of them.
        (3, null, 5, 3, '[40, 41, 42, 43, 50, 51]'),
        (0, null, 3, null, '[10, 20, 21]'),
        (0, null, 1, 1, null)
       ) as cases (after, last, before, place, items);
select is(
    (select jsonb_agg(i.item) from entity_items('p', 'l', 0, cases.max_rows, before => 3, place => 3) as i), items,
    format('the first %s items before a place: %s', max_rows, items))
  from (values (1, '[10]'::jsonb), (2, '[10, 20, 21]'), (4, '[10, 20, 21, 30, 31]'), (0, null))
         as cases (max_rows, items);
select results_eq(
    $$ select * from entity_items('p', 'l', last => 4) $$,
    $$ select * from entity_items('p', 'l', after => 4) as i where i.item > '50' order by i.version, i.place $$,
    'an item has the same version, place, time and task from either end');
select throws_ok($$ select entity_items('p', 'l', last => -1) $$, 'PD107', null,
                 'a negative number of last items is refused');
select is_empty($$ select entity_items('p', 'none', last => 3) $$, 'a log without items has no last items');

-- Pages towards the beginning.

create function pages(amount integer) returns jsonb
language plpgsql
as $$
declare
    page log_item[];
    told jsonb := '[]';
begin
    loop
        page := array(select i from entity_items('p', 'l', last => amount, before => page[1].version,
                                                 place => page[1].place) as i);
        exit when page = '{}';
        told := (select jsonb_agg(i.item) from unnest(page) as i) || told;
    end loop;
    return told;
end
$$;
select is(pages(amount), entity_get('p', 'l'), format('pages of %s items have each item once', amount))
  from unnest('{1,2,3,4,7,15,16}'::integer[]) as amount;

-- What else happens to the memory.

select given(entity_set('p', '1', 'l'));
select given(entity_set('p', '{}'));
select given(entity_delete('p', 'l'));
select given(entity_restore('p', 2));
select given(entity_log('p', 'l', '"new"'));
select is(
    (select jsonb_agg(i.item) from entity_items('p', 'l', last => 2) as i), '[54, "new"]',
    'commands at the path of a log leave it as it is, and so does entity_restore()');
select have_held_job('j');
select given(tell(a_turn('j', facts => '[{"key": "l1", "op": "log", "path": ["l"], "value": [1, 2]},
                                         {"key": "l2", "op": "log", "path": ["l"], "value": 3}]')));
select is((select jsonb_agg(i.item) from entity_items('j', 'l', last => 2) as i), '[1, 2]',
          'what a turn added is at the end, and what was refused is not');
select given(fork('j', 'f'));
select given(entity_log('f', 'l', '3'));
select is((select jsonb_agg(i.item) from entity_items('f', 'l', last => 2) as i), '[2, 3]',
          'the log of a fork goes on after that of its original');
select is((select jsonb_agg(i.item) from entity_items('j', 'l', last => 2) as i), '[1, 2]',
          'an original does not have the items of its fork');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
