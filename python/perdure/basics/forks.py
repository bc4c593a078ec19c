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


class Holder(Protocol):
    """Something that holds connections, and locks that a child process would never release."""

    def begin_anew(self) -> None:
        """Forget them: this is another process now."""


_holders: WeakSet[Holder] = WeakSet()
_connections: WeakSet[Any] = WeakSet()
_left: list[Any] = []
"""Connections of the parent, kept here: deleting one would warn that it is open."""


def note_holder(holder: Holder) -> None:
    """Let it begin anew in every child process."""
    _holders.add(holder)


def note_connection(connection: Any) -> None:
    """Leave this connection alone in every child process."""
    _connections.add(connection)


def _begin_anew() -> None:
    """Redirect what is sent on the parent's connections to nowhere, and hold them no more."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        with suppress(psycopg.Error):  # closed already
            os.dup2(nowhere, connection.fileno(), inheritable=False)
            _left.append(connection)
    os.close(nowhere)
    _connections.clear()
    for holder in list(_holders):
        holder.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
