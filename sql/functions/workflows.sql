-- Workflows: starting them. [P1]

create function @extschema@.start_failure(wanted @extschema@.new_job) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        own_name_failure(wanted.id, 'the id of a job'),
        call_failure('a workflow', wanted.workflow, wanted.args, wanted.queue, wanted.priority),
        pin_failure(wanted.pinned_version, wanted.queue),
        case when wanted.entity is not null then own_name_failure(wanted.entity, 'an entity') end,
        case when wanted.key is not null then name_failure(wanted.key, 'a key') end,
        case when wanted.limit_key <> '' then name_failure(wanted.limit_key, 'a limit key') end,
        case when wanted.headers is not null then value_failure(wanted.headers, 'the headers') end,
        case when wanted.context <> '{}' then coalesce(value_failure(wanted.context, 'the memory'),
                                                       argument_failure('set', '{}', wanted.context)) end,
        case when (wanted.if_exists in ('error', 'existing')) is not true then make_failure(
            'PD107', 'InvalidArgument', 'an id that exists is an error, or gives the existing job',
            format('It was given %s.', quote_nullable(wanted.if_exists)), 'Say error or existing.') end);
end
$$;
comment on function @extschema@.start_failure(@extschema@.new_job) is
    'Say what is wrong with a start: its names (PD104), values (PD103, PD30x) or options (PD107); or null.';


create function @extschema@.check_existing(wanted @extschema@.new_job[], made text[]) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    taken text;
begin
    select min(w.id)
      into taken
      from (select v.*, row_number() over (partition by v.id order by v.place) as nth
              from unnest(check_existing.wanted) with ordinality
                as v (id, workflow, entity, args, context, queue, priority, due_at, headers, pinned_version, key, if_exists,
                      parent, asker_task, asker_key, limit_key, on_parent_end, timeout, place)) as w
      join jobs as j on j.id = w.id
     where (w.nth > 1 or w.id <> all(check_existing.made))
       and w.if_exists = 'error'
       and (w.key is null or j.start_key is distinct from w.key);
    if taken is not null then
        raise exception 'job % exists already', quote_literal(taken)
            using errcode = 'PD402',
                  detail = 'An id belongs to one job for ever; nothing was started.',
                  hint = 'Choose another id, or say if_exists => ''existing'' to get the job that is there.';
    end if;
end
$$;
comment on function @extschema@.check_existing(@extschema@.new_job[], text[]) is
    'Refuse ids that exist (PD402), unless the caller takes the existing job or repeats its own start.';


create function @extschema@.start_jobs(wanted @extschema@.new_job[]) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    started_at timestamptz := clock();
    made text[];
begin
    made := insert_jobs(first_of_each(start_jobs.wanted), started_at);
    if cardinality(made) < cardinality(start_jobs.wanted) then
        perform check_existing(start_jobs.wanted, made);
    end if;
    perform insert_coordinators(first_of_each(start_jobs.wanted), made, started_at);
    perform notify_listeners(array(select distinct versioned_queue(w.queue, w.pinned_version) from unnest(start_jobs.wanted) as w));
    return made;
end
$$;
comment on function @extschema@.start_jobs(@extschema@.new_job[]) is
    'Make jobs with their first tasks and tell idle workers; returns the ids that are new. [P1]';


create function @extschema@.start(
    workflow        text,
    args            jsonb        default '[]',
    id              text         default null,
    entity          text         default null,
    queue           text         default 'default',
    priority        integer      default 5,
    due_at          timestamptz  default null,
    context         jsonb        default '{}',
    headers         jsonb        default null,
    pinned_version  text         default null,
    key             text         default null,
    if_exists       text         default 'error',
    limit_key       text         default null,
    timeout         interval     default null
) returns @extschema@.started
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    wanted new_job := (coalesce(start.id, gen_random_uuid()::text), start.workflow, start.entity, coalesce(start.args, '[]'),
                       coalesce(start.context, '{}'), start.queue, start.priority, start.due_at, start.headers,
                       start.pinned_version, start.key, start.if_exists, null, null, null, start.limit_key, null,
                       start.timeout)::new_job;
begin
    perform raise_failure(start_failure(wanted));
    return (wanted.id, start_jobs(array[wanted]) <> '{}')::started;
end
$$;
comment on function @extschema@.start(text, jsonb, text, text, text, integer, timestamptz, jsonb, jsonb, text, text, text, text, interval) is
    'Start a workflow in the caller''s transaction; returns the id and whether it is new. PD402 when the id exists, PD103, PD104, PD107, PD30x for bad input. [P1]';


create function @extschema@.start_many(starts jsonb) returns setof @extschema@.started
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    wanted new_job[];
    made text[];
begin
    if jsonb_typeof(start_many.starts) is distinct from 'array' then
        raise exception 'starts must be a JSON array'
            using errcode = 'PD107', detail = format('It was %s.', type_found(start_many.starts)), hint = 'Correct the call.';
    end if;
    wanted := array(
        select (coalesce(s.id, gen_random_uuid()::text), s.workflow, s.entity, coalesce(s.args, '[]'),
                coalesce(s.context, '{}'), coalesce(s.queue, 'default'), coalesce(s.priority, 5), s.due_at, s.headers,
                s.pinned_version, s.key, coalesce(s.if_exists, 'error'), null, null, null, s.limit_key, null,
                s.timeout)::new_job
          from jsonb_to_recordset(start_many.starts) as s (
               workflow text, args jsonb, id text, entity text, queue text, priority integer, due_at timestamptz,
               context jsonb, headers jsonb, pinned_version text, key text, if_exists text, limit_key text,
               timeout interval));
    perform raise_failure((select start_failure(w) from unnest(wanted) as w where start_failure(w) is not null limit 1));
    made := start_jobs(wanted);
    return query
    select w.id, n.id is not null and row_number() over (partition by w.id order by w.ordinality) = 1
      from unnest(wanted) with ordinality as w
      left join unnest(made) as n (id) on n.id = w.id
     order by w.ordinality;
end
$$;
comment on function @extschema@.start_many(jsonb) is
    'Start many workflows, given as an array of objects with the arguments of start(); all or none. Errors as start(). [P1]';


create function @extschema@.signal_with_start(
    workflow        text,
    id              text,
    name            text,
    payload         jsonb        default null,
    args            jsonb        default '[]',
    entity          text         default null,
    queue           text         default 'default',
    priority        integer      default 5,
    context         jsonb        default '{}',
    headers         jsonb        default null,
    pinned_version  text         default null,
    key             text         default null,
    limit_key       text         default null,
    timeout         interval     default null
) returns @extschema@.started
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    it started := start(
        signal_with_start.workflow, args => signal_with_start.args, id => signal_with_start.id,
        entity => signal_with_start.entity, queue => signal_with_start.queue, priority => signal_with_start.priority,
        context => signal_with_start.context, headers => signal_with_start.headers,
        pinned_version => signal_with_start.pinned_version, key => signal_with_start.key, if_exists => 'existing',
        limit_key => signal_with_start.limit_key, timeout => signal_with_start.timeout);
begin
    perform signal(it.id, signal_with_start.name, signal_with_start.payload, signal_with_start.key);
    return it;
end
$$;
comment on function @extschema@.signal_with_start(text, text, text, jsonb, jsonb, text, text, integer, jsonb, jsonb, text, text, text, interval) is
    'Send a signal to a job, which is started first where there is none; both or neither. Returns the id and whether the job is new. PD403 when it has finished, errors as start() and signal(). [P1] [P5]';
