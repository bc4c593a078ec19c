-- The past: what a memory was at any moment, how it differs from now, and how to restore it.

create function @extschema@.check_moment(it @extschema@.memory, version bigint, at timestamptz) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if num_nulls(check_moment.version, check_moment.at) <> 1 then
        raise exception 'the past is read at a version or at a time'
            using errcode = 'PD107',
                  detail = 'Both or neither were given.',
                  hint = 'Write version => 12, or at => ''2030-01-01''.';
    end if;
    if check_moment.version < 0 or check_moment.version > it.version then
        raise exception 'job % has no version %', quote_literal(it.id), check_moment.version
            using errcode = 'PD404',
                  detail = format('It has versions 0 (empty) to %s.', it.version),
                  hint = 'Look for the version in entity_history().';
    end if;
end
$$;
comment on function @extschema@.check_moment(@extschema@.memory, bigint, timestamptz) is
    'Refuse a missing or ambiguous moment (PD107), and a version that a memory never had (PD404).';


-- The commands of a task have the time of the task, which may be earlier than what a client has written meanwhile. The
-- memory at a time is the one before the first command with a later time, so that nothing later is shown. Clients write
-- one after the other by the clock of the server: nothing before the last of their commands by then is later, so the
-- search begins there.
create function @extschema@.version_at(id text, at timestamptz) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    known bigint := (select f.version
                       from journal as f
                      where f.job_id = version_at.id
                        and f.task = '$outside'
                        and f.version is not null
                        and f.at <= version_at.at
                      order by f.seq desc
                      limit 1);
begin
    return coalesce(
        (select f.version - 1
           from journal as f
          where f.job_id = version_at.id
            and f.version > coalesce(known, 0)
            and f.at > version_at.at
          order by f.version
          limit 1),
        (select j.version from jobs as j where j.id = version_at.id));
end
$$;
comment on function @extschema@.version_at(text, timestamptz) is
    'Return which version a memory had at a time: the one before the first that was made later.';


create function @extschema@.entity_at(
    id       text,
    version  bigint       default null,
    at       timestamptz  default null,
    path     text         default ''
) returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := read_job(entity_at.id);
    keys text[] := parse_path(entity_at.path);
    wanted bigint;
begin
    perform check_moment(it, entity_at.version, entity_at.at);
    wanted := coalesce(entity_at.version, version_at(it.id, entity_at.at));
    return value_at(it.id, memory_at(it.id, wanted), keys, wanted);
end
$$;
comment on function @extschema@.entity_at(text, bigint, timestamptz, text) is
    'Return a memory, or its value at a path, as it was at a version or at a time; null if nothing was there. Errors: PD101, PD107 (give a version or a time), PD303 (a log too large for one value), PD401, PD404 (no such version).';


create function @extschema@.differences(old jsonb, new jsonb, place text[]) returns setof @extschema@.difference
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    steps text[];
begin
    if differences.old = differences.new then
        return;
    end if;
    if jsonb_typeof(differences.old) = 'object' and jsonb_typeof(differences.new) = 'object' then
        steps := array(select jsonb_object_keys(differences.old || differences.new));
    elsif jsonb_typeof(differences.old) = 'array' and jsonb_typeof(differences.new) = 'array' then
        steps := array(select generate_series(0, greatest(jsonb_array_length(differences.old),
                                                          jsonb_array_length(differences.new)) - 1));
    else
        return next (write_path(differences.place),
                     case when differences.old is null then 'added' when differences.new is null then 'removed' else 'changed' end,
                     differences.old, differences.new)::difference;
        return;
    end if;
    return query
    select d.*
      from unnest(steps) as step
     cross join lateral (select differences.old #> array[step] as old, differences.new #> array[step] as new offset 0) as s
     cross join lateral differences(s.old, s.new, differences.place || step) as d
     where s.old is distinct from s.new;
end
$$;
comment on function @extschema@.differences(jsonb, jsonb, text[]) is
    'Find the places in which two values differ: objects key by key, arrays element by element.';


create function @extschema@.entity_diff(
    id          text,
    version     bigint,
    to_version  bigint default null
) returns setof @extschema@.difference
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := read_job(entity_diff.id);
begin
    perform check_moment(it, entity_diff.version, null);
    perform check_moment(it, coalesce(entity_diff.to_version, it.version), null);
    return query
    select d.*
      from differences(memory_at(it.id, entity_diff.version),
                       case when entity_diff.to_version is null then it.context #> '{}' else memory_at(it.id, entity_diff.to_version) end,
                       '{}') as d;
end
$$;
comment on function @extschema@.entity_diff(text, bigint, bigint) is
    'Return the places in which a memory differs between two versions, or between a version and now. Errors: PD401, PD404.';


create function @extschema@.entity_restore(
    id                text,
    version           bigint,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    -- Locked first: an id that is forgotten and taken again meanwhile has another past.
    perform check_moment(lock_job(entity_restore.id), entity_restore.version, null);
    return run_command(entity_restore.id, 'set', '{}', memory_at(entity_restore.id, entity_restore.version),
                       entity_restore.expected_version, entity_restore.key, is_known => true);
end
$$;
comment on function @extschema@.entity_restore(text, bigint, bigint, text) is
    'Make a memory again what it was at a version, as a new version; return the new version. Logs stay as they are. Errors: PD105, PD106, PD107, PD109 (a contract was defined since), PD401, PD404.';
