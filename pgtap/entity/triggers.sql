-- An ordinary INSERT or UPDATE of the memory is a command too, so the history stays complete.

begin;
select plan(43);

select the_time_is('2030-01-01 12:00+00');

-- update

select given(entity_create('e', 'note', '{"n": 1}'));
select time_passes('1 minute');
update perdure.jobs set context = jsonb_set(context, '{n}', '2') where id = 'e';
select is(the_job('e') ->> 'version', '2', 'a plain UPDATE of the memory makes a version [P3] (C25)');
select is((the_job('e') ->> 'updated_at')::timestamptz, clock(), 'a plain UPDATE sets the time of the memory');
select is(
    (select jsonb_build_array(h.task, h.op, h.path, h.argument, h.value, h.at)
       from history as h
      where h.job_id = 'e' and h.version = 2),
    jsonb_build_array('$outside', 'set', '{}'::text[], '{"n": 2}'::jsonb, 2, clock()),
    'the history has the whole document of a plain UPDATE (C21)');
update perdure.jobs set context = context where id = 'e';
select is(the_job('e') ->> 'version', '2', 'an UPDATE that changes nothing makes no version');
update perdure.jobs set context = '{"n": 2.0}' where id = 'e';
update perdure.jobs set context = '{"n": 2}' where id = 'e';
select is(array(select h.argument::text from history as h where h.job_id = 'e' order by h.version),
          array['{"n": 1}', '{"n": 2}', '{"n": 2.0}', '{"n": 2}'],
          'an UPDATE that writes an equal number differently makes a version');
update perdure.jobs set entity = 'memo' where id = 'e';
select is(the_job('e') ->> 'version', '4', 'an UPDATE of another column makes no version');
update perdure.jobs set context = context || '{"m": 1}', entity = 'note' where id = 'e';
select is(the_job('e') ->> 'version', '5', 'an UPDATE of the memory and of another column makes one version');
select is(entity_increment('e', 'n'), '3', 'a command sees the result of an UPDATE (C25)');
select is(the_job('e') ->> 'version', '6', 'commands and plain updates share the count of versions');

select is(error_of(format('update perdure.jobs set context = %L where id = ''e''', document)), code,
          format('an UPDATE to %s is refused', document))
  from (values ('[1]', '23514'), ('"text"', '23514'), ('null', '23514')) as cases (document, code);
select is(
    error_of('update perdure.jobs set context = null where id = ''e'''),
    '23502',
    'an UPDATE to null is refused');
select is((select count(*) from history where job_id = 'e'), 6::bigint, 'a refused UPDATE is not in the history');

select given(entity_create('many-' || n, 'note', '{"n": 0}')) from generate_series(1, 3) as n;
update perdure.jobs set context = '{"n": 1}' where id like 'many-%';
select is(
    (select jsonb_agg(jsonb_build_array(h.job_id, h.version) order by h.job_id)
       from history as h
      where h.job_id like 'many-%' and h.version = 2),
    '[["many-1", 2], ["many-2", 2], ["many-3", 2]]',
    'one UPDATE of many memories makes a version of each');

-- Triggers of users run first, whatever their names: their result is the command.

create function pg_temp.stamp() returns trigger
language plpgsql
as $$
begin
    if new.context ? 'no' then
        return null;
    end if;
    new.context := new.context || '{"by": "me"}';
    return new;
end
$$;
create trigger zz_stamp before update of context on perdure.jobs
    for each row
    when (new.id = 'stamped')
    execute function pg_temp.stamp();
select given(entity_create('stamped', 'note', '{"n": 1}'));
update perdure.jobs set context = '{"no": 1}' where id = 'stamped';
select is(
    (select jsonb_build_array(j.context, j.version) from jobs as j where j.id = 'stamped'), '[{"n": 1}, 1]',
    'an UPDATE that a trigger suppresses makes no version');
select is((select count(*) from history where job_id = 'stamped'), 1::bigint,
          'an UPDATE that a trigger suppresses is not in the history');
update perdure.jobs set context = '{"n": 2}' where id = 'stamped';
select is(
    (select h.argument from history as h where h.job_id = 'stamped' and h.version = 2), '{"n": 2, "by": "me"}',
    'the history has the member that a trigger added');
select is_empty('select * from assert_histories()', 'the history with the trigger is complete [P3]');
drop trigger zz_stamp on perdure.jobs;
select is(entity_increment('stamped', 'n'), '3', 'commands continue after the trigger is dropped');

-- A running coordinator sees plain updates.

