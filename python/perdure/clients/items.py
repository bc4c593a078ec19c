"""Items: what jobs ask of people. Clients list, claim and resolve them.

Each method is written once for both kinds of clients: it returns the item as it is then, or an
awaitable of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from perdure.basics.names import as_id
from perdure.database.call import Call
from perdure.workflow.memory import Awaited
from perdure.workflow.operations import stored

from .base_client import BaseClient
from .past import row_of, rows_of

_Told = TypeVar("_Told")
_Item = TypeVar("_Item")
_List = TypeVar("_List")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_Told]):
    """A request of a job to people, as it was when it was read.

    `status` is unclaimed, claimed or resolved. `place` is where the next page of a list begins.
    """

    _client: Any = field(repr=False, compare=False)
    id: str
    job: str
    task: str
    key: str
    name: str
    payload: Any
    assignee: str | None
    priority: int
    status: str
    asked_at: datetime
    expires_at: datetime | None
    claimed_by: str | None
    claimed_at: datetime | None
    resolution: Any
    resolved_by: str | None
    resolved_at: datetime | None
    place: list[Any]

    def claim(self, by: str, *, connection: Any = None) -> _Told:
        """Claim the item for a person, so that nobody else resolves it.

        Raises ItemNotYours if somebody else has claimed it, and ItemNotFound.
        """
        return self._send(self._client.calls.claim_item(self.id, by), connection)

    def release(self, by: str | None = None, *, connection: Any = None) -> _Told:
        """Release the item if the person `by` has claimed it; without `by`, whoever has claimed it.

        Raises ItemNotFound.
        """
        return self._send(self._client.calls.release_item(self.id, by), connection)

    def assign(self, assignee: str | None, *, connection: Any = None) -> _Told:
        """Assign the item to another person or group, or with None to anybody. A claim of it ends.

        Raises ItemNotFound.
        """
        return self._send(self._client.calls.assign_item(self.id, assignee), connection)

    def resolve(
        self, resolution: Any = None, *, by: str | None = None, connection: Any = None
    ) -> _Told:
        """Resolve the item: `item.resolve({"approved": True}, by="jane")`.

        The job continues with this resolution. The same call may be repeated. Raises ItemNotFound
        if somebody else was first or nobody waits any more, and ItemNotYours if somebody else has
        claimed the item.
        """
        call = self._client.calls.resolve_item(
            self.id, (self.job, self.task, self.key), stored(resolution), by
        )
        return self._send(call, connection)

    def _send(self, call: Call, connection: Any) -> _Told:
        client, kind = self._client, type(self)
        told: _Told = client.send(call.reading(row_of(kind, client)), connection)
        return told


class Item(_Asked["Item"]):
    """A request of a job to people, used by plain code: `item.resolve("yes", by="jane")`."""

    __slots__ = ()


class AsyncItem(_Asked[Awaited["AsyncItem"]]):
    """A request of a job to people, used by async code: `await item.resolve("yes", by="jane")`."""

    __slots__ = ()


class Items(BaseClient, Generic[_Item, _List]):
    """The methods of a client that concern items."""

    _make_item: Callable[..., Any]

    def items(
        self,
        *,
        assignee: str | None = None,
        name: str | None = None,
        job: str | UUID | None = None,
        status: str = "open",
        after: list[Any] | None = None,
        limit: int = 100,
    ) -> _List:
        """List items, most urgent first: `client.items(assignee="finance")`.

        `status` is open (default), unclaimed, claimed or resolved. `limit` is 1000 at most; for the
        next page, give the `place` of the last item as `after`. Raises InvalidArgument.
        """
        call = self.calls.list_items(
            after,
            assignee=assignee,
            name=name,
            job=None if job is None else as_id(job),
            status=status,
            max_rows=limit,
        )
        make = self._make_item
        return self.give(call.reading(rows_of(make, self)))

    def item(self, id: str | UUID) -> _Item:
        """Return an item, open or resolved. Raises ItemNotFound."""
        make = self._make_item
        return self.give(self.calls.read_item(as_id(id)).reading(row_of(make, self)))
