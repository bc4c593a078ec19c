-- Schedules: creating, changing and deleting them. Each verb locks the memory of the schedule. Its changes are commands
-- like any other, so the history shows who changed what.

create function @extschema@.lock_schedule(name text) returns @extschema@.memory
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    id text := '$schedule/' || lock_schedule.name;
begin
    if lock_jobs(array[id], waiting => true) = '{}' then
        raise exception 'schedule % does not exist', quote_literal(left(lock_schedule.name, 200))
            using errcode = 'PD410',
                  detail = 'It was never created, or it was dropped.',
                  hint = 'Look at the view schedules, or call create_schedule().';
    end if;
    return read_job(id);
end
$$;
comment on function @extschema@.lock_schedule(text) is 'Lock the memory of a schedule and read it. Errors: PD410.';


create function @extschema@.reschedule_changed(id text) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    settled_at timestamptz := clock();
    it memory := read_job(reschedule_changed.id);
    owed timestamptz := (
        select t.until
          from tasks as t
         where t.job_id = it.id
           and t.task = '$hook/$schedule'
           and t.until <= settled_at);
begin
    perform notify_listeners(array['$sql']);
    return reschedule(it, read_schedule(it.context), owed, settled_at);
end
$$;
comment on function @extschema@.reschedule_changed(text) is
    'Let the task of a locked schedule whose memory was changed wait for its next time; a due time that is owed stays owed.';


