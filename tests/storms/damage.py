"""Damage that crashes have left in tables and indexes, found page by page by PostgreSQL's
amcheck."""

from __future__ import annotations

from typing import Any

import psycopg

AVAILABLE = "select count(*) > 0 from pg_available_extensions where name = 'amcheck'"

INDEXES = """
select i.indexrelid::regclass::text, i.indexrelid
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid and c.relpersistence <> 't'
  join pg_am as a on a.oid = c.relam and a.amname = 'btree'
 where i.indisvalid
 order by 1
"""

TABLES = """
select c.oid::regclass::text, c.oid
  from pg_class as c
 where c.relkind in ('r', 'm', 't') and c.relpersistence <> 't'
 order by 1
"""

CHECK_INDEX = "select bt_index_check(%s, heapallindexed => true)"
CHECK_TABLE = "select blkno, offnum, msg from verify_heapam(%s, check_toast => true)"


def can_be_seen(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the server has amcheck, and install it in the database."""
    if connection.execute(AVAILABLE).fetchone() != (True,):
        return False
    connection.execute("create extension if not exists amcheck schema public")
    return True


def damage(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the damage of a database: in its tables, catalogs included, and their indexes.

    Each row of a table must have its entry in every index. Without amcheck no damage is found.
    """
    if not can_be_seen(connection):
        return []
    return [
        f"{name} is damaged: {problem}"
        for relations, check in ((INDEXES, CHECK_INDEX), (TABLES, CHECK_TABLE))
        for name, relation in connection.execute(relations.encode()).fetchall()
        for problem in _problems(connection, check, relation)
    ]


def _problems(connection: psycopg.Connection[Any], check: str, relation: int) -> list[Any]:
    try:
        rows = connection.execute(check.encode(), [relation]).fetchall()
    except psycopg.Error as error:
        return [error]
    return [row for row in rows if row != ("",)]
