-- Facts: what turns report. They are read from JSON once for the whole batch; commands and signals are carried out in
-- order.

-- If an expected version cannot be read, it is one that no memory has: the command is refused, not the whole batch.
create function @extschema@.read_facts(
    turns    @extschema@.turn[],
    told_at  timestamptz
) returns @extschema@.fact[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select (r.number, r.job, r.task, r.position + f.ordinality,
                case when f.op = 'get' then 'read' when f.op is not null then 'command' when f.signal is not null then 'send'
                     else coalesce(f.kind, 'note') end,
                f.key, f.name, f.fingerprint,
                coalesce(f.ok, true), case when f.op is null and f.signal is null then f.value end, null, f.op,
                case when f.op is not null then coalesce(f.path, '{}') end,
                case when f.op is not null then coalesce(f.value, 'null') when f.signal is not null then f.value end,
                coalesce(f.at, greatest(read_facts.told_at, r.told_at)), f.message, f.signal,
                case when f.signal is not null then coalesce(f.target, r.job) end,
                coalesce(f.at > greatest(read_facts.told_at, r.told_at) or f.at < greatest(r.told_at, max(f.at) over before), false),
                case when f.expected_version ~ '^[0-9]{1,18}$' then f.expected_version::bigint
                     when f.expected_version is not null then -1 end,
                false)::fact
          from unnest(read_facts.turns) as r
         cross join rows from (jsonb_to_recordset(r.facts) as (
                   kind text, key text, name text, fingerprint text, ok boolean, value jsonb, at timestamptz, op text,
                   path text[], message bigint, signal text, target text, expected_version text)) with ordinality as f
         where r.verdict = 'apply'
           and r.facts is not null
        window before as (partition by r.job, r.number order by f.ordinality rows between unbounded preceding and 1 preceding)
         order by r.job, r.number, f.ordinality);
exception
    -- Only now it is looked up which one it was. Nothing was written in this block, so it costs no transaction id.
    when data_exception or program_limit_exceeded then
        perform raise_failure(failure_among(unreadable_failure(f.fact, 'fact ' || f.place::text), 'turn', r.number,
                                            cardinality(read_facts.turns), concat_ws(' of job ', r.task, r.job)))
           from unnest(read_facts.turns) as r
          cross join jsonb_array_elements(r.facts) with ordinality as f (fact, place)
          where r.verdict = 'apply'
            and unreadable_field(f.fact) is not null
          order by r.number, f.place;
        raise;
end
$$;
comment on function @extschema@.read_facts(@extschema@.turn[], timestamptz) is
    'Read the facts of turns that apply. Those of one document are together, in the order of their turns. Errors: PD107.';


-- A time that was read in a wrong time zone nearly always lies in the future, or before the last fact. So only such facts
-- are checked, and facts with normal times cost nothing.
create function @extschema@.check_times(turns @extschema@.turn[], facts @extschema@.fact[]) returns void
language plpgsql
immutable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(failure_among(zoneless_failure(e.fact, 'fact ' || e.place::text), 'turn', r.number,
                                        cardinality(check_times.turns), concat_ws(' of job ', r.task, r.job)))
       from unnest(check_times.turns) as r
      cross join jsonb_array_elements(r.facts) with ordinality as e (fact, place)
      where r.number in (select f.turn from unnest(check_times.facts) as f where f.is_untimely)
        and e.fact ->> 'at' !~ zoned_time()
      order by r.number, e.place;
end
$$;
comment on function @extschema@.check_times(@extschema@.turn[], @extschema@.fact[]) is
    'Refuse facts whose times have no time zone and therefore seem untimely (PD107).';


