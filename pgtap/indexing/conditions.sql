-- Conditions: which memories find() finds. Comparisons are typed and either true or false, and null is a value.

begin;
select plan(325);

create temporary table documents (id text, context jsonb);
insert into documents (id, context)
values ('array', '{"v": [5, "x", null]}'),
       ('day', '{"v": {"day": "2020-01-01"}}'),
       ('empty', '{"v": ""}'),
       ('false', '{"v": false}'),
       ('five', '{"v": 5.0, "n": {"m": [{"k": "deep"}]}}'),
       ('long', jsonb_build_object('v', repeat('x', 600) || 'b')),
       ('long512', jsonb_build_object('v', repeat('x', 512))),
       ('longer', jsonb_build_object('v', repeat('x', 600) || 'c')),
       ('missing', '{"$id": "mine", "a.b": {"c": 1}}'),
       ('null', '{"v": null}'),
       ('object', '{"v": {"a": 5, "b": {"c": [1, 2]}}}'),
       ('text5', '{"v": "5"}'),
       ('textx', '{"v": "x", "n": {"m": [{"k": "other"}]}}'),
       ('time', '{"v": "2026-01-31T12:00:00Z"}'),
       ('timeoff', '{"v": "2026-01-31T14:30:00+02:00"}'),
       ('timenone', '{"v": "2026-02-30T12:00:00Z"}'),
       ('true', '{"v": true}'),
       ('zero', '{"v": 0}');
select given(entity_create(d.id, 'doc', d.context)) from documents as d;
select given(entity_create('stranger', 'other', '{"v": 5}'));

create function all_but(others text) returns text
language plpgsql
as $$
begin
    return (select string_agg(d.id, ' ' order by d.id)
              from documents as d
             where d.id <> all(string_to_array(all_but.others, ' ')));
end
$$;

