-- Tasks, fields: the words that a turn and a fact may use. A misspelt word must not be ignored.

-- Folded into the plan of the caller, as any constant. `open` is rarely given, and is checked with what is suspicious.
create function @extschema@.turn_fields() returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '{job,task,token,position,asked_before,facts,requests,cancels,asked,state,awaits,until,value,failure,touches}'
        ::text[];
end
$$;
comment on function @extschema@.turn_fields() is
    'Return the fields of most turns; for code that runs again, also open.';


create function @extschema@.fact_fields() returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '{kind,key,name,fingerprint,ok,value,at,op,path,message,signal,target,expected_version}'::text[];
end
$$;
comment on function @extschema@.fact_fields() is 'Return the fields of a fact.';


create function @extschema@.request_fields(kind text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '{key,kind,fingerprint,shielded}'::text[] || case request_fields.kind
        when 'until' then '{condition}'::text[]
        when 'item' then '{name,payload,assignee,priority,expires_at}'
        when 'activity' then '{name,args,queue,priority,due_at,limit_key,pinned_version,detached}'
        when 'hook' then '{name,args,queue,priority,due_at,limit_key,pinned_version,detached,signal}'
        else '{name,args,queue,priority,due_at,limit_key,pinned_version,detached,id,entity,context,headers,timeout,
               on_parent_end,if_exists}' end;
end
$$;
comment on function @extschema@.request_fields(text) is
    'Return the fields of a request of a kind; for a child, if_exists says that it is a new job.';


-- A list of objects is read up to the first field that does not have its type, and PostgreSQL does not say whose it is.
-- Only then it is looked for, field by field: a field of the same name has the same type everywhere.
create function @extschema@.unreadable_field(given jsonb) returns text
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    field text;
begin
    -- A loop: each field is tried by itself, until one fails.
    for field in select k from jsonb_object_keys(unreadable_field.given) as k loop
        perform
           from jsonb_to_record(jsonb_build_object(field, unreadable_field.given -> field)) as s (
                token uuid, position integer, asked integer, asked_before integer, awaits text[], until timestamptz, ok boolean,
                at timestamptz, path text[], message bigint, priority integer, due_at timestamptz, expires_at timestamptz,
                timeout interval, detached boolean, shielded boolean);
    end loop;
    return null;
exception
    when data_exception or program_limit_exceeded then
        return field;
end
$$;
comment on function @extschema@.unreadable_field(jsonb) is
    'Return a field of a turn, fact, request or start that does not have its type, or null.';


create function @extschema@.unreadable_failure(given jsonb, what text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    field text := unreadable_field(unreadable_failure.given);
    wanted text := case
        when field = 'token' then 'a uuid'
        when field in ('position', 'asked', 'asked_before', 'priority', 'message') then 'a whole number'
        when field in ('awaits', 'path') then 'an array of texts'
        when field = 'timeout' then 'a length of time'
        when field in ('ok', 'detached', 'shielded') then 'true or false'
        else 'a time' end;
begin
    if field is null then
        return null;
    end if;
    return make_failure(
        'PD107', 'InvalidArgument', format('the field %s of %s cannot be read', field, unreadable_failure.what),
        format('It should be %s, and is %s.', wanted, type_found(unreadable_failure.given -> field)),
        case when wanted = 'a time' then 'Write a time as 2030-01-31T12:00:00Z.'
             when wanted = 'an array of texts' then 'Write a list of words, such as ["user", "email"].'
             when wanted = 'a length of time' then 'Write a length of time as "30 s"; a number without a unit means seconds.'
             when wanted = 'a uuid' then 'Give the token that claim() returned beside the tasks.'
             else 'Correct the field.' end);
end
$$;
comment on function @extschema@.unreadable_failure(jsonb, text) is
    'Return that a field of a turn, fact, request or start does not have its type (PD107), or null.';


-- A time in JSON is a text. PostgreSQL reads it by the TimeZone and DateStyle of the caller if it leaves something open.
create function @extschema@.zoned_time() returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '^[0-9]{4,}-?[0-9]{2}-?[0-9]{2}([Tt ][0-9]{2}:?[0-9]{2}(:?[0-9]{2}([.][0-9]+)?)?)? ?'
        '([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2}){0,2})$|^[+-]?[Ii]nfinity$';
end
$$;
comment on function @extschema@.zoned_time() is
    'Return the pattern of a time that means the same to everybody: its date from the year on, and its time zone.';


create function @extschema@.zoneless_failure(given jsonb, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument', format('the field %s of %s has no time zone', f.field, zoneless_failure.what),
                   'It would mean another instant to a session with other settings.',
                   'Write a time as 2030-01-31T12:00:00Z, or with its offset from UTC: 2030-01-31T14:00:00+02:00.')
          from unnest('{at,due_at,expires_at,until}'::text[]) as f (field)
         where zoneless_failure.given ->> f.field !~ zoned_time()
         limit 1);
