"""Calls on memories: of one job, and of all jobs of an entity; contracts and indexes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from perdure.basics.paths import parse_path
from perdure.errors import InvalidArgument

from . import unsealers
from .call import AppCalls, Call, or_null, to_text
from .sealing import check_command, condition_paths, order_paths


class MemoryCalls(AppCalls):
    """The calls of one app on its memories."""

    def read(self, job: str, path: str) -> Call:
        """Read from the memory."""
        return self._part(job, path, self._call("entity_get", id=job, path=path))

    def _part(self, job: str, path: str, call: Call) -> Call:
        """Return the same call with a way to decrypt the part of a memory that it returns."""
        return self._unsealed(call, partial(unsealers.document, job, parse_path(path)))

    def create(self, job: str, entity: str, context: Any, key: str) -> Call:
        """Create a memory without a workflow."""
        sealed = self._seal(key).document(job, [], context)
        return self._call("entity_create", id=job, entity=entity, context=to_text(sealed), key=key)

    def command(self, job: str, op: str, path: str, value: Any, options: dict[str, Any]) -> Call:
        """Change the memory; `value` is the command's argument, named as SQL names it."""
        seal, keys = self._seal(options.get("key")), parse_path(path)
        check_command(self.fields, op, keys)
        sealed = {name: seal.argument(job, op, keys, given) for name, given in value.items()}
        arguments = {name: _argument(name, given) for name, given in sealed.items()}
        call = self._call(f"entity_{op}", id=job, path=path, **arguments, **options)
        return self._part(job, path, call)

    def apply(self, job: str, commands: Any, options: dict[str, Any]) -> Call:
        """Apply several commands, all or none; returns an array of their answers."""
        seal = self._seal(options.get("key"))
        sealed = [seal.command(job, command) for command in commands]
        call = self._call("entity_apply", id=job, commands=to_text(sealed), **options)
        return self._unsealed(
            call, partial(unsealers.answers, job, [each["path"] for each in commands])
        )

    def restore(self, job: str, version: int, options: dict[str, Any]) -> Call:
        """Make a memory again what it was at a version."""
        return self._call("entity_restore", id=job, version=version, **options)

    def meets(self, job: str, condition: str) -> Call:
        """Check whether a memory meets a condition; returns the version, or None."""
        return self._call("entity_meets", id=job, condition=condition)

    def watch(self, job: str, listener: str) -> Call:
        """Record that somebody waits for changes of a memory; returns its version."""
        return self._call("entity_watch", id=job, listener=listener)

    def changes(self, job: str, path: str, after: int, max_rows: int) -> Call:
        """Read changes of a memory after a version."""
        call = self._call(
            "entity_history", "rows", id=job, path=path, after=after, max_rows=max_rows
        )
        return self._unsealed(call, partial(unsealers.changes, job))

    def memory_at(self, job: str, version: int | None, at: Any, path: str) -> Call:
        """Read a memory as it was at a version or a time."""
        call = self._call("entity_at", id=job, version=version, at=at, path=path)
        return self._part(job, path, call)

    def diff(self, job: str, version: int, to_version: int | None) -> Call:
        """Read where a memory differs between versions."""
        call = self._call("entity_diff", "rows", id=job, version=version, to_version=to_version)
        return self._unsealed(call, partial(unsealers.parts, job, (2, 3)))

    def blame(self, job: str, path: str) -> Call:
        """Read who wrote each value in a memory."""
        call = self._call("entity_blame", "rows", id=job, path=path)
        return self._unsealed(call, partial(unsealers.parts, job, (1,)))

    def items(self, job: str, path: str, after: int, max_rows: int, **end: int | None) -> Call:
        """Read items of a log after a version, or the last of them before a place."""
        page = {"after": after, "max_rows": max_rows, **end}
        call = self._call("entity_items", "rows", id=job, path=path, **page)
        return self._unsealed(call, partial(unsealers.items, job, parse_path(path)))

    def stream_items(self, job: str, stream: str, after: int, place: int | None) -> Call:
        """Read the items of a stream after a place."""
        call = self._call("stream_items", "rows", id=job, stream=stream, after=after, place=place)
        return self._unsealed(call, partial(unsealers.items, job, parse_path(stream)))

    def forget(self, job: str) -> Call:
        """Delete a finished job or an entity with all that belongs to it."""
        return self._call("forget", id=job)

    # Contracts.
    def define_contract(self, entity: str, schema: Any) -> Call:
        """Define the contract of an entity."""
        return self._call("define_contract", entity=entity, schema=to_text(schema))

    def drop_contract(self, entity: str) -> Call:
        """Remove the contract of an entity; returns False if there was none."""
        return self._call("drop_contract", entity=entity)

    def contract(self, entity: str) -> Call:
        """Read the contract of an entity."""
        return self._call("contract_of", entity=entity)

    def broken_contracts(self, entity: str, schema: Any, **page: Any) -> Call:
        """Find memories that break a contract; returns a row (id, path, rule, message) for each."""
        written = or_null(schema)
        return self._call("broken_contracts", "rows", entity=entity, schema=written, **page)

    # Memories of an entity.
    def find(
        self, entity: str, conditions: Any, order_by: list[Any], after: Any, max_rows: int
    ) -> Call:
        """Find memories; returns a row for each."""
        self._check_readable(order_paths(order_by))
        call = self._call(
            "find",
            "rows",
            entity=entity,
            conditions=self._written(conditions),
            order_by=to_text(order_by),
            max_rows=max_rows,
            after=or_null(after),
        )
        return self._unsealed(call, unsealers.found)

    def _written(self, conditions: Any) -> str:
        """Write conditions. Raises InvalidArgument if they ask for an encrypted value."""
        self._check_readable(condition_paths(conditions))
        return to_text(conditions)

    def _check_readable(self, paths: Iterator[str]) -> None:
        for path in paths if self.codec is not None else ():
            if self.fields.has(parse_path(path)):
                raise InvalidArgument(
                    f"{path} is encrypted: nothing can be found by it",
                    hint="Keep what you search for, or a hash of it, in another field.",
                )

    def count_found(self, entity: str, conditions: Any) -> Call:
        """Count memories."""
        return self._call("count_found", entity=entity, conditions=self._written(conditions))

    def signal_found(
        self, entity: str, conditions: Any, name: str, payload: Any, key: str, **page: Any
    ) -> Call:
        """Send a signal to jobs of an entity; returns a row (id, is_new) for each."""
        sealed = self._seal(key).whole("signal", "", name, payload)
        told = {"name": name, "payload": or_null(sealed), "key": key}
        asked = self._written(conditions)
        return self._call("signal_found", "rows", entity=entity, conditions=asked, **told, **page)

    def cancel_found(self, entity: str, conditions: Any, reason: str | None, **page: Any) -> Call:
        """Ask jobs of an entity to cancel; returns a row (id, is_new) for each."""
        asked, why = self._written(conditions), self._reason("", reason)
        return self._call(
            "cancel_found", "rows", entity=entity, conditions=asked, reason=why, **page
        )

    def statements_to_create_index(self, entity: str, path: str, kind: str) -> Call:
        """Return the statements, a row each, that create an index while others write."""
        return self._call("statements_to_create_index", "rows", entity=entity, path=path, kind=kind)

    def statements_to_drop_index(self, entity: str, path: str, kind: str) -> Call:
        """Return the statements, a row each, that drop an index while others write."""
        return self._call("statements_to_drop_index", "rows", entity=entity, path=path, kind=kind)

    def index_name(self, entity: str, path: list[str], kind: str) -> Call:
        """Name an index as the catalogue does."""
        return self._call("index_name", entity=entity, path=path, kind=kind)

    def index_work_is_running(self) -> Call:
        """Ask whether another session builds or drops an index."""
        return self._call("index_work_is_running")

    def indexes(self) -> Call:
        """Read the indexes that are wanted, with their state in the catalogue."""
        query = "select entity, path, kind, state, bytes, scans, name"
        query = f"{query} from {self._quoted}.indexes order by entity, path, kind"
        return Call("indexes", query.encode(), (), "rows")

    @staticmethod
    def statement(text: str) -> Call:
        """Run a statement that the server has written."""
        return Call("statement", text.encode(), (), "rows")

    @staticmethod
    def lock_timeout(seconds: float) -> Call:
        """Set how long this session waits for a lock."""
        milliseconds = max(1, round(seconds * 1000))
        return Call("lock_timeout", b"set lock_timeout = %d" % milliseconds, (), "rows")

    @staticmethod
    def take_your_time(*, in_transaction: bool = False) -> Call:
        """Let a statement and a transaction last as long as they must, in this session or only in
        the transaction that has begun."""
        query = b"""
            select set_config(s.name, '0', %s)
              from pg_settings as s
             where s.name in ('statement_timeout', 'transaction_timeout')"""
        return Call("take_your_time", query, (in_transaction,), "rows")


def _argument(name: str, value: Any) -> Any:
    """Write a command's argument: all but an index is JSON (the text of a number is one)."""
    return value if name == "index" else to_text(value)
