-- Tasks, kept from workers for a while: by a pause of their job, or in a copy that has been adopted later.

create function @extschema@.pause_tasks(job text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
as $$
begin
    update tasks as t
       set paused = true
     where t.job_id = pause_tasks.job
       and (left(t.name, 1) <> '$' or t.name = '$schedule');
end
$$;
comment on function @extschema@.pause_tasks(text) is
    'Keep the tasks of a job, or of a schedule, from workers, but not what else the database does by itself; held tasks continue.';


-- A task that stood in line is put there again, since its line may be gone.
create function @extschema@.lift_pause(job text) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
as $$
declare
    freed text[];
begin
    if not pause_job(lift_pause.job, false) then
        return '{}'::text[];
    end if;
    with moved as (
        update tasks as t
           set paused = false,
               in_line = false
         where t.job_id = lift_pause.job
           and t.paused
        returning t.queue, t.stuck_reason
    )
    select array_agg(m.queue) into freed from moved as m where m.stuck_reason is null;
    return coalesce(freed, '{}');
end
$$;
comment on function @extschema@.lift_pause(text) is
    'Give the tasks of a locked job to workers again; return a queue for each that is not stuck.';


create function @extschema@.delay_tasks(due_after timestamptz, by interval) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- A task with messages no longer waits for a time, and neither does a job that was started later.
    update tasks as t
       set due_at = time_after(t.due_at, delay_tasks.by),
           until = case when t.until > delay_tasks.due_after then time_after(t.until, delay_tasks.by) else t.until end
      from jobs as j
     where j.id = t.job_id
       and j.created_at <= delay_tasks.due_after
       and t.due_at > delay_tasks.due_after
       and t.due_at < 'infinity'
       and t.token is null
       and not t.in_line
       and t.name <> '$schedule'
       and open_messages(t.job_id, t.task, t.awaits) is null;
end
$$;
comment on function @extschema@.delay_tasks(timestamptz, interval) is
    'Let what waits for a later time wait longer; schedules and held tasks stay as they are.';
