-- Fencing [P6]: once a task is claimed again, parked, ended or terminated, nothing that an earlier holder says has any
-- effect.

begin;
select plan(67);

select the_time_is('2030-01-01 12:00+00');

-- What a zombie may try: everything that has an effect.

create temporary table tries (about text, turn jsonb) on commit drop;
insert into tries (about, turn) values
    ('keep',      '{"state": "keep"}'),
    ('a command', '{"state": "keep", "facts": [{"op": "set", "path": ["zombie"], "value": true}]}'),
    ('a signal',  '{"state": "keep", "facts": [{"signal": "zombie", "target": "other"}]}'),
    ('a request', '{"state": "keep", "requests": [{"key": "zombie", "name": "h"},
                   {"key": "child", "kind": "job", "name": "c"}]}'),
    ('a park',    '{"state": "park", "awaits": ["zombie"]}'),
    ('a result',  '{"state": "done", "value": "zombie"}'),
    ('a failure', '{"state": "failed", "value": {"message": "zombie"}}'),
    ('a retry',   '{"state": "retry"}'),
    ('a release', '{"state": "release"}');

select given(start('w', id => 'other'));

-- Claimed by another.

select have_held_job('claimed');
select time_passes('31 s');
select given(take('bob', '{claimed}'));
create temporary table held_task as select the_task('claimed') as task;
select is(
    verdict_of(a_turn('claimed') || turn),
    'fenced',
    format('who lost its task to another is fenced: %s [P6]', about))
  from tries;
select is(the_task('claimed'), task, 'the task of the new holder is as it was [P6]') from held_task;
select is(
    tell(a_turn('claimed', state => 'done', value => '1', worker => 'bob')) ->> 'state',
    'done',
    'the new holder goes on [P6]');

-- An expired lease that nobody took is still a lease.

select have_held_job('late');
select time_passes('1 day');
select is(
    tell(a_turn('late', facts => '[{"kind": "note", "key": "n"}]')) ->> 'state',
    'keep',
    'a lease that has ended fences nobody until the task is claimed again');

-- Claimed again by the same worker, under a new claim.

select have_held_job('mine');
select time_passes('31 s');
select given(take('ada', '{mine}', claim_as => 'second claim'));
select is(
    verdict_of(a_turn('mine') || turn),
    'fenced',
    format('an earlier claim of the same worker is fenced: %s [P6]', about))
  from tries;

-- Parked: the holder has let go.

select have_held_job('parked');
select given(tell(a_turn('parked', state => 'park', awaits => '{go}')));
select is(
    verdict_of(a_turn('parked') || turn),
    'parked',
    format('who parked its task is told so, whatever it says: %s [P6]', about))
  from tries;
select is(
    (select count(*) from tasks where job_id = 'parked'),
    1::bigint,
    'nothing of a holder that has parked is applied');

-- Across a park: woken, and held by another.

select given(signal('parked', 'go'));
select is(
    verdict_of(a_turn('parked', facts => '[{"op": "set", "path": ["zombie"], "value": true}]')),
    'parked',
    'a task that was woken is still not its old holder''s [P6]');
select given(take('bob', '{parked}'));
select is(verdict_of(a_turn('parked') || turn), 'fenced', format('a zombie across a park is fenced: %s [P6]', about))
  from tries;
select given(tell(a_turn('parked', state => 'park', awaits => '{go2}', worker => 'bob')));
select is(
    verdict_of(a_turn('parked', state => 'done')),
    'fenced',
    'the holder before the last is fenced by the last park [P6]');

-- Ended, terminated, never there.

select have_held_job('ended');
select given(tell(a_turn('ended', state => 'done', value => '"first"')));
select is(
    verdict_of(a_turn('ended') || turn),
    'gone',
    format('the task of a job that has ended is gone: %s [P6]', about))
  from tries;
select is(the_job('ended') -> 'result', '"first"', 'a job ends once');
select have_held_job('terminated');
select given(terminate('terminated'));
select is(verdict_of(a_turn('terminated', state => 'done')), 'gone', 'terminate fences the holder [P6] (E2)');
select is(verdict_of(a_turn('nobody')), 'gone', 'the task of a job that never was is gone');
select is(verdict_of(a_turn('claimed', '1/other')), 'gone', 'a task that never was is gone');

-- Half of an answer: no token, no task.

select have_held_job('held');
select is(verdict_of(a_turn('held') - 'token'), 'PD107', 'a turn without a token is none');
select is(verdict_of(a_turn('held') || '{"token": null}'), 'PD107', 'no token is no token');
select is(
    verdict_of(a_turn('held') || '{"position": 3}'),
    'fenced',
    'who has seen more than there is comes from another history [P13]');
select given(start('w', id => 'unclaimed'));
select is(verdict_of(a_turn('unclaimed')), 'fenced', 'a task that nobody holds is nobody''s');
select is(verdict_of(a_turn('unclaimed') - 'token'), 'PD107', 'a task that nobody holds is not for who has no token');

-- Nothing of all this had an effect.

select is(
    (select count(*)
       from journal
      where value::text ~ 'zombie' or argument::text ~ 'zombie' or path::text ~ 'zombie'),
    0::bigint,
    'no zombie stands in a journal [P6]');
select is(
    (select count(*)
       from jobs
      where context ? 'zombie' or result::text ~ 'zombie' or error::text ~ 'zombie' or id ~ '/child$'),
    0::bigint,
    'no zombie changed a job [P6]');
select is((select count(*) from inbox where name = 'zombie'), 0::bigint, 'no zombie sent a signal [P6]');
select is(
    (select count(*) from tasks where task ~ 'zombie' or awaits && '{zombie}'),
    0::bigint,
    'no zombie asked for anything [P6]');

-- The lease verbs.

select is(
    extend(jsonb_build_array(jsonb_build_object('job', 'claimed', 'task', '1/main',
                                                'token', token_of('ada'))))::jsonb #>> '{0,state}',
    'lost',
    'a zombie renews no lease [P6]');
select is(
    release(jsonb_build_array(jsonb_build_object('job', 'parked', 'task', '1/main',
                                                 'token', token_of('ada'))))::jsonb #>> '{0,state}',
    'lost',
    'a zombie gives nothing back [P6]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
