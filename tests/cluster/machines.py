"""Servers of a test: they can be killed, copied to a standby, promoted, and given a clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from perdure.embedded import binaries
from perdure.embedded.postmaster import PORT, Postmaster
from perdure.installation.install import install

DURABLE_ENOUGH = {
    "fsync": "off",  # a server is killed here, never the machine
    "full_page_writes": "off",
    "max_connections": "60",
    "wal_receiver_status_interval": "1s",
    "log_min_messages": "fatal",
}
SOON = 20.0


CAUGHT_UP = """
select bool_and(flush_lsn >= pg_current_wal_lsn())
  from pg_stat_replication
 where state = 'streaming'
"""


class Machine(Postmaster):
    """A server that a test treats badly, in a temporary folder."""

    def __init__(self, folder: Path, settings: Mapping[str, str]):
        account = binaries.account(folder / "data")
        bindir = binaries.reachable(binaries.find(), account)
        super().__init__(
            {
                "folder": os.fspath(folder),
                "bindir": os.fspath(bindir),
                "account": account,
                "settings": DURABLE_ENOUGH | settings,
                "throwaway": True,
            }
        )
        (folder / "log").touch()
        self.make_run_folder()

    def url(self, dbname: str = "postgres") -> str:
        """Return the connection string of a database."""
        return dsn_of([self], dbname)

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as tests do."""
        connection = psycopg.connect(self.url(dbname), autocommit=True)
        connection.execute("set search_path = pg_catalog, perdure, public")
        return connection

    def provide(self) -> None:
        """Install the app."""
        with self.connect() as connection:
            install(connection, "perdure")

    def begin_as(self, other: Machine) -> None:
        """Copy the data of a stopped server."""
        subprocess.run(["cp", "-a", other.data, self.data], check=True)

    def await_workers(self, count: int, dbname: str = "postgres") -> None:
        """Wait until so many workers have registered."""
        with self.connect(dbname) as connection:
            query = "select count(*) from workers"
            wait_for(lambda: connection.execute(query).fetchall() == [(count,)])

    def move_log(self, folder: Path) -> None:
        """Move the write-ahead log to another folder."""
        log = self.data / "pg_wal"
        subprocess.run(["cp", "-a", log, folder], check=True)
        shutil.rmtree(log)
        log.symlink_to(folder)

    def writes(self) -> bool:
        """Switch to a new segment of the log, and return whether that was possible."""
        try:
            with self.connect() as connection:
                connection.execute("select pg_logical_emit_message(false, '', 'x')")
                connection.execute("select pg_switch_wal()")
        except psycopg.Error:
            return False
        return True

    def check(self, dbname: str = "postgres") -> None:
        """Check that the invariants hold, and that each memory is the sum of its commands."""
        with self.connect(dbname) as connection:
            assert connection.execute("select * from assert_invariants()").fetchall() == []
            assert (
                connection.execute("select * from assert_histories(max_jobs => 100000)").fetchall()
                == []
            )

    def pids(self, like: str = "") -> list[int]:
        """Return the server's processes, or those whose title contains a text."""
        assert self.process is not None
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in children if like in _title(int(pid))]

    def kill(self) -> None:
        """Kill all processes of the server at once, as if the machine were gone."""
        if self.process is None:
            return
        doomed = [self.process.pid, *self.pids()]
        for send in (signal.SIGSTOP, signal.SIGKILL):  # no process notices the death of another
            for pid in doomed:
                with suppress(ProcessLookupError):
                    os.kill(pid, send)
        self.process.wait()
        self.process = None
        wait_for(lambda: not any(_lives(pid) for pid in doomed))

    def promote(self) -> None:
        """Make a standby the primary; return when it takes writes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("select pg_promote(wait => true)")

    def lose_touch(self) -> None:
        """Cut all standbys off: later commits are lost with this server.

        The standby has everything that was committed before.
        """
        with self.connect() as connection:
            wait_for(lambda: _one(connection, CAUGHT_UP))
        for pid in self.pids("walsender"):
            os.kill(pid, signal.SIGSTOP)

    def forget_data(self) -> None:
        """Delete the data: that of a dead primary is of no use to a standby of the next one."""
        shutil.rmtree(self.data)

    def copy_to(self, standby: Machine) -> None:
        """Make a standby of this server and start it."""
        options = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        source = f"host={self.sockets} port={PORT} user=postgres application_name=standby"
        standby.data.mkdir(mode=0o700)
        standby._give(standby.data)
        standby._run("pg_basebackup", "-D", str(standby.data), "-d", source, *options)
        standby.start()


def dsn_of(machines: list[Machine], dbname: str = "postgres") -> str:
    """Return a connection string with these servers; clients find the one that takes writes."""
    hosts = ",".join(quote(os.fspath(machine.sockets), safe="/") for machine in machines)
    ports = ",".join(str(PORT) for _ in machines)
    return f"postgresql://postgres@/{dbname}?host={hosts}&port={ports}"


@contextmanager
def machine(
    settings: Mapping[str, str] | None = None, folder: Path | None = None
) -> Iterator[Machine]:
    """Provide a server that is not yet running; it is gone afterwards in any case."""
    with _folder(folder) as place:
        made = Machine(place, settings or {})
        try:
            yield made
        finally:
            if made.running():
                made.kill()
            made.remove_run_folder()


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="perdure-", dir=parent) as made:
        Path(made).chmod(0o711)
        yield Path(made)


def _one(connection: psycopg.Connection[Any], query: str, *params: Any) -> Any:
    (answer,) = connection.execute(query.encode(), params).fetchone() or (None,)
    return answer


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_for(is_so: Callable[[], Any], within: float = SOON) -> Any:
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + within
    while not (said := is_so()):
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.02)
    return said


def program(name: str, package: str) -> str:
    """Find a program; skip the test if the machine has none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        pytest.skip(f"there is no {name} here: apt-get install {package}")
    return found
