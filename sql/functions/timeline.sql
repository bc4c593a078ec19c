-- Timeline: all that belongs to a job but its memory, page by page, for people and for export: the job, what its tasks
-- were told in order of time, its live tasks, its open messages, what was asked of people and who decided. A place begins
-- with the number of its part.

create function @extschema@.facts_page(id text, after jsonb, max_rows integer) returns setof @extschema@.timeline_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    last_at timestamptz := (facts_page.after ->> 1)::timestamptz;
    last_task text := facts_page.after ->> 2;
    last_seq bigint := (facts_page.after ->> 3)::bigint;
begin
    return query
    select 'fact', f.at, f.task,
           jsonb_build_object(
               'seq', f.seq, 'kind', f.kind, 'key', f.key, 'name', f.name, 'fingerprint', f.fingerprint, 'ok', f.ok,
               'value', case when f.op = 'get' and f.value is null
                             then (select r.value from large_reads(facts_page.id, f.task, f.seq - 1, 1) as r)
                             else f.value end,
               'at', f.at, 'op', f.op, 'path', f.path, 'version', f.version, 'argument', f.argument),
           jsonb_build_array(1, f.at, f.task, f.seq)
      from (select g.*, sum(coalesce((case when g.op = 'get' then g.argument ->> 'bytes' end)::bigint,
                                     pg_column_size(g.value), 0) + coalesce(pg_column_size(g.argument), 0))
                            over (order by g.at, g.task, g.seq rows between unbounded preceding and 1 preceding) as bytes_before
              from (select h.*
                      from journal as h
                     where h.job_id = facts_page.id
                       and (last_at is null or (h.at, h.task, h.seq) > (last_at, last_task, last_seq))
                     order by h.at, h.task, h.seq
                     limit facts_page.max_rows) as g) as f
     where coalesce(f.bytes_before, 0) < 8388608
     order by f.at, f.task, f.seq;
end
$$;
comment on function @extschema@.facts_page(text, jsonb, integer) is
    'Return facts of all tasks of a job after a place, by time: as many as are asked for, or about 8 MB.';


-- The token of a task is the right to act for it, and is not shown.
create function @extschema@.tasks_page(id text, after jsonb, max_rows integer) returns setof @extschema@.timeline_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'task', null::timestamptz, t.task,
           to_jsonb(t) - '{job_id,token,last_token,bytes_before}'::text[]
               || jsonb_build_object('state', task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason, t.paused)),
           jsonb_build_array(2, t.task)
      from (select g.*, sum(coalesce(pg_column_size(g.args), 0)) over (order by g.task rows between unbounded preceding
                                                                       and 1 preceding) as bytes_before
              from (select h.*
                      from tasks as h
                     where h.job_id = tasks_page.id
                       and (tasks_page.after is null or h.task > tasks_page.after ->> 1)
                     order by h.task
                     limit tasks_page.max_rows) as g) as t
     where coalesce(t.bytes_before, 0) < 8388608
     order by t.task;
end
$$;
comment on function @extschema@.tasks_page(text, jsonb, integer) is
    'Return live tasks of a job after a place: as many as are asked for, or about 8 MB.';


create function @extschema@.messages_page(
    id        text,
    after     jsonb,
    max_rows  integer
) returns setof @extschema@.timeline_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'message', i.sent_at, i.task, to_jsonb(i) - '{job_id,consumed_at,bytes_before}'::text[],
           jsonb_build_array(3, i.id)
      from (select g.*, sum(coalesce(pg_column_size(g.payload), 0)) over (order by g.id rows between unbounded preceding
                                                                          and 1 preceding) as bytes_before
              from (select h.*
                      -- Found before they are sorted: otherwise a plan may walk through the messages of all jobs in the
                      -- order of ids.
                      from (select o.*
                              from inbox as o
                             where o.job_id = messages_page.id
                               and o.consumed_at is null
                               and (messages_page.after is null or o.id > (messages_page.after ->> 1)::bigint)
                            offset 0) as h
                     order by h.id
                     limit messages_page.max_rows) as g) as i
     where coalesce(i.bytes_before, 0) < 8388608
     order by i.id;
end
$$;
comment on function @extschema@.messages_page(text, jsonb, integer) is
    'Return open messages of a job after a place: as many as are asked for, or about 8 MB.';


