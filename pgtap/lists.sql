-- Lists: whoever gives many at once, and is refused for one of them, is told which. Counted is from 1. [P1]

begin;
select plan(49);

create function pg_temp.refusal_of(statement text) returns text[]
language plpgsql
as $$
declare
    code text;
    detail text;
begin
    execute statement;
    return null;
exception when others then
    get stacked diagnostics code = returned_sqlstate, detail = pg_exception_detail;
    return array[code, detail];
end
$$;

-- Of many starts.

select matches(
    array_to_string(pg_temp.refusal_of(format(
        $$ select start_many('[{"workflow": "w"}, {"workflow": "w", "id": "a"}, %s, {"workflow": "w"}]') $$,
        start)), ' '),
    format('^%s It is start 3 of 4%s; none of them was carried out[.] ', code,
           case when start ~ '"id": "b"' then ', ''b''' else '' end),
    format('of many starts %s is named', about))
  from (values
        ('one with a misspelt field',      'PD107', '{"workflow": "w", "queu": "q", "id": "b"}'),
        ('one with a misspelt field and no id', 'PD107', '{"workflow": "w", "queu": "q"}'),
        ('what is no start',               'PD107', '"w"'),
        ('a list in the list',             'PD107', '[]'),
        ('one that cannot be read',        'PD107', '{"workflow": "w", "id": "b", "timeout": "soon"}'),
        ('a time that is none',            'PD107', '{"workflow": "w", "id": "b", "due_at": "soon"}'),
        ('a priority that is no number',   'PD107', '{"workflow": "w", "id": "b", "priority": "high"}'),
        ('a key that repeats nothing',     'PD107', '{"workflow": "w", "key": "k"}'),
        ('one without a workflow',         'PD104', '{"id": "b"}'),
        ('an empty id',                    'PD104', '{"workflow": "w", "id": ""}'),
        ('a queue with an @',              'PD104', '{"workflow": "w", "id": "b", "queue": "q@2"}'),
        ('arguments that are no list',     'PD103', '{"workflow": "w", "id": "b", "args": 1}'),
        ('a memory that is no object',     'PD103', '{"workflow": "w", "id": "b", "context": [1]}'),
        ('a priority too far',             'PD107', '{"workflow": "w", "id": "b", "priority": 10}'),
        ('one that is never due',          'PD107', '{"workflow": "w", "id": "b", "due_at": "infinity"}'),
        ('a timeout of nothing',           'PD107', '{"workflow": "w", "id": "b", "timeout": "0 s"}'),
        ('another word for an id that exists', 'PD107', '{"workflow": "w", "id": "b", "if_exists": "?"}'),
        ('headers that are too large',     'PD301',
         format('{"workflow": "w", "id": "b", "headers": {"v": "%s"}}', repeat('x', 1100000)))
       ) as cases (about, code, start);
select is(
    pg_temp.refusal_of($$ select start_many('[{"workflow": "w", "priority": 10}, {"workflow": "w", "id": ""}]') $$),
    array['PD107', 'It is start 1 of 2; none of them was carried out. This is 10.'],
    'the first that is refused is named');
select is(
    pg_temp.refusal_of('select start_many(''{}'')'), array['PD107', 'There was an object.'],
    'what is no list has no places');
select is_empty('select from jobs', 'nothing was started');

-- Of many commands.

select given(entity_create('e', 'note', '{"t": "text"}'));
select matches(
    array_to_string(pg_temp.refusal_of(format(
        $$ select entity_apply('e', '[{"op": "toggle", "path": "on"}, %s, {"op": "toggle", "path": "on"}]') $$,
        command)), ' '),
    format('^%s It is command 2 of 3; none of them was carried out[.] ', code),
    format('of many commands %s is named', about))
  from (values
        ('one with a misspelt field', 'PD107', '{"op": "merge", "pth": "t", "value": {}}'),
        ('what is none',              'PD107', '1'),
        ('one of another name',       'PD103', '{"op": "get", "path": "t"}'),
        ('one without a value',       'PD103', '{"op": "set", "path": "t"}'),
        ('a path that is none',       'PD101', '{"op": "toggle", "path": "b..c"}'),
        ('a path with a hole',        'PD101', '{"op": "toggle", "path": ["b", null]}'),
        ('one of the wrong type',     'PD102', '{"op": "increment", "path": "t", "value": 1}'),
        ('a value that is too deep',  'PD302',
         format('{"op": "set", "path": "d", "value": %s}', repeat('[', 102) || repeat(']', 102))),
        ('a value that is too large', 'PD301',
         format('{"op": "set", "path": "d", "value": "%s"}', repeat('x', 1100000)))
       ) as cases (about, code, command);
select is(
    (pg_temp.refusal_of($$ select entity_apply('e', '[{"op": "toggle", "path": "b..c"}]') $$))[2],
    'It is command 1 of 1; none of them was carried out. '
        'A path is keys with dots between them; a key with dots or quotes is written in double quotes.',
    'what was wrong is told as it is of one alone');
select is(the_job('e') -> 'context', '{"t": "text"}', 'nothing was written');

-- Of many turns and tasks: what is none of them at all. Each turn is answered by itself.

select is(
    pg_temp.refusal_of(format('select %s(''[{"job": "j", "task": "t"}, 1]'')', verb)),
    array['PD107', format('It is %s 2 of 2; none of them was carried out. There was a number.', noun)],
    format('in what %s() is given, what is no object is named', verb))
  from (values ('advance', 'turn'), ('extend', 'task'), ('release', 'task')) as cases (verb, noun);
select is(
    pg_temp.refusal_of(format('select %s(null)', verb)),
    '{PD107,"There was nothing."}',
    format('%s() of null is told that there was nothing', verb))
  from unnest('{advance,extend,release,start_many}'::text[]) as verb;
select matches(
    (pg_temp.refusal_of('select list_items(status => ''lost'')')) [2],
    'after nothing[.]$',
    'and a list of items that begins at the beginning is after nothing');

-- Of what a turn asks for, and tells.

select have_held_job('j');
select matches(
    tell(a_turn('j', requests => jsonb_build_array('{"key": "a#1", "name": "h"}'::jsonb, request)))
        #>> '{error,detail}',
    '^It is asked for as ''b#1''[.] ',
    format('of what is asked for, %s is named by its key', about))
  from (values
        ('one with a misspelt field', '{"key": "b#1", "name": "h", "queu": "q"}'::jsonb),
        ('one of no kind',            '{"key": "b#1", "name": "h", "kind": "wish"}'),
        ('one without a name',        '{"key": "b#1"}'),
        ('a priority too far',        '{"key": "b#1", "name": "h", "priority": 10}'),
        ('a condition that is none',  '{"key": "b#1", "kind": "until", "condition": "$.a ="}'),
        ('a timeout of nothing',      '{"key": "b#1", "kind": "job", "name": "w", "timeout": "0 s"}'),
        ('arguments of another kind', '{"key": "b#1", "name": "h", "args": "x"}')
       ) as cases (about, request);
select is(
    tell(a_turn('j', facts => '[{"kind": "note", "key": "a"}, {"kind": "note", "key": "b", "valeu": 1}]'))
        #>> '{error,message}',
    'the fact b has no field ''valeu''',
    'of the facts of a turn, one with a misspelt field is named by its key');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