create temporary table questions (number integer generated always as identity, asked jsonb, answer text);
insert into questions (asked, answer)
values -- Everything, and equality by type.
       ('{}', all_but('')),
       ('{"v": 5}', 'five'),
       ('{"v": "5"}', 'text5'),
       ('{"v": ""}', 'empty'),
       ('{"v": true}', 'true'),
       ('{"v": false}', 'false'),
       ('{"v": null}', 'null'),
       ('{"v": [5, "x", null]}', 'array'),
       ('{"v": [5, "x"]}', ''),
       ('{"v": {"a": 5, "b": {"c": [1, 2]}}}', 'object'),
       ('{"v": {"a": 5}}', ''),
       ('{"v": {}}', ''),
       ('{"v": {"$eq": {"a": 5, "b": {"c": [1, 2]}}}}', 'object'),
       ('{"v": {"$time": "2026-01-31T12:00:00Z"}}', 'time'),
       ('{"v": {"$time": "2026-01-31T13:00:00+01:00"}}', 'time'),
       ('{"v": {"$time": "2026-01-31T12:30:00Z"}}', 'timeoff'),
       ('{"v": "2026-01-31T12:00:00Z"}', 'time'),
       -- A negation holds wherever the question does not, also where nothing is.
       ('{"v": {"$ne": 5}}', all_but('five')),
       ('{"v": {"$ne": null}}', all_but('null')),
       ('{"v": {"$not": {"$gt": 0}}}', all_but('five')),
       ('{"v": {"$not": 5}}', all_but('five')),
       ('{"v": {"$nin": [5, "5", null]}}', all_but('five text5 null')),
       ('{"v": {"$nin": []}}', all_but('')),
       ('{"$not": {"v": 5}}', all_but('five')),
       ('{"$not": {"$not": {"v": 5}}}', 'five'),
       ('{"$not": {"v": 5, "nothing": 1}}', all_but('')),
       -- Before and after, among values of one type.
       ('{"v": {"$gt": 0}}', 'five'),
       ('{"v": {"$gte": 0}}', 'five zero'),
       ('{"v": {"$lt": 5}}', 'zero'),
       ('{"v": {"$lte": 5}}', 'five zero'),
       ('{"v": {"$gt": 0, "$lt": 5}}', ''),
       ('{"v": {"$gt": "2", "$lt": "y"}}', 'long long512 longer text5 textx time timenone timeoff'),
       ('{"v": {"$lt": "2"}}', 'empty'),
       ('{"v": {"$gte": "x"}}', 'long long512 longer textx'),
       ('{"v": {"$gt": false}}', 'true'),
       ('{"v": {"$lte": false}}', 'false'),
       ('{"v": {"$gt": {"$time": "2026-01-31T12:00:00Z"}}}', 'timeoff'),
       ('{"v": {"$lte": {"$time": "2026-01-31T12:00:00Z"}}}', 'time'),
       -- Longer texts than an index keeps are compared to their ends.
       (jsonb_build_object('v', repeat('x', 600) || 'b'), 'long'),
       (jsonb_build_object('v', repeat('x', 512)), 'long512'),
       (jsonb_build_object('v', repeat('x', 511)), ''),
       (jsonb_build_object('v', jsonb_build_object('$gt', repeat('x', 600) || 'b')), 'longer'),
       (jsonb_build_object('v', jsonb_build_object('$gte', repeat('x', 600) || 'b')), 'long longer'),
       (jsonb_build_object('v', jsonb_build_object('$gt', repeat('x', 512))), 'long longer'),
       (jsonb_build_object('v', jsonb_build_object('$gt', 'w', '$lt', repeat('x', 600) || 'b')), 'long512 textx'),
       (jsonb_build_object('v', jsonb_build_object(
            '$in', jsonb_build_array(repeat('x', 600) || 'c', repeat('x', 512), 'x'))), 'long512 longer textx'),
       -- One of many.
       ('{"v": {"$in": [5, 0, "x", true, null, [5, "x", null], {"$time": "2026-01-31T12:00:00Z"}]}}',
        'array five null textx time true zero'),
       ('{"v": {"$in": [true, false, true]}}', 'false true'),
       ('{"v": {"$in": []}}', ''),
       ('{"v": {"$in": ["5", "x", "nothing"]}}', 'text5 textx'),
       -- A JSON null exists; a missing value does not.
       ('{"v": {"$exists": false}}', 'missing'),
       ('{"v": {"$exists": true}}', all_but('missing')),
       ('{"v.a": {"$exists": true}}', 'object'),
       ('{"nothing": null}', ''),
       -- Inside of arrays and objects.
       ('{"v": {"$contains": {"b": {"c": [2]}}}}', 'object'),
       ('{"v": {"$contains": [null, 5]}}', 'array'),
       ('{"v": {"$contains": "x"}}', 'array textx'),
       ('{"": {"$contains": {"n": {"m": [{"k": "deep"}]}}}}', 'five'),
       ('{"v": {"$match": "$.a >= 5"}}', 'object'),
       ('{"v": {"$match": "$[*] == \"x\""}}', 'array textx'),
       ('{"": {"$match": "$.n.m[*].k like_regex \"^d\""}}', 'five'),
       ('{"v": {"$match": "$.a"}}', ''),
       ('{"v": {"$not": {"$match": "$.a >= 5"}}}', all_but('object')),
       -- A date and a time with a zone do not compare: what cannot be judged does not hold, and breaks no question.
       ('{"v": {"$match": "$.day.datetime() < \"2030-01-01T00:00:00+00:00\".datetime()"}}', ''),
       ('{"v": {"$match": "$.day.datetime() < \"2030-01-01\".datetime()"}}', 'day'),
       -- Places.
       ('{"n.m.0.k": "deep"}', 'five'),
       ('{"n.m.-1.k": {"$exists": true}}', 'five textx'),
       ('{"\"a.b\".c": 1}', 'missing'),
       ('{"\"$id\"": "mine"}', 'missing'),
       ('{"v.0": 5}', 'array'),
       ('{"v.b.c.1": 2}', 'object'),
       -- Combinations.
       ('{"v": 5, "n.m.0.k": "deep"}', 'five'),
       ('{"v": 5, "n.m.0.k": "other"}', ''),
       ('{"$or": [{"v": 5}, {"v": "x"}, {"v.a": 5}]}', 'five object textx'),
       ('{"$or": []}', ''),
       ('{"$and": []}', all_but('')),
       ('{"$and": [{"v": {"$exists": true}}, {"$or": [{"v": 0}, {"v": 5}]}], "n": {"$exists": false}}', 'zero'),
       -- Columns.
       ('{"$id": "five"}', 'five'),
       ('{"$id": {"$gte": "time", "$lt": "true"}}', 'time timenone timeoff'),
       ('{"$id": {"$in": ["five", "zero", "stranger"]}}', 'five zero'),
       (jsonb_build_object('$id', jsonb_build_object('$gt', 'true', '$lt', repeat('z', 600))), 'zero'),
       (jsonb_build_object('$id', jsonb_build_object('$in', jsonb_build_array(
            'five', repeat('y', 600), repeat('z', 600)))), 'five'),
       ('{"$status": null}', all_but('')),
       ('{"$status": {"$in": ["running", null]}}', all_but('')),
       ('{"$status": {"$exists": true}}', ''),
       ('{"$workflow": {"$ne": "research"}}', all_but('')),
       ('{"$version": 1}', all_but('')),
       ('{"$version": {"$gt": 1.5}}', ''),
       ('{"$created_at": {"$gt": {"$time": "2020-01-01T00:00:00Z"}}}', all_but(''));

