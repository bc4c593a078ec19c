-- History: a memory is the sum of its commands. Its document at any version is the nearest snapshot before it, with the
-- commands from there on applied again by the same rule that applied them first.

create function @extschema@.last_overwrite(id text, after bigint, upto bigint) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select max(f.version)
          from journal as f
         where f.job_id = last_overwrite.id
           and f.version > last_overwrite.after
           and f.version <= last_overwrite.upto
           and f.op in ('set', 'delete')
           and f.path = '{}');
end
$$;
comment on function @extschema@.last_overwrite(text, bigint, bigint) is
    'Find the last command in a range of versions that replaced the whole document: what came before it does not matter.';


create function @extschema@.members_written(id text, after bigint, upto bigint) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select f.path[1]
          from journal as f
         where f.job_id = members_written.id
           and f.version > members_written.after
           and f.version <= members_written.upto
           and f.op <> 'log'
           and f.path <> '{}'
         union
        select jsonb_object_keys(f.argument)
          from journal as f
         where f.job_id = members_written.id
           and f.version > members_written.after
           and f.version <= members_written.upto
           and f.op = 'merge'
           and f.path = '{}');
end
$$;
comment on function @extschema@.members_written(text, bigint, bigint) is
    'Return the members of a document that commands in a range of versions wrote in.';


create function @extschema@.reapply_commands(
    document  jsonb,
    id        text,
    after     bigint,
    upto      bigint
) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    made outcome := (reapply_commands.document, null, null)::outcome;
    entry record;
begin
    -- A loop: each command needs the document that the one before it left.
    for entry in
        select f.version, f.op, f.path, f.argument
          from journal as f
         where f.job_id = reapply_commands.id
           and f.version > reapply_commands.after
           and f.version <= reapply_commands.upto
           and f.op <> 'log'
         order by f.version
    loop
        made := apply_command(made.context, entry.op, entry.path, entry.argument);
        if made.failure is not null then
            raise exception 'version % of job % cannot be made again', entry.version, quote_literal(reapply_commands.id)
                using errcode = 'data_corrupted',
                      detail = made.failure ->> 'message',
                      hint = 'Somebody has changed the tables by hand: see assert_histories().';
        end if;
    end loop;
    return made.context;
end
$$;
comment on function @extschema@.reapply_commands(jsonb, text, bigint, bigint) is
    'Apply the commands of a memory after one version up to another, as they were applied first.';


-- Every command copies the document that it is given. So it is given only those members in which commands have written: a
-- hundred commands on a large document then cost little more than one.
create function @extschema@.replay_commands(
    context  jsonb,
    id       text,
    after    bigint,
    upto     bigint
) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    overwrite bigint := last_overwrite(replay_commands.id, replay_commands.after, replay_commands.upto);
    base jsonb := case when overwrite is null then replay_commands.context
                       else reapply_commands('{}', replay_commands.id, overwrite - 1, overwrite) end;
    since bigint := coalesce(overwrite, replay_commands.after);
    names text[] := members_written(replay_commands.id, since, replay_commands.upto);
    members jsonb := (select jsonb_object_agg(name, base -> name) from unnest(names) as name where base ? name);
begin
    if names = '{}' then
        return base;
    end if;
    return (base - names) || reapply_commands(coalesce(members, '{}'), replay_commands.id, since, replay_commands.upto);
end
$$;
comment on function @extschema@.replay_commands(jsonb, text, bigint, bigint) is
    'Return the document of a memory at one version, made from that at an earlier version.';


create function @extschema@.memory_at(id text, version bigint) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    base record := nearest_snapshot(memory_at.id, memory_at.version);
begin
    return replay_commands(base.context, memory_at.id, base.version, memory_at.version);
end
$$;
comment on function @extschema@.memory_at(text, bigint) is 'Return the document of a memory at a version.';


