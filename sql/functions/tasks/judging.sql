-- Tasks, judged: what a turn may not say, and what it may not ask for, checked before anything is applied.

-- It was checked before that its times can be read and name their zone.
create function @extschema@.option_failure(request jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        case when option_failure.request ->> 'id' is not null
             then chosen_name_failure(option_failure.request ->> 'id', 'the id of a child') end,
        case when option_failure.request ->> 'entity' is not null
             then chosen_name_failure(option_failure.request ->> 'entity', 'an entity') end,
        optional_name_failure(option_failure.request ->> 'signal', 'a signal'),
        optional_name_failure(option_failure.request ->> 'assignee', 'an assignee'),
        value_failure(option_failure.request -> 'payload', 'the payload'),
        case when option_failure.request ->> 'on_parent_end' not in ('continue', 'cancel', 'terminate') then make_failure(
            'PD107', 'InvalidArgument', 'on_parent_end has an unknown value',
            format('It was given %s.', option_failure.request -> 'on_parent_end'), 'Use continue, cancel or terminate.') end,
        optional_name_failure(nullif(option_failure.request ->> 'limit_key', ''), 'a limit key'),
        due_failure((option_failure.request ->> 'due_at')::timestamptz),
        expiry_failure((option_failure.request ->> 'expires_at')::timestamptz),
        case when option_failure.request ->> 'timeout' is not null
             then written_timeout_failure(option_failure.request ->> 'timeout') end,
        case when option_failure.request ->> 'kind' = 'job' and option_failure.request ->> 'if_exists' is not null then make_failure(
            'PD107', 'InvalidArgument', 'a child must be a new job',
            'if_exists asks for an existing job, or for a new run of it.', 'Leave if_exists out.') end,
        value_failure(option_failure.request -> 'headers', 'the headers'),
        case when jsonb_typeof(option_failure.request -> 'context') <> 'null' then coalesce(
            value_failure(option_failure.request -> 'context', 'the memory'),
            argument_failure('set', '{}', option_failure.request -> 'context')) end);
end
$$;
comment on function @extschema@.option_failure(jsonb) is
    'Return what is wrong with the options of a request: names (PD104), values (PD103, PD30x) or options (PD107); or null.';


create function @extschema@.request_failure(request jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    kind text := coalesce(request_failure.request ->> 'kind', 'hook');
    options text[] := '{id,entity,signal,assignee,payload,on_parent_end,limit_key,due_at,expires_at,timeout,if_exists,
                        headers,context}'::text[];
    fields text[] := request_fields(kind);
begin
    return coalesce(
        request_key_failure(request_failure.request ->> 'key'),
        case when kind not in ('hook', 'activity', 'job', 'until', 'item') then make_failure(
            'PD107', 'InvalidArgument', format('there is no kind of request called %s', quote_literal(kind)),
            'Known kinds: hook, activity, job, until, item.', 'Correct the request.') end,
        case when request_failure.request ->> 'priority' !~ '^-?[0-9]{1,9}$'
             then unreadable_failure(request_failure.request, 'a request') end,
        case when kind = 'until' then condition_failure(request_failure.request ->> 'condition')
             else call_failure(case when kind ~ '^[ai]' then 'an ' else 'a ' end || kind, request_failure.request ->> 'name',
                               coalesce(nullif(request_failure.request -> 'args', 'null'), '[]'),
                               coalesce(request_failure.request ->> 'queue', 'default'),
                               case when request_failure.request ->> 'priority' is null then 5
                                    when request_failure.request ->> 'priority' ~ '^-?[0-9]{1,9}$'
                                    then (request_failure.request ->> 'priority')::integer end) end,
        pin_failure(request_failure.request ->> 'pinned_version', request_failure.request ->> 'queue'),
        optional_name_failure(request_failure.request ->> 'fingerprint', 'a fingerprint'),
        case when jsonb_strip_nulls(request_failure.request - fields) <> '{}'
             then field_failure(jsonb_strip_nulls(request_failure.request), fields, 'a request of the kind ' || kind) end,
        -- Most requests have none of these.
        case when request_failure.request ?| '{due_at,expires_at,detached,shielded}'::text[]
             then coalesce(unreadable_failure(request_failure.request, 'a request'),
                           zoneless_failure(request_failure.request, 'a request')) end,
        case when request_failure.request ?| options then option_failure(request_failure.request) end);
