"""Queues in the model: their limits, their room, and the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from tests.model.state import NEVER, SECOND, SUSPICIOUS, Row, State, check_queue, moment, seconds
from tests.races.memory_model import Refused

NEW_QUEUE: Row = {
    "paused": False, "max_running": None, "max_per_key": None, "rate_per_second": None,
    "burst": None, "tokens": None, "set_at": None, "claimed_at": None, "last_key": "",
}  # fmt: skip


def base(queue: str) -> str:
    """Return the queue without its version."""
    return queue.split("@", maxsplit=1)[0]


def tokens_at(queue: Row, now: int) -> Decimal | None:
    """Return the tokens of a queue; None if its rate is not limited."""
    if queue["rate_per_second"] is None:
        return None
    passed = Decimal(max(now - queue["claimed_at"], 0)) / SECOND
    return min(queue["burst"], queue["tokens"] + queue["rate_per_second"] * passed)


def restrained(s: State, queues: list[str]) -> list[str]:
    """Return those of these queues that are paused or have limits."""
    limits = ("max_running", "max_per_key", "rate_per_second")
    return [
        queue
        for queue in queues
        if (row := s.queues.get(base(queue))) is not None
        and (row["paused"] or any(row[limit] is not None for limit in limits))
    ]


def is_asleep(s: State, queue: str) -> bool:
    """Return whether a queue is paused."""
    paused: bool = s.queues.get(base(queue), NEW_QUEUE)["paused"]
    return paused


def next_due_at(s: State, queues: list[str]) -> int | None:
    """Return when to look for tasks of these queues again."""
    awake = [
        task
        for task in s.tasks.values()
        if task["queue"] in queues and not is_asleep(s, task["queue"]) and not task["paused"]
    ]
    if any(task["deliveries"] >= SUSPICIOUS and task["due_at"] <= s.now for task in awake):
        return s.now + SECOND // 20
    due = [
        task["due_at"] for task in awake if s.now < task["due_at"] < NEVER and not task["in_line"]
    ]
    admitted_at = next_admission_at(s, queues)
    return min([*due, *([] if admitted_at is None else [admitted_at])], default=None)


def next_admission_at(s: State, queues: list[str]) -> int | None:
    """Return when limits of these queues will admit due tasks, as far as time alone decides."""
    token_at = next_token_at(s, queues)
    soon = [s.now + SECOND // 100] if has_room(s, queues) else []
    return min([*soon, *([] if token_at is None else [token_at])], default=None)


def has_room(s: State, queues: list[str]) -> bool:
    """Return whether a task waits in a queue with limits that has room for it."""
    for queue in queues:
        row = s.queues.get(base(queue), NEW_QUEUE)
        if row["paused"] or queue not in restrained(s, [queue]):
            continue
        held = [
            task
            for task in s.tasks.values()
            if base(task["queue"]) == base(queue) and task["token"] is not None
        ]
        is_full = row["max_running"] is not None and len(held) >= row["max_running"]
        tokens = tokens_at(row, s.now)
        full_keys = {
            key
            for key, many in Counter(task["limit_key"] for task in held).items()
            if row["max_per_key"] is not None and many >= row["max_per_key"]
        }
        if not is_full and (tokens is None or tokens >= 1) and has_due_task(s, queue, full_keys):
            return True
    return False


def next_token_at(s: State, queues: list[str]) -> int | None:
    """Return when the next token arrives for which tasks of these queues wait."""
    times = []
    for queue in queues:
        row = s.queues.get(base(queue))
        tokens = None if row is None or row["paused"] else tokens_at(row, s.now)
        if tokens is not None and tokens < 1 and has_due_task(s, queue):
            times.append(s.now + round((1 - tokens) / row["rate_per_second"] * SECOND))
    return min(times, default=None)


def has_due_task(s: State, queue: str, full_keys: Iterable[str] = ()) -> bool:
    """Return whether a queue has a task without a holder that is due, or in line under a key with
    room."""
    return any(
        task["queue"] == queue
        and not task["paused"]
        and (
            task["limit_key"] not in full_keys
            if task["in_line"]
            else task["token"] is None and task["due_at"] <= s.now
        )
        for task in s.tasks.values()
    )


def set_queue(
    s: State,
    queue: str,
    max_running: int | None = None,
    max_per_key: int | None = None,
    rate_per_second: float | None = None,
    burst: float | None = None,
) -> None:
    check_queue(queue)
    if min(max_running or 1, max_per_key or 1) < 1 or max_running == 0 or max_per_key == 0:
        raise Refused("PD107")
    if (rate_per_second is not None and rate_per_second < 1e-9) or (burst and not rate_per_second):
        raise Refused("PD107")
    row = s.queues.setdefault(queue, dict(NEW_QUEUE))
    rate = None if rate_per_second is None else Decimal(str(rate_per_second))
    full = None if rate is None else Decimal(burst or max(rate, 1))
    before, tokens = row["max_per_key"], tokens_at(row, s.now)
    row |= {"max_running": max_running, "max_per_key": max_per_key, "burst": full}
    row |= {"rate_per_second": rate, "set_at": s.now, "claimed_at": s.now}
    row["tokens"] = None if full is None else min(full if tokens is None else tokens, full)
    if max_per_key is None and before is not None:
        for task in s.tasks.values():
            if base(task["queue"]) == queue:
                task["in_line"] = False


def pause_queue(s: State, queue: str) -> bool:
    check_queue(queue)
    row = s.queues.setdefault(queue, dict(NEW_QUEUE))
    was_paused, row["paused"] = row["paused"], True
    return not was_paused


def resume_queue(s: State, queue: str) -> bool:
    row = s.queues.get(queue, NEW_QUEUE)
    if not row["paused"]:
        return False
    row["paused"] = False
    return True


def move_clock(s: State, by: str) -> int:
    if seconds(by) < 0:
        raise Refused("PD107")
    s.now += seconds(by)
    return s.now


def lacks_code(task: Row) -> bool:
    """Return whether a task was given back by a worker that has no code for it."""
    is_parked = task["token"] is None and task["awaits"] is None
    return is_parked and (task["failure"] or {}).get("code") == "PD406"


def skip_time(s: State, up_to: str = "infinity") -> int | None:
    waiting = [
        task
        for task in s.tasks.values()
        if s.now < task["due_at"] < NEVER and not task["paused"] and not lacks_code(task)
    ]
    token_at = next_token_at(s, sorted({task["queue"] for task in s.tasks.values()}))
    times = [task["due_at"] for task in waiting] + ([] if token_at is None else [token_at])
    if any(task["token"] is not None for task in waiting) or not times:
        return None
    if min(times) > moment(up_to):
        return None
    s.now = min(times)
    return s.now
