-- Extracting: what indexes and find() read of a document, each as one type. Law: an extractor never raises, whatever the
-- document holds, and its result fits into an index row. Otherwise a write would fail because of an index. Stored indexes
-- depend on the extractors, so they are frozen by signature and meaning: a new meaning needs a new name.

create function @extschema@.text_at(context jsonb, path text[]) returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    value jsonb := text_at.context #> text_at.path;
begin
    if jsonb_typeof(value) = 'string' then
        return left(value #>> '{}', 512);
    end if;
    return null;
end
$$;
comment on function @extschema@.text_at(jsonb, text[]) is
    'Read the first 512 characters of a text in a document; null if there is no text. Frozen: stored indexes depend on it.';


-- Every number that fits a double is returned unchanged. 1e400 and 400 decimals limit what else a numeric may hold.
create function @extschema@.number_at(context jsonb, path text[]) returns numeric
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    value jsonb := number_at.context #> number_at.path;
    number numeric;
begin
    if jsonb_typeof(value) = 'number' then
        number := least(greatest(value::numeric, -1e400), 1e400);
        return case when scale(number) > 400 then round(number, 400) else number end;
    end if;
    return null;
end
$$;
comment on function @extschema@.number_at(jsonb, text[]) is
    'Read a number in a document, within 1e400 and to 400 decimals; null if there is no number. Frozen: stored indexes depend on it.';


create function @extschema@.boolean_at(context jsonb, path text[]) returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    value jsonb := boolean_at.context #> boolean_at.path;
begin
    if jsonb_typeof(value) = 'boolean' then
        return value::boolean;
    end if;
    return null;
end
$$;
comment on function @extschema@.boolean_at(jsonb, text[]) is
    'Read a boolean in a document; null if there is none. Frozen: stored indexes depend on it.';


-- The shape is checked first, so that the cast cannot raise and depends on no setting. The pattern has no backslash,
-- which means something else in a session with standard_conforming_strings off. The first and the last day are left out,
-- so that no zone moves a time out of the years 1 to 9999.
create function @extschema@.time_at(context jsonb, path text[]) returns timestamptz
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written text := text_at(time_at.context, time_at.path);
    days integer;
begin
    if written !~ ('^(?!0000|0001-01-01|9999-12-31)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[T ]'
                   || '([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)$') then
        return null;
    end if;
    days := extract(day from make_date(substr(written, 1, 4)::integer, substr(written, 6, 2)::integer, 1) + interval '1 month - 1 day');
    return case when substr(written, 9, 2)::integer <= days then written::timestamptz end;
end
$$;
comment on function @extschema@.time_at(jsonb, text[]) is
    'Read a time in a document, written in ISO 8601 with its zone (2026-01-31T12:00:00Z); null if there is none. Frozen: stored indexes depend on it.';


-- The text parser backtracks in text without blanks and in HTML comments: 100 kB of "a_" took it a minute. And for words
-- beyond 2 kB it would send each writer a notice that it leaves them out.
create function @extschema@.break_long_words(written text) returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return regexp_replace(replace(break_long_words.written, '<!', ' '), E'([^ \n\r\t]{200})', E'\\1 ', 'g');
end
$$;
comment on function @extschema@.break_long_words(text) is
    'Return a text as it is searched: nothing in it is longer than 200 letters without a blank, and no HTML comment begins. Frozen: stored indexes depend on it.';


-- A long text is cut, and a deep value is read to its hundredth level: a tsvector has limits, and a write would fail
-- because of them.
create function @extschema@.searched_part(value jsonb) returns jsonb
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written constant text := searched_part.value::text;
begin
    if octet_length(written) <= 100000 and written !~ '[^ ]{200}' and position('<!' in written) = 0 then
        return searched_part.value;
    end if;
    return (
        select coalesce(jsonb_agg(break_long_words(left(each.said, 100000 - each.before)) order by each.number), '[]')
          from (select t.number, t.value #>> '{}' as said,
                       coalesce(sum(length(t.value #>> '{}')) over (order by t.number rows between unbounded preceding and 1 preceding),
                                0)::integer as before
                  from jsonb_path_query(searched_part.value, 'strict $.**{0 to 100} ? (@.type() == "string")')
                       with ordinality as t (value, number)) as each
         where each.before < 100000);
end
$$;
comment on function @extschema@.searched_part(jsonb) is
    'Return the first 100,000 characters of the texts in a value, which a search looks at. Frozen: stored indexes depend on it.';


create function @extschema@.words_at(context jsonb, path text[], language text) returns tsvector
language plpgsql
immutable
strict
parallel safe
cost 10000
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_to_tsvector(words_at.language::regconfig, searched_part(words_at.context #> words_at.path), '"string"');
end
$$;
comment on function @extschema@.words_at(jsonb, text[], text) is
    'Read the words of all texts in a value of a document, as stems of a language; null if nothing is there. Frozen: stored indexes depend on it.';


-- 38 digits before the point and 44 after it fit a real: neither too large, nor so small that the server refuses it.
create function @extschema@.numbers_at(context jsonb, path text[], dimensions integer) returns real[]
language plpgsql
immutable
strict
parallel safe
cost 10000
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    number constant text := '-?[0-9]{1,38}([.][0-9]{1,44})?';
    shape constant text := format('^[[]%s(, %1$s)*[]]$', number);
    value jsonb := numbers_at.context #> numbers_at.path;
    written text;
begin
    if jsonb_typeof(value) = 'array' then
        if jsonb_array_length(value) = numbers_at.dimensions then
            written := value::text;
            if written !~ shape then
                written := regexp_replace(written, '([.][0-9]{44})[0-9]+', E'\\1', 'g');
            end if;
            return case when written ~ shape then ('{' || btrim(written, '[]') || '}')::real[] end;
        end if;
    end if;
    return null;
end
$$;
comment on function @extschema@.numbers_at(jsonb, text[], integer) is
    'Read an array of so many numbers in a document, to 44 decimals; null if there is none, or a number has more than 38 digits. Frozen: stored indexes depend on it.';


create function @extschema@.written_time(at timestamptz) returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (to_jsonb(written_time.at at time zone 'UTC') #>> '{}') || 'Z';
end
$$;
comment on function @extschema@.written_time(timestamptz) is
    'Write a time as time_at() reads it, whatever the settings of the session are.';


create function @extschema@.kind_argument(kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(substring(kind_argument.kind from '[(](.*)[)]$'), 'english');
end
$$;
comment on function @extschema@.kind_argument(text) is
    'Return what a kind says in brackets: the language of search(german), by default english, or the dimensions of vector(3).';


-- Defined once for indexes and questions: an index serves only exactly the expression that it was made of.
create function @extschema@.extraction(path text[], kind text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if extraction.kind like 'search%' then
        return format('%s.words_at(context, %L::text[], %L)', '@extschema@', extraction.path, kind_argument(extraction.kind));
    end if;
    return case extraction.kind
        when 'text' then format('%s.text_at(context, %L::text[]) collate "C"', '@extschema@', extraction.path)
        when 'number' then format('%s.number_at(context, %L::text[])', '@extschema@', extraction.path)
        when 'boolean' then format('%s.boolean_at(context, %L::text[])', '@extschema@', extraction.path)
        when 'time' then format('%s.time_at(context, %L::text[])', '@extschema@', extraction.path)
        else format('(context #> %L::text[])', extraction.path)
    end;
end
$$;
comment on function @extschema@.extraction(text[], text) is
    'Write the expression that reads a path of a document as one kind: text, number, boolean, time or search; any other kind is the JSON value.';
