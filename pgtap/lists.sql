-- Lists: if one of many items is refused, the error names it, counted from 1. [P1]

begin;
select plan(50);

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

-- start_many.

select matches(
    array_to_string(pg_temp.refusal_of(format(
        $$ select start_many('[{"workflow": "w"}, {"workflow": "w", "id": "a"}, %s, {"workflow": "w"}]') $$,
        start)), ' '),
    format('^%s It is start 3 of 4%s; none of them was carried out[.] ', code,
           case when start ~ '"id": "b"' then ', ''b''' else '' end),
    format('the error names the start in a list of starts: %s', about))
  from (values
        ('one with a misspelt field',      'PD107', '{"workflow": "w", "queu": "q", "id": "b"}'),
        ('one with a misspelt field and no id', 'PD107', '{"workflow": "w", "queu": "q"}'),
        ('an item that is not an object',               'PD107', '"w"'),
        ('a list in the list',             'PD107', '[]'),
        ('one with a timeout that cannot be read',        'PD107', '{"workflow": "w", "id": "b", "timeout": "soon"}'),
        ('a time that cannot be read',            'PD107', '{"workflow": "w", "id": "b", "due_at": "soon"}'),
        ('a priority that is not a number',   'PD107', '{"workflow": "w", "id": "b", "priority": "high"}'),
        ('a key that repeats nothing',     'PD107', '{"workflow": "w", "key": "k"}'),
        ('one without a workflow',         'PD104', '{"id": "b"}'),
        ('an empty id',                    'PD104', '{"workflow": "w", "id": ""}'),
        ('a queue with an @',              'PD104', '{"workflow": "w", "id": "b", "queue": "q@2"}'),
        ('arguments that are not a list',     'PD103', '{"workflow": "w", "id": "b", "args": 1}'),
        ('a memory that is not an object',     'PD103', '{"workflow": "w", "id": "b", "context": [1]}'),
        ('a priority too far',             'PD107', '{"workflow": "w", "id": "b", "priority": 10}'),
        ('one that is never due',          'PD107', '{"workflow": "w", "id": "b", "due_at": "infinity"}'),
        ('a timeout of zero',           'PD107', '{"workflow": "w", "id": "b", "timeout": "0 s"}'),
        ('an unknown value of if_exists', 'PD107', '{"workflow": "w", "id": "b", "if_exists": "?"}'),
        ('headers that are too large',     'PD301',
         format('{"workflow": "w", "id": "b", "headers": {"v": "%s"}}', repeat('x', 1100000)))
       ) as cases (about, code, start);
select is(
    pg_temp.refusal_of($$ select start_many('[{"workflow": "w", "priority": 10}, {"workflow": "w", "id": ""}]') $$),
    array['PD107', 'It is start 1 of 2; none of them was carried out. This is 10.'],
    'the error names the first start that is refused');
select is(
    pg_temp.refusal_of('select start_many(''{}'')'), array['PD107', 'There was an object.'],
    'the error for an object instead of a list names no place');
select is_empty('select from jobs', 'a refused list starts nothing');
select is(
    array(select (s.id, s.is_new)::started from start_many('[{"workflow": "w", "id": "keyed", "key": "k"}]') as s),
    array[('keyed', true)::started], 'a start in a list may have an id and a key');

-- entity_apply.

select given(entity_create('e', 'note', '{"t": "text"}'));
select matches(
    array_to_string(pg_temp.refusal_of(format(
        $$ select entity_apply('e', '[{"op": "toggle", "path": "on"}, %s, {"op": "toggle", "path": "on"}]') $$,
        command)), ' '),
    format('^%s It is command 2 of 3; none of them was carried out[.] ', code),
    format('the error names the command in a list of commands: %s', about))
  from (values
        ('one with a misspelt field', 'PD107', '{"op": "merge", "pth": "t", "value": {}}'),
        ('one that is not an object',              'PD107', '1'),
        ('one with another name',       'PD103', '{"op": "get", "path": "t"}'),
        ('one without a value',       'PD103', '{"op": "set", "path": "t"}'),
        ('a path that does not parse',       'PD101', '{"op": "toggle", "path": "b..c"}'),
        ('a path with a null',        'PD101', '{"op": "toggle", "path": ["b", null]}'),
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
    'the error has the same detail as for a single command');
select is(the_job('e') -> 'context', '{"t": "text"}', 'a refused list writes nothing');

-- advance, extend, release: an item that is not an object refuses the call. Each turn is answered by itself.

select is(
    pg_temp.refusal_of(format('select %s(''[{"job": "j", "task": "t"}, 1]'')', verb)),
    array['PD107', format('It is %s 2 of 2; none of them was carried out. There was a number.', noun)],
    format('the error of %s() names the item that is not an object', verb))
  from (values ('advance', 'turn'), ('extend', 'task'), ('release', 'task')) as cases (verb, noun);
select is(
    pg_temp.refusal_of(format('select %s(null)', verb)),
    '{PD107,"There was nothing."}',
    format('%s() of null says that there was nothing', verb))
  from unnest('{advance,extend,release,start_many}'::text[]) as verb;
select matches(
    (pg_temp.refusal_of('select list_items(status => ''lost'')')) [2],
    'after nothing[.]$',
    'the error of list_items() without a page says so');

-- The requests and facts of a turn.

select have_held_job('j');
select matches(
    tell(a_turn('j', requests => jsonb_build_array('{"key": "a#1", "name": "h"}'::jsonb, request)))
        #>> '{error,detail}',
    '^It is asked for as ''b#1''[.] ',
    format('the error names the request by its key: %s', about))
  from (values
        ('one with a misspelt field', '{"key": "b#1", "name": "h", "queu": "q"}'::jsonb),
        ('one of no kind',            '{"key": "b#1", "name": "h", "kind": "wish"}'),
        ('one without a name',        '{"key": "b#1"}'),
        ('a priority too far',        '{"key": "b#1", "name": "h", "priority": 10}'),
        ('a condition that does not parse',  '{"key": "b#1", "kind": "until", "condition": "$.a ="}'),
        ('a timeout of zero',      '{"key": "b#1", "kind": "job", "name": "w", "timeout": "0 s"}'),
        ('arguments of another kind', '{"key": "b#1", "name": "h", "args": "x"}')
       ) as cases (about, request);
select is(
    tell(a_turn('j', facts => '[{"kind": "note", "key": "a"}, {"kind": "note", "key": "b", "valeu": 1}]'))
        #>> '{error,message}',
    'the fact b has no field ''valeu''',
    'the error names the fact with a misspelt field by its key');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
