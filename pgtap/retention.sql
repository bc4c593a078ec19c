-- Forgetting: a job is forgotten with its memory, history and messages, but never while something of it is alive. [P13]
-- (E18)

begin;
select plan(64);

select the_time_is('2030-01-01 12:00+00');

create function rows_of(job text) returns jsonb
language plpgsql
as $$
begin
    return (
        select coalesce(jsonb_object_agg(kind, number), '{}')
          from (select kind, count(*) as number
                  from (select 'jobs' as kind, j.id from jobs as j
                         union all select 'tasks', t.job_id from tasks as t
                         union all select 'journal', f.job_id from journal as f
                         union all select 'snapshots', s.job_id from snapshots as s
                         union all select 'conditions', c.job_id from conditions as c
                         union all select 'inbox', i.job_id from inbox as i) as all_rows (kind, id)
                 where all_rows.id = rows_of.job
                 group by kind) as counted);
end
$$;
comment on function rows_of(text) is 'Count the rows of a job, table by table.';

create function have_finished(id text, entity text default null) returns void
language plpgsql
as $$
begin
    perform start('research', id => have_finished.id, entity => have_finished.entity, queue => have_finished.id);
    perform take('ada', array[have_finished.id]);
    perform tell(a_turn(have_finished.id, state => 'done', value => '1'));
end
$$;

-- One job.

select have_held_job('j', '{"n": 1}');
select given(entity_increment('j', 'n')) from generate_series(1, 120);
select given(entity_log('j', 'l', '1'));
select given(signal('j', 'go', key => 'k'));
select given(
    tell(a_turn('j', facts => '[{"kind": "note"}]',
                requests => '[{"key": "u", "kind": "until", "condition": "$.n > 1000"}]')));
select throws_ok($$ select forget('j') $$, 'PD407', 'job ''j'' is at work', 'a running job is not forgotten');
select given(
    tell(a_turn('j', state => 'done', requests => '[{"key": "d", "name": "h", "queue": "hooks", "detached": true}]')));
select throws_ok($$ select forget('j') $$, 'PD407', null, 'a finished job whose hook is alive is not forgotten');
select given(take('bob', '{hooks}'));
select given(tell(a_turn('j', (tasks_of('j'))[1], state => 'done', worker => 'bob')));
select is(
    rows_of('j') - 'journal',
    '{"jobs": 1, "inbox": 1, "snapshots": 1}',
    'a finished job has its memory and its history');
select is(forget('j'), true, 'a finished job can be forgotten');
select is(rows_of('j'), '{}', 'a forgotten job has no rows in any table');
select is(forget('j'), false, 'a job that does not exist cannot be forgotten');
select is(forget(null), false, 'a job of null cannot be forgotten');
select throws_ok($$ select entity_get('j') $$, 'PD401', null, 'a forgotten job has no memory');
select throws_ok($$ select signal('j', 'go', key => 'k') $$, 'PD401', null, 'a forgotten job takes no signals');

-- The id of a forgotten job.

select have_held_job('j', '{"m": 1}');
select is(
    (select jsonb_agg(h.version) from entity_history('j') as h),
    '[1]',
    'the id of a forgotten job begins a new history [P1]');
select is(entity_at('j', 1), '{"m": 1}', 'the id of a forgotten job begins with a new memory');
select is(signal('j', 'go', key => 'k'), true, 'the keys of a forgotten job are free');
select is(terminate('j'), true, 'a job that reuses an id can be terminated');
select is(forget('j'), true, 'a terminated job can be forgotten');

-- A plain entity.

select given(entity_create('e', 'note', '{"n": 1}', key => 'k'));
select given(hook('e', 'h', key => 'h', queue => 'hooks'));
select throws_ok($$ select forget('e') $$, 'PD407', null, 'an entity with a hook at work is not forgotten');
select given(take('bob', '{hooks}'));
select given(tell(a_turn('e', '$hook/h', state => 'done', worker => 'bob')));
select is(forget('e'), true, 'a plain entity can be forgotten');
select is(rows_of('e'), '{}', 'a forgotten entity has no rows');
select is(entity_create('e', 'note', '{"n": 2}', key => 'k'), true, 'the id of a forgotten entity can be reused');
select is(the_job('e') -> 'version', '1', 'the history of a reused id begins again');

-- Parents and children.

