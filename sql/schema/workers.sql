-- Who works and who waits. Nothing here is needed for correctness: hints, and a view for people.

create table @extschema@.workers (
    worker         text collate "C"  not null,
    version        text,
    queues         text[]            not null,
    functions      text[]            not null default '{}',
    details        jsonb             not null default '{}',
    registered_at  timestamptz       not null,
    seen_at        timestamptz       not null,

    constraint one_row_per_worker primary key (worker)
);
comment on table @extschema@.workers is 'The worker processes that have registered.';
comment on column @extschema@.workers.worker is 'The name a worker gave itself.';
comment on column @extschema@.workers.version is 'The version of the code that it runs, if that has a name.';
comment on column @extschema@.workers.queues is 'The queues that it claims from, including those of its version.';
comment on column @extschema@.workers.functions is 'The functions that it has, each with its kind: hook perspective.';
comment on column @extschema@.workers.details is 'Information for people: host, process, language, versions.';
comment on column @extschema@.workers.registered_at is 'When it registered.';
comment on column @extschema@.workers.seen_at is 'When it last renewed its leases or registered.';

-- After a crash of the server everybody connects, and registers, again.
create unlogged table @extschema@.listeners (
    topic     text collate "C"  not null,
    listener  text collate "C"  not null,
    since     timestamptz       not null,

    constraint one_row_per_listener primary key (topic, listener)
);
comment on table @extschema@.listeners is
    'Who is idle and wants a NOTIFY: workers for their queues and for messages to tasks they hold, clients for the end of a job or a change of its memory.';
comment on column @extschema@.listeners.topic is 'A queue, $messages/worker, $job/id, or $memory/id.';
comment on column @extschema@.listeners.listener is 'The worker or client.';
comment on column @extschema@.listeners.since is 'When it became idle, or last asked.';

create index topics_of_a_listener on @extschema@.listeners (listener);
comment on index @extschema@.topics_of_a_listener is 'Finds what a listener has to withdraw when it works again.';
