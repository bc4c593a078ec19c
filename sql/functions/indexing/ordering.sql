-- Ordering: by what the rows of find() are sorted, and where the next page begins. Law: the order is total: rows without
-- a key come last, and the id breaks ties, in the direction of the last key.

create function @extschema@.check_order_key(item jsonb) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if (case jsonb_typeof(check_order_key.item)
            when 'string' then check_order_key.item #>> '{}' !~* '[[:space:]](asc|desc)$'  -- a direction as in SQL, not a key
            when 'object' then jsonb_typeof(check_order_key.item -> 'path') = 'string'
                               and (check_order_key.item - '{path,search}'::text[] = '{}'
                                    or check_order_key.item - '{path,near}'::text[] = '{}'
                                    or check_order_key.item - '{path,as,descending}'::text[] = '{}')
                               and coalesce(check_order_key.item ->> 'as', 'text') in ('text', 'number', 'boolean', 'time')
                               and coalesce(jsonb_typeof(check_order_key.item -> 'descending'), 'boolean') = 'boolean'
        end) is not true then
        perform refuse_argument(
            format('it is not possible to order by %s', case jsonb_typeof(check_order_key.item)
                       when 'string' then left(check_order_key.item::text, 100)
                       else type_found(check_order_key.item) end),
            'It is a path, a path with - before it, or an object: path, as (text, number, boolean or time) and descending; path and search; or path and near.',
            'Write "user.name", "-$created_at", {"path": "score", "as": "number", "descending": true} or {"path": "notes", "search": "solar"}.');
    end if;
end
$$;
comment on function @extschema@.check_order_key(jsonb) is 'Refuse what nothing can be ordered by (PD107).';


create function @extschema@.order_key_of(item jsonb) returns @extschema@.order_key
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written text := coalesce(order_key_of.item ->> 'path', order_key_of.item #>> '{}');
    is_short constant boolean := jsonb_typeof(order_key_of.item) = 'string';
    kind text := order_key_of.item ->> 'as';
    descending boolean := coalesce((order_key_of.item -> 'descending')::boolean, false);
begin
    if order_key_of.item ? 'search' then
        return row(rank(written, order_key_of.item -> 'search'), 'rank', true, false)::order_key;
    end if;
    if order_key_of.item ? 'near' then
        return row(distance(written, order_key_of.item -> 'near'), 'distance', false, false)::order_key;
    end if;
    if is_short and left(written, 1) = '-' then
        written := substr(written, 2);
        descending := true;
    end if;
    kind := coalesce(kind, case when is_column(written) then column_kind(written) else 'value' end);
    return row(path_expression(written, kind), kind, descending,
               written not in ('$id', '$version', '$created_at', '$updated_at'))::order_key;
end
$$;
comment on function @extschema@.order_key_of(jsonb) is
    'Read one key to order by: the best answer to a search first, or the nearest vector first. Errors: PD101 (no path), PD107 (a column as another kind, or a key that is not understood).';


create function @extschema@.order_keys(order_by jsonb) returns @extschema@.order_key[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys order_key[];
    descending boolean;
begin
    if jsonb_typeof(order_keys.order_by) is distinct from 'array' or jsonb_array_length(order_keys.order_by) > 8 then
        perform refuse_argument('an order is an array of at most 8 paths', format('This is %s.', type_found(order_keys.order_by)),
                                'Write ["status", "-$created_at"].');
    end if;
    perform check_order_key(item) from jsonb_array_elements(order_keys.order_by) as item;
    keys := array(select order_key_of(each.item)
                    from jsonb_array_elements(order_keys.order_by) with ordinality as each (item, number)
                   order by each.number);
    descending := coalesce((keys[cardinality(keys)]).descending, false);
    return keys || row(path_expression('$id', 'text'), 'text', descending, false)::order_key;
end
$$;
comment on function @extschema@.order_keys(jsonb) is
    'Read the keys to order by, with the id at the end. Errors: PD107 (no array of at most 8 paths).';


create function @extschema@.has_distances(keys @extschema@.order_key[]) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        (select string_agg(format(' and %s < ''Infinity''', key.expression), '' order by key.ordinality)
           from unnest(has_distances.keys) with ordinality as key
          where key.kind = 'distance'), '');
end
$$;
comment on function @extschema@.has_distances(@extschema@.order_key[]) is
    'Write the condition that every distance in an order is a number: there is none from a missing vector, and none from a vector of zeros.';


create function @extschema@.order_clause(keys @extschema@.order_key[]) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select string_agg(key.expression || case when not key.descending then ''
                                                 when key.is_optional then ' desc nulls last'
                                                 else ' desc' end, ', ' order by key.ordinality)
          from unnest(order_clause.keys) with ordinality as key);
