-- Workers: which processes have registered, which version of the code they run, and which functions they have.

-- Nobody would look for a function without its kind.
create function @extschema@.functions_failure(functions text[]) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument',
                   format('%s is not a function of a worker', coalesce(quote_literal(left(f.name, 200)), 'null')),
                   'A function is named by its kind and its name.',
                   'Write "coordinator trip", "hook visit" or "activity print".')
          from unnest(functions_failure.functions) as f (name)
         where f.name ~ '^(coordinator|hook|activity) .' is not true
         limit 1);
end
$$;
comment on function @extschema@.functions_failure(text[]) is
    'Return that a worker has named a function without its kind (PD107), or null.';


create function @extschema@.register_worker(
    worker     text,
    queues     text[],
    details    jsonb    default '{}',
    protocol   integer  default 1,
    version    text     default null,
    functions  text[]   default '{}',
    instance   uuid     default null
) returns json
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz;
    served text[] := served_queues(without_sql_queue(register_worker.queues), register_worker.version);
    is_new boolean;
    former text[];
    was_seen_at timestamptz;
begin
    perform check_protocol(register_worker.protocol);
    perform check_instance(register_worker.instance);
    perform check_name(register_worker.worker, 'a worker');
    perform check_value(register_worker.details, 'the details');
    perform check_value(to_jsonb(register_worker.queues), 'the list of queues');
    perform check_value(to_jsonb(register_worker.functions), 'the list of functions');
    perform raise_failure(coalesce(pin_failure(register_worker.version, null), functions_failure(register_worker.functions)));
    if register_worker.queues is null then
        raise exception 'a worker needs queues'
            using errcode = 'PD107',
                  detail = 'It was given null.',
                  hint = 'Name its queues; an empty array means none.';
    end if;
    perform check_queues(served);
    perform withdraw_hints(register_worker.worker);
    -- Whoever registers the same name at the same time is waited for, and may serve other queues. If it unregisters before
    -- its row is locked, there is none.
    loop
        insert into workers (worker, queues, registered_at, seen_at)
        values (register_worker.worker, served, clock(), clock())
            on conflict on constraint one_row_per_worker do nothing;
        is_new := found;
        select w.queues, w.seen_at
          into former, was_seen_at
          from workers as w
         where w.worker = register_worker.worker
           for no key update;
        exit when found;
    end loop;
    now_at := clock();
    if is_new or is_gone(was_seen_at, now_at) then
        former := null;
    end if;
    perform check_queues(coalesce(former, '{}'));
    update workers as w
       set version = register_worker.version,
           queues = served,
           functions = coalesce(register_worker.functions, '{}'),
           details = coalesce(register_worker.details, '{}'),
           seen_at = now_at
     where w.worker = register_worker.worker;
    -- Its own rows first, for which it may have to wait; then those of others, for which it never waits.
    delete from workers as w
     where w.worker = any(array(
        select old.worker from workers as old where old.seen_at < now_at - interval '1 hour' for no key update skip locked));
    perform forget_listeners(now_at - interval '1 day');
    perform wake_released(served, register_worker.functions, now_at);
    -- A worker that unregisters at the same moment is waited for, or waits: otherwise neither would see the other, and
    -- stuck tasks would stay so.
    perform
       from workers as w
      where w.queues && served
        and not is_gone(w.seen_at, now_at)
        for key share;
    perform wake_stuck(served, case when former is null then register_worker.worker end, clock());
    return json_build_object(
        'at', now_at,
        'version', perdure_version(),
        'queues', served,
        'instance', (select s.value from settings as s where s.name = 'instance'));
end
$$;
comment on function @extschema@.register_worker(text, text[], jsonb, integer, text, text[], uuid) is
    'Register a worker with its queues, its version of the code and its functions ("hook perspective"); return the time, the version of perdure, and the queues and the instance to give to claim(). Tasks that a lost worker left stuck may be tried again. Errors: PD003, PD004, PD104, PD107, PD115, PD30x, PD505.';


create function @extschema@.forget_worker(worker text) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    served text[];
    now_at timestamptz;
begin
    delete from workers as w where w.worker = forget_worker.worker returning w.queues into served;
    perform check_queues(coalesce(served, '{}'));
    perform withdraw_hints(forget_worker.worker);
    now_at := clock();
    -- On queues that nobody serves it would wait as well, but would no longer say why it is stuck.
    perform notify_listeners(wake_stuck(
        array(select distinct unnest(w.queues) from workers as w where not is_gone(w.seen_at, now_at)),
        null, now_at));
end
$$;
comment on function @extschema@.forget_worker(text) is
    'Unregister a worker. The tasks that it left stuck are tried by the remaining workers, or by the next one. [P9] Errors: PD115.';


create function @extschema@.has_worker(queue text, version text, kind text, name text) returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    now_at timestamptz := clock();
begin
    return exists (
        select
          from workers as w
         where w.queues @> array[versioned_queue(has_worker.queue, has_worker.version)]
           and w.functions @> array[has_worker.kind || ' ' || has_worker.name]
           and not is_gone(w.seen_at, now_at));
end
$$;
comment on function @extschema@.has_worker(text, text, text, text) is
    'Tell whether a worker that was seen lately serves a queue, for a pinned version or none, and has a function.';
