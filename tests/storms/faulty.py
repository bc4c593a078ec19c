"""An unreliable driver, and a plugin of pytest that applies it to ordinary tests (T9):
`PERDURE_FAULTS=0.01 pytest -p tests.storms.faulty …`

Of the statements that the package sends on its own connections, that share meets one of these
faults: an error before it was sent (the connection is lost, or the server refuses for the moment);
a timeout (it was not executed, and the connection is good); or it was executed, and the answer is
lost with the connection, so the caller cannot know.

Connections of the tests and of users meet no faults, and neither do those that install the app or
build an index: there the caller repeats the whole. Workers in separate processes meet faults too,
except those of the command line. PERDURE_RACE_SEED repeats a run as far as threads allow.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.storms.figures import note, outcome

NAMES = frozenset(
    f"perdure {what}"
    for what in (
        "client", "heartbeat", "listens", "reads", "result", "streams", "transaction", "waits",
        "worker",
    )
)  # fmt: skip
"""Connections whose statements the package repeats."""

WITHOUT_KEY = re.compile(
    rb"\.(cancel\w*|terminate|pause\w*|resume\w*|repin|forget\w*|drop_\w+|trigger_schedule"
    rb"|skip_time|move_clock)\("
)
"""Verbs without a key: a repeated call finds nothing left to do, or does it again. Here their
replies are not lost; `test_replies_of_clients.py` loses those of the first kind."""

FAULTS = ("connection lost", "refused", "timeout", "carried out, answer lost")
REFUSALS = (
    psycopg.errors.TooManyConnections,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


@dataclass
class Driver:
    """psycopg, with faults in a share of the statements."""

    share: float
    chance: random.Random
    spared: frozenset[str] = frozenset()
    """Connections that meet no faults."""
    done: Counter[str] = field(default_factory=Counter)
    """Statements, and faults by name."""

    @contextmanager
    def in_place(self) -> Iterator[Counter[str]]:
        """Replace the execute methods of psycopg."""
        execute, execute_async = psycopg.Cursor.execute, psycopg.AsyncCursor.execute

        def faulty(cursor: Any, *args: Any, **options: Any) -> Any:
            fault = self._before(cursor, args[0])
            answer = execute(cursor, *args, **options)
            self._after(cursor, fault)
            return answer

        async def faulty_async(cursor: Any, *args: Any, **options: Any) -> Any:
            fault = self._before(cursor, args[0])
            answer = await execute_async(cursor, *args, **options)
            self._after(cursor, fault)
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psycopg.Cursor, "execute", faulty)
            patch.setattr(psycopg.AsyncCursor, "execute", faulty_async)
            yield self.done

    def _drawn(self, connection: Any, query: Any) -> str | None:
        """Draw the fault of a statement; mostly none.

        In an open transaction only the connection can be lost, because the server would notice
        other faults.
        """
        if connection.info.parameter_status("application_name") not in NAMES - self.spared:
            return None
        self.done["statements"] += 1
        if self.chance.random() >= self.share:
            return None
        if connection.info.transaction_status == TransactionStatus.INTRANS:
            return "connection lost"
        may_lose = not (isinstance(query, bytes) and WITHOUT_KEY.search(query))
        return self.chance.choice(FAULTS if may_lose else FAULTS[:-1])

    def _before(self, cursor: Any, query: Any) -> str | None:
        """Raise the fault that replaces the statement, or return the fault that follows it."""
        fault = self._drawn(cursor.connection, query)
        if fault is None:
            return None
        self.done[fault] += 1
        if fault == "connection lost":
            cursor.connection.pgconn.finish()
            raise psycopg.OperationalError("the connection is lost (a fault)")
        if fault == "refused":
            raise self.chance.choice(REFUSALS)("not now (a fault)")
        if fault == "timeout":
            raise psycopg.errors.QueryCanceled("canceled due to statement timeout (a fault)")
        return fault

    def _after(self, cursor: Any, fault: str | None) -> None:
        """Lose the answer."""
        if fault is not None:
            cursor.connection.pgconn.finish()
            raise psycopg.OperationalError("the answer is lost (a fault)")


# The plugin.

SEED = os.environ.get("PERDURE_RACE_SEED") or str(random.randrange(1_000_000))
DRIVER = Driver(float(os.environ.get("PERDURE_FAULTS", "0.01")), random.Random(SEED))
FOR_GOOD = ExitStack()


def meet_faults() -> None:
    """Apply the faults to this process, which a test with faults has started, until it ends."""
    FOR_GOOD.enter_context(DRIVER.in_place())


@pytest.fixture(autouse=True, scope="session")
def unreliable_driver() -> Iterator[None]:
    """Apply the faults to every test."""
    with DRIVER.in_place():
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that cannot run with faults, or spare the connections that they name: `steady("it
    counts its runs", "transaction")`."""
    DRIVER.spared = frozenset()
    if marker := item.get_closest_marker("steady"):
        why, *names = marker.args
        DRIVER.spared = frozenset(f"perdure {name}" for name in names)
        if not names:
            pytest.skip(f"without faults only: {why}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a process of pytest-xdist."""
    DRIVER.done.update(node.workeroutput["faults"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts to the main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = dict(DRIVER.done)


def pytest_report_header() -> str:
    """Report the share of faults and the seed of this run."""
    return f"faults: {DRIVER.share:.1%} of the statements, PERDURE_RACE_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of faults."""
    terminalreporter.section("faults")
    for name in ("statements", *FAULTS):
        terminalreporter.line(f"{DRIVER.done[name]:>8,}  {name}")
    note(
        "faults",
        f"`make faults SHARE={DRIVER.share}` has run {outcome(terminalreporter)}: of"
        f" {DRIVER.done['statements']:,} statements {sum(DRIVER.done[name] for name in FAULTS):,}"
        f" failed, timed out or lost their answers; {DRIVER.done[FAULTS[-1]]:,} of these had been"
        " executed. Workers in separate processes met more faults, which are not counted.",
    )