create function @extschema@.insert_schedule(id text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wanted new_job;
    made_at timestamptz := clock();
begin
    wanted.id := insert_schedule.id;
    wanted.entity := '$schedule';
    wanted.context := '{}';
    if insert_jobs(array[wanted], made_at) <> '{}' then
        perform watch_jobs(array[wanted.id]);
    end if;
end
$$;
comment on function @extschema@.insert_schedule(text) is
    'Create the empty memory of a schedule, watched by its writers; do nothing if it exists.';


create function @extschema@.create_schedule(
    name            text,
    workflow        text,
    cron            text         default null,
    every           interval     default null,
    args            jsonb        default '[]',
    time_zone       text         default 'UTC',
    starts_at       timestamptz  default null,
    catch_up        text         default 'last',
    overlap         text         default 'allow',
    entity          text         default null,
    queue           text         default 'default',
    priority        integer      default 5,
    headers         jsonb        default null,
    pinned_version  text         default null,
    limit_key       text         default null,
    timeout         interval     default null
) returns timestamptz
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set timezone = 'UTC'
set intervalstyle = 'postgres'
as $$
declare
    id text := '$schedule/' || create_schedule.name;
    definition jsonb := jsonb_build_object(
        'workflow', workflow, 'cron', cron, 'every', every, 'args', args, 'time_zone', time_zone, 'starts_at', starts_at,
        'catch_up', catch_up, 'overlap', overlap, 'entity', entity, 'queue', queue, 'priority', priority, 'headers', headers,
        'pinned_version', pinned_version, 'limit_key', limit_key, 'timeout', timeout);
    it memory;
begin
    perform raise_failure(schedule_name_failure(create_schedule.name));
    -- A loop: somebody may drop the existing schedule before it is locked.
    loop
        perform insert_schedule(id);
        exit when lock_jobs(array[id], waiting => true) <> '{}';
    end loop;
    perform insert_hook(id, '$hook/$schedule', '$schedule', '{}', '$sql', 0, clock(), null, null);
    it := read_job(id);
    if every is not null and starts_at is null then
        definition := definition || jsonb_build_object('starts_at', case
            when it.context -> 'every' = definition -> 'every' then it.context -> 'starts_at'
            else to_jsonb(date_trunc('second', clock())) end);
    end if;
    -- What others keep in the memory stays, and so does a pause.
    definition := (it.context - array(select jsonb_object_keys(definition)))
                  || (select jsonb_object_agg(m.key, m.value) from jsonb_each(definition) as m where m.value <> 'null');
    perform raise_failure(schedule_failure(create_schedule.name, definition));
    -- Compared as text: to jsonb 1 and 1.0 are equal, but to the job that gets them they may differ.
    if definition::text <> it.context::text then
        perform run_command(id, 'set', '{}', definition, null, null);
    end if;
    return reschedule_changed(id);
end
$$;
comment on function @extschema@.create_schedule(
    text, text, text, interval, jsonb, text, timestamptz, text, text, text, text, integer, jsonb, text, text, interval
) is
    'Create or change a schedule: start a workflow by a cron expression or at an interval. Return when it is due next, or null while it is paused. The call may be repeated. Errors: PD110 (cron, interval, time zone or policy), those of start(). [P1] [P12]';


create function @extschema@.pause_schedule(name text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := lock_schedule(pause_schedule.name);
begin
    if it.context -> 'paused' = 'true' then
        return false;
    end if;
    perform run_command(it.id, 'set', '{paused}', 'true', null, null);
    if schedule_failure(pause_schedule.name, it.context || '{"paused": true}') is null then
        perform reschedule_changed(it.id);
    end if;
    return true;
end
$$;
comment on function @extschema@.pause_schedule(text) is
    'Let a schedule start nothing until it is resumed; return false if it is paused already. Errors: PD410.';


create function @extschema@.resume_schedule(name text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := lock_schedule(resume_schedule.name);
    is_paused boolean := coalesce(it.context -> 'paused' = 'true', false);
    had_paused_tasks boolean := lift_pause(it.id) <> '{}';
begin
    perform raise_failure(schedule_failure(resume_schedule.name, it.context || '{"paused": false}'));
    if is_paused then
        perform run_command(it.id, 'set', '{paused}', 'false', null, null);
    end if;
    perform reschedule_changed(it.id);
    return is_paused or had_paused_tasks;
end
$$;
comment on function @extschema@.resume_schedule(text) is
    'Resume a schedule that is paused or stuck, and catch up as its policy says; return false if it was not paused. Errors: PD110 (it cannot be followed), PD410.';


create function @extschema@.trigger_schedule(name text, key text default null) returns @extschema@.started
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it memory := lock_schedule(trigger_schedule.name);
    wanted new_job;
begin
    perform raise_failure(schedule_failure(trigger_schedule.name, it.context));
    perform raise_failure(optional_name_failure(trigger_schedule.key, 'a key'));
    wanted := scheduled_job(trigger_schedule.name, read_schedule(it.context), null,
                            coalesce(trigger_schedule.key, gen_random_uuid()::text));
    perform raise_failure(start_failure(wanted));
    return (wanted.id, start_jobs(array[wanted]) <> '{}')::started;
end
$$;
comment on function @extschema@.trigger_schedule(text, text) is
    'Start the job of a schedule now, also if it is paused or a job of it runs; return the id, name/now-key, and whether it is new. The same key starts once. Errors: PD104, PD110, PD410. [P1]';


create function @extschema@.backfill_schedule(
    name      text,
    since     timestamptz,
    until     timestamptz default null,
    priority  integer default 9
) returns setof @extschema@.started
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set timezone = 'UTC'
as $$
declare
    it memory := lock_schedule(backfill_schedule.name);
    settings schedule;
    wanted new_job[];
    made text[];
begin
    perform raise_failure(schedule_failure(backfill_schedule.name, it.context));
    settings := read_schedule(it.context);
    settings.priority := coalesce(backfill_schedule.priority, settings.priority);
    wanted := array(
        select scheduled_job(backfill_schedule.name, settings, t.due_at)
          from unnest(due_times(settings, since, least(until, clock()))) as t (due_at));
    perform raise_failure(start_failure(w)) from unnest(wanted[:1]) as w;
    made := start_jobs(wanted);
    return query
    select w.id, n.id is not null
      from unnest(wanted) with ordinality as w
      left join unnest(made) as n (id) on n.id = w.id
     order by w.ordinality;
end
$$;
comment on function @extschema@.backfill_schedule(text, timestamptz, timestamptz, integer) is
    'Start the jobs of a schedule for its past due times from a time on, and before another (default: now), at most 10000; return their ids, and whether each is new. A due time has one job, however often the call is repeated. A priority of null is that of the schedule. Errors: PD107, PD110, PD410. [P1] [P12]';


create function @extschema@.drop_schedule(name text) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    schedule_task turn;
begin
    schedule_task.job := '$schedule/' || drop_schedule.name;
    schedule_task.task := '$hook/$schedule';
    if not lock_to_forget(schedule_task.job) then
        return false;
    end if;
    perform delete_tasks(array[schedule_task]);
    return forget(schedule_task.job);
end
$$;
comment on function @extschema@.drop_schedule(text) is
    'Delete a schedule with its history; the jobs that it has started stay. Return false if there is none. Errors: PD407 (a hook of yours runs on its memory).';
