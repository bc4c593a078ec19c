-- Access: which roles were given what by grant_access(). Whether a role still has it is in the catalogue.

create table @extschema@.access (
    role        text collate "C"  not null,
    kind        text collate "C"  not null,
    queues      text[],
    granted_at  timestamptz       not null,

    constraint one_row_per_kind_of_access primary key (role, kind),
    constraint kind_is_known check (kind in ('worker', 'client', 'operator', 'reader', 'monitor')),
    constraint queues_are_for_workers check (queues is null or (kind = 'worker' and queues <> '{}'))
);
comment on table @extschema@.access is 'The roles that have access to the app. What they may do is in the catalogue.';
comment on column @extschema@.access.role is 'The name of the role.';
comment on column @extschema@.access.kind is 'The kind of access: worker, client, operator, reader or monitor.';
comment on column @extschema@.access.queues is
    'The queues whose tasks a worker may have, of every version; null for all.';
comment on column @extschema@.access.granted_at is 'When the access was granted or last changed.';
