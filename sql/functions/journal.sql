-- The journal: only the holder of a task appends to it, so the position in it is the order of events.

create function @extschema@.append_facts(facts @extschema@.fact[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, key, name, fingerprint, ok, value, version, op, path, argument, at, is_answer)
    select f.job, f.task, f.seq, f.kind, f.key, f.name, f.fingerprint, f.ok,
           case when (f.op = 'get' and f.argument ? 'bytes') is not true then f.value end,
           f.version, f.op, f.path, f.argument, f.at, f.is_answer
      from unnest(append_facts.facts) as f;
end
$$;
comment on function @extschema@.append_facts(@extschema@.fact[]) is
    'Append facts to the journals of their tasks; large values that were read are stored by version only.';


create function @extschema@.append_command(
    id        text,
    key       text,
    version   bigint,
    op        text,
    path      text[],
    argument  jsonb,
    value     jsonb,
    at        timestamptz,
    source    text  default null
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, key, name, ok, value, version, op, path, argument, at)
    values (append_command.id, '$outside', append_command.version, 'command', append_command.key, append_command.source,
            true, append_command.value, append_command.version, append_command.op, append_command.path,
            append_command.argument, append_command.at);
end
$$;
comment on function @extschema@.append_command(text, text, bigint, text, text[], jsonb, jsonb, timestamptz, text) is
    'Record a command that came from no task, or beside the facts of one (its source). The version numbers the row: no look-up, and no gap.';


create function @extschema@.append_commands(
    id           text,
    key          text,
    fingerprint  text,
    commands     @extschema@.command[],
    answers      jsonb[],
    after        bigint,
    at           timestamptz
) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, key, fingerprint, ok, value, version, op, path, argument, at)
    select append_commands.id, '$outside', append_commands.after + c.place, 'command',
           case c.place when 1 then append_commands.key end, case c.place when 1 then append_commands.fingerprint end, true,
           append_commands.answers[c.place], append_commands.after + c.place, c.op, c.path, c.argument, append_commands.at
      from unnest(append_commands.commands) with ordinality as c (op, path, argument, place);
end
$$;
comment on function @extschema@.append_commands(text, text, text, @extschema@.command[], jsonb[], bigint, timestamptz) is
    'Record commands that came from no task, one version each; the first has the key of the caller, with the fingerprint of all.';


create function @extschema@.journal_rows(job text, task text, after bigint, max_rows integer) returns json
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce((
        select json_agg(json_build_array(f.seq, f.kind, f.key, f.name, f.fingerprint, f.ok, coalesce(f.value, r.value), f.at,
                                         f.op, f.path)
                        order by f.seq)
          from (select g.*
                  from journal as g
                 where g.job_id = journal_rows.job
                   and g.task = journal_rows.task
                   and g.seq > journal_rows.after
                 order by g.seq
                 limit journal_rows.max_rows) as f
          left join large_reads(journal_rows.job, journal_rows.task, journal_rows.after, journal_rows.max_rows) as r
            on r.seq = f.seq), '[]');
end
$$;
comment on function @extschema@.journal_rows(text, text, bigint, integer) is
    'Write the rows of the journal of a task as replay reads them.';


create function @extschema@.journal_size(job text, task text) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select coalesce(sum(case when f.op = 'get' and f.value is null then (f.argument ->> 'bytes')::bigint
                                 else pg_column_size(f.value) end), 0)
          from journal as f
         where f.job_id = journal_size.job
           and f.task = journal_size.task);
end
$$;
comment on function @extschema@.journal_size(text, text) is
    'Return how many bytes the values of the journal of a task take, including those held by version.';


create function @extschema@.page_size(
    job       text,
    task      text,
    after     bigint,
    max_rows  integer
) returns integer
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select count(*)
          from (select sum(case when f.op = 'get' and f.value is null then (f.argument ->> 'bytes')::bigint
                                else pg_column_size(f.value) end)
                           over (order by f.seq rows between unbounded preceding and 1 preceding) as bytes_before
                  from journal as f
                 where f.job_id = page_size.job
                   and f.task = page_size.task
                   and f.seq > page_size.after
                 order by f.seq
                 limit page_size.max_rows) as p
         where coalesce(p.bytes_before, 0) < 8388608);
end
$$;
comment on function @extschema@.page_size(text, text, bigint, integer) is
    'Return how many rows of a journal make a page: as many as are asked for, or about 8 MB.';


create function @extschema@.read_journal(
    job       text,
    task      text,
    after     bigint default 0,
    max_rows  integer default 10000
) returns json
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform check_rows(read_journal.max_rows);
    perform check_reading(read_journal.job, read_journal.task);
    return journal_rows(read_journal.job, read_journal.task, coalesce(read_journal.after, 0),
                        page_size(read_journal.job, read_journal.task, coalesce(read_journal.after, 0),
                                  read_journal.max_rows));
end
$$;
comment on function @extschema@.read_journal(text, text, bigint, integer) is
    'Return a page of the journal of a task after a place, as arrays [seq, kind, key, name, fingerprint, ok, value, at, op, path]; an empty page is the end. Errors: PD001, PD107, PD115.';


create function @extschema@.answers_after(job text, task text, place integer) returns json
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select json_agg(json_build_array(f.seq, f.ok, coalesce(f.value, r.value)) order by f.seq)
          from journal as f
          left join large_reads(answers_after.job, answers_after.task, answers_after.place, null) as r on r.seq = f.seq
         where f.job_id = answers_after.job
           and f.task = answers_after.task
           and f.seq > answers_after.place
           and (f.op is not null or f.kind = 'send'));
end
$$;
comment on function @extschema@.answers_after(text, text, integer) is
    'Return the answers of commands for a repeated call. [P12]';


create function @extschema@.append_end(turns @extschema@.turn[], ended_at timestamptz) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into journal (job_id, task, seq, kind, name, ok, value, at)
    select r.job, r.task, r.position + coalesce(jsonb_array_length(r.facts), 0) + 1, 'end', r.state, r.state = 'done',
           r.value, append_end.ended_at
      from unnest(append_end.turns) as r;
    return array(select '$job/' || r.job from unnest(append_end.turns) as r);
end
$$;
comment on function @extschema@.append_end(@extschema@.turn[], timestamptz) is
    'Record how tasks ended that answer nobody: a failure is kept, and the same request is not run again. Return the topics of those who may wait for that.';


create function @extschema@.task_has_ended(job text, task text) returns boolean
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return exists (
        select
          from journal as f
         where f.job_id = task_has_ended.job
           and f.task = task_has_ended.task
           and f.kind = 'end');
end
$$;
comment on function @extschema@.task_has_ended(text, text) is
    'Tell whether a task that answers nobody has run to its end.';


create function @extschema@.forget_journals(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from journal as f where f.job_id = any(forget_journals.ids);
end
$$;
comment on function @extschema@.forget_journals(text[]) is 'Delete the journals of deleted jobs.';
