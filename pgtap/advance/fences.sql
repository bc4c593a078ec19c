-- Fencing [P6]: once a task is claimed again, parked, ended or terminated, reports of an earlier holder have no effect.

begin;
select plan(67);

select the_time_is('2030-01-01 12:00+00');

-- Everything with an effect that an earlier holder (a zombie) may try.

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

-- A task that another worker has claimed.

select have_held_job('claimed');
select time_passes('31 s');
select given(take('bob', '{claimed}'));
create temporary table held_task as select the_task('claimed') as task;
select is(
    verdict_of(a_turn('claimed') || turn),
    'fenced',
    format('a worker that lost its task to another is fenced: %s [P6]', about))
  from tries;
select is(the_task('claimed'), task, 'a fenced turn does not change the task of the new holder [P6]') from held_task;
select is(
    tell(a_turn('claimed', state => 'done', value => '1', worker => 'bob')) ->> 'state',
    'done',
    'the new holder ends its task [P6]');

-- A lease that has ended still counts until another worker claims the task.

select have_held_job('late');
select time_passes('1 day');
select is(
    tell(a_turn('late', facts => '[{"kind": "note", "key": "n"}]')) ->> 'state',
    'keep',
    'a worker whose lease has ended is not fenced until its task is claimed again');

-- A task that the same worker has claimed again.

select have_held_job('mine');
select time_passes('31 s');
select given(take('ada', '{mine}', claim_as => 'second claim'));
select is(
    verdict_of(a_turn('mine') || turn),
    'fenced',
    format('an earlier claim of the same worker is fenced: %s [P6]', about))
  from tries;

-- A parked task.

select have_held_job('parked');
select given(tell(a_turn('parked', state => 'park', awaits => '{go}')));
select is(
    verdict_of(a_turn('parked') || turn),
    'parked',
    format('a worker that has parked its task gets the answer parked: %s [P6]', about))
  from tries;
select is(
    (select count(*) from tasks where job_id = 'parked'),
    1::bigint,
    'a turn after the park has no effect');

-- A task that was parked and woken, and that another worker then held.

select given(signal('parked', 'go'));
select is(
    verdict_of(a_turn('parked', facts => '[{"op": "set", "path": ["zombie"], "value": true}]')),
    'parked',
    'a woken task is not held by its old holder [P6]');
select given(take('bob', '{parked}'));
select is(verdict_of(a_turn('parked') || turn), 'fenced',
          format('the holder from before a park is fenced: %s [P6]', about))
  from tries;
select given(tell(a_turn('parked', state => 'park', awaits => '{go2}', worker => 'bob')));
select is(
    verdict_of(a_turn('parked', state => 'done')),
    'fenced',
    'an earlier holder is fenced after another has parked the task [P6]');

-- Tasks that have ended, were terminated, or never existed.

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
select is(verdict_of(a_turn('terminated', state => 'done')), 'gone', 'terminate() fences the holder [P6] (E2)');
select is(verdict_of(a_turn('nobody')), 'gone', 'the task of a job that does not exist is gone');
select is(verdict_of(a_turn('claimed', '1/other')), 'gone', 'a task that does not exist is gone');

-- Turns without a token, and tasks without a holder.

select have_held_job('held');
select is(verdict_of(a_turn('held') - 'token'), 'PD107', 'a turn without a token is refused');
select is(verdict_of(a_turn('held') || '{"token": null}'), 'PD107', 'a turn with a token of null is refused');
select is(
    verdict_of(a_turn('held') || '{"position": 3}'),
    'fenced',
    'a worker that has seen more facts than exist is fenced [P13]');
select given(start('w', id => 'unclaimed'));
select is(verdict_of(a_turn('unclaimed')), 'fenced', 'a turn on a task that nobody holds is fenced');
select is(verdict_of(a_turn('unclaimed') - 'token'), 'PD107',
          'a turn without a token on a task that nobody holds is refused');

-- No fenced turn had an effect.

select is(
    (select count(*)
       from journal
      where value::text ~ 'zombie' or argument::text ~ 'zombie' or path::text ~ 'zombie'),
    0::bigint,
    'no fenced turn wrote to a journal [P6]');
select is(
    (select count(*)
       from jobs
      where context ? 'zombie' or result::text ~ 'zombie' or error::text ~ 'zombie' or id ~ '/child$'),
    0::bigint,
    'no fenced turn changed a job [P6]');
select is((select count(*) from inbox where name = 'zombie'), 0::bigint, 'no fenced turn sent a signal [P6]');
select is(
    (select count(*) from tasks where task ~ 'zombie' or awaits && '{zombie}'),
    0::bigint,
    'no fenced turn made a request or awaits a signal [P6]');

-- extend and release.

select is(
    extend(jsonb_build_array(jsonb_build_object('job', 'claimed', 'task', '1/main',
                                                'token', token_of('ada'))))::jsonb #>> '{0,state}',
    'lost',
    'an earlier holder cannot renew a lease [P6]');
select is(
    release(jsonb_build_array(jsonb_build_object('job', 'parked', 'task', '1/main',
                                                 'token', token_of('ada'))))::jsonb #>> '{0,state}',
    'lost',
    'an earlier holder cannot release a task [P6]');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
