-- Advancing: workers report what became of the tasks they hold. One call and one commit for a batch of turns of different
-- jobs; then, if the worker has room, the next tasks. A batch never waits for an existing job: turns of jobs that
-- somebody else has locked are answered `busy`, and the worker sends them again, waiting, with others of the job.

create function @extschema@.receiving_jobs(turns @extschema@.turn[], facts @extschema@.fact[]) returns text[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select f.target from unnest(receiving_jobs.facts) as f where f.signal is not null
         union
        select r.asker_job
          from unnest(receiving_jobs.turns) as r
         where r.asker_job is not null
           and r.state in ('done', 'failed', 'cancelled')
         union
        select r.job from unnest(receiving_jobs.turns) as r where r.requests is not null);
end
$$;
comment on function @extschema@.receiving_jobs(@extschema@.turn[], @extschema@.fact[]) is
    'Return the jobs in whose inboxes turns may have left something.';


-- Children first, since the turn that asks for them may also signal them; then facts; then what turns leave for others;
-- then the fate of each task itself, so that a task which parks sees what others in the same batch have sent it.
create function @extschema@.apply_turns(
    inout turns   @extschema@.turn[],
    locked        text[],
    applied_at    timestamptz,
    inout facts   @extschema@.fact[],
    out arrivals  @extschema@.arrival[],
    out topics    text[]
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    applied turn[] := turns;
    batch record;
begin
    select bool_or(r.requests is not null) as has_requests, bool_or(r.cancels is not null) as has_cancels,
           bool_or(r.state in ('done', 'failed', 'cancelled')) as has_ends, bool_or(r.awaits is not null) as has_awaits,
           bool_or(r.state not in ('done', 'failed', 'cancelled')) as has_live_tasks, bool_or(r.state <> 'keep') as frees_slots,
           bool_or(r.state = 'continue') as has_continues,
           bool_or(r.state = 'done' and r.awaits <> '{}') as may_continue, count(*) filter (where r.verdict = 'apply') as to_apply,
           bool_or(r.until is not null or r.state in ('retry', 'release')) as has_due_tasks,
           bool_or(r.state = 'release' and lacked_code_or_key(r.value)) as lacks_code,
           bool_or(r.requests is not null or r.asker_job is not null or r.facts @? '$[*].signal') as reaches_others
      into batch
      from unnest(turns) as r
     where r.verdict in ('apply', 'applied');
    if batch.to_apply < cardinality(turns) then
        applied := array(select r from unnest(turns) as r where r.verdict = 'apply');
    end if;
    if batch.lacks_code then
        applied := pause_for_code(applied, apply_turns.applied_at);
    end if;
    topics := case when batch.frees_slots then freed_queues(applied, apply_turns.applied_at) else '{}'::text[] end
        || case when batch.has_requests then request_children(applied, apply_turns.applied_at) end;
    if facts <> '{}' then
        facts := apply_facts(facts, applied, apply_turns.locked, apply_turns.applied_at);
    end if;
    if batch.has_requests then
        topics := topics || request_tasks(applied, apply_turns.applied_at) || cancel_new_requests(applied, apply_turns.applied_at);
        perform await_conditions(applied, apply_turns.applied_at);
        perform insert_items(applied, apply_turns.applied_at);
    end if;
    if batch.has_cancels then
        perform withdraw_conditions(applied);
        perform withdraw_items(applied);
        topics := topics || cancel_requests(applied, apply_turns.applied_at);
    end if;
    if batch.may_continue then
        turns := continue_for_signals(turns, apply_turns.applied_at);
        applied := continue_for_signals(applied, apply_turns.applied_at);
        batch.has_continues := exists (select from unnest(applied) as r where r.state = 'continue');
    end if;
    if batch.has_ends then
        perform end_tasks(array(select r from unnest(applied) as r where r.state in ('done', 'failed', 'cancelled')),
                          apply_turns.applied_at);
        topics := topics || array(select t.topic || r.job from unnest(applied) as r
                                   cross join unnest('{$job/,$memory/}'::text[]) as t (topic)
                                   where r.kind = 'coordinator' and r.state in ('done', 'failed', 'cancelled'));
    end if;
    if batch.has_continues then
        topics := topics || continue_runs(array(select r from unnest(applied) as r where r.state = 'continue'),
                                          apply_turns.applied_at);
    end if;
    if batch.has_awaits then
        arrivals := find_arrivals(turns);
        if not sees_commits() then
            perform refuse_blind_park(applied, arrivals);
        end if;
    end if;
    if batch.has_live_tasks then
        perform keep_or_park(applied, arrivals, apply_turns.applied_at);
    end if;
    if batch.reaches_others then
        topics := topics || wake_tasks(receiving_jobs(applied, facts), apply_turns.applied_at);
    end if;
    if batch.has_due_tasks then
        perform wake_to_cancel(applied, apply_turns.applied_at);
        topics := topics || queues_of(applied);
    end if;
end
$$;
comment on function @extschema@.apply_turns(@extschema@.turn[], text[], timestamptz, @extschema@.fact[]) is
    'Apply the turns that hold their tasks; return what became of them, what has arrived for them, and whom to notify.';


create function @extschema@.answer_turns(
    turns     @extschema@.turn[],
    facts     @extschema@.fact[],
    arrivals  @extschema@.arrival[]
) returns json
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    plain_answers json;
begin
    if answer_turns.arrivals is null
       and not exists (select from unnest(answer_turns.facts) as f where f.op is not null or f.signal is not null) then
        -- The array is in the order of the numbers.
        plain_answers := (select case when bool_and(r.verdict = 'apply' and r.state not in ('park', 'release'))
                                      then json_agg(json_build_object('state', r.state)) end
                      from unnest(answer_turns.turns) as r);
        if plain_answers is not null then
            return plain_answers;
        end if;
    end if;
    return (
        with answered as (
            select f.turn, json_agg(json_build_array(f.seq, f.ok, f.value) order by f.seq) as answers
              from unnest(answer_turns.facts) as f
             where f.op is not null
                or f.signal is not null
             group by f.turn
        )
        select json_agg(
                   case when r.verdict = 'apply' and t.answers is null and a.messages is null
                             and r.state not in ('park', 'release')
                        then json_build_object('state', r.state)
                        else json_build_object(
                            'state', case when r.verdict = 'applied' then 'keep'
                                          when r.verdict = 'untouched' then 'refused'
                                          when r.verdict <> 'apply' then r.verdict
                                          when r.state = 'park' and a.turn is not null then 'keep'
                                          when r.state = 'park' then 'parked'
                                          when r.state = 'release' then 'released'
                                          else r.state end,
                            'answers', case when r.verdict = 'applied' then answers_after(r.job, r.task, r.position)
                                            else t.answers end,
                            'again', case when r.verdict in ('applied', 'parked') then true end,
                            'messages', a.messages,
                            'error', case when r.verdict = 'untouched' then make_failure(
                                'PD107', 'InvalidArgument', 'the turn does not name the job of its asker',
                                format('The asker belongs to job %s.', r.asker_job), 'Name it in touches.')
                                          when r.verdict = 'refused' then r.failure end) end
                   order by r.number)
          from unnest(answer_turns.turns) as r
          left join answered as t on t.turn = r.number
          left join unnest(answer_turns.arrivals) as a on a.turn = r.number);
end
$$;
comment on function @extschema@.answer_turns(@extschema@.turn[], @extschema@.fact[], @extschema@.arrival[]) is
    'Write one answer for each turn: its new state, the answers of its commands, what has arrived, and whether it was applied before (again). [P12]';


create function @extschema@.apply_batch(turns jsonb, waiting boolean) returns json
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    touched text[] := touched_jobs(apply_batch.turns);
    locked text[] := lock_jobs(touched, apply_batch.waiting);
    held turn[] := judge_turns(apply_batch.turns, touched, missed_jobs(touched, locked));
    applied_at timestamptz := clock();
    facts fact[] := '{}'::fact[];
    judged turn[];
    applied record;
begin
    if apply_batch.turns @? '$[*].facts' then
        facts := read_facts(held, applied_at);
        if exists (select from unnest(facts) as f where f.is_untimely or f.message is not null) then
            perform check_times(held, facts);
            judged := judge_facts(held, facts);
            if judged <> held then
                held := judged;
                facts := read_facts(held, applied_at);
            end if;
        end if;
    end if;
    applied := apply_turns(held, locked, applied_at, facts);
    perform notify_listeners(applied.topics);
    return coalesce(answer_turns(applied.turns, applied.facts, applied.arrivals), '[]');
end
$$;
comment on function @extschema@.apply_batch(jsonb, boolean) is
    'Lock what turns touch, judge the turns, and apply those that hold their tasks.';


create function @extschema@.advance(
    turns      jsonb,
    queues     text[]       default '{}',
    worker     text         default null,
    claim_id   uuid         default null,
    max_tasks  integer      default 0,
    lease_for  interval     default '30 s',
    since      timestamptz  default '-infinity',
    again      boolean      default false,
    waiting    boolean      default false,
    protocol   integer      default 1,
    instance   uuid         default null
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
    token uuid := coalesce(advance.claim_id, gen_random_uuid());
    answers json := '[]'::json;
    claimed claimed_task[] := '{}'::claimed_task[];
    looked_at timestamptz;
    described record;
begin
    if advance.max_tasks is distinct from 0 then
        perform check_claim(advance.queues, advance.worker, advance.lease_for, advance.protocol, advance.instance);
    else
        perform check_protocol(advance.protocol);
        perform check_instance(advance.instance);
    end if;
    perform check_turns(advance.turns);
    if advance.turns <> '[]' then
        perform check_tasks(advance.turns);
        perform lock_ends(advance.turns);
        answers := apply_batch(advance.turns, advance.waiting);
    end if;
    if advance.max_tasks is distinct from 0 then
        looked_at := clock();
        claimed := claim_tasks(advance.queues, advance.worker, token, advance.max_tasks, advance.lease_for, advance.since,
                               advance.again);
    end if;
    described := describe_tasks(claimed);
    return json_build_object(
        'at', clock(),
        'token', token,
        'turns', answers,
        'tasks', described.tasks,
        'since', described.mark,
        'next_due_at', case when advance.max_tasks is distinct from 0 then
                           claim_again_at(advance.queues, advance.worker, described.deliveries, advance.since, looked_at)
                       end);
end
$$;
comment on function @extschema@.advance(jsonb, text[], text, uuid, integer, interval, timestamptz, boolean, boolean, integer, uuid) is
    'Apply a batch of turns in one transaction, then claim up to max_tasks more tasks. Each turn has its own answer, and the call can be repeated. Errors: PD003, PD004, PD104, PD107, PD115, PD505. [P4] [P5] [P6] [P12]';
