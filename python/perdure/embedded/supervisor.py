"""The supervisor: the process that owns one embedded PostgreSQL, for as long as somebody uses it.

It runs detached, since it must outlive the process that started it. Users hold a connection to its
control socket, which the kernel closes when a user dies, however it dies. When the last connection
is closed, the server is stopped. Sessions of others that are in a statement or transaction end
first, in a server that is kept. A lock on the folder makes sure that there is one supervisor.

Requests and answers are lines of JSON: `{"do": "start"}` is answered by `{"host": ..., "port":
...}` as soon as the server accepts connections, or by `{"error": ...}`.

    folder/lock         held as long as the supervisor lives; holds its process id
    folder/log          what the supervisor and the server say
    folder/run/control  the socket

Standard library only: it must start fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .postmaster import PORT, Postmaster

MAX_LOG = 10_000_000  # bytes; a longer one is put aside at the next start
BUSY = 75  # exit code: another supervisor holds the folder
FIRST_USER_WITHIN = 10.0  # seconds


class Supervisor:
    """Serve the control socket until the last user has gone."""

    def __init__(self, postmaster: Postmaster, listener: socket.socket, linger: float) -> None:
        self.postmaster = postmaster
        self.linger = linger  # seconds that the server stays up after its last user
        self.listener = listener
        self.users: dict[socket.socket, bytes] = {}  # and the beginning of each next request
        self.leave_at = time.monotonic() + FIRST_USER_WITHIN
        self.told_to_leave = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Run until nobody is left, then stop the server."""
        self._watch_signals()
        while not self._may_leave():
            self._listen(None if self.users else max(0.0, self.leave_at - time.monotonic()))
            if self.users and self.postmaster.wanted and not self.postmaster.running():
                self._answer({"do": "start"})
            if self._may_leave():
                if self.linger and not self.told_to_leave and self.postmaster.is_serving():
                    self.leave_at = time.monotonic() + self.linger
                    continue
                self.postmaster.stop("fast")
                self._listen(0)  # users that came meanwhile are served after all

    def _may_leave(self) -> bool:
        idle = not self.users and time.monotonic() >= self.leave_at
        return self.told_to_leave or idle

    def _listen(self, timeout: float | None) -> None:
        for key, _ in self.selector.select(timeout):
            key.data()

    def _accept(self) -> None:
        user, _ = self.listener.accept()
        self.users[user] = b""
        self.selector.register(user, selectors.EVENT_READ, lambda: self._read(user))

    def _read(self, user: socket.socket) -> None:
        received = b""
        with contextlib.suppress(ConnectionError):
            received = user.recv(65536)
        if not received:
            self._forget(user)
            return
        *requests, self.users[user] = (self.users[user] + received).split(b"\n")
        for request in requests:
            answer = self._answer(json.loads(request))
            with contextlib.suppress(ConnectionError):  # the next read shows that it has gone
                user.sendall(json.dumps(answer).encode() + b"\n")

    def _forget(self, user: socket.socket) -> None:
        self.selector.unregister(user)
        del self.users[user]
        user.close()
        self.leave_at = time.monotonic() + self.linger

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        actions: dict[str, Callable[[str], None]] = {
            "hello": lambda _: None,
            "start": lambda _: self.postmaster.start(),
            "stop": self.postmaster.stop,
            "restart": self._restart,
        }
        try:
            actions[request["do"]](request.get("mode", "fast"))
        except Exception as error:  # noqa: BLE001 - whatever it was, the user is to be told
            traceback.print_exc()
            self.postmaster.wanted = False
            return {"error": str(error)}
        place = {"host": self.postmaster.sockets, "bindir": self.postmaster.bindir}
        return {name: os.fspath(path) for name, path in place.items()} | {"port": PORT}

    def _restart(self, mode: str) -> None:
        self.postmaster.stop(mode)
        self.postmaster.start()

    def _watch_signals(self) -> None:
        """Let the end of the server (SIGCHLD) and of the machine (SIGTERM) interrupt the wait."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = theirs  # kept open
        self.selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(4096))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told_to_leave", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def main(options: dict[str, Any]) -> None:
    """Take the folder, detach, serve, clean up; leave with BUSY if another one has the folder."""
    os.umask(0o077)
    postmaster = Postmaster(options)
    lock = os.open(postmaster.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(BUSY)
    postmaster.make_run_folder()
    control = postmaster.sockets / "control"
    control.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(control))
    listener.listen(1024)
    _detach(postmaster.folder / "log")
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    try:
        Supervisor(postmaster, listener, options["linger"]).serve()
    finally:
        postmaster.stop()
    control.unlink(missing_ok=True)
    postmaster.remove_run_folder()
    if postmaster.throwaway:
        shutil.rmtree(postmaster.folder, ignore_errors=True)


def _detach(log: Path) -> None:
    """Continue as a process of nobody's, so that whoever waits for this one to end may continue."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    if log.exists() and log.stat().st_size > MAX_LOG:
        log.replace(log.with_name("log.old"))
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, opened in enumerate((nothing, said, said)):
        os.dup2(opened, target)
