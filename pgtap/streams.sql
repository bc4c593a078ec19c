-- Streams: logs that tasks write while they run, and that clients follow. [P2] [P6] [P12] (E20)

begin;
select plan(49);

select the_time_is('2030-01-01 12:00+00');

create function read_stream(
    job text, after bigint default 0, place integer default null, max_rows integer default 1000, stream text default 's'
) returns jsonb
language plpgsql
as $$
begin
    return coalesce((
        select jsonb_agg(jsonb_build_array(i.version, i.place, i.item) order by i.version, i.place)
          from stream_items(read_stream.job, read_stream.stream, read_stream.after, read_stream.place,
                            read_stream.max_rows) as i),
        '[]');
end
$$;

create function say(items jsonb, key text default null, worker text default 'ada', job text default 'j') returns bigint
language plpgsql
as $$
begin
    return publish(say.job, '1/main', token_of(say.worker), 's', say.items, say.key, '1/main/write#1');
end
$$;

-- Publishing.

select have_held_job('j');
select is(read_stream('j'), '[]', 'a stream without items is empty');
select is(say('["a", "b"]', 'x/1'), 1::bigint, 'the holder of a task may publish, and gets the version');
select is(say('["c"]', 'x/2'), 2::bigint, 'each batch makes one version');
select is(say('["c"]', 'x/2'), 2::bigint, 'a repeated call gets the same version [P12]');
select is(read_stream('j'), '[[1, 1, "a"], [1, 2, "b"], [2, 1, "c"]]', 'the stream has each item once, in order');
select is(error_of($$ select say('["d"]', 'x/2') $$), 'PD106', 'a key with another batch is refused');
select is(entity_get('j', 's'), '["a", "b", "c"]', 'a stream is a log: it reads as an array');
select is(the_job('j') -> 'context', '{}', 'a stream does not change the document');
select is(journal_of('j'), '[]', 'a stream writes no facts into the journal of its task');
select is(
    (select jsonb_agg(distinct jsonb_build_array(i.source, i.attempt, i.at)) from stream_items('j', 's') as i),
    jsonb_build_array(jsonb_build_array('1/main/write#1', 'x', clock())),
    'an item has its source, its attempt and its time');
select is(say('["a2"]', 'y/1'), 3::bigint, 'another attempt may publish the same place again');
select is(
    (select jsonb_agg(i.attempt order by i.version, i.place) from stream_items('j', 's') as i), '["x", "x", "x", "y"]',
    'items of two attempts can be told apart');
select given(entity_log('j', 's', '"outside"'));
select given(tell(a_turn('j', facts => '[{"op": "log", "path": ["s"], "value": ["fact"]}]')));
select is(
    (select jsonb_agg(jsonb_build_array(i.item, i.source, i.attempt) order by i.version)
       from stream_items('j', 's', 3) as i),
    '[["outside", "$outside", null], ["fact", "1/main", null]]',
    'clients and coordinators may write to a stream');
select is(publish('j', '1/main', token_of('ada'), 't', '5'), 6::bigint,
          'a single item needs neither an array nor a key');
select is(
    (select jsonb_build_array(i.item, i.source, i.attempt) from stream_items('j', 't') as i),
    '[5, "1/main", null]',
    'the source of an item is the task by default');

-- Reading on.

select is(read_stream('j', after, place, max_rows), items,
          format('after version %s, place %s the page is %s', after, place, items))
  from (values
        (0, null::integer, 1, '[[1, 1, "a"], [1, 2, "b"]]'::jsonb),
        (1, null, 1, '[[2, 1, "c"]]'),
        (1, 1, 1, '[[1, 2, "b"]]'),
        (1, 2, 2, '[[2, 1, "c"], [3, 1, "a2"]]'),
        (1, 0, 1, '[[1, 1, "a"], [1, 2, "b"]]'),
        (5, 1, 1000, '[]'),
        (9, null, 1000, '[]')
       ) as cases (after, place, max_rows, items);
select is(read_stream('j', stream => 'other'), '[]', 'streams of a job are separate');

-- The end of a stream.

select is(say('[]', 'y/2'), 7::bigint, 'an empty batch marks the end of a stream');
select is(read_stream('j', 5), '[[7, 0, null]]', 'the mark of the end is at place 0');
select given(say('["more"]', 'y/3'));
select is(read_stream('j', 7), '[[8, 1, "more"]]', 'items after a mark of the end can be read');
select is(read_stream('j', 8), '[]', 'a stream of a running job has no end after its last item');
select given(tell(a_turn('j', state => 'done')));
select is(read_stream('j', 7), '[[8, 1, "more"]]', 'a finished job returns the remaining items of a stream first');
select is(read_stream('j', 8), '[[8, 0, null]]', 'a finished job returns the end of a stream last');
select is(read_stream('j', 8, 1), '[[8, 0, null]]', 'a finished job returns the end after a place too');
select is(
    read_stream('j', after, place, 1), items,
    format('after version %s, place %s a page of one version is %s', after, place, items))
  from (values
        (5, 2, '[[7, 0, null]]'::jsonb),
        (7, 1, '[[8, 1, "more"]]'),
        (1, 2, '[[2, 1, "c"]]'),
        (1, 9, '[[2, 1, "c"]]')
       ) as cases (after, place, items);
select is(read_stream('j', max_rows => 0), '[]', 'a page of zero versions is not the end');
select given(entity_create('e', 'note'));
select is(read_stream('e'), '[]', 'a stream of a memory without a workflow has no end');

-- Fenced tasks.

select is(error_of($$ select say('["late"]') $$), 'PD001', 'a task that has ended cannot publish [P6]');
select have_held_job('z');
select time_passes('31 s');
select given(take('bob', '{z}'));
select is(error_of($$ select say('["late"]', job => 'z') $$), 'PD001',
          'a worker that has lost its lease cannot publish [P6]');
select is(say('["mine"]', worker => 'bob', job => 'z'), 1::bigint, 'the new holder publishes');
select is(read_stream('z'), '[[1, 1, "mine"]]', 'the stream has only the items of the new holder');
select is(error_of(statement), code, format('%s is refused', about))
  from (values
        ('a stream without a name', $$ select publish('z', '1/main', token_of('bob'), '', '[1]') $$, 'PD103'),
        ('a name that does not parse as a path', $$ select publish('z', '1/main', token_of('bob'), 'a..b', '[1]') $$,
        'PD101'),
        ('an empty key', $$ select publish('z', '1/main', token_of('bob'), 's', '[1]', '') $$, 'PD104'),
        ('a batch that is too large',
         $$ select publish('z', '1/main', token_of('bob'), 's', to_jsonb(repeat('x', 1048577))) $$, 'PD301'),
        ('reading a stream without a name', $$ select stream_items('z', '') $$, 'PD101'),
        ('reading a stream of a job that does not exist', $$ select stream_items('nobody', 's') $$, 'PD401')
       ) as cases (about, statement, code);

select is_empty(
    $$ select * from stream_items('j', 's', after => 9223372036854775807) as i where i.place > 0 $$,
    'a stream has no items after the largest version');
select is((select count(*) from stream_items('j', 's', after => null)), (select count(*) from stream_items('j', 's')),
          'without a version a stream is read from its beginning');

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
