-- Tasks, held: what a turn may say of a task, and what becomes of it.

create function @extschema@.task_exists(job text, task text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (select from tasks as t where t.job_id = task_exists.job and t.task = task_exists.task);
end
$$;
comment on function @extschema@.task_exists(text, text) is 'Tell whether a task is alive.';


create function @extschema@.last_failure(job text, task text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (select t.failure from tasks as t where t.job_id = last_failure.job and t.task = last_failure.task);
end
$$;
comment on function @extschema@.last_failure(text, text) is 'Return the failure of the last failed attempt of a task.';


create function @extschema@.lacked_code_or_key(failure jsonb) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(lacked_code_or_key.failure ->> 'code' in ('PD406', 'PD113', 'PD114'), false);
end
$$;
comment on function @extschema@.lacked_code_or_key(jsonb) is
    'Tell whether a task was given back because its worker had no code for it (PD406), or could not decrypt it (PD113, PD114).';


create function @extschema@.reserved_task_failure(name text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when left(reserved_task_failure.name, 1) = '$' then make_failure(
        'PD107', 'InvalidArgument', format('a worker cannot end a task named %s', reserved_task_failure.name),
        'It belongs to perdure: a schedule, a deadline, or the end of children.', 'Let run_task() run it, or give it back with release().') end;
end
$$;
comment on function @extschema@.reserved_task_failure(text) is
    'Return that only the database knows what a task does (PD107), or null.';


-- The tasks are locked first and judged by what the lock shows, never by what was read before it. A turn waits for its
-- task, but not for its job: a claim that saw an old version of a row keeps a lock on the new one until it commits, and
-- would make others busy for nothing. Tasks are locked in order, after all jobs, so no circle can close. A sub-select
-- that locks is never flattened: one look-up by primary key for each turn, whatever the statistics said when the plan was
-- made. [P6]
create function @extschema@.judge_turns(turns jsonb, touched text[], missed text[]) returns @extschema@.turn[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (g.number, g.job, g.task, g.token, coalesce(g.position, 0), g.state, g.facts, g.requests, g.cancels,
                coalesce(g.awaits, case when g.state = 'park' then '{}'::text[] end), g.until, g.value, g.asked, h.kind,
                case when h.asker_job is not null then h.signal end, h.asker_job, h.asker_task, h.asker_key, coalesce(h.told_at, h.started_at),
                case when g.is_missed or g.nth > 1 then 'busy'
                     when h.task is null then case when task_exists(g.job, g.task) then 'busy' else 'gone' end
                     when h.token is null and h.last_token = g.token then 'parked'
                     when (h.token = g.token) is not true or h.position < coalesce(g.position, 0) or h.asked < g.asked_before
                     then 'fenced'
                     when h.position > coalesce(g.position, 0) and f.difference is null then 'applied'
                     when coalesce(f.difference, f.failure) is not null or h.is_reserved then 'refused'
                     when g.state in ('done', 'failed', 'cancelled') and h.asker_job <> all(judge_turns.touched) then 'untouched'
                     when coalesce(g.facts @? '$[*].message ? (@ != null)', false) and not messages_are_open(g.job, g.task, g.facts)
                     then 'stale' else 'apply' end,
                coalesce(f.difference, f.failure, case when h.is_reserved then reserved_task_failure(h.name) when g.state = 'continue' then g.failure end),
                h.fingerprint)::turn
          from (select given.*, given.ordinality as number,
                       judge_turns.missed <> '{}' and touches_any(
                           judge_turns.turns -> (given.ordinality - 1)::integer, judge_turns.missed) as is_missed,
                       row_number() over (partition by given.job collate "C", given.task collate "C"
                                          order by given.ordinality) as nth
                  from rows from (jsonb_to_recordset(judge_turns.turns) as (
                   job text, task text, token uuid, position integer, state text, facts jsonb, requests jsonb,
                   cancels jsonb, awaits text[], until timestamptz, value jsonb, asked integer, asked_before integer,
                   failure jsonb)) with ordinality as given
                 order by given.job collate "C", given.task collate "C") as g
          left join lateral (
            select t.task, t.token, t.last_token, t.position, t.asked, t.kind, t.signal, t.asker_job, t.asker_task,
                   t.asker_key, t.fingerprint, t.told_at, t.started_at, t.name, left(t.name, 1) = '$' as is_reserved
              from tasks as t
             where t.job_id = g.job
               and t.task = g.task
               and not g.is_missed and g.nth = 1
               for no key update
         ) as h on true
         cross join lateral (
            -- Most turns are short and plain, and nothing can be wrong with them.
            select case when not g.is_missed
                         and not (g.state in ('keep', 'park', 'done') and g.requests is null
                                  and (jsonb_typeof(g.cancels) <> 'array') is not true
                                  and octet_length(concat(g.facts, g.value, g.awaits)) <= 200
                                  and (g.awaits is null or '' <> all(g.awaits) and concat(g.awaits) !~ '[[:cntrl:]]')
                                  and (g.state <> 'park' or g.until < 'infinity' or cardinality(g.awaits) > 0)
                                  and (judge_turns.turns -> (g.number - 1)::integer) - turn_fields() = '{}'
                                  and not exists (
                                        select
                                          from jsonb_array_elements(case when jsonb_typeof(g.facts) <> 'array' then '[0]'
                                                                         else g.facts end) as e (fact)
                                         where case jsonb_typeof(e.fact) when 'object' then e.fact - fact_fields() <> '{}'
                                                    else true end)) is true
                   then coalesce(turn_fields_failure(judge_turns.turns -> (g.number - 1)::integer),
                                 turn_failure(g.state, g.facts, g.requests, g.value), await_failure(g.awaits),
                                 -- A key has 200 bytes at most.
                                 case when greatest(octet_length(g.job), octet_length(g.task)) > 380
                                      then depth_failure(g.job, g.task, g.requests) end,
                                 case when g.requests @? '$[*].key ? (@.type() != "string" || !(@ like_regex "#[0-9]+$") || @ like_regex "^[^.].*/")'
                                      then nested_failure(g.job, g.task, g.requests) end,
                                 case when g.state in ('retry', 'release', 'continue') then due_failure(g.until) end,
                                 case when g.state = 'continue' then continue_failure(h.kind, g.value, g.failure)
                                      when g.state = 'park' and (g.until < 'infinity' or cardinality(g.awaits) > 0) is not true
                                      then wait_failure(g.job, g.task, g.facts, g.requests, g.cancels) end,
                                 open_failure(judge_turns.turns -> (g.number - 1)::integer)) end as failure,
                   case when h.token = g.token and h.position > coalesce(g.position, 0)
                        then repetition_failure(g.job, g.task, coalesce(g.position, 0), g.state, g.facts) end as difference
            offset 0) as f
         order by g.number);
end
$$;
comment on function @extschema@.judge_turns(jsonb, text[], text[]) is
    'Lock the tasks of turns, and judge each turn by its token and by what its holder has seen. [P6]';


-- The job is locked before: this is for callers that act for a single held task, outside of any batch.
create function @extschema@.lock_held_task(job text, task text, token uuid) returns @extschema@.turn
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held turn;
begin
    select t.job_id, t.task, t.token, t.position, t.kind, t.signal, t.asker_job, t.asker_task, t.asker_key,
           coalesce(t.told_at, t.started_at), t.fingerprint
      into held.job, held.task, held.token, held.position, held.kind, held.signal, held.asker_job, held.asker_task,
           held.asker_key, held.told_at, held.fingerprint
      from tasks as t
     where t.job_id = lock_held_task.job
       and t.task = lock_held_task.task
       and t.token = lock_held_task.token
       for no key update;
    return held;
end
$$;
comment on function @extschema@.lock_held_task(text, text, uuid) is
    'Lock a task that is held under a token, and return it as a turn; one of nulls if it is not held. [P6]';


create function @extschema@.refuse_non_holder(job text, task text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    raise exception 'task % of job % is not held by this token',
            quote_literal(left(refuse_non_holder.task, 200)), quote_literal(left(refuse_non_holder.job, 200))
        using errcode = 'PD001',
              detail = 'The lease ended and the task was claimed again, it was given back, or it has ended.',
              hint = 'Drop this turn; nothing of it was applied.';
end
$$;
comment on function @extschema@.refuse_non_holder(text, text) is
    'Refuse a caller who does not hold the task (PD001). [P6]';


create function @extschema@.keep_or_park(
    turns     @extschema@.turn[],
    arrivals  @extschema@.arrival[],
    now_at    timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    with_messages integer[] := array(select a.turn from unnest(keep_or_park.arrivals) as a);
begin
    update tasks as t
       set position = t.position + r.told,
           asked = greatest(t.asked, r.asked),
           told_at = case when r.facts is null then t.told_at
                          else greatest(t.told_at, coalesce((r.facts -> -1 ->> 'at')::timestamptz, keep_or_park.now_at)) end,
           deliveries = case when r.told > 0 or r.ends_lease then 0 else t.deliveries end,
           attempt = t.attempt + case r.state when 'retry' then 1 else 0 end,
           awaits = case when not r.ends_lease then t.awaits when r.state = 'park' then r.awaits end,
           until = r.until,
           failure = case when r.state in ('retry', 'release') then coalesce(r.value, t.failure) else t.failure end,
           stuck_reason = case r.state when 'stuck' then coalesce(r.value, '{}') end,
           last_token = case when r.ends_lease then t.token else t.last_token end,
           last_worker = case when r.ends_lease then t.worker else t.last_worker end,
           token = case when not r.ends_lease then t.token end,
           worker = case when not r.ends_lease then t.worker end,
           due_at = case when not r.ends_lease then t.due_at
                         when r.state = 'stuck' then 'infinity'
                         when r.state = 'park' then coalesce(r.until, 'infinity')
                         else coalesce(r.until, keep_or_park.now_at) end
      from (select g.*, coalesce(jsonb_array_length(g.facts), 0) as told,
                   g.state <> 'keep' and not (g.state = 'park' and g.number = any(with_messages)) as ends_lease
              from unnest(keep_or_park.turns) as g
             where g.state in ('keep', 'park', 'retry', 'stuck', 'release')) as r
     where t.job_id = any(array[r.job])
       and t.task = r.task;
end
$$;
comment on function @extschema@.keep_or_park(@extschema@.turn[], @extschema@.arrival[], timestamptz) is
    'Write what becomes of tasks that live on: kept, parked or given back. A task that wanted to park and has messages is kept. A turn that keeps the lease and records nothing is no progress. [P10]';


-- A task that was asked to cancel may clean up, with all beneath it, even if its asker ends first and hears nothing of
-- it. But a task that is ended from outside, and holds no token, takes all with it. Rarely is there anything to spare,
-- which one look at the inbox shows. Tasks beneath another are locked here in the order of the index, so not by a bitmap
-- scan.
create function @extschema@.delete_tasks(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set enable_bitmapscan = off
as $$
declare
    has_cancelled boolean := exists (
        select
          from unnest(delete_tasks.turns) as r
         cross join lateral (
            select
              from inbox as i
             where i.job_id = r.job
               and i.task > r.task || '/'
               and i.task < r.task || '0'
               and i.key = '$cancel'
            offset 0) as c
         where r.token is not null);
begin
    if not sees_commits() then
        perform check_children(delete_tasks.turns);
    end if;
    delete from tasks as t
     using unnest(delete_tasks.turns) as r
     where t.job_id = any(array[r.job])
       and t.task >= r.task
       and t.task < r.task || '0'
       and (t.task = r.task or t.task > r.task || '/')
       and not (has_cancelled and r.token is not null and t.task <> r.task and is_cleaning_up(t.job_id, t.task, r.task));
end
$$;
comment on function @extschema@.delete_tasks(@extschema@.turn[]) is
    'Delete tasks that have ended and all tasks beneath them, and fence their holders. Tasks that were asked to cancel are spared. [P6]';


create function @extschema@.queues_of(turns @extschema@.turn[]) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select distinct t.queue
          from unnest(queues_of.turns) as r
          join tasks as t on t.job_id = any(array[r.job]) and t.task = r.task
         where t.token is null
           and t.due_at < 'infinity');
end
$$;
comment on function @extschema@.queues_of(@extschema@.turn[]) is
    'Return the queues on which turns have left something that will be due.';
