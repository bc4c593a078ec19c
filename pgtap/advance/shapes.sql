-- Shapes: turns whose fields have a wrong type. The author of a worker in another language must learn which turn and
-- which field is wrong; PostgreSQL alone says "cannot extract elements from an object".

begin;
select plan(23);

select the_time_is('2030-01-01 12:00+00');
select have_held_job(id) from unnest('{good,bad}'::text[]) as id;

-- Returns the answer to a turn behind a good one in one batch, or the error of the whole call.
create function outcome_of(turn jsonb) returns text
language plpgsql
as $$
declare
    answer jsonb;
    code text;
    message text;
    detail text;
begin
    answer := tell(a_turn('good', facts => '[{"kind": "note"}]'), outcome_of.turn);
    if answer #>> '{0,state}' <> 'keep' then
        return 'the good turn was answered ' || (answer -> 0);
    end if;
    return concat_ws(' ', answer #>> '{1,state}', answer #>> '{1,error,code}', answer #>> '{1,error,message}');
exception when others then
    get stacked diagnostics code = returned_sqlstate, message = message_text, detail = pg_exception_detail;
    return concat_ws(' ', code, message, substring(detail from '^It is [^;]*'));
end
$$;
comment on function outcome_of(jsonb) is
    'Return the answer to a turn, or the error with which the whole batch was refused.';

create temporary table fields as
select f.part, f.field, v.value
  from (values
        ('turn', 'facts', '{} 3 "x" true [3] [null] [[]] ["x"]'),
        ('turn', 'requests', '{} 3 "x" true [3] [null] [[]] ["x"]'),
        ('turn', 'cancels', '{} 3 "x" true'),
        ('turn', 'token', '{} [] 3 "x" true'),
        ('turn', 'position', '{} [] "x" true 1e30 "99999999999"'),
        ('turn', 'asked', '{} [] "x" true 1e30'),
        ('turn', 'asked_before', '{} [] "x" true 1e30'),
        ('turn', 'awaits', '{} 3 "x" true [[[[[[["x"]]]]]]]'),
        ('turn', 'until', '{} [] 3 "x" true "2030-13-01T00:00:00Z"'),
        ('fact', 'ok', '{} [] 3 "x"'),
        ('fact', 'at', '{} [] 3 "x" true "2030-13-01T00:00:00Z"'),
        ('fact', 'path', '{} 3 "x" true [[[[[[["x"]]]]]]]'),
        ('fact', 'message', '{} "x" true 1e19 1e30 [{}]'),
        ('request', 'priority', '{} [] "x" true 1.5 99999999999'),
        ('request', 'due_at', '{} [] 3 "x" true'),
        ('request', 'detached', '{} [] 3 "x"'),
        ('request', 'shielded', '{} [] 3 "x"')) as f (part, field, written)
 cross join lateral regexp_split_to_table(f.written, ' ') as v (value);
create temporary table outcomes as
select f.part, f.field, f.value,
       outcome_of(a_turn('bad') || case f.part
           when 'turn' then jsonb_build_object(f.field, f.value::jsonb)
           when 'fact' then jsonb_build_object('facts', jsonb_build_array(
               '{"kind": "note"}'::jsonb, jsonb_build_object(f.field, f.value::jsonb)))
           else jsonb_build_object('requests', jsonb_build_array(
               '{"key": "h#1", "name": "h"}'::jsonb || jsonb_build_object(f.field, f.value::jsonb))) end) as outcome
  from fields as f;
select is_empty(
    $$ select * from outcomes
        where field in ('facts', 'requests', 'cancels')
          and outcome <> format('refused PD107 the field %s of a turn cannot be read', field) $$,
    'a turn with a list of a wrong type is refused, and its neighbours are not');
select is_empty(
    $$ select * from outcomes
        where part = 'request'
          and outcome <> format('refused PD107 the field %s of a request cannot be read', field) $$,
    'a turn with a request that cannot be read is refused, and its neighbours are not');
select is_empty(
    $$ select * from outcomes
        where part = 'turn'
          and field not in ('facts', 'requests', 'cancels')
          and outcome <> format('PD107 the field %s of a turn cannot be read It is turn 2 of 2, ''1/main of job bad''', field) $$,
    'another field of a turn that cannot be read refuses the batch, and names turn and field');
select is_empty(
    $$ select * from outcomes
        where part = 'fact'
          and outcome <> format('PD107 the field %s of fact 2 cannot be read It is turn 2 of 2, ''1/main of job bad''', field) $$,
    'a field of a fact that cannot be read refuses the batch, and names turn, fact and field');
select is(jsonb_array_length(journal_of('bad')), 0, 'none of these turns wrote a fact');
select is(
    (select array_agg(distinct tell(a_turn('bad', facts => f.facts)) #>> '{answers,0,2,code}')
       from (values ('[{"op": "set", "path": [["a"]], "value": 1}]'::jsonb),
                    ('[{"op": "set", "path": [null], "value": 1}]'),
                    ('[{"op": "merge", "path": [["a", "b"]], "value": {}}]')) as f (facts)),
    '{PD101}',
    'a path of lists or nulls refuses only its command');
select is(
    (select array_agg(distinct outcome_of(a_turn('bad') || f.fields))
       from (values ('{"facts": null}'::jsonb), ('{"requests": null, "cancels": null}'), ('{"facts": []}'),
                    ('{"awaits": null, "until": null}'), ('{"cancels": ["a"]}'), ('{"position": "3"}'),
                    ('{"facts": [{"ok": null, "at": null}]}')) as f (fields)),
    '{keep}',
    'fields that are null, empty, or a number in quotes can be read');
select is_empty(
    $$ select field, outcome
         from unnest('{job,task,token}'::text[]) as field
        cross join lateral (values (a_turn('bad') - field), (a_turn('bad') || jsonb_build_object(field, null))) as t (turn)
        cross join lateral outcome_of(turn) as outcome
        where outcome !~ format('^PD107 a turn names no %s It is turn 2 of 2', field) $$,
    'a turn without job, task or token is refused with the name of the field, and not fenced');
select is(outcome_of('3'), 'PD107 turns must be a JSON array of objects It is turn 2 of 2',
          'a turn that is not an object is refused');

-- Turns with several faults.

select matches(
    outcome_of(case when given ? 'job' then a_turn('bad') else a_turn('bad') - '{job,token}'::text[] end || given),
    outcome, format('a turn with %s is refused for one of them', about))
  from (values
        ('no job and no token', '{}'::jsonb, '^PD107 a turn names no job '),
        ('several lists that are none', '{"job": "bad", "facts": 3, "requests": 3}', '^refused PD107 the field facts '),
        ('several signals without a name', '{"job": "bad", "state": "park", "awaits": ["", ""]}', '^refused PD104 '),
        ('facts with misspelt fields', '{"job": "bad", "facts": [{"vale": 1}, {"vale": 2}]}', '^refused PD107 '),
        ('requests without names', '{"job": "bad", "requests": [{"key": "a"}, {"key": "b"}]}', '^refused PD104 '),
        ('several keys of different requests',
         '{"job": "bad", "requests": [{"key": "a", "name": "a"}, {"key": "a", "name": "b"},
                                      {"key": "b", "name": "a"}, {"key": "b", "name": "b"}]}',
         '^refused PD107 several requests of the turn have the key ''a'''),
        ('several keys that lead to others',
         '{"job": "bad", "requests": [{"key": "a", "name": "a"}, {"key": "a/b#1", "name": "a"}]}', '^refused PD104 ')
       ) as cases (about, given, outcome);

