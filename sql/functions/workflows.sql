-- Workflows: starting them. [P1]

-- Most starts are short and plain, which one expression shows. It says nothing of the others: they are checked
-- completely.
create function @extschema@.is_plain(wanted @extschema@.new_job) returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        least(wanted.id, wanted.workflow, wanted.queue, wanted.entity, wanted.key) <> ''
        and num_nulls(wanted.id, wanted.workflow, wanted.queue) = 0
        and concat(wanted.id, wanted.workflow, wanted.queue, wanted.entity, wanted.key, wanted.limit_key) !~ '[[:cntrl:]$@]'
        and octet_length(concat(wanted.id, wanted.workflow, wanted.queue, wanted.entity, wanted.key, wanted.limit_key)) <= 200
        and num_nonnulls(wanted.pinned_version, wanted.headers, wanted.timeout, wanted.due_at) = 0
        and wanted.context = '{}'
        and jsonb_typeof(wanted.args) in ('array', 'object')
        and octet_length(wanted.args::text) <= 200
        and wanted.priority between 0 and 9
        and wanted.if_exists in ('error', 'existing', 'new_run'), false);
end
$$;
comment on function @extschema@.is_plain(@extschema@.new_job) is
    'Tell quickly that nothing can be wrong with a start; false if it has to be checked.';


create function @extschema@.start_failure(wanted @extschema@.new_job) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if is_plain(wanted) then
        return null;
    end if;
    return coalesce(
        chosen_name_failure(wanted.id, 'the id of a job'),
        call_failure('a workflow', wanted.workflow, wanted.args, wanted.queue, wanted.priority),
        pin_failure(wanted.pinned_version, wanted.queue),
        case when wanted.entity is not null then chosen_name_failure(wanted.entity, 'an entity') end,
        optional_name_failure(wanted.key, 'a key'),
        optional_name_failure(nullif(wanted.limit_key, ''), 'a limit key'),
        value_failure(wanted.headers, 'the headers'),
        case when wanted.context <> '{}' then coalesce(value_failure(wanted.context, 'the memory'),
                                                       argument_failure('set', '{}', wanted.context)) end,
        timeout_failure(wanted.timeout),
        due_failure(wanted.due_at),
        case when (wanted.if_exists in ('error', 'existing', 'new_run')) is not true then make_failure(
            'PD107', 'InvalidArgument', 'if_exists must be error, existing or new_run',
            format('It was given %s.', quote_nullable(wanted.if_exists)),
            'Use error, existing or new_run, or leave it out.') end);
end
$$;
comment on function @extschema@.start_failure(@extschema@.new_job) is
    'Return what is wrong with a start: its names (PD104), values (PD103, PD30x) or options (PD107); or null.';


