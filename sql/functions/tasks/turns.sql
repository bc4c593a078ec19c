-- Turns that no worker has sent: how a task ends from outside, or a request is answered by the database itself.

create function @extschema@.ending_turn(
    job          text,
    task         text,
    state        text,
    value        jsonb,
    kind         text     default null,
    place        integer  default 0,
    asker_job    text     default null,
    asker_task   text     default null,
    asker_key    text     default null,
    fingerprint  text     default null,
    signal       text     default null
) returns @extschema@.turn
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ending turn;
begin
    ending.number := 0;
    ending.job := ending_turn.job;
    ending.task := ending_turn.task;
    ending.position := ending_turn.place;
    ending.state := ending_turn.state;
    ending.value := ending_turn.value;
    ending.kind := ending_turn.kind;
    ending.asker_job := ending_turn.asker_job;
    ending.asker_task := ending_turn.asker_task;
    ending.asker_key := ending_turn.asker_key;
    ending.fingerprint := ending_turn.fingerprint;
    ending.signal := ending_turn.signal;
    return ending;
end
$$;
comment on function @extschema@.ending_turn(text, text, text, jsonb, text, integer, text, text, text, text, text) is
    'Write a turn that ends a task which holds no token, or that answers an asker early, for the functions that do so.';
