-- Indexes: created once, listed with their state, dropped again.

begin;
select plan(68);

create function state_of(path text, kind text) returns text
language plpgsql
as $$
begin
    return (select i.state from indexes as i where i.entity = 'doc' and i.path = state_of.path and i.kind = state_of.kind);
end
$$;

select given(entity_create('one', 'doc', '{"v": 5, "tags": ["a"]}'));

-- create_index: may be repeated.

select matches(create_index('doc', 'v', kind), '^memory_[0-9a-f]{20}$',
               format('an index of kind %s has a name of its own (C73)', kind))
  from unnest('{text,number,boolean,time,contains}'::text[]) as kind;
select is(create_index('doc', path, 'number'), index_name('doc', '{v}', 'number'),
          format('an existing index at %s is not created again (C73)', path))
  from unnest(array['v', '"v"']) as path;
select is((select count(*) from indexes), 5::bigint, 'an index is listed once (C73)');
select is((select count(distinct i.name) from indexes as i), 5::bigint, 'each kind has its own index');
select is(state_of('v', kind), 'valid', format('the index of kind %s is valid', kind))
  from unnest('{text,number,boolean,time,contains}'::text[]) as kind;
select cmp_ok(
    (select i.bytes from indexes as i where i.kind = 'number'), '>', 0::bigint, 'a listed index has its size');
select is(obj_description(format('perdure.%I', index_name('doc', '{v}', 'number'))::regclass, 'pg_class'),
          'Finds doc by v (number).', 'an index has a comment');
select given(create_index('doc', '', 'contains'));
select is(state_of('', 'contains'), 'valid', 'the whole memory can be indexed');
select given(create_index('other', 'v', 'number'));
select is(
    (select count(*)
       from pg_index as i
      where i.indrelid = 'jobs'::regclass
        and i.indexrelid::regclass::text ~ 'memory_'),
    7::bigint,
    'each entity has its own indexes');

-- Missing and invalid indexes are listed, and created again.

select lives_ok(format('drop index perdure.%I', index_name('doc', '{v}', 'number')),
                'the owner of the table may drop an index by hand');
select is(state_of('v', 'number'), 'missing', 'an index that was dropped by hand is listed as missing');
select given(create_index('doc', 'v', 'number'));
select is(state_of('v', 'number'), 'valid', 'a missing index is created again');
update pg_index as i
   set indisvalid = false
 where i.indexrelid = format('perdure.%I', index_name('doc', '{v}', 'text'))::regclass;
select is(state_of('v', 'text'), 'invalid', 'an index whose build was interrupted is listed as invalid');
select is(array(select substring(s from '^\w+ \w+') from statements_to_create_index('doc', 'v', 'text') as s),
          array['drop index', 'create statistics', 'create index', 'comment on', 'analyze perdure'],
          'statements_to_create_index() drops an invalid index and creates it again');
select given(create_index('doc', 'v', 'text'));
select is(state_of('v', 'text'), 'valid', 'an invalid index is created again');
select is_empty(
    $$ select statements_to_create_index('doc', 'v', 'text') $$,
    'statements_to_create_index() returns nothing for a valid index (C73)');

-- ANALYZE does not read the words of a search index: for long texts that would take minutes.

select is(array(select substring(s from '^\w+ \w+') from statements_to_create_index('doc', 'v', 'search') as s),
          array['create index', 'alter index', 'comment on', 'analyze perdure'],
          'a search index has no statistics');
select given(create_index('doc', 'v', 'search'));
select is((select a.attstattarget::integer
             from pg_attribute as a
            where a.attrelid = format('perdure.%I', index_name('doc', '{v}', 'search'))::regclass), 0,
          'ANALYZE makes no statistics of a search index');

-- drop_index.

select is(drop_index('doc', 'v', 'text'), true, 'drop_index() drops an index');
select is(drop_index('doc', 'v', 'text'), false, 'drop_index() of a missing index does nothing');
select is(state_of('v', 'text'), null, 'a dropped index is no longer listed');
select is_empty(
    $$ select statements_to_drop_index('doc', 'v', 'text') $$,
    'statements_to_drop_index() returns nothing for a missing index');
select is(array(select substring(s from '^\w+ \w+') from statements_to_drop_index('doc', 'v', 'time') as s),
          '{drop index,drop statistics}', 'statements_to_drop_index() drops an index and its statistics');

-- Limits.

