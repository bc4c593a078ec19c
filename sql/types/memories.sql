-- Shapes: memories, their past, what is found in them and what they are checked against. Shapes gain attributes only, and
-- only at the end.

create type @extschema@.outcome as (
    context  jsonb,
    answer   jsonb,
    failure  jsonb
);
comment on type @extschema@.outcome is
    'The result of a command on a document: the new document and an answer, or a failure and no new document.';

create type @extschema@.memory as (
    id        text,
    status    text,
    context   jsonb,
    version   bigint,
    run       integer,
    entity    text,
    watched   boolean
);
comment on type @extschema@.memory is 'What a function needs to know of a job that it has locked.';

create type @extschema@.command as (
    op        text,
    path      text[],
    argument  jsonb
);
comment on type @extschema@.command is 'A command as it was given: operation, path and argument.';

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
comment on type @extschema@.change is 'A version of a memory: who made it, when, and by which command.';

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
comment on type @extschema@.authorship is 'A value of a memory, with the last command that wrote it.';

create type @extschema@.written_place as (
    place          text[],
    version        bigint,
    whole_version  bigint
);
comment on type @extschema@.written_place is
    'A place of a memory, with the last command that wrote there, and the last that wrote everything beneath it.';

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
    'An item of a stream: its version and place, its publisher and attempt. The item at place 0 is the end.';

create type @extschema@.large_read as (
    seq    bigint,
    value  jsonb
);
comment on type @extschema@.large_read is
    'The value that a task was told when it read something large, by its position in the journal.';

create type @extschema@.order_key as (
    expression   text,
    kind         text,
    descending   boolean,
    is_optional  boolean
);
comment on type @extschema@.order_key is
    'A key by which find() orders: an expression of a row, the kind it is compared as, and whether it may be missing.';

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
comment on type @extschema@.found_job is 'A memory that find() found; place is where the next page begins.';

create type @extschema@.schema_part as (
    step    text[],
    value   jsonb,
    schema  jsonb
);
comment on type @extschema@.schema_part is
    'A schema inside of a schema: the steps that lead to it, and the part of the value that it applies to, if there is one.';

create type @extschema@.broken_rule as (
    path    text[],
    rule    text,
    found   text,
    wanted  text
);
comment on type @extschema@.broken_rule is
    'The rule of a schema that a value breaks, and where; what was found there and what was wanted, in words.';

create type @extschema@.broken_contract as (
    id       text,
    path     text,
    rule     text,
    message  text
);
comment on type @extschema@.broken_contract is 'A memory that breaks a contract: where, and which rule.';
