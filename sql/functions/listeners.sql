-- Listeners: who is idle and wants to be notified. A NOTIFY is a hint that may be lost. It is sent only if somebody
-- listens, so that busy workers do not contend for the lock that a notifying commit takes. [P11]

create function @extschema@.channel() returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return 'perdure ' || left(md5('@extschema@'), 16);
end
$$;
comment on function @extschema@.channel() is
    'Return the name of the NOTIFY channel of this app; the payload of a notification is a topic.';


-- If the queue of the server is full, because some session listens and does not read, a commit that notifies fails. So
-- hints are left out from the half on.
create function @extschema@.notify_listeners(topics text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if notify_listeners.topics = '{}' then
        return;
    end if;
    perform pg_notify(channel(), wanted.topic)
       from (select distinct l.topic
               from listeners as l
              where l.topic = any(notify_listeners.topics)) as wanted
      where pg_notification_queue_usage() < 0.5;
end
$$;
comment on function @extschema@.notify_listeners(text[]) is
    'Send a NOTIFY for each of these topics that somebody listens for.';


-- The ids of grandchildren may be longer than other names, but not this long; and this fits an index.
create function @extschema@.longest_topic() returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return 1000;
end
$$;
comment on function @extschema@.longest_topic() is 'Return how many bytes a topic may have.';


-- On a standby, statements on unlogged tables cannot even be planned, with an error that no caller would understand.
create function @extschema@.check_primary() returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if pg_is_in_recovery() then
        raise exception 'a standby accepts no writes'
            using errcode = 'read_only_sql_transaction',
                  detail = 'This server is the standby of another.',
                  hint = 'Call the primary.';
    end if;
end
$$;
comment on function @extschema@.check_primary() is 'Refuse a call on a standby, as all writes are refused there (25006).';


-- A worker waits for the rows under its name at each claim. So nobody else may lock them.
create function @extschema@.listen_for(topic text, listener text) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(coalesce(
        case when listen_for.topic is null then name_failure(null, 'a topic')
             when octet_length(listen_for.topic) > longest_topic() then make_failure(
                 'PD104', 'InvalidName', 'the topic is too long',
                 format('It has %s bytes; at most %s are allowed.', octet_length(listen_for.topic), longest_topic()),
                 'Name a queue, or a worker or id after $messages/, $job/ or $memory/.') end,
        name_failure(listen_for.listener, 'a listener')));
    perform check_queues('{}', listen_for.listener);
    insert into listeners (topic, listener, since)
    values (listen_for.topic, listen_for.listener, clock())
        on conflict on constraint one_row_per_listener do update set since = excluded.since;
end
$$;
comment on function @extschema@.listen_for(text, text) is
    'Ask for a NOTIFY on a topic: a queue, $messages/worker for messages to tasks that a worker holds, $job/id for the end of a job, $memory/id for a change of its memory or the end of the job. LISTEN first; after this commits, look once more. A standby refuses this, as all writes (25006). Errors: PD104, PD115 (the name of a worker of others).';


-- A client that was killed leaves its row behind; one that is alive renews it within the hour.
create function @extschema@.is_listened_for(topic text, listener text, seen_since timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from listeners as l
         where l.topic = is_listened_for.topic
           and (is_listened_for.listener is null or l.listener = is_listened_for.listener)
           and l.since > is_listened_for.seen_since);
end
$$;
comment on function @extschema@.is_listened_for(text, text, timestamptz) is
    'Tell whether a listener, or with null anybody, has asked for a topic since a time.';


create function @extschema@.withdraw_hints(listener text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_primary();
    delete from listeners as l where l.listener = withdraw_hints.listener;
end
$$;
comment on function @extschema@.withdraw_hints(text) is
    'Notify a listener no more. A standby refuses this, as all writes (25006).';


-- A worker whose requests a stranger has withdrawn would not hear of its tasks until it looks by itself.
create function @extschema@.stop_listening(listener text) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_queues('{}', stop_listening.listener);
    perform withdraw_hints(stop_listening.listener);
end
$$;
comment on function @extschema@.stop_listening(text) is
    'Withdraw all requests of a listener for notifications. Only who may serve the queues of a worker may do so for it. A standby refuses this, as all writes (25006). Errors: PD115.';


-- A worker that is alive is heard of, however long it is idle. Others that register at the same time are about to do the
-- same.
create function @extschema@.forget_listeners(before timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from listeners as l
     using (
        select old.topic, old.listener
          from listeners as old
         where old.since < forget_listeners.before
           and not exists (select from workers as w where w.worker = old.listener offset 0)
           for no key update of old skip locked) as lost
     where l.topic = lost.topic
       and l.listener = lost.listener;
end
$$;
comment on function @extschema@.forget_listeners(timestamptz) is
    'Delete listeners that asked before a time, not again since, and are no live workers.';


create function @extschema@.mark_workers_seen(workers text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    update workers as w
       set seen_at = now_at
     where w.worker = any(mark_workers_seen.workers)
       and w.seen_at < now_at - interval '1 minute';
end
$$;
comment on function @extschema@.mark_workers_seen(text[]) is 'Record, at most once a minute, that workers are alive.';


create function @extschema@.set_idle(queues text[], worker text, is_idle boolean) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not set_idle.is_idle then
        perform withdraw_hints(set_idle.worker);
        return;
    end if;
    -- Nothing ever arrives on a queue whose name is longer.
    insert into listeners (topic, listener, since)
    select u.topic, set_idle.worker, clock()
      from unnest(set_idle.queues || ('$messages/' || set_idle.worker)) as u (topic)
     where octet_length(u.topic) <= longest_topic()
     order by u.topic collate "C"
        on conflict on constraint one_row_per_listener do nothing;
    perform mark_workers_seen(array[set_idle.worker]);
end
$$;
comment on function @extschema@.set_idle(text[], text, boolean) is
    'Record that a worker waits for work on its queues and for messages to its tasks, or works again.';


-- A writer that looks for listeners just before a worker begins to listen notifies nobody, and may commit just after that
-- worker has looked for work. Nobody would find that work before the worker looks again by itself.
create function @extschema@.look_again_at(worker text) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
    listens_since timestamptz := (
        select l.since
          from listeners as l
         where l.topic = '$messages/' || look_again_at.worker
           and l.listener = look_again_at.worker);
begin
    return case when now_at < listens_since + interval '1 ms' then listens_since + interval '1 ms'
                when now_at < listens_since + interval '5 ms' then listens_since + interval '5 ms'
                when now_at < listens_since + interval '30 ms' then listens_since + interval '30 ms'
                when now_at < listens_since + interval '150 ms' then listens_since + interval '150 ms' end;
end
$$;
comment on function @extschema@.look_again_at(text) is
    'Return when a worker that has just begun to listen is to look for work again; null if it listens for longer, or does not.';
