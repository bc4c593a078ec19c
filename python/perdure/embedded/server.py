"""The embedded server: PostgreSQL without an installation, shared by all that use its folder.

The first process starts it and later ones join. It stops when the last one has gone, also after a
`kill -9`. The work is done by `supervisor.py`, which this module asks.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from perdure.errors import ServerUnavailable

from . import binaries, supervisor

HOME = "PERDURE_HOME"
JOIN_WITHIN = 90.0  # seconds in which a supervisor that is leaving must have left

# The package without its __init__, which imports the client: that would cost time and memory.
BOOT = """
import json, sys, types
sys.modules["perdure"] = package = types.ModuleType("perdure")
package.__path__ = [sys.argv[1]]
from perdure.supervisor import main
main(json.loads(sys.argv[2]))
"""

LINGER = 1.0  # seconds a server stays up after its last user, for the next command of a script
MIN_ROOM_IN_MEMORY = 4_000_000_000  # bytes

THROWAWAY_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
SHARED_SETTINGS = {"cluster_name": "perdure", "max_connections": "200"}


def home() -> Path:
    """Tell where the shared server keeps its data: `$PERDURE_HOME`, else the user's data folder."""
    if given := os.environ.get(HOME):
        return Path(given).absolute()
    if os.geteuid() == 0:  # the server's account could not reach a folder below /root
        return binaries.STORE
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "perdure"


def shared_server() -> Server:
    """Join the embedded server of this user, or start it. Raises ServerUnavailable.

    It runs until every process that joined it has closed it or ended.

    `with shared_server() as server: psycopg.connect(server.url())`
    """
    return Server(home(), SHARED_SETTINGS).start()