create function @extschema@.answer_command(
    inout fact  @extschema@.fact,
    inout held  @extschema@.memory,
    applied_at  timestamptz
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    made outcome;
begin
    if held.version <> fact.expects then
        made.failure := version_failure(held, fact.expects);
    else
        made := apply_command(held.context, fact.op, fact.path, fact.argument);
        if made.failure is null and fact.op <> 'log' then
            made.failure := contract_failure(held.entity, made.context);
        end if;
    end if;
    fact.ok := made.failure is null;
    if fact.ok then
        held.context := made.context;
        held.version := held.version + 1;
        fact.version := held.version;
        if held.watched or held.version % 100 = 0 then
            held.watched := mark_version(held, answer_command.applied_at);
        end if;
    end if;
    fact.value := coalesce(made.failure, made.answer, to_jsonb(held.version));
end
$$;
comment on function @extschema@.answer_command(@extschema@.fact, @extschema@.memory, timestamptz) is
    'Apply one command to a document in hand; a refusal is an answer. [P3]';


-- The journal stores the version that was read, and nothing else of a large value: it can be read again at any time.
create function @extschema@.answer_read(
    inout fact  @extschema@.fact,
    held        @extschema@.memory,
    before      @extschema@.fact[]
)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    found_value jsonb := held.context #> fact.path;
    failure jsonb;
    size integer;
begin
    fact.argument := jsonb_build_object('version', held.version);
    if found_value is null then
        failure := log_failure(held.id, fact.path, held.version);
        if failure is not null then
            fact.ok := false;
            fact.value := failure;
            return;
        end if;
        -- Items that the same batch has added to a log are not in the journal yet.
        found_value := nullif(coalesce(log_value(held.id, fact.path, held.version), '[]') || coalesce((
            select jsonb_agg(i.item order by b.version, i.place)
              from unnest(answer_read.before) as b
             cross join lateral jsonb_array_elements(b.argument) with ordinality as i (item, place)
             where b.job = held.id
               and b.op = 'log'
               and b.path = fact.path
               and b.ok), '[]'), '[]');
    end if;
    fact.value := coalesce(found_value, 'null');
    size := octet_length(fact.value::text);  -- a document that comes from its table may be compressed
    if size > 2000 then
        fact.argument := fact.argument || jsonb_build_object('bytes', size);
    end if;
end
$$;
comment on function @extschema@.answer_read(@extschema@.fact, @extschema@.memory, @extschema@.fact[]) is
    'Read from a document in hand, or from a log, with what came before in the same batch; a log that is too large is an answer. [P4]';


-- Each document is read once and written once, however many commands it gets.
create function @extschema@.apply_commands(inout facts @extschema@.fact[], applied_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    applied fact[] := '{}'::fact[];
    this fact;
    held memory;
    answered record;
    read_version bigint;
    is_unchanged boolean;
begin
    -- A loop: every command needs the document that the one before it left.
    foreach this in array facts loop
        if this.op is not null and this.job is distinct from held.id then
            if held.version > read_version then
                perform write_memory(held, apply_commands.applied_at, is_unchanged);
            end if;
            held := read_job(this.job);
            read_version := held.version;
            is_unchanged := true;
        end if;
        if this.op = 'get' then
            this := answer_read(this, held, applied);
        elsif this.op is not null then
            answered := answer_command(this, held, apply_commands.applied_at);
            this := answered.fact;
            held := answered.held;
            is_unchanged := is_unchanged and (this.op = 'log' or not this.ok);
        end if;
        applied := applied || this;
    end loop;
    if held.version > read_version then
        perform write_memory(held, apply_commands.applied_at, is_unchanged);
    end if;
    facts := applied;
end
$$;
comment on function @extschema@.apply_commands(@extschema@.fact[], timestamptz) is
    'Apply the commands of many turns, job by job, with one row write for each document. [P3]';


-- A hook that sends the signal whose name its asker gave it answers the asker. Any other signal goes to whoever waits for
-- it. A job that is not locked did not exist when the batch began, unless it is a child that the batch itself has made.
create function @extschema@.send_signals(
    inout facts  @extschema@.fact[],
    turns        @extschema@.turn[],
    locked       text[],
    sent_at      timestamptz
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    sent record;
begin
    -- A loop: it fills in two fields of those facts that send a signal.
    for sent in
        select f.ordinality as place,
               case when j.id is null then make_failure(
                        'PD401', 'JobNotFound', format('job %s does not exist', quote_literal(left(f.target, 200))),
                        'No job has this id.', 'Check the id.')
                    else coalesce(name_failure(f.signal, 'a signal'), signal_failure(j.id, j.status)) end as failure
          from unnest(facts) with ordinality as f
          left join jobs as j on j.id = any(array[f.target]) and (j.id = any(send_signals.locked) or j.parent = f.job)
         where f.signal is not null
    loop
        facts[sent.place].ok := sent.failure is null;
        facts[sent.place].value := sent.failure;
    end loop;
    perform insert_answers(array(
        select ending_turn(r.job, r.task, 'done', f.argument, asker_job => r.asker_job, asker_task => r.asker_task,
                           asker_key => r.asker_key, fingerprint => r.fingerprint, signal => r.signal)
          from unnest(facts) with ordinality as f
          join unnest(send_signals.turns) as r on r.number = f.turn and r.signal = f.signal and r.job = f.target
         order by f.ordinality), send_signals.sent_at);
    perform insert_signals(array(
        select f
          from unnest(facts) as f
          join unnest(send_signals.turns) as r on r.number = f.turn
         where f.signal is not null
           and f.ok
           and (r.signal is distinct from f.signal or r.job <> f.target)), send_signals.sent_at);
end
$$;
comment on function @extschema@.send_signals(@extschema@.fact[], @extschema@.turn[], text[], timestamptz) is
    'Send the signals of turns; a signal that nobody can take is answered with its failure. [P5]';


create function @extschema@.apply_facts(
    inout facts  @extschema@.fact[],
    turns        @extschema@.turn[],
    locked       text[],
    applied_at   timestamptz
)
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    batch record;
begin
    select bool_or(f.op is not null) as has_commands, bool_or(f.message is not null) as has_messages,
           bool_or(f.signal is not null) as has_signals
      into batch
      from unnest(facts) as f;
    if batch.has_commands then
        facts := apply_commands(facts, apply_facts.applied_at);
    end if;
    if batch.has_messages then
        facts := consume_messages(facts, apply_facts.applied_at);
    end if;
    if batch.has_signals then
        facts := send_signals(facts, apply_facts.turns, apply_facts.locked, apply_facts.applied_at);
    end if;
    perform append_facts(facts);
end
$$;
comment on function @extschema@.apply_facts(@extschema@.fact[], @extschema@.turn[], text[], timestamptz) is
    'Carry out what facts do, then append them to their journals.';
