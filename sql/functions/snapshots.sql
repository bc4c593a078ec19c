-- Snapshots: where a look into the past of a memory begins. One stands at every hundredth version.

create function @extschema@.keep_snapshot(held @extschema@.memory) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    insert into snapshots (job_id, version, context) values (held.id, held.version, held.context);
end
$$;
comment on function @extschema@.keep_snapshot(@extschema@.memory) is 'Keep the document of a locked job as it is at this version.';


create function @extschema@.nearest_snapshot(
    id           text,
    upto         bigint,
    out version  bigint,
    out context  jsonb
)
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    select s.version, s.context
      into version, context
      from snapshots as s
     where s.job_id = nearest_snapshot.id
       and s.version <= nearest_snapshot.upto
     order by s.version desc
     limit 1;
    if not found then
        version := 0;
        context := '{}';
    end if;
end
$$;
comment on function @extschema@.nearest_snapshot(text, bigint) is
    'Give the latest snapshot that is not later than a version; every memory begins empty, at version 0.';


create function @extschema@.forget_snapshots(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from snapshots as s where s.job_id = any(forget_snapshots.ids);
end
$$;
comment on function @extschema@.forget_snapshots(text[]) is 'Drop the snapshots of jobs that are forgotten.';
