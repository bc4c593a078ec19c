-- Tidy: rules for all objects of an app.

begin;
select plan(39);

create function functions() returns table (
    oid         oid,
    name        text,
    language    text,
    source      text,
    settings    text,
    volatility  text,
    is_definer  boolean,
    args        text[]
)
language plpgsql
as $$
begin
    return query
    select p.oid, p.oid::regprocedure::text, l.lanname::text, p.prosrc, coalesce(array_to_string(p.proconfig, ' '), ''),
           p.provolatile::text, p.prosecdef, p.proargnames
      from pg_proc as p
      join pg_language as l on l.oid = p.prolang
     where p.pronamespace = 'perdure'::regnamespace;
end
$$;

-- Comments.

select is_empty(
    $$ select f.name from functions() as f where obj_description(f.oid, 'pg_proc') is null $$,
    'every function has a comment');
select is_empty(
    $$ select f.name from functions() as f where obj_description(f.oid, 'pg_proc') !~ '^[A-Z][^\n]*\.' $$,
    'the comment of a function begins with a sentence');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v', 'm', 'f')
       and obj_description(c.oid, 'pg_class') is null
$$, 'every table and view has a comment');
select is_empty($$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v')
       and col_description(c.oid, a.attnum) is null
$$, 'every column of a table or view has a comment');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
      join pg_index as i on i.indexrelid = c.oid
     where c.relnamespace = 'perdure'::regnamespace
       and obj_description(c.oid, 'pg_class') is null
       and not exists (select from pg_constraint as k where k.conindid = c.oid)
$$, 'every index has a comment');
-- A collation of the operating system changes with it: its indexes would be broken, and a key could be there twice.
select is_empty($$
    select i.indexrelid::regclass::text
      from pg_class as c
      join pg_index as i on i.indrelid = c.oid
     where c.relnamespace = 'perdure'::regnamespace
       and not i.indcollation::oid[] <@ array[0::oid, '"C"'::regcollation]
$$, 'every index compares texts byte by byte');
select is_empty($$
    select t.typname::text
      from pg_type as t
      left join pg_class as c on c.oid = t.typrelid
     where t.typnamespace = 'perdure'::regnamespace
       and t.typtype in ('c', 'e', 'd')
       and (c.oid is null or c.relkind = 'c')
       and obj_description(t.oid, 'pg_type') is null
$$, 'every type has a comment');
select is_empty($$
    select t.tgname::text
      from pg_trigger as t
      join pg_class as c on c.oid = t.tgrelid
     where c.relnamespace = 'perdure'::regnamespace
       and not t.tgisinternal
       and obj_description(t.oid, 'pg_trigger') is null
$$, 'every trigger has a comment');

-- Names.

select is_empty($$
    select c.conrelid::regclass || ' ' || c.conname
      from pg_constraint as c
     where c.connamespace = 'perdure'::regnamespace
       and c.contype <> 'n'
       and c.conname ~ '_(pkey|check|fkey|key|excl|not_null)\d*$'
$$, 'every constraint has a name of its own, not a generated one');
select is_empty($$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p')
       and a.atttypid = 'timestamptz'::regtype
       and a.attname !~ '(^|_)at$|^(until|since)$'
$$, 'a column of a time is named after its event');
select is_empty(
    $$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p')
       and a.atttypid = any('{timestamp,json,varchar,double precision,real}'::regtype[])
$$,
    'times have zones, JSON is jsonb, numbers are exact');
select is_empty(
    $$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a
        on a.attrelid = c.oid and a.attname in ('job_id', 'task', 'parent', 'asker_job', 'asker_task')
      join pg_collation as l on l.oid = a.attcollation
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p')
       and l.collname <> 'C'
$$,
    'ids are compared byte by byte, so that no new locale changes their order [P13]');
select is_empty($$
    select p.proname::text
      from pg_proc as p
     where p.pronamespace = 'perdure'::regnamespace
     group by p.proname
    having count(*) > 1
$$, 'no function is overloaded');

-- Rights.

select is_empty(
    $$ select f.name from functions() as f where has_function_privilege('public', f.oid, 'execute') $$,
    'the public may execute no function');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v', 'm', 'S')
       and (has_table_privilege('public', c.oid, 'select') or has_table_privilege('public', c.oid, 'insert')
            or has_table_privilege('public', c.oid, 'update') or has_table_privilege('public', c.oid, 'delete'))