class Server:
    """A PostgreSQL server in a folder: `with Server() as server: psycopg.connect(server.url())`.

    Without a folder it is a throwaway: fast, and removed with its data when it is closed. The
    settings are those of the process that starts the server first.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a server; start() or `with` starts or joins it."""
        self.throwaway = folder is None
        self.folder = Path(folder or _unused_name()).absolute()
        self.settings = (THROWAWAY_SETTINGS if self.throwaway else {}) | dict(settings or {})
        self.linger = 0.0 if self.throwaway else LINGER
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._place: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bindir(self) -> Path:
        """Tell where the server's programs are (psql, pg_dump, …)."""
        return Path(self._where("bindir"))

    def url(self, dbname: str = "postgres") -> str:
        """Return the connection URL of a database: `server.url("postgres")`."""
        host = quote(self._where("host"), safe="/")
        name = quote(dbname, safe="")
        return f"postgresql://postgres@/{name}?host={host}&port={self._where('port')}"

    def start(self) -> Self:
        """Start or join the server, or start it again after stop(). Raises ServerUnavailable."""
        with self._lock:
            if self._control is None:
                self._control = self._join()
        try:
            self._ask("start")
        except ServerUnavailable:
            self.close()
            raise
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server for all users until start(); `mode` is smart, fast or immediate."""
        self._ask("stop", mode)

    def restart(self, mode: str = "fast") -> None:
        """Stop the server and start it again; connections are lost, data is not."""
        self._ask("restart", mode)

    def crash(self) -> None:
        """Let the server crash and recover: an immediate stop and a start, for tests."""
        self._ask("restart", "immediate")

    def close(self) -> None:
        """Leave the server; it stops when nobody else uses it. A throwaway is removed."""
        with self._lock:
            self._leave()

    def _leave(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None
        self._place = {}

    def _where(self, name: str) -> str:
        if not self._place:
            raise ServerUnavailable(
                f"the server in {self.folder} was not started", hint="Call start() first."
            )
        return str(self._place[name])

    def _ask(self, what: str, mode: str = "fast") -> None:
        with self._lock:
            answer = self._answer({"do": what, "mode": mode})
            if "error" in answer:
                raise ServerUnavailable(
                    f"the server in {self.folder} does not run",
                    detail=answer["error"],
                    hint=f"See {self.folder / 'log'}.",
                )
            self._place = answer

    def _answer(self, request: dict[str, str]) -> dict[str, Any]:
        answer = None
        try:
            if self._control is not None:
                answer = _exchange(self._control, request)
        finally:
            if answer is None:  # a later request would not find its own answer either
                self._leave()
        if answer is None:
            raise ServerUnavailable(
                f"the supervisor of {self.folder} has ended", hint="Call start() again."
            )
        return answer

    def _join(self) -> socket.socket:
        """Connect to the supervisor of the folder, and start one if there is none."""
        end = time.monotonic() + JOIN_WITHIN
        while time.monotonic() < end:
            if control := self._connect():
                return control
            if not self._start_supervisor():
                time.sleep(0.02)  # another one still has the folder, and starts or stops now
        raise ServerUnavailable(
            f"the server in {self.folder} cannot be joined",
            detail=f"Another process has held its lock for {JOIN_WITHIN:.0f} s.",
            hint=f"See {self.folder / 'log'}.",
        )

    def _connect(self) -> socket.socket | None:
        control = socket.socket(socket.AF_UNIX)
        try:
            control.connect(os.fspath((self.folder / "run").resolve() / "control"))
            if _is_ours(control) and _exchange(
                control, {"do": "hello"}
            ):  # now it will not leave before us
                return control
        except OSError:
            pass
        control.close()
        return None

    def _start_supervisor(self) -> bool:
        """Start a supervisor; return False if another one has the folder."""
        account = binaries.account(self.folder / "data")
        bindir = binaries.reachable(binaries.find(), account)
        self._make_folder(account)
        options = {
            "folder": os.fspath(self.folder),
            "bindir": os.fspath(bindir),
            "account": account,
            "settings": self.settings,
            "throwaway": self.throwaway,
            "linger": self.linger,
        }
        package = os.fspath(Path(supervisor.__file__).parent)
        command = [sys.executable, "-IS", "-c", BOOT, package, json.dumps(options)]
        started = subprocess.run(command, capture_output=True, text=True, check=False)
        if started.returncode not in (0, supervisor.BUSY):
            raise ServerUnavailable(
                f"the supervisor of {self.folder} does not start",
                detail=started.stderr.strip(),
                hint=f"See {self.folder / 'log'}.",
            )
        return started.returncode == 0

    def _make_folder(self, account: str | None) -> None:
        if not self.folder.exists():
            try:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self.folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise ServerUnavailable(
                    f"the folder {self.folder} cannot be created",
                    detail=f"The system says: {error.strerror}.",
                    hint=f"Keep the data in a folder of your own: set ${HOME}.",
                ) from error
            if account:
                self.folder.chmod(0o711)  # only our own folder, never a parent
        found = self.folder.stat()
        if found.st_uid != os.geteuid():
            raise ServerUnavailable(
                f"{self.folder} belongs to another user",
                detail=f"Its owner has the id {found.st_uid}, and could answer in its place.",
                hint=f"Keep the data in a folder of your own: set ${HOME}.",
            )
        if found.st_mode & 0o022:
            raise ServerUnavailable(
                f"others may write to {self.folder}",
                hint=f"Keep the data in a folder of your own: set ${HOME}.",
            )
        if not binaries.can_enter(self.folder, account):
            raise ServerUnavailable(
                f"the account {account} cannot enter {self.folder}",
                detail="PostgreSQL does not run as root, so it runs as that account.",
                hint="Choose a folder that it can reach, or run as a normal user.",
            )


def _is_ours(control: socket.socket) -> bool:
    """Tell whether a process of this user is at the other end, as far as the system says that.

    If the user is root, the folder of the socket belongs to the account of the server. Who controls
    the server is then not to tell root where its programs are.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.geteuid())


def _exchange(control: socket.socket, request: dict[str, str]) -> dict[str, Any] | None:
    """Send a request and wait for its answer; return None if the other side has gone."""
    received = b""
    try:
        control.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            if not (piece := control.recv(65536)):
                return None
            received += piece
    except ConnectionError:
        return None
    answer: dict[str, Any] = json.loads(received)
    return answer


def _unused_name() -> Path:
    """Name a folder for a throwaway; in memory if there is room, which is several times faster."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MIN_ROOM_IN_MEMORY
    parent = memory if roomy and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"perdure-{uuid.uuid4().hex[:12]}"
