-- Tasks, compared: whether code that runs again asks for what it asked for before. The journal only records answers.

create function @extschema@.pending_requests(
    job              text,
    task             text,
    out key          text,
    out fingerprint  text
) returns setof record
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select t.asker_key, t.fingerprint
      from tasks as t
     where t.job_id = pending_requests.job
       and t.task > pending_requests.task || '/'
       and t.task < pending_requests.task || '0'
       and t.asker_task = pending_requests.task
     union all
    select c.asker_key, c.fingerprint
      from tasks as c
     where c.asker_job = pending_requests.job
       and c.asker_task = pending_requests.task
       and c.asker_job <> c.job_id
     union all
    select w.key, w.fingerprint
      from conditions as w
     where w.job_id = pending_requests.job
       and w.task = pending_requests.task
     union all
    select i.key, i.fingerprint
      from items as i
     where i.job_id = pending_requests.job
       and i.task = pending_requests.task
       and i.is_open;
end
$$;
comment on function @extschema@.pending_requests(text, text) is
    'Return the keys of what others are doing for a task, with the fingerprints of the requests.';


-- A hook that has answered early continues.
create function @extschema@.open_requests(
    job              text,
    task             text,
    facts            jsonb,
    out key          text,
    out fingerprint  text
) returns setof record
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    consumed bigint[] := coalesce(messages_of(nullif(open_requests.facts, 'null')), '{}');
begin
    return query
    select w.key, w.fingerprint
      from pending_requests(open_requests.job, open_requests.task) as w
     where not is_answered(open_requests.job, open_requests.task, w.key)
     union all
    select i.key, i.fingerprint
      from inbox as i
     where i.job_id = open_requests.job
       and i.task = open_requests.task
       and i.key <> '$cancel'
       and i.consumed_at is null
       and i.id <> all(consumed);
end
$$;
comment on function @extschema@.open_requests(text, text, jsonb) is
    'Return the keys and fingerprints of what a task has asked for, without the answers that it was told, or is told by these facts.';


-- A task that was asked to cancel may live on; code that has withdrawn its request says so again. An operator may accept
-- other arguments, but no other request. Volatile, so that it sees which answers a turn has taken that was committed while
-- this one waited for the task.
create function @extschema@.open_failure(turn jsonb) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    job text := open_failure.turn ->> 'job';
    task text := open_failure.turn ->> 'task';
    awaited jsonb := open_failure.turn -> 'open';
begin
    if (jsonb_typeof(awaited) = 'object') is not true then
        return null;
    end if;
    -- A key is looked up among all that was said in one step, however many hooks are withdrawn at once.
    awaited := awaited || coalesce((
        select jsonb_object_agg(c.key, null)
          from jsonb_array_elements_text(nullif(open_failure.turn -> 'cancels', 'null')) as c (key)
         where c.key is not null), '{}');
    return (
        select make_failure(
                   'PD201', 'NonDeterminism', format('the code of %s/%s does not match what it has asked for', job, task),
                   format('It has asked for %s%s, but %s.', o.key, ' (arguments ' || o.fingerprint || ')',
                          case when awaited ? o.key then format('now asks for it with other arguments (%s)', awaited ->> o.key)
                               else 'does not ask for it now' end),
                   'If the code has changed, run the code this began with, guard the change with patched(), or resume with accept_changes '
                   'if only arguments differ. If it has not, get the time and random values from perdure, and sort sets.')
          from open_requests(job, task, open_failure.turn -> 'facts') as o
         where not awaited ? o.key
            or awaited ->> o.key <> o.fingerprint
               and not exists (select from tasks as t where t.job_id = job and t.task = open_failure.turn ->> 'task'
                                  and t.accept_changes)
         order by o.key collate "C"
         limit 1);
end
$$;
comment on function @extschema@.open_failure(jsonb) is
    'Return that code which runs again from its journal waits for other things than it has asked for (PD201), or null. [P9]';


-- A holder that has lost count of its facts must not take them for recorded. A turn that ends a lease is never repeated by
-- its holder: nothing is held then. A message that is still open was not taken before. It is volatile, so that it sees the
-- facts of a turn that was committed while this one waited for its task: the repetition of a call whose reply is late.
create function @extschema@.repetition_failure(
    job       text,
    task      text,
    place     integer,
    state     text,
    facts     jsonb
) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if repetition_failure.state in ('keep', 'park')
        and not exists (
        select from inbox as i where i.id = any(messages_of(repetition_failure.facts)) and i.consumed_at is null)
        and not exists (
        select
          from jsonb_array_elements(case jsonb_typeof(repetition_failure.facts) when 'array' then repetition_failure.facts
                                    else '[]' end) with ordinality as s (fact, nth)
          left join journal as f on f.job_id = any(array[repetition_failure.job]) and f.task = repetition_failure.task
                                and f.seq = repetition_failure.place + s.nth
         -- A fact that takes a message may leave out its key, and that of the message counts if it has one.
         where f.seq is null
            or s.fact ->> 'op' is distinct from f.op
            or s.fact ->> 'key' is distinct from f.key
               and (s.fact ->> 'message' is null
                    or s.fact ->> 'key' is not null and not f.is_answer and f.key is distinct from '$cancel')) then
        return null;
    end if;
    return make_failure(
        'PD107', 'InvalidArgument',
        format('the turn begins at position %s, where other facts are recorded', repetition_failure.place),
        'The task has been told more facts than that. So the turn would repeat an earlier one, but it is another.',
        'Give as position how many facts are recorded. If you have lost count, run it again from the journal.');
end
$$;
comment on function @extschema@.repetition_failure(text, text, integer, text, jsonb) is
    'Return that a turn with an earlier position was not applied before (PD107), or null. [P12]';
