-- Tasks, named: a request is named after its asker and its key. No two requests of a job have the same name, and no name
-- is beneath that of another request: such a task would belong to the other, or end with it, and its asker would hear
-- nothing. [P4] [P8]

-- A detached task stands beside the hooks from outside, whose keys have no slash, so its key has none either. A colon
-- that does not stand for a slash is marked, and so is a slash that leads to no place in the code. The name of a detached
-- asker is given with its length. So two names stay two.
create function @extschema@.requested_task(task text, key text, detached boolean) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    asker text := case when starts_with(requested_task.task, '$hook/') then split_part(requested_task.task, '/', 2) end;
    above text := substr(requested_task.task, coalesce(length('$hook/' || asker), 0) + 1);
    own text := requested_task.key;
begin
    if not requested_task.detached then
        return requested_task.task || '/' || requested_task.key;
    end if;
    above := replace(regexp_replace(above, E'([\\\\:])', E'\\\\\\1', 'g'), '/', ':');
    own := replace(regexp_replace(own, E'([\\\\:])', E'\\\\\\1', 'g'), '/', case when own ~ '^[.]' then ':' else E'\\|' end);
    return '$hook/' || coalesce('$hook:' || length(asker)::text || ':' || asker, '') || above || ':' || own;
end
$$;
comment on function @extschema@.requested_task(text, text, boolean) is
    'Return the name of a requested task: beneath its asker, with which it ends; or, if detached, beside the hooks from outside.';


-- Each run counts its keys from the beginning; the children of earlier runs still exist.
create function @extschema@.child_id(job text, task text, key text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return child_id.job || '/' || coalesce(substring(child_id.task || '/', '^(?!1/)[0-9]+/main/'), '') || child_id.key;
end
$$;
comment on function @extschema@.child_id(text, text, text) is
    'Return the id of a child that was given none: beneath the parent, by the run unless it is the first, and by the request.';


create function @extschema@.beneath_failure(key text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return make_failure(
        'PD104', 'InvalidName',
        format('the key of a request must not lead beneath another: %s', quote_literal(left(beneath_failure.key, 200))),
        'A task whose name continues that of another, after a slash, ends with it.',
        'Use another separator, or end it as in group/search#1.');
end
$$;
comment on function @extschema@.beneath_failure(text) is
    'Return that a request under a key could end together with another request (PD104).';


-- The package's keys end with a number and have no slash before it, except in a place in the code, which begins with a
-- dot: none of these keys leads beneath another.
create function @extschema@.request_key_failure(key text) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return coalesce(
        name_failure(request_key_failure.key, 'the key of a request'),
        case when request_key_failure.key in ('$cancel', '$deadline') then make_failure(
            'PD104', 'InvalidName', format('the key %s is reserved for perdure', request_key_failure.key),
            'It is used to ask a task to cancel, or to tell it that its time is up.', 'Choose another key.') end,
        case when case when request_key_failure.key !~ '/' then request_key_failure.key ~ '^[.]'
                       when request_key_failure.key !~ '#[0-9]+$' then true
                       when request_key_failure.key ~ '^[.]' then request_key_failure.key ~ '^[^/]*/.*#[0-9]+/'
                       else request_key_failure.key ~ '#[0-9]+/' end
             then beneath_failure(request_key_failure.key) end);
end
$$;
comment on function @extschema@.request_key_failure(text) is
    'Return that the key of a request is no name, or could lead beneath that of another (PD104), or null.';


-- A key without a number may lead to others, as `a` to `a/b#1`; then the other requests decide. Repeated requests were
-- judged before. What was answered stays known until the asker ends.
create function @extschema@.nested_failure(job text, task text, requests jsonb) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select beneath_failure(r.request ->> 'key')
          from jsonb_array_elements(nested_failure.requests) as r (request)
         cross join lateral (
            select r.request ->> 'key' as key,
                   coalesce(r.request ->> 'id', child_id(nested_failure.job, nested_failure.task, r.request ->> 'key')) as id,
                   nested_failure.task || '/' || (r.request ->> 'key') as name,
                   possible_askers(nested_failure.task || '/' || (r.request ->> 'key')) as above
            offset 0) as q
         where (q.key !~ '#[0-9]+$' or q.key ~ '^[^.].*/')
           and r.request ->> 'kind' is distinct from 'until'
           and r.request ->> 'kind' is distinct from 'item'
           and not exists (select from tasks as t
                            where t.job_id = nested_failure.job and t.task = q.name
                              and t.asker_job = nested_failure.job and t.asker_task = nested_failure.task)
           and not is_answered(nested_failure.job, nested_failure.task, q.key)
           and not exists (select from jobs as j where j.id = q.id and j.parent = nested_failure.job and j.asked_as = q.name)
           and (exists (select from jsonb_array_elements(nested_failure.requests) as o (request)
                         where starts_with(o.request ->> 'key', q.key || '/')
                            or starts_with(q.key, (o.request ->> 'key') || '/'))
                or exists (select from tasks as t
                            where t.job_id = nested_failure.job
                              and t.asker_job = nested_failure.job and t.asker_task = nested_failure.task
                              and (t.task = any(q.above) or t.task > q.name || '/' and t.task < q.name || '0'))
                or exists (select from unnest(q.above) as a (task)
                            where is_answered(nested_failure.job, nested_failure.task,
                                              substr(a.task, length(nested_failure.task) + 2)))
                or exists (select from inbox as i
                            where i.job_id = nested_failure.job and i.task = nested_failure.task
                              and i.key > q.key || '/' and i.key < q.key || '0')
                or (select f.key from journal as f
                     where f.job_id = nested_failure.job and f.task = nested_failure.task and f.is_answer
                       and f.key > q.key || '/'
                     order by f.key limit 1) < q.key || '0'
                or exists (select from jobs as j
                            where j.parent = nested_failure.job
                              and (j.asked_as = any(q.above) or j.asked_as > q.name || '/' and j.asked_as < q.name || '0')))
         limit 1);
end
$$;
comment on function @extschema@.nested_failure(text, text, jsonb) is
    'Return that the key of a request of a task leads to another request, or is led to by one (PD104), or null.';


-- Each level adds a key to the name of the one above. A name of 600 bytes fits any index, also beside a text of a memory.
create function @extschema@.depth_failure(job text, task text, requests jsonb) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (
        select make_failure(
                   'PD104', 'InvalidName', format('the request %s would have too long a name', quote_literal(left(q.key, 40))),
                   format('Its key and the name that it continues have %s bytes together; at most 580 are allowed.', q.size),
                   'Use shorter keys and fewer levels, or give the child an id.')
          from (select r.request ->> 'key' as key,
                       octet_length(r.request ->> 'key')
                           + octet_length(case when r.request ->> 'kind' = 'job' then depth_failure.job else depth_failure.task end) as size
                  from jsonb_array_elements(depth_failure.requests) as r (request)
                 where coalesce(r.request ->> 'kind', 'hook') in ('hook', 'activity')
                    or r.request ->> 'kind' = 'job' and r.request ->> 'id' is null) as q
         where q.size > 580
         limit 1);
end
$$;
comment on function @extschema@.depth_failure(text, text, jsonb) is
    'Return that the name of a task or child, made of that of its asker and a key, would be too long (PD104), or null.';
