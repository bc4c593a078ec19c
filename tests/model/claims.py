"""Claims in the model: which tasks a worker gets, within the limits of queues, and for how long.

If several tasks are due at the same instant, any of them may be given: then the model takes those
that the database gave.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.model.ends import end_tasks
from tests.model.judging import Turn
from tests.model.queues import (
    NEW_QUEUE,
    base,
    count_key,
    held_tasks,
    in_line,
    is_asleep,
    next_admission_at,
    next_due_at,
    place_line,
    restrained,
    tokens_at,
    tokens_of_key,
)
from tests.model.state import (
    MAX_DELIVERIES,
    NEVER,
    SECOND,
    SUSPICIOUS,
    Name,
    Row,
    State,
    check_name,
    check_value,
    depth,
    failure,
    moment,
    seconds,
)
from tests.model.turns import advance_turns, told_message
from tests.races.memory_model import Refused, as_json

Due = tuple[Name, Row]


class Claim:
    """A claim in progress; it knows the choices of the database where any choice is right."""

    def __init__(self, s: State, queues: list[str], given: set[Name]) -> None:
        self.s = s
        self.queues = queues
        self.given = given
        self.restrained = restrained(s, queues)

    def free(self, queue: str) -> list[Due]:
        """Return the due tasks of a queue that are not held, best first."""
        return self._sorted(
            (name, task)
            for name, task in self.s.tasks.items()
            if task["queue"] == queue
            and task["token"] is None
            and task["due_at"] <= self.s.now
            and not task["paused"]
            and not task["in_line"]
        )

    def ended(self, queue: str) -> list[Due]:
        """Return the tasks of a queue whose leases have ended."""
        return self._sorted(
            (name, task)
            for name, task in self.s.tasks.items()
            if task["queue"] == queue
            and task["token"] is not None
            and task["deliveries"] < SUSPICIOUS
            and task["due_at"] <= self.s.now
            and not task["paused"]
        )

    def suspects(self) -> list[Due]:
        """Return the due tasks that may have killed their workers, best first."""
        return self._sorted(
            (name, task)
            for name, task in self.s.tasks.items()
            if task["queue"] in self.queues
            and not is_asleep(self.s, task["queue"])
            and task["deliveries"] >= SUSPICIOUS
            and task["due_at"] <= self.s.now
            and not task["paused"]
        )

    def suspect(self, worker: str) -> list[Due]:
        """Return the best suspect, for a worker that holds none."""
        holds_one = any(
            task["deliveries"] > SUSPICIOUS
            and task["worker"] == worker
            and task["due_at"] > self.s.now
            for task in self.s.tasks.values()
        )
        return [] if holds_one else self.suspects()[:1]

    def _tie(self, one: Due) -> Any:
        """Put first the tasks that the database gave, and before them those that it parked."""
        name, task = one
        return name not in self.given, -task["deliveries"]

    def _sorted(self, due: Any) -> list[Due]:
        def key(one: Due) -> Any:
            return one[1]["priority"], one[1]["due_at"], self._tie(one)

        return sorted(due, key=key)

    def best(self, due: list[Due], most: int) -> list[Due]:
        """Choose by priority, then in the order of the queues, then by time."""

        def key(one: Due) -> Any:
            place = self.queues.index(one[1]["queue"])
            return one[1]["priority"], place, one[1]["due_at"], self._tie(one)

        return sorted(due, key=key)[:most]

    def choose(self, most: int, since: int, worker: str) -> list[Due]:
        """Choose what may be claimed."""
        if self.restrained:
            suspect = self.suspect(worker)
            return suspect + self._choose_within_limits(most - len(suspect))
        due = [one for queue in self.queues for one in self.free(queue) + self.ended(queue)]
        due = [one for one in due if one[1]["due_at"] >= since]
        suspects = [one for one in self.suspects() if one[1]["due_at"] >= since]
        best = self.best(due + suspects, most)
        if any(task["deliveries"] >= SUSPICIOUS for _, task in best):
            first = [one for one in best if one[1]["deliveries"] < SUSPICIOUS]
            suspect = self.suspect(worker)
            room = most - len(first) - len(suspect)
            taken = [name for name, _ in first]
            rest = self.best([one for one in due if one[0] not in taken], room)
            best = first + suspect + rest
        return best

    def _choose_within_limits(self, most: int) -> list[Due]:
        chosen: list[Due] = []
        locked = sorted({base(queue) for queue in self.restrained})
        locked = [queue for queue in locked if not self.s.queues[queue]["paused"]]
        for queue in locked:
            room = self._room(queue, most)
            chosen += self._admissible(queue, room) if room > 0 else []
        for queue in self.queues:
            if queue not in self.restrained:
                chosen += self.free(queue)[:most]
            elif base(queue) not in locked:
                continue
            chosen += self.ended(queue)[:most]
        return self.best(chosen, most)

    def _room(self, queue: str, most: int) -> int:
        row = self.s.queues[queue]
        room = most
        if row["max_running"] is not None:
            room = min(room, row["max_running"] - len(held_tasks(self.s, queue)))
        tokens = tokens_at(row, self.s.now)
        return room if tokens is None else min(room, int(tokens))

    def _admissible(self, queue: str, room: int) -> list[Due]:
        served = [one for one in self.queues if base(one) == queue]
        row = self.s.queues[queue]
        if row["max_per_key"] is None and row["rate_per_key"] is None:
            return self.best([one for name in served for one in self.free(name)[:room]], room)
        for name in served:
            if self.free(name):
                row |= {"tokens": tokens_at(row, self.s.now), "claimed_at": self.s.now}
            for _, task in self.free(name):
                task["in_line"] = True
                if row["rate_per_key"] is not None:
                    line = (name, task["priority"], task["limit_key"])
                    self.s.lines.setdefault(line, {"turn_at": self.s.now})
        chosen: list[Due] = []
        for priority in range(10):
            for name in served:
                find = self._by_key if row["rate_per_key"] is None else self._in_turn
                if len(chosen) < room:
                    chosen += find(name, row, priority, chosen, room - len(chosen))
        return chosen

    def _by_key(
        self, queue: str, row: Row, priority: int, chosen: list[Due], most: int
    ) -> list[Due]:
        in_line = [
            (name, task)
            for name, task in self.s.tasks.items()
            if (task["queue"], task["priority"]) == (queue, priority)
            and task["in_line"]
            and not task["paused"]
        ]
        keys = sorted({task["limit_key"] for _, task in in_line})
        keys.sort(key=lambda key: key <= row["last_key"])
        found: list[Due] = []
        for key in keys:
            held = sum(task["limit_key"] == key for task in held_tasks(self.s, queue))
            held += sum(task["limit_key"] == key for _, task in chosen)
            room = max(0, row["max_per_key"] - held)
            due = self._sorted(one for one in in_line if one[1]["limit_key"] == key)
            found += due[:room]
        return found[:most]

    def _in_turn(
        self, queue: str, row: Row, priority: int, chosen: list[Due], most: int
    ) -> list[Due]:
        ready = sorted(
            (line["turn_at"], key)
            for (name, level, key), line in self.s.lines.items()
            if (name, level) == (queue, priority) and line["turn_at"] <= self.s.now
        )
        found: list[Due] = []
        for _, key in ready:
            if len(found) >= most:
                break
            tokens = tokens_of_key(self.s, base(queue), key)
            before = sum(task["limit_key"] == key for _, task in chosen)
            room = min(most, int(tokens) - before)
            if row["max_per_key"] is not None:
                held = sum(task["limit_key"] == key for task in held_tasks(self.s, queue))
                room = min(room, row["max_per_key"] - held - before)
            due = self._sorted(in_line(self.s, queue, priority, key))
            if not due[: max(room, 0)] and (tokens < 1 or not due):
                place_line(self.s, queue, priority, key)
            found += due[: max(room, 0)]
        return found[:most]

    def note(self, chosen: list[Due], taken: set[Name], was_held: set[Name]) -> None:
        """Record the tokens that were taken, and the key that was served last."""
        locked = {base(queue) for queue in self.restrained}
        for queue in locked:
            used = [
                one
                for one in chosen
                if one[0] in taken and one[0] not in was_held and base(one[1]["queue"]) == queue
            ]
            if used and not self.s.queues[queue]["paused"]:
                row = self.s.queues[queue]
                tokens = tokens_at(row, self.s.now)
                row["tokens"] = None if tokens is None else tokens - len(used)
                row |= {"has_claimed": True, "claimed_at": self.s.now}
                row["last_key"] = used[-1][1]["limit_key"]
            if self.s.queues[queue]["rate_per_key"] is not None:
                self._spend(queue, used, len(taken))
        for _, task in chosen:
            if self.s.queues.get(base(task["queue"]), NEW_QUEUE)["rate_per_key"] is not None:
                place_line(self.s, task["queue"], task["priority"], task["limit_key"])

    def _spend(self, queue: str, used: list[Due], taken: int) -> None:
        """Take tokens of keys, and forget keys that have all."""
        for key, many in Counter(task["limit_key"] for _, task in used).items():
            count_key(self.s, queue, key, tokens_of_key(self.s, queue, key) - many)
        full = sorted(
            (kept["full_at"], key)
            for (name, key), kept in self.s.key_tokens.items()
            if name == queue and kept["full_at"] <= self.s.now
        )
        for _, key in full[: 2 * taken]:
            del self.s.key_tokens[queue, key]


def claim_due(s: State, given: set[Name], most: int, args: Row) -> list[tuple[Due, int]]:
    """Lease due tasks; return them with their due times."""
    claim = Claim(s, args["queues"], given)
    lease, since = seconds(args.get("lease_for", "30 s")), moment(args.get("since")) or 0
    while True:
        chosen = claim.choose(most, since, args["worker"])
        was_due = {name: task["due_at"] for name, task in chosen}
        was_held = {name for name, task in chosen if task["token"] is not None}
        taken: list[Due] = []
        for name, task in chosen:
            is_poisoned = task["deliveries"] >= MAX_DELIVERIES
            task.update(deliveries=task["deliveries"] + 1, in_line=False)
            task["started_at"] = s.now if task["started_at"] is None else task["started_at"]
            task["stuck_reason"] = failure("PD305") if is_poisoned else None
            if is_poisoned:
                task.update(token=None, worker=None, due_at=NEVER)
                continue
            task.update(token=args["claim_id"], worker=args["worker"], due_at=s.now + lease)
            taken.append((name, task))
        if taken or not chosen:
            break
    if taken and claim.restrained:
        claim.note(chosen, {name for name, _ in taken}, was_held)
    return [(one, was_due[one[0]]) for one in taken]


def claim_tasks(s: State, given: set[Name], args: Row) -> tuple[list[tuple[Due, int | None]], bool]:
    """Lease tasks, or return those that the same call has leased before."""
    token, most = args.get("claim_id"), args.get("max_tasks", 1)
    if most <= 0:
        return [], False
    if args.get("again"):
        before = [
            ((name, task), None)
            for name, task in s.tasks.items()
            if task["queue"] in args["queues"] and task["token"] == token
        ]
        if before:
            return before, True
    return claim_due(s, given, min(most, 1000), args), False


def check_claim(args: Row) -> None:
    """Refuse a claim that cannot be served."""
    if args.get("protocol", 1) != 1:
        raise Refused("PD004")
    if args.get("instance") is not None:
        raise Refused("PD003")
    check_name(args.get("worker"))
    check_lease(args.get("lease_for", "30 s"))
    if args.get("queues") is None:
        raise Refused("PD107")


def check_lease(lease_for: str) -> None:
    """Refuse a lease that is too short or too long."""
    if not SECOND // 10 <= seconds(lease_for) <= 86400 * SECOND:
        raise Refused("PD107")


def described(s: State, name: Name, task: Row, *, again: bool, before: Row) -> Row:
    """Describe a task as its new holder gets it."""
    job = s.jobs[name[0]]
    is_cached = not again and before["last_worker"] == task["worker"]
    journal = None
    if task["kind"] == "hook" or not is_cached or task["position"] == 0:
        journal = [
            [seq, row["kind"], row["key"], row["ok"], row["value"], row["at"]]
            for (owner, of, seq), row in sorted(s.journal.items())
            if (owner, of) == name and seq <= task["position"]
        ]
    awaits = task["awaits"]
    if again or task["started_at"] != s.now:
        awaits = awaits or []
    messages = []
    if task["position"] > 0 or awaits is not None:
        messages = [told_message(message) for message in s.open_messages(*name, awaits)]
    columns = ("kind", "name", "position", "deliveries", "attempt", "asked", "signal", "progress")
    columns += ("accept_changes", "pinned_version", "started_at", "told_at")
    return {column: task[column] for column in columns} | {
        "job": name[0],
        "task": name[1],
        "queue": base(task["queue"]),
        "args": job["args"] if task["kind"] == "coordinator" else task["args"],
        "entity": job["entity"],
        "workflow": job["workflow"],
        "run": job["run"],
        "parent": job["parent"],
        "headers": job["headers"],
        "forked_from": job["forked_from"] if name[1] == "1/main" else None,
        "failure": task["failure"] if task["attempt"] > 0 else None,
        "asker": task["asker"],
        "journal": journal,
        "awaits": awaits,
        "messages": messages,
    }


def reply(s: State, given: set[Name], args: Row) -> Row:
    """Claim, and return the answer."""
    before = {name: dict(task) for name, task in s.tasks.items()}
    taken, again = claim_tasks(s, given, args)
    tasks = [
        described(s, name, task, again=again, before=before[name]) for (name, task), _ in taken
    ]
    due = [was_due for _, was_due in taken if was_due is not None]
    looks = args.get("max_tasks", 1) > 0 or "turns" not in args
    return {
        "at": s.now,
        "token": args.get("claim_id"),
        "tasks": sorted(tasks, key=lambda task: (task["job"], task["task"])),
        "since": min(due, default=None),
        "next_due_at": look_ahead(s, [task for (_, task), _ in taken], args) if looks else None,
    }


def look_ahead(s: State, taken: list[Row], args: Row) -> int | None:
    """Return when to claim again, as far as time alone decides."""
    if not taken:
        searched_all = args.get("since") in (None, "-infinity")
        return (next_due_at if searched_all else next_admission_at)(s, args["queues"])
    is_suspect = any(task["deliveries"] > SUSPICIOUS for task in taken)
    return s.now + SECOND // 20 if is_suspect else None


def claim(s: State, given: set[Name], **args: Any) -> Row:
    check_claim(args)
    return reply(s, given, args)


def advance(s: State, given: set[Name], **args: Any) -> Row:
    if args.get("protocol", 1) != 1:
        raise Refused("PD004")
    if not isinstance(args["turns"], list):
        raise Refused("PD107")
    most = args.get("max_tasks", 0)
    if most > 0:
        check_claim(args)
    turns = advance_turns(s, args["turns"])
    rest = {"max_tasks": 0, "queues": []} | args
    return reply(s, given, rest) | {"turns": turns}


def held_task(s: State, said: Row) -> Row | None:
    """Return the task of a lease while it is held under its token."""
    task = s.tasks.get((said["job"], said["task"]))
    return task if task is not None and task["token"] == said["token"] else None


def progress_failure(progress: Any) -> Row | None:
    """Return what is wrong with the progress of a task."""
    if progress is not None and len(as_json(progress)) > 10_000:
        return failure("PD301")
    return failure("PD302") if depth(progress) > 101 else None


def extend(s: State, tasks: list[Row], lease_for: str = "30 s") -> list[Row]:
    check_lease(lease_for)
    answers = []
    for said in tasks:
        task, broken = held_task(s, said), progress_failure(said.get("progress"))
        if task is not None:
            task["due_at"] = s.now + seconds(lease_for)
            if said.get("progress") is not None and broken is None:
                task["progress"] = said["progress"]
        answer = {"job": said["job"], "task": said["task"], "state": "held" if task else "lost"}
        answer["cancel"] = s.cancel_is_open(said["job"], said["task"])
        answers.append(answer | ({} if broken is None else {"error": broken}))
    return answers


def release(s: State, tasks: list[Row]) -> list[Row]:
    for said in tasks:
        task = held_task(s, said)
        if task is None:
            continue
        task |= {"last_token": task["token"], "due_at": s.now, "deliveries": 0}
        task |= dict.fromkeys(("token", "worker", "awaits"))
        if said.get("progress") is not None and progress_failure(said["progress"]) is None:
            task["progress"] = said["progress"]
    return [
        {
            "job": said["job"],
            "task": said["task"],
            "state": "released" if was_given_back(s, said) else "lost",
        }
        for said in tasks
    ]


def was_given_back(s: State, said: Row) -> bool:
    """Return whether a holder has given a task back, and no other holds it."""
    task = s.tasks.get((said["job"], said["task"]))
    return task is not None and task["token"] is None and task["last_token"] == said["token"]


def lock_to_finish(s: State, said: Row) -> Turn | None:
    """Return a hook or activity that is held under a token."""
    task = held_task(s, said)
    if task is None:
        return None
    if task["kind"] == "coordinator" or task["name"].startswith("$"):
        raise Refused("PD107")
    return Turn(0, said["job"], said["task"], {"position": task["position"]}, task)


def gone(s: State, said: Row) -> str:
    """Answer a caller that does not hold a task."""
    if (said["job"], said["task"]) in s.tasks:
        raise Refused("PD001")
    return "gone"


def end_held_task(s: State, turn: Turn, state: str, value: Any) -> str:
    """End a held task, and wake its asker."""
    turn.said |= {"state": state, "value": value}
    end_tasks(s, [turn])
    if turn.asker:
        s.wake(turn.asker[0])
    return state


def finish_task(s: State, value: Any = None, **said: Any) -> str:
    held = lock_to_finish(s, said)
    check_value(value)
    return gone(s, said) if held is None else end_held_task(s, held, "done", value)


def fail_task(s: State, failure: Any = None, retry_at: str | None = None, **said: Any) -> str:
    held = lock_to_finish(s, said)
    told = failure
    if not isinstance(failure, dict):
        message = "the task has failed" if failure is None else failure
        told = {"type": "Failure", "message": message}
    check_value(told)
    if retry_at == "infinity":
        raise Refused("PD107")
    if held is None:
        return "retry" if was_given_back(s, said) else gone(s, said)
    if s.cancel_is_open(said["job"], said["task"]):
        return end_held_task(s, held, "cancelled", told)
    if retry_at is None:
        return end_held_task(s, held, "failed", told)
    give_back_task(held.row, moment(retry_at), told)
    return "retry"


def give_back_task(task: Row, due_at: int, failed: Any = None) -> None:
    """Give a held task back until a time; with a failure, count an attempt."""
    task |= {"due_at": due_at, "deliveries": 0, "last_token": task["token"]}
    task |= {"token": None, "worker": None, "awaits": None}
    if failed is not None:
        task |= {"attempt": task["attempt"] + 1, "failure": failed}
