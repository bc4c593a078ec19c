-- Status: where a job stands and what it waits for, in words.

create function @extschema@.task_state(
    token         uuid,
    due_at        timestamptz,
    awaits        text[],
    failure       jsonb,
    stuck_reason  jsonb,
    paused        boolean
) returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return case when task_state.stuck_reason is not null then 'stuck'
                when task_state.token is not null and task_state.due_at > now_at then 'leased'
                when task_state.paused then 'paused'
                when task_state.due_at <= now_at then 'ready'
                when task_state.awaits is not null then 'waiting'
                when task_state.failure is not null then 'retrying'
                else 'delayed' end;
end
$$;
comment on function @extschema@.task_state(uuid, timestamptz, text[], jsonb, jsonb, boolean) is
    'Return the state of a task: ready, leased, waiting, retrying, delayed, stuck, or paused with its job.';


create function @extschema@.queue_reason(queue text, limit_key text, now_at timestamptz) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select case when l.paused then format('somebody to resume queue %s: it is paused', l.queue)
                    when l.taken >= l.max_running then format('a slot of queue %s (%s of %s taken)', l.queue, l.taken, l.max_running)
                    when l.taken_of_key >= l.max_per_key
                    then format('a slot of queue %s for key %s (%s of %s taken)', l.queue, quote_literal(queue_reason.limit_key),
                                l.taken_of_key, l.max_per_key)
                    when l.tokens < 1
                    then format('a token of queue %s, which gets %s a second', l.queue, l.rate_per_second)
                    when l.tokens_of_key < 1
                    then format('a token of queue %s for key %s, which gets %s a second', l.queue,
                                quote_literal(queue_reason.limit_key), l.rate_per_key) end
          from (select q.queue, q.paused, q.max_running, q.max_per_key, q.rate_per_second, q.rate_per_key,
                       slots_taken(q.queue, case when q.max_running is not null then 2147483647 end) as taken,
                       case when q.max_per_key is not null
                            then slots_taken_by_key(q.queue, queue_reason.limit_key, 2147483647) end as taken_of_key,
                       tokens_at(q.tokens, q.rate_per_second, q.burst, q.claimed_at, queue_reason.now_at) as tokens,
                       tokens_of_key(q.queue, queue_reason.limit_key, q.rate_per_key, q.burst_per_key, queue_reason.now_at)
                           as tokens_of_key
                  from queues as q
                 where q.queue = versioned_queue(queue_reason.queue, null)) as l);
end
$$;
comment on function @extschema@.queue_reason(text, text, timestamptz) is
    'Return in words why a due task of a queue cannot be claimed; null if it can.';


-- An activity beside its caller has no task: its attempts are facts. The last fact of a key counts. A request that was
-- withdrawn has none, but its time is earlier than the one for which the task waits, or soon will.
create function @extschema@.attempts_reason(job text, task text, due_at timestamptz) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        with latest as materialized (
            select f.kind, f.key, f.seq, f.value, coalesce(f.name, f.key) as name, f.value -> 'attempts' as attempts
              from journal as f
             where f.job_id = attempts_reason.job
               and f.task = attempts_reason.task
             order by f.seq desc
             limit 50)
        select string_agg(concat(case when jsonb_typeof(l.attempts) = 'number'
                                      then format('attempt %s of %s', left((l.attempts::numeric + 1)::text, 20), l.name)
                                      else format('%s again', l.name) end,
                                 ', after: ' || left(coalesce(l.value ->> 'message', l.value ->> 'type'), 200)),
                          ', ' order by l.seq)
          from latest as l
         where l.kind = 'attempt'
           and l.value ->> 'again_at' collate "C" >= to_char(attempts_reason.due_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
           and not exists (select from latest as n where n.key = l.key and n.seq > l.seq));
end
$$;
comment on function @extschema@.attempts_reason(text, text, timestamptz) is
    'Return in words which activities a task that waits until a time will try again; null if there are none.';


create function @extschema@.answers_reason(job text, task text) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select 'answers of ' || string_agg(r.key, ', ' order by r.key)
               || coalesce(': ' || nullif(array_to_string(stopped_requests(answers_reason.job, answers_reason.task)
                                                     || missing_workers(answers_reason.job, answers_reason.task), ', '), ''), '')
          from live_requests(answers_reason.job, answers_reason.task, false) as r);
end
$$;
comment on function @extschema@.answers_reason(text, text) is
    'Return in words whose answers a parked task waits for, and what keeps these back; null if it has asked for none.';


