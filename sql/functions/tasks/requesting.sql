-- Tasks, requested: what a task asks others to do. A request whose task or answer exists, on its way or taken, inserts
-- nothing: a coordinator that crashed after its hook had finished does not run the hook again. [P4] [P12]

create function @extschema@.request_tasks(turns @extschema@.turn[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    queues text[];
begin
    with requested as (
        insert into tasks as t (job_id, task, kind, name, queue, priority, due_at, args, signal, detached, pinned_version,
                                limit_key, paused, asker_job, asker_task, asker_key, fingerprint)
        select r.job, requested_task(r.task, q.key, coalesce(q.detached, false)), coalesce(q.kind, 'hook'), q.name,
               versioned_queue(coalesce(q.queue, 'default'), q.pinned_version),
               coalesce(q.priority, 5::smallint), coalesce(q.due_at, request_tasks.asked_at), coalesce(q.args, '[]'), q.signal,
               coalesce(q.detached, false), q.pinned_version, coalesce(q.limit_key, ''), j.paused,
               case when q.detached then null else r.job end,
               case when q.detached then null else r.task end,
               case when q.detached then null else q.key end, q.fingerprint
          from unnest(request_tasks.turns) as r
          join jobs as j on j.id = any(array[r.job])
         cross join jsonb_to_recordset(r.requests) as q (
               key text, kind text, name text, args jsonb, queue text, priority smallint, due_at timestamptz, signal text,
               detached boolean, pinned_version text, limit_key text, fingerprint text)
         where coalesce(q.kind, 'hook') in ('hook', 'activity')
           and not exists (select from inbox as i where i.job_id = r.job and i.task = r.task and i.key = q.key offset 0)
           and not exists (
            select from journal as f where f.job_id = r.job and f.task = r.task and f.key = q.key and f.is_answer offset 0)
           and not (coalesce(q.detached, false) and task_has_ended(r.job, requested_task(r.task, q.key, true)))
            on conflict on constraint one_task_per_name do nothing
        returning t.queue
    )
    select array_agg(distinct a.queue) into queues from requested as a;
    return coalesce(queues, '{}');
end
$$;
comment on function @extschema@.request_tasks(@extschema@.turn[], timestamptz) is
    'Insert the hooks and activities that turns ask for; return their queues.';


create function @extschema@.is_requested(job text, task text, key text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return task_exists(is_requested.job, requested_task(is_requested.task, is_requested.key, false))
        or exists (
            select
              from jobs as j
              join tasks as t on t.job_id = any(array[j.id]) and t.task = j.run::text || '/main'
             where j.parent = is_requested.job
               and j.asked_as = is_requested.task || '/' || is_requested.key
               and t.asker_key = is_requested.key);
end
$$;
comment on function @extschema@.is_requested(text, text, text) is
    'Tell whether a task waits for a hook, activity or child that it has asked for under a key.';


-- Nobody waits for a detached child: the key of its request is stored with the task. A child that somebody waited for is
-- useless when the asker is gone, and is asked to cancel; a detached one continues. A child is known by its request, not
-- by its id: code that runs again may draw another id. Children of an earlier job with the parent's id do not belong to
-- the parent: that job has ended, so no child that somebody waits for is confused with them; and they are older than the
-- parent, which tells detached ones apart.
create function @extschema@.wanted_children(turns @extschema@.turn[]) returns @extschema@.new_job[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (coalesce(q.id, child_id(r.job, r.task, q.key)), q.name, q.entity, coalesce(q.args, '[]'), coalesce(q.context, '{}'),
                coalesce(q.queue, 'default'), coalesce(q.priority, 5), q.due_at, q.headers, q.pinned_version,
                null, null, r.job, case when q.detached then r.task || '/' || q.key else r.task end,
                case when q.detached then null else q.key end, q.limit_key,
                coalesce(q.on_parent_end, case when q.detached then 'continue' else 'cancel' end), q.timeout,
                q.fingerprint)::new_job
          from unnest(wanted_children.turns) as r
         cross join rows from (jsonb_to_recordset(r.requests) as (
                   key text, kind text, id text, name text, entity text, args jsonb, context jsonb, queue text,
                   priority integer, due_at timestamptz, headers jsonb, pinned_version text, detached boolean,
                   limit_key text, on_parent_end text, timeout interval, fingerprint text)) with ordinality as q
         where q.kind = 'job'
           and not is_answered(r.job, r.task, q.key)
           and not exists (
            select
              from jobs as p
              join jobs as c on c.parent = p.id and c.asked_as = r.task || '/' || q.key
             where p.id = r.job
               and (c.status = 'running' or q.detached and c.created_at >= p.created_at)
            offset 0)
         order by r.number, q.ordinality);
end
$$;
comment on function @extschema@.wanted_children(@extschema@.turn[]) is
    'Return the children that turns ask for and that do not exist yet, in the order of the requests.';


create function @extschema@.refuse_children(wanted @extschema@.new_job[], refused_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform insert_answers(array(
        select ending_turn(
                   w.id, '1/main', 'failed',
                   make_failure('PD402', 'JobExists', format('job %s exists already', quote_literal(w.id)),
                                'The child was not started: its id belongs to another job.', 'Give the child another id.'),
                   asker_job => w.parent, asker_task => w.asker_task, asker_key => w.asker_key, fingerprint => w.fingerprint)
          from unnest(refuse_children.wanted) as w
         where w.asker_key is not null
           and not exists (
            select
              from tasks as t
             where t.job_id = w.id
               and t.kind = 'coordinator'
               and t.asker_job = w.parent
               and t.asker_task = w.asker_task
               and t.asker_key = w.asker_key
            offset 0)), refuse_children.refused_at);
end
$$;
comment on function @extschema@.refuse_children(@extschema@.new_job[], timestamptz) is
    'Answer requests for children whose ids belong to other jobs.';


-- A child whose first memory breaks the contract of its entity is created anyway, and has failed: a detached child can
-- report that to nobody else. [P10]
create function @extschema@.fail_broken_children(
    wanted     @extschema@.new_job[],
    failed_at  timestamptz
) returns @extschema@.new_job[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    firsts new_job[] := first_per_id(fail_broken_children.wanted);
    broken turn[] := array(
        select ending_turn(w.id, '1/main', 'failed', f.failure, asker_job => w.parent, asker_task => w.asker_task,
                           asker_key => w.asker_key, fingerprint => w.fingerprint)
          from unnest(firsts) as w
         cross join lateral (select contract_failure(w.entity, w.context) as failure offset 0) as f
         where w.context <> '{}'
           and f.failure is not null);
    made text[];
begin
    if broken = '{}' then
        return fail_broken_children.wanted;
    end if;
    made := insert_jobs(array(
        select (w.id, w.workflow, w.entity, w.args, '{}', w.queue, w.priority, w.due_at, w.headers, w.pinned_version, w.key,
                w.if_exists, w.parent, w.asker_task, w.asker_key, w.limit_key, w.on_parent_end, null, null)::new_job
          from unnest(firsts) as w
         where w.id in (select r.job from unnest(broken) as r)), fail_broken_children.failed_at);
    broken := array(select r from unnest(broken) as r where r.job = any(made));
    perform finish_jobs(broken, fail_broken_children.failed_at);
    perform insert_answers(array(select r from unnest(broken) as r where r.asker_key is not null), fail_broken_children.failed_at);
    return array(
        select w
          from unnest(fail_broken_children.wanted) as w
         where not exists (
            select
              from unnest(broken) as r
             where r.job = w.id
               and (r.asker_job, r.asker_task) = (w.parent, w.asker_task)
               and r.asker_key is not distinct from w.asker_key));
end
$$;
comment on function @extschema@.fail_broken_children(@extschema@.new_job[], timestamptz) is
    'Fail the children whose first memory breaks a contract (PD109), and return the others.';


create function @extschema@.request_children(turns @extschema@.turn[], asked_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wanted new_job[] := wanted_children(request_children.turns);
    firsts new_job[];
    made text[];
begin
    if wanted = '{}' then
        return '{}'::text[];
    end if;
    wanted := fail_broken_children(wanted, request_children.asked_at);
    firsts := first_per_id(wanted);
    made := insert_jobs(firsts, request_children.asked_at);
    perform insert_coordinators(firsts, made, request_children.asked_at);
    if cardinality(made) < cardinality(wanted) then
        perform refuse_children(wanted, request_children.asked_at);
    end if;
    return queues_of_starts(wanted);
end
$$;
comment on function @extschema@.request_children(@extschema@.turn[], timestamptz) is
    'Start the children that turns ask for; return their queues.';
