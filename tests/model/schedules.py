"""Schedules in the model: those by interval, and what becomes of their due times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.model.forks import forget
from tests.model.jobs import NEW_JOB, add_task, insert_job, start_job
from tests.model.memories import run_command
from tests.model.state import NEVER, SECOND, Row, State, failure, moment, stamp
from tests.races.memory_model import Refused

TASK = "$hook/$schedule"
EVERY = {f"00:00:{length}": length * SECOND for length in (20, 45)}
MINUTE = 60 * SECOND


def is_sound(says: Row) -> bool:
    """Return whether the model can follow a schedule."""
    return says.get("every") in EVERY and "cron" not in says


def next_time(says: Row, after: int) -> int:
    """Return the next due time of a schedule after a time."""
    every = EVERY[says["every"]]
    return (after // every + 1) * every


def timetable(says: Row) -> Row:
    """Return the parts of a schedule that define its due times."""
    return {name: says.get(name) for name in ("cron", "every", "time_zone", "starts_at")}


def lock_schedule(s: State, name: str) -> Row:
    """Return the memory of a schedule."""
    if f"$schedule/{name}" not in s.jobs:
        raise Refused("PD410")
    return s.jobs[f"$schedule/{name}"]


def park_schedule_task(task: Row, due_at: int, stuck: Any = None, **columns: Any) -> None:
    """Park the task of a schedule."""
    if task["token"] is not None:
        task["last_token"] = task["token"]
    task.update(due_at=due_at, stuck_reason=stuck, deliveries=0, token=None, worker=None)
    task.update(columns)


def settle(s: State, id: str, owed: int | None) -> int | None:
    """Let a schedule wait for the due time that is owed, or else for the next."""
    says, task = s.jobs[id]["context"], s.tasks[id, TASK]
    next_at = next_time(says, s.now) if owed is None else owed
    args = {"args": timetable(says)} if owed is None else {}
    is_paused = says.get("paused", False)
    park_schedule_task(task, NEVER if is_paused else next_at, until=next_at, **args)
    return None if is_paused else next_at


def resettle(s: State, id: str) -> int | None:
    """Let a changed schedule wait anew; a due time that is owed stays owed."""
    until = s.tasks[id, TASK]["until"]
    return settle(s, id, until if until is not None and until <= s.now else None)


def create_schedule(
    s: State,
    name: str,
    workflow: str,
    every: str | None = None,
    cron: str | None = None,
    starts_at: str | None = None,
    catch_up: str = "last",
    overlap: str = "allow",
    queue: str = "default",
    pinned_version: str | None = None,
) -> int | None:
    schedule = f"$schedule/{name}"
    empty = {"id": schedule, "entity": "$schedule", "args": None, "queue": None, "priority": None}
    if insert_job(s, NEW_JOB | empty):
        s.jobs[schedule]["watched"] = True
        its = {"kind": "hook", "name": "$schedule", "queue": "$sql", "priority": 0, "args": {}}
        add_task(s, schedule, TASK, **its, detached=True, due_at=s.now)
    asked = {
        "workflow": workflow,
        "every": None if every is None else f"00:00:{every.removesuffix(' s')}",
        "cron": cron,
        "args": [],
        "time_zone": "UTC",
        "starts_at": starts_at,
        "catch_up": catch_up,
        "overlap": overlap,
        "queue": queue,
        "priority": 5,
        "pinned_version": pinned_version,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    known = ("workflow", "every", "cron", "args", "time_zone", "starts_at", "catch_up", "overlap")
    kept = {
        key: value
        for key, value in s.jobs[schedule]["context"].items()
        if key not in (*known, "queue", "priority", "pinned_version")
    }
    if not is_sound(kept | asked):
        raise Refused("PD110")
    if kept | asked != s.jobs[schedule]["context"]:
        run_command(s, schedule, "set", [], kept | asked)
    return resettle(s, schedule)


def pause_schedule(s: State, name: str) -> bool:
    says = lock_schedule(s, name)["context"]
    if says.get("paused"):
        return False
    run_command(s, f"$schedule/{name}", "set", ["paused"], True)
    if is_sound(says):
        resettle(s, f"$schedule/{name}")
    return True


def resume_schedule(s: State, name: str) -> bool:
    says = lock_schedule(s, name)["context"]
    if not is_sound(says):
        raise Refused("PD110")
    has_rested = s.lift_pause(f"$schedule/{name}") > 0
    was_paused = says.get("paused", False)
    if was_paused:
        run_command(s, f"$schedule/{name}", "set", ["paused"], False)
    resettle(s, f"$schedule/{name}")
    return bool(was_paused) or has_rested


def trigger_schedule(s: State, name: str, key: str) -> Row:
    says = lock_schedule(s, name)["context"]
    if not is_sound(says):
        raise Refused("PD110")
    wanted = scheduled(name, says, {}) | {"id": f"{name}/now-{key}"}
    return {"id": wanted["id"], "is_new": start_job(s, wanted)}


def backfill_schedule(
    s: State, name: str, since: str, until: str | None = None, priority: int | None = 9
) -> list[Row]:
    says = lock_schedule(s, name)["context"]
    if not is_sound(says):
        raise Refused("PD110")
    own = {} if priority is None else {"priority": priority}
    begun = []
    here = next_time(says, moment(since) - 1)
    while here < (s.now if until is None else min(moment(until), s.now)):
        wanted = due_job(name, says | own, here)
        begun.append({"id": wanted["id"], "is_new": start_job(s, wanted)})
        here = next_time(says, here)
    return begun


def drop_schedule(s: State, name: str) -> bool:
    schedule = f"$schedule/{name}"
    if schedule not in s.jobs:
        return False
    s.tasks.pop((schedule, TASK), None)
    return forget(s, schedule)


def scheduled(name: str, says: Row, headers: Row) -> Row:
    """Return the job that a schedule starts."""
    same = {key: says[key] for key in ("workflow", "args", "queue", "priority")}
    headers = {"schedule": name} | headers
    same["pinned_version"] = says.get("pinned_version")
    return NEW_JOB | same | {"headers": headers, "if_exists": "existing"}


def run_schedule(s: State, id: str, task: Row) -> str:
    """Start the jobs that a schedule owes, and let it wait for its next time."""
    name, says = id.removeprefix("$schedule/"), s.jobs[id]["context"]
    if not is_sound(says):
        park_schedule_task(task, NEVER, failure("PD110"))
        return "stuck"
    owed = task["until"]
    if owed is None or owed > s.now:
        settle(s, id, None)
        return "waiting"
    if says.get("paused"):
        settle(s, id, owed)
        return "waiting"
    since = None
    if task["args"] != timetable(says):
        version = s.jobs[id]["version"]
        rows = [r for (owner, _, _), r in s.journal.items() if owner == id]
        since = next(row["at"] for row in rows if row["version"] == version)
    start_owed(s, name, says, owed_times(says, owed, since, s.now))
    settle(s, id, None)
    return "waiting"


def owed_times(says: Row, owed: int, since: int | None, until: int) -> list[int]:
    """Return the due times for which jobs are to be started."""
    missed_at = until - MINUTE
    here = max(owed, owed if since is None else since)
    if says["catch_up"] == "none":
        here = max(here, missed_at)
    times = [owed] if says["catch_up"] != "none" or owed >= missed_at else []
    while (here := next_time(says, here)) <= until:
        times.append(here)
    return times[-1:] if says["catch_up"] == "last" else times


def start_owed(s: State, name: str, says: Row, times: list[int]) -> None:
    """Start the jobs that a schedule owes."""
    if says["overlap"] == "skip":
        times = [] if is_busy(s, name) else times[:1]
    for due_at in times:
        start_job(s, due_job(name, says, due_at))


def due_job(name: str, says: Row, due_at: int) -> Row:
    """Return the job that a schedule starts for a due time."""
    written = datetime.fromisoformat(stamp(due_at)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return scheduled(name, says, {"due_at": written}) | {"id": f"{name}/{written}"}


def is_busy(s: State, name: str) -> bool:
    """Return whether a job that a schedule started is running."""
    return any(
        task["kind"] == "coordinator"
        and job.startswith(f"{name}/")
        and s.jobs[job]["parent"] is None
        and (s.jobs[job]["headers"] or {}).get("schedule") == name
        for (job, _), task in s.tasks.items()
    )
