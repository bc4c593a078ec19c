-- The past: a memory at any version and at any time. (C21)

begin;
select plan(47);

select the_time_is('2030-01-01 12:00+00');

-- A long history, one command a minute, with each document.

create temporary table stood (version bigint, at timestamptz, document jsonb) on commit drop;
select given(entity_create('e', 'note'));
insert into stood values (0, clock(), '{}');

create function live_on(upto bigint) returns void
language plpgsql
as $$
begin
    for n in 1 .. live_on.upto loop
        perform time_passes('1 minute');
        case n % 7
            when 0 then update perdure.jobs set context = context || jsonb_build_object('u', n) where id = 'e';
            when 1 then perform entity_merge('e', jsonb_build_object('m', jsonb_build_object('k' || n % 5, n)));
            when 2 then perform entity_append('e', 'l', to_jsonb(n));
            when 3 then perform entity_increment('e', 'n', n);
            when 4 then perform entity_log('e', 'log', to_jsonb(n));
            when 5 then perform entity_toggle('e', 'a.b.c');
            else perform entity_delete('e', 'm.k1');
        end case;
        insert into stood values (n, clock(), the_job('e') -> 'context');
    end loop;
end
$$;
select live_on(230);
select is(entity_at('e', version), document, format('entity_at() returns the memory of version %s', version))
  from stood
 where version = any('{0,1,2,7,50,99,100,101,104,199,200,201,229,230}')
 order by version;
select is_empty($$ select version from stood where entity_at('e', version) <> document $$,
                'entity_at() returns the memory of every version');
select is_empty($$ select version from stood where entity_at('e', at => at) <> document $$,
                'entity_at() finds each version by its time');
select is_empty($$ select version from stood where entity_at('e', at => at + interval '59 s') <> document $$,
                'entity_at() finds a version until the time of the next');
select is(entity_at('e', at => '2029-12-31'), '{}', 'entity_at() before the first version returns an empty memory');
select is(entity_at('e', at => 'infinity'), the_job('e') -> 'context',
          'entity_at() of infinity returns the present memory');
select is(entity_at('e', 101, path => 'n'), (select document -> 'n' from stood where version = 101),
          'entity_at() returns the value at a path');
select is(entity_at('e', 3, path => 'a.b'), null, 'entity_at() of a path without a value returns null');
select is(entity_at('e', at => '2030-01-01 12:02:30+00', path => 'l.-1'), '2',
          'entity_at() finds the value at a path by time');

-- Logs at earlier versions.

select is(entity_at('e', version, path => 'log'), items, format('the log at version %s is %s', version, items))
  from (values (3, null::jsonb), (4, '[4]'), (10, '[4]'), (11, '[4, 11]'), (30, '[4, 11, 18, 25]'))
    as cases (version, items);

-- Refused calls.

select throws_ok(format('select entity_at(''e'', %s)', moment), code, null,
                 format('entity_at() refuses %s', about))
  from (values
        ('a future version', '231', 'PD404'),
        ('a version before the first', '-1', 'PD404'),
        ('nothing', 'null', 'PD107'),
        ('a version and a time', '1, clock()', 'PD107'),
        ('a path that does not parse', '1, path => ''.''', 'PD101')
       ) as cases (about, moment, code);
select throws_ok($$ select entity_at('nobody', 0) $$, 'PD401', null, 'entity_at() refuses a job that does not exist');

-- Every way to write: a plain INSERT, turns of several tasks in one batch, clients in between.

insert into perdure.jobs (id, entity, context) values ('i', 'note', '{"n": 1}');
update perdure.jobs set context = '{"n": 2}' where id = 'i';
select is(entity_at('i', 0), '{}', 'version 0 of an inserted memory is empty');
select is(entity_at('i', 1), '{"n": 1}', 'version 1 of an inserted memory is its document');
select is(entity_at('i', 2), '{"n": 2}', 'a plain UPDATE makes a version like any command');

