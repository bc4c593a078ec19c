"""No role can do what it was not granted (T30): the catalog says so, and real calls confirm it."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from tests.security.matrix import COLUMNS, FILE, matrix
from tests.security.secured import KINDS, Connection, SecuredApp

ConnectAs = Callable[[str], Connection]

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
    """Read matrix.txt: what each kind of role may do with each name."""
    lines = [line.split() for line in FILE.read_text("utf-8").splitlines() if line[:1] != "#"]
    rows = [line for line in lines if len(line) == len(KINDS) + 1]
    return {name: dict(zip(KINDS, cells, strict=True)) for name, *cells in rows}


def refusal(connection: Connection, query: str) -> str | None:
    """Run a statement; return the SQLSTATE of its error, if any."""
    try:
        connection.execute(query.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


def call_with_nulls(name: str, is_procedure: bool, types: list[str]) -> str:
    """Write a call with nulls that the planner cannot fold, so that a strict function is really
    called."""
    if is_procedure:
        return f"call perdure.{name}({', '.join(f'null::{each}' for each in types)})"
    nulls = ", ".join(f"null::{each} as a{place}" for place, each in enumerate(types))
    names = ", ".join(f"n.a{place}" for place in range(len(types)))
    return f"select perdure.{name}({names}) from (select {nulls} offset 0) as n"


def test_rights_in_the_catalog_are_those_of_the_matrix_file(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    """A new verb or a changed right must be a deliberate change of that file."""
    assert matrix(connect_as("owner"), secured) == FILE.read_text("utf-8")


@pytest.mark.parametrize("role", ["nobody", "limited", *KINDS])
def test_role_can_call_only_the_functions_granted_to_it(connect_as: ConnectAs, role: str) -> None:
    """Every function is called with nulls; a granted one must not raise insufficient_privilege."""
    rights = listed()
    kind = "worker" if role == "limited" else role
    connection = connect_as(role)
    connection.execute("set statement_timeout = '20 s'")
    owner = connect_as("owner")
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
def test_role_can_only_read_the_views_granted_to_it(connect_as: ConnectAs, role: str) -> None:
    connection = connect_as(role)
    rights = listed()
    relations: dict[str, tuple[bool, str]] = {}
    for name, column, is_view, *_ in connect_as("owner").execute(COLUMNS).fetchall():
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
def test_role_cannot_create_or_change_objects_in_the_schema(
    connect_as: ConnectAs, role: str
) -> None:
    """(S1) (S13) The verbs would find such objects and run them with the rights of the owner."""
    connection = connect_as(role)
    for statement in (
        "create table perdure.planted (n integer)",
        "create function perdure.planted() returns integer language sql as 'select 1'",
        "create or replace procedure perdure.clock() language sql as 'select 1'",
        "alter function perdure.claim owner to current_user",
        "alter table perdure.jobs disable trigger all",
        "drop schema perdure cascade",
    ):
        assert refusal(connection, statement) == "42501", statement


# Rules for every object in the catalog; each query selects the violations.
RULES = {
    "belongs to the owner": """
        select p.proname::text from pg_proc as p
         where p.pronamespace = 'perdure'::regnamespace and p.proowner <> current_user::regrole
        union all
        select c.relname from pg_class as c
         where c.relnamespace = 'perdure'::regnamespace and c.relowner <> current_user::regrole""",
    "searches pg_catalog first and temporary tables last": """
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
    "has no grant option": """
        select p.proname::text from pg_proc as p cross join aclexplode(p.proacl) as g
         where p.pronamespace = 'perdure'::regnamespace and g.is_grantable
           and g.grantee <> p.proowner""",
    "if a view, is a security barrier": """
        select c.relname::text from pg_class as c
         where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v'
           and ('security_barrier=true' = any(c.reloptions)) is not true""",
    "if a view, shows no token": """
        select c.relname::text from pg_class as c
          join pg_attribute as a on a.attrelid = c.oid
         where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v'
           and (a.attname ~ 'token' or a.atttypid = 'uuid'::regtype)""",
    "only the owner may create objects": """
        select g.grantee::regrole::text from pg_namespace as n cross join aclexplode(n.nspacl) as g
         where n.nspname = 'perdure' and g.privilege_type = 'CREATE' and g.grantee <> n.nspowner""",
    "if readers may call it, is stable or only waits": """
        select p.proname::text from pg_proc as p
         where p.pronamespace = 'perdure'::regnamespace and p.provolatile = 'v'
           and p.proname <> 'await_result'
           and (has_function_privilege({reader}, p.oid, 'execute')
                or has_function_privilege({monitor}, p.oid, 'execute'))""",
}


@pytest.mark.parametrize("rule", RULES)
def test_every_object_in_the_schema_follows_the_rule(
    secured: SecuredApp, connect_as: ConnectAs, rule: str
) -> None:
    roles = {kind: f"'{secured.role(kind)}'" for kind in KINDS}
    query = re.sub(r"\{(reader|monitor)\}", lambda found: roles[found[1]], RULES[rule])
    assert connect_as("owner").execute(query.encode()).fetchall() == []


def test_reader_can_wait_for_a_result_in_a_read_only_transaction(connect_as: ConnectAs) -> None:
    connection = connect_as("reader")
    owner = connect_as("owner")
    owner.execute("select perdure.start('w', id => 'waited')")
    connection.execute("begin read only")
    waited = connection.execute("select perdure.await_result('waited', '10 ms')").fetchone()
    connection.execute("rollback")
    owner.execute("select perdure.terminate('waited')")
    assert waited == ("(running,,)",)
