-- The inbox, taken from: facts consume messages. Each is taken once, by one task. [P5]

-- Read as read_facts() reads them, also if they are text: what is checked is what will be taken. Null if one cannot be
-- read: read_facts() refuses it and says where it is.
create function @extschema@.messages_of(facts jsonb) returns bigint[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(select f.message from jsonb_to_recordset(messages_of.facts) as f (message bigint) where f.message is not null);
exception
    when data_exception then
        return null;
end
$$;
comment on function @extschema@.messages_of(jsonb) is
    'Return the messages that facts consume; null if what they name is not a number.';


-- Volatile, so that it sees what a turn has taken that was committed while this one waited for the task.
create function @extschema@.messages_are_open(job text, task text, facts jsonb) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    named bigint[] := messages_of(messages_are_open.facts);
begin
    return named is null or cardinality(named) = (
        select count(*)
          from (select i.job_id, i.task from inbox as i where i.id = any(named) and i.consumed_at is null offset 0) as m
         where m.job_id = messages_are_open.job
           and (m.task is null or m.task = messages_are_open.task));
end
$$;
comment on function @extschema@.messages_are_open(text, text, jsonb) is
    'Tell whether all messages that facts consume are open and for this task to take: a signal may have gone to another task of the job.';


-- The messages are open and for this task: that was checked when its turn was judged, under the lock of the job, or, for
-- answers, of the task. [P5]
-- A worker that does not replay may leave out what the message says by itself. A message that is taken goes: the next one
-- must not be searched for among all that were taken. A request to cancel stays, since it counts for the tasks beneath;
-- so does the key of a signal, out of the way. Messages are found by their ids: with an equation of keys, a plan may search
-- for all requests to cancel in the index of answers, if the statistics know of few jobs.
create function @extschema@.consume_messages(inout facts @extschema@.fact[], consumed_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    named bigint[] := array(select f.message from unnest(consume_messages.facts) as f where f.message is not null);
    completed fact[];
begin
    with heard as (
        update inbox as i
           set consumed_at = consume_messages.consumed_at
         where i.id = any(named)
           and (i.key = '$cancel') is true
        returning i.*
    ), taken as (
        delete from inbox as i
         where i.id = any(named)
           and (i.key = '$cancel') is not true
        returning i.*
    ), kept as (
        insert into inbox (job_id, id, task, key, name, sender, dedupe_key, sent_at, consumed_at) overriding system value
        select m.job_id, m.id, '$taken', m.dedupe_key, m.name, m.sender, m.dedupe_key, m.sent_at, consume_messages.consumed_at
          from taken as m
         where m.dedupe_key is not null
    ), consumed as (
        select h.id, h.key, h.name, h.ok, h.payload, 'cancel' as kind from heard as h
         union all
        select m.id, m.key, m.name, m.ok, m.payload, case when m.task is null then 'signal' else 'answer' end from taken as m
    )
    select array_agg((f.turn, f.job, f.task, f.seq,
                      case when f.kind = 'note' then coalesce(c.kind, f.kind) else f.kind end,
                      coalesce(c.key, f.key),
                      case when c.key is null then coalesce(f.name, c.name) else f.name end,
                      f.fingerprint, coalesce(c.ok, f.ok),
                      case when c.id is null then f.value else c.payload end, f.version, f.op, f.path, f.argument, f.at,
                      f.message, f.signal, f.target, f.is_untimely, f.expects,
                      coalesce(c.kind = 'answer', false))::fact order by f.job, f.turn, f.seq)
      into completed
      from unnest(consume_messages.facts) as f
      left join consumed as c on c.id = f.message;
    facts := completed;
end
$$;
comment on function @extschema@.consume_messages(@extschema@.fact[], timestamptz) is
    'Consume the messages that facts name; the journal repeats what the inbox said, which of them are answers to which requests, and of which kind each message is if the fact does not say so.';
