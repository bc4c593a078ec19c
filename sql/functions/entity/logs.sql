-- Logs, read from either end. A page costs what is on it, however long the log is.

-- As log_items(), from the other end.
create function @extschema@.last_items(
    id      text,
    path    text[],
    after   bigint,
    upto    bigint,
    before  bigint,
    place   integer,
    amount  integer
) returns setof @extschema@.log_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
set enable_sort = off
as $$
begin
    perform check_rows(last_items.amount);
    return query
    select p.version, p.place, p.item, p.at, p.task
      from (select l.version, l.place::integer as place, l.item, l.at, l.task
              from (select f.version, i.place, i.item, f.at, f.task
                      from journal as f
                     cross join lateral jsonb_array_elements(f.argument) with ordinality as i (item, place)
                     where f.job_id = last_items.id
                       and f.op = 'log'
                       and f.version is not null
                       and (f.path, f.version) > (last_items.path, coalesce(last_items.after, 0))
                       and (f.path, f.version) <= (last_items.path, last_items.upto)
                       and (last_items.before is null or f.version < last_items.before or i.place < last_items.place)
                     order by f.path desc, f.version desc
                     fetch first last_items.amount rows with ties) as l
             order by l.version desc, l.place desc
             limit last_items.amount) as p
     order by p.version, p.place;
end
$$;
comment on function @extschema@.last_items(text, text[], bigint, bigint, bigint, integer, integer) is
    'Return the last items of a log, a number of them, in order: of those after one version, up to another, and before a third or a place in it.';


create function @extschema@.entity_items(
    id        text,
    path      text,
    after     bigint   default 0,
    max_rows  integer  default 1000,
    last      integer  default null,
    before    bigint   default null,
    place     integer  default null
) returns setof @extschema@.log_item
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := read_job(entity_items.id);
    keys text[] := log_path(entity_items.path);
    upto bigint := least(it.version, entity_items.before);
begin
    if entity_items.last is not null then
        return query
        select * from last_items(it.id, keys, entity_items.after, upto, entity_items.before, entity_items.place,
                                 entity_items.last);
    else
        return query
        select i.*
          from log_items(it.id, keys, entity_items.after, upto, entity_items.max_rows) as i
         where entity_items.before is null
            or i.version < entity_items.before
            or i.place < entity_items.place;
    end if;
end
$$;
comment on function @extschema@.entity_items(text, text, bigint, integer, integer, bigint, integer) is
    'Return the items of a log that were added after a version, with their versions, times and tasks, oldest first. For the next page, give the last version; a page holds all items of a version, even beyond max_rows. With last, return exactly the last so many instead; for the page before, give the version and place of the first as before and place. Errors: PD101, PD107, PD401.';