$$, 'the public has no right on any table');
select is_empty($$
    select f.name
      from functions() as f
     where f.source !~ '\mcommit;'
       and f.is_definer <> exists (
               select
                 from unnest('{worker,client,operator,reader,monitor}'::text[]) as k (kind)
                where split_part(f.name, '(', 1) = any(granted_verbs(k.kind)))
$$, 'exactly the functions that are granted to others run with the rights of the owner');

-- How functions are written.

select is_empty(
    $$ select f.name
         from functions() as f
        where f.settings !~ 'search_path="?pg_catalog"?, *"?perdure"?, *"?pg_temp"?( |$)'
          and f.source !~ '\mcommit;' $$,
    'every function sets its search_path, unless it is a procedure that commits');
select is_empty(
    $$ select f.name from functions() as f where f.language not in ('sql', 'plpgsql') $$,
    'functions are written in SQL or PL/pgSQL');
select is_empty($$
    select f.name
      from functions() as f
      join pg_class as c on c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'v')
     where f.language = 'sql'
       and f.source ~ ('\m(from|join|into|update)\s+(perdure\.)?' || c.relname || '\M')
$$, 'no function in language SQL touches a table');
select is_empty($$
    select distinct f.name || ' ' || a.name
      from functions() as f
     cross join unnest(f.args) as a (name)
      join pg_attribute as t on t.attname = a.name and t.attnum > 0
      join pg_class as c on c.oid = t.attrelid and c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p')
     where f.language = 'sql'
$$, 'no parameter of a function in language SQL has the name of a column');
select is_empty(
    $$ select f.name from functions() as f where f.source ~ '#variable_conflict' $$,
    'no function sets variable_conflict');
select is_empty(
    $$
    select f.name
      from functions() as f
     where f.source ~ '(;|\m(begin|then|else|loop|in|query))\s+execute\M'
       and f.name !~ '^(perdure\.)?(find|find_running|count_found|create_index|drop_index|call_sql_hook|grant_privileges|revoke_access)\('
    $$,
    'only functions that find, index, grant and call hooks run dynamic SQL');
select is_empty(
    $$ select f.name from functions() as f where f.source ~* 'when others' and f.name !~ 'try_sql_hook' $$,
    'only the call of a user''s hook catches all errors');
-- A block that catches errors is a subtransaction, which a parallel worker may not begin.
select is_empty(
    $$
    select f.name
      from functions() as f
      join pg_proc as p on p.oid = f.oid
     where p.proparallel = 's'
       and f.source ~ '\mexception\s+when\M'
    $$,
    'no function that catches errors is parallel safe');
select is_empty(
    $$
    select distinct f.name || ' calls ' || called.proname
      from functions() as f
      join pg_proc as p on p.oid = f.oid
     cross join lateral regexp_matches(regexp_replace(f.source, '--[^\n]*|''[^'']*''', '', 'g'), '\m([a-z_]+)\(',
     'g') as c (words)
      join pg_proc as called on called.proname = c.words[1] and called.pronamespace = p.pronamespace
     where p.proparallel = 's'
       and called.proparallel <> 's'
    $$,
    'no parallel safe function calls one that is not');
