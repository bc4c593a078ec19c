-- Tasks, suspect: a task that was claimed again and again without a successful turn may be what kills its workers, or may
-- only have been held beside it. So a worker holds one such task at a time, beside others that are not suspect: a
-- harmless task makes progress, and a task that is parked as poisonous has died without another suspect. If
-- max_deliveries is five or less, tasks are parked before they are suspected. [P10]

create function @extschema@.suspect_threshold() returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return 5;
end
$$;
comment on function @extschema@.suspect_threshold() is
    'Return after how many claims without a successful turn a task is suspected of killing its workers.';


create function @extschema@.find_suspect(queues text[], worker text, now_at timestamptz) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (t.job_id, t.task, t.queue, t.priority, t.due_at, t.limit_key, t.deliveries, true, t.ctid)::due_task
          from tasks as t
         where t.queue = any(find_suspect.queues)
           and t.is_suspect
           and t.due_at <= find_suspect.now_at
           and not t.paused
           and not exists (
                select
                  from tasks as h
                 where h.is_suspect
                   and h.deliveries > suspect_threshold()
                   and h.worker = find_suspect.worker
                   and h.due_at > find_suspect.now_at)
         order by t.priority, t.due_at
         limit 1
           for no key update of t skip locked);
end
$$;
comment on function @extschema@.find_suspect(text[], text, timestamptz) is
    'Lock the best of the suspects that are due on queues, for a worker that holds none.';


create function @extschema@.suspect_is_due(queues text[], now_at timestamptz) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from tasks as t
         where t.queue = any(suspect_is_due.queues)
           and t.is_suspect
           and t.due_at <= suspect_is_due.now_at
           and not t.paused);
end
$$;
comment on function @extschema@.suspect_is_due(text[], timestamptz) is
    'Tell whether a suspect is left on queues, because it is locked or the worker that asked holds another.';
