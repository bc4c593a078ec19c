-- Reads: the journal keeps only the version of a large value, and replay reads it from the history. [P4] (C35)

begin;
select plan(21);

select the_time_is('2030-01-01 12:00+00');

create function text_of(length integer, mark text default 'x') returns jsonb
language plpgsql
as $$
begin
    return to_jsonb(repeat(mark, text_of.length));
end
$$;
create function replayed(job text, task text default '1/main') returns jsonb
language plpgsql
as $$
begin
    return (select jsonb_agg(f -> 6 order by (f -> 0)::integer)
              from jsonb_array_elements(read_journal(replayed.job, replayed.task)::jsonb) as f
             where f ->> 1 = 'read');
end
$$;

-- Small and large values.

select have_held_job('j', jsonb_build_object('small', text_of(1900), 'large', text_of(2100), 'n', 1));
create temporary table answers as
select tell(a_turn('j', facts => '[
    {"key": "r1", "op": "get", "path": ["small"]}, {"key": "r2", "op": "get", "path": ["large"]},
    {"key": "r3", "op": "get"}, {"key": "r4", "op": "get", "path": ["nothing"]}]')) -> 'answers' as live;
select is(
    (select jsonb_agg(length(a ->> 2)) from answers, jsonb_array_elements(live) as a),
    '[1900, 2100, 4034, null]'::jsonb,
    'a turn gets all values that it reads');
select is(
    (select jsonb_agg(jsonb_build_array(f.value is null, f.argument -> 'version', f.argument ? 'bytes') order by f.seq)
       from journal as f
      where f.job_id = 'j' and f.task = '1/main'),
    '[[false, 1, false], [true, 1, true], [true, 1, true], [false, 1, false]]',
    'for a value of more than 2000 bytes the journal has only its version and size');
select have_held_job('size', jsonb_build_object('fits', text_of(1998), 'exceeds', text_of(1999)));
select given(tell(a_turn('size', facts => '[{"key": "r1", "op": "get", "path": ["fits"]},
                                            {"key": "r2", "op": "get", "path": ["exceeds"]}]')));
select is(array(select f.value is not null from journal as f where f.job_id = 'size' and f.key ~ 'r' order by f.seq),
          '{true,false}', 'a value of 2000 bytes is in the journal, a longer one is not');
select ok(
    (f.argument ->> 'bytes')::integer between 2100 and 2200,
    'the journal has the size of the value')
  from journal as f
 where f.job_id = 'j' and f.key = 'r2';
select is(replayed('j'), (select jsonb_agg(a -> 2) from answers, jsonb_array_elements(live) as a),
          'replay reads the values of the first read (C35) [P4]');

-- The memory has changed since the read.

select given(entity_set('j', '"changed"', 'large'));
select given(entity_set('j', '{"all": "new"}'));
select given(entity_increment('j', 'n', 1)) from generate_series(1, 250);
select is(replayed('j'), (select jsonb_agg(a -> 2) from answers, jsonb_array_elements(live) as a),
          'replay reads the values of the first read, although the memory has changed [P4]');
select is(
    tell(a_turn('j', seen => 0, facts => '[{"key": "r1", "op": "get", "path": ["small"]}]')) -> 'answers',
    (select live from answers),
    'a repeated turn gets the values of the first read [P12]');
select given(release(jsonb_build_array(jsonb_build_object('job', 'j', 'task', '1/main', 'token', token_of('ada')))));
select is(
    (select jsonb_agg(f -> 6 order by (f -> 0)::integer)
       from jsonb_array_elements(take('eve', '{j}') #> '{0,journal}') as f),
    (select jsonb_agg(a -> 2) from answers, jsonb_array_elements(live) as a),
    'a claim by another worker returns the values of the first read [P4]');

-- Reads at many versions, across snapshots, between the commands of the same turns.

create temporary table seen (number serial, value jsonb) on commit drop;
create function read_on(rounds integer) returns void
language plpgsql
as $$
begin
    for round in 1 .. read_on.rounds loop
        insert into seen (value)
        select a -> 2
          from jsonb_array_elements(tell(a_turn('far', facts => jsonb_build_array(
                   jsonb_build_object('op', 'get'),
                   jsonb_build_object('op', 'set', 'path', array['k' || round % 3],
                                      'value', text_of(3000, chr(64 + round))),
                   jsonb_build_object('op', 'get'),
                   jsonb_build_object('op', 'log', 'path', '{l}'::text[],
                                      'value', jsonb_build_array(text_of(900, chr(64 + round)))),
                   jsonb_build_object('op', 'get', 'path', '{l}'::text[]),
                   jsonb_build_object('op', 'get', 'path', array['k' || round % 2])))) -> 'answers') as a
         where jsonb_typeof(a -> 2) <> 'number'
         order by (a -> 0)::integer;
        perform entity_increment('far', 'n', n) from generate_series(1, 70) as n;
    end loop;
end
$$;
select have_held_job('far', '{"n": 0}');
select read_on(6);
select is(the_job('far') ->> 'version', '433', 'the memory has changed hundreds of times');
select is(replayed('far'), (select jsonb_agg(value order by number) from seen where value is not null),
          'replay reads each value at its own version [P4]');
select ok(
    (select count(*) filter (where f.value is null) between 15 and 20
       from journal as f
      where f.job_id = 'far' and f.kind = 'read'),
    'the journal keeps only the version of most values');
select is(
    (select jsonb_agg(f -> 6 order by (f -> 0)::integer)
       from generate_series(0, 35, 5) as after
      cross join lateral jsonb_array_elements(read_journal('far', '1/main', after, 5)::jsonb) as f
      where f ->> 1 = 'read'),
    replayed('far'),
    'the pages of a journal have the same values as the whole');
select is(journal_size('far', '1/main') > 40000, true, 'the size of a journal includes the values that it leaves out');

-- The size of a page includes values that the journal leaves out.

select have_held_job('pages');
select given(entity_set('pages', text_of(900000), 'k' || n)) from generate_series(1, 3) as n;
select given(tell(a_turn('pages', facts => jsonb_build_array(jsonb_build_object('op', 'get')))))
  from generate_series(1, 8);
select is(
    (select jsonb_agg(jsonb_array_length(read_journal('pages', '1/main', after)::jsonb) order by after)
       from unnest('{0,4,8}'::integer[]) as after),
    '[4, 4, 0]',
    'a page of a journal has about 8 MB, whether its values are left out or not');
select ok(
    (select sum(pg_column_size(f.*)) from journal as f where f.job_id = 'pages' and f.task = '1/main') < 4000,
    'the journal itself stays small');
select given(
    release(jsonb_build_array(jsonb_build_object('job', 'pages', 'task', '1/main', 'token', token_of('ada')))));
select is(
    take('eve', '{pages}') #> '{0,journal}',
    'null',
    'a claim does not return a journal that is so large');
select given(hook('pages', 'h', key => 'short', queue => 'short'));
select given(take('ada', '{short}'));
select given(tell(a_turn('pages', '$hook/short', 'release', '[{"kind": "note"}]')));
select is(jsonb_array_length(take('eve', '{short}') #> '{0,journal}'), 1,
          'a claim returns a short journal, however long those of other tasks of the job are');

-- Facts of other kinds keep their values, whatever their names.

select have_held_job('note');
select given(
    tell(a_turn('note', facts => jsonb_build_array(jsonb_build_object('kind', 'read', 'value', text_of(3000))))));
select is(
    read_journal('note', '1/main')::jsonb #>> '{0,6}',
    repeat('x', 3000),
    'a value that a worker reports is never left out');

-- Reads of several memories.

select have_held_job('m');
select time_passes('1 s');
select have_held_job('n');
select given(tell(a_turn('m', facts => '[{"op": "get"}]'), a_turn('n', facts => '[{"op": "get"}]')));
select is(
    array[the_job('m') ->> 'updated_at', the_job('n') ->> 'updated_at']::timestamptz[],
    '{2030-01-01 12:00:00+00,2030-01-01 12:00:01+00}',
    'a read does not change when a memory was updated, whatever else its batch reads');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select is_empty('select * from assert_histories()', 'every memory is the sum of its commands');
select finish();
rollback;
