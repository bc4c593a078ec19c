"""Logical replication moves an app to another server, by the steps in `sql/upgrading.md`. [P13]

Clients and workers continue while the rows are copied. When they have stopped, both servers have
the same rows. The new one executes nothing until it is adopted, and then continues: no job is lost,
and no activity runs again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.errors import InstanceNotAdopted, translated
from tests.cluster.load import BOOK, Load, T
from tests.cluster.machines import Machine, wait_for

PAGE = Path(__file__).parents[2] / "sql" / "upgrading.md"
SECTION = "## Moving by logical replication"
PG_15 = Path("/usr/lib/postgresql/15/bin")

DIGEST = "select count(*), md5(string_agg(t::text, ' ' order by t::text)) from {} as t"
PUBLISHED = """
select relname from pg_class
 where relnamespace = 'perdure'::regnamespace and relkind = 'r' and relpersistence = 'p'
 order by 1
"""


class Move:
    """The commands of the page, for the app `perdure` of two servers."""

    def __init__(self, old: Machine, new: Machine, folder: Path):
        program = folder / "perdure"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
        program.chmod(0o755)
        path = [os.fspath(folder), os.fspath(new.bindir), os.environ["PATH"]]
        package = os.fspath(Path(perdure.__file__).parents[1])
        self._environment = os.environ | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": package,
            "OLD": old.url(),
            "NEW": new.url(),
        }
        section = PAGE.read_text("utf-8").partition(SECTION)[2].partition("\n## ")[0]
        self._blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)

    def __call__(self, beginning: str) -> str:
        """Run the block with this command, and return what it prints."""
        [block] = [block for block in self._blocks if beginning in block]
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace("my_app", "perdure")],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()


@pytest.fixture(params=["the same", "15"])
def old(
    request: pytest.FixtureRequest,
    machines: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    """Provide a server that can publish, with the app; of the same version as others, or older."""
    with monkeypatch.context() as patched:
        if request.param == "15":
            if not PG_15.exists():
                pytest.skip("there is no PostgreSQL 15 here")
            patched.setenv("PERDURE_PG_BINDIR", os.fspath(PG_15))
        made = machines(settings={"wal_level": "logical"})
    made.start()
    made.provide()
    return made


def program(runs: Counter[tuple[str, int]]) -> perdure.App:
    """Return an app that counts how often each activity runs."""
    app = perdure.App()

    @app.activity
    async def page(job: str, number: int) -> int:
        runs[job, number] += 1
        return number

    @app.coordinator
    async def book(memory: perdure.AsyncEntity, pages: int) -> Any:
        for number in range(pages):
            await memory.append("pages", await page(memory.id, number))
        return BOOK

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return [await page(memory.id, 1), await perdure.wait_for("go"), await page(memory.id, 2)]

    return app


def rows(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return a digest of each table's rows."""
    tables = [name for (name,) in connection.execute(PUBLISHED.encode())]
    return {name: connection.execute(DIGEST.format(name).encode()).fetchone() for name in tables}


def assert_is_a_copy(connection: psycopg.Connection[Any]) -> None:
    """Check that it executes nothing, and that nothing is wrong with it but its sequence."""
    with pytest.raises(InstanceNotAdopted), translated():
        connection.execute("select claim('{default}', 'ada')")
    codes = connection.execute("select distinct code from assert_invariants()").fetchall()
    assert codes == [("I21",)]


def test_app_moves_to_another_server_while_everybody_works(
    old: Machine, machines: Callable[..., Machine], tmp_path: Path
) -> None:
    new = machines()
    new.start()
    move = Move(old, new, tmp_path)
    runs: Counter[tuple[str, int]] = Counter()
    app = program(runs)
    with ExitStack() as stack:
        client = stack.enter_context(perdure.connect(old.url(), provision=False))
        client.create_index("counter", "n", "number")
        waiting = [client.start("waits", id=f"waits {n}") for n in range(10)]
        waiting[0].signal("nobody takes it")
        with perdure.Worker(app, dsn=old.url(), provision=False), Load(old.url()) as load:
            load.go_on(50)
            move("create subscription")
            wait_for(lambda: move("srsubstate") == "0")
            load.go_on(50)
            wait_for(lambda: all(runs[job.id, 1] for job in waiting))
    move("default_transaction_read_only")
    wait_for(lambda: move("confirmed_flush_lsn") == "t")
    with old.connect() as original, new.connect() as copy:
        assert rows(copy) == rows(original)
        assert_is_a_copy(copy)
    move("drop subscription")
    new.check()
    with (
        perdure.connect(new.url()) as client,
        perdure.Worker(app, dsn=new.url()),
    ):
        for job in waiting:
            client.handle(job.id).signal("go")
        assert [client.handle(job.id).result(T) for job in waiting] == [[1, None, 2]] * 10
        load.check(client)
        assert [index.state for index in client.indexes()] == ["valid"]
    assert set(runs.values()) == {1}
    new.check()