end
$$;
comment on function @extschema@.order_clause(@extschema@.order_key[]) is
    'Write keys as an ORDER BY clause: rows without a key come last.';


-- A first key that all rows of a part have needs no "nulls last", so an index serves both directions.
create function @extschema@.present_keys(keys @extschema@.order_key[]) returns @extschema@.order_key[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    first order_key := present_keys.keys[1];
begin
    first.is_optional := false;
    return first || present_keys.keys[2:];
end
$$;
comment on function @extschema@.present_keys(@extschema@.order_key[]) is
    'Return the keys for rows that have the first one.';


create function @extschema@.output_keys(keys @extschema@.order_key[]) returns @extschema@.order_key[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select row('key_' || key.ordinality::text, key.kind, key.descending, key.is_optional)::order_key
          from unnest(output_keys.keys) with ordinality as key
         order by key.ordinality);
end
$$;
comment on function @extschema@.output_keys(@extschema@.order_key[]) is
    'Return the keys as the columns that a part selects.';


create function @extschema@.place_expression(keys @extschema@.order_key[]) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select 'jsonb_build_array(' || string_agg(
                   format('case when key_%s is null then ''[]'' else jsonb_build_array(%s) end', key.ordinality,
                          case key.kind when 'time' then format('%s.written_time(key_%s)', '@extschema@', key.ordinality)
                                        else 'key_' || key.ordinality::text end), ', ' order by key.ordinality) || ')'
          from unnest(place_expression.keys) with ordinality as key);
end
$$;
comment on function @extschema@.place_expression(@extschema@.order_key[]) is
    'Write the expression of the place of a row: for each key [value], or [] if it is missing.';


create function @extschema@.check_place(keys @extschema@.order_key[], place jsonb) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if check_place.place is null then
        return;
    end if;
    if (jsonb_typeof(check_place.place) = 'array' and jsonb_array_length(check_place.place) = cardinality(check_place.keys)) is not true
        or exists (
            select
              from unnest(check_place.keys) with ordinality as key
             cross join lateral (select check_place.place -> (key.ordinality - 1)::integer as given) as each
             where not case when each.given = '[]' then key.is_optional
                            when each.given <> jsonb_build_array(each.given -> 0) then false
                            when key.kind = 'time' then time_at(each.given, '{0}') is not null
                            when key.kind = 'text' then jsonb_typeof(each.given -> 0) = 'string'
                            when key.kind in ('rank', 'distance') then
                                 coalesce(number_at(each.given, '{0}') = 0 or abs(number_at(each.given, '{0}')) between 1e-300 and 1e9,
                                          false)
                            else key.kind in ('value', jsonb_typeof(each.given -> 0)) end) then
        perform refuse_argument('this place does not belong to this order', format('It is %s.', type_found(check_place.place)),
                                'Give the place of a row that was found with the same order_by.');
    end if;
end
$$;
comment on function @extschema@.check_place(@extschema@.order_key[], jsonb) is
    'Refuse a place that no row in this order can have (PD107).';


create function @extschema@.place_text(key @extschema@.order_key, given jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return format('%L::%s',
                  operand_text(case place_text.key.kind when 'time' then jsonb_build_object('$time', place_text.given)
                                                        else place_text.given end, place_text.key.kind),
                  kind_type(place_text.key.kind));
end
$$;
comment on function @extschema@.place_text(@extschema@.order_key, jsonb) is
    'Write the value that a place has for a key.';


-- The last key and the id have the same direction, and are compared as a row, which an index can follow. Every other key
-- is compared by itself.
create function @extschema@.place_condition(keys @extschema@.order_key[], place jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    first order_key := place_condition.keys[1];
    rest order_key[] := place_condition.keys[2:];
    sign text := case when first.descending then '<' else '>' end;
    given jsonb := place_condition.place #> '{0,0}';
    later text;
begin
    if rest = '{}' then
        return format('%s %s %s', first.expression, sign, place_text(first, given));
    end if;
    if place_condition.place -> 0 = '[]' then
        return format('(%s is null and %s)', first.expression, place_condition(rest, place_condition.place - 0));
    end if;
    if cardinality(rest) = 1 and not first.is_optional then
        return format('(%s, %s) %s (%s, %s)', first.expression, (rest[1]).expression, sign, place_text(first, given),
                      place_text(rest[1], place_condition.place #> '{1,0}'));
    end if;
    later := format('(%s %s %s or %1$s = %3$s and %s)', first.expression, sign, place_text(first, given),
                    place_condition(rest, place_condition.place - 0));
    if first.is_optional then
        return format('(%s or %s is null)', later, first.expression);
    end if;
    return format('%s %s= %s and %s', first.expression, sign, place_text(first, given), later);
end
$$;
comment on function @extschema@.place_condition(@extschema@.order_key[], jsonb) is
    'Write the condition for rows that come after a place in an order.';
