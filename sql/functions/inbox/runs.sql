-- The inbox of a job that runs again: what the next run gets, and what it does not.

create function @extschema@.forward_cancel_requests(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update inbox as i
       set task = next_run(i.task)
     where i.id = any(array(
        select c.id
          from unnest(forward_cancel_requests.turns) as r
         cross join lateral (
            select o.id
              from inbox as o
             where o.job_id = r.job
               and o.task = r.task
               and o.key = '$cancel'
               and o.consumed_at is null
            offset 0) as c));
end
$$;
comment on function @extschema@.forward_cancel_requests(@extschema@.turn[]) is
    'Readdress requests to cancel that a run has not heard to the next run.';


-- Keys must stay: a repeated signal is not accepted again. Hooks that are alive may still take the signals of their job.
-- [P12]
create function @extschema@.drop_signals(ids text[], dropped_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from inbox as i
     where i.job_id = any(drop_signals.ids)
       and i.task is null
       and i.dedupe_key is null
       and not exists (select from tasks as t where t.job_id = i.job_id and left(t.name, 1) <> '$' offset 0);
    update inbox as i
       set task = '$taken', key = i.dedupe_key, payload = null, consumed_at = drop_signals.dropped_at
     where i.job_id = any(drop_signals.ids)
       and i.task is null
       and not exists (select from tasks as t where t.job_id = i.job_id and left(t.name, 1) <> '$' offset 0);
end
$$;
comment on function @extschema@.drop_signals(text[], timestamptz) is
    'Delete the signals that were open when jobs ended, but keep their keys. [P12]';
