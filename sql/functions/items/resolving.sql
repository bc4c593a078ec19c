-- Items, resolved: what people do with items. Each verb locks the job that asks, then reads the item.

create function @extschema@.read_item(item text) returns @extschema@.asked_item
language plpgsql
stable
security definer
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    found_item asked_item;
begin
    select i.id, i.job_id, i.task, i.key, i.name, i.payload, i.assignee, i.priority,
           case when i.resolved_at is not null then 'resolved' when i.claimed_at is not null then 'claimed' else 'unclaimed' end,
           i.asked_at, i.expires_at, i.claimed_by, i.claimed_at, i.resolution, i.resolved_by, i.resolved_at,
           jsonb_build_array(i.priority, (extract(epoch from i.asked_at) * 1000000)::bigint, i.id)
      into found_item
      from items as i
     where i.id = read_item.item;
    if not found then
        raise exception 'item % does not exist', quote_nullable(left(read_item.item, 200))
            using errcode = 'PD411',
                  detail = 'It never existed, or nobody waits for it any more: its time was up, it was withdrawn, or the task has ended.',
                  hint = 'List the items that are open: list_items().';
    end if;
    return found_item;
end
$$;
comment on function @extschema@.read_item(text) is 'Return an item, open or resolved. Errors: PD411 (no such item).';


create function @extschema@.lock_item(item text) returns @extschema@.asked_item
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    perform lock_jobs(array(select i.job_id from items as i where i.id = lock_item.item), waiting => true);
    -- A statement of its own: it sees what the lock shows, not what was read before.
    return read_item(lock_item.item);
end
$$;
comment on function @extschema@.lock_item(text) is
    'Lock the job that an item belongs to, and read the item. Errors: PD411 (no such item).';


create function @extschema@.item_failure(it @extschema@.asked_item, by text, now_at timestamptz) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if it.resolved_at is not null then
        return make_failure(
            'PD411', 'ItemNotFound', format('item %s is not open any more', quote_literal(it.id)),
            format('%s resolved it at %s.', coalesce(it.resolved_by, 'Somebody'), it.resolved_at),
            'Read its resolution with read_item().');
    end if;
    if it.expires_at < item_failure.now_at then
        return make_failure(
            'PD411', 'ItemNotFound', format('item %s is not open any more', quote_literal(it.id)),
            format('Its time was up at %s.', it.expires_at),
            'The task that asked continues without it; list_items() lists open items.');
    end if;
    if it.claimed_by is not null and it.claimed_by is distinct from item_failure.by then
        return make_failure(
            'PD112', 'ItemNotYours', format('item %s is claimed by %s', quote_literal(it.id), quote_literal(it.claimed_by)),
            format('It was claimed at %s.', it.claimed_at),
            'Call release_item() first, or assign_item() to give it to somebody else.');
    end if;
    return null;
end
$$;
comment on function @extschema@.item_failure(@extschema@.asked_item, text, timestamptz) is
    'Return why a person may not work on an item: it is not open any more (PD411), or somebody else has claimed it (PD112); or null.';


create function @extschema@.claim_item(item text, by text) returns @extschema@.asked_item
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held asked_item := lock_item(claim_item.item);
    taken_at timestamptz := clock();
begin
    perform check_name(claim_item.by, 'a person');
    perform raise_failure(item_failure(held, claim_item.by, taken_at));
    update items as i
       set claimed_by = claim_item.by,
           claimed_at = taken_at
     where i.id = held.id
       and i.claimed_by is null;
    return read_item(held.id);
end
$$;
comment on function @extschema@.claim_item(text, text) is
    'Claim an open item for a person, so that nobody else resolves it; return it. Errors: PD104, PD112 (somebody else has claimed it), PD411 (it is not open).';


create function @extschema@.release_item(item text, by text default null) returns @extschema@.asked_item
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held asked_item := lock_item(release_item.item);
begin
    update items as i
       set claimed_by = null,
           claimed_at = null
     where i.id = held.id
       and i.claimed_by = coalesce(release_item.by, held.claimed_by)
       and held.resolved_at is null;
    return read_item(held.id);
end
$$;
comment on function @extschema@.release_item(text, text) is
    'Release an item that a person has claimed, or, without a person, whoever has claimed it; return it. It is unchanged if that person has not claimed it. Errors: PD411.';


create function @extschema@.assign_item(item text, assignee text default null) returns @extschema@.asked_item
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held asked_item := lock_item(assign_item.item);
begin
    perform raise_failure(optional_name_failure(assign_item.assignee, 'an assignee'));
    perform raise_failure(item_failure(held, held.claimed_by, clock()));
    update items as i
       set assignee = assign_item.assignee,
           claimed_by = null,
           claimed_at = null
     where i.id = held.id
       and i.assignee is distinct from assign_item.assignee;
    return read_item(held.id);
end
$$;
comment on function @extschema@.assign_item(text, text) is
    'Assign an open item to another person or group, null for anybody, and end any claim of it; return it. Errors: PD104, PD411.';


create function @extschema@.resolve_item(
    item        text,
    resolution  jsonb  default null,
    by          text   default null
) returns @extschema@.asked_item
language plpgsql
volatile
security definer
set search_path = pg_catalog, @extschema@, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    held asked_item := lock_item(resolve_item.item);
    answered_at timestamptz := clock();
    fingerprint text;
begin
    perform raise_failure(optional_name_failure(resolve_item.by, 'a person'));
    perform check_value(resolve_item.resolution, 'the resolution');
    if held.status = 'resolved'
        and (held.resolution, held.resolved_by) is not distinct from (resolve_item.resolution, resolve_item.by) then
        return held;
    end if;
    perform raise_failure(item_failure(held, resolve_item.by, answered_at));
    update items as i
       set resolution = resolve_item.resolution,
           resolved_by = resolve_item.by,
           resolved_at = answered_at
     where i.id = held.id
    returning i.fingerprint into fingerprint;
    perform insert_answers(
        array[ending_turn(null, null, 'done', resolve_item.resolution, asker_job => held.job, asker_task => held.task,
                          asker_key => held.key, fingerprint => fingerprint)], answered_at);
    perform notify_listeners(wake_tasks(array[held.job], answered_at));
    return read_item(held.id);
end
$$;
comment on function @extschema@.resolve_item(text, jsonb, text) is
    'Resolve an item: the task that asked gets the resolution, once. Return the item; the same call returns the same again. Errors: PD104, PD112 (somebody else has claimed it), PD30x, PD411 (it is not open). [P5] [P12]';


create function @extschema@.delay_items(expiring_after timestamptz, by interval) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update items as i
       set expires_at = time_after(i.expires_at, delay_items.by)
     where i.is_open
       and i.asked_at <= delay_items.expiring_after
       and i.expires_at > delay_items.expiring_after;
end
$$;
comment on function @extschema@.delay_items(timestamptz, interval) is
    'Move the expiry of open items that expire later than a time.';
