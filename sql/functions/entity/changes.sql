-- Changes: every version of a memory, with who made it, when, and by which command.

create function @extschema@.is_same_step(key text, other text) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return key = other or (
        key ~ '^[[:space:]]*[+-]?[0-9]+$'
        and other ~ '^[[:space:]]*[+-]?[0-9]+$'
        and (key ~ '-' or other ~ '-'
             or regexp_replace(key, '^[[:space:]]*[+]?0*(?=[0-9])', '') = regexp_replace(other, '^[[:space:]]*[+]?0*(?=[0-9])', '')));
end
$$;
comment on function @extschema@.is_same_step(text, text) is
    'Tell whether two keys may lead to the same place: 1, +1 and 01 are the same element of an array, and an index from the end may be any.';


create function @extschema@.patch_writes_at(patch jsonb, path text[]) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    here jsonb := patch_writes_at.patch;
    step text;
begin
    foreach step in array patch_writes_at.path loop
        if jsonb_typeof(here) <> 'object' then
            return true;
        end if;
        here := here -> step;
    end loop;
    return here is not null;
end
$$;
comment on function @extschema@.patch_writes_at(jsonb, text[]) is 'Tell whether a patch writes at a path, above it or beneath it.';


create function @extschema@.command_writes_at(
    op        text,
    path      text[],
    argument  jsonb,
    place     text[]
) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    depth integer := least(cardinality(command_writes_at.path), cardinality(command_writes_at.place));
begin
    -- Step by step only if an index may be written in another way: usually the plain comparison decides.
    if command_writes_at.path[:depth] <> command_writes_at.place[:depth] and (
        array_to_string(command_writes_at.path || command_writes_at.place, ' ') !~ '(^| )([[:space:]]|[+-]|0[0-9])'
        or not (select bool_and(is_same_step(command_writes_at.path[step], command_writes_at.place[step])) from generate_series(1, depth) as step)) then
        return false;
    end if;
    return command_writes_at.op <> 'merge' or patch_writes_at(command_writes_at.argument, command_writes_at.place[cardinality(command_writes_at.path) + 1:]);
end
$$;
comment on function @extschema@.command_writes_at(text, text[], jsonb, text[]) is
    'Tell whether a command wrote at a path of a memory, above it or beneath it.';


create function @extschema@.entity_history(
    id        text,
    path      text     default '',
    after     bigint   default 0,
    max_rows  integer  default 1000
) returns setof @extschema@.change
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    place text[];
begin
    perform read_job(entity_history.id);
    place := parse_path(entity_history.path);
    perform check_rows(entity_history.max_rows);
    return query
    select f.version, f.at, f.task, f.op, case when f.path <> '{}' then write_path(f.path) else '' end, f.argument, f.value,
           f.key
      from journal as f
     where f.job_id = entity_history.id
       and f.version > coalesce(entity_history.after, 0)
       and (place = '{}' or command_writes_at(f.op, f.path, f.argument, place))
     order by f.version
     limit entity_history.max_rows;
end
$$;
comment on function @extschema@.entity_history(text, text, bigint, integer) is
    'Return the changes of a memory, or of what is at a path, after a version: who made them, when, and by which command. For the next page, give the last version. Errors: PD101, PD107, PD401.';


create function @extschema@.leaves(value jsonb, place text[]) returns setof text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if jsonb_typeof(leaves.value) = 'object' and leaves.value <> '{}' then
        return query
        select l.leaf
          from jsonb_each(leaves.value) as member
         cross join lateral leaves(member.value, leaves.place || member.key) as l (leaf);
    elsif leaves.value is not null then
        return next leaves.place;
    end if;
end
$$;
comment on function @extschema@.leaves(jsonb, text[]) is
    'Return the places of a value that hold something: all but objects with members. An array is one place.';


create function @extschema@.place_of(document jsonb, leaf text[]) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return leaf[:coalesce((
        select min(depth)
          from generate_series(0, cardinality(leaf) - 1) as depth
         where jsonb_typeof(place_of.document #> leaf[:depth]) = 'array'), cardinality(leaf))];
end
$$;
comment on function @extschema@.place_of(jsonb, text[]) is
    'Return the place that a leaf belongs to: itself, or the array that it is in, since elements move.';


-- Where commands wrote: at their path, and a merge at each leaf of its patch. An empty object in a patch writes only at
-- its own place. A log writes nothing into the document, and neither does set_if_not_exists if there was a value.
create function @extschema@.written_places(id text) returns setof @extschema@.written_place
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select w.place, max(w.version), max(w.version) filter (where w.is_whole)
      from (select f.path as place, f.version, true as is_whole
              from journal as f
             where f.job_id = written_places.id
               and f.version is not null
               and f.op not in ('log', 'merge')
               and (f.op = 'set_if_not_exists' and f.value <> f.argument) is not true
             union all
            select f.path || l.leaf, f.version, f.argument #> l.leaf <> '{}'
              from journal as f
             cross join lateral leaves(f.argument, '{}') as l (leaf)
             where f.job_id = written_places.id
               and f.version is not null
               and f.op = 'merge') as w
     group by w.place;
end
$$;
comment on function @extschema@.written_places(text) is
    'Return where the commands of a memory have written: each place with its last version, and the last that wrote everything beneath it.';


create function @extschema@.authors(
    id        text,
    document  jsonb,
    keys      text[]
) returns setof @extschema@.author
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    with written as materialized (
        select w.place, w.version, w.whole_version from written_places(authors.id) as w
    ), beneath as materialized (
        select w.place[:depth] as place, max(w.version) as version
          from written as w
         cross join lateral generate_series(0, cardinality(w.place)) as depth
         group by 1
    ), present as materialized (
        select l.leaf, place_of(authors.document, l.leaf) as place
          from leaves(authors.document #> authors.keys, authors.keys) as l (leaf)
    )
    select s.leaf, greatest(max(w.whole_version), max(u.version))
      from present as s
     cross join lateral generate_series(0, cardinality(s.place)) as depth
      left join written as w on w.place = s.place[:depth]
      left join beneath as u on u.place = s.place and depth = 0
     group by s.leaf;
end
$$;
comment on function @extschema@.authors(text, jsonb, text[]) is
    'Find the version that wrote last at each leaf of a document: at its place, above it, or beneath it.';


create function @extschema@.entity_blame(id text, path text default '') returns setof @extschema@.authorship
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := read_job(entity_blame.id);
    document jsonb := it.context #> '{}';  -- unpacked, once
begin
    return query
    select case when a.leaf <> '{}' then write_path(a.leaf) else '' end, document #> a.leaf, f.version, f.at, f.task, f.op
      from authors(it.id, document, parse_path(entity_blame.path)) as a
      join journal as f on f.job_id = it.id and f.version = a.version
     order by a.leaf;
end
$$;
comment on function @extschema@.entity_blame(text, text) is
    'Return who wrote each value in a memory, or beneath a path, with the last command, task, time and version. Values in an array have the author of the array. Errors: PD401.';
