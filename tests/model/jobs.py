"""Jobs in the model: how they start, run again, are steered and end."""

from __future__ import annotations

from typing import Any

from tests.model.state import (
    Row,
    State,
    check_call,
    check_name,
    check_own_name,
    check_pin,
    check_value,
    moment,
    seconds,
    versioned,
)
from tests.races.memory_model import Refused

NEW_JOB: Row = {
    "workflow": None, "entity": None, "args": [], "context": {}, "queue": "default", "priority": 5,
    "due_at": None, "headers": None, "pinned_version": None, "key": None, "if_exists": "error",
    "parent": None, "asker_task": None, "asker_key": None, "limit_key": None,
    "on_parent_end": None, "timeout": None, "fingerprint": None,
}  # fmt: skip
NEW_TASK: Row = {
    "priority": 5, "token": None, "last_token": None, "worker": None, "last_worker": None,
    "position": 0, "asked": 0, "deliveries": 0, "attempt": 0, "paused": False, "limit_key": "",
    "in_line": False, "pinned_version": None, "args": None, "awaits": None, "until": None,
    "signal": None, "detached": False, "accept_changes": False, "asker": None, "progress": None,
    "failure": None, "stuck_reason": None, "started_at": None, "told_at": None, "fingerprint": None,
}  # fmt: skip


def add_task(s: State, job: str, task: str, **columns: Any) -> bool:
    """Make a task; return false if its name exists."""
    if (job, task) in s.tasks:
        return False
    s.tasks[job, task] = NEW_TASK | columns
    return True


# Starts


def check_start(wanted: Row) -> None:
    """Refuse a wrong start."""
    check_own_name(wanted["id"])
    it = wanted["workflow"], wanted["args"], wanted["queue"], wanted["priority"]
    check_call(*it, is_run=True)
    check_pin(wanted["pinned_version"], wanted["queue"])
    if wanted["entity"] is not None:
        check_own_name(wanted["entity"])
    if wanted["key"] is not None:
        check_name(wanted["key"])
    check_name(wanted["limit_key"] or "none")
    check_value(wanted["headers"])
    check_document(wanted["context"])
    if wanted["timeout"] is not None and seconds(wanted["timeout"]) <= 0:
        raise Refused("PD107")
    if wanted["due_at"] == "infinity" or wanted["if_exists"] not in (
        "error",
        "existing",
        "new_run",
    ):
        raise Refused("PD107")


def check_document(context: Any) -> None:
    """Refuse a value that is not a memory."""
    check_value(context)
    if not isinstance(context, dict):
        raise Refused("PD103")


def created_at(s: State, parent: str | None) -> int:
    """Return the time of a new job: not before its parent."""
    return max(s.now, s.jobs[parent]["created_at"]) if parent in s.jobs else s.now


def insert_job(s: State, wanted: Row) -> bool:
    """Make the row of a job; return false if its id is taken."""
    if wanted["id"] in s.jobs:
        return False
    s.check_contract(wanted["entity"], wanted["context"])
    is_workflow = wanted["workflow"] is not None
    asked_as = "/".join(filter(None, (wanted["asker_task"], wanted["asker_key"]))) or None
    s.jobs[wanted["id"]] = {
        "entity": wanted["entity"],
        "workflow": wanted["workflow"],
        "status": "running" if is_workflow else None,
        "context": wanted["context"],
        "version": 1 if wanted["context"] else 0,
        "run": 1,
        "watched": False,
        "paused": False,
        "args": wanted["args"],
        "result": None,
        "error": None,
        "parent": wanted["parent"],
        "asked_as": asked_as,
        "on_parent_end": wanted["on_parent_end"],
        "headers": wanted["headers"],
        "pinned_version": wanted["pinned_version"],
        "start_key": wanted["key"],
        "queue": wanted["queue"] if is_workflow else None,
        "priority": wanted["priority"] if is_workflow else None,
        "limit_key": wanted["limit_key"],
        "timeout": seconds(wanted["timeout"]),
        "forked_from": None,
        "started_at": None,
        "created_at": created_at(s, wanted["parent"]),
        "updated_at": s.now,
        "finished_at": None,
    }
    s.past[wanted["id"]] = [{}]
    if wanted["context"]:
        s.past[wanted["id"]].append(wanted["context"])
        first = {"op": "set", "path": [], "argument": wanted["context"], "value": 1, "version": 1}
        s.tell(wanted["id"], "$outside", 1, "command", **first)
    return True