select have_held_job('j', '{"n": 0}');
select given(hook('j', 'h', key => 'h', queue => 'hooks'));
select given(take('bob', '{hooks}'));
select given(
    tell(
    a_turn('j', facts => '[
        {"op": "increment", "path": ["n"], "value": 1},
        {"op": "append", "path": ["n"], "value": [1]},
        {"op": "set", "path": ["by"], "value": "main"}]'),
    a_turn('j', '$hook/h', worker => 'bob', facts => '[
        {"op": "set", "path": ["by"], "value": "hook"},
        {"op": "toggle", "path": ["t"]}]')));
select given(entity_increment('j', 'n'));
select given(tell(a_turn('j', facts => '[{"op": "delete", "path": ["by"]}]')));
select is((select jsonb_agg(entity_at('j', version) order by version) from generate_series(0, 7) as version),
          '[{}, {"n": 0}, {"n": 1}, {"n": 1, "by": "main"}, {"n": 1, "by": "hook"}, {"n": 1, "by": "hook", "t": true},
            {"n": 2, "by": "hook", "t": true}, {"n": 2, "t": true}]',
          'the past has the commands of tasks and clients in their order');
select is(entity_at('j', at => clock()), the_job('j') -> 'context',
          'the memory of this moment has what a task has just written');

-- Memories that are replaced as a whole, again and again.

select given(entity_create('w', 'note', '{"old": {"a": 1}}'));
select given(entity_merge('w', '{"n": 1}'));
select given(entity_set('w', '{"new": 1, "kept": 2}'));
select given(entity_increment('w', 'new'));
select given(entity_delete('w'));
select given(entity_merge('w', '{"last": {"a": 1}}'));
select given(entity_merge('w', '{"last": {"b": 2}}'));
select given(entity_set_if_not_exists('w', '', '{"other": 1}'));
select is((select jsonb_agg(entity_at('w', version) order by version) from generate_series(0, 8) as version),
          '[{}, {"old": {"a": 1}}, {"old": {"a": 1}, "n": 1}, {"new": 1, "kept": 2}, {"new": 2, "kept": 2}, {},
            {"last": {"a": 1}}, {"last": {"a": 1, "b": 2}}, {"last": {"a": 1, "b": 2}}]',
          'values from before a replacement do not appear after it');

-- Numbers that are equal but written differently keep their spelling.

select given(entity_create('same', 'note', '{"n": 1}'));
select given(entity_log('same', 'l', '0')) from generate_series(2, 100);
select given(entity_set('same', '1.0', 'n'));
select given(entity_log('same', 'l', '0')) from generate_series(102, 400);
select is(entity_at('same', 100)::text, '{"n": 1}', 'a snapshot keeps the spelling 1');
select is(entity_at('same', 300)::text, '{"n": 1.0}',
          'a later snapshot keeps the spelling 1.0, although it is equal [P4]');
select is(entity_at('same', 400)::text, '{"n": 1.0}', 'a third snapshot of a document refers to the first');

-- A task reports its commands with their own time, after clients have written. A later write of a client must not
-- appear early.

select have_held_job('late', '{"n": 0}');
create temporary table moments on commit drop as select clock() as started_at;
select time_passes('10 s');
select given(entity_set('late', '1', 'by_client'));
select time_passes('10 s');
select given(tell(a_turn('late', facts => jsonb_build_array(
    '{"kind": "note"}'::jsonb,
    jsonb_build_object('op', 'set', 'path', '{n}'::text[], 'value', 1, 'at', clock() - interval '15 s')))));
select time_passes('10 s');
select given(entity_set('late', '2', 'by_client'));
select is(entity_at('late', at => m.started_at + after), document, format('the memory after %s is %s', after, document))
  from moments as m
 cross join (values (interval '7 s', '{"n": 0}'::jsonb), ('12 s', '{"n": 1, "by_client": 1}'),
                    ('29 s', '{"n": 1, "by_client": 1}')) as cases (after, document);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
