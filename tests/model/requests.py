"""Requests in the model: what tasks request and withdraw."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.model.ends import end_tasks_without_cleanup
from tests.model.jobs import NEW_JOB, add_coordinator, add_task, insert_job
from tests.model.judging import Turn
from tests.model.state import Row, State, failure, moment, versioned
from tests.races.memory_model import Refused


def requested_task(task: str, request: Row) -> str:
    """Return the name of a requested task."""
    if not request.get("detached"):
        return f"{task}/{request['key']}"
    _, asker, *rest = task.split("/") if task.startswith("$hook/") else ("", "", task)
    above = f"$hook:{len(asker)}:{asker}:" if asker else ""
    own = "/".join([*rest, request["key"]])
    return f"$hook/{above}" + re.sub(r"([\\:])", r"\\\1", own).replace("/", ":")


def request_tasks(s: State, turns: list[Turn]) -> None:
    """Make the hooks and activities that turns request."""
    for turn, request in requests_of(turns, "hook", "activity"):
        task, detached = requested_task(turn.task, request), request.get("detached", False)
        if s.is_answered(turn.job, turn.task, request["key"]):
            continue
        if detached and s.has_ended(turn.job, task):
            continue
        add_task(
            s,
            turn.job,
            task,
            kind=request.get("kind", "hook"),
            name=request["name"],
            queue=versioned(request.get("queue", "default"), request.get("pinned_version")),
            priority=request.get("priority", 5),
            due_at=moment(request["due_at"]) if "due_at" in request else s.now,
            args=request.get("args", []),
            signal=request.get("signal"),
            detached=detached,
            pinned_version=request.get("pinned_version"),
            limit_key=request.get("limit_key") or "",
            paused=s.jobs[turn.job]["paused"],
            asker=None if detached else (turn.job, turn.task, request["key"]),
            fingerprint=request.get("fingerprint"),
        )


def requests_of(turns: list[Turn], *kinds: str) -> Iterator[tuple[Turn, Row]]:
    """Yield the requests of some kinds."""
    for turn in turns:
        for request in turn.list("requests"):
            if request.get("kind", "hook") in kinds:
                yield turn, request


def child_of(turn: Turn, request: Row) -> Row:
    """Return the child that a request describes."""
    run = turn.task.split("/")
    later = f"{run[0]}/main/" if run[0].isdigit() and run[0] != "1" else ""
    detached = request.get("detached", False)
    wanted = NEW_JOB | {name: value for name, value in request.items() if name in NEW_JOB}
    return wanted | {
        "id": request.get("id") or f"{turn.job}/{later}{request['key']}",
        "workflow": request["name"],
        "args": request.get("args", []),
        "key": None,
        "parent": turn.job,
        "asker_task": f"{turn.task}/{request['key']}" if detached else turn.task,
        "asker_key": None if detached else request["key"],
        "on_parent_end": request.get("on_parent_end") or ("continue" if detached else "cancel"),
    }


def request_children(s: State, turns: list[Turn]) -> None:
    """Start the children that turns request; an id that is taken is answered with a failure."""
    wanted = [
        child_of(turn, request)
        for turn, request in requests_of(turns, "job")
        if not s.is_answered(turn.job, turn.task, request["key"]) and not is_begun(s, turn, request)
    ]
    for child in wanted:
        asker = (child["parent"], child["asker_task"], child["asker_key"])
        broken = None
        try:
            made = insert_job(s, child)
        except Refused as refused:
            broken = failure(refused.code)
            made = insert_job(s, child | {"context": {}, "timeout": None})
        if made and broken:
            fail_child(s, child, broken)
        elif made:
            add_coordinator(s, child)
        elif child["asker_key"] is not None and asker not in askers_of(s, child["id"]):
            refusal = {"ok": False, "payload": failure("PD402"), "sender": f"{child['id']} 1/main"}
            refusal["fingerprint"] = child["fingerprint"]
            s.leave(asker[0], task=asker[1], key=asker[2], **refusal)


def is_begun(s: State, turn: Turn, request: Row) -> bool:
    """Return whether a child of a turn exists, under any id; one of an earlier job does not
    count."""
    asked_as, since = f"{turn.task}/{request['key']}", s.jobs[turn.job]["created_at"]
    return any(
        (row["parent"], row["asked_as"]) == (turn.job, asked_as)
        and (row["status"] == "running" or (request.get("detached") and row["created_at"] >= since))
        for row in s.jobs.values()
    )


def fail_child(s: State, child: Row, broken: Row) -> None:
    """Fail a child whose first memory breaks a contract."""
    s.jobs[child["id"]] |= {"status": "failed", "error": broken, "finished_at": s.now}
    if child["asker_key"] is not None:
        answer = {"ok": False, "payload": broken, "sender": f"{child['id']} 1/main"}
        answer["fingerprint"] = child["fingerprint"]
        s.leave(child["parent"], task=child["asker_task"], key=child["asker_key"], **answer)


def askers_of(s: State, job: str) -> list[Any]:
    """Return the askers of the coordinator of a job."""
    return [row["asker"] for _, row in s.tasks_of(job) if row["kind"] == "coordinator"]


def ask_to_cancel(s: State, job: str, tasks: list[str]) -> None:
    """End activities without a holder, and ask the other tasks to cancel."""
    ended = end_tasks_without_cleanup(s, job, tasks)
    others = sorted(task for task in tasks if task not in ended)
    s.insert_cancel_requests(job, others, None)
    s.wake_cancelled(job, others)


def cancel_new_requests(s: State, turns: list[Turn]) -> None:
    """Ask to cancel new requests of tasks that have an open request to cancel themselves."""
    asked: dict[str, list[str]] = {}
    for turn, request in requests_of(turns, "hook", "activity", "job"):
        if request.get("shielded") or not s.cancel_is_open(turn.job, turn.task):
            continue
        named = [(turn.job, requested_task(turn.task, request))]
        if request.get("kind") == "job":
            as_ = f"{turn.task}/{request['key']}"
            named = [
                (job, f"{row['run']}/main")
                for job, row in s.jobs.items()
                if (row["parent"], row["asked_as"]) == (turn.job, as_)
            ]
        for job, task in named:
            if (job, task) in s.tasks:
                asked.setdefault(job, []).append(task)
    for job, tasks in sorted(asked.items()):
        ask_to_cancel(s, job, tasks)


def await_conditions(s: State, turns: list[Turn]) -> None:
    """Record the conditions for which tasks wait."""
    asked: set[str] = set()
    for turn, request in requests_of(turns, "until"):
        place = (turn.job, turn.task, request["key"])
        if s.is_answered(*place) or place in s.conditions:
            continue
        s.conditions[place] = {
            "condition": request["condition"],
            "asked_at": s.now,
            "fingerprint": request.get("fingerprint"),
        }
        asked.add(turn.job)
    for job in asked:
        s.jobs[job]["watched"] = True
    for job in sorted(asked):
        s.meet(job)


def ask_people(s: State, turns: list[Turn]) -> None:
    """Make the items that turns request."""
    for turn, request in requests_of(turns, "item"):
        place = (turn.job, turn.task, request["key"])
        is_there = any(
            (item["job_id"], item["task"], item["key"]) == place and item["resolved_at"] is None
            for item in s.items.values()
        )
        if is_there or s.is_answered(*place):
            continue
        empty = ("id", "claimed_by", "claimed_at", "resolution", "resolved_by", "resolved_at")
        s.items[s.number()] = dict.fromkeys(empty) | {
            "job_id": turn.job,
            "task": turn.task,
            "key": request["key"],
            "name": request["name"],
            "payload": request.get("payload"),
            "assignee": request.get("assignee"),
            "priority": request.get("priority", 5),
            "asked_at": s.now,
            "expires_at": moment(request.get("expires_at")),
            "fingerprint": request.get("fingerprint"),
        }


def withdraw(s: State, turns: list[Turn]) -> None:
    """Drop withdrawn conditions and items, and ask withdrawn tasks to cancel."""
    asked: dict[str, list[str]] = {}
    for turn in turns:
        for key in turn.list("cancels"):
            s.conditions.pop((turn.job, turn.task, key), None)
            for number, item in list(s.items.items()):
                place = (item["job_id"], item["task"], item["key"])
                if place == (turn.job, turn.task, key) and item["resolved_at"] is None:
                    del s.items[number]
            for (job, task), row in s.tasks.items():
                if row["asker"] == (turn.job, turn.task, key):
                    asked.setdefault(job, []).append(task)
    for job, tasks in sorted(asked.items()):
        if any(s.tasks[job, task]["kind"] == "coordinator" for task in tasks):
            s.lift_pause(job)
        ask_to_cancel(s, job, tasks)
