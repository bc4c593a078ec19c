-- Drivers: what they send for the values of their languages, as sql/coordination/workers.md lists it.

begin;
select plan(38);

select given(entity_create('m', 'e'));
select given(start('w', id => 'held', queue => 'held'));
select given(take('ada', '{held}'));

-- A driver like node-postgres sends each value as a text of no type, as these literals are.

create temporary table sent (number serial, about text, statement text, code text) on commit drop;
insert into sent (about, statement, code) values
    ('a list as a JSON argument', $$ select start('w', '{"a","b"}') $$, '22P02'),
    ('a list of objects as a JSON argument', $$ select advance('{"{\"state\":\"keep\"}"}') $$, '22P02'),
    ('a text as a JSON argument', $$ select entity_set('m', 'hello', 'x') $$, '22P02'),
    ('a time as a JSON argument', $$ select signal('held', 'x', '2030-01-31T12:00:00.000+00:00') $$, '22P02'),
    ('a null as a JSON argument', $$ select entity_set('m', null, 'x') $$, 'PD103'),
    ('a null as a queue', $$ select start('w', queue => null) $$, 'PD104'),
    ('a null as a priority', $$ select start('w', priority => null) $$, 'PD107'),
    ('a null as if_exists', $$ select start('w', if_exists => null) $$, 'PD107'),
    ('a text as a list of queues', $$ select claim('held', 'bob') $$, '22P02'),
    ('JSON as a list of queues', $$ select claim('["held"]', 'bob') $$, '22P02'),
    ('milliseconds as a time', $$ select entity_at('m', at => '1795938949160') $$, '22008'),
    ('milliseconds as a time in JSON',
     $$ select start_many('[{"workflow": "w", "due_at": 1795938949160}]') $$, 'PD107'),
    ('30000 as a length of time', $$ select await_result('held', '30000') $$, 'PD107'),
    ('a number that JSON cannot hold', $$ select entity_increment('m', 'n', 'NaN') $$, 'PD103'),
    ('a misspelt argument', $$ select entity_set('m', '{}', expectedVersion => '1') $$, '42883');

select is(error_of(statement), code, format('%s is refused (%s)', about, code))
  from (select * from sent order by number) as s;

select is((start('w', '["a"]', id => 'j', priority => '3', due_at => '2030-01-31T12:00:00.000Z')).is_new, true,
          'texts of no type become what an argument needs');
select is(entity_set('m', '{}', 'list'), '1', 'an empty list is sent as {}, which is an empty object in JSON');
select is(entity_set('m', '7', 'n', expected_version => '1'), '2', 'a version may be sent as a text');

-- What an argument of null is told: null is not the default.

create function hint_of(statement text) returns text
language plpgsql
as $$
declare
    hint text;
begin
    execute hint_of.statement;
    return null;
exception when others then
    get stacked diagnostics hint = pg_exception_hint;
    return hint;
end
$$;

select matches(hint_of(statement), 'leave it out', format('%s is told that the argument may be left out', about))
  from (select * from sent where about ~ '^a null as (a queue|a priority|if_exists)$' order by number) as s;
select matches(hint_of(statement), 'without a unit means seconds', format('%s is told what a number means', about))
  from (values ('a wait', $$ select await_result('held', '30000') $$),
               ('a lease', $$ select claim('{held}', 'bob', lease_for => '300000') $$)) as s (about, statement);

-- A driver like that of Java names the types of what it sends.

create temporary table typed (number serial, types text, call text, code text) on commit drop;
insert into typed (types, call, code) values
    ('varchar, varchar', 'start($1, $2)', '42883'),
    ('varchar, varchar', 'start($1, $2::jsonb)', null),
    ('varchar, varchar', 'await_result($1, $2)', '42883'),
    ('varchar, varchar', 'await_result($1, $2::interval)', null),
    ('varchar, bigint', 'start($1, priority => $2)', '42883'),
    ('varchar, bigint', 'start($1, priority => $2::integer)', null),
    ('varchar, float8', $$ entity_increment($1, 'n', $2) $$, '42883'),
    ('varchar, float8', $$ entity_increment($1, 'n', $2::numeric) $$, null),
    ('varchar, bigint', $$ entity_increment($1, 'n', $2) $$, null),
    ('varchar, uuid', 'start($1, id => $2)', '42883'),
    ('varchar, uuid', 'start($1, id => $2::text)', null),
    ('json', 'advance($1)', '42883'),
    ('varchar[], varchar, uuid', 'claim($1, $2, $3)', null),
    ('varchar, bigint', $$ entity_set($1, '1', 'x', expected_version => $2) $$, null);

select is(error_of(format('prepare typed_%s (%s) as select %s', number, types, call)), code,
          format('%s, called with %s, is %s', call, types, case when code is null then 'found' else 'not found' end))
  from (select * from typed order by number) as s;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
