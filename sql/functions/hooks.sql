-- Hooks from outside: work on a memory that no coordinator asked for, allowed with any status of the job.

create function @extschema@.hook(
    id              text,
    name            text,
    args            jsonb        default '[]',
    queue           text         default 'default',
    key             text         default null,
    priority        integer      default 5,
    due_at          timestamptz  default null,
    limit_key       text         default null,
    pinned_version  text         default null
) returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(hook.id);
    hook_task text := '$hook/' || coalesce(hook.key, gen_random_uuid()::text);
    asked_at timestamptz := clock();
begin
    if hook.key ~ '/' then
        raise exception 'the key of a hook must not hold a slash: %', quote_literal(left(hook.key, 200))
            using errcode = 'PD104',
                  detail = 'A slash separates a task from what it has asked for.',
                  hint = 'Use another separator.';
    end if;
    perform raise_failure(optional_name_failure(hook.key, 'a key'));
    if hook.key ~ '^([0-9]+:main:|[$][a-z])' then
        raise exception 'the key % is reserved for perdure', quote_literal(left(hook.key, 200))
            using errcode = 'PD104',
                  detail = 'Such keys name hooks that coordinators and hooks have detached.',
                  hint = 'Choose another key.';
    end if;
    perform raise_failure(optional_name_failure(nullif(hook.limit_key, ''), 'a limit key'));
    perform raise_failure(coalesce(
        call_failure('a hook', hook.name, hook.args, hook.queue, hook.priority),
        pin_failure(hook.pinned_version, hook.queue),
        due_failure(hook.due_at)));
    perform check_snapshot(array[held.id]);
    if not task_has_ended(held.id, hook_task)
        and insert_hook(held.id, hook_task, hook.name, hook.args, hook.queue, hook.priority,
                        coalesce(hook.due_at, asked_at), hook.limit_key, hook.pinned_version) then
        perform touch_job(held.id, asked_at);
        perform notify_listeners(array[versioned_queue(hook.queue, hook.pinned_version)]);
    end if;
    return hook_task;
end
$$;
comment on function @extschema@.hook(text, text, jsonb, text, text, integer, timestamptz, text, text) is
    'Start a hook on a job from outside; return the name of its task. The same key is the same hook, once. Errors: PD401, PD103, PD104, PD107, PD30x.';


-- The answer of a hook that nobody awaits is the end of its own journal. A hook that a task awaits answers that task, and
-- has no such end.
create function @extschema@.hook_result(id text, task text) returns @extschema@.job_result
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    ended job_result;
begin
    select case f.name when 'done' then 'completed' else f.name end,
           case when f.ok then f.value end,
           case when not f.ok then f.value end
      into ended
      from journal as f
     where f.job_id = hook_result.id
       and f.task = hook_result.task
       and f.kind = 'end';
    if found then
        return ended;
    end if;
    perform
       from tasks as t
      where t.job_id = hook_result.id
        and t.task = hook_result.task
        and t.detached;
    if not found then
        perform result(hook_result.id);
        raise exception 'job % has no hook %', quote_literal(left(hook_result.id, 200)), quote_literal(left(hook_result.task, 200))
            using errcode = 'PD412',
                  detail = 'No such hook was started from outside, or its journal was deleted.',
                  hint = 'Give the name of the task that hook() returned. Hooks that a coordinator awaits answer it.';
    end if;
    ended.status := 'running';
    return ended;
end
$$;
comment on function @extschema@.hook_result(text, text) is
    'Return how a hook from outside ended and what it answered; result and error are null while it runs. Errors: PD401, PD412 (no such hook).';
