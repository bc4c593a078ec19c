-- Parts: what belongs to the tables of an app and depends on its functions. Dropping the functions with cascade (an
-- extension) keeps the tables and rows, but drops these parts. A dump of one schema, which leaves out the extension,
-- loses them too. A dump without privileges loses what was granted, and what keeps the public from the functions. Every
-- kind of role may call perdure_version(): a role that cannot has lost its access. Only the owner may call
-- missing_parts().

create function @extschema@.missing_parts() returns text[]
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return array(
        select p.missing
          from (
            select part.kind || ' ' || part.name
              from (values ('trigger', 'aaa_first_documents_are_commands'), ('trigger', 'ids_stay'), ('trigger', 'jobs_are_forgotten'),
                           ('trigger', 'zzz_updates_are_commands'),
                           ('view', 'history'), ('view', 'indexes'), ('view', 'schedules'), ('view', 'waiting')) as part (kind, name)
             where not exists (
                select
                  from pg_trigger as t
                 where part.kind = 'trigger'
                   and t.tgrelid = to_regclass('@extschema@.jobs')
                   and t.tgname = part.name
                   and t.tgenabled in ('O', 'A'))
               and not exists (
                select
                  from pg_class as c
                 where part.kind = 'view'
                   and c.relnamespace = '@extschema@'::regnamespace
                   and c.relkind = 'v'
                   and c.relname = part.name)
             union all
            select 'what keeps the public from the functions'
             where has_function_privilege('public', '@extschema@.missing_parts()', 'execute')
             union all
            select distinct 'access of ' || quote_ident(a.role)
              from access as a
              join pg_roles as r on r.rolname = a.role
             where has_usage(r.oid)
               and not has_function_privilege(r.oid, '@extschema@.perdure_version()', 'execute')) as p (missing)
         order by p.missing collate "C");
end
$$;
comment on function @extschema@.missing_parts() is
    'Return the triggers and views that are missing, the roles that have lost their access, and whether the public has access; a disabled trigger counts as missing.';
