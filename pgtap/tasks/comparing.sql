-- Compared: code that runs again from the journal says what it waits for, and is refused where something else is open. [P9]

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
comment on function said(jsonb, jsonb, jsonb, text) is 'Say what is open, and undo it; returns the state, or why it is refused.';

select have_held_job('j');
select is(said('{}'), 'keep', 'who has asked for nothing waits for nothing');
select is(said('{"new#1": "1"}'), 'keep', 'what is about to be asked for is not open yet');
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
comment on function all_open() is 'Name all that the job waits for.';

select is(said(all_open()), 'keep', 'whoever names all that is open goes on; for what is detached nobody waits');
select is(said(all_open() || '{"new#1": "9"}'), 'keep', 'and may ask for more');
select is(
    said(all_open() - key),
    format('PD201 It has asked for %s%s, but does not ask for it now.', key,
           ' (arguments ' || (all_open() ->> key) || ')'),
    format('who does not wait for %s is other code', key))
  from jsonb_object_keys(all_open()) as key
 order by key collate "C";
select is(
    said(all_open() || jsonb_build_object(key, 'x')),
    format('PD201 It has asked for %s (arguments %s), but now asks for it with other arguments (x).', key,
           all_open() ->> key),
    format('so is who has asked for another %s', key))
  from jsonb_object_keys(all_open() - 'n#1') as key
 order by key collate "C";
select is(
    said(jsonb_object_agg(key, null)),
    'keep',
    'a fingerprint that one of the two does not know is not compared')
  from jsonb_object_keys(all_open()) as key;
select is(said(all_open() - 'h#1', cancels => '["h#1"]'), 'keep', 'what is withdrawn need not be waited for');
select is(
    left(said(all_open() - 'c#1', state => state), 5),
    'PD201',
    format('nor does other code end as %s', state))
  from unnest('{park,done,failed,continue}'::text[]) as state;
select is(said(null), 'keep', 'whoever goes on where he was need not say it');
select is(left(said('["h#1"]'), 5), 'PD107', 'what is open is an object');

-- Answers.

select given(take('bob', '{far}', max_tasks => 9));
select given(tell(a_turn('j', '1/main/h#1', facts => '[{"signal": "early", "key": "s"}]', worker => 'bob')));
select given(tell(a_turn('j', '1/main/n#1', 'done', worker => 'bob')));
select is(left(said(all_open() - 'n#1'), 5), 'PD201', 'who passes over an answer is other code too');
select is(
    said(all_open() - 'n#1', facts => jsonb_build_array(
            jsonb_build_object('kind', 'answer', 'key', 'n#1', 'message', message_of('j', 'n#1')))),
    'keep',
    'but not who takes it');
select given(tell(a_turn('j', facts => jsonb_build_array(
    jsonb_build_object('kind', 'answer', 'key', 'n#1', 'message', message_of('j', 'n#1')),
    jsonb_build_object('kind', 'answer', 'key', 'h#1', 'message', message_of('j', 'h#1'))))));
select is(
    said(all_open() - '{h#1,n#1}'::text[]),
    'keep',
    'nobody waits for what was told, though a hook goes on that answered early');

-- What an operator accepts.

select given(tell(a_turn('j', state => 'stuck')));
select given(resume('j', accept_changes => true));
select given(take('ada', '{j}'));
select is(said(all_open() - '{h#1,n#1}'::text[] || '{"c#1": "x"}'), 'keep', 'other arguments may be accepted');
select is(left(said(all_open() - '{h#1,n#1,c#1}'::text[]), 5), 'PD201', 'another request may not');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
