"""Queues in the model: their limits, their room, and the clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from tests.model.state import (
    NEVER,
    SECOND,
    SUSPICIOUS,
    Name,
    Row,
    State,
    check_queue,
    moment,
    seconds,
)
from tests.races.memory_model import Refused

NEW_QUEUE: Row = {
    "paused": False, "max_running": None, "max_per_key": None, "rate_per_second": None,
    "burst": None, "rate_per_key": None, "burst_per_key": None, "tokens": None,
    "has_claimed": False, "claimed_at": None, "last_key": "",
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


def tokens_of_key(s: State, queue: str, key: str) -> Decimal:
    """Return the tokens of a key in a queue with a rate per key."""
    row = s.queues[queue]
    burst: Decimal = row["burst_per_key"]
    counted = s.key_tokens.get((queue, key))
    if counted is None:
        return burst
    passed = Decimal(max(s.now - counted["counted_at"], 0)) / SECOND
    return min(burst, counted["tokens"] + row["rate_per_key"] * passed)


def tokens_come_at(s: State, wanted: Decimal, tokens: Decimal, rate: Decimal) -> int:
    """Return when there are as many tokens as are wanted."""
    return s.now + math.ceil(max(Decimal(0), wanted - tokens) / rate * SECOND)


def turn_of_key(s: State, queue: str, key: str) -> int:
    """Return when a key has a token."""
    rate = s.queues[queue]["rate_per_key"]
    return tokens_come_at(s, Decimal(1), tokens_of_key(s, queue, key), rate)


def in_line(s: State, queue: str, priority: int, key: str) -> list[tuple[Name, Row]]:
    """Return the tasks that stand in line."""
    return [
        (name, task)
        for name, task in s.tasks.items()
        if (task["queue"], task["priority"], task["limit_key"]) == (queue, priority, key)
        and task["in_line"]
        and not task["paused"]
    ]


def place_line(s: State, queue: str, priority: int, key: str) -> None:
    """Say when it is the turn of a line again, or remove it."""
    line = s.lines.pop((queue, priority, key), None)
    if line is not None and in_line(s, queue, priority, key):
        s.lines[queue, priority, key] = {"turn_at": turn_of_key(s, base(queue), key)}


def restrained(s: State, queues: list[str]) -> list[str]:
    """Return those of these queues that are paused or have limits."""
    limits = ("max_running", "max_per_key", "rate_per_second", "rate_per_key")
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
        held = held_tasks(s, queue)
        tokens = tokens_at(row, s.now)
        full_keys = {
            key
            for key, many in Counter(task["limit_key"] for task in held).items()
            if row["max_per_key"] is not None and many >= row["max_per_key"]
        }
        if is_full(s, queue) or (tokens is not None and tokens < 1):
            continue
        if row["rate_per_key"] is not None:
            full_keys |= {key for name, _, key in s.lines if name == queue} - ready_keys(s, queue)
        if has_due_task(s, queue, full_keys):
            return True
    return False


def held_tasks(s: State, queue: str) -> list[Row]:
    """Return the held tasks of a queue, of all versions."""
    return [
        task
        for task in s.tasks.values()
        if base(task["queue"]) == base(queue) and task["token"] is not None
    ]


def is_full(s: State, queue: str) -> bool:
    """Return whether a queue has no slot left."""
    slots = s.queues[base(queue)]["max_running"]
    return slots is not None and len(held_tasks(s, queue)) >= slots


def ready_keys(s: State, queue: str) -> set[str]:
    """Return the keys of lines whose turn it is."""
    return {
        key
        for (name, priority, key), line in s.lines.items()
        if name == queue and line["turn_at"] <= s.now and in_line(s, name, priority, key)
    }


def next_token_at(s: State, queues: list[str]) -> int | None:
    """Return when the next token arrives for which tasks of these queues wait."""
    times = []
    for queue in queues:
        row = s.queues.get(base(queue))
        tokens = None if row is None or row["paused"] else tokens_at(row, s.now)
        if tokens is not None and tokens < 1 and has_due_task(s, queue):
            times.append(tokens_come_at(s, Decimal(1), tokens, row["rate_per_second"]))
        if row is None or row["paused"] or row["rate_per_key"] is None or is_full(s, queue):
            continue
        if tokens is None or tokens >= 1:
            times += [
                line["turn_at"]
                for (name, priority, key), line in s.lines.items()
                if name == queue and line["turn_at"] > s.now and in_line(s, name, priority, key)
            ]
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
    rate_per_key: float | None = None,
    burst_per_key: float | None = None,
) -> None:
    check_queue(queue)
    if min(max_running or 1, max_per_key or 1) < 1 or max_running == 0 or max_per_key == 0:
        raise Refused("PD107")
    for each, most in ((rate_per_second, burst), (rate_per_key, burst_per_key)):
        if (each is not None and each < 1e-9) or (most and not each):
            raise Refused("PD107")
    row = s.queues.setdefault(queue, dict(NEW_QUEUE))
    rate = None if rate_per_second is None else Decimal(str(rate_per_second))
    full = None if rate is None else Decimal(burst or max(rate, 1))
    before, tokens = dict(row), tokens_at(row, s.now)
    counted = {key: tokens_of_key(s, *key) for key in s.key_tokens if key[0] == queue}
    row |= {"max_running": max_running, "max_per_key": max_per_key, "burst": full}
    row |= {"rate_per_second": rate, "has_claimed": False, "claimed_at": s.now}
    row["tokens"] = None if full is None else min(full if tokens is None else tokens, full)
    row["rate_per_key"] = None if rate_per_key is None else Decimal(str(rate_per_key))
    row["burst_per_key"] = rate_per_key and Decimal(burst_per_key or max(row["rate_per_key"], 1))
    change_key_rate(s, queue, before, counted)
    was_by_rate, is_by_rate = before["rate_per_key"] is not None, rate_per_key is not None
    has_none = max_per_key is None and not is_by_rate
    if was_by_rate != is_by_rate or (has_none and before["max_per_key"] is not None):
        for task in s.tasks.values():
            if base(task["queue"]) == queue:
                task["in_line"] = False
        s.lines = {name: line for name, line in s.lines.items() if base(name[0]) != queue}


def change_key_rate(
    s: State, queue: str, before: Row, counted: dict[tuple[str, str], Decimal]
) -> None:
    """Count the tokens of keys before their rate changes, or forget them."""
    row = s.queues[queue]
    if row["rate_per_key"] is None:
        s.key_tokens = {key: kept for key, kept in s.key_tokens.items() if key[0] != queue}
    elif before["rate_per_key"] is not None and any(
        row[name] != before[name] for name in ("rate_per_key", "burst_per_key")
    ):
        for key, tokens in counted.items():
            count_key(s, *key, min(row["burst_per_key"], tokens))
        for name, line in s.lines.items():
            if base(name[0]) == queue and line["turn_at"] > s.now:
                line["turn_at"] = turn_of_key(s, queue, name[2])
    for one in [one for one, kept in s.key_tokens.items() if kept["full_at"] <= s.now]:
        if one[0] == queue:
            del s.key_tokens[one]
    wanted = {task["queue"] for task in s.tasks.values() if task["in_line"] and not task["paused"]}
    for version, *rest in list(s.lines):
        if base(version) == queue and version not in {queue, *wanted}:
            del s.lines[version, *rest]


def count_key(s: State, queue: str, key: str, tokens: Decimal) -> None:
    """Write the tokens of a key."""
    row = s.queues[queue]
    full_at = tokens_come_at(s, row["burst_per_key"], tokens, row["rate_per_key"])
    s.key_tokens[queue, key] = {"tokens": tokens, "counted_at": s.now, "full_at": full_at}


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