select have_held_job('j', '{"phase": "draft"}');
update perdure.jobs set context = '{"phase": "approved"}' where id = 'j';
select is(tell(a_turn('j', facts => '[{"op": "get", "path": ["phase"]}]')) #> '{answers,0,2}', '"approved"',
          'the next get of a running workflow sees a plain UPDATE (C25)');
select is(tell(a_turn('j', facts => '[{"op": "set", "path": ["n"], "value": 1}]')) #> '{answers,0,2}', '3',
          'a command of a turn follows the version of a plain UPDATE [P3]');

-- insert

insert into perdure.jobs (id, entity, context) values ('i', 'note', '{"n": 1}');
select is(the_job('i') ->> 'version', '1', 'an inserted document is version 1');
select is((select jsonb_build_array(h.op, h.path, h.argument, h.value) from history as h where h.job_id = 'i'),
          '["set", [], {"n": 1}, 1]', 'the history begins with an inserted document (C21)');
select is(entity_increment('i', 'n'), '2', 'an inserted memory takes commands');
insert into perdure.jobs (id, entity) values ('empty', 'note');
select is(the_job('empty') ->> 'version', '0', 'an inserted empty document has version 0');
select is_empty($$ select from history where job_id = 'empty' $$, 'the history of an empty document is empty');

insert into perdure.jobs (id, entity, context) values ('i', 'note', '{"n": 5}')
    on conflict (id) do update set context = excluded.context;
select is(jsonb_build_array(the_job('i') -> 'version', the_job('i') -> 'context'), '[3, {"n": 5}]',
          'an INSERT that becomes an UPDATE is one command');

merge into perdure.jobs as j
using (values ('i', '{"n": 6}'::jsonb), ('k', '{"n": 7}')) as new (id, context)
   on j.id = new.id
 when matched then update set context = new.context
 when not matched then insert (id, entity, context) values (new.id, 'note', new.context);
select is(the_job('i') ->> 'version', '4', 'a MERGE that updates is a command');
select is(the_job('k') ->> 'version', '1', 'a MERGE that inserts is a first document');

-- A start with a document.

select given(start('research', id => 's', context => '{"n": 1}'));
select is((select jsonb_build_array(h.version, h.op, h.path, h.argument) from history as h where h.job_id = 's'),
          '[1, "set", [], {"n": 1}]', 'the history begins with the document of a start (C21)');
select given(start('research', id => 't'));
select is(the_job('t') ->> 'version', '0', 'a job without a document has version 0');

-- A row of jobs cannot be deleted or renamed while rows elsewhere belong to it.

select given(entity_create('bare', 'note'));
select throws_ok(statement, 'PD107', null, format('%s is refused', statement))
  from (values
        ($$delete from perdure.jobs where id = 'i'$$),
        ($$delete from perdure.jobs where id = 't'$$),
        ($$delete from perdure.jobs$$),
        ($$update perdure.jobs set id = 'x' where id = 'i'$$),
        ($$update perdure.jobs set id = id || '!'$$)
       ) as cases (statement);
select lives_ok($$update perdure.jobs set id = id$$, 'an UPDATE that keeps the ids is allowed');
select lives_ok($$delete from perdure.jobs where id = 'bare'$$, 'a row without other rows can be deleted');
select ok(forget('i') and the_job('i') is null, 'forget() deletes a job');

-- A trigger of a user writes to each new memory, by a command and by a plain UPDATE.

create function pg_temp.greet() returns trigger
language plpgsql
as $$
begin
    perform perdure.entity_set(new.id, '"hello"', 'greeting');
    update perdure.jobs set context = context || '{"seen": true}' where id = new.id;
    return null;
end
$$;
create trigger audit
    after insert on perdure.jobs
    for each row
    when (new.entity = 'guest')
    execute function pg_temp.greet();
select given(entity_create('by a verb', 'guest', '{"n": 1}'));
insert into perdure.jobs (id, entity, context) values ('plain', 'guest', '{"n": 1}');
select is(
    (select jsonb_agg(jsonb_build_array(j.context, j.version, (select jsonb_agg(h.argument order by h.version)
                                                                 from history as h where h.job_id = j.id)))
       from perdure.jobs as j
      where j.entity = 'guest'),
    (select jsonb_agg('[{"n": 1, "greeting": "hello", "seen": true}, 3,
                        [{"n": 1}, "hello", {"n": 1, "greeting": "hello", "seen": true}]]'::jsonb)
       from generate_series(1, 2)),
    'the commands of a trigger follow the first document, however it was inserted');
select is_empty('select * from assert_histories()', 'these memories are the sum of their commands');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
