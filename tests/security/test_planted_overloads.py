"""What others plant in a schema of the search path is never called by the statements of the package
(S1) (S3) (S13).

PostgreSQL prefers a function or an operator whose types fit exactly, wherever in the search path it
is. So one that is found by a looser fit (`array_to_string(anyarray, text)`, `oid = regproc`) could
be replaced by whoever may create objects in `public`, and would run with the rights of the caller.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest

import perdure
from perdure.cli.main import main
from perdure.installation.install import check_app, install, reload_functions
from perdure.testing.lab import Lab
from tests.security.secured import Connection, SecuredApp, secured_app
from tests.security.test_roles import T, program
from tests.servers import AnyServer
from tests.source import literals, python_files

TYPES = [
    *("text", "text[]", "name", "name[]", "oid", "regproc", "regrole", "regclass", "integer"),
    *("integer[]", "bigint", "numeric", "boolean", "json", "jsonb", "timestamptz", "interval"),
    *("uuid", '"char"'),
]
OPERATORS = ["=", "<>", "<", ">", "<=", ">=", "||", "~", "!~", "->>", "@>"]

BODY = """language plpgsql as $$
begin
    perform pg_catalog.nextval('public.sprung');  -- what no rollback undoes
    raise exception 'what was planted is called: {}';
end $$;
"""

DOMAINS = """
select t.oid::regtype::text
  from pg_type as t
 where t.typnamespace = 'perdure'::regnamespace
   and t.typtype = 'd'
"""

FUNCTIONS = """
select distinct p.proname, array_to_string(given.types, ', ')
  from pg_proc as p
 cross join lateral (
    select array[a] from unnest(%(types)s::regtype[]) as a where p.pronargs = 1
     union all
    select array[a, b] from unnest(%(types)s::regtype[]) as a, unnest(%(types)s::regtype[]) as b
     where p.pronargs = 2
     union all
    select array[a, 'text', b]
      from unnest(%(types)s::regtype[]) as a, unnest('{text,boolean}'::regtype[]) as b
     where p.pronargs = 3) as given (types)
 where p.pronamespace = 'pg_catalog'::regnamespace
   and p.proname = any(%(names)s)
   and not exists (
    select
      from pg_proc as e
     where e.pronamespace = p.pronamespace
       and e.proname = p.proname
       and e.proargtypes = array_to_string(given.types::oid[], ' ')::oidvector)
 union
select p.proname, t.oid::regtype::text
  from pg_type as t, unnest('{to_jsonb,row_to_json}'::text[]) as p (proname)
 where t.typnamespace = 'perdure'::regnamespace
   and t.typtype = 'c'
"""
"""What can be planted: the names that the package uses, for all types for which the server has no
such function exactly."""

PAIRS = """
select o.name, a::text, b::text
  from unnest(%(names)s::text[]) as o (name),
       unnest(%(types)s::regtype[]) as a, unnest(%(types)s::regtype[]) as b
 where not exists (
    select
      from pg_operator as e
     where e.oprnamespace = 'pg_catalog'::regnamespace
       and e.oprname = o.name
       and e.oprleft = a
       and e.oprright = b)
"""
"""The same for operators."""


def plant(connection: Connection) -> None:
    """Create every function and operator that a statement of the package could find."""
    said = " ".join(text for file in python_files() for _, text in literals(file))
    types = [*TYPES, *(name for (name,) in connection.execute(DOMAINS))]
    given = {"types": types, "names": sorted(set(re.findall(r"(\w+)\(", said)))}
    functions = connection.execute(FUNCTIONS, given).fetchall()
    operators = connection.execute(PAIRS, {"types": types, "names": OPERATORS}).fetchall()
    assert len(functions) > 1000
    assert len(operators) > 1000
    statements = [
        f"create function public.{name}({types}) returns text {BODY.format(name)}"
        for name, types in functions
    ]
    for place, (name, left, right) in enumerate(operators):
        statements.append(
            f"create function public.o{place}({left}, {right}) returns boolean {BODY.format(name)}"
            f"create operator public.{name} (leftarg = {left}, rightarg = {right},"
            f" function = public.o{place});"
        )
    for start in range(0, len(statements), 500):  # each takes locks until the transaction ends
        connection.execute("".join(statements[start : start + 500]).encode())


@pytest.fixture(scope="module")
def planted(server: AnyServer) -> Iterator[SecuredApp]:
    """Give an app in whose database `public` holds what others could plant there."""
    with secured_app(server) as secured:
        with psycopg.connect(secured.url, autocommit=True) as admin:
            admin.execute("create sequence public.sprung; grant all on public.sprung to public")
            plant(admin)
        yield secured


@pytest.fixture
def is_sprung(planted: SecuredApp) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether anything planted was called; nothing may be."""
    with psycopg.connect(planted.url, autocommit=True) as admin:

        def is_sprung() -> bool:
            row = admin.execute("select is_called from public.sprung").fetchone()
            return row is None or bool(row[0])

        admin.execute("select pg_catalog.setval('public.sprung', 1, false)")
        yield is_sprung


