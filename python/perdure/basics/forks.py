"""Forks: a child process inherits the connections of its parent, and leaves them alone.

Two processes on one connection would read each other's answers. The child must not close them
either: that would end the session of the parent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

import psycopg


class Resettable(Protocol):
    """Something that holds connections, and locks that a child process would never release."""

    def reset(self) -> None:
        """Forget them: this is another process now."""


_resettables: WeakSet[Resettable] = WeakSet()
_connections: WeakSet[Any] = WeakSet()
_left: list[Any] = []
"""Connections of the parent, kept here: deleting one would warn that it is open."""


def note_resettable(resettable: Resettable) -> None:
    """Let it begin anew in every child process."""
    _resettables.add(resettable)


def note_connection(connection: Any) -> None:
    """Leave this connection alone in every child process."""
    _connections.add(connection)


def _reset_all() -> None:
    """Redirect what is sent on the parent's connections to nowhere, and hold them no more."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        with suppress(psycopg.Error):  # closed already
            os.dup2(nowhere, connection.fileno(), inheritable=False)
            _left.append(connection)
    os.close(nowhere)
    _connections.clear()
    for resettable in list(_resettables):
        resettable.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