end
$$;
comment on function @extschema@.request_failure(jsonb) is
    'Return what is wrong with a request: its names (PD104), values (PD103, PD30x), condition (PD108) or options (PD107); or null.';


-- The same request written twice is one request. Of two different ones, the second would be taken for a repetition of the
-- first: nobody would do it or answer it. [P10]
create function @extschema@.repeated_key_failure(requests jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument',
                   format('several requests of the turn have the key %s', quote_literal(left(r.request ->> 'key', 200))),
                   'A key is for one request: its answer arrives under the key.', 'Give each request a key of its own.')
          from jsonb_array_elements(repeated_key_failure.requests) as r (request)
         group by r.request ->> 'key'
        having count(*) > 1 and count(distinct r.request) > 1
         order by r.request ->> 'key'
         limit 1);
end
$$;
comment on function @extschema@.repeated_key_failure(jsonb) is
    'Return that different requests of a turn have the same key (PD107), or null.';


create function @extschema@.await_failure(awaits text[]) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select j.failure
          from unnest(await_failure.awaits) as a (name)
         cross join lateral (select name_failure(a.name, 'a signal') as failure offset 0) as j
         where j.failure is not null
         limit 1);
end
$$;
comment on function @extschema@.await_failure(text[]) is
    'Return that no signal can have a name that is awaited (PD104), or null.';


-- What a turn may not say, checked before anything is applied.
create function @extschema@.turn_failure(state text, facts jsonb, requests jsonb, value jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if turn_failure.state is null or turn_failure.state not in
        ('keep', 'park', 'done', 'failed', 'cancelled', 'retry', 'stuck', 'release', 'continue') then
        return make_failure(
            'PD107', 'InvalidArgument', format('a turn cannot end as %s', coalesce(quote_literal(turn_failure.state), 'null')),
            'Known states: keep, park, done, failed, cancelled, retry, stuck, release, continue.', 'Correct the turn.');
    end if;
    if turn_failure.requests is null
        and (turn_failure.facts is null or value_failure(turn_failure.facts, 'facts') is null) then
        return case when turn_failure.value is not null then value_failure(turn_failure.value, 'the result') end;
    end if;
    -- Something is large, or suspicious: each part is checked by itself.
    return coalesce(
        value_failure(turn_failure.value, 'the result'),
        (select j.failure
           from jsonb_array_elements(turn_failure.facts) as f (fact)
          cross join lateral (
            select case when value_failure(f.fact, 'a fact') is not null
                        then coalesce(value_failure(f.fact -> 'value', coalesce('the value of ' || left(f.fact ->> 'key', 200), 'a fact')),
                                      value_failure(f.fact - 'value', 'what a fact says beside its value')) end as failure
            offset 0) as j
          where j.failure is not null
          limit 1),
        (select j.failure || jsonb_build_object('detail', concat(
                    'It is asked for as ' || quote_literal(left(q.request ->> 'key', 40)) || '. ', j.failure ->> 'detail'))
           from jsonb_array_elements(turn_failure.requests) as q (request)
          cross join lateral (select request_failure(q.request) as failure offset 0) as j
          where j.failure is not null
          limit 1),
        case when jsonb_array_length(turn_failure.requests) > 1 then repeated_key_failure(turn_failure.requests) end);
end
$$;
comment on function @extschema@.turn_failure(text, jsonb, jsonb, jsonb) is
    'Return what is wrong with a turn as a whole (PD104, PD107, PD30x), or null.';


create function @extschema@.continue_failure(kind text, args jsonb, failure jsonb) returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        case when continue_failure.kind <> 'coordinator' then make_failure(
            'PD107', 'InvalidArgument', format('a turn of a task of the kind %s cannot end as continue', continue_failure.kind),
            'Only a run of a coordinator has a next one.', 'Use done or retry.') end,
        call_failure('a workflow', 'any', coalesce(continue_failure.args, '[]'), 'default', 5),
        value_failure(continue_failure.failure, 'the failure'));
