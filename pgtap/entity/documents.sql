-- Documents that ordinary SQL writes have the limits of a memory.

begin;
select plan(31);

select the_time_is('2030-01-01 12:00+00');

create temporary table documents (about text, document jsonb, code text) on commit drop;
insert into documents values
    ('an ordinary document', '{"n": 1}', null),
    ('a document that is nearly too deep', ('{"a":' || repeat('[', 149) || repeat(']', 149) || '}')::jsonb, null),
    ('a document that is too deep', ('{"a":' || repeat('[', 151) || '1' || repeat(']', 151) || '}')::jsonb, 'PD302'),
    ('a document that is nearly too large', jsonb_build_object('a', repeat('x', 8388000)), null),
    ('a document that is too large', jsonb_build_object('a', repeat('x', 8388608)), 'PD303'),
    ('a document with a large number', jsonb_build_object('a', 1e308, 'b', -1e308), null),
    ('a document with a number that no client can read', jsonb_build_object('a', jsonb_build_array(1e309)), 'PD304'),
    ('a document with a number that is too far below zero', jsonb_build_object('a', -1e309), 'PD304'),
    ('a document with a long text of digits', jsonb_build_object('a', repeat('9', 400)), null);

select is(error_of(format('insert into perdure.jobs (id, entity, context) select about, ''note'', document
                             from documents where about = %L', about)), code,
          format('%s %s', about, coalesce('is refused with ' || code, 'is inserted')))
  from documents;
select given(entity_create('e', 'note'));
select is(error_of(format('update perdure.jobs set context = document
                             from documents where id = ''e'' and about = %L', about)), code,
          format('%s %s', about, coalesce('is refused with ' || code, 'replaces another')))
  from documents;
select is((select count(*) from perdure.jobs), 1 + (select count(*) from documents where code is null),
          'a refused insert leaves nothing');
select is(the_job('e') -> 'version', (select to_jsonb(count(*)) from documents where code is null),
          'a refused update makes no version');
select given(entity_restore('e', 3));
select throws_ok($$ select entity_set('e', to_jsonb(repeat('y', 1000)), 'b') $$, 'PD303',
                 'the memory would become too large', 'a command respects the limit of the document too');

-- entity_create with a key. [P12]

select is(entity_create('keyed', 'note', '{"n": 1}', key => 'k'), true, 'entity_create() makes a new memory');
select given(entity_increment('keyed', 'n'));
select is(entity_create('keyed', 'note', '{"n": 1}', key => 'k'), true, 'a repeated call gets the first answer [P12]');
select is(the_job('keyed') -> 'context', '{"n": 2}', 'a repeated call changes nothing');
select is(entity_create('keyed', 'note', '{"n": 1}', key => 'other'), false, 'another key finds that the id exists');
select is(entity_create('keyed', 'note', '{"n": 1}'), false, 'a call without a key finds that the id exists');
select is(error_of($$ select entity_create('x', 'note', key => '') $$), 'PD104', 'an empty key is refused');

-- Documents that commands may build can be written by SQL and copied by a fork.

select given(start('w', id => 'built'));
select given(entity_set('built', (repeat('[', 99) || repeat(']', 99))::jsonb,
                        write_path(array(select 'k' || n from generate_series(1, 50) as n))));
select lives_ok($$update perdure.jobs set context = context || '{"more": 1}' where id = 'built'$$,
                'ordinary SQL may write a memory that commands made deep');
select lives_ok($$select fork('built', 'fork of built')$$, 'a fork may copy a memory that commands made deep');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
