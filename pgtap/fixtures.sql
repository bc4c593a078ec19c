-- Fixtures: the functions with which tests prepare data and act. Loaded once, after pgTAP and into its schema. Every
-- worker claims under one token, md5(its name), so that a test can name the worker instead of copying uuids.

create function given(result anyelement) returns void
language plpgsql
as $$
begin
end
$$;
comment on function given(anyelement) is 'Run something whose result does not matter: given(start(...)).';


-- The clock is replaced inside the test's transaction; the rollback restores it.
create function the_time_is(at timestamptz) returns void
language plpgsql
as $$
begin
    perform set_config('tap.time', the_time_is.at::text, true);
    create or replace function perdure.clock() returns timestamptz
    language plpgsql
    volatile
    parallel safe
    set search_path = pg_catalog, perdure, pg_temp
    as 'begin return current_setting(''tap.time'')::timestamptz; end';
end
$$;
comment on function the_time_is(timestamptz) is 'Stop the clock of the app at a time.';


create function time_passes(by interval) returns void
language plpgsql
as $$
begin
    perform set_config('tap.time', (current_setting('tap.time')::timestamptz + time_passes.by)::text, true);
end
$$;
comment on function time_passes(interval) is 'Move the stopped clock.';


create function token_of(worker text) returns uuid
language plpgsql
as $$
begin
    return md5(token_of.worker)::uuid;
end
$$;
comment on function token_of(text) is 'Return the token under which a worker claims in these tests.';


create function take(
    worker     text      default 'ada',
    queues     text[]    default '{default}',
    max_tasks  integer   default 1,
    lease_for  interval  default '30 s',
    claim_as   text      default null
) returns jsonb
language plpgsql
as $$
begin
    return claim(take.queues, take.worker, token_of(coalesce(take.claim_as, take.worker)), take.max_tasks,
                 take.lease_for)::jsonb -> 'tasks';
end
$$;
comment on function take(text, text[], integer, interval, text) is
    'Claim tasks for a worker; returns them. claim_as names another claim of the same worker.';


create function have_held_job(id text, context jsonb default '{}', worker text default 'ada') returns void
language plpgsql
as $$
begin
    perform start('research', id => have_held_job.id, context => have_held_job.context, queue => have_held_job.id);
    perform take(have_held_job.worker, array[have_held_job.id]);
end
$$;
comment on function have_held_job(text, jsonb, text) is
    'Start a job on a queue of its own, and let a worker take its coordinator.';


create function a_turn(
    job        text,
    task       text         default '1/main',
    state      text         default 'keep',
    facts      jsonb        default null,
    requests   jsonb        default null,
    cancels    jsonb        default null,
    awaits     text[]       default null,
    until      timestamptz  default null,
    value      jsonb        default null,
    touches    text[]       default null,
    worker     text         default 'ada',
    seen       integer      default null
) returns jsonb
language plpgsql
as $$
begin
    return jsonb_strip_nulls(jsonb_build_object(
        'job', a_turn.job, 'task', a_turn.task, 'token', token_of(a_turn.worker), 'state', a_turn.state,
        'until', a_turn.until,
        'position', coalesce(a_turn.seen, (the_task(a_turn.job, a_turn.task) ->> 'position')::integer, 0)))
        || jsonb_build_object('facts', a_turn.facts, 'requests', a_turn.requests, 'cancels', a_turn.cancels,
                              'awaits', a_turn.awaits, 'value', a_turn.value, 'touches', a_turn.touches);
end
$$;
comment on function a_turn(text, text, text, jsonb, jsonb, jsonb, text[], timestamptz, jsonb, text[], text, integer) is
    'Write a turn for advance(); the worker has seen the whole journal, unless the test says how much.';


create function tell(variadic turns jsonb[]) returns jsonb
language plpgsql
as $$
declare
    answers jsonb := advance(to_jsonb(tell.turns))::jsonb -> 'turns';
begin
    return case when cardinality(tell.turns) = 1 then answers -> 0 else answers end;
end
$$;
comment on function tell(jsonb[]) is 'Advance by turns; returns the answer of one, or an array of answers.';


create function the_job(id text) returns jsonb
language plpgsql
as $$
begin
    return (select to_jsonb(j) from jobs as j where j.id = the_job.id);
end
$$;
comment on function the_job(text) is 'Look at the row of a job.';


create function the_task(job text, task text default '1/main') returns jsonb
language plpgsql
as $$
begin
    return (select to_jsonb(t) from tasks as t where t.job_id = the_task.job and t.task = the_task.task);
end
$$;
comment on function the_task(text, text) is 'Look at the row of a task; null if the task does not exist.';


create function tasks_of(job text) returns text[]
language plpgsql
as $$
begin
    return array(select t.task from tasks as t where t.job_id = tasks_of.job order by t.task);
end
$$;
comment on function tasks_of(text) is 'Name the live tasks of a job.';


create function journal_of(job text, task text default '1/main') returns jsonb
language plpgsql
as $$
begin
    return coalesce((select jsonb_agg(jsonb_build_array(f.seq, f.kind, f.key, f.ok, f.value) order by f.seq)
                       from journal as f
                      where f.job_id = journal_of.job
                        and f.task = journal_of.task), '[]');
