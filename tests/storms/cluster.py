"""A cluster of the storms' own: it is crashed and killed, and its log is read."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from perdure.embedded.server import Server
from tests.servers import adopt

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "deadlock_timeout": "10ms",
    "log_min_messages": "warning",
    "log_line_prefix": "%p %e ",
    "max_connections": "300",
}

OURS = "application_name like 'perdure%'"
"""The connections of workers and clients; those of the tests have other names."""

COMES_BACK_WITHIN = 30.0
"""Seconds that a recovery may take."""

T = TypeVar("T")

_numbers = itertools.count(1)

LINE = re.compile(r"^\d+ (\w{5}) (ERROR|FATAL|PANIC): +(.*)$", re.MULTILINE)

WRONG = re.compile(
    r"^.*(PANIC:|TRAP:| 40P01 | XX\d\d\d |was terminated by signal 11).*$", re.MULTILINE
)
"""Lines of the server's log that no fault of a storm explains."""


class Cluster:
    """A server that a test may crash, and whose processes it may kill and stop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._read_from = 0

    def run(self, query: str, *values: Any, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""
        with psycopg.connect(
            self.url(dbname), autocommit=True, application_name="storm"
        ) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database and drop it, whatever has happened to the server in between.

        A template that contains an app makes a copy of it, which is adopted.
        """
        name = f"perdure_storm_{next(_numbers)}"
        self.run(f"create database {name} template {template} strategy file_copy")
        self.run(f"alter database {name} set plpgsql.extra_errors = 'all'")
        if template != "template0":
            adopt(self.url(name))
        try:
            yield name
        finally:
            self.wait_until_it_answers()
            self.run(f"drop database {name} with (force)")

    def url(self, dbname: str) -> str:
        """Return the DSN of a database for observers, without any limits."""
        no_limits = "-c statement_timeout=0 -c lock_timeout=0"
        return make_conninfo(self.server.url(dbname), options=no_limits)

    # Faults. Each is over when its method returns, or ends by itself.

    def crash(self) -> None:
        """Stop the server on the spot, without a checkpoint, and start it again."""
        self.server.crash()

    def kill(self) -> None:
        """Kill the postmaster by `kill -9`, and start another."""
        pid = int((self.server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        self.server.start()
        self.wait_until_it_answers()

    def kill_backend(self, chance: random.Random) -> None:
        """Kill a backend by `kill -9`; the server restarts all others."""
        pids = [row[0] for row in self.run(f"select pid from pg_stat_activity where {OURS}")]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
            self.wait_until_it_answers()

    def stop_process(self, kind: str, seconds: float) -> None:
        """Stop a process of the server for a while: the checkpointer or the walwriter."""
        query = "select pid from pg_stat_activity where backend_type = %s"
        with suppress(ProcessLookupError):
            for (pid,) in self.run(query, kind):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(pid, signal.SIGCONT)

    def end_sessions(self, chance: random.Random, share: float) -> None:
        """Terminate a share of the connections."""
        self._signal_sessions("pg_terminate_backend", chance, share)

    def cancel_statements(self, chance: random.Random, share: float) -> None:
        """Cancel the statements of a share of the connections."""
        self._signal_sessions("pg_cancel_backend", chance, share)

    def _signal_sessions(self, function: str, chance: random.Random, share: float) -> None:
        pids = [pid for (pid,) in self.run(f"select pid from pg_stat_activity where {OURS}")]
        chosen = [pid for pid in sorted(pids) if chance.random() < share]
        self.run(f"select {function}(pid) from unnest(%s::integer[]) as pid", chosen)

    def limit_sessions(self, dbname: str, **limits: str) -> None:
        """Set a limit for new sessions, or reset it if the value is empty: `lock_timeout`."""
        for name, value in limits.items():
            how = f"set {name} = '{value}'" if value else f"reset {name}"
            self.run(f'alter database "{dbname}" {how}')

    def wait_until_it_answers(self) -> None:
        """Wait for the end of a recovery."""
        self.when_it_answers(lambda: self.run("select 1"))

    def when_it_answers(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer, because a recovery may begin a moment after its cause."""
        until = time.monotonic() + COMES_BACK_WITHIN
        while True:
            try:
                return ask()
            except psycopg.OperationalError:
                assert time.monotonic() < until, "the server does not come back"
                time.sleep(0.01)

    # The log.

    def log(self) -> str:
        """Read the log of the server since the last storm."""
        with (self.server.folder / "log").open("rb") as file:
            file.seek(self._read_from)
            return file.read().decode(errors="replace")

    def begin_log(self) -> None:
        """Read the log from here on."""
        self._read_from = (self.server.folder / "log").stat().st_size

    def wrong_lines(self) -> list[str]:
        """Return the lines of the log that must never appear."""
        return [found[0] for found in WRONG.finditer(self.log())]

    def errors(self) -> Counter[str]:
        """Count the errors in the log by their codes."""
        return Counter(code for code, _, _ in LINE.findall(self.log()))


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """Start a cluster; acknowledged data survives its processes, but not the machine."""
    with Server(settings=SETTINGS) as server:
        yield Cluster(server)
