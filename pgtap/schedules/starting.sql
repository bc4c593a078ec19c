-- Starting: a schedule starts one job for each due time, whatever happens to its task, its workers and its memory.

begin;
select plan(92);

select the_time_is('2030-01-01 12:00+00');

-- Lets a worker run the task of the schedule if it is due; returns its state.
create function pg_temp.tick(name text, worker text default 'ada') returns text
language plpgsql
as $$
declare
    taken jsonb := take(worker, '{$sql}') -> 0;
begin
    return case when taken is not null then run_task('$schedule/' || name, taken ->> 'task', token_of(worker)) end;
end
$$;

create function pg_temp.jobs_of(name text) returns text[]
language plpgsql
as $$
begin
    return array(select substr(j.id, length(name) + 2) from jobs as j where j.headers ->> 'schedule' = name order by j.id);
end
$$;

create function pg_temp.next_of(name text) returns text
language plpgsql
as $$
begin
    return (
        select to_char(s.next_due_at at time zone 'UTC', 'MM-DD HH24:MI:SS')
          from schedules as s
         where s.name = next_of.name);
end
$$;

-- Due times.

select is(
    create_schedule('h', 'research', '30 * * * *', args => '["x"]', queue => 'q', entity => 'report',
                    headers => '{"tenant": 1}', limit_key => 'k', priority => 3, timeout => '20 years',
                    pinned_version => '1'),
    '2030-01-01 12:30+00', 'create_schedule() returns the first due time');
select is(pg_temp.tick('h'), null, 'no worker gets the task before its due time');
select is(perdure.next_due_at('{$sql}'), '2030-01-01 12:30+00', 'a worker learns the due time [P7]');
select time_passes('30 min');
select is(pg_temp.tick('h'), 'waiting', 'a worker runs the task at its due time');
select is(pg_temp.jobs_of('h'), '{2030-01-01T12:30:00Z}', 'the schedule starts a job');
select ok(
    the_job('h/2030-01-01T12:30:00Z') @> '{
        "workflow": "research", "args": ["x"], "entity": "report", "status": "running", "parent": null, "timeout": "20 years",
        "pinned_version": "1", "headers": {"tenant": 1, "schedule": "h", "due_at": "2030-01-01T12:30:00Z"}}',
    'the job has the options of the schedule, and the due time in its headers');
select ok(
    the_task('h/2030-01-01T12:30:00Z') @> '{"name": "research", "queue": "q@1", "priority": 3, "limit_key": "k"}',
    'the task of the job has the queue, version and priority of the schedule');
select is(pg_temp.next_of('h'), '01-01 13:30:00', 'the schedule waits for its next due time');
select is(
    run_task('$schedule/h', '$hook/$schedule', token_of('ada')), 'gone',
    'a repeated call starts nothing [P6] [P12]');
select is(pg_temp.tick('h'), null, 'the task cannot be claimed again before its next due time');
select is(the_job('$schedule/h') -> 'version', '1', 'a start does not change the memory of the schedule');
select is(the_task('$schedule/h', '$hook/$schedule') -> 'deliveries', '0', 'a start resets the count of deliveries');

select time_passes('59 min 59.999 s');
select is(pg_temp.tick('h'), null, 'a schedule is never early [P7]');
select time_passes('1 ms');
select is(pg_temp.tick('h'), 'waiting', 'a schedule is on time');
select is(cardinality(pg_temp.jobs_of('h')), 2, 'each due time has its job');

-- Lost workers.

select time_passes('1 hour');
select is(jsonb_array_length(take('ada', '{$sql}')), 1, 'a worker claims the task and is lost');
select time_passes('31 s');
select is(pg_temp.tick('h', 'bob'), 'waiting', 'another worker claims the task when the lease has ended');
select is(
    (pg_temp.jobs_of('h'))[3:], '{2030-01-01T14:30:00Z}', 'the job has the due time, not the time of the delay');
select is(
    run_task('$schedule/h', '$hook/$schedule', token_of('ada')), 'gone', 'the lost worker is fenced [P6]');
select is(pg_temp.next_of('h'), '01-01 15:30:00', 'a delay does not move later due times');

-- An id that exists.

select given(start('other', id => 'h/2030-01-01T15:30:00Z'));
select time_passes('59 min 29 s');
select is(pg_temp.tick('h'), 'waiting', 'the schedule goes on if the id of its job exists');
select is(the_job('h/2030-01-01T15:30:00Z') -> 'workflow', '"other"',
          'an existing job with that id is not changed [P1]');

-- Catching up.

