-- Access: the owner of an app gives known kinds of access to roles that exist. (T30)

begin;
select plan(16);

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

select finish();
rollback;
