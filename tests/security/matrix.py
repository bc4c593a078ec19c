"""Write down who may do what according to the catalog: `python tests/security/matrix.py`.

The matrix lists functions that a role may call or that run with the rights of the owner, and verbs
for the owner alone, which no other function or view calls. All others are internal.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

from tests.security.secured import KINDS, Connection, SecuredApp, secured_app  # noqa: E402
from tests.source import SQL, sql_functions  # noqa: E402

FILE = Path(__file__).with_name("matrix.txt")
HEAD = """\
# Who may call which function, and read which view. `python tests/security/matrix.py` writes this
# file; a change of it is a decision. A function that is not here is called by others, with the
# rights of the owner, and by no role.
"""

FUNCTIONS = """
select p.proname, p.prosecdef, p.oid::bigint
  from pg_proc as p
 where p.pronamespace = 'perdure'::regnamespace
 order by p.proname
"""
MAY_CALL = "select has_function_privilege(%s::name, %s::oid, 'execute')"
COLUMNS = """
select c.relname, a.attname, c.relkind = 'v', c.oid::bigint, a.attnum,
       coalesce('security_barrier=true' = any(c.reloptions), false)
  from pg_class as c
  join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relnamespace = 'perdure'::regnamespace
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by c.relname, a.attnum
"""
MAY_READ = "select has_column_privilege(%s::name, %s::oid, %s::smallint, 'select')"


def called() -> set[str]:
    """Return the names of the functions that another function or a view calls."""
    functions = sql_functions()
    names = {function.name for function in functions}
    views = set(re.findall(r"@extschema@\.(\w+)\(", (SQL / "schema" / "views.sql").read_text()))
    return views.union(*(function.called(names) for function in functions))


def matrix(connection: Connection, secured: SecuredApp) -> str:
    """Write who may do what."""
    width = 28
    head = f"{'':{width}}" + "".join(f"{kind:9}" for kind in KINDS)
    lines = [HEAD, head.rstrip()]
    internal = called()
    for name, is_definer, oid in connection.execute(FUNCTIONS).fetchall():
        rights = [_one(connection, MAY_CALL, [secured.role(kind), oid]) is True for kind in KINDS]
        if is_definer or any(rights) or name not in internal:
            lines.append(_line(name, width, ["call" if right else "-" for right in rights]))
    lines.append("")
    for relation, columns in _readable(connection, secured).items():
        lines.append(_line(relation, width, columns))
    return "\n".join(lines) + "\n"


def _readable(connection: Connection, secured: SecuredApp) -> dict[str, list[str]]:
    """Return what each kind of role may read of each view: all, nothing, or a number of columns."""
    seen: dict[str, list[list[bool]]] = {}
    for relation, _, is_view, oid, number, _ in connection.execute(COLUMNS).fetchall():
        row = [_one(connection, MAY_READ, [secured.role(kind), oid, number]) for kind in KINDS]
        if is_view or any(row):
            seen.setdefault(relation, []).append(row)
    return {
        relation: [_amount([row[place] for row in rows]) for place in range(len(KINDS))]
        for relation, rows in seen.items()
    }


def _amount(rights: list[bool]) -> str:
    return "read" if all(rights) else f"{sum(rights)}/{len(rights)}" if any(rights) else "-"


def _line(name: str, width: int, cells: list[str]) -> str:
    return (f"{name:{width}}" + "".join(f"{cell:9}" for cell in cells)).rstrip()


def _one(connection: Connection, query: str, values: list[object]) -> bool:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return bool(row[0])


if __name__ == "__main__":
    from perdure.embedded.server import Server

    with (
        Server() as server,
        secured_app(server) as secured,
        secured.connected("owner") as connection,
    ):
        FILE.write_text(matrix(connection, secured), "utf-8")
    print(FILE)
