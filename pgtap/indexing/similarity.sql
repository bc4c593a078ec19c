-- Similarity: a search finds the stems of words anywhere in a value, and the best matches come first.

begin;
select plan(132);

create temporary table documents (id text, context jsonb);
insert into documents (id, context)
values ('array', '{"notes": ["Solar cells", {"by": "wind"}, 5, null], "author": {"name": "Jane Doe"}}'),
       ('empty', '{"notes": ""}'),
       ('german', '{"notes": "Die Häuser der Städte"}'),
       ('missing', '{"$search": "solar"}'),
       ('number', '{"notes": 5, "solar": 1}'),
       ('quoted', '{"notes": "it''s \"quoted\" & | ! ( ) : * <-> \\ solar"}'),
       ('solar', '{"notes": "Solar panels convert sunlight, and panels age"}'),
       ('wind', '{"notes": "The panel of a wind turbine"}'),
       ('words', '{"notes": {"solar": "wind"}}');
select given(entity_create(d.id, 'doc', d.context)) from documents as d;
select given(entity_create('stranger', 'other', '{"notes": "solar"}'));

-- $search.

create temporary table questions (number integer generated always as identity, asked jsonb, answer text);
insert into questions (asked, answer)
values ('{"notes": {"$search": "solar"}}', 'array quoted solar'),
       ('{"notes": {"$search": "SOLAR panel"}}', 'solar'),
       ('{"notes": {"$search": "converting"}}', 'solar'),
       ('{"notes": {"$search": "panel -wind"}}', 'solar'),
       ('{"notes": {"$search": "solar or wind"}}', 'array quoted solar wind words'),
       ('{"notes": {"$search": "\"wind turbine\""}}', 'wind'),
       ('{"notes": {"$search": "\"turbine wind\""}}', ''),
       ('{"notes": {"$search": "\"cells wind\""}}', ''),
       ('{"notes": {"$search": "the"}}', ''),
       ('{"notes": {"$search": ""}}', ''),
       ('{"notes": {"$search": "& | ! ( ) : * <-> \\"}}', ''),
       ('{"notes": {"$search": "quoted:*"}}', 'quoted'),
       ('{"notes": {"$search": "5"}}', ''),
       ('{"notes.1.by": {"$search": "wind"}}', 'array'),
       ('{"": {"$search": "solar"}}', 'array missing quoted solar'),
       ('{"": {"$search": "doe solar"}}', 'array'),
       ('{"notes": {"$search": {"text": "Haus Stadt", "language": "german"}}}', 'german'),
       ('{"notes": {"$search": "Haus"}}', ''),
       ('{"notes": {"$search": {"text": "panels", "language": "simple"}}}', 'solar'),
       ('{"notes": {"$search": {"text": "the", "language": "simple"}}}', 'wind'),
       ('{"notes": {"$search": {"text": "solar", "language": "english"}}}', 'array quoted solar'),
       ('{"notes": {"$not": {"$search": "solar or wind"}}}', 'empty german missing number'),
       ('{"$or": [{"notes": {"$search": "cell"}}, {"notes": 5}]}', 'array number');
select is(found(q.asked), q.answer, format('%s finds %s (E12)', q.asked, q.answer))
  from (select * from questions order by number) as q;
select is(count_found('doc', q.asked), cardinality(string_to_array(q.answer, ' '))::bigint,
          format('%s counts its matches (E12)', q.asked))
  from (select * from questions order by number) as q;

-- The best match comes first; what does not match comes last, and the id breaks ties.

create temporary table orders (number integer generated always as identity, order_by jsonb, answer text);
insert into orders (order_by, answer)
values ('[{"path": "notes", "search": "panel"}]', 'solar wind words quoted number missing german empty array'),
       ('[{"path": "notes", "search": "solar or wind"}, "$id"]',
        'array quoted solar wind words empty german missing number'),
       ('["$status", {"path": "notes", "search": "panel"}, "$id"]',
        'solar wind array empty german missing number quoted words'),
       ('[{"path": "", "search": {"text": "stadt", "language": "german"}}]',
        'german words wind solar quoted number missing empty array');
create function ordered(order_by jsonb, size integer default 100) returns text
language plpgsql
as $$
declare
    ids text[] := '{}';
    page found_job[];
    after jsonb;
begin
    loop
        page := array(select f from find('doc', '{}', ordered.order_by, ordered.size, after) as f);
        ids := ids || array(select p.id from unnest(page) with ordinality as p order by p.ordinality);
        exit when cardinality(page) < ordered.size;
        after := (page[ordered.size]).place;
    end loop;
    return array_to_string(ids, ' ');
end
$$;
select is(ordered(o.order_by), o.answer, format('%s gives this order (E12)', o.order_by))
  from (select * from orders order by number) as o;
select is(ordered(o.order_by, size), o.answer, format('pages of %s join in the order of %s (E12)', size, o.order_by))
  from (select * from orders order by number) as o
 cross join unnest('{1,2,9}'::integer[]) as size;

-- Indexes do not change the results.

select given(create_index('doc', path, kind))
  from (values
        ('notes', 'search'),
        ('', 'search'),
        ('notes', 'search(german)'),
        ('notes', 'search(simple)'),
        ('', 'search(german)')
       ) as cases (path, kind);
