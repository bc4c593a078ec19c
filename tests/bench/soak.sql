-- The soak's SQL: jobs that are claimed and finished in the server, and rows like those the engine writes, made in bulk.

create schema soak;

create table soak.calls (asked integer not null, found integer not null, alone boolean not null);

-- The turn that a worker would report: one job in five waits for a signal, one in ten for a hook; the others finish at once.
create function soak.turn_of(task json, token text) returns jsonb
language plpgsql
immutable
as $$
declare
    number bigint := substr(task ->> 'job', 2)::bigint;
    said jsonb := jsonb_build_object('job', task ->> 'job', 'task', task ->> 'task', 'token', token,
                                     'position', (task ->> 'position')::integer);
begin
    if task ->> 'kind' = 'hook' then
        return said || '{"state": "done", "value": 1}';
    end if;
    if (task ->> 'position')::integer > 0 then
        return said || jsonb_build_object('state', 'done', 'value', 1, 'facts', (
            select jsonb_agg(jsonb_build_object('kind', case when m ->> 'key' is null then 'signal' else 'answer' end,
                                                'key', coalesce(m ->> 'key', 'wait#1'), 'message', m -> 'id'))
              from json_array_elements(task -> 'messages') as m));
    end if;
    said := said || '{"facts": [{"kind": "activity", "key": "echo#1", "name": "echo", "value": 1},
                                {"kind": "command", "key": "increment#1", "op": "increment", "path": ["n"], "value": 1}]}';
    return said || case
        when number % 5 = 0 then '{"state": "park", "awaits": ["go"]}'
        when number % 10 = 3 then '{"state": "park", "awaits": [], "requests": [
            {"key": "hook#1", "kind": "hook", "name": "h", "args": [], "queue": "soak"}]}'
        else '{"state": "done", "value": 1}' end::jsonb;
end
$$;

create function soak.start(first bigint, last bigint, queue text default 'soak') returns bigint
language plpgsql
as $$
begin
    return (
        select count(*)
          from bench.start_many((
            select jsonb_agg(jsonb_build_object('workflow', 'w', 'queue', start.queue, 'id', 'j' || n))
              from generate_series(start.first, start.last) as n)));
end
$$;

create procedure soak.start_all(first bigint, last bigint)
language plpgsql
as $$
begin
    for n in first .. last by 500 loop
        perform soak.start(n, least(n + 499, last));
        commit;
    end loop;
end
$$;

-- Commits each start separately, as clients do.
create procedure soak.start_singly(number bigint)
language plpgsql
as $$
begin
    for n in 1 .. number loop
        perform bench.start('trivial', queue => 'bench');
        commit;
    end loop;
end
$$;

create procedure soak.signal_all(first bigint, last bigint)
language plpgsql
as $$
begin
    for n in first .. last by 500 loop
        perform bench.signal('j' || g, 'go', '1') from generate_series(n, least(n + 499, last)) as g where g % 5 = 0;
        commit;
    end loop;
end
$$;

-- Claims and finishes tasks until a claim finds nothing, or until a time; passes a mark (since) as workers do.
create procedure soak.work(
    worker            text,
    batch             integer,
    until             timestamptz,
    inout done        bigint   default 0,
    inout empty       bigint   default 0,
    queue             text     default 'soak'
)
language plpgsql
as $$
declare
    reply json;
    turns jsonb := '[]';
    mark timestamptz := '-infinity';
    searched_at timestamptz := '-infinity';
begin
    loop
        if mark > '-infinity' and searched_at > clock_timestamp() - interval '1 s' then
            reply := bench.advance(turns, array[queue], worker, max_tasks => batch, since => mark);
        else
            reply := bench.advance(turns, array[queue], worker, max_tasks => batch);
            searched_at := clock_timestamp();
        end if;
        commit;
        done := done + jsonb_array_length(turns);
        mark := case when json_array_length(reply -> 'tasks') = batch then (reply ->> 'since')::timestamptz else '-infinity' end;
        turns := (select coalesce(jsonb_agg(soak.turn_of(t, reply ->> 'token')), '[]')
                    from json_array_elements(reply -> 'tasks') as t);
        if turns = '[]' then
            empty := empty + 1;
            exit when until is null or clock_timestamp() > until;
            perform pg_sleep(0.005);
        end if;
    end loop;
end
$$;

-- Inserts coordinators that were claimed once and sleep; the rows are as a worker's turn leaves them.
create procedure soak.fill_sleeping(first bigint, last bigint)
language plpgsql
as $$
begin
    for n in first .. last by 100000 loop
        insert into bench.jobs (id, workflow, status, args, queue, priority, created_at, updated_at)
        select 'j' || g, 'w', 'running', '[]', 'soak', 5, clock_timestamp(), clock_timestamp()
          from generate_series(n, least(n + 99999, last)) as g;
        insert into bench.tasks (job_id, task, kind, name, queue, priority, due_at, last_token, last_worker, asked, awaits,
                                 until, started_at)
        select 'j' || g, '1/main', 'coordinator', 'w', 'soak', 5, due.at, gen_random_uuid(), 'w', 1, '{}', due.at,
               clock_timestamp()
          from generate_series(n, least(n + 99999, last)) as g
         cross join lateral (select clock_timestamp() + interval '1 day' + g * interval '1 ms' as at) as due;
        commit;
    end loop;
end
$$;

-- Inserts coordinators that were started, and are due.
create procedure soak.fill_due(first bigint, last bigint)
language plpgsql
as $$
begin
    for n in first .. last by 100000 loop
        insert into bench.jobs (id, workflow, status, args, queue, priority, created_at, updated_at)
        select 'j' || g, 'w', 'running', '[]', 'soak', 5, clock_timestamp(), clock_timestamp()
          from generate_series(n, least(n + 99999, last)) as g;
        insert into bench.tasks (job_id, task, kind, name, queue, priority, due_at)
        select 'j' || g, '1/main', 'coordinator', 'w', 'soak', 5, clock_timestamp()
          from generate_series(n, least(n + 99999, last)) as g;
        commit;
    end loop;
end
$$;
