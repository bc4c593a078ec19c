-- Jobs that run again: the row describes the current or last run.

create function @extschema@.next_run(task text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (split_part(next_run.task, '/', 1)::integer + 1)::text || '/main';
end
$$;
comment on function @extschema@.next_run(text) is
    'Return the name of the coordinator of the next run, given that of a run.';


create function @extschema@.run_ending(
    status  text,
    result  jsonb  default null,
    error   jsonb  default null,
    key     text   default null
) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return jsonb_build_object('status', run_ending.status)
        || case when run_ending.result is null then '{}' else jsonb_build_object('result', run_ending.result) end
        || case when run_ending.error is null then '{}' else jsonb_build_object('error', run_ending.error) end
        || case when run_ending.key is null then '{}' else jsonb_build_object('key', run_ending.key) end;
end
$$;
comment on function @extschema@.run_ending(text, jsonb, jsonb, text) is
    'Return how a run ended, and the key of the start that began it.';


create function @extschema@.last_run_endings(ids text[]) returns jsonb[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select run_ending(j.status, j.result, j.error, j.start_key)
          from unnest(last_run_endings.ids) with ordinality as given (id, place)
          join jobs as j on j.id = any(array[given.id])
         order by given.place);
end
$$;
comment on function @extschema@.last_run_endings(text[]) is
    'Return how the last runs of jobs ended, in the order of the ids.';


create function @extschema@.continue_jobs(turns @extschema@.turn[], continued_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j
       set run = j.run + 1, args = coalesce(r.value, j.args), updated_at = continue_jobs.continued_at
      from unnest(continue_jobs.turns) as r
     where j.id = any(array[r.job]);
end
$$;
comment on function @extschema@.continue_jobs(@extschema@.turn[], timestamptz) is
    'Count the next runs of jobs, and store the arguments that the last runs gave them.';


create function @extschema@.restart_jobs(wanted @extschema@.new_job[], started_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j
       set run = j.run + case when j.workflow is null then 0 else 1 end,
           workflow = w.workflow, status = 'running', args = w.args, result = null, error = null, parent = w.parent,
           asked_as = null, on_parent_end = null, headers = w.headers, pinned_version = w.pinned_version, start_key = w.key,
           queue = w.queue, priority = w.priority, limit_key = w.limit_key, timeout = w.timeout, started_at = null,
           finished_at = null, updated_at = restart_jobs.started_at
      from unnest(restart_jobs.wanted) as w
     where j.id = any(array[w.id]);
end
$$;
comment on function @extschema@.restart_jobs(@extschema@.new_job[], timestamptz) is
    'Let finished jobs, and memories without a workflow, run again; their memories stay.';


create function @extschema@.mark_fork(id text, forked_from jsonb) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j set forked_from = mark_fork.forked_from where j.id = mark_fork.id;
end
$$;
comment on function @extschema@.mark_fork(text, jsonb) is 'Record from where a job was forked.';
