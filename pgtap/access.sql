-- Access: the owner of an app gives known kinds of access to roles that exist. (T30)

begin;
select plan(23);

do $$ begin execute format('create role %I', 'role of a test'); end $$;
create role role_of_a_test;

-- What grant_access() refuses.

select is(error_of(call), code, format('%s is refused (%s)', about, code))
  from (values
        ('a role that does not exist', $$select grant_access('nobody here', 'client')$$, 'PD107'),
        ('the public, which is no role', $$select grant_access('public', 'client')$$, 'PD107'),
        ('no role', $$select grant_access(null, 'client')$$, 'PD107'),
        ('an unknown kind', $$select grant_access('role_of_a_test', 'owner')$$, 'PD107'),
        ('no kind', $$select grant_access('role_of_a_test', null)$$, 'PD107'),
        ('a client with queues', $$select grant_access('role_of_a_test', 'client', '{a}')$$, 'PD107'),
        ('a worker of no queue', $$select grant_access('role_of_a_test', 'worker', '{}')$$, 'PD107'),
        ('a queue without a name', $$select grant_access('role_of_a_test', 'worker', '{""}')$$, 'PD104'),
        ('a queue that is null', $$select grant_access('role_of_a_test', 'worker', '{a,null}')$$, 'PD104'),
        ('a queue of one version', $$select grant_access('role_of_a_test', 'worker', '{a@2}')$$, 'PD104')
       ) as cases (about, call, code);
select is_empty('select * from access', 'a refused call grants nothing');

-- Granting and revoking.

select lives_ok($$select grant_access('role of a test', 'worker', '{b,a}')$$, 'a role may have any name');
select lives_ok($$select grant_access('role of a test', 'reader')$$, 'a role may be of two kinds');
select results_eq(
    'select jsonb_build_array(role, kind, queues) from access order by kind',
    $$values ('["role of a test", "reader", null]'::jsonb), ('["role of a test", "worker", ["b", "a"]]')$$,
    'the table access lists each role with its kinds and queues');
select is(revoke_access('role of a test'), true, 'revoke_access() takes away all that a role has');
select is(
    has_schema_privilege('role of a test', 'perdure', 'usage')
    or has_function_privilege('role of a test', (select oid from pg_proc where proname = 'claim'), 'execute')
    or has_table_privilege('role of a test', 'history', 'select'),
    false,
    'a role without access has no rights in the app');

-- Granted again: the queues and the time are those of the last grant.

select the_time_is('2030-01-01 12:00+00');
select grant_access('role_of_a_test', 'worker', '{a}');
select time_passes('1 h');
select grant_access('role_of_a_test', 'worker', '{b}');
select is((select jsonb_agg(jsonb_build_array(a.queues, a.granted_at)) from access as a),
          jsonb_build_array(jsonb_build_array('{b}'::text[], clock())), 'a worker may be given other queues');
select grant_access('role_of_a_test', 'worker');
select is((select a.queues from access as a), null, 'a worker may be given all queues');
select given(revoke_access('role_of_a_test'));

-- A dropped role, and another one of its name.

select grant_access('role_of_a_test', 'worker', '{a}');
select grant_access('role_of_a_test', 'reader');
revoke all on all routines in schema perdure from role_of_a_test;
select is(missing_parts(), '{access of role_of_a_test}', 'a role that has lost its rights is missed once');
drop owned by role_of_a_test;
select is(missing_parts(), '{}', 'a role without access misses nothing');
grant create on schema perdure to role_of_a_test;
select is(has_usage('role_of_a_test'::regrole), false, 'a role that may only create in the schema has no access');
select restore_access();
select is(has_function_privilege('role_of_a_test', 'perdure.perdure_version()', 'execute'), false,
          'an upgrade gives nothing to a role that lost its access');
select grant_access('role_of_a_test', 'client');
select is((select array_agg(a.kind) from access as a), '{client}',
          'a role that is given access has nothing of an earlier role of its name');

select finish();
rollback;
