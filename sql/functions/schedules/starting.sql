-- Starting: a schedule is a memory, $schedule/name, with a task that is due when the schedule is. Whoever claims the task
-- then starts the jobs and puts the task off to the next time, in one transaction under the lock of the memory: one job
-- for each due time, whoever dies. `until` of the task is the due time that is owed, or the next one. Its arguments are
-- the timetable that named that time, so that an edit is noticed. [P1] [P7]

create function @extschema@.schedule_name(id text) returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return substr(schedule_name.id, length('$schedule/') + 1);
end
$$;
comment on function @extschema@.schedule_name(text) is 'Return the name of a schedule, given the id of its memory.';


create function @extschema@.schedule_name_failure(name text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        chosen_name_failure(schedule_name_failure.name, 'a schedule'),
        case when octet_length(schedule_name_failure.name) > 150 then make_failure(
            'PD104', 'InvalidName', 'the name of a schedule is too long', 'At most 150 bytes: the ids of its jobs begin with it.',
            'Choose a shorter name.') end);
end
$$;
comment on function @extschema@.schedule_name_failure(text) is
    'Return what is wrong with the name of a schedule (PD104), or null.';


create function @extschema@.scheduled_job(
    name    text,
    it      @extschema@.schedule,
    due_at  timestamptz,
    key     text default null
) returns @extschema@.new_job
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    written text := to_char(scheduled_job.due_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
    wanted new_job;
begin
    wanted.id := scheduled_job.name || '/' || coalesce(written, 'now-' || scheduled_job.key);
    wanted.workflow := it.workflow;
    wanted.entity := it.entity;
    wanted.args := it.args;
    wanted.context := '{}';
    wanted.queue := it.queue;
    wanted.priority := it.priority;
    wanted.headers := coalesce(it.headers, '{}')
                      || jsonb_strip_nulls(jsonb_build_object('schedule', scheduled_job.name, 'due_at', written));
    wanted.pinned_version := it.pinned_version;
    wanted.if_exists := 'existing';
    wanted.limit_key := it.limit_key;
    wanted.timeout := it.timeout;
    return wanted;
end
$$;
comment on function @extschema@.scheduled_job(text, @extschema@.schedule, timestamptz, text) is
    'Write the job that a schedule starts for a due time, or at once under a key; its id and headers say which.';


create function @extschema@.schedule_failure(name text, definition jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    it schedule;
    wrong text;
    failure jsonb;
begin
    it := read_schedule(schedule_failure.definition);
    wrong := case
        when num_nonnulls(it.cron, it.every) <> 1 then 'It needs cron or every, and not both.'
        when it.every is not null and it.starts_at is null then 'It needs starts_at, from which every is counted.'
        when not it.starts_at between '1970-01-01 00:00+00' and '2200-01-01 00:00+00'
             then 'It starts too early or too late: between 1970 and 2200.'
        when it.catch_up not in ('none', 'last', 'all') then 'What it may catch up with is none, last or all.'
        when it.overlap not in ('allow', 'skip') then 'Jobs that overlap are to allow or to skip.'
        when jsonb_typeof(it.headers) <> 'object' then 'Its headers are no object.'
        when (it.timeout <= '0 s') is true then 'Its timeout is not positive.'
    end;
    if wrong is not null then
        return invalid_schedule('this schedule cannot be followed', wrong, 'Correct it, and create it again.');
    end if;
    failure := coalesce(zone_failure(it.time_zone), case when it.every is not null then interval_failure(it.every) end);
    if failure is not null then
        return failure;
    end if;
    if next_due_time(it, clock()) is null then
        return invalid_schedule('this schedule is never due', 'No clock of its time zone will show the time that it names.',
                                'Correct it, and create it again.');
    end if;
    return start_failure(scheduled_job(schedule_failure.name, it, '2000-01-01 00:00+00'));
exception
    when sqlstate 'PD110' then
        get stacked diagnostics wrong = pg_exception_detail;
        return invalid_cron(it.cron, wrong);
    when data_exception then
        return invalid_schedule('this schedule cannot be read', sqlerrm, 'Correct it, and create it again.');
end
$$;
comment on function @extschema@.schedule_failure(text, jsonb) is
    'Return what is wrong with a schedule: its due times (PD110), or the job that it starts (PD103, PD104, PD107, PD30x); or null.';


create function @extschema@.reschedule(
    it          @extschema@.memory,
    settings    @extschema@.schedule,
    owed        timestamptz,
    settled_at  timestamptz
) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    next_at timestamptz := coalesce(reschedule.owed, next_due_time(settings, reschedule.settled_at));
begin
    perform park_schedule_task(it.id, '$hook/$schedule', case when settings.paused then 'infinity' else next_at end, next_at,
                               case when reschedule.owed is null then timetable_of(it.context) end, null);
    return case when not settings.paused then next_at end;
end
$$;
comment on function @extschema@.reschedule(@extschema@.memory, @extschema@.schedule, timestamptz, timestamptz) is
    'Let the task of a schedule wait for the due time that is owed, or else for the next; return it, or null while the schedule is paused.';


create function @extschema@.is_schedule_busy(name text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from tasks as t
          join jobs as j on j.id = t.job_id
         where t.job_id > is_schedule_busy.name || '/'
           and t.job_id < is_schedule_busy.name || '0'
           and t.kind = 'coordinator'
           and j.parent is null
           and j.headers ->> 'schedule' = is_schedule_busy.name);
end
$$;
comment on function @extschema@.is_schedule_busy(text) is
    'Tell whether a job that a schedule started still runs; only live tasks are looked at.';


create function @extschema@.start_owed(
    name      text,
    settings  @extschema@.schedule,
    owed      timestamptz,
    since     timestamptz,
    now_at    timestamptz
) returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    times timestamptz[] := owed_times(settings, start_owed.owed, start_owed.since, start_owed.now_at);
    starts timestamptz[] := case when settings.overlap = 'allow' then times
                                 when not is_schedule_busy(start_owed.name) then times[:1]
                                 else '{}' end;
    next_at timestamptz;
begin
    perform start_jobs(array(select scheduled_job(start_owed.name, settings, due_at) from unnest(starts) as due_at));
    if cardinality(times) < 100 then
        return null;
    end if;
    next_at := next_due_time(settings, times[100]);
    return case when next_at <= start_owed.now_at then next_at end;
end
$$;
comment on function @extschema@.start_owed(text, @extschema@.schedule, timestamptz, timestamptz, timestamptz) is
    'Start the jobs that a schedule owes, at most a hundred; return the due time that is then owed, or null.';


-- A due time that was still owed when the schedule was edited stays owed, and its job is started as the new memory says.
-- A new timetable counts from the edit on.
create function @extschema@.run_schedule(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held turn;
    now_at timestamptz;
    it memory;
    settings schedule;
    failure jsonb;
    since timestamptz;
    owed timestamptz;
begin
    perform lock_jobs(array[run_schedule.job], waiting => true);
    held := lock_held_task(run_schedule.job, run_schedule.task, run_schedule.token);
    if held.job is null then
        return 'gone';
    end if;
    now_at := clock();
    it := read_job(held.job);
    failure := schedule_failure(schedule_name(it.id), it.context);
    if failure is not null then
        perform park_schedule_task(held.job, held.task, 'infinity', null, null, failure);
        return 'stuck';
    end if;
    settings := read_schedule(it.context);
    select t.until, case when t.args <> timetable_of(it.context) then f.at end
      into owed, since
      from tasks as t
      left join journal as f on f.job_id = t.job_id and f.version = it.version
     where t.job_id = held.job
       and t.task = held.task
       and t.until <= now_at;
    if owed is not null and not settings.paused then
        owed := start_owed(schedule_name(it.id), settings, owed, since, now_at);
    end if;
    perform reschedule(it, settings, owed, now_at);
    return 'waiting';
end
$$;
comment on function @extschema@.run_schedule(text, text, uuid) is
    'Start what a schedule with a held task owes, and let it wait for its next time: return waiting, stuck (its memory cannot be followed), or gone.';