-- Only one index is in the order of paths and versions, and a sort is forbidden. Another plan would read all versions of a
-- memory for a page of one of its logs.
create function @extschema@.log_items(
    id        text,
    path      text[],
    after     bigint,
    upto      bigint,
    max_rows  integer
) returns setof @extschema@.log_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set enable_sort = off
as $$
begin
    perform check_rows(log_items.max_rows);
    return query
    select l.version, l.place::integer, l.item, l.at, l.task
      from (select f.path, f.version, i.place, i.item, f.at, f.task
              from journal as f
             cross join lateral jsonb_array_elements(f.argument) with ordinality as i (item, place)
             where f.job_id = log_items.id
               and f.op = 'log'
               and f.version is not null
               and (f.path, f.version) > (log_items.path, coalesce(log_items.after, 0))
               and (f.path, f.version) <= (log_items.path, log_items.upto)
             order by f.path, f.version
             fetch first coalesce(log_items.max_rows, 2147483647) rows with ties) as l
     order by l.path, l.version, l.place;
end
$$;
comment on function @extschema@.log_items(text, text[], bigint, bigint, integer) is
    'Return the items of a log that were added after one version up to another, in order; a page never splits those of one version.';


create function @extschema@.log_failure(id text, path text[], upto bigint) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    -- Read from its beginning, and no further than needed.
    is_too_large boolean := exists (
        select
          from (select sum(octet_length(f.argument::text)) over (order by f.version rows unbounded preceding) as size
                  from journal as f
                 where f.job_id = log_failure.id
                   and f.op = 'log'
                   and f.path = log_failure.path
                   and f.version <= log_failure.upto) as so_far
         where so_far.size > 8388608);
begin
    return case when is_too_large then make_failure(
        'PD303', 'MemoryTooLarge', format('the log %s is too large to be read as one value', write_path(log_failure.path)),
        'At most 8 MB are read at a time.', 'Read it page by page with entity_items().') end;
end
$$;
comment on function @extschema@.log_failure(text, text[], bigint) is
    'Return that a log is too large to be read as one array (PD303), or null.';


create function @extschema@.log_value(id text, path text[], upto bigint) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select jsonb_agg(i.item order by i.version, i.place)
              from log_items(log_value.id, log_value.path, 0, log_value.upto, null) as i);
end
$$;
comment on function @extschema@.log_value(text, text[], bigint) is
    'Return a log as the array that it stands for, as it was at a version; null if there is none.';


create function @extschema@.value_at(
    id        text,
    document  jsonb,
    path      text[],
    upto      bigint
) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    value jsonb := value_at.document #> value_at.path;
begin
    if value is null then
        perform raise_failure(log_failure(value_at.id, value_at.path, value_at.upto));
        value := log_value(value_at.id, value_at.path, value_at.upto);
    end if;
    return value;
end
$$;
comment on function @extschema@.value_at(text, jsonb, text[], bigint) is
    'Return what is at a path of a document, or in the log of this name at that version; null if nothing is there; PD303 for a log that is too large.';


-- A large value that was read is stored in the journal as the version at which it was read; here it is read again. One
-- pass through the versions serves all of them. No limits are checked: a task is told again what it was told once, even
-- if its own batch made a log longer than can be read as one value.
create function @extschema@.large_reads(
    job       text,
    task      text,
    after     bigint,
    max_rows  integer
) returns setof @extschema@.large_read
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    here bigint;
    document jsonb;
    base record;
    entry record;
begin
    -- A loop: the document at one version is made of that at the version before.
    for entry in
        select f.seq, f.path, (f.argument ->> 'version')::bigint as version
          from (select g.seq, g.op, g.value, g.path, g.argument
                  from journal as g
                 where g.job_id = large_reads.job
                   and g.task = large_reads.task
                   and g.seq > large_reads.after
                 order by g.seq
                 limit large_reads.max_rows) as f
         where f.op = 'get'
           and f.value is null
         order by 3, 1
    loop
        if entry.version is distinct from here then
            base := nearest_snapshot(large_reads.job, entry.version);
            if here is null or base.version > here then
                here := base.version;
                document := base.context;
            end if;
            document := replay_commands(document, large_reads.job, here, entry.version);
            here := entry.version;
        end if;
        return next (entry.seq, coalesce(document #> entry.path, log_value(large_reads.job, entry.path, here), 'null'))::large_read;
    end loop;
end
$$;
comment on function @extschema@.large_reads(text, text, bigint, integer) is
    'Read again what a task has read and the journal holds only by its version. [P4]';