def add_coordinator(s: State, wanted: Row) -> None:
    """Make the first task of a run, and its deadline."""
    job = s.jobs[wanted["id"]]
    task = f"{job['run']}/main"
    due_at = s.now if wanted["due_at"] is None else moment(wanted["due_at"])
    asker = (wanted["parent"], wanted["asker_task"], wanted["asker_key"])
    add_task(
        s,
        wanted["id"],
        task,
        kind="coordinator",
        name=wanted["workflow"],
        queue=versioned(wanted["queue"], wanted["pinned_version"]),
        priority=wanted["priority"],
        due_at=due_at,
        pinned_version=wanted["pinned_version"],
        limit_key=wanted["limit_key"] or "",
        paused=job["paused"],
        asker=asker if wanted["asker_key"] is not None else None,
        fingerprint=wanted["fingerprint"],
    )
    if job["timeout"] is not None:
        end = {"queue": "$sql", "due_at": max(due_at, s.now) + job["timeout"]}
        its = {"kind": "hook", "name": "$deadline", "priority": 0}
        add_task(s, wanted["id"], f"{task}/$deadline", **its, **end)


def was_started_by(s: State, job: str, key: str | None) -> bool:
    """Return whether a job, or any run of it, was started with a key."""
    begun = {row["value"].get("key") for row in runs_of(s, job)} | {s.jobs[job]["start_key"]}
    return key is not None and key in begun


def runs_of(s: State, job: str) -> list[Row]:
    """Return the facts about the starts of the later runs of a job."""
    return [row for (owner, task, _), row in s.journal.items() if (owner, task) == (job, "$run")]


def start_job(s: State, wanted: Row) -> bool:
    """Start a job, or a new run of it; return whether one was started."""
    return wanted["id"] in start_jobs(s, [wanted])


def start_jobs(s: State, wishes: list[Row]) -> set[str]:
    """Start jobs, or new runs of them, all or none; of several starts of one id the first."""
    ids = [wanted["id"] for wanted in wishes]
    firsts = [wanted for place, wanted in enumerate(wishes) if wanted["id"] not in ids[:place]]
    made = {wanted["id"] for wanted in firsts if insert_job(s, wanted)}
    for wanted in firsts:
        if wanted["id"] in made:
            add_coordinator(s, wanted)
    ready = [wanted for wanted in firsts if wanted["id"] not in made and is_ready(s, wanted)]
    for wanted in ready:
        is_other = wanted["entity"] not in (None, s.jobs[wanted["id"]]["entity"])
        if wanted["context"] or is_other:
            raise Refused("PD107")
    for wanted in ready:
        restart(s, wanted, "start")
    begun = made | {wanted["id"] for wanted in ready}
    for place, wanted in enumerate(wishes):
        is_there = wanted["id"] not in begun or wanted["id"] in ids[:place]
        is_its = was_started_by(s, wanted["id"], wanted["key"])
        if is_there and wanted["if_exists"] != "existing" and not is_its:
            raise Refused("PD402")
    return begun


def is_ready(s: State, wanted: Row) -> bool:
    """Return whether an existing job may begin the new run that is wanted."""
    is_its = was_started_by(s, wanted["id"], wanted["key"])
    is_running = s.jobs[wanted["id"]]["status"] == "running"
    return wanted["if_exists"] == "new_run" and not is_its and not is_running