-- With parallel plans wherever possible, the server evaluates in another order.

select given(set_config(s.name, 'on', true))
  from pg_settings as s
 where s.name in ('debug_parallel_query', 'force_parallel_mode');
discard plans;
select is(
    (select array_agg(distinct outcome_of(a_turn('bad') || f.fields))
       from (values ('{"facts": 3}'::jsonb), ('{"facts": {}}'), ('{"facts": [[]]}')) as f (fields)),
    '{"refused PD107 the field facts of a turn cannot be read"}',
    'parallel plans do not change the refusal');

-- A number of milliseconds is no time, a path with dots is no list: what other languages have at hand.

select is(
    unreadable_failure(given, 'a turn') ->> 'hint',
    hint,
    format('a field that cannot be read is told how to write it: %s', given))
  from (values
        ('{"until": 1893499200000}'::jsonb, 'Write a time as 2030-01-31T12:00:00Z.'),
        ('{"path": "user.email"}', 'Write a list of words, such as ["user", "email"].'),
        ('{"timeout": "soon"}', 'Write a length of time as "30 s"; a number without a unit means seconds.'),
        ('{"token": "t1"}', 'Give the token that claim() returned beside the tasks.'),
        ('{"position": "one"}', 'Correct the field.')
       ) as cases (given, hint);
select is(
    argument_failure('set', '{a}', null) ->> 'hint',
    'Nothing was changed; give the command what it needs. To store a null, give the null of JSON.',
    'a command without a value is told how to write a null');

select finish();
rollback;
