-- Forks: a new job that begins at a place in the journal of another job's coordinator. It has been told what the other
-- was told, and asks again for what was asked for and not answered.

create function @extschema@.run_began_at(id text) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select coalesce(f.at, j.created_at)
          from jobs as j
          left join journal as f on f.job_id = j.id and f.task = '$run' and f.seq = j.run
         where j.id = run_began_at.id);
end
$$;
comment on function @extschema@.run_began_at(text) is 'Return when the last run of a job began.';


create function @extschema@.run_started_at(id text, task text) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        (select t.started_at from tasks as t where t.job_id = run_started_at.id and t.task = run_started_at.task),
        (select j.started_at from jobs as j where j.id = run_started_at.id));
end
$$;
comment on function @extschema@.run_started_at(text, text) is
    'Return when the coordinator of the last run of a job was first claimed: its workflow time begins there.';


-- The commands and reads of the task itself show versions exactly. What others have written meanwhile is found by time.
create function @extschema@.version_at_fact(it @extschema@.memory, task text, seq bigint) returns bigint
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    bounds record;
begin
    select max(f.version) filter (where f.seq <= version_at_fact.seq) as lowest,
           min(f.version - f.made) filter (where f.seq > version_at_fact.seq) as highest,
           max(f.at) filter (where f.seq <= version_at_fact.seq) as at
      into bounds
      from (select g.seq, g.at, case when g.kind = 'read' then (g.argument ->> 'version')::bigint else g.version end as version,
                   case when g.version is null then 0 else 1 end as made
              from journal as g
             where g.job_id = it.id
               and g.task = version_at_fact.task
               and (g.version is not null or g.kind = 'read' or g.seq = version_at_fact.seq)) as f;
    return least(coalesce(bounds.highest, it.version),
                 greatest(coalesce(bounds.lowest, 0), version_at(it.id, coalesce(bounds.at, run_began_at(it.id)))));
end
$$;
comment on function @extschema@.version_at_fact(@extschema@.memory, text, bigint) is
    'Return which version a memory had when a task was told a fact; at position 0, when its run began.';


-- The journal of a job that was itself forked has several authors. An author that wrote nothing of the copied part is
-- listed too: the memory and the arguments may be its own, and were encrypted for that job.
create function @extschema@.authors_of(
    it    @extschema@.memory,
    task  text,
    upto  bigint
) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    known jsonb := coalesce((select j.forked_from from jobs as j where j.id = it.id and j.run = 1), '[]')
                   || jsonb_build_object('job', it.id, 'task', authors_of.task, 'position', authors_of.upto);
begin
    return (
        select jsonb_agg(k.author || jsonb_build_object('position', least((k.author ->> 'position')::bigint, authors_of.upto))
                         order by k.place)
          from jsonb_array_elements(known) with ordinality as k (author, place));
end
$$;
comment on function @extschema@.authors_of(@extschema@.memory, text, bigint) is
    'List whose journal a fork has, each with the position up to which it was copied.';


create function @extschema@.check_fork(
    it      @extschema@.memory,
    new_id  text,
    upto    bigint,
    seq     bigint,
    key     text
) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform raise_failure(chosen_name_failure(check_fork.new_id, 'the id of a job'));
    perform raise_failure(optional_name_failure(check_fork.key, 'a key'));
    perform raise_failure(case
        when it.status is null then make_failure(
            'PD107', 'InvalidArgument', format('job %s has no coordinator', quote_literal(it.id)),
            'It is a plain entity.', 'Create a copy with entity_create() and entity_at().')
        when (check_fork.seq between 0 and check_fork.upto) is not true then make_failure(
            'PD107', 'InvalidArgument', format('job %s was not told %s facts', quote_literal(it.id), check_fork.seq),
            format('The journal of its coordinator has %s.', check_fork.upto), 'Look for the position in timeline().')
        end);
end
$$;
comment on function @extschema@.check_fork(@extschema@.memory, text, bigint, bigint, text) is
    'Refuse to fork a job without a coordinator, or at a position that its journal does not have (PD107), or under a bad name (PD104).';


create function @extschema@.fork_logs(id text, job text, upto bigint) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    held memory := lock_job(fork_logs.id);
    forked_at timestamptz := clock();
    last bigint := copy_logs(fork_logs.job, fork_logs.upto, held, forked_at);
begin
    for hundred in held.version / 100 + 1 .. last / 100 loop
        held.version := 100 * hundred;
        perform store_snapshot(held);
    end loop;
    held.version := last;
    perform write_memory(held, forked_at, is_unchanged => true);
end
$$;
comment on function @extschema@.fork_logs(text, text, bigint) is
    'Give the memory of a fork the logs that the other had at a version; each of their commands is a version of its own.';


create function @extschema@.fork(
    id       text,
    new_id   text    default null,
    seq      bigint  default null,
    context  jsonb   default null,
    key      text    default null
) returns @extschema@.started
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held memory := lock_job(fork.id);
    source text := held.run::text || '/main';
    journal_end bigint := journal_length(held.id, source);
    upto bigint := coalesce(fork.seq, journal_end);
    version bigint := case when fork.seq is null then held.version else version_at_fact(held, source, upto) end;
    document jsonb := coalesce(fork.context, case when fork.seq is null then held.context else memory_at(held.id, version) end);
    wanted new_job;
begin
    perform raise_failure(key_failure(fork.key, fork.new_id, 'new_id'));
    perform check_fork(held, coalesce(fork.new_id, 'any'), journal_end, upto, fork.key);
    if fork.context is not null then
        perform raise_failure(coalesce(value_failure(fork.context, 'the memory'), argument_failure('set', '{}', fork.context)));
    end if;
    wanted := (
        select (coalesce(fork.new_id, gen_random_uuid()::text), j.workflow, j.entity, j.args, document, j.queue, j.priority,
                null, j.headers, j.pinned_version, fork.key, 'error', null, null, null, j.limit_key, null, j.timeout,
                null)::new_job
          from jobs as j
         where j.id = held.id);
    if start_jobs(array[wanted]) = '{}' then
        return (wanted.id, false)::started;
    end if;
    perform fork_logs(wanted.id, held.id, version);
    perform copy_journal(held.id, source, wanted.id, upto);
    perform mark_fork(wanted.id, authors_of(held, source, upto));
    perform set_position(wanted.id, upto::integer, run_started_at(held.id, source), (
        select max(f.at) from journal as f where f.job_id = wanted.id and f.task = '1/main'));
    return (wanted.id, true)::started;
end
$$;
comment on function @extschema@.fork(text, text, bigint, jsonb, text) is
    'Start a job from a place in the journal of another job''s coordinator, with the memory of that moment or another; return its id and whether this call made it. Errors: PD103, PD104, PD107, PD109, PD30x, PD401, PD402. [P9] [P12]';


create function @extschema@.origins_of(ids text[]) returns setof @extschema@.job_origin
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return query
    select j.id, array(select f.author ->> 'job' from jsonb_array_elements(j.forked_from) as f (author)),
           j.parent, j.asked_as
      from jobs as j
     where j.id = any(origins_of.ids)
       and (j.forked_from is not null or j.parent is not null);
end
$$;
comment on function @extschema@.origins_of(text[]) is
    'Return from which jobs some jobs come; a row for each job that was forked or has a parent.';