select have_held_job('parent');
select given(
    tell(a_turn('parent', requests => '[{"key": "c#1", "kind": "job", "name": "child", "queue": "children",
                                         "on_parent_end": "continue"}]')));
select given(tell(a_turn('parent', state => 'done')));
select throws_ok($$ select forget('parent') $$, 'PD407', null,
                 'a job whose child runs is not forgotten, because the answer would reach the next job of that id');
select given(take('bob', '{children}'));
select given(tell(a_turn('parent/c#1', state => 'done', worker => 'bob', touches => '{parent}')));
select is(forget('parent'), true, 'a parent whose children have ended can be forgotten');
select is(rows_of('parent/c#1') -> 'jobs', '1', 'a child stays when its parent is forgotten');
select is(forget('parent/c#1'), true, 'a child can be forgotten');

-- A live parent may request its children again.

select have_held_job('begins');
create function pg_temp.begin_children() returns void
language plpgsql
as $$
begin
    perform tell(a_turn('begins', requests => '[
        {"key": "detached#1", "kind": "job", "name": "child", "queue": "children", "detached": true},
        {"key": "a/b#1", "kind": "job", "name": "child", "queue": "children", "id": "awaited"}]'));
end
$$;
select pg_temp.begin_children();
select given(take('bob', '{children}', 2));
select given(tell(a_turn('begins/detached#1', state => 'done', worker => 'bob'),
                  a_turn('awaited', state => 'done', worker => 'bob', touches => '{begins}')));
select throws_ok($$ select forget('begins/detached#1') $$, 'PD407', null,
                 'a detached child is not forgotten while its parent is alive [P1]');
select is(forget_finished('infinity'), 1, 'a child that has answered can be forgotten while its parent is alive');
select pg_temp.begin_children();
select is(take('bob', '{children}'), '[]', 'a child that is requested again does not begin a second time');
select given(tell(a_turn('begins', state => 'done')));
select is(forget('begins/detached#1'), true, 'a detached child whose parent has ended can be forgotten');
select is(forget('begins'), true, 'the parent can be forgotten too');

-- forget_finished: by age, the oldest first, a few at a time.

select is(forget_finished('infinity'), 0, 'forget_finished() forgets nothing if no job has finished');
create function have_old_ones(many integer) returns void
language plpgsql
as $$
begin
    for n in 1 .. have_old_ones.many loop
        perform have_finished('old-' || n, case when n % 2 = 0 then 'even' else 'odd' end);
        perform time_passes('1 hour');
    end loop;
end
$$;
create function the_old_ones() returns text[]
language plpgsql
as $$
begin
    return array(select j.id from jobs as j where j.id like 'old-%' order by j.id);
end
$$;
select have_old_ones(8);
select have_held_job('busy');
select is(forget_finished('2030-01-01 12:00+00'), 0, 'forget_finished() keeps jobs that finished later');
select is(forget_finished('2030-01-01 13:00+00'), 1, 'forget_finished() forgets jobs that finished earlier');
select is(the_old_ones(), '{old-2,old-3,old-4,old-5,old-6,old-7,old-8}', 'forget_finished() forgets the oldest job');
select throws_ok(
    $$ select forget_finished(clock() + interval '90 days') $$, 'PD107',
    'the time 2030-04-01 20:00:00+00 is in the future',
    'an age that was added to the time forgets nothing');
select throws_ok(
    $$ select forget_finished(clock() + interval '1 day 1 s', 'none') $$, 'PD107', null,
    'a time more than a day ahead is refused');
select is(forget_finished(clock() + interval '1 day', 'none'), 0,
          'a time a day ahead is accepted');
select is(forget_finished(clock() - interval '90 days'), 0, 'an age that was subtracted forgets older jobs');
select is(forget_finished('infinity', 'even', 2), 2, 'forget_finished() forgets at most max_jobs jobs of one entity');
select is(the_old_ones(), '{old-3,old-5,old-6,old-7,old-8}', 'forget_finished() forgets the oldest jobs of the entity');
select is(forget_finished('infinity', max_jobs => 0), 0, 'forget_finished() of no jobs forgets none');

-- Jobs that must stay do not hold up others.

select given(hook('old-3', 'h', key => 'h', queue => 'hooks'));
insert into perdure.jobs (id, workflow, status, parent) values ('child', 'w', 'running', 'old-5');
select is(forget_finished('infinity', max_jobs => 1), 1, 'forget_finished() does not count a job that must stay');
select is(the_old_ones(), '{old-3,old-5,old-7,old-8}',
          'jobs with a live hook or a running child stay, and the next job is forgotten');
select is(forget_finished('infinity'), 2, 'forget_finished() forgets all other jobs');
select is(the_old_ones(), '{old-3,old-5}', 'jobs that must stay are still there');
select is(forget_finished('infinity'), 0, 'forget_finished() finds no other job');
update perdure.jobs set status = 'cancelled', finished_at = clock(), error = '{}' where id = 'child';
select is(forget_finished('infinity', max_jobs => null), 2, 'a parent whose child has ended is forgotten with it');
select is(the_job('busy') ->> 'status', 'running', 'forget_finished() keeps running jobs');
select is(the_job('e') ->> 'entity', 'note', 'forget_finished() keeps plain entities');
select is(rows_of('old-1') || rows_of('old-8') || rows_of('child'), '{}',
          'jobs that forget_finished() forgot have no rows in any table');

-- Foreign keys of users: they decide whether a job can be forgotten and what becomes of their rows.

insert into perdure.jobs (id, workflow, status, created_at, finished_at)
select 'p-' || n as id, 'w' as workflow, 'completed' as status, clock() as created_at, clock() as finished_at
  from generate_series(1, 6) as n;
create table keeping (job text references perdure.jobs (id), other integer);
create table keeping_later (job text references perdure.jobs (id) deferrable initially deferred);
create table going_along (job text references perdure.jobs (id) on delete cascade);
create table losing_it (job text references perdure.jobs (id) on delete set null);
create table numbers (number integer primary key);
alter table keeping
    add constraint numbers_are_known foreign key (other) references numbers deferrable initially deferred;
insert into keeping (job) values ('p-1'), ('p-2');
insert into keeping_later (job) values ('p-3');
insert into going_along (job) values ('p-1'), ('p-4');
insert into losing_it (job) values ('p-5');
select is(forget_finished('infinity', max_jobs => 1), 1, 'forget_finished() skips jobs that rows of users refer to');
select is(forget_finished('infinity'), 2, 'forget_finished() forgets the jobs that no row keeps');
select is(
    (select array_agg(j.id order by j.id) from perdure.jobs as j where j.id like 'p-%'),
    '{p-1,p-2,p-3}',
    'jobs that rows of users refer to stay');
select is(
    array(select k.job from going_along as k) || array(select k.job from losing_it as k),
    '{p-1,null}',
    'on delete cascade and on delete set null apply to rows of forgotten jobs alone');
select throws_ok($$ select forget('p-1') $$, '23503', null,
                 'forget() of a job that a row keeps raises the violation of the foreign key');
select lives_ok(
    $$ insert into keeping (other) values (7); insert into numbers values (7) $$,
    'deferred constraints of the caller are still deferred');
select is(forget_finished('infinity', max_jobs => 1), 0, 'forget_finished() ends when rows of users keep all jobs');
update perdure.jobs set created_at = created_at - interval '1 h' where id = 'p-1';
select is(forget_finished('infinity', max_jobs => 1), 0,
          'forget_finished() looks once at each of the jobs that rows of users keep');
create table restricting (job text references perdure.jobs (id) on delete restrict);
insert into perdure.jobs (id, workflow, status, created_at, finished_at)
values ('p-7', 'w', 'completed', clock() - interval '1 h', clock());
insert into restricting values ('p-7');
select is(forget_finished('infinity'), 0, 'on delete restrict keeps a job too');
drop table restricting;
select is(forget_finished(clock()), 0, 'forget_finished() keeps a job that finished exactly at the given time');
set constraints all immediate;
drop table keeping, keeping_later, going_along, losing_it, numbers;
select given(forget_finished('infinity'));

-- The cost does not grow with the number of finished jobs.

insert into perdure.jobs (id, workflow, status, created_at, finished_at)
select 'many-' || n as id, 'w' as workflow, 'completed' as status, clock() + n * interval '1 s' as created_at,
       clock() + n * interval '1 s' as finished_at
  from generate_series(1, 2000) as n;
create function jobs_read() returns bigint
language plpgsql
as $$
begin
    return (select s.seq_tup_read + s.idx_tup_fetch from pg_stat_xact_all_tables as s where s.relid = 'perdure.jobs'::regclass);
end
$$;
create temporary table reads as select jobs_read() as before;
select is(forget_finished('infinity', max_jobs => 3), 3, 'forget_finished() forgets a few of many jobs');
select is(forget_finished(clock() - interval '1 hour'), 0, 'forget_finished() forgets none of many younger jobs');
select cmp_ok(jobs_read() - before, '<', 100::bigint, 'forget_finished() does not read all finished jobs') from reads;
select is(forget_finished('infinity', max_jobs => 10000), 1997, 'forget_finished() forgets many jobs in one call');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
