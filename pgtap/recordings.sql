-- Recordings: the data to replay a coordinator, read from the tables of a live app.

begin;
select plan(12);

select the_time_is('2030-01-01 12:00+00');

create function pg_temp.recorded(id text) returns jsonb
language plpgsql
as $$
begin
    return (select jsonb_strip_nulls(to_jsonb(r)) from perdure.recording_of(id) as r);
end
$$;

select given(start('research', '["q"]', id => 'live', entity => 'agent', queue => 'live', headers => '{"h": 1}'));
select is(
    pg_temp.recorded('live'),
    jsonb_build_object('job', 'live', 'task', '1/main', 'name', 'research', 'entity', 'agent', 'queue', 'live',
                       'headers', '{"h": 1}'::jsonb, 'run', 1, 'args', '["q"]'::jsonb, 'attempt', 0, 'asked', 0,
                       'accept_changes', false, 'position', 0, 'started_at', clock(), 'status', 'running',
                       'open', '{}'::jsonb),
    'a recording of a job that was never claimed starts when the job was made');

select time_passes('1 min');
select given(take('ada', '{live}'));
select is(pg_temp.recorded('live') -> 'started_at', to_jsonb(clock()),
          'a recording of a claimed job starts with its first claim');
select given(tell(a_turn('live', facts => '[{"kind": "note"}, {"kind": "note"}]') || '{"asked": 7}'));
select results_eq(
    $$ select r.position, r.asked from recording_of('live') as r $$,
    $$ values (2, 7) $$,
    'a recording has the position in the journal and the number of requests');

select given(tell(a_turn('live', requests => '[{"key": "h#1", "name": "h", "fingerprint": "1"}]')));
select is(pg_temp.recorded('live') -> 'open', '{"h#1": "1"}', 'a recording has the open requests [P9]');

select time_passes('1 min');
select given(tell(a_turn('live', state => 'done', value => '"found"')));
select results_eq(
    $$ select r.task, r.queue, r.position, r.asked, r.status, r.result, r.started_at from recording_of('live') as r $$,
    $$ values ('1/main', 'live', null::integer, 2147483647, 'completed', '"found"'::jsonb,
               '2030-01-01 12:01+00'::timestamptz) $$,
    'a recording of a finished job has its result, and no limit of requests');

select is(error_of($$ select recording_of('nobody') $$), 'PD401', 'a job that does not exist is refused');
select given(entity_create('memory', 'notes'));
select is(error_of($$ select recording_of('memory') $$), 'PD401', 'a memory without a workflow is refused');

-- Pages.

select given(start_many('[{"workflow": "a", "id": "1"}, {"workflow": "a", "id": "2"}, {"workflow": "b", "id": "3"}]'));
select given(hook('1', 'h'));
select results_eq(
    $$ select r.job from running_coordinators() as r $$, array['1', '2', '3'],
    'running_coordinators() lists running jobs in the order of their ids');
select results_eq($$ select r.job from running_coordinators('1', 1) as r $$, array['2'],
                  'running_coordinators() returns a page');
select results_eq(
    $$ select r.job from running_coordinators('', 10, 'b') as r $$, array['3'],
    'running_coordinators() filters by workflow');
select is_empty($$ select running_coordinators('3') $$, 'the page after the last job is empty');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