select given(set_config(name, 'off', true)) from unnest('{enable_seqscan,enable_indexscan,jit}'::text[]) as name;
select is(found(q.asked), q.answer, format('%s finds the same with indexes (C73)', q.asked))
  from (select * from questions order by number) as q;
select is(ordered(o.order_by, 2), o.answer, format('%s orders the same with indexes (C73)', o.order_by))
  from (select * from orders order by number) as o;

-- Wrong orders are refused.

select throws_ok(format('select * from find(''doc'', ''{}'', %L)', order_by), code, null,
                 format('%s is refused (%s)', order_by, code))
  from (values
        ('[{"path": "notes", "search": 5}]', 'PD107'),
        ('[{"path": "notes", "search": "x", "descending": true}]', 'PD107'),
        ('[{"path": "notes", "search": "x", "near": [1]}]', 'PD107'),
        ('[{"path": "$id", "search": "x"}]', 'PD107'),
        ('[{"path": "a..b", "search": "x"}]', 'PD101'),
        ('[{"search": "x"}]', 'PD107'),
        ('[{"path": "v", "near": []}]', 'PD107'),
        ('[{"path": "v", "near": [0, 0]}]', 'PD107'),
        ('[{"path": "v", "near": [1e-300, 1e-19]}]', 'PD107'),
        ('[{"path": "v", "near": [1, 1e19]}]', 'PD107'),
        ('[{"path": "v", "near": [1, "x"]}]', 'PD107'),
        ('[{"path": "v", "near": [1, 1e39]}]', 'PD107'),
        ('[{"path": "v", "near": [[1, 2]]}]', 'PD107'),
        ('[{"path": "v", "near": "[1, 2]"}]', 'PD107'),
        ('[{"path": "v", "near": [1], "as": "number"}]', 'PD107'),
        ('[{"path": "$version", "near": [1]}]', 'PD107')
       ) as refused (order_by, code);
select throws_like(
    $$ select * from find('doc', '{}', '[{"path": "v", "near": [1, 2]}]') $$, 'vectors need the extension pgvector%',
    'an order by a vector needs pgvector');
select throws_like(
    $$ select create_index('doc', 'v', 'vector(3)') $$, 'vectors need the extension pgvector%',
    'an index of vectors needs pgvector');
select throws_ok(format('select * from find(''doc'', ''{}'', %L, 10, %L)', '[{"path": "notes", "search": "x"}]', place),
                 'PD107', null, format('the place %s is refused for a search', place))
  from unnest('{"[[], [\"a\"]]","[[\"x\"], [\"a\"]]","[[1e300], [\"a\"]]","[[1]]"}'::text[]) as place;

-- numbers_at() reads only what a vector can hold.

select is(numbers_at(jsonb_build_object('v', v::jsonb), '{v}', 3), numbers,
          format('numbers_at() reads %s', left(v, 40)))
  from (values
        ('[1, -2.5, 0]', '{1,-2.5,0}'::real[]),
        ('[1, 2]', null),
        ('[1, 2, 3, 4]', null),
        ('[1, "2", 3]', null),
        ('[1, null, 3]', null),
        ('[1, true, 3]', null),
        ('[1, [2], 3]', null),
        ('{"0": 1}', null),
        ('"[1, 2, 3]"', null),
        ('[1e37, -1e37, 1]', '{1e37,-1e37,1}'),
        ('[1e38, 1, 1]', null),
        ('[-1e400, 1, 1]', null),
        ('[1e-44, -1e-45, 1e-400]', '{1e-44,0,0}'),
        ('[0.1234567890123456789012345678901234567890123456789, 1, 1]', '{0.12345679,1,1}')
       ) as cases (v, numbers);

-- What is searched for: its length, long words, many negations, and languages of users.

select given(entity_create('word', 'words', jsonb_build_object('w', repeat('y', 300))));
select is(count_found('words', jsonb_build_object('w', jsonb_build_object('$search', search))), found, about)
  from (values
        (1::bigint, repeat('y', 300), 'a long word is found by itself'),
        (0, repeat('x ', 500), 'a thousand characters can be searched for'),
        (0, format('word %sone %stwo', repeat('- ', 40), repeat('-', 40)), 'many negations are one')
       ) as cases (found, search, about);
create text search configuration public.klingon (copy = simple);
select is(error_of($$ select check_language('klingon') $$), 'PD107', 'a language of a user is not one of the server');

-- The first hundred thousand characters of a value are searched, all its texts together.

select given(entity_create(id, 'doc', context))
  from (values
        ('long', jsonb_build_object('long', 'first ' || repeat('ä', 99989) || ' last')),
        ('longer', jsonb_build_object('long', 'first ' || repeat('ä', 99990) || ' last')),
        ('many', jsonb_build_object('long', jsonb_build_array('first', jsonb_build_object('a', repeat('x ', 49999)),
                                                               'last'))),
        ('numbers', (select jsonb_build_object('long', jsonb_agg(i)) from generate_series(1, 30000) as i))
       ) as cases (id, context);
select is(found('{"long": {"$search": "first"}}'), 'long longer many', 'the beginning of a long text is searched');
select is(found('{"long": {"$search": "last"}}'), 'long', 'the end of a text is searched up to that length');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
