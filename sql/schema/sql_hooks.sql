-- Hooks that are functions of the database.

create table @extschema@.sql_hooks (
    name       text collate "C"  not null,
    schema     text              not null,
    function   text              not null,
    attempts   integer           not null default 1,
    retry_in   interval          not null default '1 s',
    timeout    interval,
    within     interval,

    constraint one_row_per_sql_hook primary key (name),
    constraint attempts_are_positive check (attempts > 0),
    constraint retry_is_later check (retry_in > '0 s'),
    constraint limits_let_it_begin check (timeout > '0 s' and within > '0 s')
);
comment on table @extschema@.sql_hooks is 'The function of the database behind each hook in SQL.';
comment on column @extschema@.sql_hooks.name is 'The name of the hook.';
comment on column @extschema@.sql_hooks.schema is 'The schema of its function.';
comment on column @extschema@.sql_hooks.function is
    'The name of its function, which takes the id of a job and the arguments of the hook and returns the answer.';
comment on column @extschema@.sql_hooks.attempts is 'How often it may run if it fails, the first attempt included.';
comment on column @extschema@.sql_hooks.retry_in is
    'The pause before the second attempt; each further pause is twice as long.';
comment on column @extschema@.sql_hooks.timeout is
    'How long an attempt may take before it is undone and has failed; null for no limit.';
comment on column @extschema@.sql_hooks.within is
    'How long all attempts may take, from the first on; null for no limit.';
