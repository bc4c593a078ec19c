-- The verbs of an entity, which any SQL client calls. Each is one command with its own arguments; the answers are small.

create function @extschema@.entity_create(
    id       text,
    entity   text,
    context  jsonb  default '{}',
    key      text   default null
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    wanted new_job := (entity_create.id, null, entity_create.entity, null, entity_create.context, null, null, null, null,
                       null, entity_create.key, null, null, null, null, null, null, null, null)::new_job;
begin
    perform raise_failure(chosen_name_failure(entity_create.id, 'the id of an entity'));
    perform raise_failure(chosen_name_failure(entity_create.entity, 'an entity'));
    perform raise_failure(optional_name_failure(entity_create.key, 'a key'));
    perform check_value(entity_create.context, 'the memory');
    perform raise_failure(argument_failure('set', '{}', entity_create.context));
    if insert_jobs(array[wanted], clock()) <> '{}' then
        return true;
    end if;
    -- A statement of its own: the call that this one repeats may have committed while this one waited for the id.
    return was_started_by(wanted.id, wanted.key);
end
$$;
comment on function @extschema@.entity_create(text, text, jsonb, text) is
    'Create a memory without a workflow; return false if the id exists, and true again for the same key. Errors: PD103 (the memory is not an object), PD104, PD109, PD30x.';


create function @extschema@.entity_get(id text, path text default '') returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    keys text[] := parse_path(entity_get.path);
    it memory := read_job(entity_get.id);
begin
    return value_at(it.id, it.context, keys, it.version);
end
$$;
comment on function @extschema@.entity_get(text, text) is
    'Return the memory of a job, or its value at a path; a log is read as an array; null if nothing is there. Errors: PD101, PD303 (a log too large for one value), PD401.';


create function @extschema@.entity_set(
    id                text,
    value             jsonb,
    path              text  default '',
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_set.id, 'set', parse_path(entity_set.path), entity_set.value,
                       entity_set.expected_version, entity_set.key);
end
$$;
comment on function @extschema@.entity_set(text, jsonb, text, bigint, text) is
    'Set the value at a path, or replace the whole memory; return the version.';


create function @extschema@.entity_merge(
    id                text,
    patch             jsonb,
    path              text  default '',
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_merge.id, 'merge', parse_path(entity_merge.path), entity_merge.patch,
                       entity_merge.expected_version, entity_merge.key);
end
$$;
comment on function @extschema@.entity_merge(text, jsonb, text, bigint, text) is
    'Merge an object into the object at a path, to any depth; arrays and scalars are replaced. Return the version. Errors: PD102 (no object is there).';


create function @extschema@.entity_append(
    id                text,
    path              text,
    items             jsonb,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_append.id, 'append', parse_path(entity_append.path), as_array(entity_append.items),
                       entity_append.expected_version, entity_append.key);
end
$$;
comment on function @extschema@.entity_append(text, text, jsonb, bigint, text) is
    'Add the items of an array, or one item, at the end of the array at a path; return its new length. Errors: PD102 (no array is there).';


create function @extschema@.entity_prepend(
    id                text,
    path              text,
    items             jsonb,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_prepend.id, 'prepend', parse_path(entity_prepend.path), as_array(entity_prepend.items),
                       entity_prepend.expected_version, entity_prepend.key);
end
$$;
comment on function @extschema@.entity_prepend(text, text, jsonb, bigint, text) is
    'Add the items of an array, or one item, at the beginning of the array at a path; return its new length. Errors: PD102 (no array is there).';


create function @extschema@.entity_remove(
    id                text,
    path              text,
    index             integer,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_remove.id, 'remove', parse_path(entity_remove.path), to_jsonb(entity_remove.index),
                       entity_remove.expected_version, entity_remove.key);
end
$$;
comment on function @extschema@.entity_remove(text, text, integer, bigint, text) is
    'Remove an element of the array at a path, -1 for the last; return what was removed. Errors: PD102 (no such element is there).';


create function @extschema@.entity_increment(
    id                text,
    path              text,
    by                numeric  default 1,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_increment.id, 'increment', parse_path(entity_increment.path), to_jsonb(entity_increment.by),
                       entity_increment.expected_version, entity_increment.key);
end
$$;
comment on function @extschema@.entity_increment(text, text, numeric, bigint, text) is
    'Add to the number at a path, 0 if nothing is there; return the sum. Errors: PD102 (no number is there).';


create function @extschema@.entity_toggle(
    id                text,
    path              text,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_toggle.id, 'toggle', parse_path(entity_toggle.path), null,
                       entity_toggle.expected_version, entity_toggle.key);
end
$$;
comment on function @extschema@.entity_toggle(text, text, bigint, text) is
    'Invert the boolean at a path, or set it to true if nothing is there; return it. Errors: PD102 (no boolean is there).';


create function @extschema@.entity_set_if_not_exists(
    id                text,
    path              text,
    value             jsonb,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_set_if_not_exists.id, 'set_if_not_exists', parse_path(entity_set_if_not_exists.path),
                       entity_set_if_not_exists.value, entity_set_if_not_exists.expected_version,
                       entity_set_if_not_exists.key);
end
$$;
comment on function @extschema@.entity_set_if_not_exists(text, text, jsonb, bigint, text) is
    'Set the value at a path if nothing is there; return the value that is there now.';


create function @extschema@.entity_delete(
    id                text,
    path              text  default '',
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_delete.id, 'delete', parse_path(entity_delete.path), null,
                       entity_delete.expected_version, entity_delete.key);
end
$$;
comment on function @extschema@.entity_delete(text, text, bigint, text) is
    'Delete what is at a path; return it, or null.';


create function @extschema@.entity_log(
    id                text,
    path              text,
    items             jsonb,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return run_command(entity_log.id, 'log', parse_path(entity_log.path), as_array(entity_log.items),
                       entity_log.expected_version, entity_log.key);
end
$$;
comment on function @extschema@.entity_log(text, text, jsonb, bigint, text) is
    'Add the items of an array, or one item, to a log: a list of any length beside the document, at the same cost for each item. Return the version.';


create function @extschema@.entity_apply(
    id                text,
    commands          jsonb,
    expected_version  bigint  default null,
    key               text    default null
) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    given command[] := read_commands(entity_apply.commands);
begin
    perform raise_failure(failure_among(value_failure(c.argument, 'the value'), 'command', c.place, cardinality(given)))
       from unnest(given) with ordinality as c (op, path, argument, place)
      where value_failure(c.argument, 'the value') is not null;
    return run_commands(entity_apply.id, given, entity_apply.expected_version, entity_apply.key);
end
$$;
comment on function @extschema@.entity_apply(text, jsonb, bigint, text) is
    'Apply [{op, path, value}] to one memory, all or none; return the answers in an array. Each command has a version; the row is written once. Errors: PD101, PD107, and those of the commands.';


create function @extschema@.entity_meets(id text, condition text) returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    it memory := read_job(entity_meets.id);
begin
    perform raise_failure(condition_failure(entity_meets.condition));
    return case when fulfils(it.context, entity_meets.condition::jsonpath) then it.version end;
end
$$;
comment on function @extschema@.entity_meets(text, text) is
    'Tell whether a memory meets a JSON path predicate: return its version if so, else null. Errors: PD108 (no predicate), PD401.';
