-- Ordering: missing values come last, the id breaks ties, and pages join without gaps.

begin;
select plan(182);

select given(entity_create(id, 'doc', context::jsonb))
  from (values
        ('a', '{"v": 2, "w": "z"}'),
        ('b', '{"v": 1, "w": "y"}'),
        ('c', '{"w": "y"}'),
        ('d', '{"v": 2, "w": "x"}'),
        ('e', '{"v": null}'),
        ('f', '{"v": "text", "w": "Z"}'),
        ('g', '{}'),
        ('h', '{"v": 2}'),
        ('i', '{"v": 10, "w": null}'),
        ('j', '{"v": true, "t": "2026-01-01T00:00:00+14:00"}'),
        ('k', '{"v": false, "t": "2025-12-31T10:00:00Z"}'),
        ('l', '{"v": [1], "t": "2025-12-31T09:59:59.999999Z"}')
       ) as documents (id, context);

-- Reads one page after the other and joins them.
create function paged(order_by jsonb, max_rows integer, conditions jsonb default '{}') returns text
language plpgsql
as $$
declare
    page found_job[];
    after jsonb;
    ids text := '';
begin
    loop
        page := array(select f from find('doc', paged.conditions, paged.order_by, paged.max_rows, after) as f);
        ids := ids || coalesce((select string_agg(p.id, '' order by p.number)
                                  from unnest(page) with ordinality as p (id, entity, status, version, context, created_at,
                                                                          updated_at, place, number)), '');
        exit when cardinality(page) < paged.max_rows;
        after := (page[paged.max_rows]).place;
    end loop;
    return ids;
end
$$;

create temporary table orders (number integer generated always as identity, order_by jsonb, answer text);
insert into orders (order_by, answer)
values ('[]', 'abcdefghijkl'),
       ('["$id"]', 'abcdefghijkl'),
       ('["-$id"]', 'lkjihgfedcba'),
       -- As one type: a value of another type counts as missing.
       ('[{"path": "v", "as": "number"}]', 'badhicefgjkl'),
       ('[{"path": "v", "as": "number", "descending": true}]', 'ihdablkjgfec'),
       ('[{"path": "v", "as": "number", "descending": true}, "$id"]', 'iadhbcefgjkl'),
       ('[{"path": "v", "as": "boolean"}]', 'kjabcdefghil'),
       ('[{"path": "v", "as": "boolean", "descending": true}]', 'jklihgfedcba'),
       ('[{"path": "t", "as": "time"}]', 'ljkabcdefghi'),
       ('[{"path": "t", "as": "time", "descending": true}]', 'kjlihgfedcba'),
       ('[{"path": "w", "as": "text"}]', 'fdbcaeghijkl'),
       ('[{"path": "w", "as": "text", "descending": true}]', 'acbdflkjihge'),
       -- As JSON: null, texts, numbers, booleans, arrays; missing values last.
       ('["v"]', 'efbadhikjlcg'),
       ('["-v"]', 'ljkihdabfegc'),
       ('["w"]', null),
       -- Several keys, in any directions.
       ('[{"path": "w", "as": "text"}, {"path": "v", "as": "number"}]', 'fdbcahiegjkl'),
       ('[{"path": "w", "as": "text"}, {"path": "v", "as": "number", "descending": true}]', 'fdbcaihlkjge'),
       ('[{"path": "v", "as": "number"}, {"path": "w", "as": "text", "descending": true}]', 'badhicflkjge'),
       ('[{"path": "v", "as": "number", "descending": true}, {"path": "w", "as": "text"}]', 'idahbfcegjkl'),
       ('["$version", {"path": "v", "as": "number"}]', null),
       ('["-$version", "$created_at"]', null),
       ('["$status"]', 'abcdefghijkl'),
       ('[{"path": "-v"}]', 'abcdefghijkl'),
       ('["-$status"]', 'lkjihgfedcba'),
       ('["-$updated_at"]', null),
       ('["v", "-w", "$status", "$version"]', null);

select is(paged(o.order_by, 1000), o.answer, format('%s gives this order (E12)', o.order_by))
  from (select * from orders order by number) as o
 where o.answer is not null;
select is(paged(o.order_by, size), paged(o.order_by, 1000),
          format('pages of %s join in the order of %s (E12)', size, o.order_by))
  from (select * from orders order by number) as o
 cross join unnest('{1,2,5,12}'::integer[]) as size;
