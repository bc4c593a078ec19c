-- Forgetting: a job goes as a whole, with its memory, history and messages; never while something of it is alive. [P13] (E18)

begin;
select plan(56);

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
select is(rows_of('j'), '{}', 'nothing of it is left in any table');
select is(forget('j'), false, 'what is not there cannot be forgotten');
select is(forget(null), false, 'nothing cannot be forgotten');
select throws_ok($$ select entity_get('j') $$, 'PD401', null, 'a job that is forgotten has no memory');
select throws_ok($$ select signal('j', 'go', key => 'k') $$, 'PD401', null, 'a job that is forgotten takes no signal');

-- Its id begins anew.

select have_held_job('j', '{"m": 1}');
select is(
    (select jsonb_agg(h.version) from entity_history('j') as h),
    '[1]',
    'the id of a forgotten job begins a new history [P1]');
select is(entity_at('j', 1), '{"m": 1}', 'nothing of the old memory shows through');
select is(signal('j', 'go', key => 'k'), true, 'the keys of the old job are free');
select is(terminate('j'), true, 'a job can be ended');
select is(forget('j'), true, 'a job that was ended can be forgotten');

-- A plain entity.

select given(entity_create('e', 'note', '{"n": 1}', key => 'k'));
select given(hook('e', 'h', key => 'h', queue => 'hooks'));
select throws_ok($$ select forget('e') $$, 'PD407', null, 'an entity with a hook at work is not forgotten');
select given(take('bob', '{hooks}'));
select given(tell(a_turn('e', '$hook/h', state => 'done', worker => 'bob')));
select is(forget('e'), true, 'a plain entity can be forgotten');
select is(rows_of('e'), '{}', 'nothing of it is left');
select is(entity_create('e', 'note', '{"n": 2}', key => 'k'), true, 'its id can be taken again');
select is(the_job('e') -> 'version', '1', 'its history begins again');

-- Parents and children.

select have_held_job('parent');
select given(
    tell(a_turn('parent', requests => '[{"key": "c#1", "kind": "job", "name": "child", "queue": "children",
                                         "on_parent_end": "continue"}]')));
select given(tell(a_turn('parent', state => 'done')));
select throws_ok($$ select forget('parent') $$, 'PD407', null,
                 'a job whose child runs is not forgotten: its answer would go to the next job of that id');
select given(take('bob', '{children}'));
select given(tell(a_turn('parent/c#1', state => 'done', worker => 'bob', touches => '{parent}')));
select is(forget('parent'), true, 'when the child has ended, the parent can be forgotten');
select is(rows_of('parent/c#1') -> 'jobs', '1', 'a child is a job of its own and stays');
select is(forget('parent/c#1'), true, 'a child can be forgotten');

-- What lives asks again for what it has begun.

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
                 'a detached child is not forgotten while what has begun it lives [P1]');
select is(forget_finished('infinity'), 1, 'of its children what was awaited can be forgotten: it has answered');
select pg_temp.begin_children();
select is(take('bob', '{children}'), '[]', 'so none of them is begun a second time');
select given(tell(a_turn('begins', state => 'done')));
select is(forget('begins/detached#1'), true, 'when that has ended, it can be forgotten');
select is(forget('begins'), true, 'and so can that');

-- Many: by age, oldest first, so many at a time.

select is(forget_finished('infinity'), 0, 'where nothing has finished, nothing is forgotten');
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
select is(forget_finished('2030-01-01 12:00+00'), 0, 'what has finished later stays');
select is(forget_finished('2030-01-01 13:00+00'), 1, 'what has finished before is forgotten');
select is(the_old_ones(), '{old-2,old-3,old-4,old-5,old-6,old-7,old-8}', 'that was the oldest');
select is(forget_finished('infinity', 'even', 2), 2, 'so many at a time, of one entity');
select is(the_old_ones(), '{old-3,old-5,old-6,old-7,old-8}', 'they were the oldest of that entity');
select is(forget_finished('infinity', max_jobs => 0), 0, 'none may be too many');

-- What must stay does not stand in the way of what may go.

select given(hook('old-3', 'h', key => 'h', queue => 'hooks'));
insert into perdure.jobs (id, workflow, status, parent) values ('child', 'w', 'running', 'old-5');
select is(forget_finished('infinity', max_jobs => 1), 1, 'a job that must stay is not counted');
select is(the_old_ones(), '{old-3,old-5,old-7,old-8}',
          'a finished job with a live hook stays, and one whose child runs; the next is forgotten');
select is(forget_finished('infinity'), 2, 'all others are forgotten');
select is(the_old_ones(), '{old-3,old-5}', 'what must stay has stayed');
select is(forget_finished('infinity'), 0, 'nothing else is left to forget');
update perdure.jobs set status = 'cancelled', finished_at = clock(), error = '{}' where id = 'child';
select is(forget_finished('infinity', max_jobs => null), 2, 'a parent whose child has ended is forgotten with it');
select is(the_job('busy') ->> 'status', 'running', 'what runs is not forgotten');
select is(the_job('e') ->> 'entity', 'note', 'plain entities are not forgotten by their age');
select is(rows_of('old-1') || rows_of('old-8') || rows_of('child'), '{}', 'nothing of them is left in any table');

-- A row of a user's that points to a job says what becomes of it without the job, or keeps it.

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
select is(forget_finished('infinity', max_jobs => 1), 1, 'what rows of users keep is passed over, page after page');
select is(forget_finished('infinity'), 2, 'the others are forgotten');
select is(
    (select array_agg(j.id order by j.id) from perdure.jobs as j where j.id like 'p-%'),
    '{p-1,p-2,p-3}',
    'what is kept is there');
select is(
    array(select k.job from going_along as k) || array(select k.job from losing_it as k),
    '{p-1,null}',
    'a row that goes along with its job has gone with it, and with no other; one that loses it has lost it');
select throws_ok($$ select forget('p-1') $$, '23503', null, 'who keeps a job is told to who wants it forgotten');
select lives_ok(
    $$ insert into keeping (other) values (7); insert into numbers values (7) $$,
    'constraints of the caller wait for his commit as they did');
set constraints all immediate;
drop table keeping, keeping_later, going_along, losing_it, numbers;
select given(forget_finished('infinity'));

-- However many there are, only so many are looked at.

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
select is(forget_finished('infinity', max_jobs => 3), 3, 'a few of many are forgotten');
select is(forget_finished(clock() - interval '1 hour'), 0, 'when all that is left is younger, nothing is');
select cmp_ok(jobs_read() - before, '<', 100::bigint, 'neither reads all jobs that have finished') from reads;
select is(forget_finished('infinity', max_jobs => 10000), 1997, 'the others can go at once');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
