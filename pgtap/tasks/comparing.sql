-- Comparing: code that runs again from the journal reports its open requests, and is refused if other requests are
-- open. [P9]

begin;
select plan(29);

select the_time_is('2030-01-01 12:00+00');

create function said(
    open     jsonb,
    cancels  jsonb  default null,
    facts    jsonb  default null,
    state    text   default 'keep'
) returns text
language plpgsql
as $$
declare
    turn jsonb := a_turn('j', state => said.state, cancels => said.cancels, facts => said.facts, awaits => '{go}');
    answer jsonb;
begin
    begin
        answer := tell(turn || jsonb_build_object('open', said.open));
        raise exception using errcode = 'TEST0';
    exception
        when sqlstate 'TEST0' then
            return coalesce((answer #>> '{error,code}') || ' ' || (answer #>> '{error,detail}'), answer ->> 'state');
    end;
end
$$;
comment on function said(jsonb, jsonb, jsonb, text) is
    'Report open requests, and undo it; return the state, or why it is refused.';

select have_held_job('j');
select is(said('{}'), 'keep', 'a task without requests has nothing open');
select is(said('{"new#1": "1"}'), 'keep', 'a request may be reported as open before it is made');
select given(tell(a_turn('j',
                         requests => '[
    {"key": "h#1", "name": "h", "queue": "far", "signal": "early", "fingerprint": "1"},
    {"key": ".1/a#1", "kind": "activity", "name": "a", "queue": "far", "fingerprint": "2"},
    {"key": "c#1", "kind": "job", "name": "w", "queue": "far", "fingerprint": "3"},
    {"key": "u#1", "kind": "until", "condition": "$.n == 1", "fingerprint": "4"},
    {"key": "i#1", "kind": "item", "name": "sign", "fingerprint": "5"},
    {"key": "n#1", "name": "n", "queue": "far"},
    {"key": "d#1", "name": "d", "queue": "far", "detached": true, "fingerprint": "6"},
    {"key": "d#2", "kind": "job", "name": "w", "queue": "far", "detached": true, "fingerprint": "7"}]')));

create function all_open() returns jsonb
language plpgsql
as $$
begin
    return '{"h#1": "1", ".1/a#1": "2", "c#1": "3", "u#1": "4", "i#1": "5", "n#1": null}';
end
$$;
comment on function all_open() is 'Name all open requests of the job.';

select is(said(all_open()), 'keep', 'a turn that names all open requests is accepted; detached ones do not count');
select is(said(all_open() || '{"new#1": "9"}'), 'keep', 'a turn may name new requests too');
select is(
    said(all_open() - key),
    format('PD201 It has asked for %s%s, but does not ask for it now.', key,
           ' (arguments ' || (all_open() ->> key) || ')'),
    format('a turn that does not name %s is refused', key))
  from jsonb_object_keys(all_open()) as key
 order by key collate "C";
select is(
    said(all_open() || jsonb_build_object(key, 'x')),
    format('PD201 It has asked for %s (arguments %s), but now asks for it with other arguments (x).', key,
           all_open() ->> key),
    format('a turn with another fingerprint of %s is refused', key))
  from jsonb_object_keys(all_open() - 'n#1') as key
 order by key collate "C";
select is(
    said(jsonb_object_agg(key, null)),
    'keep',
    'a fingerprint that one side does not know is not compared')
  from jsonb_object_keys(all_open()) as key;
select is(said(all_open() - 'h#1', cancels => '["h#1"]'), 'keep', 'a withdrawn request need not be named');
select is(
    left(said(all_open() - 'c#1', state => state), 5),
    'PD201',
    format('a turn of other code that ends as %s is refused', state))
  from unnest('{park,done,failed,continue}'::text[]) as state;
select is(said(null), 'keep', 'a turn without open requests is not compared');
select is(left(said('["h#1"]'), 5), 'PD107', 'open requests that are not an object are refused');

-- Answers.

select given(take('bob', '{far}', max_tasks => 9));
select given(tell(a_turn('j', '1/main/h#1', facts => '[{"signal": "early", "key": "s"}]', worker => 'bob')));
select given(tell(a_turn('j', '1/main/n#1', 'done', worker => 'bob')));
select is(left(said(all_open() - 'n#1'), 5), 'PD201', 'a turn that leaves out an answered request is refused');
select is(
    said(all_open() - 'n#1', facts => jsonb_build_array(
            jsonb_build_object('kind', 'answer', 'key', 'n#1', 'message', message_of('j', 'n#1')))),
    'keep',
    'a turn that consumes the answer need not name its request');
select given(tell(a_turn('j', facts => jsonb_build_array(
    jsonb_build_object('kind', 'answer', 'key', 'n#1', 'message', message_of('j', 'n#1')),
    jsonb_build_object('kind', 'answer', 'key', 'h#1', 'message', message_of('j', 'h#1'))))));
select is(
    said(all_open() - '{h#1,n#1}'::text[]),
    'keep',
    'an answered request need not be named, although its hook goes on');

-- Changes that an operator accepts.

select given(tell(a_turn('j', state => 'stuck')));
select given(resume('j', accept_changes => true));
select given(take('ada', '{j}'));
select is(said(all_open() - '{h#1,n#1}'::text[] || '{"c#1": "x"}'), 'keep', 'resume() may accept other arguments');
select is(left(said(all_open() - '{h#1,n#1,c#1}'::text[]), 5), 'PD201', 'resume() does not accept other requests');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
