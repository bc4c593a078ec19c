-- Newcomers: what a worker that registers, or remains, may run though another worker could not.

create function @extschema@.is_gone(seen_at timestamptz, at timestamptz) returns boolean
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return is_gone.seen_at <= is_gone.at - interval '5 min';
end
$$;
comment on function @extschema@.is_gone(timestamptz, timestamptz) is
    'Tell whether a worker that was last seen at a time counts as gone.';


-- A worker that has no code for a task need not say until when it gives it back: at once would be a circle of claims and
-- releases. The task rests as long as it has waited for its code, so that nobody is busy with it, but not for long if
-- another worker could take it.
create function @extschema@.pause_for_code(inout turns @extschema@.turn[], released_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    lacking record;
begin
    -- A loop: a batch rarely has such a turn.
    for lacking in
        select r.ordinality as place,
               greatest(interval '250 ms', least(
                   pause_for_code.released_at - greatest(t.told_at, t.started_at),
                   case when exists (
                            select
                              from workers as w
                             where w.queues @> array[t.queue]
                               and w.functions @> array[t.kind || ' ' || t.name]
                               and w.worker <> t.worker
                               and not is_gone(w.seen_at, pause_for_code.released_at)
                            offset 0)
                        then interval '1 s' else interval '1 min' end)) as pause
          from unnest(turns) with ordinality as r
          join tasks as t on t.job_id = any(array[r.job]) and t.task = r.task
         where r.state = 'release'
           and r.until is null
           and lacked_code_or_key(r.value)
    loop
        turns[lacking.place].until := pause_for_code.released_at + lacking.pause;
    end loop;
end
$$;
comment on function @extschema@.pause_for_code(@extschema@.turn[], timestamptz) is
    'Let tasks rest that are given back for lack of code or of a key, if their worker does not say until when.';


-- A task for which no worker had the code or the key is put aside for a minute at most, in the ranges that are searched
-- here. A locked task is about to move anyway, and the others become due by themselves.
create function @extschema@.wake_released(queues text[], functions text[], woken_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if coalesce(wake_released.functions, '{}') = '{}' then
        return;
    end if;
    with released as materialized (
        select r.job_id, r.task
          from unnest(wake_released.queues) as q (queue)
         cross join generate_series(0, 9) as p (priority)
         cross join lateral (
            select t.job_id, t.task
              from tasks as t
             where t.queue = q.queue
               and t.priority = p.priority
               and t.due_at > wake_released.woken_at
               and t.due_at <= wake_released.woken_at + interval '1 min'
               and t.due_at < 'infinity'
               and not t.paused
               and not t.in_line
               and t.token is null
               and t.awaits is null
               and lacked_code_or_key(t.failure)
               and t.kind || ' ' || t.name = any(wake_released.functions)
             order by t.due_at
             limit 1000
               for no key update skip locked
         ) as r
    )
    update tasks as t
       set due_at = wake_released.woken_at
      from released as r
     where t.job_id = any(array[r.job_id])
       and t.task = r.task;
end
$$;
comment on function @extschema@.wake_released(text[], text[], timestamptz) is
    'Make tasks due that were given back for lack of code or of a key, when a worker registers that may have it.';


-- The worker that left it stuck has gone, so the remaining ones may run other code; so has an earlier process with the
-- newcomer's name. A task that was claimed too often is poisonous, and stays stuck. So do tasks that are stuck because of
-- code of the database or a schedule's memory, which no worker brings along. A locked task is about to move anyway.
create function @extschema@.wake_stuck(queues text[], newcomer text, woken_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_seqscan = off
as $$
declare
    woken text[];
begin
    with stuck as materialized (
        select t.job_id, t.task
          from tasks as t
         where t.queue = any(wake_stuck.queues)
           and t.queue <> '$sql'
           and t.stuck_reason is not null
           and t.due_at = 'infinity'
           and t.deliveries = 0
           and not exists (
            select
              from workers as w
             where w.worker = t.last_worker
               and w.worker is distinct from wake_stuck.newcomer
               and not is_gone(w.seen_at, wake_stuck.woken_at)
            offset 0)
           for no key update of t skip locked
    ), moved as (
        update tasks as t
           set due_at = wake_stuck.woken_at,
               stuck_reason = null
          from stuck as s
         where t.job_id = any(array[s.job_id])
           and t.task = s.task
        returning t.queue
    )
    select array_agg(distinct m.queue) into woken from moved as m;
    return coalesce(woken, '{}');
end
$$;
comment on function @extschema@.wake_stuck(text[], text, timestamptz) is
    'Make tasks of these queues due that are stuck because a worker that has gone could not run them; return their queues. [P9]';
