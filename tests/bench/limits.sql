-- The limit of the server: the same work in bare SQL, without journal, fences, memory or replay.

create schema bare;

create table bare.job (id bigint primary key, state text not null, doc jsonb not null, result jsonb) with (fillfactor = 70);
create table bare.task (id bigint primary key, due_at timestamptz not null) with (fillfactor = 70);
create index due_task on bare.task (due_at);
create table bare.fact (id bigint not null, seq integer not null, value jsonb, primary key (id, seq));

create function bare.start(first bigint, last bigint) returns bigint
language plpgsql
as $$
begin
    insert into bare.job select g, 'running', '{}' from generate_series(first, last) as g;
    insert into bare.task select g, clock_timestamp() from generate_series(first, last) as g;
    return last;
end
$$;

-- Finishes the tasks that the caller holds, and claims up to batch others.
create function bare.turn(held bigint[], batch integer) returns bigint[]
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
    claimed bigint[];
begin
    delete from bare.task as t where t.id = any(held);
    update bare.job as j set state = 'completed', result = '1' where j.id = any(held);
    with due as materialized (
        select t.id
          from bare.task as t
         where t.due_at <= clock_timestamp()
         order by t.due_at
         limit batch
           for no key update skip locked
    ), taken as (
        update bare.task as t set due_at = clock_timestamp() + interval '30 s' from due as d where t.id = d.id returning t.id
    )
    select array_agg(t.id) into claimed from taken as t;
    return coalesce(claimed, '{}');
end
$$;

create function bare.record(held bigint[], seq integer) returns void
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
begin
    insert into bare.fact select h, record.seq, '1' from unnest(held) as h;
end
$$;

create function bare.call() returns integer
language plpgsql
as $$
begin
    insert into bare.fact values (-1, (select coalesce(max(f.seq), 0) + 1 from bare.fact as f where f.id = -1), '1');
    return 1;
end
$$;

create procedure bare.change(id bigint)
language plpgsql
as $$
begin
    update bare.job as j set doc = jsonb_set(j.doc, '{n}', to_jsonb(coalesce((j.doc ->> 'n')::bigint, 0) + 1)) where j.id = change.id;
end
$$;
