-- Paths: user.email, items.0, items.-1, "key.with.dots".x. The same grammar wherever a path is given.

create function @extschema@.check_path(path text[]) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if cardinality(check_path.path) > 50 or array_position(check_path.path, null) is not null
        or octet_length(check_path.path::text) > 10000 then
        raise exception 'this is not a path into a memory: %', left(check_path.path::text, 100)
            using errcode = 'PD101',
                  detail = 'A path has at most 50 keys, none of them null, and 10000 bytes.',
                  hint = 'Store the deeper part as one value.';
    end if;
    return check_path.path;
end
$$;
comment on function @extschema@.check_path(text[]) is 'Refuse a path that is too long or has an empty key (PD101).';


-- Who comes from JSON path writes $.user.email and items[0]. Taken as they are written, these would be keys that nobody
-- has.
create function @extschema@.is_json_path(path text) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return regexp_replace(is_json_path.path, E'"([^"\\\\]|\\\\.)*"', '', 'g') ~ E'^[$]($|[.[])|\\[(-?[0-9]+|[*])\\]($|[.[])';
end
$$;
comment on function @extschema@.is_json_path(text) is
    'Tell whether a written path begins with $ or has brackets, outside of keys in quotes.';


create function @extschema@.parse_path(path text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys text[];
begin
    if parse_path.path = '' or parse_path.path is null then
        return '{}'::text[];
    end if;
    if parse_path.path !~ '["$[]' then
        keys := string_to_array(parse_path.path, '.');
    elsif is_json_path(parse_path.path) then
        raise exception 'this is a JSON path: %', left(parse_path.path, 100)
            using errcode = 'PD101',
                  detail = 'A path is keys with dots between them, without $ and brackets.',
                  hint = 'Write user.email for $.user.email, and items.0 for items[0]. Put a key that is written so in double quotes.';
    elsif parse_path.path ~ E'^("([^"\\\\]|\\\\.)*"|[^".]+)([.]("([^"\\\\]|\\\\.)*"|[^".]+))*$' then
        keys := array(
            select coalesce(regexp_replace(key[1], E'\\\\(.)', E'\\1', 'g'), key[2])
              from regexp_matches(parse_path.path, E'"((?:[^"\\\\]|\\\\.)*)"|([^".]+)', 'g') as key);
        return check_path(keys);
    end if;
    if keys is null or '' = any(keys) then
        raise exception 'this is not a path: %', left(parse_path.path, 100)
            using errcode = 'PD101',
                  detail = 'A path is keys with dots between them; a key with dots or quotes is written in double quotes.',
                  hint = 'Write user.email, items.0, items.-1 or "key.with.dots".x; an empty path is the whole memory.';
    end if;
    return check_path(keys);
end
$$;
comment on function @extschema@.parse_path(text) is
    'Split a written path into its keys; an empty path is the whole memory. Errors: PD101 (no path).';


create function @extschema@.log_path(path text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys text[] := parse_path(log_path.path);
begin
    if keys = '{}' then
        raise exception 'a log or stream must have a name'
            using errcode = 'PD101',
                  detail = 'Its path is empty, which means the whole memory, and items cannot be added to that.',
                  hint = 'Give the path to which items are added.';
    end if;
    return keys;
end
$$;
comment on function @extschema@.log_path(text) is
    'Split the written path of a log into its keys. Errors: PD101 (no path, or an empty one).';


create function @extschema@.write_path(path text[]) returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if write_path.path = '{}' then
        return 'the memory';
    end if;
    return (
        select string_agg(case when key ~ E'^[^".\\\\]+$' and not is_json_path(key) then key
                               else '"' || regexp_replace(key, E'(["\\\\])', E'\\\\\\1', 'g') || '"' end, '.' order by place)
          from unnest(write_path.path) with ordinality as step (key, place));
end
$$;
comment on function @extschema@.write_path(text[]) is 'Write a path as text, such as user.email.';
