-- Contracts: what the documents of an entity must look like on their surface. An entity without a row is free.

create table @extschema@.contracts (
    entity      text         not null,
    schema      jsonb        not null,
    rules       jsonb        not null,
    defined_at  timestamptz  not null,

    constraint one_contract_per_entity primary key (entity),
    constraint schema_is_an_object check (jsonb_typeof(schema) = 'object')
);
comment on table @extschema@.contracts is 'The shape that the memories of an entity keep to; an entity without a row has none.';
comment on column @extschema@.contracts.entity is 'The entity.';
comment on column @extschema@.contracts.schema is 'A JSON Schema, found sound when it was defined.';
comment on column @extschema@.contracts.rules is 'What of the schema asks something of a document: writes are held against this.';
comment on column @extschema@.contracts.defined_at is 'When it was defined, or last changed.';
