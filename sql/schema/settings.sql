-- What an app knows of itself.

create table @extschema@.settings (
    name   text   not null,
    value  jsonb  not null,

    constraint one_row_per_setting primary key (name)
);
comment on table @extschema@.settings is 'What an app knows of itself, one row a setting.';
comment on column @extschema@.settings.name is
    'instance: who this app is; place: where it was adopted, so that a copy does not execute by surprise; build: by which source tables and views were made; clock_ahead: by how many seconds its clock was moved.';
comment on column @extschema@.settings.value is 'The setting.';

create table @extschema@.migrations (
    version     text         not null,
    applied_at  timestamptz  not null,

    constraint one_row_per_migration primary key (version)
);
comment on table @extschema@.migrations is 'Which versions of the tables this app has been through.';
comment on column @extschema@.migrations.version is 'The version of perdure that made or changed the tables.';
comment on column @extschema@.migrations.applied_at is 'When.';
