"""Unsealers: which values an answer to a client contains, and where.

Each decrypts one kind of answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from perdure.basics.paths import parse_path
from perdure.errors import SealBroken
from perdure.values.envelopes import MAIN, Place, request_place

from .unsealing import Unsealer

Json = dict[str, Any]
Row = tuple[Any, ...]


def document(job: str, path: list[str], unsealer: Unsealer, value: Any) -> Any:
    """Decrypt what is at a path of a memory."""
    return unsealer.document(job, path, value)


def answers(job: str, paths: Sequence[str], unsealer: Unsealer, values: list[Any]) -> list[Any]:
    """Decrypt the answers to commands at several paths."""
    places = zip(paths, values, strict=True)
    return [unsealer.document(job, parse_path(path), value) for path, value in places]


def changes(job: str, unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt changes: (version, at, task, op, path, argument, answer, key)."""
    return [
        (*row[:5], *(unsealer.document(job, parse_path(row[4]), each) for each in row[5:7]), row[7])
        for row in rows
    ]


def parts(job: str, places: tuple[int, ...], unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt rows that begin with a path, at these places."""
    return [
        tuple(
            unsealer.document(job, parse_path(row[0]), cell) if place in places else cell
            for place, cell in enumerate(row)
        )
        for row in rows
    ]


def items(job: str, path: list[str], unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt the items of a log: (version, place, item, ...)."""
    return [(*row[:2], unsealer.document(job, path, row[2]), *row[3:]) for row in rows]


def found(unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt memories that were found: (id, entity, status, version, context, ...)."""
    return [(*row[:4], unsealer.document(row[0], [], row[4]), *row[5:]) for row in rows]


def result(job: str, unsealer: Unsealer, row: Row) -> Row:
    """Decrypt how a job ended: (status, result, error). A child's was encrypted for its parent."""
    status, value, error = row
    return status, _result(job, unsealer, value), error and unsealer.failure(job, error)


def _result(job: str, unsealer: Unsealer, value: Any) -> Any:
    origin = unsealer.origin_of(job)
    others = []
    if origin.parent is not None and origin.asked_as is not None:
        others = [Place("result", origin.parent, request_place(origin.asked_as))]
    return unsealer.whole("result", job, MAIN, value, *others)


def hook_result(job: str, task: str, unsealer: Unsealer, row: Row) -> Row:
    """Decrypt how a hook from outside ended: (status, result, error)."""
    status, value, error = row
    opened = unsealer.fact_value(job, task, "end", None, None, True, value, None, None)
    return status, opened, error and unsealer.failure(job, error)


def journal(job: str, task: str, unsealer: Unsealer, rows: list[list[Any]]) -> list[list[Any]]:
    """Decrypt a page of a journal."""
    return [unsealer.fact(job, task, row) for row in rows]


def recording(unsealer: Unsealer, row: Json, rows: list[list[Any]]) -> tuple[Json, list[list[Any]]]:
    """Decrypt a recording, which may come from a file: a coordinator's row and its journal."""
    task = unsealer.task(row)
    job, name = row["job"], row["task"]
    return task | {"result": _result(job, unsealer, row["result"])}, journal(
        job, name, unsealer, rows
    )


def asked_item(unsealer: Unsealer, row: Row) -> Row:
    """Decrypt an item: (id, job, task, key, name, payload, ..., resolution, ...)."""
    cells = list(row)
    _, job, task, key, *_ = row
    place = request_place(task, key)
    cells[5] = unsealer.whole("item", job, place, row[5])
    cells[13] = unsealer.whole("result", job, place, row[13])
    return tuple(cells)


def asked_items(unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt several items."""
    return [asked_item(unsealer, row) for row in rows]


def timeline(job: str, unsealer: Unsealer, rows: list[Row]) -> list[Row]:
    """Decrypt items of a timeline: (kind, at, task, body, place)."""
    return [
        (kind, at, task, _TIMELINE[kind](unsealer, job, task, body), place)
        for kind, at, task, body, place in rows
    ]


def _job(unsealer: Unsealer, job: str, _: Any, body: Json) -> Json:
    error = body.get("error")
    return body | {
        "args": unsealer.args(job, MAIN, body["args"], body["workflow"]),
        "result": _result(job, unsealer, body["result"]),
        "error": error and unsealer.failure(job, error),
    }


def _fact(unsealer: Unsealer, job: str, task: str, body: Json) -> Json:
    kind, key, op, path = body["kind"], body["key"], body["op"], body["path"] or []
    value, argument = body["value"], body["argument"]
    if kind == "run":
        return body | {
            "value": _ended(unsealer, job, value),
            "argument": _args(unsealer, job, argument),
        }
    if kind == "end":
        key = None
    if op is not None:
        argument = unsealer.document(job, path, argument)
    elif kind == "send" and argument is not None:
        argument = _sent(unsealer, job, task, body["name"], argument)
    told = unsealer.fact_value(job, task, kind, key, body["name"], body["ok"], value, op, path)
    return body | {"value": told, "argument": argument}


def _sent(unsealer: Unsealer, job: str, task: str, name: str, payload: Any) -> Any:
    """Decrypt what a job has sent to itself.

    What it has sent to others is theirs, and stays encrypted.
    """
    answer = Place("result", job, request_place(task))
    with suppress(SealBroken):
        return unsealer.whole("signal", job, name.removeprefix("send:"), payload, answer)
    return payload


def _args(unsealer: Unsealer, job: str, args: Any) -> Any:
    """Decrypt the arguments of a run.

    Those of a schedule stay encrypted: nobody knows here to what they belong.
    """
    with suppress(SealBroken):
        return unsealer.args(job, MAIN, args)
    return args


def _ended(unsealer: Unsealer, job: str, value: Any) -> Any:
    """Decrypt how a run ended."""
    if not isinstance(value, dict):
        return value
    opened = {"result": _result(job, unsealer, value.get("result"))}
    opened["error"] = unsealer.failure(job, value.get("error"))
    return value | {name: part for name, part in opened.items() if name in value}


def _task(unsealer: Unsealer, job: str, task: str, body: Json) -> Json:
    return body | {
        "args": unsealer.args(
            job, MAIN if body["kind"] == "coordinator" else body["name"], body["args"], body["name"]
        ),
        "progress": unsealer.whole("progress", job, request_place(task), body["progress"]),
        "failure": body["failure"] and unsealer.failure(job, body["failure"]),
        "stuck_reason": body["stuck_reason"] and unsealer.failure(job, body["stuck_reason"]),
    }


def _message(unsealer: Unsealer, job: str, task: str | None, body: Json) -> Json:
    return unsealer.message(job, task or "", body)


def _item(unsealer: Unsealer, job: str, task: str, body: Json) -> Json:
    place = request_place(task, body["key"])
    return body | {
        "payload": unsealer.whole("item", job, place, body["payload"]),
        "resolution": unsealer.whole("result", job, place, body["resolution"]),
    }


_TIMELINE = {"job": _job, "fact": _fact, "task": _task, "message": _message, "item": _item}
