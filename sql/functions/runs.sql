-- Runs: a job runs again under the same id, with the same memory. A run that continues as the next one hands over its
-- asker, its signals and its deadline; a job that has ended begins anew. The journal of a run stays under its own tasks.

create function @extschema@.continue_runs(turns @extschema@.turn[], continued_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn[] := array(select r from unnest(continue_runs.turns) as r order by r.job collate "C");
    queues text[] := continue_coordinators(ended, continue_runs.continued_at);
begin
    perform continue_deadlines(ended, continue_runs.continued_at);
    perform forward_cancel_requests(ended);
    perform delete_tasks(ended);
    perform notify_listeners(insert_parent_ends(ended, continue_runs.continued_at));
    perform forget_conditions(ended);
    perform forget_open_items(ended);
    perform forget_messages(ended);
    perform continue_jobs(ended, continue_runs.continued_at);
    perform append_runs(
        array(select r.job from unnest(ended) as r),
        array(select case when r.failure is null then 'continue' else 'retry' end from unnest(ended) as r),
        array(select run_ending(case when r.failure is null then 'continued' else 'failed' end, error => r.failure)
                from unnest(ended) as r),
        continue_runs.continued_at);
    return queues;
end
$$;
comment on function @extschema@.continue_runs(@extschema@.turn[], timestamptz) is
    'End runs and all tasks beneath them, and begin the next runs of the same jobs; return their queues. [P6] [P8]';


-- It sees the signals of this very batch, too. Whoever sends a later one waits for the lock of the job. Code that takes
-- none would begin again for ever, so it rests between its runs.
create function @extschema@.continue_for_signals(inout turns @extschema@.turn[], ended_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    early record;
begin
    -- A loop: few jobs end in this way, and fewer while a signal comes.
    for early in
        select r.ordinality as place,
               exists (
                select from journal as f where f.job_id = r.job and f.task = r.task and f.kind = 'signal' offset 0) as took_any
          from unnest(turns) with ordinality as r
         where r.verdict = 'apply'
           and r.state = 'done'
           and r.kind = 'coordinator'
           and exists (
            select
              from inbox as i
             where i.job_id = r.job
               and i.task is null
               and i.name = any(r.awaits)
               and i.consumed_at is null
            offset 0)
    loop
        turns[early.place].state := 'continue';
        turns[early.place].value := null;
        if not early.took_any then
            turns[early.place].until := continue_for_signals.ended_at + interval '1 s';
        end if;
    end loop;
end
$$;
comment on function @extschema@.continue_for_signals(@extschema@.turn[], timestamptz) is
    'Let jobs whose code has returned continue with another run, with the same arguments, if nobody has taken a signal of a name that the last turn awaits; after a second, if the run has taken no signal at all. [P5]';


create function @extschema@.restart_failure(wanted @extschema@.new_job) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held memory := read_job(wanted.id);
begin
    return case
        when wanted.context <> '{}' then make_failure(
            'PD107', 'InvalidArgument', format('job %s already has a memory', quote_literal(wanted.id)),
            'A new run continues with this memory; a context is only for a new memory.',
            'Leave the context out, and change the memory by commands.')
        when wanted.entity <> coalesce(held.entity, '') then make_failure(
            'PD107', 'InvalidArgument',
            format('job %s is %s, not %s', quote_literal(wanted.id), coalesce(held.entity, 'of no entity'), wanted.entity),
            'The type of a memory never changes.', 'Leave the entity out, or choose another id.') end;
end
$$;
comment on function @extschema@.restart_failure(@extschema@.new_job) is
    'Return why a memory cannot have the new run that is wanted (PD107), or null.';


create function @extschema@.restart(wanted @extschema@.new_job[], reason text, started_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ids text[] := array(select w.id from unnest(restart.wanted) as w);
    endings jsonb[] := last_run_endings(ids);
begin
    perform drop_signals(ids, restart.started_at);
    perform restart_jobs(restart.wanted, restart.started_at);
    perform append_runs(ids, array_fill(restart.reason, array[cardinality(ids)]), endings, restart.started_at);
    perform insert_coordinators(restart.wanted, ids, restart.started_at);
end
$$;
comment on function @extschema@.restart(@extschema@.new_job[], text, timestamptz) is
    'Begin new runs of locked jobs that have none; memory and history continue. [P1] [P3]';


create function @extschema@.begin_new_runs(
    wanted      @extschema@.new_job[],
    locked      text[],
    started_at  timestamptz
) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    -- Jobs that others have made since the locks were taken are not waited for: that could close a circle.
    missed text[] := array(select w.id from unnest(begin_new_runs.wanted) as w where w.id <> all(begin_new_runs.locked));
    ready new_job[];
begin
    if cardinality(lock_jobs(missed, waiting => false)) < cardinality(missed) then
        raise exception 'job % is just being started', quote_literal(missed[1])
            using errcode = '40001', detail = 'Another session has just created it.', hint = 'Call again.';
    end if;
    ready := array(
        select w
          from unnest(begin_new_runs.wanted) as w
          join jobs as j on j.id = any(array[w.id])
         where j.status is distinct from 'running');
    if ready <> '{}' then
        perform raise_failure(restart_failure(w)) from unnest(ready) as w;
        perform restart(ready, 'start', begin_new_runs.started_at);
    end if;
    return array(select w.id from unnest(ready) as w);
end
$$;
comment on function @extschema@.begin_new_runs(@extschema@.new_job[], text[], timestamptz) is
    'Begin new runs of those jobs that exist and do not run; return their ids. Errors: PD107, 40001 (a job is being created at this moment).';
