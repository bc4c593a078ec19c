"""Points at which a call can be stopped: before each statement that touches a table, and each row.

The engine of a theatre is rewritten: every PL/pgSQL function gets a point before each statement and
each declaration that names a table, so that a call can be stopped before and after each of its
locks, and between its reads and its locks. A trigger adds a point for each row that is written, in
the middle of statements that write several. A session that takes part counts its points, and waits
at the chosen one until its gate is opened. Other sessions pass all points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.races.sessions import Session
from tests.races.theatre import Theatre

TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"[^"]*"|<<\w+>>|\w+|\S""",
    re.DOTALL,
)

# Others can read the application_name of a session in the middle of a call: it holds the number of
# points that the session has passed, the last one, and a hash of all. A session with a name of
# another kind counts no points.
SUPPLY = """
create schema points;

-- Calls with a short lock_timeout can be stopped as long as others.
create function points.stop() returns void
language plpgsql
set lock_timeout = 0
as $$
begin
    perform pg_advisory_xact_lock_shared(current_setting('points.gate')::integer);
end
$$;

create function points.pass(place integer) returns boolean
language plpgsql
as $$
declare
    seen text[] := string_to_array(current_setting('application_name'), ' ');
    passed integer;
    path bigint;
begin
    if seen[1] = 'at' then
        passed := seen[2]::integer + 1;
        path := hashint8extended(pass.place, seen[4]::bigint);
        perform set_config('application_name', format('at %s %s %s', passed, place, path), false);
        if passed = current_setting('points.chosen')::integer then
            perform points.stop();
        end if;
    end if;
    return true;
end
$$;

create function points.pass_row() returns trigger
language plpgsql
as $$
begin
    assert points.pass(0);
    return case tg_op when 'DELETE' then old else new end;
end
$$;
"""
TRIGGER = """
create trigger zz_point before insert or update or delete on {} for each row
execute function points.pass_row()"""

TABLES = """
select relname::text, relkind = 'r'
  from pg_class
 where relnamespace = 'perdure'::regnamespace
   and relkind in ('r', 'v')"""

# A session that waits for a row which another transaction has locked holds a lock on its tuple. The
# row is identified by how many rows have a lower key; the key of an item is random, so an item has
# another order.
PLACES = """
select distinct on (p.nth) s.application_name, c.relname::text, k.key,
       format('(%%s,%%s)', l.page, l.tuple)
  from unnest(%s::integer[]) with ordinality as p (pid, nth)
  join pg_stat_activity as s using (pid)
  left join (pg_locks as l
             join pg_class as c on c.oid = l.relation and l.locktype = 'tuple'
            cross join lateral (
                select case c.relname when 'items' then 'job_id, task, key'
                                      else string_agg(quote_ident(a.attname), ', ') end
                  from pg_index as i
                  join pg_attribute as a on a.attrelid = c.oid and a.attnum = any(i.indkey)
                 where i.indrelid = c.oid
                   and i.indisprimary) as k (key)) on l.pid = p.pid and l.granted
 order by p.nth"""

OPENING = ("declare", "begin", "else", "exception")
CLOSING = (";", "then", "loop")


def put_points(theatre: Theatre) -> list[str]:
    """Put points into the engine of a theatre; describe each of them, by number."""
    theatre.run(SUPPLY)
    with theatre.players() as players:
        tables = dict(players.c.run(TABLES))
    touching = re.compile(rf"\b(?:{'|'.join(tables)}|execute|pg_advisory\w*)\b")
    places = ["a row"]

    def with_points(name: str, body: str) -> str:
        for start, point, words in reversed([*points(body, touching)]):
            body = body[:start] + point.format(number=len(places)) + body[start:]
            places.append(f"{name}: {' '.join(words)[:80]}")
        return body

    theatre.rewrite(with_points)
    for table, is_table in tables.items():
        if is_table:
            theatre.run(TRIGGER.format(f"perdure.{table}"))
    return places


def points(body: str, touching: re.Pattern[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the place of each point in a function, its code, and the statement that follows it."""
    is_declaring = False
    for start, words in parts(body):
        if words[0] in ("declare", "begin"):
            is_declaring = words[0] == "declare"
        elif touching.search(" ".join(words)):
            declared = "point_{number} boolean := points.pass({number}); "
            yield start, declared if is_declaring else "assert points.pass({number}); ", words


def parts(body: str) -> Iterator[tuple[int, list[str]]]:
    """Split a body into statements, declarations, heads of branches and loops, and block starts.

    The head of a branch that is no statement (`else`, `elsif`) is left out: no statement can
    precede it.
    """
    start, words, depth = -1, list[str](), 0
    for found in TOKEN.finditer(body):
        word = found[0].lower()
        if word.startswith(("--", "/*", "<<")):
            continue
        if not words:
            start = found.start()
        words.append("''" if word.endswith("'") else word)
        depth += (word in ("(", "[", "case")) - (word in (")", "]"))
        if word == "end" and depth > 0:
            depth -= 1  # the end of a case
        elif depth == 0 and (
            word in (";", "then", "loop") or (len(words) == 1 and word in OPENING)
        ):
            if words[0] not in ("else", "elsif", "end", "exception", "when"):
                yield start, words
            words = []


def enter(session: Session, chosen: int, gate: int) -> None:
    """Let a session count its points from now on, and choose the one at which it will wait."""
    session.run(
        f"set points.chosen = {chosen}; set points.gate = {gate}; set application_name = 'at 0 0 0'"
    )


def leave(session: Session) -> None:
    """Let a session pass all points again."""
    session.run(f"set application_name = '{session.name}'")


def shut_gate(session: Session, gate: int) -> None:
    """Shut a gate until the end of a transaction, which this begins."""
    session.run(f"begin; select pg_advisory_xact_lock({gate})")


class Place(NamedTuple):
    """Where a session is in a call."""

    passed: int
    """The number of points that it has passed, including the one at which it waits."""
    last: int
    """The number of the last point, as `put_points` numbers them."""
    path: str
    """A hash of all points that it has passed."""
    row: tuple[str, int] | None
    """The row for which it waits: its table, and the number of rows with a lower key."""


def places_of(watcher: Session, *sessions: Session) -> list[Place]:
    """Give the places of other sessions."""
    pids = [session.connection.info.backend_pid for session in sessions]
    places: list[Place] = []
    for name, table, key, ctid in watcher.run(PLACES, pids):
        _, passed, last, path = name.split()
        row = None
        if table is not None:
            where = f"({key}) < (select {key} from {table} where ctid = '{ctid}')"
            row = (table, int(watcher.one(f"select count(*) from {table} where {where}")))
        places.append(Place(int(passed), int(last), path, row))
    return places
