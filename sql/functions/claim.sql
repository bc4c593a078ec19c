-- Claiming: a worker takes due tasks, with all that it needs to run them, in one round trip.

create function @extschema@.describe_tasks(
    claimed         @extschema@.claimed_task[],
    out tasks       json,
    out mark        timestamptz,
    out deliveries  integer,
    out in_sql      boolean
)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if describe_tasks.claimed = '{}' then
        tasks := '[]';
        return;
    end if;
    select json_agg(json_build_object(
               'job', t.job, 'task', t.task, 'kind', t.kind, 'name', t.name, 'queue', versioned_queue(t.queue, null),
               'position', t.position,
               'args', case t.kind when 'coordinator' then j.args else t.args end,
               'entity', j.entity, 'workflow', j.workflow, 'run', j.run, 'parent', j.parent, 'headers', j.headers,
               'forked_from', case when t.task = '1/main' then j.forked_from end,
               'pinned_version', t.pinned_version, 'deliveries', t.deliveries, 'attempt', t.attempt, 'asked', t.asked,
               'accept_changes', t.accept_changes, 'signal', t.signal, 'progress', t.progress,
               'failure', case when t.attempt > 0 then last_failure(t.job, t.task) end,
               'asker', case when t.asker_job is not null
                             then json_build_object('job', t.asker_job, 'task', t.asker_task, 'key', t.asker_key) end,
               'started_at', t.started_at, 'told_at', t.told_at,
               'journal', case when t.bytes_so_far <= 4194304 then t.journal end,
               'awaits', t.awaits,
               'messages', coalesce(case when t.position > 0 or t.awaits is not null
                                         then open_messages(t.job, t.task, t.awaits) end, '[]'))
               order by t.ordinality),
           min(t.was_due_at), max(t.deliveries), bool_or(t.queue = '$sql')
      into tasks, mark, deliveries, in_sql
      -- A task that was never held is sent nothing but a request to cancel, and then it awaits something. The worker that
      -- ran a coordinator last has its journal. A long journal, or one after other long ones, is read separately.
      from (select d.*, sum(octet_length(d.journal::text)) over (rows unbounded preceding) as bytes_so_far
              from (select c.*, case when c.position = 0 then '[]'::json
                                     when (c.kind = 'hook' or not c.is_cached) and c.position <= 1000
                                          and journal_size(c.job, c.task) <= 1048576
                                     then journal_rows(c.job, c.task, 0, c.position) end as journal
                      from unnest(describe_tasks.claimed) with ordinality as c
                    offset 0) as d) as t
      join jobs as j on j.id = any(array[t.job]);
end
$$;
comment on function @extschema@.describe_tasks(@extschema@.claimed_task[]) is
    'Write claimed tasks with their arguments, journals and open messages; return also when the first was due, the highest number of deliveries, and whether the database runs one of them.';