select given(drop_schedule('h'));
select the_time_is('2030-01-02 00:00+00');
select given(create_schedule(p, 'w', '0 * * * *', catch_up => p)) from unnest('{all,last,none}'::text[]) as p;
select time_passes('3 hours 5 min');
select is(pg_temp.tick('all'), 'waiting', 'a schedule runs after hours without a worker');
select given((select array_agg(run_task(t.job, '$hook/$schedule', token_of('bob')))
                from jsonb_to_recordset(take('bob', '{$sql}', 9)) as t (job text)));
select is(
    pg_temp.jobs_of('all'), '{2030-01-02T01:00:00Z,2030-01-02T02:00:00Z,2030-01-02T03:00:00Z}',
    'all: every missed time has its job');
select is(pg_temp.jobs_of('last'), '{2030-01-02T03:00:00Z}', 'last: the last missed time has its job');
select is(pg_temp.jobs_of('none'), '{}', 'none: no missed time has a job');
select is(
    array(select distinct pg_temp.next_of(s.name) from schedules as s), '{01-02 04:00:00}',
    'all three wait for the next due time');
select given((select array_agg(drop_schedule(p)) from unnest('{all,last,none}'::text[]) as p));

select given(create_schedule('s', 'w', every => '1 s', catch_up => 'all', starts_at => '2030-01-02 03:05+00'));
select time_passes('250 s');
select is(pg_temp.tick('s'), 'waiting', 'a schedule with very many missed times runs');
select is(cardinality(pg_temp.jobs_of('s')), 100, 'one run starts a hundred jobs');
select is(
    (select array[min(j.id), max(j.id)] from jobs as j where j.workflow = 'w' and j.id like 's/%'),
    '{s/2030-01-02T03:05:01Z,s/2030-01-02T03:06:40Z}', 'the oldest missed times come first');
select is(
    array[pg_temp.tick('s'), pg_temp.tick('s'), pg_temp.tick('s')], '{waiting,waiting,NULL}',
    'the other missed times follow at once');
select is(cardinality(pg_temp.jobs_of('s')), 250, 'all missed times have been started');
select is(
    (select count(*) from generate_series(1, 250) as n
       join jobs as j on j.id = to_char(time '03:05' + n * interval '1 s', '"s/2030-01-02T"HH24:MI:SS"Z"')),
    250::bigint, 'every missed second has its job');

-- overlap => skip.

select given(drop_schedule('s'));
select the_time_is('2030-01-03 00:00+00');
select given(create_schedule('o', 'w', '0 * * * *', overlap => 'skip', catch_up => 'all', queue => 'o'));
select time_passes('2 hours');
select is(pg_temp.tick('o'), 'waiting', 'a schedule whose jobs must not overlap runs');
select is(pg_temp.jobs_of('o'), '{2030-01-03T01:00:00Z}', 'of several missed times one is started');
select time_passes('1 hour');
select is(pg_temp.tick('o'), 'waiting', 'the schedule runs while its job is running');
select is(cardinality(pg_temp.jobs_of('o')), 1, 'no job is started while another runs');
select given(start('w', id => 'o/2030-01-03T01:00:00Z/child'));
select given(terminate('o/2030-01-03T01:00:00Z'));
select time_passes('1 hour');
select is(pg_temp.tick('o'), 'waiting',
          'the schedule runs after its job has ended, although a job with a similar id runs');
select is((pg_temp.jobs_of('o'))[2:], '{2030-01-03T04:00:00Z}', 'the next job is started');
select given(drop_schedule('o'));

-- Edits of the memory.

select the_time_is('2030-01-04 10:00+00');
select given(create_schedule('e', 'w', '0 9 * * *'));
select given(entity_set('$schedule/e', '"0 12 * * *"', 'cron'));
select is(pg_temp.tick('e'), 'waiting', 'a command on the memory wakes the schedule');
select is(pg_temp.next_of('e'), '01-04 12:00:00', 'the new timetable applies at once');
update perdure.jobs set context = context || '{"cron": "0 13 * * *", "note": "later"}' where id = '$schedule/e';
select is(pg_temp.tick('e'), 'waiting', 'a plain update of the memory wakes the schedule');
select is(pg_temp.next_of('e'), '01-04 13:00:00', 'the timetable of a plain update applies at once');
select time_passes('3 h 10 s');
select given(entity_set('$schedule/e', '"0 12,13 * * *"', 'cron'));
select is(pg_temp.tick('e'), 'waiting', 'the schedule runs after an edit with a due time before it');
select is(
    pg_temp.jobs_of('e'), '{2030-01-04T13:00:00Z}',
    'a time that was due before an edit is started; earlier times of the new timetable are not');
