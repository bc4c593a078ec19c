-- Tidy: what every object of an app has in common. A stranger finds the same story in \df+ and \dt+ as in the README.

begin;
select plan(38);

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
    'every function says what it is for');
select is_empty(
    $$ select f.name from functions() as f where obj_description(f.oid, 'pg_proc') !~ '^[A-Z][^\n]*\.' $$,
    'what a function says is a sentence');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v', 'm', 'f')
       and obj_description(c.oid, 'pg_class') is null
$$, 'every table and view says what it holds');
select is_empty($$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v')
       and col_description(c.oid, a.attnum) is null
$$, 'every column of a table or view says what it is');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
      join pg_index as i on i.indexrelid = c.oid
     where c.relnamespace = 'perdure'::regnamespace
       and obj_description(c.oid, 'pg_class') is null
       and not exists (select from pg_constraint as k where k.conindid = c.oid)
$$, 'every index says what it is for');
select is_empty($$
    select t.typname::text
      from pg_type as t
      left join pg_class as c on c.oid = t.typrelid
     where t.typnamespace = 'perdure'::regnamespace
       and t.typtype in ('c', 'e', 'd')
       and (c.oid is null or c.relkind = 'c')
       and obj_description(t.oid, 'pg_type') is null
$$, 'every type says what it holds');
select is_empty($$
    select t.tgname::text
      from pg_trigger as t
      join pg_class as c on c.oid = t.tgrelid
     where c.relnamespace = 'perdure'::regnamespace
       and not t.tgisinternal
       and obj_description(t.oid, 'pg_trigger') is null
$$, 'every trigger says what it does');

-- Names.

select is_empty($$
    select c.conrelid::regclass || ' ' || c.conname
      from pg_constraint as c
     where c.connamespace = 'perdure'::regnamespace
       and c.contype <> 'n'
       and c.conname ~ '_(pkey|check|fkey|key|excl|not_null)\d*$'
$$, 'every constraint has a name that speaks');
select is_empty($$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p')
       and a.atttypid = 'timestamptz'::regtype
       and a.attname !~ '(^|_)at$|^(until|since)$'
$$, 'a time is named after what happens then');
select is_empty(
    $$
    select c.oid::regclass || '.' || a.attname
      from pg_class as c
      join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p')
       and a.atttypid = any('{timestamp,json,varchar,double precision,real}'::regtype[])
$$,
    'times have zones, JSON is binary, numbers are exact');
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
    'ids are compared byte by byte, so that no new locale reorders them [P13]');
select is_empty($$
    select p.proname::text
      from pg_proc as p
     where p.pronamespace = 'perdure'::regnamespace
     group by p.proname
    having count(*) > 1
$$, 'a function has one signature');

-- Who may.

select is_empty(
    $$ select f.name from functions() as f where has_function_privilege('public', f.oid, 'execute') $$,
    'no function is open to the public');
select is_empty($$
    select c.oid::regclass::text
      from pg_class as c
     where c.relnamespace = 'perdure'::regnamespace
       and c.relkind in ('r', 'p', 'v', 'm', 'S')
       and (has_table_privilege('public', c.oid, 'select') or has_table_privilege('public', c.oid, 'insert')
            or has_table_privilege('public', c.oid, 'update') or has_table_privilege('public', c.oid, 'delete'))
$$, 'no table is open to the public');
select is_empty($$
    select f.name
      from functions() as f
     where f.source !~ '\mcommit;'
       and f.is_definer <> exists (
               select
                 from unnest('{worker,client,operator,reader,monitor}'::text[]) as k (kind)
                where split_part(f.name, '(', 1) = any(granted_verbs(k.kind)))
$$, 'a function borrows the rights of its owner where it is granted to others, and nowhere else');

-- How functions are written.

select is_empty(
    $$ select f.name
         from functions() as f
        where f.settings !~ 'search_path="?pg_catalog"?, *"?perdure"?, *"?pg_temp"?( |$)'
          and f.source !~ '\mcommit;' $$,
    'every function finds its names by itself, and no temporary table shadows them, but for a procedure that commits');
select is_empty(
    $$ select f.name from functions() as f where f.language not in ('sql', 'plpgsql') $$,
    'functions are SQL and PL/pgSQL');
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
$$, 'no parameter of a function in language SQL can be mistaken for a column');
select is_empty(
    $$ select f.name from functions() as f where f.source ~ '#variable_conflict' $$,
    'no function decides for a column or a variable behind the reader''s back');
select is_empty(
    $$
    select f.name
      from functions() as f
     where f.source ~ '(;|\m(begin|then|else|loop|in|query))\s+execute\M'
       and f.name !~ '^(perdure\.)?(find|find_running|count_found|create_index|drop_index|call_sql_hook|grant_privileges|revoke_access)\('
    $$,
    'no function makes up SQL, but for those that find, index and call hooks');
select is_empty(
    $$ select f.name from functions() as f where f.source ~* 'when others' and f.name !~ 'try_sql_hook' $$,
    'no function swallows an error that it does not know, but for that of a user''s hook');
