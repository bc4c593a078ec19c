-- Jobs, listed: page by page, newest first. To search in memories, use find().

-- A running job has a task, so that a few of them are found among millions that have finished. If they are many, looking
-- at all jobs by age finds enough of them soon.
create function @extschema@.few_running_jobs(workflow text) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select case when count(*) <= 10000 then coalesce(array_agg(l.job_id), '{}') end
          from (select t.job_id
                  from tasks as t
                 where t.kind = 'coordinator'
                   and (few_running_jobs.workflow is null or t.name = few_running_jobs.workflow)
                 limit 10001) as l);
end
$$;
comment on function @extschema@.few_running_jobs(text) is
    'Return the ids of all jobs that have a coordinator, of a workflow or of any; null if they are more than 10,000.';


-- Planned anew for each call: conditions that were not given vanish from the statement, and the rest is one range of an
-- index.
create function @extschema@.list_jobs(
    workflow  text         default null,
    status    text         default null,
    since     timestamptz  default null,
    until     timestamptz  default null,
    after     text         default null,
    max_rows  integer      default 100
) returns setof @extschema@.job_status
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set jit = off
as $$
declare
    running text[];
begin
    perform check_rows(list_jobs.max_rows);
    if list_jobs.status not in ('running', 'completed', 'failed', 'cancelled') then
        perform refuse_argument(format('%s is not a status of a job', quote_literal(left(list_jobs.status, 200))),
                                'A job is running, completed, failed or cancelled.', 'Name one of these, or null.');
    end if;
    if list_jobs.max_rows > 1000 or (list_jobs.after is not null and list_jobs.until is null) then
        perform refuse_argument('jobs cannot be listed like this',
                                format('It was asked for %s rows, until %s, after %s.', list_jobs.max_rows,
                                       coalesce(list_jobs.until::text, 'now'), quote_nullable(left(list_jobs.after, 200))),
                                'Rows are at most 1000; the next page is until the created_at and after the id of the last job.');
    end if;
    if list_jobs.status = 'running' then
        running := few_running_jobs(list_jobs.workflow);
    end if;
    return query
    select s.*
      from (select j.id, j.created_at
              from jobs as j
             where j.workflow is not null
               and (list_jobs.workflow is null or j.workflow = list_jobs.workflow)
               and (list_jobs.status is null or j.status = list_jobs.status::job_state)
               and (running is null or j.id = any(running))
               -- As the predicate of the index of jobs that did not succeed.
               and ((list_jobs.status in ('failed', 'cancelled')) is not true or j.error is not null)
               and (list_jobs.since is null or j.created_at >= list_jobs.since)
               and (list_jobs.until is null or j.created_at <= list_jobs.until)
               and (list_jobs.until is null or j.created_at < list_jobs.until or j.id < list_jobs.after)
             order by j.created_at desc, j.id desc
             limit coalesce(list_jobs.max_rows, 1000)) as page
     cross join lateral status(page.id) as s
     order by page.created_at desc, page.id desc;
end
$$;
comment on function @extschema@.list_jobs(text, text, timestamptz, timestamptz, text, integer) is
    'List jobs, newest first, by workflow, state and time of creation. For the next page, give the created_at and the id of the last job as until and after. Errors: PD107.';
