-- Helpers: assertions for tests with pgTAP. They find pgTAP, and its ok() and is(), where the test finds it; so they have
-- no search path of their own, and every other name is written in full.

create or replace function @extschema@.is_memory(id text, path text, wanted jsonb, description text default null)
returns text
language plpgsql
as $$
begin
    return is(@extschema@.entity_get(is_memory.id, is_memory.path), is_memory.wanted,
              coalesce(is_memory.description,
                       concat_ws(' in ', nullif(is_memory.path, ''), 'the memory of ' || is_memory.id)));
end
$$;
comment on function @extschema@.is_memory(text, text, jsonb, text) is
    'Test the value at a path of a memory: select is_memory(id, path, wanted).';

create or replace function @extschema@.is_status(id text, wanted text, description text default null) returns text
language plpgsql
as $$
begin
    return is((@extschema@.status(is_status.id)).status, is_status.wanted,
              coalesce(is_status.description, format('the status of %s', is_status.id)));
end
$$;
comment on function @extschema@.is_status(text, text, text) is
    'Test the status of a job: running, completed, failed, cancelled, or null for a plain memory.';

create or replace function @extschema@.is_result(id text, wanted jsonb, description text default null) returns text
language plpgsql
as $$
begin
    return is((@extschema@.result(is_result.id)).result, is_result.wanted,
              coalesce(is_result.description, format('the result of %s', is_result.id)));
end
$$;
comment on function @extschema@.is_result(text, jsonb, text) is 'Test the result of a job.';

create or replace function @extschema@.has_history(id text, wanted text[], description text default null) returns text
language plpgsql
as $$
begin
    return is(array(select concat_ws(' ', h.op, case when h.path <> '{}' then @extschema@.write_path(h.path) end)
                      from @extschema@.history as h
                     where h.job_id = has_history.id
                     order by h.version), has_history.wanted,
              coalesce(has_history.description, format('the history of %s', has_history.id)));
end
$$;
comment on function @extschema@.has_history(text, text[], text) is
    'Test which commands made a memory what it is, each as its name and path: {"merge","increment reviews"}.';

create or replace function @extschema@.has_tasks(id text, wanted text[], description text default null) returns text
language plpgsql
as $$
begin
    return is(array(select w.name || ' ' || w.state
                      from @extschema@.waiting as w
                     where w.job_id = has_tasks.id
                     order by w.task), has_tasks.wanted,
              coalesce(has_tasks.description, format('the tasks of %s', has_tasks.id)));
end
$$;
comment on function @extschema@.has_tasks(text, text[], text) is
    'Test which tasks of a job are alive, each as the name of its function and its state: {"research waiting","count reviews ready"}.';

create or replace function @extschema@.holds_its_laws(description text default 'no invariant is broken') returns text
language plpgsql
as $$
declare
    broken text := (
        select string_agg(concat_ws(' ', b.code, b.job, b.task, b.detail), E'\n')
          from (select * from @extschema@.assert_invariants()
                 union all select * from @extschema@.assert_histories()) as b);
begin
    return concat_ws(E'\n', ok(broken is null, holds_its_laws.description), diag(broken));
end
$$;
comment on function @extschema@.holds_its_laws(text) is
    'Test that no invariant of the app is broken and that each memory is the sum of its commands.';

revoke all on function @extschema@.is_memory(text, text, jsonb, text), @extschema@.is_status(text, text, text),
    @extschema@.is_result(text, jsonb, text), @extschema@.has_history(text, text[], text),
    @extschema@.has_tasks(text, text[], text), @extschema@.holds_its_laws(text) from public;
