-- Snapshots: where reading the past of a memory begins. There is one at every hundredth version.

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
    version := coalesce(version, 0);
    if context is null then
        select s.context
          into context
          from snapshots as s
         where s.job_id = nearest_snapshot.id
           and s.version < nearest_snapshot.version
           and s.context is not null
         order by s.version desc
         limit 1;
    end if;
    context := coalesce(context, '{}');
end
$$;
comment on function @extschema@.nearest_snapshot(text, bigint) is
    'Return the latest snapshot that is not later than a version; every memory begins empty, at version 0.';


-- Logs make versions and leave a document, perhaps a large one, as it is. Documents are compared as text: 1 and 1.0 are
-- equal to jsonb, but code that was told one must not be told the other when it runs again.
create function @extschema@.store_snapshot(held @extschema@.memory) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    last record := nearest_snapshot(held.id, held.version);
begin
    insert into snapshots (job_id, version, context)
    values (held.id, held.version, case when held.context::text <> last.context::text then held.context end);
end
$$;
comment on function @extschema@.store_snapshot(@extschema@.memory) is
    'Store the document of a locked job at this version; a part that equals the last snapshot is not stored twice.';


create function @extschema@.forget_snapshots(ids text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    delete from snapshots as s where s.job_id = any(forget_snapshots.ids);
end
$$;
comment on function @extschema@.forget_snapshots(text[]) is 'Delete the snapshots of deleted jobs.';
