"""Unsealing: values that come out of the database are decrypted where `Calls` says so.

`Calls` says for each answer which values it contains. A value can be decrypted only at the place
for which it was encrypted. What a fork was told, and the result of a child, belong to another
place: for them, the database is asked from which jobs a job comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from perdure.codecs import Codec
from perdure.errors import PerdureError, SealBroken, ValueSealed
from perdure.values.envelopes import (
    MAIN,
    SEALED,
    Marked,
    Place,
    codec_failed,
    envelope_of,
    field_place,
    no_codec,
    no_key,
    request_place,
    unmarked,
)
from perdure.values.stored import as_stored

from .sealing import Fields, RequestGuard

Json = dict[str, Any]
Row = Sequence[Any]
MIN_DIGEST = 8
"""Bytes that a codec's `digest()` must return."""
UNSEALING_ERROR = "unsealing_error"
"""The field of a task or an answer that says why it cannot be decrypted here."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The jobs that a job comes from: whose journal a fork has, and who asked for a child."""

    forked_from: Sequence[str] = ()
    parent: str | None = None
    asked_as: str | None = None


class Unsealer:
    """Decrypts one answer; `unknown_jobs` are those whose origins it would have to know."""

    def __init__(self, codec: Codec | None, fields: Fields, origins: dict[str, Origin]):
        self._codec = codec
        self._fields = fields
        self._origins = origins
        self.unknown_jobs: set[str] = set()

    def whole(self, kind: str, job: str, name: Any, value: Any, *others: Place) -> Any:
        """Decrypt a value that was encrypted as a whole; any other value stays as it is.

        Raises ValueSealed and SealBroken.
        """
        sealed = envelope_of(value)
        if sealed is None:
            return value
        if self._codec is None:
            raise no_codec()
        places = [Place(kind, job, name), *others]
        places += [Place(kind, each, name) for each in self.origin_of(job).forked_from]
        for place in places:
            try:
                return json.loads(self._codec.decode(sealed.key, sealed.data, place.to_bytes()))
            except LookupError as error:
                raise no_key(sealed.key) from error
            except ValueError:
                continue
            except Exception as error:  # a key service may be unavailable, and raise anything
                raise codec_failed(error) from error
        self.unknown_jobs.add(job)
        raise SealBroken(
            f"a value ({kind}) of job {job} cannot be decrypted",
            detail=f"It was not encrypted for this place with the key {sealed.key!r}: the key is"
            " another one of that name, or the value was changed or moved.",
            hint="Give the codec the right key, or find out who has written to the database.",
        )

    def origin_of(self, job: str) -> Origin:
        """Return from which jobs a job comes, as far as that is known."""
        return self._origins.get(job, Origin())

    def args(self, job: str, name: str, args: Any, workflow: str | None = None) -> Any:
        """Decrypt arguments; those of a schedule are bound to what it starts, not to a job."""
        sealed = sealed_args(args)
        if sealed is None:
            return args
        return self.whole("args", job, name, sealed, Place("args", "", workflow))

    def signal(self, job: str, name: Any, payload: Any) -> Any:
        """Decrypt the payload of a signal; one that was sent to many is bound only to its name."""
        return self.whole("signal", job, name, payload, Place("signal", "", name))

    def reason(self, job: str, reason: Any) -> Any:
        """Decrypt why a job was asked to cancel."""
        return self.whole("reason", job, "", reason, Place("reason", "", ""))

    def failure(self, job: str, failure: Any) -> Any:
        """Decrypt a failure; that of a child was encrypted for its parent."""
        parent = self.origin_of(job).parent
        others = [] if parent is None else [Place("failure", parent, "")]
        if not isinstance(failure, dict):
            return self.whole("failure", job, "", failure, *others)
        if envelope_of(failure.get("message")) is not None:  # from terminate()
            return failure | {"message": self.reason(job, failure["message"])}
        if envelope_of(failure.get(SEALED)) is None:
            return failure
        rest = self.whole("failure", job, "", failure[SEALED], *others)
        public = {key: part for key, part in failure.items() if key != SEALED}
        return as_stored(public | rest if isinstance(rest, dict) else rest)

    def document(self, job: str, path: list[str], value: Any) -> Any:
        """Decrypt the leaves of what is at a path of a memory."""
        if isinstance(value, dict):
            return {key: self.document(job, [*path, key], part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.document(job, path, part) for part in value]
        if envelope_of(value) is None:
            return value
        return self.whole("memory", job, field_place(path), value)

    # Tasks and their journals.

    def fact(self, job: str, task: str, row: Row) -> list[Any]:
        """Decrypt a row of a journal, as `read_journal()` returns it."""
        seq, kind, key, name, fingerprint, ok, value, at, op, path = row
        told = self.fact_value(job, task, kind, key, name, ok, value, op, path)
        return [seq, kind, key, name, fingerprint, ok, told, at, op, path]

    def fact_value(
        self, job: str, task: str, kind: str, key: Any, name: Any, ok: bool, value: Any,
        op: str | None, path: Any,
    ) -> Any:  # fmt: skip
        """Decrypt what a task was told."""
        if value is None or kind == "note":
            return value
        if op is not None:
            return self.document(job, path or [], value)
        if kind == "signal":
            return self.signal(job, name, value)
        if kind == "cancel":
            return self.reason(job, value)
        if not ok:
            return self.failure(job, value)
        return self.whole("result", job, request_place(task, key), value)

    def message(self, job: str, task: str, message: Json) -> Json:
        """Decrypt a message of an inbox."""
        key, ok, payload = message["key"], message["ok"], message["payload"]
        kind = "signal" if key is None else "cancel" if key == "$cancel" else "answer"
        told = self.fact_value(job, task, kind, key, message["name"], ok, payload, None, None)
        return message | {"payload": told}

    def task(self, row: Json) -> Json:
        """Decrypt a claimed task: its arguments, journal, messages and progress."""
        job, task = row["job"], row["task"]
        if row.get("forked_from") or row.get("asked_as"):
            self._origins.setdefault(job, _origin_in(row))
        journal, failure = row.get("journal"), row.get("failure")
        is_coordinator = row.get("kind", "coordinator") == "coordinator"
        name = MAIN if is_coordinator else row["name"]
        opened = row | {
            "args": self.args(job, name, row["args"], row["name"]),
            "failure": failure and self.failure(job, failure),
            "progress": self.whole("progress", job, request_place(task), row.get("progress")),
            "journal": journal and [self.fact(job, task, fact) for fact in journal],
            "messages": [self.message(job, task, each) for each in row.get("messages") or ()],
        }
        if self._codec is not None:
            opened["guard"] = self._guard(row)
        return opened

    def _guard(self, row: Json) -> RequestGuard:
        sealed, origins = envelope_of(sealed_args(row["args"])), row.get("forked_from")
        digest = None if sealed is None else partial(self._digest, sealed.key)
        return RequestGuard(self._fields, digest, origins[0]["job"] if origins else row["job"])

    def _digest(self, key: str, data: bytes) -> bytes:
        assert self._codec is not None
        try:
            digest: object = self._codec.digest(key, data)
        except LookupError as error:
            raise no_key(key) from error
        except Exception as error:
            raise codec_failed(error) from error
        if isinstance(digest, bytes) and len(digest) >= MIN_DIGEST:
            return digest
        raise codec_failed(ValueError("it tells nothing apart"))

    # Answers to workers.

    def claimed(self, reply: Json) -> Json:
        """Decrypt the tasks of a claim.

        A task that cannot be decrypted says why, and spoils no other.
        """
        return reply | {"tasks": [self._or_error(self.task, row) for row in reply["tasks"]]}

    def advanced(self, bodies: Sequence[Json], reply: Json) -> Json:
        """Decrypt the answers to turns, and the tasks that came with them."""
        turns = zip(bodies, reply["turns"], strict=True)
        opened = reply | {
            "turns": [
                self._or_error(partial(self._answer, body), each | {"position": _position(body)})
                for body, each in turns
            ]
        }
        return self.claimed(opened) if opened.get("tasks") else opened

    def _answer(self, body: Json, answer: Json) -> Json:
        job, task = body["job"], body["task"]
        opened = dict(answer)
        if answer.get("answers"):
            first = body["position"] + 1
            paths = [fact.get("path") or [] for fact in body.get("facts") or ()]
            opened["answers"] = [
                [seq, ok, self.document(job, paths[seq - first], value)]
                for seq, ok, value in answer["answers"]
            ]
        if answer.get("messages"):
            opened["messages"] = [self.message(job, task, each) for each in answer["messages"]]
        return opened

    def _or_error(self, open_: Callable[[Json], Json], row: Json) -> Json:
        try:
            return open_(row)
        except (ValueSealed, SealBroken) as error:
            return row | {UNSEALING_ERROR: error}


def _position(body: Json) -> int:
    """Return how long a journal is after a turn was applied."""
    return int(body["position"]) + len(body.get("facts") or ())


def sealed_args(args: Any) -> Any:
    """Return the envelope of arguments; None if they have none."""
    is_one = isinstance(args, list) and len(args) == 1
    return args[0] if is_one and envelope_of(args[0]) is not None else None


def _origin_in(row: Json) -> Origin:
    forked_from = [each["job"] for each in row.get("forked_from") or ()]
    return Origin(forked_from, row.get("parent"), row.get("asked_as"))


Unseal = Callable[[Unsealer, Any], Any]
"""How an answer is decrypted: its cells are as the database returned them."""

UnsealSteps = Generator[Any, Any, Any]
"""Decrypts an answer: yields calls for the origins of jobs, and is given their answers."""


def unseal_answer(
    codec: Codec | None,
    fields: Fields,
    ask: Callable[[set[str]], Any],
    unseal: Unseal,
    answer: Any,
) -> UnsealSteps:
    """Open an answer. Raises ValueSealed and SealBroken."""
    answer, is_marked = _cells(answer)
    if codec is None and not is_marked:
        return answer
    origins: dict[str, Origin] = {}
    while True:
        unsealer = Unsealer(codec, fields, origins)
        error: PerdureError | None = None
        result = None
        try:
            result = unseal(unsealer, answer)
        except (ValueSealed, SealBroken) as broken:
            error = broken
        if unknown := unsealer.unknown_jobs - origins.keys():
            origins |= dict.fromkeys(unknown, Origin()) | (yield ask(unknown))
        elif error is not None:
            raise error
        else:
            return result


def _cells(answer: Any) -> tuple[Any, bool]:
    """Return an answer without marks, and whether it had any."""
    if answer.__class__ is Marked:
        return answer.value, True
    if isinstance(answer, tuple):
        cells = tuple(unmarked(cell) for cell in answer)
        return cells, any(cell.__class__ is Marked for cell in answer)
    if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
        rows = [_cells(row) for row in answer]
        return [row for row, _ in rows], any(is_marked for _, is_marked in rows)
    return answer, False


def as_it_is(answer: Any) -> Any:
    """Return an answer with its envelopes, as SQL shows it."""
    return _cells(answer)[0]