-- A block that catches errors is a subtransaction, which no parallel worker may begin.
select is_empty(
    $$
    select f.name
      from functions() as f
      join pg_proc as p on p.oid = f.oid
     where p.proparallel = 's'
       and f.source ~ '\mexception\s+when\M'
    $$,
    'no function that catches errors is for parallel plans');
select is_empty(
    $$
    select distinct f.name || ' calls ' || called.proname
      from functions() as f
      join pg_proc as p on p.oid = f.oid
     cross join lateral regexp_matches(regexp_replace(f.source, '--[^\n]*|''[^'']*''', '', 'g'), '\m([a-z_]+)\(', 'g') as c (words)
      join pg_proc as called on called.proname = c.words[1] and called.pronamespace = p.pronamespace
     where p.proparallel = 's'
       and called.proparallel <> 's'
    $$,
    'nor is one that calls such a function');
-- The caller's standard_conforming_strings decides what a plain literal with a backslash is. One that goes on in the next line is one.
select is_empty(
    $$
    select f.name || ' ' || l.written[2]
      from functions() as f
     cross join lateral regexp_matches(regexp_replace(regexp_replace(f.source, '--[^\n]*', '', 'g'), '''\s*\n\s*''', '', 'g'),
                                       '(\m[Ee])?(''(?:[^'']|'''')*'')', 'g') as l (written)
     where l.written[1] is null
       and l.written[2] ~ '\\'
    $$,
    'no literal has a backslash, unless it says so by an E: no setting of the caller changes what a function means');
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
    'time is read in one place [P7]');
select is_empty(
    $$ select f.name
         from functions() as f
        where f.source ~ 'current_setting|set_config|pg_advisory_lock|create temp'
          and f.name !~ '^(perdure\.)?(await_result|check_snapshot|allow_asynchronous_commit|set_vector_scans)\(' $$,
    'nothing depends on the session, but for one look whether its snapshot may be old, how a claim is committed and '
    'how vectors are scanned: no settings, no session locks, no temporary tables (S4) (S6)');
select is_empty(
    $$ select f.name from functions() as f where concat(f.settings, f.source) ~ 'statement_timeout' $$,
    'no function limits the time of the statement that runs it: that is read when it begins (S10)');
select is_empty(
    $$
    select f.name from functions() as f
     where f.name !~ '^(perdure\.)?(create_(tables|views|test_helpers)|change_tables)\('
       and regexp_count(trim(both E'\n' from f.source), E'\n') >= 70
$$,
    'no function is longer than seventy lines');
select cmp_ok(
    (select percentile_cont(0.5) within group (order by array_length(string_to_array(trim(both E'\n' from f.source),
                                                                                     E'\n'), 1))
       from functions() as f),
    '<=',
    20::double precision,
    'a function has twenty lines, or fewer, as a rule');

-- Entry points plan for any number of rows.

select is_empty(
    $$
    select f.name
      from functions() as f
      join unnest('{start,start_many,hook,claim,advance,extend,release,signal,cancel,terminate,pause,resume,retry,fork,
                    timeline,forget_old_runs,set_queue,
                    pause_queue,resume_queue,run_command,run_commands,read_journal,run_task,take_sql_task,finish_task,
                    fail_task,resolve_item,claim_item,release_item,assign_item,publish}'::text[]) as entry (name)
        on f.name ~ ('^(perdure\.)?' || entry.name || '\(')
     where f.settings !~ 'plan_cache_mode=force_generic_plan'
        or f.settings !~ 'enable_seqscan=off'
        or f.settings !~ 'jit=off'
$$,
    'plans made while a table is small are good when it has grown');

-- Refusals.

select is_empty(
    $$
    select f.name
      from functions() as f
     where regexp_count(f.source, 'raise exception') > least(
               regexp_count(f.source, 'errcode ='),
               regexp_count(f.source, 'detail ='),
               regexp_count(f.source, 'hint ='))
$$,
    'every refusal has a code, a circumstance and an advice');
select is_empty($$
    select f.name || ' ' || m.message[1]
      from functions() as f
     cross join lateral regexp_matches(f.source, 'raise exception ''([^'']*)', 'g') as m (message)
     where m.message[1] ~ '^[A-Z]|\.$'
$$, 'a message is a fact: lower case, without a full stop');
select is_empty(
    $$
    select distinct f.name || ' ' || m.code[1]
      from functions() as f
     cross join lateral regexp_matches(f.source || obj_description(f.oid, 'pg_proc'), '\m(PD\w+)', 'g') as m (code)
     where m.code[1] <> all('{PD001,PD003,PD004,PD101,PD102,PD103,PD104,PD105,PD106,PD107,PD108,PD109,PD110,PD112,PD113,
                              PD114,PD115,PD201,PD301,PD302,PD303,PD304,PD305,PD306,PD30x,PD401,PD402,PD403,PD404,PD406,PD407,PD410,
                              PD411,PD412,PD503,PD505,PD507,PD601,PD602,PD604}')
    $$,
    'every code is one of those that these tests know');

-- The app itself.

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
