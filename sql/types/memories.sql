-- Shapes: memories, their past, what is found in them and what they are held to. Shapes gain attributes only, and only at
-- the end.

create type @extschema@.outcome as (
    context  jsonb,
    answer   jsonb,
    failure  jsonb
);
comment on type @extschema@.outcome is
    'What one command makes of a document: the new document and a small answer, or a failure and no new document.';

create type @extschema@.memory as (
    id        text,
    status    text,
    context   jsonb,
    version   bigint,
    run       integer,
    entity    text,
    watched   boolean
);
comment on type @extschema@.memory is 'What a function needs of a job that it has locked.';

create type @extschema@.command as (
    op        text,
    path      text[],
    argument  jsonb
);
comment on type @extschema@.command is 'A command as it was given: what to do, where, with what.';

create type @extschema@.change as (
    version   bigint,
    at        timestamptz,
    task      text,
    op        text,
    path      text,
    argument  jsonb,
    answer    jsonb,
    key       text
);
comment on type @extschema@.change is 'A version of a memory: who made it, when, by which command.';

create type @extschema@.difference as (
    path    text,
    change  text,
    old     jsonb,
    new     jsonb
);
comment on type @extschema@.difference is 'A place in which two documents differ: added, removed or changed.';

create type @extschema@.authorship as (
    path     text,
    value    jsonb,
    version  bigint,
    at       timestamptz,
    task     text,
    op       text
);
comment on type @extschema@.authorship is 'A value of a memory, with the command that wrote it last.';

create type @extschema@.written_place as (
    place          text[],
    version        bigint,
    whole_version  bigint
);
comment on type @extschema@.written_place is 'A place of a memory, with the last command that wrote there, and the last that wrote all beneath it too.';

create type @extschema@.author as (
    leaf     text[],
    version  bigint
);
comment on type @extschema@.author is 'A leaf of a memory, with the version that wrote it last.';

create type @extschema@.log_item as (
    version  bigint,
    place    integer,
    item     jsonb,
    at       timestamptz,
    task     text
);
comment on type @extschema@.log_item is 'An item of a log: the version that added it, and its place among those of that version.';

create type @extschema@.stream_item as (
    version  bigint,
    place    integer,
    item     jsonb,
    at       timestamptz,
    source   text,
    attempt  text
);
comment on type @extschema@.stream_item is
    'An item of a stream: of which version and where in it, by whom, in which attempt. At place 0 the stream ends.';

create type @extschema@.large_read as (
    seq    bigint,
    value  jsonb
);
comment on type @extschema@.large_read is 'What a task was told when it read something large, by its place in the journal.';

create type @extschema@.order_key as (
    expression   text,
    kind         text,
    descending   boolean,
    is_optional  boolean
);
comment on type @extschema@.order_key is 'By what find() orders: an expression of a row, as what it is compared, and whether it may be missing.';

create type @extschema@.found_job as (
    id          text,
    entity      text,
    status      text,
    version     bigint,
    context     jsonb,
    created_at  timestamptz,
    updated_at  timestamptz,
    place       jsonb
);
comment on type @extschema@.found_job is 'A job that find() found; its place is where the next page begins.';

create type @extschema@.schema_part as (
    step    text[],
    value   jsonb,
    schema  jsonb
);
comment on type @extschema@.schema_part is
    'A schema inside of a schema: the steps that lead to it, and the part of a value that it is held against, where there is one.';

create type @extschema@.broken_rule as (
    path    text[],
    rule    text,
    found   text,
    wanted  text
);
comment on type @extschema@.broken_rule is 'The rule of a schema that a value breaks, and where; what was found there and what was wanted, in words.';

create type @extschema@.broken_contract as (
    id       text,
    path     text,
    rule     text,
    message  text
);
comment on type @extschema@.broken_contract is 'A memory that does not fit a contract: where, and which rule it breaks.';
