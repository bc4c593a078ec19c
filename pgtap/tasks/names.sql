-- Names: the name of a requested task is made of its asker and its key. No two requests of a job have one name, and
-- none is beneath another's, whatever their keys: it would be the other's task, or end with it. [P4] [P8]

begin;
select plan(52);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.asked(key text, kind text default 'hook', detached boolean default false) returns jsonb
language plpgsql
as $$
begin
    return jsonb_build_object('key', key, 'kind', kind, 'name', 'h', 'detached', detached);
end
$$;
create function pg_temp.code_of(job text, variadic requests jsonb[]) returns text
language plpgsql
as $$
begin
    return tell(a_turn(job, requests => to_jsonb(requests))) #>> '{error,code}';
end
$$;

-- Two requests of one turn.

select is(
    jsonb_build_array(pg_temp.code_of(job, pg_temp.asked(one), pg_temp.asked(other)), tasks_of(job)),
    jsonb_build_array('PD104', '{1/main}'::text[]),
    format('one turn cannot request %s and %s', one, other))
  from (values
        ('a', 'a/b#1'), ('a/b#1', 'a'), ('a', 'a/b/c#1'), ('a b', 'a b/c#1'), ('a#x', 'a#x/b#1'),
        ('a#1', 'a#1/b#1'), ('.p', '.p/a#1'), ('.p#1', '.p#1/a#1'), ('.p/a#1', '.p/a#1/b#1'), ('a', 'a/')
       ) as cases (one, other)
 cross join lateral concat_ws(' ', one, other) as job
 cross join lateral have_held_job(job);
select is(
    pg_temp.code_of(job, variadic array(select pg_temp.asked(key) from unnest(keys) as key)), null,
    format('one turn may request %s', keys))
  from (values
        ('{a,b,a#1,ab/c#1,c/d#1,c/d/e#1,c:d#1}'::text[]), ('{.1/a#1,.1.1/a#1,.2/a#1,.w#1/a#1,.w#1/a/b#1,a/b#1}')
       ) as cases (keys)
 cross join lateral array_to_string(keys, ' ') as job
 cross join lateral have_held_job(job);

-- Requests of two turns, whatever became of the first, and of any kind.

create temporary table orders as
select case when is_turned then later else before end as before,
       case when is_turned then before else later end as later,
       kind, other_kind, format('%s %s, %s %s', kind, before, other_kind, later) || is_turned as job
  from (values ('a', 'a/b#1')) as k (before, later)
 cross join unnest('{f,t}'::boolean[]) as is_turned
 cross join unnest('{hook,job}'::text[]) as kind
 cross join unnest('{activity,job}'::text[]) as other_kind;
select have_held_job(job) from orders;
select is(
    array[pg_temp.code_of(job, pg_temp.asked(before, kind)), pg_temp.code_of(job, pg_temp.asked(later, other_kind)),
          pg_temp.code_of(job, pg_temp.asked(before, kind))],
    array[null, 'PD104', null],
    format('after a %s %s a request of the %s %s is refused, and the first may be repeated', kind, before, other_kind,
           later))
  from orders
 order by job;
select given(take('bob', '{default}', 100));
select given(tell(a_turn(t.job_id, t.task, 'done', worker => 'bob')))
  from tasks as t
 where t.worker = 'bob';
select is(pg_temp.code_of(job, pg_temp.asked(later, other_kind)), 'PD104',
          format('the later request is refused after the first has ended: %s', job))
  from orders
 order by job;

-- A hook has its own requests.

select have_held_job('deep');
select given(pg_temp.code_of('deep', pg_temp.asked('a')));
select given(take('bob', '{default}', 100));
select is(
    tell(a_turn('deep', '1/main/a', requests => jsonb_build_array(pg_temp.asked('b#1')), worker => 'bob')) ->> 'state',
    'keep',
    'a hook may make a request that its asker may not make');
select is(tasks_of('deep'), '{1/main,1/main/a,1/main/a/b#1}', 'the task is beneath the hook');
select is(pg_temp.code_of('deep', pg_temp.asked('a/b#1')), 'PD104',
          'the asker of the hook cannot request the same name');

-- Detached tasks are named beside the hooks from outside.

