-- Entities: the memory of a job, changed by atomic commands from any SQL client. [P2] [P3]

create function @extschema@.as_array(items jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when jsonb_typeof(as_array.items) <> 'array' then jsonb_build_array(as_array.items) else as_array.items end;
end
$$;
comment on function @extschema@.as_array(jsonb) is 'Read one value as a list of one; null stays null.';


create function @extschema@.answers_by_key(
    id           text,
    key          text,
    commands     @extschema@.command[],
    fingerprint  text
) returns jsonb[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    first record;
begin
    perform check_name(answers_by_key.key, 'a key');
    select f.version, (f.op, f.path, f.argument)::command as command, f.fingerprint
      into first
      from journal as f
     where f.job_id = answers_by_key.id
       and f.task = '$outside'
       and f.key = answers_by_key.key;
    if not found then
        return null;
    end if;
    if first.command is distinct from answers_by_key.commands[1] or first.fingerprint is distinct from answers_by_key.fingerprint then
        raise exception 'key % was used for another command', quote_literal(left(answers_by_key.key, 200))
            using errcode = 'PD106',
                  detail = format('It was used for %s at %s.', (first.command).op, write_path((first.command).path)),
                  hint = 'Use a new key for each command; repeat a key only to repeat the same call.';
    end if;
    return array(
        select f.value
          from journal as f
         where f.job_id = answers_by_key.id
           and f.version >= first.version
           and f.version < first.version + cardinality(answers_by_key.commands)
         order by f.version);
end
$$;
comment on function @extschema@.answers_by_key(text, text, @extschema@.command[], text) is
    'Return the answers that the key of a caller got the first time, or null; PD106 if the key was used for other commands, as their fingerprint shows. [P2]';


create function @extschema@.version_failure(held @extschema@.memory, expects bigint) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if version_failure.expects is null or version_failure.expects = held.version then
        return null;
    end if;
    return make_failure(
        'PD105', 'VersionConflict',
        format('job %s is at version %s, not %s', quote_literal(held.id), held.version, version_failure.expects),
        'Somebody changed the memory meanwhile; nothing was written.',
        'Read the memory again, decide again, and repeat the command with the new version.');
end
$$;
comment on function @extschema@.version_failure(@extschema@.memory, bigint) is
    'Return that a memory is not at the version that a command expects (PD105), or null.';


create function @extschema@.mark_version(held @extschema@.memory, made_at timestamptz) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if held.version % 100 = 0 then
        perform store_snapshot(held);
    end if;
    return held.watched and notify_watchers(held, mark_version.made_at);
end
$$;
comment on function @extschema@.mark_version(@extschema@.memory, timestamptz) is
    'Do what some versions of a memory require: keep every hundredth, and notify watchers; return whether any watchers are left.';


create function @extschema@.run_command(
    id                text,
    op                text,
    path              text[],
    argument          jsonb,
    expected_version  bigint,
    key               text,
    is_known          boolean default false,
    source            text    default null
) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(run_command.id);
    run_at timestamptz := clock();
    answers jsonb[];
    made outcome;
begin
    -- The same quick test as in value_failure(), repeated here so that most commands need one function less.
    if not run_command.is_known and octet_length(run_command.argument::text) > 200 then
        perform check_value(run_command.argument, 'the value');
    end if;
    if run_command.key is not null then
        answers := answers_by_key(run_command.id, run_command.key,
                                  array[(run_command.op, run_command.path, run_command.argument)::command], null);
        if answers is not null then
            return answers[1];
        end if;
    end if;
    if held.version <> run_command.expected_version then
        perform raise_failure(version_failure(held, run_command.expected_version));
    end if;
    made := apply_command(held.context, run_command.op, run_command.path, run_command.argument);
    if made.failure is null and run_command.op <> 'log' then
        made.failure := contract_failure(held.entity, made.context);
    end if;
    if made.failure is not null then
        perform raise_failure(made.failure);
    end if;
    held.version := held.version + 1;
    if run_command.op <> 'log' then
        held.context := made.context;
    end if;
    if held.watched or held.version % 100 = 0 then
        held.watched := mark_version(held, run_at);
    end if;
    perform write_memory(held, run_at, is_unchanged => run_command.op = 'log');
    made.answer := coalesce(made.answer, to_jsonb(held.version));
    perform append_command(run_command.id, run_command.key, held.version, run_command.op, run_command.path,
                           run_command.argument, made.answer, run_at, run_command.source);
    return made.answer;
end
$$;
comment on function @extschema@.run_command(text, text, text[], jsonb, bigint, text, boolean, text) is
    'Run one command that comes from no task. Every entity verb is this with its own arguments. A value that the memory has held before needs no check. [P2] [P3]';


create function @extschema@.run_commands(
    id                text,
    commands          @extschema@.command[],
    expected_version  bigint,
    key               text
) returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(run_commands.id);
    run_at timestamptz := clock();
    first_version bigint := held.version;
    is_unchanged boolean := 'log' = all(array(select c.op from unnest(run_commands.commands) as c));
    fingerprint text := case when run_commands.key is not null
                             then encode(sha256(convert_to(run_commands.commands::text, 'UTF8')), 'hex') end;
    answers jsonb[];
    this command;
    made outcome;
begin
    if run_commands.key is not null then
        answers := answers_by_key(run_commands.id, run_commands.key, run_commands.commands, fingerprint);
        if answers is not null then
            return to_jsonb(answers);
        end if;
    end if;
    perform raise_failure(version_failure(held, run_commands.expected_version));
    -- A loop: every command needs the document that the one before it left.
    foreach this in array run_commands.commands loop
        made := apply_command(held.context, this.op, this.path, this.argument);
        if made.failure is not null then
            perform raise_failure(failure_among(made.failure, 'command', coalesce(cardinality(answers), 0) + 1,
                                                cardinality(run_commands.commands)));
        end if;
        held.context := made.context;
        held.version := held.version + 1;
        if held.watched or held.version % 100 = 0 then
            held.watched := mark_version(held, run_at);
        end if;
        answers := answers || coalesce(made.answer, to_jsonb(held.version));
    end loop;
    -- In between, the document may break its contract; only the result of all commands counts.
    if not is_unchanged then
        perform raise_failure(contract_failure(held.entity, held.context));
    end if;
    perform write_memory(held, run_at, is_unchanged);
    perform append_commands(run_commands.id, run_commands.key, fingerprint, run_commands.commands, answers, first_version,
                            run_at);
    return to_jsonb(answers);
end
$$;
comment on function @extschema@.run_commands(text, @extschema@.command[], bigint, text) is
    'Run several commands that come from no task, all or none, with a version for each and one write of the row. [P2] [P3]';


create function @extschema@.record_update() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(document_failure(new.context));
    perform check_contract(new.id, new.entity, new.context);
    new.version := old.version + 1;
    new.updated_at := clock();
    -- Somebody who writes back a whole row that was read earlier must not remove the watchers.
    new.watched := old.watched or new.watched;
    if new.watched or new.version % 100 = 0 then
        new.watched := mark_version((new.id, new.status, new.context, new.version, new.run, new.entity, new.watched)::memory,
                                    new.updated_at);
    end if;
    perform append_command(new.id, null, new.version, 'set', '{}', new.context, to_jsonb(new.version), new.updated_at);
    return new;
end
$$;
comment on function @extschema@.record_update() is
    'Give a plain UPDATE of a memory its version and its row in the journal; PD109 if it breaks the contract. [P3]';


create function @extschema@.record_insert() returns trigger
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held memory := (new.id, new.status, new.context, 1, new.run, new.entity, new.watched)::memory;
begin
    perform raise_failure(document_failure(new.context));
    perform check_contract(new.id, new.entity, new.context);
    if new.version = 0 then
        perform write_memory(held, new.created_at);
    end if;
    perform append_command(new.id, null, 1, 'set', '{}', new.context, '1', new.created_at);
    return null;
end
$$;
comment on function @extschema@.record_insert() is
    'Record the first document of a job as version 1 in the journal; PD109 if it breaks the contract.';
