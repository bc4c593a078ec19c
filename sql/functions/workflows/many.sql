-- Workflows, many at once: all of a list are started, or none. If one is refused, the error says which. [P1]

create function @extschema@.read_starts(starts jsonb) returns @extschema@.new_job[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform check_list(read_starts.starts, 'starts',
                       '{workflow,args,id,entity,queue,priority,due_at,context,headers,pinned_version,key,if_exists,limit_key,
                         timeout}');
    perform raise_failure(failure_among(key_failure(s.item ->> 'key', null, 'id'), 'start', s.place,
                                        jsonb_array_length(read_starts.starts)))
       from jsonb_array_elements(read_starts.starts) with ordinality as s (item, place)
      where s.item ->> 'key' is not null
        and s.item ->> 'id' is null;
    if read_starts.starts @? '$[*].due_at ? (@ != null)' then
        perform raise_failure(failure_among(coalesce(unreadable_failure(s.item, 'a start'), zoneless_failure(s.item, 'a start')),
                                            'start', s.place, jsonb_array_length(read_starts.starts), s.item ->> 'id'))
           from jsonb_array_elements(read_starts.starts) with ordinality as s (item, place)
          where s.item ->> 'due_at' !~ zoned_time()
          order by s.place;
    end if;
    return array(
        select (coalesce(s.id, gen_random_uuid()::text), s.workflow, s.entity, coalesce(s.args, '[]'),
                coalesce(s.context, '{}'), coalesce(s.queue, 'default'), coalesce(s.priority, 5), s.due_at, s.headers,
                s.pinned_version, s.key, coalesce(s.if_exists, 'error'), null, null, null, s.limit_key, null,
                s.timeout, null)::new_job
          from jsonb_to_recordset(read_starts.starts) as s (
               workflow text, args jsonb, id text, entity text, queue text, priority integer, due_at timestamptz,
               context jsonb, headers jsonb, pinned_version text, key text, if_exists text, limit_key text,
               timeout interval));
exception
    -- Only now it is looked up which one it was.
    when data_exception then
        perform raise_failure(failure_among(unreadable_failure(s.item, 'a start'), 'start', s.place,
                                            jsonb_array_length(read_starts.starts), s.item ->> 'id'))
           from jsonb_array_elements(read_starts.starts) with ordinality as s (item, place)
          where unreadable_field(s.item) is not null
          order by s.place;
        raise;
end
$$;
comment on function @extschema@.read_starts(jsonb) is
    'Read starts as a client writes them: objects with the arguments of start(). Errors: PD107.';


create function @extschema@.start_many(starts jsonb) returns setof @extschema@.started
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    wanted new_job[];
    made text[];
begin
    wanted := read_starts(start_many.starts);
    if exists (select from unnest(wanted) as w where start_failure(w) is not null) then
        perform raise_failure(failure_among(start_failure(wanted[place]), 'start', place, cardinality(wanted),
                                            start_many.starts -> place - 1 ->> 'id'))
           from generate_subscripts(wanted, 1) as place
          order by place;
    end if;
    made := start_jobs(wanted);
    return query
    select w.id, n.id is not null and row_number() over (partition by w.id order by w.ordinality) = 1
      from unnest(wanted) with ordinality as w
      left join unnest(made) as n (id) on n.id = w.id
     order by w.ordinality;
end
$$;
comment on function @extschema@.start_many(jsonb) is
    'Start many workflows, all or none, given as a JSON array of objects with the arguments of start(). Errors: those of start(). [P1]';
