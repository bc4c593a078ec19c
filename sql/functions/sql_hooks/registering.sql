-- Hooks in SQL: functions of the database that run as hooks. They run with the rights of the owner of the app.

-- Asked when a hook is registered, and again at each call: the function may have been dropped since, and another one of
-- its name created by whoever may create objects in its schema. A temporary schema is used by one session after another.
create function @extschema@.function_owner_failure(schema text, function text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument',
                   format('function %I.%I cannot be a hook of this app', function_owner_failure.schema, function_owner_failure.function),
                   format('It would run with the rights of role %s, and belongs to role %s, who can replace it.',
                          own.proowner::regrole, p.proowner::regrole),
                   format('Alter it, so that its owner is %s.', own.proowner::regrole))
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         cross join (select m.proowner from pg_proc as m where m.oid = '@extschema@.missing_parts()'::regprocedure) as own
         where n.nspname = function_owner_failure.schema
           and p.proname = function_owner_failure.function
           and p.proargtypes = '25 3802'
           and not pg_has_role(p.proowner, own.proowner, 'member'));
end
$$;
comment on function @extschema@.function_owner_failure(text, text) is
    'Return that a function may not be a hook (PD107), since it belongs neither to the owner of the app, nor to a member of that role or a superuser; or null.';


create function @extschema@.register_sql_hook(
    name      text,
    function  regproc,
    attempts  integer   default 1,
    retry_in  interval  default '1 s',
    timeout   interval  default null,
    within    interval  default null
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    known text[] := (
        select array[n.nspname, p.proname]::text[]
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         where p.oid = register_sql_hook.function
           and p.proargtypes = '25 3802'
           and p.prorettype in ('jsonb'::regtype, 'void'::regtype)
           and p.prokind = 'f'
           and not p.proretset);
begin
    perform check_name(register_sql_hook.name, 'a hook');
    if register_sql_hook.function is null then
        raise exception 'there is no function for the hook %', quote_literal(register_sql_hook.name)
            using errcode = 'PD107',
                  detail = 'No function has the given name, or more than one has.',
                  hint = 'Create it first, and name it with its schema, as in public.recount.';
    end if;
    if known is null or left(register_sql_hook.name, 1) = '$' then
        raise exception 'function % cannot be the hook %', register_sql_hook.function, quote_literal(register_sql_hook.name)
            using errcode = 'PD107',
                  detail = 'A hook in SQL is a function (text, jsonb) that returns jsonb or void; its name does not begin with $.',
                  hint = 'Write a function of the id of the job and the arguments of the hook.';
    end if;
    if (register_sql_hook.attempts > 0
        and register_sql_hook.retry_in between interval '1 microsecond' and interval '1000 years') is not true then
        raise exception 'the hook % cannot be tried % times with a pause of %', quote_literal(register_sql_hook.name),
              coalesce(register_sql_hook.attempts::text, 'null'), coalesce(register_sql_hook.retry_in::text, 'null')
            using errcode = 'PD107',
                  detail = 'It must run at least once, and a pause must be between a microsecond and a thousand years.',
                  hint = 'Give attempts that are greater than zero, and another retry_in.';
    end if;
    perform raise_failure(coalesce(timeout_failure(register_sql_hook.timeout), timeout_failure(register_sql_hook.within),
                                   function_owner_failure(known[1], known[2])));
    insert into sql_hooks (name, schema, function, attempts, retry_in, timeout, within)
    values (register_sql_hook.name, known[1], known[2], register_sql_hook.attempts, register_sql_hook.retry_in,
            register_sql_hook.timeout, register_sql_hook.within)
        on conflict on constraint one_row_per_sql_hook
        do update set schema = excluded.schema, function = excluded.function, attempts = excluded.attempts,
                      retry_in = excluded.retry_in, timeout = excluded.timeout, within = excluded.within;
end
$$;
comment on function @extschema@.register_sql_hook(text, regproc, integer, interval, interval, interval) is
    'Register a function (job text, args jsonb) returns jsonb as a hook. If it fails, it runs up to attempts times; timeout limits each attempt, within all of them from the first on. Errors: PD104, PD107.';


create function @extschema@.drop_sql_hook(name text) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from sql_hooks as h where h.name = drop_sql_hook.name;
    return found;
end
$$;
comment on function @extschema@.drop_sql_hook(text) is
    'Unregister a hook in SQL; return false if there was none. Requests for it fail from now on.';


create function @extschema@.sql_hook_timeout(name text) returns interval
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select h.timeout from sql_hooks as h where h.name = sql_hook_timeout.name);
end
$$;
comment on function @extschema@.sql_hook_timeout(text) is
    'Return how long an attempt of a hook in SQL may take; null if there is no limit, or no such hook.';
