-- Recordings: what it takes, beside its journal, to run a coordinator again without any effect: against changed code
-- before it is deployed, or to see what a job has done. The replay itself is not done by the database.

create function @extschema@.recordings_of(ids text[]) returns setof @extschema@.recording
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    -- For a run that has ended it is not known how much it had asked for: it was all that it ever asks for.
    return query
    select j.id, coalesce(t.task, j.run::text || '/main'), j.workflow, j.entity, j.queue, j.parent, j.headers,
           coalesce(t.pinned_version, j.pinned_version), j.run, j.args, coalesce(t.attempt, 0), coalesce(t.asked, 2147483647),
           coalesce(t.accept_changes, false), t.position::integer, coalesce(t.started_at, j.started_at, j.created_at),
           j.status::text, j.result, case j.run when 1 then j.forked_from end, j.asked_as,
           coalesce((select jsonb_object_agg(o.key, o.fingerprint) from open_requests(j.id, t.task, null) as o), '{}')
      from jobs as j
      left join tasks as t on t.job_id = j.id and t.task = j.run::text || '/main'
     where j.id = any(recordings_of.ids)
       and j.workflow is not null
     order by j.id;
end
$$;
comment on function @extschema@.recordings_of(text[]) is
    'Return what a replay of these jobs needs beside read_journal(): live jobs as they are, ended jobs from their beginning to their result.';


create function @extschema@.running_coordinators(
    after     text     default '',
    max_rows  integer  default 100,
    workflow  text     default null
) returns setof @extschema@.recording
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    page text[];
begin
    perform check_rows(running_coordinators.max_rows);
    page := array(
        select t.job_id
          from tasks as t
         where t.job_id > coalesce(running_coordinators.after, '')
           and t.kind = 'coordinator'
           and (running_coordinators.workflow is null or t.name = running_coordinators.workflow)
         order by t.job_id
         limit running_coordinators.max_rows);
    return query select r.* from recordings_of(page) as r order by r.job;
end
$$;
comment on function @extschema@.running_coordinators(text, integer, text) is
    'Return a page of the running coordinators in order of job id, as a replay needs them; an empty page is the end. Errors: PD107.';


create function @extschema@.recording_of(id text) returns @extschema@.recording
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    known recording;
begin
    select r.* into known from recordings_of(array[recording_of.id]) as r;
    if not found then
        raise exception 'job % does not exist', quote_literal(left(recording_of.id, 200))
            using errcode = 'PD401', detail = 'No workflow has run under this id.', hint = 'Check the id.';
    end if;
    return known;
end
$$;
comment on function @extschema@.recording_of(text) is
    'Return what a replay of one job needs, whether the job runs or has ended. Errors: PD401 (no workflow has this id).';
