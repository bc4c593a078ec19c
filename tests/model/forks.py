"""Forks and retention in the model: jobs that begin where others were, and jobs that are
forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.model.jobs import NEW_JOB, check_document, start_job
from tests.model.state import SECOND, Row, State, check_name, moment
from tests.races.memory_model import Refused

DAY = 24 * 60 * 60 * SECOND


def fork(
    s: State,
    id: str,
    new_id: str,
    seq: int | None = None,
    context: Any = None,
    key: str | None = None,
) -> Row:
    job = s.job(id)
    source = f"{job['run']}/main"
    told = s.length(id, source)
    upto = told if seq is None else seq
    check_name(new_id)
    check_name("none" if key is None else key)
    if job["status"] is None or not 0 <= upto <= told:
        raise Refused("PD107")
    version = job["version"] if seq is None else version_at_fact(s, id, source, upto)
    document = s.past[id][version]
    if context is not None:
        check_document(context)
        document = context
    kept = {name: job[name] for name in ("workflow", "entity", "args", "queue", "priority")}
    kept |= {name: job[name] for name in ("headers", "pinned_version", "limit_key")}
    kept["timeout"] = None if job["timeout"] is None else f"{job['timeout'] / 1e6} s"
    wanted = NEW_JOB | {"id": new_id, "context": document, "key": key} | kept
    if not start_job(s, wanted):
        return {"id": new_id, "is_new": False}
    copy_logs(s, id, new_id, version)
    copy_journal(s, id, source, new_id, upto)
    return {"id": new_id, "is_new": True}


def copy_logs(s: State, job: str, new_job: str, upto: int) -> None:
    """Copy the logs of a job at a version into a fork, as versions of its own."""
    logged = [
        (row["version"], task, row)
        for (owner, task, _), row in s.journal.items()
        if owner == job and row["op"] == "log" and row["version"] is not None
    ]
    row = s.jobs[new_job]
    for version, task, told in sorted(logged, key=lambda one: one[0]):
        if version <= upto:
            row |= {"version": row["version"] + 1, "updated_at": s.now}
            s.past[new_job].append(row["context"])
            name = told["name"] or (None if task == "$outside" else task)
            copied = {"op": "log", "path": told["path"], "argument": told["argument"]}
            its = {"value": row["version"], "version": row["version"], "name": name}
            s.tell(new_job, "$outside", row["version"], "command", **copied, **its)


def copy_journal(s: State, job: str, source: str, new_job: str, upto: int) -> None:
    """Copy the journal of a coordinator into a fork."""
    rows = {seq: s.journal[job, source, seq] for seq in range(1, upto + 1)}
    for seq, row in rows.items():
        argument = None if row["kind"] == "read" else row["argument"]
        s.journal[new_job, "1/main", seq] = row | {"version": None, "argument": argument}
    task = s.tasks.get((job, source), {})
    began = task.get("started_at") or s.jobs[job]["started_at"]
    s.tasks[new_job, "1/main"] |= {
        "position": upto,
        "started_at": began,
        "told_at": max((row["at"] for row in rows.values()), default=None),
    }
    known = s.jobs[job]["forked_from"] if s.jobs[job]["run"] == 1 else None
    authors = [*(known or []), {"job": job, "task": source, "position": upto}]
    s.jobs[new_job]["forked_from"] = [
        author | {"position": min(author["position"], upto)} for author in authors
    ]


def version_at_fact(s: State, job: str, task: str, seq: int) -> int:
    """Return the version of a memory at the time of a fact."""
    lowest, highest, at = 0, s.jobs[job]["version"], None
    for (owner, name, place), row in sorted(s.journal.items()):
        if (owner, name) != (job, task):
            continue
        read = (row["argument"] or {}).get("version") if row["kind"] == "read" else None
        version = row["version"] or read
        if place <= seq and (row["version"] or row["kind"] == "read" or place == seq):
            lowest = max(lowest, version or 0)
            at = max(at or 0, row["at"])
        elif place > seq and version is not None:
            highest = min(highest, version - (1 if row["version"] else 0))
    if at is None:
        run = s.journal.get((job, "$run", s.jobs[job]["run"]))
        at = s.jobs[job]["created_at"] if run is None else run["at"]
    later = [row["version"] for (owner, _, _), row in s.journal.items()
             if owner == job and row["version"] and row["at"] > at]  # fmt: skip
    known = min(later) - 1 if later else s.jobs[job]["version"]
    return min(highest, max(lowest, known))


def is_at_work(s: State, job: str) -> bool:
    """Return whether a job has a live task or a running child, or could be requested again."""
    has_child = any(row["parent"] == job and row["status"] == "running" for row in s.jobs.values())
    return bool(s.tasks_of(job)) or has_child or is_still_asked_for(s, s.jobs[job])


def is_still_asked_for(s: State, row: Row) -> bool:
    """Return whether the task that requested a child is alive and has no answer."""
    parent, name = row["parent"], row["asked_as"] or ""
    return any(
        name.startswith(f"{task}/") and not s.is_answered(parent, task, name[len(task) + 1 :])
        for task, _ in (s.tasks_of(parent) if parent else ())
    )


def forget_jobs(s: State, ids: Sequence[str]) -> None:
    """Delete jobs with everything that belongs to them."""
    for job in ids:
        del s.jobs[job], s.past[job]
    s.journal = {place: row for place, row in s.journal.items() if place[0] not in ids}
    s.inbox = {number: row for number, row in s.inbox.items() if row["job_id"] not in ids}
    s.items = {number: row for number, row in s.items.items() if row["job_id"] not in ids}


def forget(s: State, id: str) -> bool:
    if id not in s.jobs:
        return False
    if is_at_work(s, id):
        raise Refused("PD407")
    forget_jobs(s, [id])
    return True


def forget_finished(s: State, before: str, entity: str | None = None, max_jobs: int = 1000) -> int:
    limit = moment(before)
    old = [
        (row["created_at"], job)
        for job, row in s.jobs.items()
        if row["workflow"] is not None
        and row["created_at"] < limit
        and row["finished_at"] is not None
        and row["finished_at"] < limit
        and entity in (None, row["entity"])
        and not is_at_work(s, job)
    ]
    chosen = [job for _, job in sorted(old)][:max_jobs]
    forget_jobs(s, chosen)
    return len(chosen)


def forget_old_runs(s: State, id: str, max_rows: int = 10000) -> int:
    run = s.job(id)["run"]
    old = [
        (job, task, seq)
        for (job, task, seq), row in s.journal.items()
        if job == id
        and row["version"] is None
        and task[0].isdigit()
        and int(task.split("/")[0]) < run
        and (job, task) not in s.tasks
    ]
    for place in old:
        del s.journal[place]
    keys = [
        number
        for number, message in s.inbox.items()
        if (message["job_id"], message["task"]) == (id, "$taken")
        and message["consumed_at"] < s.now - DAY
    ]
    for number in keys:
        del s.inbox[number]
    return len(old) + len(keys)
