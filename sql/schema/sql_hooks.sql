-- Hooks that are functions of the database.

create table @extschema@.sql_hooks (
    name       text      not null,
    schema     text      not null,
    function   text      not null,
    attempts   integer   not null default 1,
    retry_in   interval  not null default '1 s',
    timeout    interval,
    within     interval,

    constraint one_row_per_sql_hook primary key (name),
    constraint attempts_are_positive check (attempts > 0),
    constraint retry_is_later check (retry_in > '0 s'),
    constraint limits_let_it_begin check (timeout > '0 s' and within > '0 s')
);
comment on table @extschema@.sql_hooks is 'Which function of the database each hook in SQL is.';
comment on column @extschema@.sql_hooks.name is 'The name of the hook.';
comment on column @extschema@.sql_hooks.schema is 'Where its function is.';
comment on column @extschema@.sql_hooks.function is 'The name of a function of the id of a job and of the hook''s arguments; it returns the hook''s answer.';
comment on column @extschema@.sql_hooks.attempts is 'How often it may run in all, when it fails.';
comment on column @extschema@.sql_hooks.retry_in is 'The pause before the second attempt; each further one takes twice as long.';
comment on column @extschema@.sql_hooks.timeout is 'How long an attempt may take, else it is undone and has failed; null for any time.';
comment on column @extschema@.sql_hooks.within is 'In which time, from the first attempt on, it has to be done; null for any.';
