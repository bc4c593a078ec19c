"""What a client does with all memories of an entity: find them, hold them to a contract.

Each method is written once for both kinds of clients: it returns its answer, or an awaitable of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from perdure.basics.arguments import listed
from perdure.workflow.operations import stored

from .base_client import BaseClient
from .contracts import BrokenContract, Surface, schema_of
from .finding import Found, Order, on_the_wire
from .indexing import Index
from .past import rows_of

_Found = TypeVar("_Found")
_Int = TypeVar("_Int")
_None = TypeVar("_None")
_Bool = TypeVar("_Bool")
_Schema = TypeVar("_Schema")
_Broken = TypeVar("_Broken")
_Indexes = TypeVar("_Indexes")
_Told = TypeVar("_Told")


class Entities(BaseClient, Generic[_Found, _Int, _None, _Bool, _Schema, _Broken, _Indexes, _Told]):
    """The methods of a client that concern every memory of an entity."""

    def find(
        self,
        entity: str,
        conditions: Mapping[str, Any] | None = None,
        *,
        order_by: Order | Sequence[Order] = (),
        limit: int = 100,
        after: list[Any] | None = None,
    ) -> _Found:
        """Find memories that meet conditions: `client.find("agent", {"score": {"$gt": 0.8}})`.

        `limit` is 1000 at most; for the next page, give the `place` of the last result as `after`.
        Times in conditions need a zone. Returns a list of Found. Raises InvalidPath, InvalidName
        and InvalidArgument.
        """
        order = [order_by] if isinstance(order_by, str | Mapping) else listed("order_by", order_by)
        call = self.calls.find(entity, on_the_wire(conditions or {}), order, after, limit)
        return self.give(call.reading(rows_of(Found)))

    def count(self, entity: str, conditions: Mapping[str, Any] | None = None) -> _Int:
        """Count the memories that `find()` would find without a limit."""
        return self.give(self.calls.count_found(entity, on_the_wire(conditions or {})))

    def signal_found(
        self,
        entity: str,
        conditions: Mapping[str, Any],
        name: str,
        payload: Any = None,
        *,
        key: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> _Told:
        """Send a signal to the running jobs whose memories meet conditions, as `find()` reads them.

        Returns a list of (id, sent) in order of id; `sent` is False if the `key` was used before.
        One call signals at most `limit` jobs in one transaction; for the next page, give the last
        id as `after`. Raises InvalidPath, InvalidName and InvalidArgument.
        """
        on_wire, known = on_the_wire(conditions), key or uuid.uuid4().hex
        page = {"after": after, "max_jobs": limit}
        call = self.calls.signal_found(entity, on_wire, name, stored(payload), known, **page)
        if not key:  # a key drawn here can be known only if the reply was lost
            call = call.reading(lambda rows: [(job, True) for job, _ in rows])
        return self.give(call)

    def cancel_found(
        self,
        entity: str,
        conditions: Mapping[str, Any],
        reason: str | None = None,
        *,
        after: str = "",
        limit: int = 1000,
    ) -> _Told:
        """Ask the running jobs whose memories meet conditions to cancel; pages as `signal_found()`.

        Returns a list of (id, asked) in order of id; `asked` is False if the job was asked before.
        """
        page = {"after": after, "max_jobs": limit}
        return self.give(self.calls.cancel_found(entity, on_the_wire(conditions), reason, **page))

    def indexes(self) -> _Indexes:
        """List the indexes of the app, with their state, size and number of scans."""
        return self.give(self.calls.indexes().reading(rows_of(Index)))

    def define_contract(self, entity: str, schema: Surface) -> _None:
        """Hold the memories of an entity to a JSON Schema, or to a type that pydantic can describe.

        `client.define_contract("research-agent", ResearchState)`. From now on a command that would
        break the contract raises ContractBroken. Existing memories are not checked;
        `broken_contracts()` lists those that do not fit.
        """
        call = self.calls.define_contract(entity, schema_of(schema))
        return self.give(call.reading(lambda _: None))

    def drop_contract(self, entity: str) -> _Bool:
        """Remove the contract of an entity; return False if there was none."""
        return self.give(self.calls.drop_contract(entity))

    def contract(self, entity: str) -> _Schema:
        """Return the contract of an entity as JSON Schema, or None."""
        return self.give(self.calls.contract(entity))

    def broken_contracts(
        self,
        entity: str,
        schema: Surface | None = None,
        *,
        after: str = "",
        max_rows: int = 100,
    ) -> _Broken:
        """List memories that break the contract of their entity, or another `schema`.

        At most `max_rows` in order of id, beginning after the id `after`. Locks nothing.
        """
        tried = None if schema is None else schema_of(schema)
        call = self.calls.broken_contracts(entity, tried, after=after, max_rows=max_rows)
        return self.give(call.reading(rows_of(BrokenContract)))