select is(found(q.asked), q.answer, format('%s finds %s (E12)', left(q.asked::text, 100), q.answer))
  from (select * from questions order by number) as q;
select is(count_found('doc', q.asked), cardinality(string_to_array(q.answer, ' '))::bigint,
          format('%s counts its matches (E12)', left(q.asked::text, 100)))
  from (select * from questions order by number) as q;

-- Indexes do not change the results.

select given(create_index('doc', 'v', kind)) from unnest('{text,number,boolean,time,contains}'::text[]) as kind;
select given(create_index('doc', '', 'contains'));
select given(set_config(name, 'off', true)) from unnest('{enable_seqscan,enable_indexscan,jit}'::text[]) as name;
select is(found(q.asked), q.answer, format('%s finds the same with indexes (C73)', left(q.asked::text, 100)))
  from (select * from questions order by number) as q;

-- Values that are equal, although they are written differently or read only in part.

select given(entity_create('list', 'odd', jsonb_build_object('v', jsonb_build_array(1.0, repeat('x', 600)))));
select given(entity_create('tiny', 'odd', format('{"v": 0.%s1}', repeat('0', 449))::jsonb));
select is(array(select f.id from find('odd', jsonb_build_object('v', cases.value)) as f), array[cases.id],
          format('%s is found by its value', cases.id))
  from (values ('list', jsonb_build_array(1, repeat('x', 600))), ('tiny', format('0.%s1', repeat('0', 449))::jsonb))
    as cases (id, value);

-- What raises in the operator, even if it is told to hide errors (since PostgreSQL 17): it does not hold.

select is(case when current_setting('server_version_num')::integer >= 170000 then
              count_found('doc', jsonb_build_object('v', jsonb_build_object('$match', predicate))) else 0 end,
          0::bigint, format('%s holds nowhere', predicate))
  from unnest('{"$.day != null && \"1\".decimal(5000) == 1",
                "$.day != null && \"12:00:00\".time() < \"12:00:00+01:00\".time_tz()"}'::text[]) as predicate;

-- Wrong conditions are refused.