end
$$;
comment on function journal_of(text, text) is 'Read a journal as [seq, kind, key, ok, value].';


create function mail_of(job text) returns jsonb
language plpgsql
as $$
begin
    return coalesce((select jsonb_agg(jsonb_build_array(i.task, coalesce(i.key, i.name), i.ok, i.payload) order by i.id)
                       from inbox as i
                      where i.job_id = mail_of.job
                        and i.consumed_at is null), '[]');
end
$$;
comment on function mail_of(text) is 'Read the open messages of a job as [task, key or name, ok, payload].';


create function message_of(job text, name text) returns bigint
language plpgsql
as $$
begin
    return (select min(i.id)
              from inbox as i
             where i.job_id = message_of.job
               and coalesce(i.key, i.name) = message_of.name
               and i.consumed_at is null);
end
$$;
comment on function message_of(text, text) is 'Find the first open message of a job with this key or name.';


create function error_of(statement text) returns text
language plpgsql
as $$
declare
    code text;
begin
    execute error_of.statement;
    return null;
exception when others then
    get stacked diagnostics code = returned_sqlstate;
    return code;
end
$$;
comment on function error_of(text) is
    'Run a statement and return the code of its error, or null. The effects of a success stay.';


-- A table of cases of commands, and the two ways to run them. A version is written as the word `version`.
create function have_cases() returns void
language plpgsql
as $$
begin
    create temporary table cases (
        about     text,
        context   jsonb,
        op        text,
        path      text,
        argument  jsonb,
        made      jsonb,
        answer    jsonb,
        code      text
    ) on commit drop;
end
$$;
comment on function have_cases() is
    'Make a table for cases of commands; made is null if the memory stays unchanged, code if nothing is refused.';


create function wanted_outcome(context jsonb, made jsonb, answer jsonb, code text) returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_object('memory', coalesce(wanted_outcome.made, wanted_outcome.context),
                              'answer', wanted_outcome.answer, 'code', wanted_outcome.code);
end
$$;
comment on function wanted_outcome(jsonb, jsonb, jsonb, text) is 'Return the outcome that a case expects.';


create function outcome_by_verb(context jsonb, op text, path text, argument jsonb) returns jsonb
language plpgsql
as $$
declare
    id text := gen_random_uuid();
    answer jsonb;
    refused text;
begin
    perform entity_create(id, 'case', outcome_by_verb.context);
    begin
        answer := case when outcome_by_verb.op = 'get' then entity_get(id, outcome_by_verb.path)
                       else run_command(id, outcome_by_verb.op, parse_path(outcome_by_verb.path),
                                        outcome_by_verb.argument, null, null) end;
    exception when others then
        get stacked diagnostics refused = returned_sqlstate;
    end;
    return wanted_outcome(null, the_job(id) -> 'context',
                          case when answer = the_job(id) -> 'version' and outcome_by_verb.op in ('set', 'merge')
                               then '"version"' else answer end, refused);
end
$$;
comment on function outcome_by_verb(jsonb, text, text, jsonb) is 'Run a command from outside on a new document.';


create function outcome_by_turn(context jsonb, op text, path text, argument jsonb) returns jsonb
language plpgsql
as $$
declare
    id text := gen_random_uuid();
    fact jsonb;
begin
    perform have_held_job(id, outcome_by_turn.context);
    fact := tell(a_turn(id, facts => jsonb_build_array(jsonb_build_object(
        'op', outcome_by_turn.op, 'path', parse_path(outcome_by_turn.path), 'value', outcome_by_turn.argument))))
        #> '{answers,0}';
    return wanted_outcome(null, the_job(id) -> 'context',
                          case when fact -> 2 = the_job(id) -> 'version' and outcome_by_turn.op in ('set', 'merge')
                               then '"version"' when fact -> 1 = 'true' then fact -> 2 end,
                          case when fact -> 1 = 'false' then fact -> 2 ->> 'code' end);
end
$$;
comment on function outcome_by_turn(jsonb, text, text, jsonb) is
    'Run a command as a fact of a turn, on a new document.';


create function verdict_of(turn jsonb) returns text
language plpgsql
as $$
declare
    verdict text;
begin
    begin
        verdict := tell(verdict_of.turn) ->> 'state';
    exception when others then
        get stacked diagnostics verdict = returned_sqlstate;
    end;
    return verdict;
end
$$;
comment on function verdict_of(jsonb) is
    'Return the state that answers a turn, or the code of the error if the whole call failed.';


create function writes_of_jobs() returns bigint
language plpgsql
as $$
begin
    perform pg_stat_clear_snapshot();
    return (select x.n_tup_upd from pg_stat_xact_user_tables as x where x.relid = 'perdure.jobs'::regclass);
end
$$;
comment on function writes_of_jobs() is
    'Return how often this transaction has updated a row of jobs, as PostgreSQL counts it.';


create function found(conditions jsonb) returns text
language plpgsql
as $$
begin
    return (select coalesce(string_agg(f.id, ' ' order by f.id), '') from find('doc', found.conditions) as f);
end
$$;
comment on function found(jsonb) is 'Name the memories of the entity doc that meet conditions, in order.';
