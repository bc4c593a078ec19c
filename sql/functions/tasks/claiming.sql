-- Tasks, claimed: how they are created, and how workers take them. Claiming sets due_at to the end of the lease, so a
-- crash needs no recovery: the task is due again.

create function @extschema@.insert_coordinators(
    wanted      @extschema@.new_job[],
    made        text[],
    started_at  timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into tasks (job_id, task, kind, name, queue, priority, due_at, pinned_version, limit_key, paused, asker_job,
                       asker_task, asker_key, fingerprint)
    select w.id, j.run::text || '/main', 'coordinator', w.workflow, versioned_queue(w.queue, w.pinned_version), w.priority,
           coalesce(w.due_at, insert_coordinators.started_at), w.pinned_version, coalesce(w.limit_key, ''),
           j.paused,
           case when w.asker_key is not null then w.parent end,
           case when w.asker_key is not null then w.asker_task end, w.asker_key, w.fingerprint
      from unnest(insert_coordinators.wanted) as w
      join unnest(insert_coordinators.made) as n (id) on n.id = w.id
      join jobs as j on j.id = any(array[w.id])
     where w.workflow is not null;
    if not exists (select from unnest(insert_coordinators.wanted) as w where w.timeout is not null) then
        return;
    end if;
    -- Beneath the coordinator, so that it ends with the run; a run that continues takes it along. A deadline does not
    -- wait behind hooks of users on the same queue, however many there are.
    insert into tasks (job_id, task, kind, name, queue, priority, due_at)
    select w.id, j.run::text || '/main/$deadline', 'hook', '$deadline', '$sql', 0,
           time_after(greatest(w.due_at, insert_coordinators.started_at), w.timeout)
      from unnest(insert_coordinators.wanted) as w
      join unnest(insert_coordinators.made) as n (id) on n.id = w.id
      join jobs as j on j.id = any(array[w.id])
     where w.timeout is not null;
end
$$;
comment on function @extschema@.insert_coordinators(@extschema@.new_job[], text[], timestamptz) is
    'Insert the first task of each run that was begun, and its deadline.';


create function @extschema@.queues_of_starts(wanted @extschema@.new_job[]) returns text[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select versioned_queue(w.queue, w.pinned_version) from unnest(queues_of_starts.wanted) as w
         union all
        select '$sql' from unnest(queues_of_starts.wanted) as w where w.timeout is not null);
end
$$;
comment on function @extschema@.queues_of_starts(@extschema@.new_job[]) is
    'Return the queues on which starts leave something: that of each coordinator, and that of deadlines.';


create function @extschema@.insert_hook(
    id              text,
    task            text,
    name            text,
    args            jsonb,
    queue           text,
    priority        integer,
    due_at          timestamptz,
    limit_key       text,
    pinned_version  text
) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into tasks (job_id, task, kind, name, queue, priority, due_at, args, detached, pinned_version, limit_key, paused)
    values (insert_hook.id, insert_hook.task, 'hook', insert_hook.name,
            versioned_queue(insert_hook.queue, insert_hook.pinned_version), insert_hook.priority, insert_hook.due_at,
            insert_hook.args, true, insert_hook.pinned_version, coalesce(insert_hook.limit_key, ''),
            left(insert_hook.name, 1) <> '$' and exists (select from jobs as j where j.id = insert_hook.id and j.paused))
        on conflict on constraint one_task_per_name do nothing;
    return found;
end
$$;
comment on function @extschema@.insert_hook(text, text, text, jsonb, text, integer, timestamptz, text, text) is
    'Insert the task of a hook from outside on a locked job; return false if it exists.';


-- Queues with limits are searched before those without. Both searches skip suspects, which nevertheless take up room. If
-- there are any, which is rare, one of them is chosen, and the search continues behind the rest.
create function @extschema@.find_claimable(
    queues      text[],
    restricted  text[],
    limits      @extschema@.queue_limits[],
    worker      text,
    max_tasks   integer,
    since       timestamptz,
    now_at      timestamptz
) returns @extschema@.due_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    search record;
    suspect due_task[];
    room integer;
begin
    if find_claimable.restricted = '{}' then
        search := find_due(find_claimable.queues, find_claimable.max_tasks, find_claimable.since, find_claimable.now_at, false);
        if search.suspects = 0 then
            return search.due;
        end if;
    end if;
    suspect := find_suspect(unpaused_queues(find_claimable.queues), find_claimable.worker, find_claimable.now_at);
    room := find_claimable.max_tasks - cardinality(suspect);
    if find_claimable.restricted <> '{}' then
        return suspect || choose_due(find_claimable.queues, find_claimable.restricted, find_claimable.limits, room,
                                     find_claimable.now_at);
    end if;
    search := find_due(find_claimable.queues, room, find_claimable.since, find_claimable.now_at, true);
    return suspect || search.due;
end
$$;
comment on function @extschema@.find_claimable(text[], text[], @extschema@.queue_limits[], text, integer, timestamptz, timestamptz) is
    'Lock the tasks of queues that a worker may claim, best first, within the limits of the queues.';


create function @extschema@.claim_due(
    queues     text[],
    worker     text,
    token      uuid,
    max_tasks  integer,
    lease_for  interval,
    since      timestamptz
) returns @extschema@.claimed_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    restricted text[] := restricted_queues(claim_due.queues);
    limits queue_limits[] := lock_limits(restricted);
    claimed_at timestamptz := clock();
    chosen due_task[];
    leased record;
begin
    -- A loop: if all that was found had to be parked, other tasks may be due behind it.
    loop
        chosen := find_claimable(claim_due.queues, restricted, limits, claim_due.worker, claim_due.max_tasks, claim_due.since,
                                 claimed_at);
        if chosen = '{}' then
            return null;
        end if;
        leased := lease_due(chosen, claim_due.worker, claim_due.token, claim_due.lease_for, claimed_at);
        exit when leased.claimed is not null or leased.parked = 0;
    end loop;
    if limits <> '{}' and leased.claimed is not null then
        perform record_claims(limits, chosen, leased.claimed, claimed_at);
        perform spend_key_tokens(limits, chosen, leased.claimed, claimed_at);
    end if;
    return leased.claimed;
end
$$;
comment on function @extschema@.claim_due(text[], text, uuid, integer, interval, timestamptz) is
    'Lease due tasks to a worker, best first, within the limits of their queues.';


create function @extschema@.claimed_before(queues text[], token uuid) returns @extschema@.claimed_task[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (t.job_id, t.task, t.kind, t.name, t.queue, t.position, t.args, t.deliveries, t.attempt, t.asked,
                coalesce(t.awaits, '{}'), t.accept_changes, t.pinned_version, t.signal, t.asker_job, t.asker_task,
                t.asker_key, t.started_at, t.told_at, false, null, t.progress)::claimed_task
          from tasks as t
         where t.queue = any(claimed_before.queues)
           and t.token = claimed_before.token);
end
$$;
comment on function @extschema@.claimed_before(text[], uuid) is
    'Find the tasks that an earlier call with this token took and still holds. [P12]';
