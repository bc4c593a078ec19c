-- Contracts: what the memories of an entity must look like. An entity without a row has no contract.

create table @extschema@.contracts (
    entity      text collate "C"  not null,
    schema      jsonb             not null,
    rules       jsonb             not null,
    defined_at  timestamptz       not null,

    constraint one_contract_per_entity primary key (entity),
    constraint schema_is_an_object check (jsonb_typeof(schema) = 'object')
);
comment on table @extschema@.contracts is 'The contract of each entity that has one: what its memories must look like.';
comment on column @extschema@.contracts.entity is 'The entity.';
comment on column @extschema@.contracts.schema is 'The JSON Schema, checked when it was defined.';
comment on column @extschema@.contracts.rules is
    'The part of the schema that a document can break. Writes are checked against it.';
comment on column @extschema@.contracts.defined_at is 'When the contract was defined or last changed.';