create function @extschema@.items_page(id text, after jsonb, max_rows integer) returns setof @extschema@.timeline_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'item', i.asked_at, i.task, to_jsonb(i) - '{job_id,bytes_before}'::text[],
           jsonb_build_array(4, i.asked_at, i.id)
      from (select g.*, sum(coalesce(pg_column_size(g.payload), 0) + coalesce(pg_column_size(g.resolution), 0))
                            over (order by g.asked_at, g.id rows between unbounded preceding and 1 preceding) as bytes_before
              from (select h.*
                      from items as h
                     where h.job_id = items_page.id
                       and (items_page.after is null
                            or (h.asked_at, h.id) > ((items_page.after ->> 1)::timestamptz, items_page.after ->> 2))
                     order by h.asked_at, h.id
                     limit items_page.max_rows) as g) as i
     where coalesce(i.bytes_before, 0) < 8388608
     order by i.asked_at, i.id;
end
$$;
comment on function @extschema@.items_page(text, jsonb, integer) is
    'Return what a job has asked of people, open or resolved, after a place, by time: as many as are asked for, or about 8 MB.';


create function @extschema@.timeline_page(
    part      integer,
    id        text,
    after     jsonb,
    max_rows  integer
) returns setof @extschema@.timeline_item
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    here jsonb := case when timeline_page.after -> 0 = to_jsonb(timeline_page.part) then timeline_page.after end;
begin
    case timeline_page.part
        when 1 then return query select p.* from facts_page(timeline_page.id, here, timeline_page.max_rows) as p;
        when 2 then return query select p.* from tasks_page(timeline_page.id, here, timeline_page.max_rows) as p;
        when 3 then return query select p.* from messages_page(timeline_page.id, here, timeline_page.max_rows) as p;
        else return query select p.* from items_page(timeline_page.id, here, timeline_page.max_rows) as p;
    end case;
end
$$;
comment on function @extschema@.timeline_page(integer, text, jsonb, integer) is
    'Return a page of a part of a timeline: 1 facts, 2 tasks, 3 messages, 4 items; from its beginning if the place is in another part.';


create function @extschema@.is_place(place jsonb) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(case is_place.place ->> 0
        when '0' then true
        when '1' then num_nulls((place ->> 1)::timestamptz, place ->> 2, (place ->> 3)::bigint) = 0
        when '2' then place ->> 1 is not null
        when '3' then (place ->> 1)::bigint is not null
        when '4' then num_nulls((place ->> 1)::timestamptz, place ->> 2) = 0
    end, false);
exception
    when data_exception then
        return false;
end
$$;
comment on function @extschema@.is_place(jsonb) is 'Tell whether a value is the place of an item in a timeline.';


create function @extschema@.timeline(
    id        text,
    after     jsonb    default null,
    max_rows  integer  default 1000
) returns setof @extschema@.timeline_item
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    first_part integer := array_position('{0,1,2,3,4}', timeline.after ->> 0) - 1;
    room integer := least(timeline.max_rows, 10000);
    items timeline_item[];
begin
    perform check_rows(timeline.max_rows);
    if timeline.after is not null and not is_place(timeline.after) then
        perform raise_failure(make_failure(
            'PD107', 'InvalidArgument', 'this is not a place of a timeline', format('It is %s.', type_found(timeline.after)),
            'Give the place of the last item of a page.'));
    end if;
    if timeline.after is null then
        perform read_job(timeline.id);
        return query
        select 'job', j.created_at, null::text, to_jsonb(j) - '{context,watched}'::text[], '[0]'::jsonb
          from jobs as j
         where j.id = timeline.id
         limit room;
        room := greatest(room - 1, 0);
    end if;
    -- A loop: the next part begins on a page only if the part before it has ended there.
    for part in greatest(first_part, 1) .. 4 loop
        items := array(select p from timeline_page(part, timeline.id, timeline.after, room) as p);
        return query select i.* from unnest(items) as i;
        room := room - cardinality(items);
        exit when room = 0 or items <> '{}' and exists (
            select from timeline_page(part, timeline.id, items[cardinality(items)].place, 1));
    end loop;
end
$$;
comment on function @extschema@.timeline(text, jsonb, integer) is
    'Return a page of all that belongs to a job but its memory: the job, its facts by time, its live tasks, its open messages and its items. For the next page, give the last place; an empty page is the end. Errors: PD107, PD401.';