def test_what_is_planted_would_be_called(
    planted: SecuredApp, is_sprung: Callable[[], bool]
) -> None:
    """A control."""
    with psycopg.connect(planted.url, autocommit=True) as admin:
        for query in ("select array_to_string('{a}'::text[], ',')", "select 1::oid = 1::regproc"):
            with pytest.raises(psycopg.errors.RaiseException, match="planted"):
                admin.execute(query.encode())
    assert is_sprung()


@pytest.mark.parametrize("owner", [True, False])
def test_installer_calls_nothing_that_is_planted(
    planted: SecuredApp, is_sprung: Callable[[], bool], owner: bool
) -> None:
    dsn = planted.dsn("owner") if owner else planted.url
    with psycopg.connect(dsn, autocommit=True) as connection:
        install(connection, "perdure")
        reload_functions(connection, "perdure")
        check_app(connection, "perdure")
        install(connection, "another")
        connection.execute("drop schema another cascade")
    assert not is_sprung()


def test_workers_and_clients_call_nothing_that_is_planted(
    planted: SecuredApp, is_sprung: Callable[[], bool]
) -> None:
    with psycopg.connect(planted.dsn("owner"), autocommit=True) as owner:
        owner.execute("""
            create function perdure.count_up(job text, args jsonb) returns jsonb language plpgsql
            set search_path = pg_catalog, perdure, pg_temp as $$
            begin return to_jsonb(entity_increment(job, 'n')); end $$""")
    with perdure.connect(planted.dsn("owner")) as client:
        client.register_sql_hook("count up", "perdure.count_up", timeout="5 s")
        client.create_index("flow", "doubled", "number")
        with perdure.Worker(program(), dsn=planted.dsn("worker")):
            handle = client.start("flow", id="whole", entity="flow")
            handle.signal("go", 1)
            handle.memory.set(True, "open")
            assert [item.item for item in handle.stream("numbers", timeout=T)] == [2]
            assert handle.result(T) == [4, 5, 1, True]
            client.create_entity("note-1", "note", {"n": 1})
            client.handle("note-1").hook("count up", queue="$sql")
            assert client.entity("note-1").until("$.n == 2", timeout=T) > 0
        client.drop_index("flow", "doubled", "number")
    with psycopg.connect(planted.dsn("owner"), autocommit=True) as owner:
        owner.execute("call perdure.run_sql_hooks()")
    assert not is_sprung()


COMMANDS = (
    *("install", "check", "jobs", "status whole", "timeline whole", "memory whole"),
    *("history whole", "family whole", "find flow", "queue list", "schedule list", "hook list"),
    *("index list", "items", "replay --job whole tests.security.test_planted_overloads:app"),
)

app = program()
"""What the command `replay` runs again."""


@pytest.mark.parametrize("command", COMMANDS)
def test_command_calls_nothing_that_is_planted(
    planted: SecuredApp,
    is_sprung: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """Superusers run commands too."""
    with psycopg.connect(planted.dsn("owner"), autocommit=True) as owner:
        owner.execute("set search_path = pg_catalog")
        owner.execute("select perdure.start('flow', id => 'whole', if_exists => 'existing')")
    monkeypatch.setenv("PERDURE_DATABASE_URL", planted.url)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr(sys, "argv", ["perdure", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not is_sprung()
    assert ended.value.code in (0, None)


def test_lab_calls_nothing_that_is_planted(
    planted: SecuredApp, is_sprung: Callable[[], bool]
) -> None:
    later = perdure.App()

    @later.coordinator
    async def tomorrow(memory: perdure.AsyncEntity) -> str:
        await perdure.sleep("1 day")
        return "done"

    with Lab(later, dsn=planted.url) as lab:
        assert lab.run(tomorrow) == "done"
        lab.check()
    assert not is_sprung()
