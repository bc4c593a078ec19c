"""The postmaster: one database cluster in a folder, and the server process that serves it.

Standard library only: the supervisor, which owns the postmaster, must start fast.

    folder/data/   the server's files
    folder/log     what the server says
    folder/run/    its sockets; a link to a short path where the folder's own is too long for one
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

PORT = 5432
MAX_SOCKET_PATH = 103  # bytes, on macOS; Linux has 107
STILL_IN_USE = "pre-existing shared memory block"  # by children of a server that was killed
FREE_WITHIN = 60.0  # seconds that such a child may continue its statement
LOOK_AGAIN = 0.5  # seconds
STOP_WITHIN = 60.0  # seconds, then the stop becomes an immediate one
SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Postmaster:
    """A cluster and its server; the options are JSON from `embedded.Server`."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.folder = Path(options["folder"])
        self.data = self.folder / "data"
        self.bindir = Path(options["bindir"])
        self.account = pwd.getpwnam(options["account"]) if options["account"] else None
        self.settings: dict[str, str] = options["settings"]
        self.throwaway: bool = options["throwaway"]
        self.process: subprocess.Popen[bytes] | None = None
        self.said_from = 0  # where its lines begin in the log
        self.wanted = False  # whether it should run; false after an explicit stop

    @property
    def sockets(self) -> Path:
        """Tell where the sockets are, by a path that is short enough."""
        return (self.folder / "run").resolve()

    def running(self) -> bool:
        """Tell whether the server process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server if it is down and wait until it accepts connections."""
        self.wanted = True
        if self.running():
            return
        if not self.data.exists():
            self._create()
        self._check_version()
        if (self.data / "postmaster.pid").exists():  # left by a supervisor that was killed
            self._run("pg_ctl", "stop", "-D", str(self.data), "-m", "fast", check=False)
        end = time.monotonic() + FREE_WITHIN
        while not self._comes_up():
            if STILL_IN_USE not in self._said():
                raise RuntimeError(f"the server does not start:\n{self._said()[-2000:]}")
            if time.monotonic() > end:
                raise RuntimeError(
                    f"what is left of a server that was killed still uses {self.data}:"
                    f" end the processes {self._at_work() or ''}, or wait for them"
                )
            time.sleep(LOOK_AGAIN)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: smart, fast or immediate (as a crash)."""
        self.wanted = False
        if self.process is None:
            return
        self.process.send_signal(SIGNALS[mode])
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        self.process = None

    def is_serving(self) -> bool:
        """Tell whether some session is in a statement or a transaction.

        The title of its process says so. False if the system shows none.
        """
        for number in self._at_work():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{number}/cmdline").read_bytes().strip(b"\0 ")
                if b" [local] " in title and not title.endswith(b" idle"):
                    return True
        return False

    def make_run_folder(self) -> None:
        """Make the folder of the sockets, open to the server's account alone."""
        run = self.folder / "run"
        if len(os.fsencode(run / f".s.PGSQL.{PORT}")) <= MAX_SOCKET_PATH:
            run.mkdir(mode=0o700, exist_ok=True)
        else:
            self.remove_run_folder()
            run.symlink_to(tempfile.mkdtemp(prefix="perdure-", dir="/tmp"))
        self._give(run.resolve())

    def remove_run_folder(self) -> None:
        """Remove a folder of sockets that is outside of the data folder."""
        run = self.folder / "run"
        if run.is_symlink():
            shutil.rmtree(run.resolve(), ignore_errors=True)
            run.unlink()

    def _create(self) -> None:
        made = self.folder / "data.new"  # renamed when it is complete
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        self._give(made)
        # Who reaches the socket is trusted. On addresses, of which a setting may give it some, it
        # would trust everybody.
        options = ["--auth-local=trust", "--auth-host=reject"]
        options += ["--username=postgres", "--encoding=UTF8", "--locale=C"]
        options += ["--no-sync"] if self.throwaway else []
        self._run("initdb", "-D", str(made), *options)
        made.rename(self.data)

    def _check_version(self) -> None:
        wrote = (self.data / "PG_VERSION").read_text().strip()
        program = self._run("postgres", "--version").split()[2]
        if program.partition(".")[0] != wrote:
            raise RuntimeError(
                f"the data in {self.data} was written by PostgreSQL {wrote},"
                f" and the programs in {self.bindir} are version {program}"
            )

    def _comes_up(self) -> bool:
        """Start a server process; tell whether it lives to accept connections."""
        with (self.folder / "log").open("ab") as log:
            self.said_from = log.tell()
            self.process = self._spawn(log)
        return self._becomes_ready()

    def _spawn(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        sockets = os.fspath(self.sockets)
        always = {"listen_addresses": "", "unix_socket_directories": sockets, "port": str(PORT)}
        options = [f"--{name}={value}" for name, value in (always | self.settings).items()]
        return subprocess.Popen(
            [self.bindir / "postgres", "-D", self.data, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            preexec_fn=_dies_with_parent(),  # noqa: PLW1509 - there are no threads
            **self._credentials(),
        )

    def _becomes_ready(self) -> bool:
        """Wait as long as the server lives: recovery after a crash may take its time."""
        while self.running():
            with contextlib.suppress(FileNotFoundError, IndexError):
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                ours = self.process is not None and int(lines[0]) == self.process.pid
                if ours and lines[7].strip() == "ready":
                    return True
            time.sleep(0.01)
        return False

    def _run(self, program: str, *arguments: str, check: bool = True) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self.bindir / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=_environment(),
            **self._credentials(),
        )
        if check and done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def _credentials(self) -> dict[str, Any]:
        if self.account is None:
            return {}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}

    def _give(self, folder: Path) -> None:
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def _said(self) -> str:
        """Return what the server process has logged since it was last started."""
        with (self.folder / "log").open("rb") as log:
            log.seek(self.said_from)
            return log.read().decode(errors="replace")

    def _at_work(self) -> list[int]:
        """Name the processes in the data folder, as all of a server are, if the system tells."""
        found = []
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if place.samefile(self.data):
                    found.append(int(place.parent.name))
        return found


def _dies_with_parent() -> Callable[[], None] | None:
    """Return what a child calls so that the kernel stops it when this process is killed."""
    if sys.platform != "linux":
        return None
    prctl, supervisor = ctypes.CDLL(None).prctl, os.getpid()  # looked up before the fork

    def die_with_parent() -> None:
        prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: a fast shutdown
        if os.getppid() != supervisor:
            os._exit(1)

    return die_with_parent


def _environment() -> dict[str, str]:
    """Hide PGPORT and the like from a server that they are not meant for."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
