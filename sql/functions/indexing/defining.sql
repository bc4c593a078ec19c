-- Defining: what an index on a path of the memories of an entity is, and whether the catalogue has it. Law: a statement
-- is made of words of our own and of quoted names and literals; its name is a hash, which is never cut.

-- Whether pgvector is installed is not checked here, so that its indexes can be dropped from the list after pgvector was
-- dropped.
create function @extschema@.check_kind(kind text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if (check_kind.kind ~ '^(text|number|boolean|time|contains|search([(][a-z_]+[)])?|vector[(][1-9][0-9]{0,3}[)])$'
        and check_kind.kind <> 'search(english)') is not true then
        perform refuse_argument(
            format('there is no index of kind %s', coalesce(quote_literal(left(check_kind.kind, 40)), 'null')),
            'Kinds are text, number, boolean, time, contains, search, which is in English, search(german) and so on, and vector(1536) and so on.',
            'Use the type of the value, contains for arrays and objects, or search for words in texts.');
    end if;
    if check_kind.kind like 'search%' then
        perform check_language(kind_argument(check_kind.kind));
    elsif check_kind.kind like 'vector%' then
        if kind_argument(check_kind.kind)::integer > 2000 then
            perform refuse_argument('the vectors of an index have at most 2000 dimensions',
                                    format('These have %s.', kind_argument(check_kind.kind)),
                                    'Use shorter vectors: most models can shorten theirs.');
        end if;
    end if;
end
$$;
comment on function @extschema@.check_kind(text) is
    'Refuse an unknown kind of index, or a kind that this server does not have (PD107).';


create function @extschema@.check_index(entity text, path text, kind text, how text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_name(check_index.entity, 'an entity');
    perform check_kind(check_index.kind);
    if (check_index.how in ('', 'concurrently')) is not true then
        perform refuse_argument('how must be concurrently, or empty', format('This is %s.', quote_nullable(left(check_index.how, 40))),
                                'Give how => ''concurrently'', or an empty text for statements in a transaction.');
    end if;
    if octet_length(check_index.path) > 1000 then
        perform raise_failure(make_failure(
            'PD101', 'InvalidPath', 'the path of an index is too long',
            format('It has %s bytes; at most 1000 are allowed.', octet_length(check_index.path)),
            'Index a shorter path above it with the kind contains, or give the keys shorter names.'));
    end if;
    if parse_path(check_index.path) = '{}' and check_index.kind <> 'contains' and check_index.kind not like 'search%' then
        perform refuse_argument(
            format('the whole memory is not a %s', check_index.kind), 'An empty path is the whole memory.',
            'Name a path in it, or use the kind contains or search.');
    end if;
end
$$;
comment on function @extschema@.check_index(text, text, text, text) is
    'Refuse an index with an invalid entity (PD104), path (PD101) or kind (PD107).';


create function @extschema@.index_name(entity text, path text[], kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    what text := jsonb_build_array(index_name.entity, index_name.path, index_name.kind)::text;
begin
    return 'memory_' || left(encode(sha256(convert_to(what, 'UTF8')), 'hex'), 20);
end
$$;
comment on function @extschema@.index_name(text, text[], text) is
    'Return the name of an index in the catalogue: a hash of its definition.';


create function @extschema@.index_state(name text) returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    state text;
begin
    -- The owner may not see which index a member of its role builds: only that it builds one, and which table it has locked.
    select case when i.indisvalid then 'valid'
                when exists (
                    select
                      from pg_stat_progress_create_index as p
                     where p.index_relid = c.oid
                        or (p.index_relid is null
                            and exists (
                                select
                                  from pg_locks as l
                                  join pg_database as d on d.oid = l.database
                                 where l.pid = p.pid
                                   and l.relation = i.indrelid
                                   and l.mode = 'ShareUpdateExclusiveLock'
                                   and d.datname = current_database()))) then 'building'
                else 'invalid' end
      into state
      from pg_class as c
      join pg_index as i on i.indexrelid = c.oid
     where c.relname = index_state.name
       and c.relnamespace = '@extschema@'::regnamespace;
    return coalesce(state, 'missing');
end
$$;
comment on function @extschema@.index_state(text) is
    'Return whether an index is valid, building, invalid (a build was interrupted) or missing, by its name.';


-- A session that waits for the table may be the one that a build waits for. When the server breaks that deadlock, the
-- build is lost. Autovacuum gives way to a build by itself. Whether a process is autovacuum is shown to few roles, but
-- every role sees that it has no user.
create function @extschema@.index_work_is_running() returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from pg_locks as l
          join pg_database as d on d.oid = l.database
          left join pg_stat_activity as a on l.pid = a.pid
         where l.relation = '@extschema@.jobs'::regclass
           and l.mode = 'ShareUpdateExclusiveLock'
           and l.pid <> pg_backend_pid()
           and (a.pid is null or a.usesysid is not null)
           and d.datname = current_database());
end
$$;
comment on function @extschema@.index_work_is_running() is
    'Tell whether another session builds, drops or analyzes indexes on jobs. A client that builds concurrently waits until that is done.';


create function @extschema@.index_definition(entity text, path text[], kind text) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    family constant text := split_part(index_definition.kind, '(', 1);
    dimensions constant text := case family when 'vector' then kind_argument(index_definition.kind) end;
begin
    return format(
        'if not exists %I on %s.jobs using %s where entity = %L',
        index_name(index_definition.entity, index_definition.path, index_definition.kind),
        '@extschema@',
        case family
            when 'contains' then format('gin (%s jsonb_path_ops)', extraction(index_definition.path, 'value'))
            when 'search' then format('gin (%s)', extraction(index_definition.path, index_definition.kind))
            when 'vector' then format('hnsw (%s %s.vector_cosine_ops)', vector_expression(index_definition.path, dimensions),
                                      vector_schema())
            else format('btree ((%s), id)', extraction(index_definition.path, family))
        end,
        index_definition.entity);
end
$$;
comment on function @extschema@.index_definition(text, text[], text) is
    'Write the definition of an index: partial, for one entity; of a value and the id, of all that is in a value (contains), of the words in its texts (search), or of a vector.';


-- Beside the index, statistics on its expression are created: the planner uses none from a partial index, and would
-- guess. For words and vectors they are not needed, and ANALYZE would take minutes to read them for thousands of rows, so
-- their target is 0.
create function @extschema@.index_statements(entity text, path text[], kind text, how text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    name text := index_name(index_statements.entity, index_statements.path, index_statements.kind);
    state text := index_state(name);
    is_like constant boolean := index_statements.kind ~ '^(search|vector)';
begin
    if state in ('valid', 'building') then
        return '{}'::text[];
    end if;
    return array_remove(array[
        case state when 'invalid' then format('drop index %s %s.%I', index_statements.how, '@extschema@', name) end,
        case when not is_like then
            format('create statistics if not exists %s.%I on (%s) from %1$s.jobs', '@extschema@', name,
                   extraction(index_statements.path, index_statements.kind)) end,
        format('create index %s %s', index_statements.how,
               index_definition(index_statements.entity, index_statements.path, index_statements.kind)),
        case when is_like then format('alter index %s.%I alter column 1 set statistics 0', '@extschema@', name) end,
        format('comment on index %s.%I is %L', '@extschema@', name,
               format('Finds %s by %s (%s).', index_statements.entity, write_path(index_statements.path), index_statements.kind)),
        format('analyze %s.jobs', '@extschema@')], null);
end
$$;
comment on function @extschema@.index_statements(text, text[], text, text) is
    'Return the statements that are still needed to create an index; none if it is valid or being built.';


create function @extschema@.drop_statements(entity text, path text[], kind text, how text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    name text := index_name(drop_statements.entity, drop_statements.path, drop_statements.kind);
begin
    return array_remove(array[
        case when index_state(name) <> 'missing' then
            format('drop index %s if exists %s.%I', drop_statements.how, '@extschema@', name) end,
        case when exists (
            select
              from pg_statistic_ext as s
             where s.stxname = name
               and s.stxnamespace = '@extschema@'::regnamespace) then
            format('drop statistics if exists %s.%I', '@extschema@', name) end], null);
end
$$;
comment on function @extschema@.drop_statements(text, text[], text, text) is
    'Return the statements that drop an index and its statistics; none if they are missing.';
