-- Items, listed: page by page, most urgent first.

create function @extschema@.check_listing(status text, after jsonb, max_rows integer) returns void
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if (check_listing.status in ('open', 'unclaimed', 'claimed', 'resolved')) is not true
        or check_listing.after::text !~ E'^[[][0-9], [0-9]{1,17}, "[^"\\\\]*"[]]$'
        or check_listing.max_rows > 1000 then
        raise exception 'items cannot be listed like this'
            using errcode = 'PD107',
                  detail = format('It was asked for status %s, %s rows, after %s.', quote_nullable(check_listing.status),
                                  coalesce(check_listing.max_rows::text, 'null'),
                                  case when check_listing.after is null then 'nothing' else type_found(check_listing.after) end),
                  hint = 'Status is open, unclaimed, claimed or resolved; rows are at most 1000; after is the place of an item.';
    end if;
end
$$;
comment on function @extschema@.check_listing(text, jsonb, integer) is
    'Refuse to list items in an unknown state, more than 1000, or after an invalid place (PD107).';


-- Planned anew for each call: conditions that were not given vanish from the statement, and the rest is one range of an
-- index.
create function @extschema@.list_items(
    assignee  text     default null,
    name      text     default null,
    status    text     default 'open',
    after     jsonb    default null,
    max_rows  integer  default 100,
    job       text     default null
) returns setof @extschema@.asked_item
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform check_rows(list_items.max_rows);
    perform check_listing(list_items.status, list_items.after, list_items.max_rows);
    return query
    select r.*
      from items as i
     cross join lateral read_item(i.id) as r
     where i.is_open = (list_items.status <> 'resolved')
       and (list_items.assignee is null or i.assignee = list_items.assignee)
       and (list_items.name is null or i.name = list_items.name)
       and (list_items.job is null or i.job_id = list_items.job)
       and (list_items.status not in ('unclaimed', 'claimed') or (i.claimed_at is null) = (list_items.status = 'unclaimed'))
       and (list_items.after is null
            or (i.priority, i.asked_at, i.id) > (
                (list_items.after ->> 0)::integer,
                timestamptz 'epoch' + (list_items.after ->> 1)::bigint * interval '1 microsecond',
                list_items.after ->> 2))
     order by i.priority, i.asked_at, i.id
     limit coalesce(list_items.max_rows, 1000);
end
$$;
comment on function @extschema@.list_items(text, text, text, jsonb, integer, text) is
    'List items, most urgent first, by assignee, name and job: open ones, or those that are unclaimed, claimed or resolved. For the next page, give the place of the last. Errors: PD107.';
