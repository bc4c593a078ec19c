"""Sealing: what is encrypted on its way into the database, and to what each value is bound.

`Calls` is the only place from which values are sent, and asks here for each of them. Without a
codec everything stays as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from perdure.basics.paths import parse_path, write_path
from perdure.codecs import Codec
from perdure.errors import NonDeterminism, ValueTooLarge, WrongType
from perdure.values.envelopes import (
    MAIN,
    SEALED,
    Place,
    codec_failed,
    envelope_of,
    field_place,
    request_place,
    written,
)

if TYPE_CHECKING:
    from perdure.workflow.operations import Operation

Json = dict[str, Any]

MAX_PLAIN = 780_000
"""The size of a value that can be encrypted, as JSON: encryption makes it a third larger."""

WRITING = frozenset({"set", "merge", "append", "prepend", "set_if_not_exists"})
"""Commands whose argument is written to the memory."""

BLIND = frozenset({"increment", "toggle"})
"""Commands that compute with the present value, which the database cannot do if it is encrypted."""

PUBLIC = ("type", "code", "attempts", "again_at")
"""The parts of a failure that the database and its operators must see."""

WORDS = (*PUBLIC, "message", "detail", "hint")
"""The same if the words are this package's: for a task whose code does not match its journal, or
that is given back. They name calls, types and keys, never values."""

write_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
"""Writes a value that is known to be JSON."""


class Fields:
    """Which fields of memories are encrypted."""

    def __init__(self, paths: Sequence[str]):
        self._paths = [field_place(parse_path(path)) for path in paths]

    def has(self, path: list[str]) -> bool:
        """Tell whether the value at a path is encrypted."""
        field = field_place(path)
        return any(field[: len(known)] == known for known in self._paths)


class Sealer:
    """Encrypts the values of one call; `key` is that of a call which may be repeated.

    A repeated call has to send the same, so its key is the salt; otherwise the salt is random.
    """

    def __init__(self, codec: Codec, fields: Fields, key: str | None):
        self._codec = codec
        self._fields = fields
        self._salt = os.urandom(16) if key is None else blake2b(key.encode()).digest()
        self._count = 0

    def whole(self, kind: str, job: str, name: Any, value: Any) -> Any:
        """Encrypt a value as a whole; null stays.

        Raises ValueTooLarge, and ValueSealed if the codec fails.
        """
        if value is None:
            return None
        self._count += 1
        salt, place = b"%s %d" % (self._salt, self._count), Place(kind, job, name).to_bytes()
        check_size(value)
        plain = write_json(value).encode()
        try:
            key, data = self._codec.encode(plain, place, salt)
        except Exception as error:  # for example of a key service
            raise codec_failed(error) from error
        return written(key, data)

    def args(self, job: str, name: str, args: Any) -> Any:
        """Encrypt arguments; those of a job without an id yet are bound only to what is called."""
        return None if args is None else [self.whole("args", job, name, args)]

    def progress(self, task: Json) -> Any:
        """Encrypt the progress of a held task."""
        return self.whole("progress", task["job"], request_place(task["task"]), task["progress"])

    def result(self, job: str, place: str, value: Any) -> Any:
        """Encrypt the answer to a request."""
        return self.whole("result", job, place, value)

    def failure(self, job: str, failure: Any, names: Sequence[str] = PUBLIC) -> Any:
        """Encrypt a failure, except for what the database must see."""
        if not isinstance(failure, dict):
            return self.whole("failure", job, "", failure)
        public = {name: failure[name] for name in names if name in failure}
        rest = {name: part for name, part in failure.items() if name not in public}
        return {"message": SEALED} | public | {SEALED: self.whole("failure", job, "", rest)}

    # Memories.

    def document(self, job: str, path: list[str], value: Any) -> Any:
        """Encrypt the leaves of what is written at a path of a memory."""
        if isinstance(value, dict):
            return {key: self.document(job, [*path, key], part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.document(job, path, part) for part in value]
        # A value that only looks like an envelope could not be read back.
        if self._fields.has(path) or envelope_of(value) is not None:
            return self.whole("memory", job, field_place(path), value)
        return value

    def items(self, job: str, path: list[str], items: Any) -> list[Any]:
        """Encrypt the items of a log, each as a whole."""
        listed = items if isinstance(items, list) else [items]
        return [self.whole("memory", job, field_place(path), item) for item in listed]

    def argument(self, job: str, op: str, path: list[str], value: Any) -> Any:
        """Encrypt the argument of a command."""
        if op == "log":
            return self.items(job, path, value)
        return self.document(job, path, value) if op in WRITING else value

    def command(self, job: str, command: Json) -> Json:
        """Encrypt a command of a list of them. Raises WrongType."""
        path = parse_path(command["path"])
        check_command(self._fields, command["op"], path)
        if "value" not in command:
            return command
        return command | {"value": self.argument(job, command["op"], path, command["value"])}

    # Turns.

    def turn(self, body: Json, row: Json) -> Json:
        """Encrypt what a task reports of itself, and what it asks of others."""
        sealed, job = dict(body), body["job"]
        if "facts" in body:
            sealed["facts"] = [self._fact(row, fact) for fact in body["facts"]]
        if "requests" in body:
            sealed["requests"] = [self._request(row, request) for request in body["requests"]]
        if body.get("value") is not None:
            sealed["value"] = self._ending(row, body["state"], body["value"])
        if body.get("failure") is not None:
            sealed["failure"] = self.failure(job, body["failure"])
        return sealed

    def _ending(self, row: Json, state: str, value: Any) -> Any:
        job, asker = row["job"], row["asker"]
        if state == "release":  # says why this worker cannot run it: perhaps it has no key
            return {name: value[name] for name in WORDS if name in value}
        if state == "stuck" and value["code"] == NonDeterminism.code:
            return self.failure(job, value, WORDS)
        if state == "continue":
            return self.args(job, MAIN, value)
        if state == "done":
            return self.result(*answer_place(row), value)
        is_told_asker = asker and state in ("failed", "cancelled")
        return self.failure(asker["job"] if is_told_asker else job, value)

    def _fact(self, row: Json, fact: Json) -> Json:
        if fact.get("value") is None or fact["kind"] == "note":
            return fact
        return fact | {"value": self._told(row, fact)}

    def _told(self, row: Json, fact: Json) -> Any:
        job, value = row["job"], fact["value"]
        if "op" in fact:
            return self.argument(job, fact["op"], fact["path"], value)
        if "signal" in fact:
            target = str(fact.get("target") or job)
            if row["asker"] and fact["signal"] == row["signal"] and target == job:
                return self.result(*answer_place(row), value)  # it answers the asker of the hook
            return self.whole("signal", target, fact["signal"], value)
        if not fact.get("ok", True):
            return self.failure(job, value)
        return self.result(job, request_place(row["task"], fact["key"]), value)

    def _request(self, row: Json, request: Json) -> Json:
        job, kind = row["job"], request["kind"]
        if kind == "job":
            child = request.get("id") or child_id(job, row["task"], request["key"])
            sealed = request | {"args": self.args(child, MAIN, request["args"])}
            if request.get("context") is not None:
                sealed["context"] = self.document(child, [], request["context"])
            return sealed
        if kind in ("hook", "activity"):
            return request | {"args": self.args(job, request["name"], request["args"])}
        if kind == "item":
            place = request_place(row["task"], request["key"])
            return request | {"payload": self.whole("item", job, place, request["payload"])}
        return request


class NullSealer(Sealer):
    """Leaves everything as it is."""

    def __init__(self) -> None:
        """Take no codec."""
        self._fields = Fields(())

    def whole(self, kind: str, job: str, name: Any, value: Any) -> Any:  # noqa: ARG002
        """Return the value."""
        return value

    def args(self, job: str, name: str, args: Any) -> Any:  # noqa: ARG002
        """Return the arguments."""
        return args

    def document(self, job: str, path: list[str], value: Any) -> Any:  # noqa: ARG002
        """Return the document."""
        return value

    def items(self, job: str, path: list[str], items: Any) -> Any:  # noqa: ARG002
        """Return the items."""
        return items

    def turn(self, body: Json, row: Json) -> Json:  # noqa: ARG002
        """Return the turn."""
        return body


class RequestGuard:
    """What a task under a codec must keep secret in its requests.

    The hashes by which changed code is noticed are keyed: with the key that encrypted the arguments
    of the task, which it needs as long as it lives, and by the job, so that nobody sees which jobs
    ask for the same. If the arguments were not encrypted, the hashes are as without a codec.
    """

    def __init__(self, fields: Fields, digest: Callable[[bytes], bytes] | None, origin: str):
        self._fields = fields
        self._digest = digest
        self._origin = origin

    def protect(self, operation: Operation) -> Operation:
        """Return a request that may be sent.

        Raises WrongType for a command that cannot work on encrypted values, ValueTooLarge for what
        is too large to be encrypted, and ValueSealed if the codec fails: the task must then be
        given back, whatever its code makes of that.
        """
        if operation.kind == "command":
            check_command(self._fields, operation.name, operation.spec["path"])
        elif isinstance(operation.spec, dict):
            for name in ("args", "payload", "value"):
                check_size(operation.spec.get(name))
        if self._digest is None or operation.fingerprint is None:
            return operation
        data = f"{self._origin}\0{operation.fingerprint}".encode()
        return operation._replace(fingerprint=self._digest(data)[:8].hex())


def check_size(value: Any) -> None:
    """Refuse a value that is too large when it is encrypted. Raises ValueTooLarge."""
    size = len(write_json(value).encode())
    if size > MAX_PLAIN:
        raise ValueTooLarge(
            "a value is too large to be encrypted",
            detail=f"It has {size} bytes as JSON; at most {MAX_PLAIN} can be encrypted.",
            hint="Store it elsewhere and pass a reference.",
        )


def check_command(fields: Fields, op: str, path: list[str]) -> None:
    """Refuse a command that the database cannot apply to what it cannot read. Raises WrongType."""
    if op in BLIND and fields.has(path):
        raise WrongType(
            f"{op} does not work on {write_path(path)}, which is encrypted",
            detail="The database would have to read the value.",
            hint="Read it and set it, with expected_version if others write too.",
        )


def answer_place(row: Json) -> tuple[str, str]:
    """Return whose result the end of a task is: that of a request, else its own."""
    asker = row["asker"]
    if asker is None:
        return row["job"], request_place(row["task"])
    return asker["job"], request_place(asker["task"], asker["key"])


def child_id(job: str, task: str, key: str) -> str:
    """Name a child that was given no id, as `child_id()` in SQL does."""
    run, _, rest = task.partition("/")
    later = run.isdecimal() and run != "1" and f"{rest}/".startswith("main/")
    return f"{job}/{f'{run}/main/' if later else ''}{key}"


def order_paths(order_by: Any) -> Iterator[str]:
    """Return the paths by which find() orders, without columns, which begin with $."""
    for key in order_by if isinstance(order_by, list) else ():
        path = key.get("path") if isinstance(key, Mapping) else key
        if isinstance(path, str) and not path.removeprefix("-").startswith("$"):
            yield path.removeprefix("-") if path is key else path


def condition_paths(conditions: Any) -> Iterator[str]:
    """Return the paths that conditions of find() use."""
    if isinstance(conditions, dict):
        for key, asked in conditions.items():
            if key.startswith("$"):
                yield from condition_paths(asked)
            else:
                yield key
    elif isinstance(conditions, list):
        for each in conditions:
            yield from condition_paths(each)
