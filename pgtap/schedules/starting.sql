-- Starting: one job for each due time, whatever happens to the task, the workers and the memory meanwhile.

begin;
select plan(87);

select the_time_is('2030-01-01 12:00+00');

-- Lets a worker take the schedule's task, if it is due, and run it; tells what became of it.
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

-- A due time.

select is(
    create_schedule('h', 'research', '30 * * * *', args => '["x"]', queue => 'q', entity => 'report',
                    headers => '{"tenant": 1}', limit_key => 'k', priority => 3, timeout => '20 years',
                    pinned_version => '1'),
    '2030-01-01 12:30+00', 'whoever makes a schedule is told when it is due');
select is(pg_temp.tick('h'), null, 'before, no worker takes it');
select is(perdure.next_due_at('{$sql}'), '2030-01-01 12:30+00', 'but knows when to come back [P7]');
select time_passes('30 min');
select is(pg_temp.tick('h'), 'waiting', 'at its time a worker runs it');
select is(pg_temp.jobs_of('h'), '{2030-01-01T12:30:00Z}', 'a job is started');
select ok(
    the_job('h/2030-01-01T12:30:00Z') @> '{
        "workflow": "research", "args": ["x"], "entity": "report", "status": "running", "parent": null, "timeout": "20 years",
        "pinned_version": "1", "headers": {"tenant": 1, "schedule": "h", "due_at": "2030-01-01T12:30:00Z"}}',
    'as the schedule says, and it is told which due time it is for');
select ok(
    the_task('h/2030-01-01T12:30:00Z') @> '{"name": "research", "queue": "q@1", "priority": 3, "limit_key": "k"}',
    'on its queue, of its version');
select is(pg_temp.next_of('h'), '01-01 13:30:00', 'the schedule waits for its next time');
select is(
    run_task('$schedule/h', '$hook/$schedule', token_of('ada')), 'gone',
    'a call that is repeated starts nothing [P6] [P12]');
select is(pg_temp.tick('h'), null, 'nobody can take it twice');
select is(the_job('$schedule/h') -> 'version', '1', 'a tick leaves no trace in the memory');
select is(the_task('$schedule/h', '$hook/$schedule') -> 'deliveries', '0', 'ticks are progress');

select time_passes('59 min 59.999 s');
select is(pg_temp.tick('h'), null, 'never early [P7]');
select time_passes('1 ms');
select is(pg_temp.tick('h'), 'waiting', 'but on time');
select is(cardinality(pg_temp.jobs_of('h')), 2, 'each due time has its job');

-- Leases.

select time_passes('1 hour');
select is(jsonb_array_length(take('ada', '{$sql}')), 1, 'a worker takes it, and is never heard of again');
select time_passes('31 s');
select is(pg_temp.tick('h', 'bob'), 'waiting', 'when its lease has ended another takes it');
select is(
    (pg_temp.jobs_of('h'))[3:], '{2030-01-01T14:30:00Z}', 'and the job is that of the due time, not of the delay');
select is(
    run_task('$schedule/h', '$hook/$schedule', token_of('ada')), 'gone', 'the first may do nothing any more [P6]');
select is(pg_temp.next_of('h'), '01-01 15:30:00', 'due times do not drift');

-- An id that is taken.

select given(start('other', id => 'h/2030-01-01T15:30:00Z'));
select time_passes('59 min 29 s');
select is(pg_temp.tick('h'), 'waiting', 'where somebody has that job already');
select is(the_job('h/2030-01-01T15:30:00Z') -> 'workflow', '"other"', 'it is left alone [P1]');

-- Catching up.

select given(drop_schedule('h'));
select the_time_is('2030-01-02 00:00+00');
select given(create_schedule(p, 'w', '0 * * * *', catch_up => p)) from unnest('{all,last,none}'::text[]) as p;
select time_passes('3 hours 5 min');
select is(pg_temp.tick('all'), 'waiting', 'after hours in which nobody worked');
select given((select array_agg(run_task(t.job, '$hook/$schedule', token_of('bob')))
                from jsonb_to_recordset(take('bob', '{$sql}', 9)) as t (job text)));
select is(
    pg_temp.jobs_of('all'), '{2030-01-02T01:00:00Z,2030-01-02T02:00:00Z,2030-01-02T03:00:00Z}',
    'all: each missed time has its job');
select is(pg_temp.jobs_of('last'), '{2030-01-02T03:00:00Z}', 'last: the last of them');
select is(pg_temp.jobs_of('none'), '{}', 'none: none');
select is(
    array(select distinct pg_temp.next_of(s.name) from schedules as s), '{01-02 04:00:00}',
    'and all wait for the next');
select given((select array_agg(drop_schedule(p)) from unnest('{all,last,none}'::text[]) as p));

select given(create_schedule('s', 'w', every => '1 s', catch_up => 'all', starts_at => '2030-01-02 03:05+00'));
select time_passes('250 s');
select is(pg_temp.tick('s'), 'waiting', 'of very many missed times');
select is(cardinality(pg_temp.jobs_of('s')), 100, 'a hundred are made up for at a time');
select is(
    (select array[min(j.id), max(j.id)] from jobs as j where j.workflow = 'w' and j.id like 's/%'),
    '{s/2030-01-02T03:05:01Z,s/2030-01-02T03:06:40Z}', 'the oldest first');
