-- The inbox: signals and answers on their way. Whoever writes here holds the lock of the job that receives the message.
-- So a task that parks under the same lock sees the message, or is woken by it. [P5]

-- Bounded: the rest comes with the next turn, since a task with open messages does not park. Signals are limited more
-- strictly: of a backlog, a turn takes some and is told the others again. They also bound what was sent after them, so
-- that everything arrives in order.
create function @extschema@.open_messages(job text, task text, awaits text[]) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    page record;
begin
    select jsonb_agg(jsonb_build_object('id', m.id, 'key', m.key, 'name', m.name, 'fingerprint', m.fingerprint, 'ok', m.ok,
                                        'payload', m.payload, 'sent_at', m.sent_at) order by m.id) as messages,
           count(*) as number, count(*) filter (where m.task is null) as signals
      into page
      from (select i.*, sum(octet_length(i.payload::text)) over before
                            - coalesce(octet_length(i.payload::text), 0) as bytes_before,
                   count(*) filter (where i.task is null) over before as signals
              from (select a.* from inbox as a
                     where a.job_id = open_messages.job
                       and a.task = open_messages.task
                       and a.consumed_at is null
                    union all
                    (select o.*
                       from (select s.* from inbox as s
                              where s.job_id = open_messages.job
                                and s.task is null
                                and s.name = any(open_messages.awaits)
                             offset 0) as o
                      order by o.id limit 100)) as i
            window before as (order by i.id rows unbounded preceding)
             order by i.id limit 1000) as m
     where coalesce(m.bytes_before, 0) < 4194304
       and (m.signals < 100 or m.task is null);
    -- As text they take up to six times as much space.
    return case when page.number = 1000 or page.signals = 100 or pg_column_size(page.messages) > 524288
                then jsonb_set(page.messages, '{-1,more}', 'true') else page.messages end;
end
$$;
comment on function @extschema@.open_messages(text, text, text[]) is
    'Return the open messages of a task: answers addressed to it, and signals that it awaits, in order of acceptance. If there may be more, the last one says so in the field more.';


create function @extschema@.find_arrivals(turns @extschema@.turn[]) returns @extschema@.arrival[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (r.number, m.messages)::arrival
          -- Most tasks have no messages, which one look-up shows.
          from (select w.*
                  from unnest(find_arrivals.turns) as w
                 where w.verdict in ('apply', 'applied')
                   and w.state in ('keep', 'park')
                   and (exists (select from inbox as i where i.job_id = w.job and i.task = w.task offset 0) or w.awaits <> '{}')
                offset 0) as r
         cross join lateral (select open_messages(r.job, r.task, r.awaits) as messages offset 0) as m
         where m.messages is not null);
end
$$;
comment on function @extschema@.find_arrivals(@extschema@.turn[]) is
    'Find the open messages of turns that continue. For a task that wants to park, this happens under the lock of the job, so that no wake-up is lost.';


