-- Limits: values and names that are refused, with their codes, and without any effect.

begin;
select plan(129);

-- Values: size, depth, numbers.

create temporary table values_given (about text, value jsonb, code text) on commit drop;
insert into values_given (about, value, code) values
    ('a text of one megabyte', to_jsonb(repeat('x', 1048574)), null),
    ('a text of more than one megabyte', to_jsonb(repeat('x', 1048575)), 'PD301'),
    ('half a megabyte of two-byte letters', to_jsonb(repeat('ö', 524287)), null),
    ('more than half a megabyte of two-byte letters', to_jsonb(repeat('ö', 524288)), 'PD301'),
    ('an object of many keys', (select jsonb_object_agg(n, n) from generate_series(1, 100000) as n), 'PD301'),
    ('a hundred arrays in each other', (repeat('[', 100) || repeat(']', 100))::jsonb, null),
    ('a hundred and two arrays in each other', (repeat('[', 102) || repeat(']', 102))::jsonb, 'PD302'),
    ('a hundred objects in each other', (repeat('{"a":', 99) || '{}' || repeat('}', 99))::jsonb, null),
    ('a hundred and two objects in each other', (repeat('{"a":', 101) || '{}' || repeat('}', 101))::jsonb, 'PD302'),
    ('arrays and objects in turns', (repeat('[{"a":', 51) || '1' || repeat('}]', 51))::jsonb, 'PD302'),
    ('a depth that hides behind a wide array',
     (select jsonb_agg(n) from generate_series(1, 200) as n)
         || jsonb_build_array((repeat('[', 102) || repeat(']', 102))::jsonb),
     'PD302'),
    ('brackets in a text', to_jsonb(repeat('[', 500)), null),
    ('ten thousand arrays beside each other', (select jsonb_agg('[]'::jsonb) from generate_series(1, 10000)), null),
    ('the largest number', '1e308', null),
    ('the smallest number', '-1e308', null),
    ('a number above the largest', '1.1e308', 'PD304'),
    ('a number below the smallest', '-1e309', 'PD304'),
    ('a number with 131071 zeros', '1e131071', 'PD304'),
    ('a number of 400 zeros in an array in an object', '{"a": [1, {"b": 1e400}]}', 'PD304'),
    ('a very small fraction', '1e-400', null),
    ('digits in a text', to_jsonb(repeat('9', 400)), null);

select is(value_failure(value, 'it') ->> 'code', code,
          format('%s %s', about, coalesce('is refused as ' || code, 'is a value')))
  from values_given;

-- What is not JSON.

select is(error_of(format('select %L::jsonb', written)), code, format('%s is not JSON (%s)', written, code))
  from (values
        ('{"a": NaN}',         '22P02'),
        ('Infinity',           '22P02'),
        ('-Infinity',          '22P02'),
        ('{"a": "\u0000"}',    '22P05'),
        ('"\ud800"',           '22P02'),
        ('{"a": 1,}',          '22P02'),
        ('{''a'': 1}',         '22P02')
       ) as cases (written, code);
select is(to_jsonb('NaN'::numeric), '"NaN"', 'NaN becomes a text in JSON');

-- Names.

