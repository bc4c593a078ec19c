-- Adopting: how a copy becomes an app of its own.

-- A subscriber of logical replication has the rows, but nothing has advanced its sequence. When all writers have finished
-- and others wait for this lock, nobody holds an id that was drawn but not written.
create function @extschema@.advance_inbox_sequence() returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not exists (select from inbox as i where i.id >= (select s.last_value + s.is_called::integer from inbox_id_seq as s)) then
        return;
    end if;
    lock table inbox in share row exclusive mode;
    perform setval('inbox_id_seq', greatest((select max(i.id) from inbox as i), (select s.last_value from inbox_id_seq as s)));
end
$$;
comment on function @extschema@.advance_inbox_sequence() is
    'Let the next message have an id after those that exist, if the sequence was not copied with the rows. [P5]';


create function @extschema@.adopt_instance(copied_at timestamptz default null) returns uuid
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    instance uuid := gen_random_uuid();
    now_at timestamptz;
begin
    -- Clients may write to a copy meanwhile. Who waits for what is decided under the locks of the jobs.
    perform from jobs as j where adopt_instance.copied_at is not null order by j.id for no key update;
    now_at := clock();
    if not adopt_instance.copied_at between '1970-01-01 00:00+00' and now_at then
        raise exception 'a copy cannot have been made at %', adopt_instance.copied_at
            using errcode = 'PD107',
                  detail = format('It is %s.', now_at),
                  hint = 'Give the time when the copy was made; or none, and everything is due when it would have been.';
    end if;
    if adopt_instance.copied_at is not null then
        perform delay_tasks(adopt_instance.copied_at, now_at - adopt_instance.copied_at);
        perform delay_items(adopt_instance.copied_at, now_at - adopt_instance.copied_at);
    end if;
    perform advance_inbox_sequence();
    insert into settings (name, value)
    values ('instance', to_jsonb(instance)), ('place', current_place())
        on conflict on constraint one_row_per_setting do update set value = excluded.value;
    return instance;
end
$$;
comment on function @extschema@.adopt_instance(timestamptz) is
    'Let a copy of an app execute, as an instance of its own; workers of the original are refused. What became due meanwhile is due at once, or, with copied_at, no time has passed since then for what waits (schedules catch up as their policy says). Return the instance. Errors: PD107. [P7] [P13]';
