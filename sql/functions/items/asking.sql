-- Items, asked: a task asks people and waits. An open item goes with the wait for it; a resolved one stays as long as its
-- job, so that a repeated call is told the same, and people see who decided what. [P12]

create function @extschema@.ask_people(turns @extschema@.turn[], asked_at timestamptz) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into items (job_id, task, key, name, payload, assignee, priority, expires_at, asked_at, fingerprint)
    select r.job, r.task, q.key, q.name, q.payload, q.assignee, coalesce(q.priority, 5::smallint), q.expires_at, ask_people.asked_at,
           q.fingerprint
      from unnest(ask_people.turns) as r
     cross join jsonb_to_recordset(r.requests) as q (
           key text, kind text, name text, payload jsonb, assignee text, priority smallint, expires_at timestamptz,
           fingerprint text)
     where q.kind = 'item'
       and not exists (select from inbox as i where i.job_id = r.job and i.task = r.task and i.key = q.key offset 0)
       and not exists (select from conditions as c where c.job_id = r.job and c.task = r.task and c.key = q.key offset 0)
       and not is_requested(r.job, r.task, q.key)
        on conflict (job_id, task, key) where is_open do nothing;
end
$$;
comment on function @extschema@.ask_people(@extschema@.turn[], timestamptz) is
    'Make the items that turns ask people for; one that is open, or resolved and not heard of yet, is not made again, and none under the key of something else. [P12]';


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
comment on function @extschema@.withdraw_items(@extschema@.turn[]) is 'Drop open items for which tasks no longer wait.';


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
    'Drop the open items of tasks that are gone: of these, and of all beneath them.';


create function @extschema@.forget_items(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from items as i where i.job_id = any(forget_items.ids);
end
$$;
comment on function @extschema@.forget_items(text[]) is 'Drop all items of jobs that are forgotten.';
