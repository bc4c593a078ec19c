-- Timelines: everything that belongs to a job, page by page.

begin;
select plan(29);

select the_time_is('2030-01-01 12:00+00');

select have_held_job('j', '{"n": 0}');
select given(tell(a_turn('j', facts => '[{"op": "set", "path": ["n"], "value": 1},
                                         {"kind": "activity", "key": "a#1", "name": "a", "value": {"x": [1]}}]',
                         requests => '[{"key": "h#1", "name": "h", "queue": "j", "args": ["y"]}]')));
select given(take('bob', '{j}'));
select time_passes('1 s');
select given(tell(a_turn('j', '1/main/h#1', facts => '[{"op": "increment", "path": ["n"], "value": 1}]',
                         worker => 'bob')));
select given(entity_set('j', to_jsonb(repeat('x', 3000)), 'text'));
select time_passes('1 s');
select given(tell(a_turn('j', facts => '[{"op": "get", "path": ["text"], "key": "get#1"}]')));
select given(tell(a_turn('j', requests => '[{"key": "i#1", "kind": "item", "name": "sign"},
                                          {"key": "i#2", "kind": "item", "name": "sign"}]')));
select given(resolve_item((select id from items where key = 'i#1'), '"yes"', by => 'jane'));
select given(signal('j', 'go', '{"n": 1}'));
create temporary table it as
select row_number() over () as number, t.kind, t.at, t.task, t.body, t.place from timeline('j') as t;

select is(
    (select jsonb_agg(jsonb_build_array(kind, task, coalesce(body ->> 'op', body ->> 'kind', body ->> 'name'))
                      order by number)
       from it),
    '[["job", null, null], ["fact", "$outside", "set"], ["fact", "1/main", "set"], ["fact", "1/main", "activity"],
      ["fact", "$outside", "set"], ["fact", "1/main/h#1", "increment"], ["fact", "1/main", "get"],
      ["task", "1/main", "coordinator"], ["task", "1/main/h#1", "hook"], ["message", "1/main", null], ["message", null, "go"],
      ["item", "1/main", "sign"], ["item", "1/main", "sign"]]',
    'a timeline has the job, its facts by time, its tasks, open messages and items');
select is(
    (select body from it where kind = 'job'),
    the_job('j') - 'context' - 'watched',
    'a timeline has the job without its memory');
select is(
    (select body from it where kind = 'fact' and body ->> 'kind' = 'activity'),
    (select to_jsonb(f) - '{job_id,task,is_answer}'::text[]
       from journal as f
      where f.job_id = 'j' and f.kind = 'activity'),
    'a timeline has facts as the journal has them');
select is(
    (select length(body ->> 'value') from it where body ->> 'op' = 'get'),
    3000,
    'a timeline has the whole value of a large read [P4]');
select is(
    (select body ->> 'state' from it where task = '1/main/h#1' and kind = 'task'),
    'leased',
    'a timeline has the state of a task');
select is((select count(*) from it where body ?| '{token,last_token}'), 0::bigint, 'a timeline has no tokens');
select is(
    (select jsonb_agg(body -> 'resolved_by' order by body ->> 'key') from it where kind = 'item'),
    '["jane", null]',
    'a timeline has the person who resolved an item');
select is(
    (select body -> 'payload' from it where kind = 'message' and task is null),
    '{"n": 1}',
    'a timeline has the payload of a message');

-- Pages.

create function pg_temp.paged(job text, max_rows integer) returns setof timeline_item
language plpgsql
as $$
declare
    items timeline_item[];
    place jsonb;
begin
    loop
        items := array(select t from timeline(paged.job, place, paged.max_rows) as t);
        exit when items = '{}';
        return query select i.* from unnest(items) as i;
        place := items[cardinality(items)].place;
    end loop;
end
$$;
select is(
    (select jsonb_agg(to_jsonb(p)) from pg_temp.paged('j', size) as p),
    (select jsonb_agg(to_jsonb(it) - 'number' order by number) from it),
    format('pages of %s rows together are the same as one page', size))
  from unnest(array[1, 2, 3, 7, 100]) as size;
select have_held_job('large');
select given(tell(a_turn('large', facts => (
    select jsonb_agg(jsonb_build_object('kind', 'note', 'key', n, 'value', (
               select string_agg(md5(n || ' ' || m), '') from generate_series(1, 9000) as m)))
      from generate_series(1, 40) as n))));
select cmp_ok((select count(*) from timeline('large')), '<', 41::bigint, 'a page has at most about 8 MB');
select is((select count(*) from pg_temp.paged('large', 1000)), 42::bigint,
          'a row that does not fit is on the next page');

select given(entity_create('e', 'note'));
select is((select array_agg(kind) from timeline('e')), '{job}', 'a plain entity has a timeline');
select is(error_of($$ select timeline('none') $$), 'PD401', 'a job that does not exist has no timeline');
select is(error_of(format('select timeline(''j'', %L)', place)), 'PD107', format('a place of %s is refused', place))
  from unnest(array['{}', '"x"', '[]', '[9]', '["x"]', 'null', '[1]', '[1, "a", {}]', '[2]', '[3, "x"]',
                    '[4, "x", "y"]']) as place;

select is_empty('select * from assert_invariants()', 'no invariant is broken [P8]');
select finish();
rollback;