end
$$;
comment on function @extschema@.zoneless_failure(jsonb, text) is
    'Return that a time of a turn, fact, request or start means another instant to another session (PD107), or null.';


-- Each of these is compared with a stored value; a missing one would look like the lease of somebody else.
create function @extschema@.unnamed_task_failure(given jsonb, what text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument', format('%s names no %s', unnamed_task_failure.what, f.field),
                   'A held task is named by its job, its task and the token of its lease.',
                   'Give them as claim() returned them; it returns the token once, beside the tasks.')
          from unnest('{job,task,token}'::text[]) as f (field)
         where unnamed_task_failure.given ->> f.field is null
         limit 1);
end
$$;
comment on function @extschema@.unnamed_task_failure(jsonb, text) is
    'Return that a turn or lease names no job, task or token (PD107), or null.';


create function @extschema@.list_failure(turn jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD107', 'InvalidArgument', format('the field %s of a turn cannot be read', f.field),
                   format('It should be an %s.', f.what), 'Correct the field.')
          from (values ('facts', 'array of objects', list_failure.turn -> 'facts'),
                       ('requests', 'array of objects', list_failure.turn -> 'requests'),
                       ('cancels', 'array', list_failure.turn -> 'cancels'),
                       ('open', 'object', list_failure.turn -> 'open')) as f (field, what, given)
         where jsonb_typeof(f.given) not in (split_part(f.what, ' ', 1), 'null')
            or f.what = 'array of objects' and f.given @? 'strict $[*] ? (@.type() != "object")'
         limit 1);
end
$$;
comment on function @extschema@.list_failure(jsonb) is
    'Return that a list in a turn is not a list of objects, or that open is not an object (PD107), or null.';


create function @extschema@.turn_fields_failure(turn jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    failure jsonb := coalesce(field_failure(turn_fields_failure.turn, turn_fields() || 'open'::text, 'a turn'),
                              list_failure(turn_fields_failure.turn));
begin
    -- A statement of its own: a parallel plan evaluates its sub-selects first, whatever comes before them.
    if failure is not null then
        return failure;
    end if;
    return (
        select field_failure(f.fact, fact_fields(), coalesce('the fact ' || left(f.fact ->> 'key', 40), 'a fact'))
          from jsonb_array_elements(nullif(turn_fields_failure.turn -> 'facts', 'null')) as f (fact)
         where f.fact - fact_fields() <> '{}'
         limit 1);
end
$$;
comment on function @extschema@.turn_fields_failure(jsonb) is
    'Return that a turn, or one of its facts, has an unknown field or an invalid list (PD107), or null.';


-- Instead of a check whether they are objects: reading them shows that too. It writes nothing, so the block that catches
-- errors costs no transaction id. Only then it is looked up what is wrong.
create function @extschema@.check_turns(turns jsonb) returns void
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if (jsonb_typeof(check_turns.turns) = 'array') is not true then
        perform check_list(check_turns.turns, 'turns');
    end if;
    perform
       from jsonb_to_recordset(check_turns.turns) as r (
            job text, task text, token uuid, position integer, awaits text[], until text, asked integer, asked_before integer)
     where num_nulls(r.job, r.task, r.token) > 0
        or r.until !~ zoned_time()
        or r.until is not null and r.until::timestamptz is null;
    if found then
        -- It may not be a time at all, and is then refused for that.
        perform null::timestamptz from jsonb_to_recordset(check_turns.turns) as r (until timestamptz);
        perform raise_failure(failure_among(j.failure, 'turn', r.place, jsonb_array_length(check_turns.turns),
                                            concat_ws(' of job ', r.turn ->> 'task', r.turn ->> 'job')))
           from jsonb_array_elements(check_turns.turns) with ordinality as r (turn, place)
          cross join lateral coalesce(unnamed_task_failure(r.turn, 'a turn'), zoneless_failure(r.turn, 'a turn')) as j (failure)
          where j.failure is not null
          order by r.place;
    end if;
exception
    when data_exception or program_limit_exceeded then
        perform check_list(check_turns.turns, 'turns');
        perform raise_failure(failure_among(unreadable_failure(r.turn, 'a turn'), 'turn', r.place, jsonb_array_length(check_turns.turns),
                                            concat_ws(' of job ', r.turn ->> 'task', r.turn ->> 'job')))
           from jsonb_array_elements(check_turns.turns) with ordinality as r (turn, place)
          where unreadable_field(r.turn) is not null
          order by r.place;
        raise;
end
$$;
comment on function @extschema@.check_turns(jsonb) is
    'Refuse what is not an array of objects, or a turn that names no task or has a field that cannot be read (PD107), and say which.';
