"""Nobody may do what he was not given (T30): as the catalogue says it, and as it is when tried."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from tests.security.house import KINDS, Connection, House
from tests.security.matrix import COLUMNS, FILE, matrix

Enter = Callable[[str], Connection]

EVERY = """
select p.proname, p.prokind = 'p',
       array(select format_type(t.type, null)
               from unnest(p.proargtypes) with ordinality as t (type, place)
              order by t.place)
  from pg_proc as p
 where p.pronamespace = 'perdure'::regnamespace
 order by p.proname
"""


def listed() -> dict[str, dict[str, str]]:
    """Read the file: what each kind may do with each name."""
    lines = [line.split() for line in FILE.read_text("utf-8").splitlines() if line[:1] != "#"]
    rows = [line for line in lines if len(line) == len(KINDS) + 1]
    return {name: dict(zip(KINDS, cells, strict=True)) for name, *cells in rows}


def refusal(connection: Connection, query: str) -> str | None:
    """Run a statement; give the SQLSTATE of its error."""
    try:
        connection.execute(query.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


def call_with_nulls(name: str, is_procedure: bool, types: list[str]) -> str:
    """Write a call that the planner does not answer itself, for functions that are strict."""
    if is_procedure:
        return f"call perdure.{name}({', '.join(f'null::{each}' for each in types)})"
    nulls = ", ".join(f"null::{each} as a{place}" for place, each in enumerate(types))
    names = ", ".join(f"n.a{place}" for place in range(len(types)))
    return f"select perdure.{name}({names}) from (select {nulls} offset 0) as n"


def test_who_may_do_what_is_what_was_decided(house: House, enter: Enter) -> None:
    """A new verb, or a right more or less, is a line of the file that somebody wrote."""
    assert matrix(enter("owner"), house) == FILE.read_text("utf-8")


@pytest.mark.parametrize("role", ["nobody", "limited", *KINDS])
def test_each_function_is_refused_to_whom_it_was_not_given(enter: Enter, role: str) -> None:
    """Every function is really called, with nulls: who may call it gets any other answer."""
    rights = listed()
    kind = "worker" if role == "limited" else role
    connection = enter(role)
    connection.execute("set statement_timeout = '20 s'")
    owner = enter("owner")
    owner.execute("set search_path = pg_catalog")  # so that types are named in full
    wrong, tried = [], 0
    for name, is_procedure, types in owner.execute(EVERY).fetchall():
        is_refused = refusal(connection, call_with_nulls(name, is_procedure, types)) == "42501"
        is_given = rights.get(name, {}).get(kind, "-") == "call"
        tried += 1
        if is_refused == is_given:
            wrong.append(name)
    assert wrong == []
    assert tried > 400


@pytest.mark.parametrize("role", ["nobody", "limited", *KINDS])
def test_no_table_can_be_touched(enter: Enter, role: str) -> None:
    connection = enter(role)
    rights = listed()
    relations: dict[str, tuple[bool, str]] = {}
    for name, column, is_view, *_ in enter("owner").execute(COLUMNS).fetchall():
        relations.setdefault(name, (is_view, column))
    assert len(relations) > 15
    for name, (is_view, column) in relations.items():
        tried = {
            "read": f"select * from perdure.{name}",
            "count": f"select count(*) from perdure.{name}",
            "insert": f"insert into perdure.{name} default values",
            "update": f"update perdure.{name} set {column} = null",
            "delete": f"delete from perdure.{name}",
            "lock": f"lock table perdure.{name}",
            "truncate": f"truncate perdure.{name}",
        }
        refused = {what for what, query in tried.items() if refusal(connection, query)}
        allowed = rights[name].get(role, "-") if is_view else "-"
        readable = {"read": {"read", "count"}, "-": set()}.get(allowed, {"count"})
        assert refused == set(tried) - readable, name


@pytest.mark.parametrize("role", ["nobody", "limited", *KINDS])
def test_nobody_plants_anything_beside_the_functions(enter: Enter, role: str) -> None:
    """Who could create here would be found by the verbs, and run as the owner (S1) (S13)."""
    connection = enter(role)
    for statement in (
        "create table perdure.planted (n integer)",
        "create function perdure.planted() returns integer language sql as 'select 1'",
        "create or replace procedure perdure.clock() language sql as 'select 1'",
        "alter function perdure.claim owner to current_user",
        "alter table perdure.jobs disable trigger all",
        "drop schema perdure cascade",
    ):
        assert refusal(connection, statement) == "42501", statement


# What the catalogue must say of every object; each query finds what is otherwise.
LAWS = {
    "is of the owner": """
        select p.proname::text from pg_proc as p
         where p.pronamespace = 'perdure'::regnamespace and p.proowner <> current_user::regrole
        union all
        select c.relname from pg_class as c
         where c.relnamespace = 'perdure'::regnamespace and c.relowner <> current_user::regrole""",
    "looks into pg_catalog first and for temporary tables last": """
        select p.proname::text from pg_proc as p
         where p.pronamespace = 'perdure'::regnamespace and p.prosecdef
           and (p.proconfig @> '{"search_path=pg_catalog, perdure, pg_temp"}') is not true""",
    "is closed to the public": """
        select p.proname::text from pg_proc as p
          left join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g on true
         where p.pronamespace = 'perdure'::regnamespace and g.grantee = 0
        union all
        select c.relname from pg_class as c cross join aclexplode(c.relacl) as g
         where c.relnamespace = 'perdure'::regnamespace and g.grantee = 0
        union all
        select a.attname from pg_attribute as a join pg_class as c on c.oid = a.attrelid
         cross join aclexplode(a.attacl) as g
         where c.relnamespace = 'perdure'::regnamespace and g.grantee = 0
        union all
        select n.nspname from pg_namespace as n cross join aclexplode(n.nspacl) as g
         where n.nspname = 'perdure' and g.grantee = 0""",
    "cannot be passed on": """
        select p.proname::text from pg_proc as p cross join aclexplode(p.proacl) as g
         where p.pronamespace = 'perdure'::regnamespace and g.is_grantable
           and g.grantee <> p.proowner""",
    "is a barrier to functions of whoever reads it, when it is a view": """
        select c.relname::text from pg_class as c
         where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v'
           and ('security_barrier=true' = any(c.reloptions)) is not true""",
    "shows no token, when it is a view": """
        select c.relname::text from pg_class as c
          join pg_attribute as a on a.attrelid = c.oid
         where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v'
           and (a.attname ~ 'token' or a.atttypid = 'uuid'::regtype)""",
    "is created in by the owner alone": """
        select g.grantee::regrole::text from pg_namespace as n cross join aclexplode(n.nspacl) as g
         where n.nspname = 'perdure' and g.privilege_type = 'CREATE' and g.grantee <> n.nspowner""",
    "is stable, or only waits, when whoever may only read may call it": """
        select p.proname::text from pg_proc as p
         where p.pronamespace = 'perdure'::regnamespace and p.provolatile = 'v'
           and p.proname <> 'await_result'
           and (has_function_privilege({reader}, p.oid, 'execute')
                or has_function_privilege({monitor}, p.oid, 'execute'))""",
}


@pytest.mark.parametrize("law", LAWS)
def test_everything_in_an_app(house: House, enter: Enter, law: str) -> None:
    roles = {kind: f"'{house.role(kind)}'" for kind in KINDS}
    query = re.sub(r"\{(reader|monitor)\}", lambda found: roles[found[1]], LAWS[law])
    assert enter("owner").execute(query.encode()).fetchall() == []


def test_who_waits_writes_nothing(enter: Enter) -> None:
    connection = enter("reader")
    owner = enter("owner")
    owner.execute("select perdure.start('w', id => 'waited')")
    connection.execute("begin read only")
    waited = connection.execute("select perdure.await_result('waited', '10 ms')").fetchone()
    connection.execute("rollback")
    owner.execute("select perdure.terminate('waited')")
    assert waited == ("(running,,)",)
