"""The verbs of the model by name, and the form of their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.model import claims, ends, forks, jobs, memories, queues, schedules
from tests.model.state import Row, moment

LOOKS_AT_REAL = {"claim": claims.claim, "advance": claims.advance}
VERBS: dict[str, Callable[..., Any]] = LOOKS_AT_REAL | {
    function.__name__: function
    for function in (
        claims.extend, claims.fail_task, claims.finish_task, queues.move_clock,
        queues.pause_queue, claims.release, queues.resume_queue, queues.set_queue,
        queues.skip_time, jobs.cancel, jobs.cancel_found, ends.cancel_hook, forks.forget,
        forks.forget_finished, forks.forget_old_runs, forks.fork, jobs.hook, jobs.pause, jobs.repin,
        jobs.resume, jobs.retry, jobs.signal, jobs.signal_found, jobs.signal_with_start,
        jobs.start, jobs.start_many, memories.assign_item, memories.claim_item,
        memories.define_contract, memories.drop_contract, memories.drop_sql_hook,
        memories.entity_append, memories.entity_apply, memories.entity_at, memories.entity_create,
        memories.entity_delete, memories.entity_get, memories.entity_increment,
        memories.entity_log, memories.entity_meets, memories.entity_merge,
        memories.entity_prepend, memories.entity_remove, memories.entity_restore,
        memories.entity_set, memories.entity_set_if_not_exists, memories.entity_toggle,
        memories.publish, memories.read_item, memories.register_sql_hook, memories.release_item,
        memories.resolve_item, memories.run_task, memories.time_out_task, schedules.create_schedule,
        schedules.drop_schedule, schedules.pause_schedule, schedules.resume_schedule,
        schedules.trigger_schedule, schedules.backfill_schedule, ends.terminate,
    )
}  # fmt: skip


def readable(verb: str, rows: list[Any]) -> Any:
    """Convert an answer of the database to the form of the model."""
    if verb in ("start_many", "backfill_schedule", "signal_found", "cancel_found"):
        return rows
    (answer,) = rows
    if verb in ("claim", "advance"):
        return read_reply(answer)
    if verb in ("move_clock", "skip_time", "create_schedule"):
        return moment(answer)
    if verb.endswith("_item"):
        return read_item(answer)
    return answer


def read_item(answer: Row) -> Row:
    """Convert an item."""
    names = ("id", "key", "assignee", "claimed_by", "resolution", "resolved_by", "job", "status")
    return {name: answer[name] for name in names} | {"claimed_at": moment(answer["claimed_at"])}


def read_reply(answer: Row) -> Row:
    """Convert the answer of claim() or advance()."""
    reply = {name: moment(answer[name]) for name in ("at", "since", "next_due_at")}
    tasks = sorted(answer["tasks"], key=lambda task: (task["job"], task["task"]))
    reply |= {"token": answer["token"], "tasks": [read_task(task) for task in tasks]}
    if "turns" in answer:
        reply["turns"] = [read_turn(turn) for turn in answer["turns"]]
    return reply


def read_turn(turn: Row) -> Row:
    """Convert the answer to a turn."""
    return {
        "state": turn["state"],
        "answers": turn.get("answers") or [],
        "messages": [read_message(message) for message in turn.get("messages") or []],
        "again": turn.get("again") or False,
        "error": turn.get("error"),
    }


def read_message(message: Row) -> Row:
    """Convert a message."""
    return message | {"sent_at": moment(message["sent_at"])}


def read_task(task: Row) -> Row:
    """Convert a claimed task."""
    journal, asker = task["journal"], task["asker"]
    rows = None if journal is None else [
        [seq, kind, key, ok, value, moment(at)]
        for seq, kind, key, _, _, ok, value, at, _, _ in journal
    ]  # fmt: skip
    return task | {
        "journal": rows,
        "asker": asker and [asker["job"], asker["task"], asker["key"]],
        "messages": [read_message(message) for message in task["messages"]],
        "started_at": moment(task["started_at"]),
        "told_at": moment(task["told_at"]),
    }
