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
                  detail = 'A slash leads to what a task has asked for.',
                  hint = 'Use another separator.';
    end if;
    perform check_name(coalesce(hook.key, 'none'), 'a key');
    perform check_name(coalesce(nullif(hook.limit_key, ''), 'none'), 'a limit key');
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
    'Run a hook on a job from outside; returns the name of its task. The same key is the same hook, once. PD401, PD103, PD104, PD107, PD30x.';
