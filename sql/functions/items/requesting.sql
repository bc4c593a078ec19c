-- Items, requested: a task asks people and waits. An open item ends with the wait for it. A resolved one stays as long as its
-- job, so that a repeated call gets the same answer, and people see who decided what. [P12]

-- A resolution writes the item and no other row that existed before. An older snapshot shows the item open, but no longer
-- collides with it: to lock it is refused with 40001.
create function @extschema@.insert_items(turns @extschema@.turn[], asked_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if not sees_commits() then
        perform
           from unnest(insert_items.turns) as r
          cross join lateral (
            select
              from items as p
             where p.job_id = r.job
               and p.task = r.task
               and p.is_open
               for no key update) as asked;
    end if;
    insert into items (job_id, task, key, name, payload, assignee, priority, expires_at, asked_at, fingerprint)
    select r.job, r.task, q.key, q.name, q.payload, q.assignee, coalesce(q.priority, 5::smallint), q.expires_at, insert_items.asked_at,
           q.fingerprint
      from unnest(insert_items.turns) as r
     cross join jsonb_to_recordset(r.requests) as q (
           key text, kind text, name text, payload jsonb, assignee text, priority smallint, expires_at timestamptz,
           fingerprint text)
     where q.kind = 'item'
       and not is_answered(r.job, r.task, q.key)
       and not exists (select from conditions as c where c.job_id = r.job and c.task = r.task and c.key = q.key offset 0)
       and not is_requested(r.job, r.task, q.key)
        on conflict (job_id, task, key) where is_open do nothing;
end
$$;
comment on function @extschema@.insert_items(@extschema@.turn[], timestamptz) is
    'Create the items that turns ask for. An item that is open, or resolved and not yet heard of, is not created again, and none is created under the key of another request. [P12]';


-- By resolved_at: with is_open, a plan that was made for few items would read the open ones of all jobs.
create function @extschema@.withdraw_items(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from items as i
     where i.id = any(array(
        select w.id
          from unnest(withdraw_items.turns) as r
         cross join lateral (
            select o.id
              from items as o
             where o.job_id = r.job
               and o.task = r.task
               and r.cancels ? o.key
               and o.resolved_at is null
            offset 0) as w));
end
$$;
comment on function @extschema@.withdraw_items(@extschema@.turn[]) is
    'Delete open items that tasks no longer wait for.';


create function @extschema@.forget_open_items(turns @extschema@.turn[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from items as i
     where i.id = any(array(
        select w.id
          from unnest(forget_open_items.turns) as r
         cross join lateral (
            select o.id
              from items as o
             where o.job_id = r.job
               and o.task >= r.task
               and o.task < r.task || '0'
               and (o.task = r.task or o.task > r.task || '/')
               and o.resolved_at is null
               and not exists (select from tasks as t where t.job_id = o.job_id and t.task = o.task offset 0)
            offset 0) as w));
end
$$;
comment on function @extschema@.forget_open_items(@extschema@.turn[]) is
    'Delete the open items of ended tasks and of all tasks beneath them.';


create function @extschema@.forget_items(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from items as i where i.job_id = any(forget_items.ids);
end
$$;
comment on function @extschema@.forget_items(text[]) is 'Delete all items of deleted jobs.';