select is(
    array[pg_temp.tick('s'), pg_temp.tick('s'), pg_temp.tick('s')], '{waiting,waiting,NULL}', 'and at once the others');
select is(cardinality(pg_temp.jobs_of('s')), 250, 'until none is missing');
select is(
    (select count(*) from generate_series(1, 250) as n
       join jobs as j on j.id = to_char(time '03:05' + n * interval '1 s', '"s/2030-01-02T"HH24:MI:SS"Z"')),
    250::bigint, 'every second has its job');

-- Overlap.

select given(drop_schedule('s'));
select the_time_is('2030-01-03 00:00+00');
select given(create_schedule('o', 'w', '0 * * * *', overlap => 'skip', catch_up => 'all', queue => 'o'));
select time_passes('2 hours');
select is(pg_temp.tick('o'), 'waiting', 'where jobs must not overlap');
select is(pg_temp.jobs_of('o'), '{2030-01-03T01:00:00Z}', 'one is started, of several');
select time_passes('1 hour');
select is(pg_temp.tick('o'), 'waiting', 'while it runs');
select is(cardinality(pg_temp.jobs_of('o')), 1, 'nothing is');
select given(start('w', id => 'o/2030-01-03T01:00:00Z/child'));
select given(terminate('o/2030-01-03T01:00:00Z'));
select time_passes('1 hour');
select is(pg_temp.tick('o'), 'waiting', 'when it has ended, whatever else has such an id');
select is((pg_temp.jobs_of('o'))[2:], '{2030-01-03T04:00:00Z}', 'the next is');
select given(drop_schedule('o'));

-- Edits of the memory.

select the_time_is('2030-01-04 10:00+00');
select given(create_schedule('e', 'w', '0 9 * * *'));
select given(entity_set('$schedule/e', '"0 12 * * *"', 'cron'));
select is(pg_temp.tick('e'), 'waiting', 'a command on the memory wakes the schedule');
select is(pg_temp.next_of('e'), '01-04 12:00:00', 'the new timetable counts at once');
update perdure.jobs set context = context || '{"cron": "0 13 * * *", "note": "later"}' where id = '$schedule/e';
select is(pg_temp.tick('e'), 'waiting', 'so does a plain update');
select is(pg_temp.next_of('e'), '01-04 13:00:00', 'of the memory');
select time_passes('3 h 10 s');
select given(entity_set('$schedule/e', '"0 12,13 * * *"', 'cron'));
select is(pg_temp.tick('e'), 'waiting', 'a due time that an edit finds undone');
select is(
    pg_temp.jobs_of('e'), '{2030-01-04T13:00:00Z}',
    'is not lost, and what the new timetable names before the edit is not owed');
select given(entity_set('$schedule/e', '"0 9 * * *"', 'cron'));
select given(pg_temp.tick('e'));
select is(cardinality(pg_temp.jobs_of('e')), 1, 'a time of today that has passed before the edit is not due any more');
select time_passes('20 hours');
select given(entity_set('$schedule/e', '[7]', 'args'));
select is(pg_temp.tick('e'), 'waiting', 'an edit that does not touch the timetable');
select is(the_job('e/2030-01-05T09:00:00Z') -> 'args', '[7]', 'counts for what is owed');
select time_passes('1 day');
select given(create_schedule('e', 'w', '0 9 * * *', pinned_version => '2'));
select given(pg_temp.tick('e'));
select is(
    jsonb_build_array(the_task('e/2030-01-05T09:00:00Z') -> 'queue', the_task('e/2030-01-06T09:00:00Z') -> 'queue'),
    '["default", "default@2"]', 'a deploy that pins the schedule to its version pins what is owed, not what runs');

-- What is owed when the timetable changes, and when the schedule is paused.

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
    'what was owed by the old timetable, and what is owed by the new one since the edit');
select is(pg_temp.jobs_of('verb'), pg_temp.jobs_of('command'), 'whatever changed it');
select is(pg_temp.jobs_of('pause'), '{}', 'nothing is started while it is paused');
select given(resume_schedule('pause'));
select is(pg_temp.tick('pause'), 'waiting', 'when it is resumed');
select is(pg_temp.jobs_of('pause'), '{2030-01-07T09:00:00Z}', 'what was owed is started');
select given((select array_agg(drop_schedule(how)) from unnest('{command,verb,pause}'::text[]) as how));

-- A pause of its memory is downtime.

select the_time_is('2030-01-08 00:30+00');
select given(create_schedule(p, 'w', '0 * * * *', catch_up => p)) from unnest('{all,last,none}'::text[]) as p;
select ok(pause('$schedule/' || p) and not pause('$schedule/' || p), 'the memory of a schedule is paused, once')
  from unnest('{all,last,none}'::text[]) as p;
