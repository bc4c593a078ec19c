"""Forks: a child process inherits the connections of its parent, and leaves them to it.

Two processes that speak on one connection hear each other's answers. Nor may the child say goodbye
on it: that would end the session of the parent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

import psycopg


class Holder(Protocol):
    """What holds connections, and maybe locks that nobody in a child process would release."""

    def begin_anew(self) -> None:
        """Forget them: this is another process now."""


_holders: WeakSet[Holder] = WeakSet()
_connections: WeakSet[Any] = WeakSet()
_left: list[Any] = []
"""Connections of the parent, kept here: whoever deletes one would warn that it is open."""


def note_holder(holder: Holder) -> None:
    """Let it begin anew in every child process."""
    _holders.add(holder)


def note_connection(connection: Any) -> None:
    """Leave it to this process in every child process."""
    _connections.add(connection)


def _begin_anew() -> None:
    """Let what is said on the parent's connections go nowhere, and hold them no more."""
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