-- The caller's standard_conforming_strings changes the meaning of a plain literal with a backslash. A literal that
-- continues on the next line counts as one.
select is_empty(
    $$
    select f.name || ' ' || l.written[2]
      from functions() as f
     cross join lateral regexp_matches(regexp_replace(regexp_replace(f.source, '--[^\n]*', '', 'g'), '''\s*\n\s*''', '',
     'g'),
                                       '(\m[Ee])?(''(?:[^'']|'''')*'')', 'g') as l (written)
     where l.written[1] is null
       and l.written[2] ~ '\\'
    $$,
    'every literal with a backslash is an E literal, so that no setting of the caller changes its meaning');
select is_empty($$
    select f.name from functions() as f
     where f.volatility <> 'v'
       and f.source ~ '\m(insert into|delete from|for no key update|for update|pg_notify)\M|\mupdate \w+ as\M'
$$, 'a function that writes or locks is volatile');
select is_empty($$
    select f.name from functions() as f
      join pg_class as c on c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p')
     where f.volatility = 'i'
       and f.source ~ ('\m(from|join)\s+' || c.relname || '\M')
$$, 'a function that reads a table is not immutable');
select is_empty(
    $$ select f.name
         from functions() as f
        where f.source ~ '\m(now\(\)|current_timestamp|statement_timestamp|transaction_timestamp|localtimestamp)' $$,
    'no function reads the time of the transaction [P7]');
select is_empty(
    $$ select f.name
         from functions() as f
        where f.source ~ 'clock_timestamp'
          and f.name !~ '^(perdure\.)?(clock|create_tables|set_clock|reset_clock)\(' $$,
    'only functions of the clock read the time [P7]');
select is_empty(
    $$ select f.name
         from functions() as f
        where f.source ~ 'current_setting|set_config|pg_advisory_lock|create temp'
          and f.name !~ '^(perdure\.)?(sees_commits|allow_asynchronous_commit|set_vector_scans)\(' $$,
    'no function depends on the session (settings, session locks, temporary tables), with three exceptions (S4) (S6)');
select is_empty(
    $$ select f.name from functions() as f where concat(f.settings, f.source) ~ 'statement_timeout' $$,
    'no function sets statement_timeout, which has no effect on the running statement (S10)');
select is_empty(
    $$
    select f.name from functions() as f
     where f.name !~ '^(perdure\.)?(create_(tables|views|test_helpers)|change_tables)\('
       and regexp_count(trim(both E'\n' from f.source), E'\n') >= 70
$$,
    'no function has more than seventy lines');
select cmp_ok(
    (select percentile_cont(0.5) within group (order by array_length(string_to_array(trim(both E'\n' from f.source),
                                                                                     E'\n'), 1))
       from functions() as f),
    '<=',
    20::double precision,
    'the median function has at most twenty lines');

-- Settings of entry points.

select is_empty(
    $$
    select f.name
      from functions() as f
      join unnest('{start,start_many,hook,claim,advance,extend,release,signal,cancel,terminate,pause,resume,retry,fork,
                    timeline,status,task_reason,task_needs,forget_old_runs,set_queue,
                    pause_queue,resume_queue,run_command,run_commands,read_journal,run_task,take_sql_task,finish_task,
                    fail_task,resolve_item,claim_item,release_item,assign_item,publish}'::text[]) as entry (name)
        on f.name ~ ('^(perdure\.)?' || entry.name || '\(')
     where f.settings !~ 'plan_cache_mode=force_generic_plan'
        or f.settings !~ 'enable_seqscan=off'
        or f.settings !~ 'jit=off'
$$,
    'entry points set generic plans for large tables');

-- Errors.

select is_empty(
    $$
    select f.name
      from functions() as f
     where regexp_count(f.source, 'raise exception') > least(
               regexp_count(f.source, 'errcode ='),
               regexp_count(f.source, 'detail ='),
               regexp_count(f.source, 'hint ='))
$$,
    'every error has a code, a detail and a hint');
select is_empty($$
    select f.name || ' ' || m.message[1]
      from functions() as f
     cross join lateral regexp_matches(f.source, 'raise exception ''([^'']*)', 'g') as m (message)
     where m.message[1] ~ '^[A-Z]|\.$'
$$, 'a message begins in lower case and has no full stop');
select is_empty(
    $$
    select distinct f.name || ' ' || m.code[1]
      from functions() as f
     cross join lateral regexp_matches(f.source || obj_description(f.oid, 'pg_proc'), '\m(PD\w+)', 'g') as m (code)
     where m.code[1] <> all('{PD001,PD003,PD004,PD101,PD102,PD103,PD104,PD105,PD106,PD107,PD108,PD109,PD110,PD112,PD113,
                              PD114,PD115,PD201,PD301,PD302,PD303,PD304,PD305,PD306,PD30x,PD401,PD402,PD403,PD404,PD406,PD407,PD410,
                              PD411,PD412,PD503,PD505,PD507,PD601,PD602,PD604}')
    $$,
    'every error code is in the list of this test');

-- The app itself.

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
