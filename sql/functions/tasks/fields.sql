-- Tasks, fields: the words that a turn and a fact may use. A word misspelt must not be a word ignored.

-- Folded into the plan of who asks, as any constant.
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
comment on function @extschema@.turn_fields() is 'Name what a turn may say.';


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
comment on function @extschema@.fact_fields() is 'Name what a fact may say.';


create function @extschema@.request_fields(kind text) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return '{key,kind,shielded}'::text[] || case request_fields.kind
        when 'until' then '{condition,expires_at}'::text[]
        when 'item' then '{name,payload,assignee,priority,expires_at}'
        when 'activity' then '{name,args,queue,priority,due_at,limit_key,pinned_version,detached}'
        when 'hook' then '{name,args,queue,priority,due_at,limit_key,pinned_version,detached,signal}'
        else '{name,args,queue,priority,due_at,limit_key,pinned_version,detached,id,entity,context,headers,timeout,
               on_parent_end,if_exists}' end;
end
$$;
comment on function @extschema@.request_fields(text) is
    'Name what a request of a kind may say; a child is told by if_exists that it is a new job.';


create function @extschema@.stray_failure(turn jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        field_failure(stray_failure.turn, turn_fields(), 'a turn'),
        (select field_failure(f.fact, fact_fields(), coalesce('the fact ' || left(f.fact ->> 'key', 40), 'a fact'))
           from jsonb_array_elements(nullif(stray_failure.turn -> 'facts', 'null')) as f (fact)
          where f.fact - fact_fields() <> '{}'
          limit 1));
end
$$;
comment on function @extschema@.stray_failure(jsonb) is
    'Say that a turn, or one of its facts, has a field that nobody would read (PD107), or null.';
