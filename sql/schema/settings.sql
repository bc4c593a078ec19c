-- What an app knows of itself.

create table @extschema@.settings (
    name   text collate "C"  not null,
    value  jsonb             not null,

    constraint one_row_per_setting primary key (name)
);
comment on table @extschema@.settings is 'What an app knows about itself, one row for each setting.';
comment on column @extschema@.settings.name is
    'The name of the setting. instance: the identity of this app; place: where it was adopted, so that a copy does not execute; build: the source that made tables and views; clock_ahead: by how many seconds its clock was moved.';
comment on column @extschema@.settings.value is 'The value of the setting.';

create table @extschema@.migrations (
    version     text collate "C"  not null,
    applied_at  timestamptz       not null,

    constraint one_row_per_migration primary key (version)
);
comment on table @extschema@.migrations is 'The versions of the tables that this app has had.';
comment on column @extschema@.migrations.version is 'The version of perdure that created or changed the tables.';
comment on column @extschema@.migrations.applied_at is 'When that happened.';