create function @extschema@.claim_tasks(
    queues     text[],
    worker     text,
    claim_id   uuid,
    max_tasks  integer,
    lease_for  interval,
    since      timestamptz,
    again      boolean
) returns @extschema@.claimed_task[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    claimed claimed_task[] := '{}'::claimed_task[];
begin
    if claim_tasks.max_tasks <= 0 then
        perform check_rows(claim_tasks.max_tasks);
        return claimed;
    end if;
    if claim_tasks.again then
        claimed := claimed_before(claim_tasks.queues, claim_tasks.claim_id);
    end if;
    if claimed = '{}' then
        -- A day of a lease has 24 hours, also when the clocks are changed.
        claimed := claim_due(claim_tasks.queues, claim_tasks.worker, claim_tasks.claim_id, least(claim_tasks.max_tasks, 1000),
                             extract(epoch from claim_tasks.lease_for) * interval '1 s', coalesce(claim_tasks.since, '-infinity'));
    end if;
    return coalesce(claimed, '{}');
end
$$;
comment on function @extschema@.claim_tasks(text[], text, uuid, integer, interval, timestamptz, boolean) is
    'Lease tasks, or find those that the same call has leased before.';


create function @extschema@.check_claim(
    queues     text[],
    worker     text,
    lease_for  interval,
    protocol   integer,
    instance   uuid
) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- Most claims are plain, and one expression tells so.
    if (check_claim.protocol = 1
        and octet_length(check_claim.worker) between 1 and 200
        and check_claim.worker !~ '[[:cntrl:]]'
        and check_claim.lease_for between interval '1 s' and interval '1 hour') is not true then
        perform check_protocol(check_claim.protocol);
        perform check_name(check_claim.worker, 'a worker');
        perform check_lease(check_claim.lease_for);
    end if;
    perform check_instance(check_claim.instance);
    if check_claim.queues is null then
        raise exception 'a claim needs queues'
            using errcode = 'PD107',
                  detail = 'It was given null.',
                  hint = 'Name the queues that the worker serves.';
    end if;
    perform check_queues(check_claim.queues, check_claim.worker);
end
$$;
comment on function @extschema@.check_claim(text[], text, interval, integer, uuid) is
    'Refuse a claim that cannot be served: PD003 (instance), PD004 (protocol), PD104 (worker), PD107 (queues or lease), PD115 (queues), PD505 (tables).';


-- The mark of a claim lies beyond the dead rows that an old snapshot keeps at the head of the index. It is a hint: one
-- claim a second (or in ten, if such a search is slow), and the last one before a rest, searches from -infinity. Only that
-- claim is told when something is due next. Every claim is told when limits will admit what they hold back, and when to
-- look again after its worker has begun to listen. Of several suspects, one is given at a time.
create function @extschema@.claim_again_at(
    queues      text[],
    worker      text,
    deliveries  integer,
    since       timestamptz,
    looked_at   timestamptz
) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if claim_again_at.deliveries is not null then
        return case when claim_again_at.deliveries > suspect_threshold() then clock() + interval '50 ms' end;
    end if;
    return least(
        look_again_at(claim_again_at.worker),
        case when coalesce(claim_again_at.since, '-infinity') = '-infinity'
             then next_due_at(claim_again_at.queues, claim_again_at.looked_at)
             else next_admission_at(restricted_queues(claim_again_at.queues), claim_again_at.looked_at) end);
end
$$;
comment on function @extschema@.claim_again_at(text[], text, integer, timestamptz, timestamptz) is
    'Return when time alone requires another claim of a worker, given when this one began and how often its tasks were delivered (null if it got none); null if time alone requires none.';


-- If the server crashes it may forget the claim: then the tasks are due again, and the holder is fenced. Whatever the
-- holder records meanwhile brings the claim to disk first. This is not allowed for queues with limits, where the database
-- counts what it hands out, and for tasks that the database runs: a hook that crashes the server would never be
-- recognized as poisonous.
create function @extschema@.allow_asynchronous_commit(queues text[], in_sql boolean) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if allow_asynchronous_commit.in_sql is not true and restricted_queues(allow_asynchronous_commit.queues) = '{}' then
        perform set_config('synchronous_commit', 'off', true);
    end if;
end
$$;
comment on function @extschema@.allow_asynchronous_commit(text[], boolean) is
    'Let the commit of a claim not wait for the disk, if a crash can lose nothing but time.';


create function @extschema@.claim(
    queues     text[],
    worker     text,
    claim_id   uuid         default null,
    max_tasks  integer      default 1,
    lease_for  interval     default '30 s',
    since      timestamptz  default '-infinity',
    again      boolean      default false,
    idle       boolean      default false,
    protocol   integer      default 1,
    instance   uuid         default null,
    durable    boolean      default true
) returns json
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    token uuid := coalesce(claim.claim_id, gen_random_uuid());
    claimed claimed_task[];
    looked_at timestamptz;
    described record;
begin
    perform check_claim(claim.queues, claim.worker, claim.lease_for, claim.protocol, claim.instance);
    looked_at := clock();
    claimed := claim_tasks(claim.queues, claim.worker, token, claim.max_tasks, claim.lease_for, claim.since, claim.again);
    if claim.idle then
        perform set_idle(claim.queues, claim.worker, claimed = '{}');
    end if;
    described := describe_tasks(claimed);
    if not claim.durable then
        perform allow_asynchronous_commit(claim.queues, described.in_sql);
    end if;
    return json_build_object(
        'at', clock(),
        'token', token,
        'tasks', described.tasks,
        'since', described.mark,
        'next_due_at', claim_again_at(claim.queues, claim.worker, described.deliveries, claim.since, looked_at));
end
$$;
comment on function @extschema@.claim(text[], text, uuid, integer, interval, timestamptz, boolean, boolean, integer, uuid, boolean) is
    'Lease up to max_tasks due tasks to a worker. With again, the same call returns the same answer; with idle, the worker is notified when work arrives. A claim that is not durable must be alone in its transaction: after a crash of the server its tasks are due again. Errors: PD003, PD004, PD104, PD107, PD115, PD505. [P6] [P12]';