select given(entity_set('$schedule/e', '"0 9 * * *"', 'cron'));
select given(pg_temp.tick('e'));
select is(cardinality(pg_temp.jobs_of('e')), 1, 'a time that had passed before the edit is not due');
select time_passes('20 hours');
select given(entity_set('$schedule/e', '[7]', 'args'));
select is(pg_temp.tick('e'), 'waiting', 'the schedule runs after an edit of its arguments');
select is(the_job('e/2030-01-05T09:00:00Z') -> 'args', '[7]', 'the new arguments apply to a missed time');
select time_passes('1 day');
select given(create_schedule('e', 'w', '0 9 * * *', pinned_version => '2'));
select given(pg_temp.tick('e'));
select is(
    jsonb_build_array(the_task('e/2030-01-05T09:00:00Z') -> 'queue', the_task('e/2030-01-06T09:00:00Z') -> 'queue'),
    '["default", "default@2"]', 'a new version applies to missed times, not to jobs that run');

-- Missed times when the timetable changes, and when the schedule is paused.

select given(drop_schedule('e'));
select the_time_is('2030-01-07 08:30+00');
select given(create_schedule(how, 'w', '0 9 * * *', catch_up => 'all'))
  from unnest('{command,verb,pause}'::text[]) as how;
select time_passes('4 hours');
select given(entity_set('$schedule/command', '"0 * * * *"', 'cron'));
select given(create_schedule('verb', 'w', '0 * * * *', catch_up => 'all'));
select given(entity_set('$schedule/pause', 'true', 'paused'));
select time_passes('1 hour');
select given((select array_agg(run_task(t.job, '$hook/$schedule', token_of('bob')))
                from jsonb_to_recordset(take('bob', '{$sql}', 9)) as t (job text)));
select is(
    pg_temp.jobs_of('command'), '{2030-01-07T09:00:00Z,2030-01-07T13:00:00Z}',
    'times that the old timetable missed are started, and those of the new one since its edit');
select is(pg_temp.jobs_of('verb'), pg_temp.jobs_of('command'),
          'a change by create_schedule() has the same effect as a command');
select is(pg_temp.jobs_of('pause'), '{}', 'a paused schedule starts nothing');
select given(resume_schedule('pause'));
select is(pg_temp.tick('pause'), 'waiting', 'a resumed schedule runs');
select is(pg_temp.jobs_of('pause'), '{2030-01-07T09:00:00Z}', 'a resumed schedule starts the missed time');
select given((select array_agg(drop_schedule(how)) from unnest('{command,verb,pause}'::text[]) as how));

-- pause() on the memory of a schedule counts as downtime.

select the_time_is('2030-01-08 00:30+00');
select given(create_schedule(p, 'w', '0 * * * *', catch_up => p)) from unnest('{all,last,none}'::text[]) as p;
select ok(pause('$schedule/' || p) and not pause('$schedule/' || p),
          'the memory of a schedule can be paused, and not twice')
  from unnest('{all,last,none}'::text[]) as p;
select is(
    (select array_agg(distinct array[s.paused::text, s.next_due_at::text, s.waits_for])
       from schedules as s
      where s.name <> 'e'),
    '{{true,NULL,somebody to resume it: its job is paused}}', 'the view schedules shows the pause');
select time_passes('2 h');
select is(pg_temp.tick('all'), null, 'no worker gets the task of a paused schedule when it is due');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is(
    create_schedule('all', 'w', '0 * * * *', catch_up => 'all', queue => 'q'), '2030-01-08 01:00+00',
    'create_schedule() may change a paused schedule');
select is(resume('$schedule/' || p), 1,
          'resume() on the memory resumes a schedule') from unnest('{all,last}'::text[]) as p;
select ok(resume_schedule('none') and not resume_schedule('none'),
          'resume_schedule() resumes a schedule whose memory was paused');
select given((select array_agg(run_task(t.job, '$hook/$schedule', token_of('bob')))
                from jsonb_to_recordset(take('bob', '{$sql}', 9)) as t (job text)));
select is((pg_temp.jobs_of('all'))[4:], '{2030-01-08T01:00:00Z,2030-01-08T02:00:00Z}',
          'all: a resumed schedule starts all missed times');
select is((pg_temp.jobs_of('last'))[2:], '{2030-01-08T02:00:00Z}',
          'last: a resumed schedule starts the last missed time');