create function @extschema@.insert_signals(facts @extschema@.fact[], sent_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into inbox (job_id, name, payload, sender, sent_at)
    select f.target, f.signal, f.argument, f.job || ' ' || f.task, insert_signals.sent_at
      from unnest(insert_signals.facts) as f
     order by f.turn, f.seq;
end
$$;
comment on function @extschema@.insert_signals(@extschema@.fact[], timestamptz) is 'Insert the signals that turns send.';


create function @extschema@.signal_was_sent(id text, key text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (select from inbox as i where i.job_id = signal_was_sent.id and i.dedupe_key = signal_was_sent.key);
end
$$;
comment on function @extschema@.signal_was_sent(text, text) is
    'Tell whether a signal with this key was accepted before. [P12]';


-- Under the lock of the job it was checked whether the key was used. An old snapshot may not show that, and meets it
-- here: 40001.
create function @extschema@.insert_signal(
    id       text,
    name     text,
    payload  jsonb,
    key      text,
    sent_at  timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into inbox (job_id, name, payload, dedupe_key, sent_at)
    values (insert_signal.id, insert_signal.name, insert_signal.payload, insert_signal.key, insert_signal.sent_at)
        on conflict (job_id, dedupe_key) where dedupe_key is not null do nothing;
end
$$;
comment on function @extschema@.insert_signal(text, text, jsonb, text, timestamptz) is 'Insert a signal from outside.';


-- Stable: one snapshot shows an answer that is being taken, under the lock of its task alone, in the inbox or in the
-- journal.
create function @extschema@.is_answered(job text, task text, key text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
            select from inbox as i where i.job_id = is_answered.job and i.task = is_answered.task and i.key = is_answered.key)
        or exists (
            select
              from journal as f
             where f.job_id = is_answered.job
               and f.task = is_answered.task
               and f.key = is_answered.key
               and f.is_answer);
end
$$;
comment on function @extschema@.is_answered(text, text, text) is
    'Tell whether a request has an answer: on its way, or taken. Then a repeated request makes nothing, and a second answer is dropped. [P4] [P12]';


-- What is_answered() asks is written out, here and where hooks are requested: a call for each row is not free.
create function @extschema@.insert_answers(turns @extschema@.turn[], answered_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into inbox (job_id, task, key, name, ok, payload, sender, sent_at, fingerprint)
    select r.asker_job, r.asker_task, r.asker_key, r.signal, r.state = 'done', r.value, r.job || ' ' || r.task,
           insert_answers.answered_at, r.fingerprint
      from unnest(insert_answers.turns) with ordinality as r
     where exists (select from tasks as t where t.job_id = r.asker_job and t.task = r.asker_task offset 0)
       and not exists (
        select from inbox as i where i.job_id = r.asker_job and i.task = r.asker_task and i.key = r.asker_key offset 0)
       and not exists (
        select
          from journal as f
         where f.job_id = r.asker_job
           and f.task = r.asker_task
           and f.key = r.asker_key
           and f.is_answer
        offset 0)
     order by r.ordinality
        on conflict (job_id, task, key) do nothing;
end
$$;
comment on function @extschema@.insert_answers(@extschema@.turn[], timestamptz) is
    'Insert the answers of tasks for their askers that are alive; an answer that was given earlier stays.';


create function @extschema@.answer_conditions(
    held          @extschema@.memory,
    tasks         text[],
    keys          text[],
    fingerprints  text[],
    left_at       timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into inbox (job_id, task, key, payload, sent_at, fingerprint)
    select held.id, w.task, w.key, to_jsonb(held.version), answer_conditions.left_at, w.fingerprint
      from unnest(answer_conditions.tasks, answer_conditions.keys, answer_conditions.fingerprints) as w (task, key, fingerprint)
     where not is_answered(held.id, w.task, w.key)
        on conflict (job_id, task, key) do nothing;
end
$$;
comment on function @extschema@.answer_conditions(@extschema@.memory, text[], text[], text[], timestamptz) is
    'Answer tasks whose conditions a memory meets with its version.';


-- The row of the job is written too: a turn with an older snapshot would not see the request, and would end its task, or
-- continue as the next run, and leave the request behind.
create function @extschema@.insert_cancel_requests(
    job       text,
    tasks     text[],
    reason    jsonb,
    asked_at  timestamptz
) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into inbox (job_id, task, key, ok, payload, sent_at)
    select insert_cancel_requests.job, asked.task, '$cancel', false, insert_cancel_requests.reason, insert_cancel_requests.asked_at
      from unnest(insert_cancel_requests.tasks) as asked (task)
        on conflict (job_id, task, key) do nothing;
    if not found then
        return false;
    end if;
    perform touch_job(insert_cancel_requests.job, insert_cancel_requests.asked_at);
    return true;
end
$$;
comment on function @extschema@.insert_cancel_requests(text, text[], jsonb, timestamptz) is
    'Insert a request to cancel for tasks of a job; return false if there was one before.';


create function @extschema@.cancel_is_open(job text, task text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from inbox as i
         where i.job_id = cancel_is_open.job
           and i.task = cancel_is_open.task
           and i.key = '$cancel'
           and i.consumed_at is null);
end
$$;
comment on function @extschema@.cancel_is_open(text, text) is
    'Tell whether a task was asked to cancel and has not heard of it yet.';


create function @extschema@.is_cleaning_up(job text, task text, beneath text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from inbox as i
         where i.job_id = is_cleaning_up.job
           and i.key = '$cancel'
           and i.task > is_cleaning_up.beneath || '/'
           and i.task <= is_cleaning_up.task
           and (i.task = is_cleaning_up.task or starts_with(is_cleaning_up.task, i.task || '/')));
end
$$;
comment on function @extschema@.is_cleaning_up(text, text, text) is
    'Tell whether a task, or a task above it and beneath the given one, was asked to cancel, heard or not.';
