-- Access, as it is checked for workers: a role may be limited to the tasks of certain queues. The role is session_user,
-- the one that logged in, which only a superuser can change. Inside a verb, current_user is the owner of the app.

-- A role that has taken the name of a dropped role does not have its access, and neither do its members.
create function @extschema@.has_usage(role oid) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from pg_namespace as n
         cross join aclexplode(n.nspacl) as g
         where n.oid = '@extschema@'::regnamespace
           and g.grantee = has_usage.role
           and g.privilege_type = 'USAGE');
end
$$;
comment on function @extschema@.has_usage(oid) is
    'Tell whether a role itself was granted USAGE of the schema. Only then does its row in the table of access belong to it, and not to a dropped role of the same name.';


create function @extschema@.has_access(kinds text[]) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if pg_has_role(session_user, current_user, 'member') then
        return true;
    end if;
    return exists (
        select
          from access as a
          join pg_roles as r on r.rolname = a.role
         where a.kind = any(has_access.kinds)
           and a.queues is null
           and pg_has_role(session_user, r.oid, 'member')
           and has_usage(r.oid));
end
$$;
comment on function @extschema@.has_access(text[]) is
    'Tell whether the role that logged in is the owner, or is a member of a role that has one of these kinds of access to all queues.';


create function @extschema@.own_queues() returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select distinct q.queue collate "C"
          from access as a
          join pg_roles as r on r.rolname = a.role
         cross join unnest(a.queues) as q (queue)
         where pg_has_role(session_user, r.oid, 'member')
           and has_usage(r.oid)
         order by 1);
end
$$;
comment on function @extschema@.own_queues() is
    'Return the queues to which the roles of the user who logged in are limited.';


-- Whoever acts under the name of a registered worker must have access to all that it serves: others take the tasks of the
-- name for its own, and what it does for it, such as to withdraw its hints, for done by it.
create function @extschema@.check_queues(queues text[], worker text default null) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    own text[];
    foreign_queue text;
begin
    if array_ndims(check_queues.queues) > 1 or array_position(check_queues.queues, null) is not null then
        raise exception 'a queue must have a name'
            using errcode = 'PD107',
                  detail = 'One of the given queues is null or a list.',
                  hint = 'Name the queues that the worker serves.';
    end if;
    if has_access('{worker}') then
        return;
    end if;
    own := own_queues();
    foreign_queue := (
        select q.queue
          from unnest(check_queues.queues || (
                   select w.queues from workers as w where w.worker = check_queues.worker)) as q (queue)
         where split_part(q.queue, '@', 1) <> all(own)
         limit 1);
    if foreign_queue is not null then
        raise exception 'role % has no access to the tasks of queue %', quote_ident(session_user),
              quote_literal(left(foreign_queue, 200))
            using errcode = 'PD115',
                  detail = format('Its queues are %s.', own::text),
                  hint = 'Leave this queue to others, or let the owner of the app call grant_access().';
    end if;
end
$$;
comment on function @extschema@.check_queues(text[], text) is
    'Refuse queues to whose tasks the role that logged in has no access, and the name of a worker that serves such queues (PD115), and queues without a name (PD107).';


-- Every worker asks for the queue of the tasks that the database runs itself. A worker without access to it does without.
create function @extschema@.without_sql_queue(queues text[]) returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if '$sql' <> all(without_sql_queue.queues) or has_access('{worker}') or '$sql' = any(own_queues()) then
        return without_sql_queue.queues;
    end if;
    return array_remove(without_sql_queue.queues, '$sql');
end
$$;
comment on function @extschema@.without_sql_queue(text[]) is
    'Remove the queue $sql from a list if the role that logged in has no access to its tasks.';


-- Checked beside the token, which is a secret: whoever has got the token of a task on another queue can do nothing with
-- it. A task that is gone has no queue; the caller is told that it is gone.
create function @extschema@.check_tasks(tasks jsonb) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not has_access('{worker}') then
        perform check_queues(array(
            select t.queue
              from jsonb_to_recordset(check_tasks.tasks) as h (job text, task text)
              join tasks as t on t.job_id = any(array[h.job]) and t.task = h.task));
    end if;
end
$$;
comment on function @extschema@.check_tasks(jsonb) is
    'Refuse tasks [{job, task}] to which the role that logged in has no access, even if it knows their tokens (PD115). [P6]';


create function @extschema@.check_task(job text, task text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not has_access('{worker}') then
        perform check_queues(array(
            select t.queue from tasks as t where t.job_id = check_task.job and t.task = check_task.task));
    end if;
end
$$;
comment on function @extschema@.check_task(text, text) is
    'Refuse a task to which the role that logged in has no access (PD115). [P6]';


create function @extschema@.check_reading(job text, task text) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if has_access('{worker,reader}') then
        return;
    end if;
    perform check_task(check_reading.job, check_reading.task);
    if not exists (select from tasks as t where t.job_id = check_reading.job and t.task = check_reading.task) then
        perform raise_failure(make_failure(
            'PD001', 'TaskNotHeld', format('task %s of job %s is gone', quote_literal(left(check_reading.task, 200)),
                                           quote_literal(left(check_reading.job, 200))),
            'A role that is limited to queues can only read the journals of live tasks of its queues.', 'Drop this turn.'));
    end if;
end
$$;
comment on function @extschema@.check_reading(text, text) is
    'Refuse the journal of a task if the role that logged in has no access to its queue (PD115), or if the task is gone (PD001).';