select is(
    (select array_agg(distinct array[s.paused::text, s.next_due_at::text, s.waits_for])
       from schedules as s
      where s.name <> 'e'),
    '{{true,NULL,somebody to resume it: its job is paused}}', 'the view says so');
select time_passes('2 h');
select is(pg_temp.tick('all'), null, 'nobody takes it when it is due');
select is_empty('select * from assert_invariants()', 'which breaks no law [P8]');
select is(
    create_schedule('all', 'w', '0 * * * *', catch_up => 'all', queue => 'q'), '2030-01-08 01:00+00',
    'it may be changed meanwhile');
select is(resume('$schedule/' || p), 1, 'it goes on when it is resumed') from unnest('{all,last}'::text[]) as p;
select ok(resume_schedule('none') and not resume_schedule('none'), 'also as a schedule, once');
select given((select array_agg(run_task(t.job, '$hook/$schedule', token_of('bob')))
                from jsonb_to_recordset(take('bob', '{$sql}', 9)) as t (job text)));
select is((pg_temp.jobs_of('all'))[4:], '{2030-01-08T01:00:00Z,2030-01-08T02:00:00Z}', 'and catches up with all');
select is((pg_temp.jobs_of('last'))[2:], '{2030-01-08T02:00:00Z}', 'with the last');
select is(pg_temp.jobs_of('none'), '{}', 'or with none');
select given((select array_agg(drop_schedule(p)) from unnest('{all,last,none}'::text[]) as p));

-- Nonsense.

select the_time_is('2030-01-05 09:00:10+00');
select given(create_schedule('e', 'w', '0 9 * * *'));

select given(entity_set('$schedule/e', '"every now and then"', 'cron'));
select is(pg_temp.tick('e'), 'stuck', 'a schedule that nobody can follow is stuck');
select is(
    (select (t.stuck_reason ->> 'code') || ' ' || s.waits_for from schedules as s
       join tasks as t on t.job_id = '$schedule/' || s.name where s.name = 'e'),
    'PD110 somebody to resume it: this is not a cron expression: ''every now and then'': It has 4 fields, not five.',
    'and says why');
select is(pg_temp.next_of('e'), null, 'it is due never');
select given(register_worker('one', '{q,$sql}'));
select is(pg_temp.next_of('e'), null, 'also when a worker comes, which brings no other memory');
select is_empty('select * from assert_invariants()', 'which breaks no law [P8]');
select time_passes('1 day');
select given(entity_delete('$schedule/e'));
select is(pg_temp.tick('e'), 'stuck', 'an empty memory says nothing either');
select given(entity_restore('$schedule/e', 1));
select is(pg_temp.tick('e'), 'waiting', 'mending it is enough');
select is(pg_temp.next_of('e'), '01-07 09:00:00', 'it goes on');
select is((pg_temp.jobs_of('e'))[3:], '{2030-01-06T09:00:00Z}', 'and catches up with what was due meanwhile');
select given(entity_set('$schedule/e', '"moon"', 'time_zone'));
select given(pg_temp.tick('e'));
select given(resume('$schedule/e'));
select is(pg_temp.tick('e'), 'stuck', 'to resume it is not');
select given(entity_merge('$schedule/e', '{"cron": "0 9 20 3 *", "time_zone": "A167B-167,J69,J300"}'));
select is(pg_temp.tick('e'), 'stuck', 'nobody can wait for a time that no clock ever shows');
select given(entity_merge('$schedule/e', '{"time_zone": "right/UTC"}'));
select is(pg_temp.tick('e'), 'stuck', 'nor follow a clock that counts leap seconds, which the server cannot turn back');

-- A clock that was ahead by a year for a while.

select the_time_is('2030-02-01 09:00:10+00');
select given(create_schedule('back', 'w', '0 * * * *'));
select the_time_is('2031-02-01 09:30+00');
select is(pg_temp.tick('back'), 'waiting', 'by a clock that is ahead a schedule goes on');
select the_time_is('2030-02-01 09:30+00');
select is(pg_temp.next_of('back'), '02-01 10:00:00', 'when that is set back, it waits for the year after');
select time_passes('1 hour');
select is(pg_temp.tick('back'), null, 'nobody takes it');
select given(resume_schedule('back'));
select time_passes('30 min');
select is(pg_temp.tick('back'), 'waiting', 'once it is resumed, it counts from now');
select is(
    pg_temp.jobs_of('back'),
    '{2030-02-01T11:00:00Z,2031-02-01T09:00:00Z}',
    'its due times are those of the clock that there is');
select the_time_is('2031-02-01 09:30+00');
select given(pg_temp.tick('back'));
select is(cardinality(pg_temp.jobs_of('back')), 2, 'what it has started by the other clock it starts no more [P1]');
select given(drop_schedule('back'));

-- A job for which it is not meant.

select given(entity_create('plain', 'note'));
select throws_ok($$ select hook('plain', '$schedule', queue => '$sql') $$, 'PD104', null, 'nobody can ask for a tick');

select is_empty('select * from assert_invariants()', 'no law is broken');
select finish();
rollback;
