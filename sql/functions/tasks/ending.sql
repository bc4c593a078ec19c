-- Tasks, ended: the end of a task, of all tasks beneath it, and of what it leaves: messages, conditions, items,
-- children, an answer.

create function @extschema@.have_dependents(turns @extschema@.turn[]) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    jobs text[] := array(select r.job from unnest(have_dependents.turns) as r);
begin
    return exists (select from inbox as i where i.job_id = any(jobs))
        or exists (select from conditions as c where c.job_id = any(jobs))
        or exists (select from items as i where i.job_id = any(jobs) and i.resolved_at is null)
        or exists (select from jobs as j where j.parent = any(jobs) and j.status = 'running');
end
$$;
comment on function @extschema@.have_dependents(@extschema@.turn[]) is
    'Tell whether ended tasks may leave messages, conditions, items or children; one look answers that for all.';


create function @extschema@.end_tasks(turns @extschema@.turn[], ended_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    ended turn[] := array(select r from unnest(end_tasks.turns) as r order by r.job collate "C", r.task collate "C");
    runs turn[] := array(select r from unnest(ended) as r where r.kind = 'coordinator');
    others turn[] := '{}'::turn[];
    unawaited turn[];
begin
    if runs <> '{}' then
        perform finish_jobs(runs, end_tasks.ended_at);
    end if;
    perform delete_tasks(ended);
    if cardinality(runs) < cardinality(ended) then
        others := array(select r from unnest(ended) as r where r.kind <> 'coordinator');
        unawaited := array(select r from unnest(others) as r where r.asker_job is null);
        if unawaited <> '{}' then
            perform notify_listeners(append_end(unawaited, end_tasks.ended_at));
        end if;
    end if;
    if have_dependents(ended) then
        perform notify_listeners(insert_parent_ends(ended, end_tasks.ended_at));
        perform forget_conditions(ended);
        perform forget_open_items(ended);
        perform forget_messages(others);
        perform forget_inboxes(array(select r.job from unnest(runs) as r));
    end if;
    perform insert_answers(end_tasks.turns, end_tasks.ended_at);
end
$$;
comment on function @extschema@.end_tasks(@extschema@.turn[], timestamptz) is
    'End tasks and all tasks beneath them: the answer is in the inbox of the asker before the task is gone. [P8] [P10]';