select throws_ok(
    format('select * from find(%L, %L)', entity, asked), code, null,
    format('%s is refused (%s)', left(asked, 80), code))
  from (values
        ('', '{}', 'PD104'),
        (repeat('x', 201), '{}', 'PD104'),
        ('doc', '[]', 'PD107'),
        ('doc', 'null', 'PD107'),
        ('doc', '{"a..b": 1}', 'PD101'),
        ('doc', '{"$gt": 1}', 'PD107'),
        ('doc', '{"$context": 1}', 'PD107'),
        ('doc', '{"v": {"$like": "x"}}', 'PD107'),
        ('doc', '{"v": {"$gt": null}}', 'PD107'),
        ('doc', '{"v": {"$gt": [1]}}', 'PD107'),
        ('doc', '{"v": {"$gt": 1, "a": 2}}', 'PD107'),
        ('doc', '{"v": {"$in": 1}}', 'PD107'),
        ('doc', '{"v": {"$exists": 1}}', 'PD107'),
        ('doc', '{"v": {"$time": "yesterday"}}', 'PD107'),
        ('doc', '{"v": {"$time": null}}', 'PD107'),
        ('doc', '{"v": {"$time": "2026-01-01T00:00:00"}}', 'PD107'),
        ('doc', '{"v": {"at": {"$time": "2026-01-01T00:00:00Z"}}}', 'PD107'),
        ('doc', '{"v": {"$time": "2026-01-01T00:00:00Z", "zone": "UTC"}}', 'PD107'),
        ('doc', '{"v": {"$contains": [{"$time": "2026-01-01T00:00:00Z"}]}}', 'PD107'),
        ('doc', '{"v": {"$match": "$.a >"}}', 'PD107'),
        ('doc', '{"v": {"$match": "$.a == $x"}}', 'PD107'),
        ('doc', '{"v": {"$match": 1}}', 'PD107'),
        ('doc', '{"v": {"$match": "$ like_regex \"(\""}}', 'PD107'),
        ('doc', '{"v": {"$match": "$ like_regex \"a\" flag \"x\""}}', 'PD107'),
        ('doc', '{"v": {"$match": "' || repeat('x', 1001) || '"}}', 'PD107'),
        ('doc', '{"$id": 5}', 'PD107'),
        ('doc', '{"$version": "5"}', 'PD107'),
        ('doc', '{"$created_at": "2026-01-01T00:00:00Z"}', 'PD107'),
        ('doc', '{"$id": {"$match": "$ == 1"}}', 'PD107'),
        ('doc', '{"$id": {"$contains": "x"}}', 'PD107'),
        ('doc', '{"$id": {"$search": "x"}}', 'PD107'),
        ('doc', '{"v": {"$search": 5}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": "x"}}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": 5, "language": "german"}}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": "x", "language": null}}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": "x", "language": "klingon"}}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": "x", "language": "pg_catalog.german"}}}', 'PD107'),
        ('doc', '{"v": {"$search": {"text": "x", "language": "german", "rank": 1}}}', 'PD107'),
        ('doc', '{"v": {"$search": "' || repeat('x', 1001) || '"}}', 'PD107'),
        ('doc', '{"$or": {"a": 1}}', 'PD107'),
        ('doc', '{"$or": [1]}', 'PD107'),
        ('doc', '{"$not": [1]}', 'PD107'),
        ('doc', format('{"v": {"$in": %s}}', to_jsonb(array(select generate_series(1, 3000)))), 'PD107'),
        ('doc', format('{"v": {"$in": %s}}', to_jsonb(array(select generate_series(1, 1998)))), 'PD107'),
        ('doc', repeat('{"$not": ', 30) || '{}' || repeat('}', 30), 'PD107'),
        ('doc', repeat('{"$not": ', 21) || '{}' || repeat('}', 21), 'PD107'),
        ('doc', jsonb_build_object('v', repeat('x', 1048577))::text, 'PD301')
       ) as refused (entity, asked, code);
select lives_ok(format('select * from find(%L, %L)', 'doc', asked), format('%s is answered', left(asked, 80)))
  from (values (format('{"v": {"$in": %s}}', to_jsonb(array(select generate_series(1, 1997))))),
               (repeat('{"$not": ', 20) || '{}' || repeat('}', 20))) as accepted (asked);
select throws_ok($$ select * from find('doc', null) $$, 'PD107', null, 'conditions of null are refused');
select throws_ok(format('select count_found(%L, %L)', entity, asked), code, null,
                 format('count_found(%L, %L) is refused', entity, asked))
  from (values ('', '{}', 'PD104'), ('doc', null, 'PD107')) as refused (entity, asked, code);
select lives_ok(
    $$ select * from find('doc', '{"v": {"$match": "$ == \"a$\""}}') $$, 'a dollar in a text is not a variable');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