def take_message(s: State, number: int) -> None:
    """Remove a message, but keep a request to cancel, and the key of a signal."""
    message = s.inbox[number]
    if message["key"] == "$cancel":
        message["consumed_at"] = s.now
    elif message["dedupe_key"] is None:
        del s.inbox[number]
    else:
        key = message["dedupe_key"]
        message |= {"task": "$taken", "key": key, "payload": None, "consumed_at": s.now}


def restart(s: State, wanted: Row, reason: str) -> None:
    """Begin a new run of an ended job, or of a memory without a workflow."""
    job = s.jobs[wanted["id"]]
    ending = {"status": job["status"], "result": job["result"], "error": job["error"]}
    told = {name: value for name, value in ending.items() if name == "status" or value is not None}
    told |= {} if job["start_key"] is None else {"key": job["start_key"]}
    if not s.user_tasks(wanted["id"]):
        for number, message in list(s.inbox.items()):
            if message["job_id"] == wanted["id"] and message["task"] is None:
                take_message(s, number)
    same = ("workflow", "args", "parent", "headers", "pinned_version", "queue", "priority")
    job |= {name: wanted[name] for name in (*same, "limit_key")}
    job |= dict.fromkeys(("result", "error", "asked_as", "on_parent_end", "started_at"))
    job |= {
        "run": job["run"] + (0 if ending["status"] is None else 1),
        "status": "running",
        "start_key": wanted["key"],
        "timeout": seconds(wanted["timeout"]),
        "finished_at": None,
        "updated_at": s.now,
    }
    begun = {"name": reason, "value": told, "argument": job["args"]}
    s.tell(wanted["id"], "$run", job["run"], "run", **begun)
    add_coordinator(s, wanted)


def start(s: State, workflow: str, id: str, **options: Any) -> Row:
    wanted = NEW_JOB | {"id": id, "workflow": workflow} | options
    check_start(wanted)
    return {"id": id, "is_new": start_job(s, wanted)}


def start_many(s: State, starts: list[Row]) -> list[Row]:
    wishes = [NEW_JOB | wish for wish in starts]
    for wanted in wishes:
        check_start(wanted)
    ids = [wanted["id"] for wanted in wishes]
    begun = start_jobs(s, wishes)
    return [
        {"id": wanted["id"], "is_new": wanted["id"] in begun and wanted["id"] not in ids[:place]}
        for place, wanted in enumerate(wishes)
    ]


def retry(
    s: State, id: str, args: Any = None, key: str | None = None, timeout: str | None = None
) -> bool:
    job = s.job(id)
    check_name("none" if key is None else key)
    if was_started_by(s, id, key):
        return True
    if job["status"] not in ("failed", "cancelled"):
        return False
    kept = {name: job[name] for name in ("workflow", "entity", "args", "queue", "priority")}
    kept |= {name: job[name] for name in ("headers", "pinned_version", "limit_key", "parent")}
    kept["timeout"] = None if job["timeout"] is None else f"{job['timeout'] / 1e6} s"
    wanted = NEW_JOB | {"id": id, "key": key} | kept
    wanted |= {} if args is None else {"args": args}
    wanted |= {} if timeout is None else {"timeout": timeout}
    restart(s, wanted, "retry")
    return True


def signal(s: State, id: str, name: str, payload: Any = None, key: str | None = None) -> bool:
    job = s.job(id)
    check_name(name)
    check_value(payload)
    if key is not None:
        check_name(key)
        if any((m["job_id"], m["dedupe_key"]) == (id, key) for m in s.inbox.values()):
            return False
    if job["status"] != "running" and not s.user_tasks(id):
        raise Refused("PD403")
    s.leave(id, name=name, payload=payload, dedupe_key=key)
    s.wake(id)
    return True


def signal_with_start(
    s: State, workflow: str, id: str, name: str, payload: Any = None, **options: Any
) -> Row:
    begun = start(s, workflow, id, **options, if_exists="existing")
    signal(s, id, name, payload, options.get("key"))
    return begun