select have_held_job('loose');
select given(pg_temp.code_of('loose', pg_temp.asked('x#1')));
select given(take('bob', '{default}', 100));
select is(
    tell(a_turn('loose', task, worker => worker, requests => jsonb_build_array(
        pg_temp.asked(key, detached => true)))) ->> 'state',
    'keep', format('%s may detach %s', task, key))
  from (values
        ('1/main', 'x#1:y#1', 'ada'), ('1/main/x#1', 'y#1', 'bob'), ('1/main', 'a/b#1', 'ada'),
        ('1/main', 'a:b#1', 'ada'), ('1/main', 'a\:b#1', 'ada'), ('1/main', 'a\/b#1', 'ada'),
        ('1/main', '.p/a#1', 'ada')
       ) as cases (task, key, worker);
select given(take('bob', '{default}', 100));
select is(
    tell(a_turn('loose', task, worker => 'bob', requests => jsonb_build_array(
        pg_temp.asked(key, detached => detached)))) ->> 'state',
    'keep', format('%s may ask for %s', task, key))
  from (values
        ('$hook/1:main:a\|b#1', 'c#1', true), ('$hook/1:main:a\|b#1', 'c#1', false),
        ('$hook/1:main:a\|b#1', 'c#1:d#1', true)
       ) as cases (task, key, detached);
select given(take('bob', '{default}', 100));
select given(tell(a_turn('loose', '$hook/1:main:a\|b#1/c#1', requests => jsonb_build_array(
    pg_temp.asked('d#1', detached => true)), worker => 'bob')));
select is(
    (select string_agg(t.task, ' ' order by t.task) from tasks as t where t.job_id = 'loose' and t.detached),
    concat_ws(
        ' ', '$hook/$hook:13:1:main:a\|b#1:c#1', '$hook/$hook:13:1:main:a\|b#1:c#1:d#1',
        '$hook/$hook:13:1:main:a\|b#1:c#1\:d#1', '$hook/1:main:.p:a#1', '$hook/1:main:a\:b#1', '$hook/1:main:a\\\:b#1',
        '$hook/1:main:a\\\|b#1', '$hook/1:main:a\|b#1', '$hook/1:main:x#1:y#1', '$hook/1:main:x#1\:y#1'),
    'each detached request makes its own task');
select is(
    error_of(format('select hook(''loose'', ''h'', key => %L)', key)), 'PD104',
    format('a hook from outside with the key %s is refused', key))
  from unnest('{1:main:a:b#1,12:main:x,$hook:k:x,$schedule}'::text[]) as key;
select is(hook('loose', 'h', key => '1:of:2'), '$hook/1:of:2', 'a hook from outside may have other keys with colons');

-- All keys of up to four parts that a request can have: which of them are beneath others, and which names are equal.

create temporary table parts as select unnest('{"",a,/,#1,.,:,"\\","|"}'::text[]) as part;
create temporary table keys as
select distinct concat(a.part, b.part, c.part, d.part) as key, '' in (a.part, b.part, c.part, d.part) as is_short
  from parts as a
 cross join parts as b
 cross join parts as c
 cross join parts as d
 where request_key_failure(concat(a.part, b.part, c.part, d.part)) is null;
select is_empty(
    $$ select above.key, k.key
         from keys as above
         join keys as k on starts_with(k.key, above.key || '/')
        where above.key ~ '#[0-9]+$' or k.key !~ '^[^.].*/' $$,
    'a key beneath another neither ends in a number nor begins with a place');
create temporary table askers as
select distinct a.task
  from keys as k
 cross join lateral unnest(array[
        '1/main',
        '1/main/' || k.key,
        case when k.key !~ '/' then '$hook/' || k.key end,
        case when k.key ~ '[/:]' then requested_task('1/main', k.key, true) end,
        case when k.key ~ '[/:]' then requested_task('1/main', k.key, true) || '/a' end,
        case when k.key ~ '[/:]' then requested_task('1/main', k.key, true) || '/a:' end]) as a (task)
 where k.is_short
   and a.task is not null;
select is_empty(
    $$ select requested_task(a.task, k.key, true), jsonb_agg(jsonb_build_array(a.task, k.key))
         from askers as a
        cross join keys as k
        where k.is_short
        group by 1
       having count(*) > 1 $$,
    'no two detached requests have one name, whatever their askers and keys');

-- Reserved keys.

select given(start('w', id => 'own', queue => 'own', timeout => '1 h'));
select given(take('ada', '{own}'));
select is(pg_temp.code_of('own', pg_temp.asked(key, kind)), 'PD104',
          format('a %s with the key %s is refused', kind, key))
  from (values ('$deadline', 'hook'), ('$cancel', 'item')) as cases (key, kind);

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
