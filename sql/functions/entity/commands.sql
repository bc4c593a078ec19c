-- Entities: the memory of a job, changed by atomic commands from any SQL client. [P2] [P3]

create function @extschema@.told_before(id text, key text, op text, path text[], argument jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    told record;
begin
    select f.op, f.path, f.argument, f.value
      into told
      from journal as f
     where f.job_id = told_before.id
       and f.task = '$outside'
       and f.key = told_before.key;
    if not found then
        return null;
    end if;
    if (told.op, told.path) is distinct from (told_before.op, told_before.path)
        or told.argument is distinct from told_before.argument then
        raise exception 'key % stands for another command', quote_literal(left(told_before.key, 200))
            using errcode = 'PD106',
                  detail = format('It was used for %s at %s.', told.op, write_path(told.path)),
                  hint = 'Draw a new key for each command; repeat a key only to repeat the same call.';
    end if;
    return told.value;
end
$$;
comment on function @extschema@.told_before(text, text, text, text[], jsonb) is
    'Return the answer that a caller''s key got the first time, or null; PD106 when it stood for another command. [P2]';


create function @extschema@.check_version(memory @extschema@.memory, expected_version bigint) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if check_version.expected_version is null or check_version.expected_version = (check_version.memory).version then
        return;
    end if;
    raise exception 'job % is at version %, not %', quote_literal((check_version.memory).id),
        (check_version.memory).version, check_version.expected_version
        using errcode = 'PD105',
              detail = 'Somebody changed the memory meanwhile; nothing was written.',
              hint = 'Read the memory again, decide again, and repeat the command with the new version.';
end
$$;
comment on function @extschema@.check_version(@extschema@.memory, bigint) is
    'Refuse a command that expects another version of the memory (PD105).';


create function @extschema@.run_command(
    id                text,
    op                text,
    path              text[],
    argument          jsonb,
    expected_version  bigint,
    key               text
) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    held memory := lock_job(run_command.id);
    run_at timestamptz := clock();
    answer jsonb;
    made outcome;
begin
    perform check_value(run_command.argument, 'the value');
    if run_command.key is not null then
        perform check_name(run_command.key, 'a key');
        answer := told_before(run_command.id, run_command.key, run_command.op, run_command.path, run_command.argument);
        if answer is not null then
            return answer;
        end if;
    end if;
    perform check_version(held, run_command.expected_version);
    made := apply_command(held.context, run_command.op, run_command.path, run_command.argument);
    perform raise_failure(made.failure);
    answer := coalesce(made.answer, to_jsonb(held.version + 1));
    perform write_memory(run_command.id, made.context, held.version + 1, run_at);
    perform append_command(run_command.id, run_command.key, held.version + 1, run_command.op, run_command.path,
                           run_command.argument, answer, run_at);
    return answer;
end
$$;
comment on function @extschema@.run_command(text, text, text[], jsonb, bigint, text) is
    'Run one command that comes from no task; every entity verb is this with its own arguments. [P2] [P3]';


create function @extschema@.record_update() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    new.version := old.version + 1;
    new.updated_at := clock();
    perform append_command(new.id, null, new.version, 'set', '{}', new.context, to_jsonb(new.version), new.updated_at);
    return new;
end
$$;
comment on function @extschema@.record_update() is 'Give a plain UPDATE of a memory its version and its row in the journal. [P3]';


create function @extschema@.record_insert() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if new.version = 0 then
        perform write_memory(new.id, new.context, 1, new.created_at);
    end if;
    perform append_command(new.id, null, 1, 'set', '{}', new.context, '1', new.created_at);
    return null;
end
$$;
comment on function @extschema@.record_insert() is 'Journal the document that a job begins with, as version 1.';
