"""The fingerprint of a schema: everything that was installed in it, one line per object."""

from __future__ import annotations

from typing import Any

import psycopg

QUERY = """
with relation as (
    select c.oid, c.relkind, c.relname as name, c.relacl, c.reloptions
      from pg_class as c
     where c.relnamespace = %(schema)s::regnamespace
),
line (text) as (
    select format('%%s %%s acl=%%s options=%%s -- %%s', r.relkind, r.name, r.relacl, r.reloptions,
                  obj_description(r.oid, 'pg_class'))
      from relation as r
    union all
    select format('column %%s.%%s %%s %%s collate=%%s not null=%%s default=%%s -- %%s',
                  r.name, row_number() over (partition by r.oid order by a.attnum), a.attname,
                  format_type(a.atttypid, a.atttypmod),
                  a.attcollation::regcollation, a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                  col_description(r.oid, a.attnum))
      from relation as r
      join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef as d on d.adrelid = r.oid and d.adnum = a.attnum
     where r.relkind in ('r', 'p', 'v', 'c')
    union all
    select format('constraint %%s.%%s %%s', r.name, n.conname, pg_get_constraintdef(n.oid))
      from relation as r
      join pg_constraint as n on n.conrelid = r.oid
    union all
    select format('domain %%s %%s %%s %%s', t.typname, format_type(t.typbasetype, t.typtypmod),
                  n.conname, pg_get_constraintdef(n.oid))
      from pg_type as t
      left join pg_constraint as n on n.contypid = t.oid
     where t.typnamespace = %(schema)s::regnamespace
       and t.typtype = 'd'
    union all
    select pg_get_indexdef(r.oid)
      from relation as r
     where r.relkind = 'i'
    union all
    select pg_get_statisticsobjdef(s.oid)
      from pg_statistic_ext as s
     where s.stxnamespace = %(schema)s::regnamespace
    union all
    select pg_get_triggerdef(t.oid) || ' -- ' || obj_description(t.oid, 'pg_trigger')
      from relation as r
      join pg_trigger as t on t.tgrelid = r.oid
     where not t.tgisinternal
    union all
    select format('view %%s %%s', r.name, pg_get_viewdef(r.oid))
      from relation as r
     where r.relkind = 'v'
    union all
    select format('%%s acl=%%s -- %%s', pg_get_functiondef(p.oid), p.proacl,
                  obj_description(p.oid, 'pg_proc'))
      from pg_proc as p
     where p.pronamespace = %(schema)s::regnamespace
    union all
    select format('type %%s acl=%%s -- %%s', t.typname, t.typacl, obj_description(t.oid, 'pg_type'))
      from pg_type as t
     where t.typnamespace = %(schema)s::regnamespace
)
select text from line order by text collate "C"
"""


def fingerprint(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    """List all objects of a schema, with the schema's name replaced."""
    quoted = psycopg.sql.Identifier(schema).as_string()
    lines = [row[0] for row in connection.execute(QUERY, {"schema": quoted})]
    assert len(lines) > 100
    return [line.replace(quoted, "@").replace(schema, "@") for line in lines]