-- A failure is an object, but a worker may have reported a text.
create function @extschema@.failure_words(failure jsonb) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(failure_words.failure ->> 'message', failure_words.failure ->> 'type',
                    case when jsonb_typeof(failure_words.failure) = 'string' and failure_words.failure #>> '{}' not like '$c_:%'
                         then failure_words.failure #>> '{}' end);
end
$$;
comment on function @extschema@.failure_words(jsonb) is 'Return what a failure says, in short; null if it says nothing.';


create function @extschema@.task_reason(job text, task text) returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it record;
begin
    select t.*, task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason, t.paused) as state
      into it
      from tasks as t
     where t.job_id = task_reason.job
       and t.task = task_reason.task;
    return case it.state
        when 'stuck' then format('somebody to resume it: %s', coalesce(
            nullif(concat_ws(': ', it.stuck_reason ->> 'message', it.stuck_reason ->> 'detail'), ''), it.stuck_reason::text))
        when 'leased' then concat_ws(', at ', 'worker ' || it.worker, left(it.progress::text, 200))
        when 'paused' then 'somebody to resume it: its job is paused'
        when 'ready' then coalesce(case when it.token is null then queue_reason(it.queue, it.limit_key, clock()) end,
                                   worker_wanted(it.queue, it.pinned_version, null, null))
        when 'retrying' then case
            when it.failure ->> 'code' = 'PD406'
            then worker_wanted(it.queue, it.pinned_version, it.kind::text, it.name)
            else concat_ws(', after: ', format('attempt %s at %s', it.attempt + 1, it.due_at), failure_words(it.failure)) end
        when 'delayed' then case when it.due_at < 'infinity' then format('its time: %s', it.due_at)
                                 else 'somebody to resume it' end
        when 'waiting' then concat_ws(', ',
            case when it.awaits <> '{}' then 'signal ' || array_to_string(it.awaits, ' or ') end,
            (select 'its memory: ' || string_agg(c.condition::text, ' or ' order by c.key)
               from conditions as c
              where c.job_id = it.job_id
                and c.task = it.task),
            (select 'people: ' || string_agg(concat_ws(' by ', p.name, coalesce(p.claimed_by, p.assignee)), ', ' order by p.key)
               from items as p
              where p.job_id = it.job_id
                and p.task = it.task
                and p.is_open),
            answers_reason(it.job_id, it.task),
            case when it.due_at < 'infinity' then attempts_reason(it.job_id, it.task, it.due_at) end,
            case when it.due_at < 'infinity' then format('its time: %s', it.due_at) end)
        end;
end
$$;
comment on function @extschema@.task_reason(text, text) is 'Return in words what a task waits for.';


create function @extschema@.waits_for_others(job text, task text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
            select
              from conditions as c
             where c.job_id = waits_for_others.job
               and c.task = waits_for_others.task)
        or exists (
            select
              from items as p
             where p.job_id = waits_for_others.job
               and p.task = waits_for_others.task
               and p.is_open);
end
$$;
comment on function @extschema@.waits_for_others(text, text) is
    'Tell whether a task waits for a change of its memory or for people.';


-- Signals, people and times come by themselves. These do not: however long one waits, the task stays where it is.
create function @extschema@.task_needs(job text, task text) returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it record;
begin
    select t.*, task_state(t.token, t.due_at, t.awaits, t.failure, t.stuck_reason, t.paused) as state
      into it
      from tasks as t
     where t.job_id = task_needs.job
       and t.task = task_needs.task;
    return case
        when it.state in ('stuck', 'paused') then 'resume'
        when it.state = 'delayed' and it.due_at = 'infinity' then case it.name when '$schedule' then 'resume_schedule'
                                                                               else 'resume' end
        when it.state = 'ready' and queue_is_paused(it.queue) then 'resume_queue'
        when it.state = 'ready' and it.queue <> '$sql' and lacks_worker(it.queue, it.pinned_version, null, null) then 'worker'
        when it.state = 'retrying' and it.failure ->> 'code' = 'PD406'
             and lacks_worker(it.queue, it.pinned_version, it.kind::text, it.name) then 'worker'
        when it.state = 'waiting' and it.due_at = 'infinity' and it.awaits = '{}' and not waits_for_others(it.job_id, it.task)
        then coalesce((select min(r.needs) from live_requests(it.job_id, it.task, true) as r),
                      case when missing_workers(it.job_id, it.task) <> '{}' then 'worker' end) end;
end
$$;
comment on function @extschema@.task_needs(text, text) is
    'Return what a task needs that does not come by itself: resume if it is stuck or paused, resume_queue if its queue is paused, resume_schedule if it is a paused schedule, worker if none has registered; the same for its requests, if it waits for nothing else; null if nothing.';


create function @extschema@.status(id text) returns @extschema@.job_status
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    it job_status;
begin
    select j.id, j.entity, j.workflow, j.status, j.version, j.run,
           case when j.status = 'running' then task_reason(j.id, j.run::text || '/main') end,
           case when j.status = 'running' then task_needs(j.id, j.run::text || '/main') end,
           j.created_at, j.updated_at, j.finished_at,
           (select format('%s: %s', t.task, left(coalesce(t.stuck_reason ->> 'message', t.stuck_reason::text), 1000))
              from tasks as t
             where t.job_id = j.id
               and t.stuck_reason is not null
             order by t.task <> j.run::text || '/main', t.task
             limit 1),
           left(coalesce(nullif(concat_ws(': ', j.error ->> 'type',
                                          case when j.error ->> 'message' like '$c_:%' then 'sealed'
                                               else j.error ->> 'message' end), ''),
                         failure_words(j.error)), 1000)
      into it
      from jobs as j
     where j.id = status.id;
    if not found then
        raise exception 'job % does not exist', quote_literal(left(status.id, 200))
            using errcode = 'PD401', detail = 'No job has this id.', hint = 'Check the id, or start() the workflow first.';
    end if;
    return it;
end
$$;
comment on function @extschema@.status(text) is
    'Return where a job stands: what it waits for in words, what it needs that does not come by itself (resume, resume_queue, resume_schedule or worker), which task is stuck and why, and why the job has failed. Errors: PD401.';
