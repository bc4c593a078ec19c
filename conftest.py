"""The test harness for `tests/` and `pgtap/`: one server per run, and a new database per test.

`--postgres embedded | docker:16 | url:postgresql://…` or `$PERDURE_TEST_DATABASE_URL` chooses the
server. A test that uses `dsn` gets its own database with the app `perdure`; after the test, the
invariants of that app must hold. With `PERDURE_TEST_POOLER=1` workers and clients connect through
PgBouncer; with `PERDURE_TEST_SILENCE=1` no notification is sent. With `PERDURE_NO_SKIPS=1` a test
fails if its server, program or package is missing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_pgtap.plugin import PgTapFile

import perdure
from perdure.embedded.server import Server
from perdure.installation.install import install
from tests.cluster.poolers import MANY, pooler
from tests.databases import (
    HOME,
    POOLED,
    SCHEMA,
    SILENT,
    UNHINTED,
    Connection,
    broken_invariants,
    connected,
    keep_settings,
)
from tests.fetch_pgtap import NoPgTap
from tests.servers import SILENCE, AnyServer, database_of, opened
from tests.storms.figures import FIGURES, Figures, cited, note, outcome, tell
from tests.taps import FIXTURES, PGTAP, load_pgtap

os.environ.pop("PERDURE_SCHEMA", None)  # the app of whoever runs the tests is not theirs
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as after `make test &` in a script
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the server."""
    parser.addoption(
        "--postgres",
        metavar="WHERE",
        help="embedded (default), docker:TAG or url:DSN; also $PERDURE_TEST_DATABASE_URL",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the files of `pgtap/` by any name; the plugin itself takes only `test*.sql`."""
    ours = file_path.suffix == ".sql" and PGTAP in file_path.parents
    if ours and file_path != FIXTURES and not file_path.name.startswith("test"):
        return PgTapFile.from_parent(parent, path=file_path)
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many of the mutants of the engine were noticed, and what the storms did."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    mutants = [
        report.passed
        for report in reports
        if getattr(report, "when", None) == "call" and "mutant" in dict(report.user_properties)
    ]
    if mutants:
        terminalreporter.write_line(f"mutants killed {sum(mutants)}/{len(mutants)}")
    tell(terminalreporter)
    if POOLED:
        skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
        direct = sum("directly only" in reason for reason in skipped)
        note(
            "pooled",
            f"`make pooled` has run {outcome(terminalreporter)}, through PgBouncer in transaction"
            f" mode; {direct} are about sessions or notifications, and were passed by.",
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `make figures`, run only the tests that report figures."""
    if os.environ.get("PERDURE_FIGURES"):
        giving = {"brewing", "figures"}
        items[:] = [item for item in items if giving & {*getattr(item, "fixturenames", ())}]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need the server itself, or its notifications, where these are missing."""
    if (POOLED or SILENT) and (marker := item.get_closest_marker("direct")):
        pytest.skip(f"directly only: {marker.args[0]}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[..., Figures]]:
    """Give a function that begins a row of figures for the page of guarantees; the test fills
    it."""
    rows: list[Figures] = []
    began, failed = time.monotonic(), request.session.testsfailed

    def begin(name: str, seed: str = "") -> Figures:
        rows.append(Figures(name, seed, cited(request.function.__doc__)))
        return rows[-1]

    yield begin
    for row in rows:
        row.seconds = time.monotonic() - began
        row.violations = request.session.testsfailed - failed
        request.node.user_properties.append((FIGURES, row.row()))


MAY_BE_SKIPPED = [
    *("only who may mount", "the right to write", "only root"),
    "`make cluster`",  # takes too long
    *("directly only", "without faults only"),  # asked for by options
]
"""Reasons to skip a test although nothing is missing."""
if "PERDURE_PG_BINDIR" not in os.environ:
    MAY_BE_SKIPPED.append("no plpgsql_check")  # only Debian's servers have it
else:
    MAY_BE_SKIPPED.append("no pgvector")  # only the embedded server has it
    MAY_BE_SKIPPED += ["no transaction_timeout", "no max_notify_queue_pages"]  # since PostgreSQL 17
if sys.version_info < (3, 12):
    MAY_BE_SKIPPED += ["no `type` statement", "no `class Box[T]`"]
if sys.version_info >= (3, 14):
    MAY_BE_SKIPPED.append("perdure[lint]")  # while pgspot's parser has no wheel


def no_skip(report: Any) -> Any:
    """Turn a skip for any other reason into a failure, where nothing may be missing."""
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    if is_skipped and os.environ.get("PERDURE_NO_SKIPS"):
        reason = report.longrepr[2]
        if not any(known in reason for known in MAY_BE_SKIPPED):
            report.outcome, report.longrepr = (
                "failed",
                f"skipping is not allowed in this run: {reason}",
            )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Check tests that are skipped."""
    return no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Check files that are skipped."""
    return no_skip((yield))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[AnyServer]:
    """Give the server of this run; `server.url(dbname)` is a connection string."""
    given = os.environ.get("PERDURE_TEST_DATABASE_URL")
    default = f"url:{given}" if given else "embedded"
    try:
        with opened(request.config.getoption("--postgres") or default) as server:
            yield server
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Give an embedded server for this test alone, which it may stop, restart and crash.
    Acknowledged commits survive a crash of the server, though not of the machine."""
    with Server(settings={"synchronous_commit": "on"}) as server:
        yield server


@pytest.fixture(scope="session")
def template(server: AnyServer) -> Iterator[str]:
    """Give the name of a database with the app, from which the databases of tests are copied."""
    with database_of(server, "template") as name:
        with psycopg.connect(server.url(name), autocommit=True) as connection:
            install(connection, SCHEMA)
            if SILENT:
                connection.execute(SILENCE)
        yield name


@pytest.fixture
def database(server: AnyServer) -> Iterator[str]:
    """Give the connection string of a new, empty database."""
    with database_of(server, "empty") as name:
        yield server.url(name)


@pytest.fixture
def own_database(request: pytest.FixtureRequest, server: AnyServer, template: str) -> Iterator[str]:
    """Give the name of a new database with the app `perdure`."""
    with database_of(server, "test", template) as name:
        keep_settings(server.url(name), search_path=HOME)
        yield name
        if request.node.get_closest_marker("broken_invariants") is None:
            assert broken_invariants(server.url(name)) == []


@pytest.fixture(scope="session")
def entrance(server: AnyServer) -> Iterator[AnyServer]:
    """Give the server that workers and clients connect to, or a pooler with
    PERDURE_TEST_POOLER=1."""
    if POOLED:
        with pooler(server.url(), MANY) as entrance:
            yield entrance
    else:
        yield server


@pytest.fixture
def dsn(own_database: str, entrance: AnyServer) -> str:
    """Give the connection string of a new database with the app `perdure`."""
    return entrance.url(own_database)


@pytest.fixture
def schema() -> str:
    """Give the name of the app's schema."""
    return SCHEMA


@pytest.fixture
def connect(own_database: str, entrance: AnyServer) -> Iterator[Callable[[], Connection]]:
    """Give a function that opens another connection to the test's database."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(connected(entrance.url(own_database)))


@pytest.fixture
def connection(connect: Callable[[], Connection]) -> Connection:
    """Give an autocommit connection to the test's database, with the app in the search path."""
    return connect()


@pytest.fixture
def app() -> perdure.App:
    """Give an empty app."""
    return perdure.App()


@pytest.fixture
def client(dsn: str) -> Iterator[perdure.Client]:
    """Give a client of the test's database."""
    with perdure.connect(dsn) as client:
        yield client


@pytest.fixture
def work(dsn: str, app: perdure.App) -> Iterator[Callable[..., perdure.Worker]]:
    """Give a function that starts a worker of the app: `work(slots=1)`."""
    with ExitStack() as stack:

        def start(app: perdure.App = app, **options: Any) -> perdure.Worker:
            return stack.enter_context(perdure.Worker(app, dsn=dsn, **UNHINTED | options))

        yield start


@pytest.fixture(scope="session")
def pgtap_connection(server: AnyServer, entrance: AnyServer, template: str) -> Iterator[Connection]:
    """Give pytest-pgtap a database with the app, pgTAP and the functions of `fixtures.sql`."""
    with database_of(server, "pgtap", template) as name:
        keep_settings(server.url(name), search_path=("tap", SCHEMA, "public"))
        with connected(entrance.url(name)) as connection:
            try:
                load_pgtap(connection, SCHEMA)
            except NoPgTap as error:
                pytest.fail(str(error), pytrace=False)
            connection.autocommit = False
            yield connection