-- What is refused and what is gone is read in one snapshot: otherwise an id could be neither.
create function @extschema@.check_existing(wanted @extschema@.new_job[], made text[]) returns @extschema@.new_job[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    existing record;
begin
    select w.id, w.if_exists, w.id = any(check_existing.made) as is_ours
      into existing
      from (select v.*, row_number() over (partition by v.id order by v.ordinality) as nth
              from unnest(check_existing.wanted) with ordinality as v) as w
      join jobs as j on j.id = any(array[w.id])
     where (w.nth > 1 or w.id <> all(check_existing.made))
       and w.if_exists <> 'existing'
       and not was_started_by(w.id, w.key)
     order by w.id
     limit 1;
    if existing.if_exists = 'new_run' then
        raise exception 'job % is running', quote_literal(existing.id)
            using errcode = 'PD402',
                  detail = 'A new run begins when the last one has ended; nothing was started.',
                  hint = 'Wait for its result, or terminate() it first.';
    elsif existing.is_ours then
        raise exception 'job % is started twice at once', quote_literal(existing.id)
            using errcode = 'PD402', detail = 'An id belongs to one job; nothing was started.',
                  hint = 'Name each id once, or give the second start if_exists => ''existing''.';
    elsif existing.id is not null then
        raise exception 'job % exists already', quote_literal(existing.id)
            using errcode = 'PD402',
                  detail = 'An id belongs to one job; nothing was started.',
                  hint = 'Choose another id, or give if_exists => ''existing'' for the existing job, ''new_run'' to run it again.';
    end if;
    return array(
        select w
          from unnest(check_existing.wanted) as w
         where w.id <> all(check_existing.made)
           and not exists (select from jobs as j where j.id = w.id offset 0));
end
$$;
comment on function @extschema@.check_existing(@extschema@.new_job[], text[]) is
    'Refuse ids that exist (PD402), unless the caller takes the existing job, wants a new run of it, or repeats its own start; return the requests whose jobs were deleted meanwhile.';


create function @extschema@.start_jobs(wanted @extschema@.new_job[]) returns text[]
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    firsts new_job[] := first_per_id(start_jobs.wanted);
    again text[] := array(select w.id from unnest(firsts) as w where w.if_exists = 'new_run');
    -- Existing jobs are locked up front. An insert waits for a session that has inserted the same id and not committed.
    locked text[] := case when again <> '{}' then lock_jobs(again, waiting => true) else '{}' end;
    started_at timestamptz := clock();
    made text[] := insert_jobs(firsts, started_at);
    forgotten new_job[];
begin
    perform insert_coordinators(firsts, made, started_at);
    if cardinality(made) < cardinality(start_jobs.wanted) then
        made := made || begin_new_runs(array(
            select w
              from unnest(firsts) as w
             where w.if_exists = 'new_run'
               and w.id <> all(made)
               and not was_started_by(w.id, w.key)), locked, started_at);
        forgotten := check_existing(start_jobs.wanted, made);
        if forgotten <> '{}' and made || locked <> '{}' then
            raise exception 'job % was just forgotten', quote_literal((forgotten[1]).id)
                using errcode = '40001',
                      detail = 'Jobs are created in the order of their ids, and others exist by now.',
                      hint = 'Call again.';
        elsif forgotten <> '{}' then
            made := start_jobs(forgotten);
        end if;
    end if;
    perform notify_listeners(queues_of_starts(start_jobs.wanted));
    return made;
end
$$;
comment on function @extschema@.start_jobs(@extschema@.new_job[]) is
    'Create jobs, or new runs, with their first tasks, and notify idle workers; return the ids for which a run was begun. [P1]';


create function @extschema@.start(
    workflow        text,
    args            jsonb        default '[]',
    id              text         default null,
    entity          text         default null,
    queue           text         default 'default',
    priority        integer      default 5,
    due_at          timestamptz  default null,
    context         jsonb        default '{}',
    headers         jsonb        default null,
    pinned_version  text         default null,
    key             text         default null,
    if_exists       text         default 'error',
    limit_key       text         default null,
    timeout         interval     default null
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
    wanted new_job := (coalesce(start.id, gen_random_uuid()::text), start.workflow, start.entity, coalesce(start.args, '[]'),
                       coalesce(start.context, '{}'), start.queue, start.priority, start.due_at, start.headers,
                       start.pinned_version, start.key, start.if_exists, null, null, null, start.limit_key, null,
                       start.timeout, null)::new_job;
    failure jsonb := coalesce(start_failure(wanted), case when start.key is not null then key_failure(start.key, start.id, 'id') end);
begin
    if failure is not null then
        perform raise_failure(failure);
    end if;
    return (wanted.id, start_jobs(array[wanted]) <> '{}')::started;
end
$$;
comment on function @extschema@.start(text, jsonb, text, text, text, integer, timestamptz, jsonb, jsonb, text, text, text, text, interval) is
    'Start a workflow in the caller''s transaction; return its id and whether this call began a run. Errors: PD402 (the id exists, or its run has not ended), PD103, PD104, PD107, PD109, PD30x. [P1]';


create function @extschema@.signal_with_start(
    workflow        text,
    id              text,
    name            text,
    payload         jsonb        default null,
    args            jsonb        default '[]',
    entity          text         default null,
    queue           text         default 'default',
    priority        integer      default 5,
    context         jsonb        default '{}',
    headers         jsonb        default null,
    pinned_version  text         default null,
    key             text         default null,
    if_exists       text         default 'existing',
    limit_key       text         default null,
    timeout         interval     default null
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
    wanted new_job := (coalesce(signal_with_start.id, gen_random_uuid()::text), signal_with_start.workflow,
                       signal_with_start.entity, coalesce(signal_with_start.args, '[]'),
                       coalesce(signal_with_start.context, '{}'), signal_with_start.queue, signal_with_start.priority, null,
                       signal_with_start.headers, signal_with_start.pinned_version, signal_with_start.key, 'existing',
                       null, null, null, signal_with_start.limit_key, null, signal_with_start.timeout, null)::new_job;
    is_new boolean;
begin
    perform raise_failure(coalesce(
        start_failure(wanted),
        key_failure(signal_with_start.key, signal_with_start.id, 'id'),
        case when (signal_with_start.if_exists in ('existing', 'new_run')) is not true then make_failure(
            'PD107', 'InvalidArgument', 'if_exists must be existing or new_run for a signal',
            format('It was given %s.', quote_nullable(signal_with_start.if_exists)), 'Use existing or new_run.') end));
    -- A loop: somebody may forget the existing job before it is locked.
    loop
        is_new := start_jobs(array[wanted]) <> '{}';
        exit when lock_jobs(array[wanted.id], waiting => true) <> '{}';
    end loop;
    if signal_with_start.if_exists = 'new_run'
        and (read_job(wanted.id)).status is distinct from 'running'
        and not signal_was_sent(wanted.id, signal_with_start.key) then
        wanted.if_exists := 'new_run';
        is_new := start_jobs(array[wanted]) <> '{}';
    end if;
    perform signal(wanted.id, signal_with_start.name, signal_with_start.payload, signal_with_start.key);
    return (wanted.id, is_new)::started;
end
$$;
comment on function @extschema@.signal_with_start(
    text, text, text, jsonb, jsonb, text, text, integer, jsonb, jsonb, text, text, text, text, interval
) is
    'Send a signal to a job, and start the job first if it does not exist, or has ended and if_exists is ''new_run''; both or neither. Return the id and whether this call began a run. Errors: PD403 (the job has ended), those of start() and signal(). [P1] [P5]';
