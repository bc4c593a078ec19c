-- Finding: memories of one entity, by conditions, in an order, a page at a time. The statement is composed from what is
-- asked and planned with the values known: only then it can use the partial indexes of create_index().

create function @extschema@.part_text(
    condition  text,
    keys       @extschema@.order_key[],
    ordered    @extschema@.order_key[],
    max_rows   text
) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format(
        E'select id, entity, status::text, version::bigint, context::jsonb, created_at, updated_at, %s\n'
        '  from %s.jobs\n where %s\n order by %s\n limit %s',
        (select string_agg(format('%s as key_%s', key.expression, key.ordinality), ', ' order by key.ordinality)
           from unnest(part_text.keys) with ordinality as key),
        '@extschema@', part_text.condition, order_clause(part_text.ordered), part_text.max_rows);
end
$$;
comment on function @extschema@.part_text(text, @extschema@.order_key[], @extschema@.order_key[], text) is
    'Write the statement that selects one part of what is found, with the keys of its order.';


-- Rows with the first key and rows without it are two parts: each is one range of an index, in either direction.
create function @extschema@.parts_text(
    condition  text,
    keys       @extschema@.order_key[],
    place      jsonb,
    max_rows   integer
) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    all_present constant boolean := not (parts_text.keys[1]).is_optional;
    first constant text := (parts_text.keys[1]).expression;
    here text := parts_text.condition || case when all_present then '' else format(' and %s is not null', first) end;
    absent text := format('%s and %s is null', parts_text.condition, first);
begin
    if not all_present and parts_text.place -> 0 = '[]' then
        absent := format('%s and %s', absent, place_condition(parts_text.keys[2:], parts_text.place - 0));
        return part_text(absent, parts_text.keys, parts_text.keys[2:], parts_text.max_rows::text);
    end if;
    if parts_text.place is not null then
        here := format('%s and %s', here, place_condition(present_keys(parts_text.keys), parts_text.place));
    end if;
    here := part_text(here, parts_text.keys, present_keys(parts_text.keys), parts_text.max_rows::text);
    if all_present then
        return here;
    end if;
    return format(
        E'with present as materialized (\n%s\n),\nabsent as (\n%s\n)\nselect * from present union all select * from absent', here,
        part_text(absent, parts_text.keys, parts_text.keys[2:],
                  format('%s - (select count(*) from present)', parts_text.max_rows)));
end
$$;
comment on function @extschema@.parts_text(text, @extschema@.order_key[], jsonb, integer) is
    'Write the statement that selects what is found: first the rows that have the first key of the order, then, if there is room, the others.';


create function @extschema@.find_query(
    entity      text,
    conditions  jsonb    default '{}',
    order_by    jsonb    default '[]',
    max_rows    integer  default 100,
    after       jsonb    default null
) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys order_key[];
begin
    perform check_name(find_query.entity, 'an entity');
    perform check_conditions(find_query.conditions);
    perform check_rows(find_query.max_rows);
    if find_query.max_rows > 1000 then
        perform refuse_argument('find() returns at most 1000 rows', format('It was asked for %s.', find_query.max_rows),
                                'Ask for the next page with the place of the last row: after => place.');
    end if;
    keys := order_keys(find_query.order_by);
    perform check_place(keys, find_query.after);
    return format(
        E'select id, entity, status::text, version::bigint, context::jsonb, created_at, updated_at,\n       %s as place\n  from (\n%s\n) as found\n order by %s',
        place_expression(keys),
        parts_text(format('entity = %L and %s%s', find_query.entity, where_clause(find_query.conditions), has_distances(keys)), keys,
                   find_query.after, coalesce(find_query.max_rows, 1000)),
        order_clause(output_keys(keys)));
end
$$;
comment on function @extschema@.find_query(text, jsonb, jsonb, integer, jsonb) is
    'Return the statement that find() runs for the same arguments, for EXPLAIN. Errors: those of find().';


-- A scan of a vector index stops at forty rows, wherever the page ends, unless a setting lets it continue. A function
-- cannot have that setting itself: while pgvector is not loaded, only a superuser could create such a function.
create function @extschema@.set_vector_scans(mode text) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    before constant text := current_setting('hnsw.iterative_scan', true);
begin
    perform set_config('hnsw.iterative_scan', coalesce(nullif(set_vector_scans.mode, ''), 'off'), true);
    return before;
end
$$;
comment on function @extschema@.set_vector_scans(text) is
    'Set whether scans of vectors continue until a page is full (strict_order, relaxed_order or off), in this transaction; return the setting before.';


-- JIT compilation takes longer than reading the page. A place has all digits of a distance, however few the session
-- writes: from a rounded one, the next page would begin elsewhere.
create function @extschema@.find(
    entity      text,
    conditions  jsonb    default '{}',
    order_by    jsonb    default '[]',
    max_rows    integer  default 100,
    after       jsonb    default null
) returns setof @extschema@.found_job
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set jit = off
set extra_float_digits = 1
as $$
declare
    has_vectors constant boolean := find.order_by @> '[{"near": []}]';
    before text;
begin
    if has_vectors then
        before := set_vector_scans('strict_order');
    end if;
    return query execute find_query(find.entity, find.conditions, find.order_by, find.max_rows, find.after);
    if has_vectors then
        perform set_vector_scans(before);
    end if;
end
$$;
comment on function @extschema@.find(text, jsonb, jsonb, integer, jsonb) is
    'Find the memories of an entity that meet conditions, in an order. For the next page, give the place of the last row. Errors: PD101 (a path), PD104 (a name), PD107 (anything else).';


create function @extschema@.count_found(entity text, conditions jsonb default '{}') returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set jit = off
as $$
declare
    counted bigint;
begin
    perform check_name(count_found.entity, 'an entity');
    perform check_conditions(count_found.conditions);
    execute format('select count(*) from %s.jobs where entity = %L and %s', '@extschema@', count_found.entity,
                   where_clause(count_found.conditions)) into counted;
    return counted;
end
$$;
comment on function @extschema@.count_found(text, jsonb) is
    'Count the memories of an entity that meet conditions. Errors: PD101, PD104, PD107.';


-- A verb on many jobs adds conditions of its own, which do not count for the limits on what a caller may ask.
create function @extschema@.find_running(
    entity      text,
    conditions  jsonb,
    after       text,
    upto        text,
    max_rows    integer
) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set jit = off
as $$
declare
    between_ids jsonb := jsonb_strip_nulls(jsonb_build_object('$gt', find_running.after, '$lte', find_running.upto));
    running_ids text[];
begin
    perform find_query(find_running.entity, find_running.conditions, '["$id"]', find_running.max_rows);
    execute format('select array(select f.id from (%s) as f)', parts_text(
        format('entity = %L and %s and %s', find_running.entity, where_clause(find_running.conditions),
               where_clause(jsonb_build_object('$status', 'running', '$id', between_ids))),
        order_keys('["$id"]'), null, coalesce(find_running.max_rows, 1000))) into running_ids;
    return running_ids;
end
$$;
comment on function @extschema@.find_running(text, jsonb, text, text, integer) is
    'Find the running jobs of an entity that meet conditions, in order of id, after an id or between two. Errors: those of find().';
