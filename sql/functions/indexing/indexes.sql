-- Indexes: the verbs. What is wanted is in wanted_indexes; what exists is in the catalogue.

-- One at a time: the limit must be counted, and two builds on one table wait for each other anyway.
create function @extschema@.want_index(entity text, path text[], kind text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    lock table wanted_indexes in share row exclusive mode;
    insert into wanted_indexes (name, entity, path, kind, created_at)
    values (index_name(want_index.entity, want_index.path, want_index.kind), want_index.entity, want_index.path,
            want_index.kind, clock())
        on conflict on constraint one_index_per_path do nothing;
    if (select count(*) from wanted_indexes as w where w.entity = want_index.entity) > 64 then
        raise exception 'entity % has 64 indexes', quote_literal(left(want_index.entity, 200))
            using errcode = 'PD306',
                  detail = 'Every write of a memory writes to all of them.',
                  hint = 'Drop one that is not used: select * from indexes order by scans.';
    end if;
end
$$;
comment on function @extschema@.want_index(text, text[], text) is
    'Record that an index is wanted. Errors: PD306 (more than 64 for one entity).';


create function @extschema@.forget_index(entity text, path text[], kind text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from wanted_indexes as w
     where w.entity = forget_index.entity
       and w.path = forget_index.path
       and w.kind = forget_index.kind;
end
$$;
comment on function @extschema@.forget_index(text, text[], text) is 'Record that an index is no longer wanted.';


create function @extschema@.statements_to_create_index(
    entity  text,
    path    text,
    kind    text  default 'text',
    how     text  default 'concurrently'
) returns setof text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys text[];
begin
    perform check_index(statements_to_create_index.entity, statements_to_create_index.path, statements_to_create_index.kind,
                        statements_to_create_index.how);
    keys := parse_path(statements_to_create_index.path);
    perform want_index(statements_to_create_index.entity, keys, statements_to_create_index.kind);
    return query
    select statement
      from unnest(index_statements(statements_to_create_index.entity, keys, statements_to_create_index.kind,
                                   statements_to_create_index.how)) as statement;
end
$$;
comment on function @extschema@.statements_to_create_index(text, text, text, text) is
    'Record that an index is wanted, and return the statements that create it without blocking writers, to be run one by one (psql: \gexec); none if it is valid or being built. Errors: PD101, PD104, PD107, PD306.';


create function @extschema@.statements_to_drop_index(
    entity  text,
    path    text,
    kind    text  default 'text',
    how     text  default 'concurrently'
) returns setof text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys text[];
begin
    perform check_index(statements_to_drop_index.entity, statements_to_drop_index.path, statements_to_drop_index.kind,
                        statements_to_drop_index.how);
    keys := parse_path(statements_to_drop_index.path);
    perform forget_index(statements_to_drop_index.entity, keys, statements_to_drop_index.kind);
    return query
    select statement
      from unnest(drop_statements(statements_to_drop_index.entity, keys, statements_to_drop_index.kind,
                                  statements_to_drop_index.how)) as statement;
end
$$;
comment on function @extschema@.statements_to_drop_index(text, text, text, text) is
    'Record that an index is no longer wanted, and return the statements that drop it without blocking writers, to be run one by one (psql: \gexec); none if it is missing. Errors: PD101, PD104, PD107.';


create function @extschema@.create_index(entity text, path text, kind text default 'text') returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    statement text;
begin
    -- A loop: these are statements for the catalogue, one after the other.
    for statement in
        select * from statements_to_create_index(create_index.entity, create_index.path, create_index.kind, '')
    loop
        execute statement;
    end loop;
    return index_name(create_index.entity, parse_path(create_index.path), create_index.kind);
end
$$;
comment on function @extschema@.create_index(text, text, text) is
    'Create an index that find() uses, in this transaction; until it ends, nobody else can write jobs. May be repeated. Return its name. Errors: PD101, PD104, PD107, PD306.';


create function @extschema@.drop_index(entity text, path text, kind text default 'text') returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    was_there boolean := false;
    statement text;
begin
    -- A loop: these are statements for the catalogue, one after the other.
    for statement in select * from statements_to_drop_index(drop_index.entity, drop_index.path, drop_index.kind, '') loop
        execute statement;
        was_there := true;
    end loop;
    return was_there;
end
$$;
comment on function @extschema@.drop_index(text, text, text) is
    'Drop an index of create_index(), in this transaction, which locks jobs until it ends; return false if there is none. Errors: PD101, PD104, PD107.';
