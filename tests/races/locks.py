"""Finds the locks that a call holds where it has to wait, by holding one by one all that it locks.

PostgreSQL shows no row locks. So a call is made once, and another session tries which rows it
cannot lock; keys that the call has inserted are locks too. The call is undone and made again for
each of its locks, while another session holds that lock; where the call waits, its own locks are
found in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import psycopg

from tests.races.sessions import Session, Stage

Row = Mapping[str, Any]

KEYS = """
select c.relname::text, array_agg(a.attname::text order by k.place)
  from pg_constraint as n
  join pg_class as c on c.oid = n.conrelid
 cross join unnest(n.conkey) with ordinality as k (number, place)
  join pg_attribute as a on a.attrelid = c.oid and a.attnum = k.number
 where n.contype = 'p'
   and c.relnamespace = 'perdure'::regnamespace
 group by 1
"""
COLUMNS = """
select string_agg(quote_ident(attname), ', ' order by attnum)
  from pg_attribute
 where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = ''"""


class Lock(NamedTuple):
    """A row, or a key that a transaction is about to insert."""

    table: str
    key: tuple[str, ...]

    def __str__(self) -> str:
        """Give the lock in a word."""
        return f"{self.table}({' '.join(self.key)})"


class Wait(NamedTuple):
    """A place where a call waits for a lock while it holds others."""

    call: str
    held: frozenset[Lock]
    wanted: Lock
    is_new: bool
    """Whether the call waits to insert the row."""

    def __str__(self) -> str:
        """Give the wait in a line."""
        return f"{self.call} waits for {self.wanted} and holds {', '.join(map(str, self.held))}"


class Prober:
    """Finds the waits of calls that session `a` makes, with sessions that hold and try locks."""

    def __init__(self, stage: Stage, a: Session | None = None) -> None:
        self.a = a or stage.session("a")
        self.holder, self.trier = (stage.session(name) for name in ("holder", "trier"))
        self.keys: dict[str, list[str]] = dict(self.a.run(KEYS))

    def waits(self, name: str, call: Callable[[], object]) -> Iterator[Wait]:
        """Find where a call waits; it must do the same thing again after it was undone."""
        locks = self.locks(call)
        new = {lock: row for lock, row in locks.items() if row is not None}
        for lock in sorted(locks):
            with self.holder.open("rollback"), self.a.open("rollback"):
                self.hold(lock, new.get(lock))
                waiting_call = self.a.later(call)
                if waiting_call.waits():
                    yield Wait(name, frozenset(self._held(new)) - {lock}, lock, lock in new)
                self.holder.rollback()
                waiting_call.error()

    def locks(self, call: Callable[[], object]) -> dict[Lock, Row | None]:
        """Find what a call locks, with the rows that it inserts; the call is undone."""
        existing = self._rows()
        with self.a.open("rollback"):
            try:
                call()
                new = {lock: row for lock, row in self._rows().items() if lock not in existing}
            except psycopg.Error:
                return {}  # the call is refused in this state, and holds no lock
            return {lock: new.get(lock) for lock in self._held(new)}

    def hold(self, lock: Lock, row: Row | None) -> None:
        """Take a lock as session `holder`, until its transaction ends."""
        if row is not None:
            insert(self.holder, lock.table, row)
            return
        where = f"array[{self._key(lock.table)}] = %s"
        self.holder.run(f"select from {lock.table} where {where} for update", list(lock.key))

    def _rows(self) -> dict[Lock, Row]:
        """Read all rows that session `a` sees."""
        tables = (
            f"select '{table}', array[{self._key(table)}], to_jsonb(r) from {table} as r"
            for table in self.keys
        )
        rows = self.a.run(" union all ".join(tables))
        return {Lock(table, tuple(key)): row for table, key, row in rows}

    def _held(self, new: Mapping[Lock, Row]) -> set[Lock]:
        """Find the locks that are held: try to lock all rows, and to insert those of the call."""
        tables = (
            f"(select '{table}', array[{key}] from {table} except"
            f" select '{table}', r.key from"
            f" (select array[{key}] as key from {table} for update skip locked) as r)"
            for table, key in zip(self.keys, map(self._key, self.keys), strict=True)
        )
        with self.trier.open("rollback"):
            self.trier.run("set local lock_timeout = '1 ms'")
            rows = self.trier.run(" union all ".join(tables))
            held = {Lock(table, tuple(key)) for table, key in rows}
            return held | {lock for lock, row in new.items() if self._is_taken(lock, row)}

    def _is_taken(self, lock: Lock, row: Row) -> bool:
        """Tell whether another transaction is about to insert a key."""
        try:
            with self.trier.connection.transaction(force_rollback=True):
                insert(self.trier, lock.table, row)
        except psycopg.errors.LockNotAvailable:
            return True
        except psycopg.errors.UniqueViolation:
            pass  # the key exists, and its row was tried
        return False

    def _key(self, table: str) -> str:
        return ", ".join(f"{column}::text" for column in self.keys[table])


def insert(session: Session, table: str, row: Row) -> None:
    """Insert a row as it was read, without running triggers."""
    session.run("set local session_replication_role = replica")
    columns = session.one(COLUMNS, f"perdure.{table}")
    values = f"select {columns} from jsonb_populate_record(null::{table}, %s)"
    session.run(
        f"insert into {table} ({columns}) overriding system value {values}", json.dumps(row)
    )


def cycles(waits: Collection[Wait]) -> Iterator[tuple[Wait, ...]]:
    """Yield the cycles in which calls could wait for each other.

    Each call waits for a lock of the next one. No two of them hold the same lock, or they could not
    be there at the same time: all that happens under the lock of a job is in order anyway.
    """
    holders: dict[Lock, list[Wait]] = {}
    for wait in waits:
        for lock in wait.held:
            holders.setdefault(lock, []).append(wait)

    def follow(path: tuple[Wait, ...], held: frozenset[Lock]) -> Iterator[tuple[Wait, ...]]:
        for following in holders.get(path[-1].wanted, []):
            if following.held & held:
                continue
            if following.wanted in path[0].held:
                yield (*path, following)
            else:
                yield from follow((*path, following), held | following.held)

    for wait in waits:
        yield from follow((wait,), wait.held)