select given(create_index('doc', path, kind))
  from (values ('v', 'number'), ('v', 'boolean'), ('w', 'text'), ('t', 'time')) as cases (path, kind);
select given(set_config(name, 'off', true))
  from unnest('{enable_seqscan,enable_sort,enable_bitmapscan,jit}'::text[]) as name;
select is(paged(o.order_by, 2), o.answer, format('an index does not change the order of %s (C73)', o.order_by))
  from (select * from orders order by number) as o
 where o.answer is not null;
select is(paged('[{"path": "v", "as": "number", "descending": true}]', 1, '{"$not": {"v": 2}}'), 'iblkjgfec',
          'pages respect the conditions (E12)');

-- A place remains valid whatever happens to its row, and does not depend on the session.

select is((select f.place from find('doc', '{"$id": "k"}', '["v", {"path": "t", "as": "time"}, "nothing"]') as f),
          '[[false], ["2025-12-31T10:00:00Z"], [], ["k"]]', 'a place has the values by which its row is ordered');
select given(entity_delete('d'));
select is((select string_agg(f.id, '')
             from find('doc', '{}', '[{"path": "w", "as": "text"}]', 2, '[["x"], ["d"]]') as f), 'bc',
          'a page begins at a place whose row is gone');
select given(entity_create('m', 'doc', jsonb_build_object('w', repeat('w', 600) || 'b')));
select given(entity_create('n', 'doc', jsonb_build_object('w', repeat('w', 600) || 'a')));
select is((select string_agg(f.id, '') from find('doc', '{"$id": {"$gt": "l"}}', '["w"]') as f), 'nm',
          'without a type, whole texts are compared');
select is((select string_agg(f.id, '')
             from find('doc', '{"$id": {"$gt": "l"}}', '[{"path": "w", "as": "text"}]') as f), 'mn',
          'as text, the first 512 characters are compared');

-- Wrong orders and places are refused.

select throws_ok(format('select * from find(%L, %L, %L, %s, %L)', 'doc', '{}', order_by, max_rows, after), code, null,
                 format('order %s, %s rows, after %s is refused', left(order_by, 60), max_rows, after))
  from (values
        ('"v"', 10, null, 'PD107'),
        ('[1]', 10, null, 'PD107'),
        ('[null]', 10, null, 'PD107'),
        ('[["v"]]', 10, null, 'PD107'),
        ('[{"as": "text"}]', 10, null, 'PD107'),
        ('[{"path": "v", "as": "array"}]', 10, null, 'PD107'),
        ('[{"path": "v", "as": "contains"}]', 10, null, 'PD107'),
        ('[{"path": "v", "descending": "yes"}]', 10, null, 'PD107'),
        ('["v desc"]', 10, null, 'PD107'),
        ('["$id ASC"]', 10, null, 'PD107'),
        ('["v DESC"]', 10, null, 'PD107'),
        ('[{"path": "v", "nulls": "first"}]', 10, null, 'PD107'),
        ('[{"path": "$id", "as": "number"}]', 10, null, 'PD107'),
        ('["$context"]', 10, null, 'PD107'),
        ('["v..w"]', 10, null, 'PD101'),
        ('["a", "b", "c", "d", "e", "f", "g", "h", "i"]', 10, null, 'PD107'),
        ('[]', 1001, null, 'PD107'),
        ('[]', 10, '"a"', 'PD107'),
        ('[]', 10, '[]', 'PD107'),
        ('[]', 10, '[[]]', 'PD107'),
        ('[]', 10, '[[1]]', 'PD107'),
        ('[]', 10, '[["a"], ["b"]]', 'PD107'),
        ('[]', 10, '[["a", "b"]]', 'PD107'),
        ('[]', 10, '["a"]', 'PD107'),
        ('[{"path": "v", "as": "number"}]', 10, '[["1"], ["a"]]', 'PD107'),
        ('[{"path": "v", "as": "boolean"}]', 10, '[[1], ["a"]]', 'PD107'),
        ('["$created_at"]', 10, '[["now"], ["a"]]', 'PD107'),
        ('["$created_at"]', 10, '[[], ["a"]]', 'PD107')
       ) as refused (order_by, max_rows, after, code);
select lives_ok($$ select * from find('doc', '{}', '["a", "b", "c", "d", "e", "f", "g", "h"]') $$,
                'an order may have eight keys');
select throws_ok($$ select * from find('doc', '{}', null) $$, 'PD107', null, 'an order of null is refused');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
