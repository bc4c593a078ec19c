-- Paths: one grammar for all paths.

begin;
select plan(65);

select is(parse_path(path), keys, format('%s is read as %s', coalesce(quote_literal(path), 'null'), keys))
  from (values
        ('',                         '{}'::text[]),
        (null,                       '{}'),
        ('user',                     '{user}'),
        ('user.email',               '{user,email}'),
        ('items.0',                  '{items,0}'),
        ('items.-1.name',            '{items,-1,name}'),
        ('"key.with.dots".x',        '{key.with.dots,x}'),
        ('a."b.c".d',                '{a,b.c,d}'),
        ('"say \"hi\""',             array['say "hi"']),
        ('"back\\slash"',            array['back\slash']),
        ('""',                       array['']),
        ('a."".b',                   array['a', '', 'b']),
        ('"null"',                   array['null']),
        ('null',                     array['null']),
        ('a b.c d',                  array['a b', 'c d']),
        (' a',                       array[' a']),
        ('a,b.c}d.{e',               array['a,b', 'c}d', '{e']),
        ('größe.数.🙂',               array['größe', '数', '🙂']),
        ('a''b.c;--',                array['a''b', 'c;--']),
        ('%s.%I.$$',                 array['%s', '%I', '$$']),
        ('"$".user',                 array['$', 'user']),
        ('$ref.$',                   array['$ref', '$']),
        ('"items[0]".x',             array['items[0]', 'x']),
        ('items[a].x[',              array['items[a]', 'x[']),
        (E'"tab\there".x',           array[E'tab\there', 'x']),
        ('back\slash',               array['back\slash']),
        ('99999999999',              array['99999999999'])
       ) as cases (path, keys);

select throws_ok(
    format('select parse_path(%L)', path), 'PD101', null,
    format('%s is not a path', quote_literal(left(path, 40))))
  from unnest(array[
        '.', 'a.', '.a', 'a..b', '"a', 'a"', 'a"b', 'a."b', '"a"b', '"a""b"', 'a."b"c', '"a".', '."a"', '"a\"',
        repeat('a.', 50) || 'a', repeat('"a".', 50) || 'a', repeat('a', 10001),
        repeat('a', 9999), repeat('é', 5000)
       ]) as refused (path);

select throws_ok(
    format('select parse_path(%L)', path), 'PD101', 'this is a JSON path: ' || path,
    format('%s is a JSON path, and no key that nobody has', quote_literal(path)))
  from unnest('{$,$.user,$[0],items[0],items[-1].name,a.items[*],"\"a\".b[1]"}'::text[]) as refused (path);

select is(cardinality(parse_path(repeat('a.', 49) || 'a')), 50, 'a path may have 50 keys');
select is(octet_length(write_path(parse_path(repeat('a', 9998)))), 9998, 'a path may have nearly 10000 bytes');
select is(octet_length(write_path(parse_path(repeat('é', 4999)))), 9998, 'the limit of a path counts bytes');
select throws_ok(
    $$ select check_path(array['a', null]) $$, 'PD101', null,
    'a path with a null is not a path');

select is(parse_path(write_path(keys)), keys,
          format('%s is parsed into the keys from which it was written', write_path(keys)))
  from (values
        (array['a', 'b']),
        (array['key.with.dots', '', 'say "hi"', 'back\slash']),
        (array['items', '-1', '0']),
        (array['$', '$ref', 'items[0]'])
       ) as cases (keys);
select is(write_path('{}'), 'the memory', 'the empty path is written as the memory');

select given(entity_create('e', 'note', '{"a.b": ["found"]}'));
select is(error_of(format('select entity_delete(''e'', %L)', repeat('é', 5001))), 'PD101',
          'a client cannot write a long path into the journal');
select is(outcome.failure ->> 'code', 'PD101', 'a task cannot write a long path into the journal')
  from apply_command('{}', 'delete', array[repeat('é', 5001)], null) as outcome;
select is(entity_get('e', '"a.b".0'), '"found"', 'a verb follows a quoted key (C35)');

select finish();
rollback;
