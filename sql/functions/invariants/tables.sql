-- Invariants that the others depend on: messages are told once, and the tables are those of the functions. [P5] [P8]
-- [P13]

create function @extschema@.broken_messages() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    issued bigint := (select case when s.is_called then s.last_value else 0 end from inbox_id_seq as s);
begin
    return query
    select 'I19', i.job_id, i.task, format('message %s was taken, but is in the journal %s times', i.id, count(f.seq))
      from inbox as i
      join tasks as t on t.job_id = i.job_id and t.task = i.task
      join jobs as j on j.id = i.job_id
      -- What a fork has copied was told to another job, which may have been cancelled too. A worker may take a request to
      -- cancel under a kind of its own.
      left join journal as f on f.job_id = i.job_id and f.task = i.task and f.key = i.key
                            and f.kind not in ('activity', 'attempt', 'command', 'read', 'send', 'signal',
                                                'timer', 'patch', 'note', 'end', 'run')
                            and (f.task <> '1/main' or f.seq > coalesce((j.forked_from #>> '{-1,position}')::bigint, 0))
     where i.consumed_at is not null
     group by i.job_id, i.id, i.task
    having count(f.seq) <> 1
    union all
    select 'I19', i.job_id, i.task, format('message %s answers %s, whose answer was told before', i.id, i.key)
      from inbox as i
      join journal as f on f.job_id = i.job_id and f.task = i.task and f.key = i.key and f.is_answer
    union all
    select 'I21', i.job_id, i.task, format('message %s exists, but the last id that was issued is %s', i.id, issued)
      from inbox as i
     where i.id > issued;
end
$$;
comment on function @extschema@.broken_messages() is
    'Find requests to cancel that were taken but not told, or told twice, and answers that would be told a second time (I19), and ids that will be issued again (I21).';


create function @extschema@.broken_tables() returns setof @extschema@.broken_invariant
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return query
    select 'I22', null::text, null::text,
           format('the functions are of version %s, the tables of %s', perdure_version(), coalesce(v.version, 'none'))
      from tables_version() as v (version)
     where v.version is distinct from perdure_version()
    union all
    select 'I25', null, null, format('%s is missing or disabled', m.part)
      from unnest(missing_parts()) as m (part);
end
$$;
comment on function @extschema@.broken_tables() is
    'Find whether the tables are not those of the functions (I22), and missing triggers, views and grants (I25).';