select is(pg_temp.jobs_of('none'), '{}', 'none: a resumed schedule starts no missed time');
select given((select array_agg(drop_schedule(p)) from unnest('{all,last,none}'::text[]) as p));

-- Wrong definitions.

select the_time_is('2030-01-05 09:00:10+00');
select given(create_schedule('e', 'w', '0 9 * * *'));

select given(entity_set('$schedule/e', '"every now and then"', 'cron'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule with a wrong definition is stuck');
select is(
    (select (t.stuck_reason ->> 'code') || ' ' || s.waits_for from schedules as s
       join tasks as t on t.job_id = '$schedule/' || s.name where s.name = 'e'),
    'PD110 somebody to resume it: this is not a cron expression: ''every now and then'': It has 4 fields, not five.',
    'a stuck schedule shows the reason');
select is(pg_temp.next_of('e'), null, 'a stuck schedule has no due time');
select given(register_worker('one', '{q,$sql}'));
select is(pg_temp.next_of('e'), null, 'a new worker does not retry a stuck schedule');
select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select time_passes('1 day');
select given(entity_delete('$schedule/e'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule with an empty memory is stuck');
select given(entity_restore('$schedule/e', 1));
select is(pg_temp.tick('e'), 'waiting', 'a repaired memory wakes the schedule');
select is(pg_temp.next_of('e'), '01-07 09:00:00', 'a repaired schedule has its next due time');
select is((pg_temp.jobs_of('e'))[3:], '{2030-01-06T09:00:00Z}', 'a repaired schedule starts the missed time');
select given(entity_set('$schedule/e', '"moon"', 'time_zone'));
select given(pg_temp.tick('e'));
select given(resume('$schedule/e'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule that is resumed without a repair is stuck again');
select given(entity_merge('$schedule/e', '{"cron": "0 9 20 3 *", "time_zone": "A167B-167,J69,J300"}'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule for a local time that its zone never shows is stuck');
select given(entity_merge('$schedule/e', '{"time_zone": "right/UTC"}'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule in a zone with leap seconds is stuck');

-- A clock that was a year ahead for a while.

select the_time_is('2030-02-01 09:00:10+00');
select given(create_schedule('back', 'w', '0 * * * *'));
select the_time_is('2031-02-01 09:30+00');
select is(pg_temp.tick('back'), 'waiting', 'a schedule follows a clock that is ahead');
select the_time_is('2030-02-01 09:30+00');
select is(pg_temp.next_of('back'), '02-01 10:00:00',
          'when the clock is set back, the schedule waits for its time of the next year');
select time_passes('1 hour');
select is(pg_temp.tick('back'), null, 'no worker gets the task before that time');
select given(resume_schedule('back'));
select time_passes('30 min');
select is(pg_temp.tick('back'), 'waiting', 'a resumed schedule counts from the present');
select is(
    pg_temp.jobs_of('back'),
    '{2030-02-01T11:00:00Z,2031-02-01T09:00:00Z}',
    'its due times are those of the present clock');
select the_time_is('2031-02-01 09:30+00');
select given(pg_temp.tick('back'));
select is(cardinality(pg_temp.jobs_of('back')), 2,
          'a time that was started by the other clock is not started again [P1]');
select given(drop_schedule('back'));

-- A limit of the database's own queue.

select set_queue('$sql', max_per_key => 1);
select given(create_schedule(name, 'w', every => '1 min')) from unnest('{first,second}'::text[]) as name;
select time_passes('1 min');
select is((take('ada', '{$sql}', 9) -> 0) ->> 'job', '$schedule/first', 'one of two schedules has a slot');
select given(pause_schedule('second'));
select is(run_task('$schedule/first', '$hook/$schedule', token_of('ada')), 'waiting', 'the slot is free again');
select is(take('bob', '{$sql}', 9), '[]', 'a schedule that was paused while it stood in line is not claimed');
select given(resume_schedule('second'));
select is((take('bob', '{$sql}', 9) -> 0) ->> 'job', '$schedule/second', 'when it is resumed, it is claimed');
select is(run_task('$schedule/second', '$hook/$schedule', token_of('bob')), 'waiting', 'and starts what is due');
select set_queue('$sql');
select given(drop_schedule(name)) from unnest('{first,second}'::text[]) as name;

-- Hooks with a reserved name.

select given(entity_create('plain', 'note'));
select throws_ok($$ select hook('plain', '$schedule', queue => '$sql') $$, 'PD104', null,
                 'a hook named $schedule is refused');

select is_empty('select * from assert_invariants()', 'no invariant is broken');
select finish();
rollback;
