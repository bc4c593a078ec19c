-- Streams: logs that are written while work continues, and followed as they grow. What an attempt of an activity
-- publishes is written beside the facts of its task, fenced by the token. Each row says who published it, and in which
-- attempt. [P2] [P6]

create function @extschema@.publish(
    job     text,
    task    text,
    token   uuid,
    stream  text,
    items   jsonb,
    key     text  default null,
    source  text  default null
) returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held turn;
begin
    perform check_task(publish.job, publish.task);
    perform lock_jobs(array[publish.job], waiting => true);
    held := lock_held_task(publish.job, publish.task, publish.token);
    if held.job is null then
        perform refuse_non_holder(publish.job, publish.task);
    end if;
    return run_command(held.job, 'log', parse_path(publish.stream), as_array(publish.items), null, publish.key, false,
                       left(coalesce(publish.source, held.task), 1000))::bigint;
end
$$;
comment on function @extschema@.publish(text, text, uuid, text, jsonb, text, text) is
    'Add the items of an array to a stream of the job whose task is held; an empty array ends the stream. Return the version. The key, an attempt/a number, is accepted once. Errors: PD001, PD101, PD104, PD106, PD115, PD30x. [P2] [P6] [P12]';


create function @extschema@.stream_items(
    id        text,
    stream    text,
    after     bigint   default 0,
    place     integer  default null,
    max_rows  integer  default 1000
) returns setof @extschema@.stream_item
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_sort = off
set jit = off
as $$
declare
    it memory := read_job(stream_items.id);
    keys text[] := log_path(stream_items.stream);
begin
    perform check_rows(stream_items.max_rows);
    return query
    select f.version, coalesce(i.place, 0)::integer, i.item, f.at, coalesce(f.name, f.task), f.attempt
      from (select g.path, g.version, g.argument, g.at, g.task,
                   case g.task when '$outside' then g.name end as name,
                   case when g.task = '$outside' and g.name is not null then split_part(g.key, '/', 1) end as attempt
              from journal as g
             where g.job_id = it.id
               and g.op = 'log'
               and g.version is not null
               and (g.path, g.version) >= (keys, coalesce(stream_items.after, 0))
               and (g.path, g.version) <= (keys, it.version)
               and (g.version > coalesce(stream_items.after, 0) or jsonb_array_length(g.argument) > stream_items.place)
             order by g.path, g.version
             limit stream_items.max_rows) as f
      left join lateral jsonb_array_elements(f.argument) with ordinality as i (item, place) on true
     where f.version > coalesce(stream_items.after, 0)
        or i.place > stream_items.place
     order by f.path, f.version, 2;
    if not found and it.status <> 'running' and coalesce(stream_items.max_rows, 1) > 0 then
        return next (it.version, 0, null, null, null, null)::stream_item;
    end if;
end
$$;
comment on function @extschema@.stream_items(text, text, bigint, integer, integer) is
    'Return the items of a stream after a version, or after a place in it, of at most max_rows versions. An item at place 0 is the end of the stream: its publisher said so, or the job has ended. Errors: PD101, PD107, PD401.';