select given(create_index('many', 'v' || i, 'text')) from generate_series(1, 64) as i;
select throws_ok($$ select create_index('many', 'v65') $$, 'PD306', null, 'a 65th index of an entity is refused');
select throws_ok(
    $$ select * from statements_to_create_index('many', 'v65') $$, 'PD306', null,
    'statements for a 65th index are refused');
select lives_ok($$ select create_index('many', 'v64') $$, 'an existing index does not count again');
select given(drop_index('many', 'v1'));
select lives_ok($$ select create_index('many', 'v65') $$, 'a dropped index makes room for another');
select throws_ok(format('select create_index(%L, %L, %L)', entity, path, kind), code, null,
                 format('an index of %s at %s as %s is refused (%s)', left(entity, 20), left(path, 20), kind, code))
  from (values
        ('', 'v', 'text', 'PD104'),
        (null, 'v', 'text', 'PD104'),
        (repeat('x', 201), 'v', 'text', 'PD104'),
        ('doc', 'v..w', 'text', 'PD101'),
        ('doc', repeat('v.', 50) || 'v', 'text', 'PD101'),
        ('doc', repeat('v', 1001), 'contains', 'PD101'),
        ('doc', '', 'text', 'PD107'),
        ('doc', null, 'number', 'PD107'),
        ('doc', 'v', 'array', 'PD107'),
        ('doc', 'v', '', 'PD107'),
        ('doc', 'v', null, 'PD107')
       ) as refused (entity, path, kind, code);
select throws_ok(
    $$ select * from statements_to_create_index('doc', 'v', 'text', 'quickly') $$, 'PD107', null,
    'an unknown mode is refused');

select is(error_of(format('select check_kind(%L)', kind)), code,
          format('the kind %s: %s', kind, coalesce(code, 'good')))
  from (values ('search(german)', null), ('search(english)', 'PD107'), ('search(klingon)', 'PD107'),
               ('vector(1)', null), ('vector(2000)', null), ('vector(2001)', 'PD107'), ('vector(0)', 'PD107'),
               ('vector(01)', 'PD107')) as cases (kind, code);
select throws_ok(
    $$ select * from statements_to_create_index('doc', 'v', 'text', null) $$, 'PD107', null,
    'a mode of null is refused');
select is(error_of(format('select check_index(%L, %L, %L, %L)', 'doc', path, 'text', '')), code,
          format('a path of %s bytes: %s', octet_length(path), coalesce(code, 'good')))
  from (values (repeat('x', 1000), null), (repeat('x', 1001), 'PD101'), (repeat('é', 500), null),
               (repeat('é', 501), 'PD101')) as cases (path, code);

-- An index and statistics of the same name elsewhere, and a lock of one's own.

create table public.elsewhere (v integer, w integer);
select given(set_config('test.name', index_name('doc', '{elsewhere}', 'text'), true));
do $$
begin
    execute format('create index %I on public.elsewhere (v)', current_setting('test.name'));
    execute format('create statistics public.%I on v, w from public.elsewhere', current_setting('test.name'));
end
$$;
select is(index_state(current_setting('test.name')), 'missing', 'an index in another schema is not that of the app');
select is(drop_index('doc', 'elsewhere'), false, 'an index in another schema is not dropped');
lock table perdure.jobs in share update exclusive mode;
select is(index_work_is_running(), false, 'a session does not wait for its own lock');

-- One index is dropped at a time.

select given(create_index(entity, path, kind))
  from (values ('doc', 'one', 'text'), ('doc', 'one', 'number'), ('doc', 'two', 'text'), ('other', 'one', 'text'))
    as cases (entity, path, kind);
create temporary table listed as select i.entity, i.path, i.kind from indexes as i;
select is(drop_index('doc', 'one', 'text'), true, 'an index of several can be dropped');
select is((select jsonb_agg(to_jsonb(d))
             from (select l.* from listed as l
                   except
                   select i.entity, i.path, i.kind from indexes as i) as d),
          '[{"entity": "doc", "path": "one", "kind": "text"}]', 'other kinds, paths and entities keep their indexes');

-- Names that are too long for the catalogue, or need quotes (S9).

select given(create_index(entity, path))
  from (values
        (repeat('é', 100), repeat('ü', 100)),
        (repeat('é', 99) || 'ab', repeat('ü', 100)),
        ('it''s', '"a\"b".c'),
        ('%I $$ \ "', 'back\slash.%s'),
        ('select', 'drop')
       ) as cases (entity, path);
select is((select string_agg(i.state, ' ') from indexes as i where i.entity not in ('doc', 'other', 'many')),
          'valid valid valid valid valid', 'any name and any path can be indexed');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