create temporary table names_given (about text, name text, is_good boolean) on commit drop;
insert into names_given (about, name, is_good) values
    ('one letter',                      'x', true),
    ('two hundred bytes',               repeat('x', 200), true),
    ('two hundred and one bytes',             repeat('x', 201), false),
    ('two hundred bytes of umlauts',    repeat('ü', 100), true),
    ('two hundred and two bytes of umlauts',     repeat('ü', 101), false),
    ('quotes',                          'it''s "so"', true),
    ('SQL',                             '''; drop table jobs; --', true),
    ('a format',                        '%s %I %L %', true),
    ('dollars and slashes',             'x$$ $x$ \ / //', true),
    ('a table that exists',             'pg_catalog.pg_class', true),
    ('other alphabets',                 '数据 🙂 ‏مرحبا', true),
    ('spaces',                          '   ', true),
    ('nothing',                         '', false),
    ('null',                            null, false),
    ('a tab',                           E'a\tb', false),
    ('a line feed',                     E'a\nb', false),
    ('a carriage return',               E'a\r', false),
    ('an escape',                       E'a\x1b[31m', false),
    ('a deletion',                      E'a\x7f', false);

select is(name_failure(name, 'a name') is null, is_good,
          format('%s is %s name', about, case when is_good then 'a' else 'no' end))
  from names_given;

select is(name_failure(name, 'a name') - '{code,type,message}'::text[],
          jsonb_build_object('detail', told, 'hint', hint),
          format('the refusal of %s has a detail and a hint', about))
  from (values
        ('a name of three bytes with a line break', E'f\n3',
         'It holds a control character.', 'Choose a printable name; put data into the arguments.'),
        ('a name of 201 bytes with a line break', repeat('x', 200) || E'\n',
         'It has 201 bytes; at most 200 are allowed.', 'Choose a shorter name; put data into the arguments.')
       ) as cases (about, name, told, hint);

-- Good names in every place.

select given(start(name, id => name, entity => name, queue => name, key => name)) from names_given where is_good;
select given(signal(name, name, to_jsonb(name), name)) from names_given where is_good;
select given(hook(name, name, queue => name, key => replace(name, '/', '|'))) from names_given where is_good;
select given(entity_set(name, to_jsonb(name), write_path(array[name, name]), key => name))
  from names_given
 where is_good;
select is(
    jsonb_build_array(j ->> 'id', j ->> 'entity', j ->> 'workflow', j #> '{context}' #> array[name, name],
                      t ->> 'queue', t ->> 'name', (take(name, array[name]) -> 0 ->> 'job')),
    jsonb_build_array(name, name, name, name, name, name, name),
    format('a name with %s is stored unchanged', about))
  from names_given
 cross join lateral the_job(name) as j
 cross join lateral the_task(name, '$hook/' || replace(name, '/', '|')) as t
 where is_good;

-- Bad names in every place.

select given(start('research', id => 'j'));
select given(entity_create('e', 'note'));
select is(error_of(format(statement, E'a\nb')), 'PD104', format('%s must be a name', about))
  from (values
        ('the id of a job', 'select start(%L)'),
        ('a workflow', 'select start(''w'', id => %L)'),
        ('the entity of a job', 'select start(''w'', entity => %L)'),
        ('the queue of a job', 'select start(''w'', queue => %L)'),
        ('the key of a start', 'select start(''w'', key => %L)'),
        ('the id in a list',
         'select start_many(jsonb_build_array(jsonb_build_object(''workflow'', ''w'', ''id'', %L)))'),
        ('the id of an entity', 'select entity_create(%L, ''note'')'),
        ('an entity', 'select entity_create(''x'', %L)'),
        ('the key of a command', 'select entity_set(''e'', ''1'', ''a'', key => %L)'),
        ('a signal', 'select signal(''j'', %L)'),
        ('the key of a signal', 'select signal(''j'', ''go'', key => %L)'),
        ('a hook', 'select hook(''e'', %L)'),
        ('the queue of a hook', 'select hook(''e'', ''h'', queue => %L)'),
        ('the key of a hook', 'select hook(''e'', ''h'', key => %L)'),
        ('a worker that registers', 'select register_worker(%L, ''{q}'')'),
        ('a worker that claims', 'select claim(''{q}'', %L)'),
        ('a worker that takes a hook in SQL', 'select take_sql_task(%L, gen_random_uuid())')
       ) as cases (about, statement);

select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a worker without a name', $$ select take_sql_task(null, gen_random_uuid()) $$, 'PD104'),
        ('a lease without a token', $$ select take_sql_task('w', null) $$, 'PD107'),
        ('a topic that is too long', $$ select listen_for(repeat('x', 4000), 'w') $$, 'PD104')
       ) as cases (about, statement, code);
select lives_ok(
    $$ select claim(array['q', (select string_agg(md5(n::text), '') from generate_series(1, 100) as n)], 'w',
                    idle => true) $$,
    'an idle claim may name a queue that cannot exist');

-- Bad values in every place.

select given(start('research', id => 'of an entity', entity => 'note'));
select given(hook('e', 'h', key => 'k'));
select is(error_of(format(statement, to_jsonb(repeat('x', 1048575)))), 'PD301',
          format('%s is refused if it is too large', about))
  from (values
        ('the arguments of a job',  'select start(''w'', jsonb_build_array(%L::jsonb))'),
        ('the memory of a job',     'select start(''w'', context => jsonb_build_object(''a'', %L::jsonb))'),
        ('the headers of a job',    'select start(''w'', headers => %L)'),
        ('the memory of an entity', 'select entity_create(''x'', ''note'', jsonb_build_object(''a'', %L::jsonb))'),
        ('the value of a command',  'select entity_set(''e'', %L, ''a'')'),
        ('the items of a command',  'select entity_append(''e'', ''a'', %L)'),
        ('the payload of a signal', 'select signal(''j'', ''go'', %L)'),
        ('the arguments of a hook', 'select hook(''e'', ''h'', jsonb_build_array(%L::jsonb))'),
        ('the reason to cancel a job', 'select cancel(''j'', %L)'),
        ('the reason to cancel many jobs', 'select cancel_found(''note'', ''{}'', %L)'),
        ('the reason to cancel a hook', 'select cancel_hook(''e'', ''$hook/k'', %L)'),
        ('the reason to terminate a job', 'select terminate(''j'', %L)')
       ) as cases (about, statement);
select is(the_job('e') ->> 'version', '0', 'a refused call leaves nothing');

-- Limits in a turn.

select have_held_job('held', '{"a": {}}');
select is(
    tell(a_turn('held', state => state, facts => facts, value => value, requests => requests)) #>> '{error,code}',
    code,
    format('a turn is refused as a whole when %s', about))
  from (values
        ('a fact is too large', 'keep',
         jsonb_build_array(jsonb_build_object('kind', 'activity', 'key', 'a', 'value', repeat('x', 1048575))),
         null::jsonb, null::jsonb, 'PD301'),
        ('a fact is too deep', 'keep',
         jsonb_build_array(jsonb_build_object('kind', 'activity', 'key', 'a',
                                              'value', (repeat('[', 102) || repeat(']', 102))::jsonb)), null, null,
         'PD302'),
        ('a key is too large', 'keep', jsonb_build_array(jsonb_build_object('key', repeat('x', 1048575))), null, null,
         'PD301'),
        ('a name is too large', 'keep', jsonb_build_array(jsonb_build_object('name', repeat('x', 1048575))), null, null,
         'PD301'),
        ('a fingerprint is too large', 'keep',
         jsonb_build_array(jsonb_build_object('fingerprint', repeat('x', 1048575))), null, null, 'PD301'),
        ('a number is too large', 'keep', '[{"kind": "activity", "key": "a", "value": 1e400}]', null, null, 'PD304'),
        ('the result is too large', 'done', null, to_jsonb(repeat('x', 1048575)), null, 'PD301'),
        ('the failure is too large', 'failed', null, jsonb_build_object('message', repeat('x', 1048575)), null,
         'PD301'),
        ('the name of a hook is bad', 'keep', null, null, '[{"key": "h1", "name": "a\tb"}]', 'PD104'),
        ('a request has no key', 'keep', null, null, '[{"name": "h"}]', 'PD104'),
        ('arguments are too large', 'keep', null, null,
         jsonb_build_array(jsonb_build_object('key', 'h1', 'name', 'h',
                                              'args', jsonb_build_array(repeat('x', 1048575)))), 'PD301')
       ) as cases (about, state, facts, value, requests, code);
select is(the_task('held') - 'due_at', the_task('held') - 'due_at' || '{"position": 0, "deliveries": 1}',
          'a refused turn leaves nothing');
select is(
    tell(a_turn('held',
                facts => (select jsonb_agg(jsonb_build_object('kind', 'activity', 'key', n,
                                                              'value', repeat('x', 700000)))
                            from generate_series(1, 3) as n))) ->> 'state',
    'keep',
    'one turn may carry more than one megabyte of facts');

select is(
    (select array_agg(distinct f #>> '{2,code}')
       from jsonb_array_elements(tell(a_turn('held', facts => (
            select jsonb_agg(jsonb_build_object(
                       'op', op, 'path', path || jsonb_build_array(repeat('x', 20000)), 'value', value))
              from (values ('set', '1'::jsonb), ('increment', '1'), ('append', '[1]')) as commands (op, value)
             cross join (values ('[]'::jsonb), ('["a"]')) as places (path)))) -> 'answers') as f),
    '{PD101}',
    'a path has at most 10000 bytes, at any depth');

-- The highest that is allowed, and one more.

create function nested(levels integer) returns jsonb
language plpgsql
as $$
begin
    return (repeat('{"a": ', levels) || '"x"' || repeat('}', levels))::jsonb;
end
$$;
select is(failure ->> 'code', code, format('%s: %s', about, coalesce(code, 'good')))
  from (values
        ('a value of 100 levels', value_failure(jsonb_build_array(nested(99), nested(99)), 'it'), null),
        ('a value of 101 levels', value_failure(nested(101), 'it'), 'PD302'),
        ('a memory of 150 levels', document_failure(nested(150)), null),
        ('a memory of 151 levels', document_failure(nested(151)), 'PD302'),
        ('a queue that begins with an @', queue_failure('@1'), 'PD104'),
        ('a version of the queue of the database', pin_failure('1', '$sql'), 'PD107')
       ) as cases (about, failure, code);
select is(error_of(statement), code, format('%s: %s', statement, coalesce(code, 'good')))
  from (values
        ($$ select check_lease('100 ms') $$, null), ($$ select check_lease('99 ms') $$, 'PD107'),
        ($$ select check_lease('1 day') $$, null), ($$ select check_lease('1 day 1 ms') $$, 'PD107'),
        ($$ select check_lease(null) $$, 'PD107'), ('select check_protocol(1)', null),
        ('select check_protocol(null)', 'PD004')
       ) as cases (statement, code);
select is(path_failure('{"l": [{"a": 1}]}', array['l', index, 'a', 'b']) ->> 'found', 'a number',
          format('%s is an index', quote_literal(index)))
  from unnest('{0,-1,+0,00," 0"}'::text[]) as index;

-- The size of a memory.

select given(entity_create('big', 'note'));
select given(entity_set('big', to_jsonb(repeat('x', 1000000)), 'k' || n)) from generate_series(1, 8) as n;
select is(error_of($$ select entity_set('big', to_jsonb(repeat('x', 1000000)), 'k9') $$), 'PD303',
          'a memory does not grow beyond eight megabytes');
select is(the_job('big') ->> 'version', '8', 'a command that is too large for the memory makes no version');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