end
$$;
comment on function @extschema@.continue_failure(text, jsonb, jsonb) is
    'Return what is wrong with a turn that begins the next run: its kind (PD107), arguments or failure (PD103, PD30x); or null.';


-- Volatile, so that it sees which answers a turn has taken that was committed while this one waited for the task.
create function @extschema@.wait_failure(
    job       text,
    task      text,
    facts     jsonb,
    requests  jsonb,
    cancels   jsonb
) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    withdrawn text[] := array(select k.key from jsonb_array_elements_text(nullif(wait_failure.cancels, 'null')) as k (key)
                               where k.key is not null);
begin
    -- Everything is read in the way in which it will be applied: a key may be a number, and a boolean a text. A request
    -- that was answered, or whose child exists, makes nothing; whether the task waits for that child is looked for below.
    if exists (select from jsonb_to_recordset(nullif(wait_failure.requests, 'null')) as q (key text, kind text, detached boolean)
                where q.detached is not true
                  and not coalesce(q.kind in ('until', 'item') and q.key = any(withdrawn), false)
                  and not is_answered(wait_failure.job, wait_failure.task, q.key)
                  and not exists (select from jobs as c
                                   where q.kind = 'job' and c.parent = wait_failure.job and c.status = 'running'
                                     and c.asked_as = wait_failure.task || '/' || q.key))
        or exists (select from tasks as t
                    where t.job_id = wait_failure.job and t.asker_task = wait_failure.task
                      and t.task > wait_failure.task || '/' and t.task < wait_failure.task || '0'
                      and not (t.signal is not null and is_answered(wait_failure.job, wait_failure.task, t.asker_key)))
        or exists (select from inbox as i
                    where i.job_id = wait_failure.job and i.task = wait_failure.task and i.consumed_at is null
                      and i.id <> all(coalesce((select messages_of(wait_failure.facts)), '{}')))
        or exists (select from conditions as c
                    where c.job_id = wait_failure.job and c.task = wait_failure.task
                      and c.key <> all(withdrawn))
        or exists (select from items as p
                    where p.job_id = wait_failure.job and p.task = wait_failure.task and p.is_open
                      and p.key <> all(withdrawn))
        or exists (select from tasks as c
                    where c.asker_job = wait_failure.job and c.asker_task = wait_failure.task
                      and c.asker_job <> c.job_id) then
        return null;
    end if;
    return make_failure(
        'PD107', 'InvalidArgument', 'the task would wait for nothing',
        'It awaits no signal and no time, and nothing that it has asked for is open.',
        'Let it wait for a signal (awaits), for a time (until), or for what it asks for.');
end
$$;
comment on function @extschema@.wait_failure(text, text, jsonb, jsonb, jsonb) is
    'Return that a held task which parks without signals or a time would sleep for ever (PD107), or null.';


create function @extschema@.judge_facts(turns @extschema@.turn[], facts @extschema@.fact[]) returns @extschema@.turn[]
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    judged turn[] := judge_facts.turns;
    late record;
begin
    -- A loop: this happens when a clock was set back, or two tasks of one job took the same signal.
    for late in
        select f.turn, case when bool_or(f.is_untimely) then 'replay' else 'stale' end as verdict
          from (select g.turn, g.is_untimely,
                       g.message is not null and g.turn > min(g.turn) over (partition by g.job, g.message) as is_taken
                  from unnest(judge_facts.facts) as g) as f
         where f.is_untimely
            or f.is_taken
         group by f.turn
    loop
        judged[late.turn].verdict := late.verdict;
    end loop;
    return judged;
end
$$;
comment on function @extschema@.judge_facts(@extschema@.turn[], @extschema@.fact[]) is
    'Send back turns whose facts lie in the future or before the last one, and those that consume what another turn of the batch takes: their holders run again from the journal. [P5] [P9]';