def found(s: State, entity: str) -> list[str]:
    """Return the running jobs of an entity."""
    its = [job for job, row in s.jobs.items() if row["entity"] == entity]
    return sorted(job for job in its if s.jobs[job]["status"] == "running")


def signal_found(
    s: State, entity: str, conditions: Row, name: str, payload: Any = None, key: str | None = None
) -> list[Row]:
    check_name(name)
    jobs = found(s, entity)
    return [{"id": job, "is_new": signal(s, job, name, payload, key)} for job in jobs]


def cancel_found(s: State, entity: str, conditions: Row, reason: str | None = None) -> list[Row]:
    return [{"id": job, "is_new": cancel(s, job, reason)} for job in found(s, entity)]


def hook(
    s: State,
    id: str,
    name: str,
    key: str,
    args: Any = (),
    queue: str = "default",
    priority: int = 5,
    due_at: str | None = None,
    limit_key: str | None = None,
    pinned_version: str | None = None,
) -> str:
    job = s.job(id)
    if "/" in key:
        raise Refused("PD104")
    check_name(key)
    check_name(limit_key or "none")
    check_call(name, list(args), queue, priority)
    check_pin(pinned_version, queue)
    if due_at == "infinity":
        raise Refused("PD107")
    task = f"$hook/{key}"
    if not s.has_ended(id, task) and add_task(
        s,
        id,
        task,
        kind="hook",
        name=name,
        queue=versioned(queue, pinned_version),
        pinned_version=pinned_version,
        priority=priority,
        due_at=s.now if due_at is None else moment(due_at),
        args=list(args),
        detached=True,
        limit_key=limit_key or "",
        paused=job["paused"],
    ):
        job["updated_at"] = s.now
    return task


# Steering


def cancel(s: State, id: str, reason: str | None = None) -> bool:
    job = s.job(id)
    task = f"{job['run']}/main"
    if job["status"] != "running" or not s.insert_cancel_requests(id, [task], reason):
        return False
    s.lift_pause(id)
    s.wake_cancelled(id, [task])
    return True


def pause(s: State, id: str) -> bool:
    job = s.job(id)
    if job["paused"]:
        return False
    job["paused"] = True
    for _, task in s.tasks_of(id):
        is_users = not task["name"].startswith("$") or task["name"] == "$schedule"
        task["paused"] = task["paused"] or is_users
    return True


def resume(s: State, id: str, task: str | None = None, accept_changes: bool = False) -> int:
    s.job(id)
    count = s.lift_pause(id) if task is None else 0
    for name, row in s.tasks_of(id):
        if row["stuck_reason"] is not None and task in (None, name):
            count += 1
            row |= {"due_at": s.now, "stuck_reason": None, "deliveries": 0}
            row["accept_changes"] = accept_changes
    return count


def repin(s: State, id: str, version: str | None) -> int:
    job = s.job(id)
    if version is not None:
        check_name(version)
    before = job["pinned_version"]
    if job["workflow"] is not None:
        job["pinned_version"] = version
    moved = 0
    for _, row in s.tasks_of(id):
        is_its = row["kind"] == "coordinator" or (
            before is not None and row["pinned_version"] == before
        )
        if not is_its or row["pinned_version"] == version:
            continue
        moved += 1
        row |= {"queue": versioned(row["queue"], version), "pinned_version": version}
        row["in_line"] = False
        if row["token"] is not None:
            row.update(dict.fromkeys(("token", "worker", "last_token", "awaits")))
            row.update(deliveries=0, due_at=s.now)
    return moved


# Ends


def finish(s: State, job: str, task: str, state: str, value: Any) -> None:
    """Write the end of a run."""
    s.jobs[job] |= {
        "status": "completed" if state == "done" else state,
        "result": value if state == "done" else None,
        "error": None if state == "done" else ({} if value is None else value),
        "started_at": s.tasks[job, task]["started_at"],
        "finished_at": s.now,
        "updated_at": s.now,
    }
