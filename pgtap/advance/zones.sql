-- Zones: a time in JSON is a text. Without a time zone, or with an ambiguous order of month and day, each session would
-- read another instant, so such a time is refused.

begin;
select plan(11);

select the_time_is('2030-01-01 12:00+00');
set local time zone 'Asia/Tokyo';
set local datestyle = 'SQL, DMY';

create function refusal_of(statement text) returns text
language plpgsql
as $$
declare
    code text;
    message text;
begin
    execute refusal_of.statement;
    return null;
exception when others then
    get stacked diagnostics code = returned_sqlstate, message = message_text;
    return concat_ws(' ', code, message);
end
$$;
comment on function refusal_of(text) is 'Run a statement and return the code and message of its error, or null.';

create temporary table times as
select t.written, t.at
  from (values ('2030-01-02T10:00:00Z', '2030-01-02 10:00+00'::timestamptz),
               ('2030-01-02 10:00:00.123456+00', '2030-01-02 10:00:00.123456+00'),
               ('2030-01-02T12:00+02:00', '2030-01-02 10:00+00'),
               ('20300102T100000Z', '2030-01-02 10:00+00'),
               ('2030-01-02T04:30:00-0530', '2030-01-02 10:00+00'),
               ('2030-01-02 10:00 UTC', '2030-01-02 10:00+00'),
               ('2030-01-02Z', '2030-01-02 00:00+00'),
               ('2030-01-02 10:00', null), ('2030-01-02T10:00:00', null), ('2030-01-02', null),
               ('tomorrow', null), ('2 Jan 2030 10:00+00', null)) as t (written, at);

-- Starts.

create function start_with(written text) returns text
language plpgsql
as $$
begin
    return refusal_of(format('select * from start_many(%L)', jsonb_build_array(
        '{"workflow": "w"}'::jsonb,
        jsonb_build_object('workflow', 'w', 'id', start_with.written, 'due_at', start_with.written))));
end
$$;
comment on function start_with(text) is
    'Start a job that is due at a time, as it is written; return its error, or null.';
create temporary table starts as select t.written, t.at, start_with(t.written) as refusal from times as t;
select is_empty(
    $$ select * from starts
        where (at is null) <> (coalesce(refusal, '') = 'PD107 the field due_at of a start has no time zone') $$,
    'a start at a time without a zone is refused');
select is_empty(
    $$ select * from starts as s
        where s.at is distinct from (select t.due_at from tasks as t where t.job_id = s.written and t.task = '1/main') $$,
    'a start at a time with a zone is due at that instant, in any session');
select throws_ok(
    $$ select * from start_many('[{"workflow": "w", "due_at": "soon"}]') $$,
    'PD107', 'the field due_at of a start cannot be read',
    'a due_at that is not a time is refused');

-- Turns.

select have_held_job('j');
select is_empty(
    $$ select t.*
         from times as t
        where (t.at is null) <> (coalesce(refusal_of(format(
                   'select tell(%L)', a_turn('j') || jsonb_build_object('until', t.written))), '')
                   = 'PD107 the field until of a turn has no time zone') $$,
    'a turn until a time without a zone is refused');
select is(
    refusal_of(format('select tell(%L)', a_turn('j') || '{"until": "soon"}')),
    'PD107 the field until of a turn cannot be read',
    'a turn until a text that is not a time is refused');
select is(
    tell(a_turn('j', state => 'park', awaits => '{}') || '{"until": "2030-01-02T12:00+02:00"}') ->> 'state',
    'parked',
    'a task parks until a time with a zone');
select is((the_task('j') ->> 'until')::timestamptz, '2030-01-02 10:00+00'::timestamptz,
          'the parked task waits until that instant');

select have_held_job('k');
select is_empty(
    $$ select t.*
         from times as t
        cross join (values ('hook', 'due_at'), ('job', 'due_at'), ('item', 'expires_at')) as q (kind, field)
        where (t.at is null) <> (coalesce(tell(a_turn('k', requests => jsonb_build_array(jsonb_build_object(
                   'key', md5(t.written || q.kind), 'kind', q.kind, 'name', 'h', q.field, t.written)))) #>> '{error,message}', '')
                   = format('the field %s of a request has no time zone', q.field)) $$,
    'a request with a time without a zone is refused');

-- Facts.

select is(
    refusal_of(format('select tell(%L)', a_turn('k', facts => '[{"kind": "note"}, {"at": "2030-01-01 12:00"}]'))),
    'PD107 the field at of fact 2 has no time zone',
    'a fact without a zone is refused, not answered as untimely');
select is(
    verdict_of(a_turn('k', facts => '[{"at": "2030-01-01T11:00:00Z"}]')),
    'replay',
    'a fact with a time in the past is answered as untimely');
select is(
    verdict_of(a_turn('k', facts => '[{"at": "2030-01-01T21:00:00+09:00"}]')),
    'keep',
    'the time of a fact is read in its zone');

select finish();
rollback;
