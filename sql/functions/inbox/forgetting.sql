-- The inbox of tasks and jobs that are gone: what is deleted.

create function @extschema@.forget_messages(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from inbox as i
     using unnest(forget_messages.turns) as r
     where i.job_id = any(array[r.job])
       and i.task >= r.task
       and i.task < r.task || '0'
       and (i.task = r.task or i.task > r.task || '/')
       and not exists (select from tasks as t where t.job_id = i.job_id and t.task = i.task offset 0);
end
$$;
comment on function @extschema@.forget_messages(@extschema@.turn[]) is
    'Delete the messages of ended tasks and of all tasks beneath them.';


create function @extschema@.forget_inboxes(jobs text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from inbox as i
     where i.job_id = any(forget_inboxes.jobs)
       and i.dedupe_key is null
       and case when i.task is null
                then not exists (select from tasks as t where t.job_id = i.job_id and left(t.name, 1) <> '$' offset 0)
                else not exists (select from tasks as t where t.job_id = i.job_id and t.task = i.task offset 0) end;
end
$$;
comment on function @extschema@.forget_inboxes(text[]) is
    'Delete the messages of jobs that have ended, except those of hooks that outlive the run, and the keys of signals.';


create function @extschema@.forget_keys(id text, taken_before timestamptz, max_rows integer) returns integer
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    forgotten integer;
begin
    delete from inbox as i
     where i.id = any(array(
        select k.id
          from inbox as k
         where k.job_id = forget_keys.id
           and k.task = '$taken'
           and k.consumed_at < forget_keys.taken_before
         limit forget_keys.max_rows));
    get diagnostics forgotten = row_count;
    return forgotten;
end
$$;
comment on function @extschema@.forget_keys(text, timestamptz, integer) is
    'Delete the keys of signals that the tasks of a locked job took before a time, at most max_rows; return how many. Such a signal would be accepted again.';


create function @extschema@.forget_all_messages(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from inbox as i where i.job_id = any(forget_all_messages.ids);
end
$$;
comment on function @extschema@.forget_all_messages(text[]) is 'Delete all messages of deleted jobs.';
