-- Access, given and taken by the owner. The functions that granted_verbs() lists are SECURITY DEFINER, and no others. A
-- role gets these functions and no privilege on any table. tests/security/matrix.txt shows who has what.

create function @extschema@.granted_verbs(kind text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case granted_verbs.kind
        when 'worker' then '{perdure_version,channel,register_worker,forget_worker,claim,advance,extend,release,read_journal,
                             has_worker,listen_for,stop_listening,publish,finish_task,fail_task,take_sql_task,run_task,
                             sql_hook_timeout,time_out_task,run_sql_hooks,origins_of}'::text[]
        when 'client' then '{perdure_version,channel,start,start_many,signal,signal_with_start,signal_found,cancel,cancel_hook,
                             cancel_found,hook,hook_result,result,await_result,status,list_jobs,family,
                             entity_create,entity_get,entity_set,entity_set_if_not_exists,entity_delete,entity_merge,entity_increment,entity_toggle,entity_append,
                             entity_prepend,entity_remove,entity_log,entity_apply,entity_items,entity_history,entity_at,
                             entity_diff,entity_blame,entity_restore,entity_meets,entity_watch,find,count_found,stream_items,
                             list_items,read_item,claim_item,release_item,assign_item,resolve_item,contract_of,has_worker,
                             listen_for,stop_listening,origins_of,task_reason,task_needs}'
        when 'reader' then '{perdure_version,channel,result,await_result,hook_result,status,list_jobs,family,timeline,
                             read_journal,recording_of,running_coordinators,entity_get,entity_items,entity_history,entity_at,entity_diff,entity_blame,
                             entity_meets,find,count_found,stream_items,list_items,read_item,contract_of,broken_contracts,
                             queue_depths,has_worker,assert_invariants,assert_histories,origins_of,versioned_queue,
                             task_state,task_reason,task_needs,schedule_name,write_path,index_state}'
        when 'operator' then '{perdure_version,status,list_jobs,family,queue_depths,has_worker,assert_invariants,
                               cancel,cancel_hook,terminate,pause,resume,retry,fork,repin,forget,forget_finished,forget_old_runs,set_queue,
                               pause_queue,resume_queue,create_schedule,pause_schedule,resume_schedule,trigger_schedule,backfill_schedule,
                               drop_schedule,define_contract,drop_contract,contract_of,versioned_queue,task_state,
                               task_reason,task_needs,schedule_name,write_path,index_state}'
        when 'monitor' then '{perdure_version,queue_depths,versioned_queue,task_state,task_needs,schedule_name,write_path,index_state}'
        end;
end
$$;
comment on function @extschema@.granted_verbs(text) is
    'List the functions that a kind of role may call, including those that its views call; null for an unknown kind.';


create function @extschema@.granted_views(kind text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case granted_views.kind
        when 'reader' then array['select on history, waiting, schedules, indexes']
        when 'operator' then array['select on waiting, schedules, indexes']
        when 'monitor' then array[
            'select (job_id, task, kind, name, queue, pinned_version, state, due_at, needs, worker, deliveries, attempt) on waiting',
            'select (name, workflow, cron, every, time_zone, catch_up, overlap, paused, next_due_at, last_job) on schedules',
            'select on indexes']
        else '{}' end;
end
$$;
comment on function @extschema@.granted_views(text) is
    'List what a kind of role may read of the views, as grants name it; a monitor sees no payload.';


create function @extschema@.grant_privileges(role text, kind text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    given text;
begin
    execute format('grant usage on schema %s to %I', '@extschema@', grant_privileges.role);
    execute format('grant execute on routine %s to %I',
                   (select string_agg(p.oid::regprocedure::text, ', ' order by p.proname)
                      from pg_proc as p
                     where p.pronamespace = '@extschema@'::regnamespace
                       and p.proname = any(granted_verbs(grant_privileges.kind))),
                   grant_privileges.role);
    -- One statement for each view, since a grant names columns of one view only.
    foreach given in array granted_views(grant_privileges.kind) loop
        execute format('grant %s to %I', given, grant_privileges.role);
    end loop;
end
$$;
comment on function @extschema@.grant_privileges(text, text) is 'Grant a role what its kind may call and read.';


create function @extschema@.grant_access(
    role    text,
    kind    text,
    queues  text[]  default null
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    lock table access in share row exclusive mode;
    if not exists (select from pg_roles as r where r.rolname = grant_access.role) then
        perform refuse_argument(format('there is no role %s', quote_literal(left(grant_access.role, 200))),
                                'Access can only be given to an existing role.', 'Create the role first.');
    end if;
    if granted_verbs(grant_access.kind) is null then
        perform refuse_argument(format('%s is not a kind of role', quote_literal(left(grant_access.kind, 200))),
                                'It is worker, client, operator, reader or monitor.', 'Name one of these.');
    end if;
    if grant_access.queues is not null and (grant_access.kind <> 'worker' or grant_access.queues = '{}') then
        perform refuse_argument('this list of queues limits nothing',
                                'Only a worker can be limited to queues, and to at least one.',
                                'Leave the queues out, or name at least one for a worker.');
    end if;
    perform raise_failure(queue_failure(q.queue)) from unnest(grant_access.queues) as q (queue);
    -- What a dropped role of this name was given does not belong to the role that now has the name.
    delete from access as a
     using pg_roles as r
     where a.role = grant_access.role
       and r.rolname = a.role
       and not has_usage(r.oid);
    insert into access (role, kind, queues, granted_at)
    values (grant_access.role, grant_access.kind, grant_access.queues, clock())
        on conflict on constraint one_row_per_kind_of_access
        do update set queues = excluded.queues, granted_at = excluded.granted_at;
    perform grant_privileges(grant_access.role, grant_access.kind);
end
$$;
comment on function @extschema@.grant_access(text, text, text[]) is
    'Give a role access to this app as a worker (of all queues or of some), client, operator, reader or monitor. Only the owner may call it, once for each kind. Errors: PD104, PD107.';


create function @extschema@.revoke_access(role text) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    lock table access in share row exclusive mode;
    if exists (select from pg_roles as r where r.rolname = revoke_access.role) then
        execute format('revoke all on all routines in schema %s from %I', '@extschema@', revoke_access.role);
        execute format('revoke all on all tables in schema %s from %I', '@extschema@', revoke_access.role);
        execute format('revoke all on schema %s from %I', '@extschema@', revoke_access.role);
    end if;
    delete from access as a where a.role = revoke_access.role;
    return found;
end
$$;
comment on function @extschema@.revoke_access(text) is
    'Take from a role all access to this app, also what was granted by hand. Only the owner may call it. Return false if the role had no access.';


-- A role that was dropped, or that has taken the name of a dropped one, has no USAGE of the schema and is skipped. Two
-- sessions that grant at once would write the same row of the catalogue, and one would fail (XX000): hence the lock.
create function @extschema@.restore_access() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    lock table access in share row exclusive mode;
    if has_function_privilege('public', '@extschema@.missing_parts()', 'execute') then
        revoke all on all routines in schema @extschema@ from public;
    end if;
    perform grant_privileges(a.role, a.kind)
       from access as a
       join pg_roles as r on r.rolname = a.role
      where has_usage(r.oid)
      order by a.role, a.kind;
end
$$;
comment on function @extschema@.restore_access() is
    'Grant every role again what its kind may do, and the public nothing, since an upgrade may have brought new functions; migrate() calls it.';
