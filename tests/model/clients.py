"""Clients: users, operators and people, who make every call that is possible from outside.

Each verb is in a table with its frequency and the function that draws its arguments; most arguments
make sense, some do not.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.model.game import Game
from tests.model.memories import ATTEMPTS
from tests.model.state import CONDITIONS, CONTRACT, SECOND, Row, stamp
from tests.model.workers import DEEP, JOBS, QUEUES, a_command, pick

MEMORIES = ["e0", "e1"]
SCHEDULES = ["s0", "s1"]
ENTITIES = ["thing", "checked"]
MAX_JOBS = 16
LARGE = "x" * 1_048_577
PEOPLE = ["ann", "bob"]


class Client:
    """A client, an operator and the people in one."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.chance: Random = game.chance

    def act(self) -> None:
        """Call a verb, now and then twice; or repeat an old call late."""
        if self.game.sent and self.chance.random() < 0.06:
            verb, args = self.chance.choice(self.game.sent[-60:])
            self.game.send(verb, **args)
            return
        is_crowded = len(self.game.state.jobs) >= MAX_JOBS
        calls = RETENTION if is_crowded and self.chance.random() < 0.5 else CALLS
        verb = pick(self.chance, {verb: weight for verb, (weight, _) in calls.items()})
        args = calls[verb][1](self)
        self.game.send(verb, **args)
        if self.chance.random() < 0.08:
            self.game.send(verb, **args)

    # Parts of arguments

    def maybe(self, *options: tuple[str, Any, float]) -> Row:
        """Return some of these arguments, each with its probability."""
        return {name: value for name, value, share in options if self.chance.random() < share}

    def later(self, most: int = 30) -> str:
        """Return a time that is soon."""
        return stamp(self.game.state.now + self.chance.randint(1, most) * SECOND)

    def job(self) -> Row:
        """Return the id of a job, now and then of one that does not exist."""
        known = [job for job in self.game.state.jobs if not job.startswith("$")]
        return {"id": self.chance.choice([*known, *known, *JOBS, "nowhere"])}

    def task(self) -> Row:
        """Return a live task, if there is one."""
        job = self.job()["id"]
        tasks = [task for task, _ in self.game.state.tasks_of(job)]
        return {"id": job, "task": self.chance.choice([*tasks, "none"])}

    def version(self) -> int:
        """Return a version that most memories have."""
        return pick(self.chance, {0: 1, 1: 2, 2: 2, 3: 2, 99: 0.5})

    def item(self) -> Row:
        """Return an item, now and then one that does not exist."""
        known = [item["id"] for item in self.game.state.items.values()]
        return {"item": self.chance.choice([*known, "none"] if known else ["none"])}

    def start(self) -> Row:
        chance = self.chance
        args: Row = {"workflow": "w", "id": chance.choice(JOBS), "queue": chance.choice(QUEUES)}
        n = chance.choice([0, 0, 1, 3, 7])
        return args | self.maybe(
            ("context", {"n": n, "list": []}, 0.5), ("args", [1], 0.3), ("key", "k1", 0.1),
            ("entity", chance.choice(ENTITIES), 0.4), ("timeout", "30 s", 0.3),
            ("limit_key", chance.choice(["k1", "k2"]), 0.5), ("pinned_version", "2", 0.1),
            ("priority", 3, 0.2), ("headers", {"h": 1}, 0.1), ("workflow", "", 0.01),
            ("args", "x", 0.02), ("context", 5, 0.02), ("args", DEEP, 0.02), ("queue", "a@b", 0.02),
            ("priority", 11, 0.02), ("timeout", "-1 s", 0.01), ("id", "$own", 0.01),
            ("headers", LARGE, 0.002), ("queue", "$sql", 0.01),
        )  # fmt: skip

    def started(self) -> Row:
        exists = self.chance.choice(["error", "existing", "new_run", "new_run"])
        return self.start() | {"if_exists": exists} | self.maybe(
            ("due_at", self.later(), 0.1), ("if_exists", "?", 0.02), ("due_at", "infinity", 0.02)
        )  # fmt: skip

    def starts(self) -> Row:
        return {"starts": [self.started() for _ in range(self.chance.randint(1, 3))]}

    def signal(self) -> Row:
        name = pick(self.chance, {"go": 10, "stop": 10, "": 0.3})
        return {"name": name, "payload": self.chance.randint(0, 9)} | self.maybe(
            ("key", self.chance.choice(["s1", "s2"]), 0.3), ("key", "\n", 0.02)
        )

    def hook(self) -> Row:
        key = pick(self.chance, {"h1": 4, "h2": 4, "a/b": 0.3})
        queue, name = pick(self.chance, {("q0", "f"): 6, ("keys", "f"): 1, ("$sql", "adds"): 2})
        return self.job() | {"name": name, "key": key, "queue": queue} | self.maybe(
            ("limit_key", "k1", 0.3), ("args", [1], 0.3), ("due_at", self.later(), 0.2),
            ("due_at", "infinity", 0.02), ("priority", 2, 0.2), ("pinned_version", "2", 0.1),
        )  # fmt: skip

    def retry(self) -> Row:
        return self.job() | self.maybe(
            ("args", [3], 0.3), ("key", "r1", 0.3), ("timeout", "30 s", 0.2)
        )

    def fork(self) -> Row:
        new_id = self.chance.choice([*JOBS[:2], "f0", "f1", "f2"])
        return self.job() | {"new_id": new_id} | self.maybe(
            ("seq", self.chance.randint(0, 3), 0.4), ("context", {"n": 1}, 0.2),
            ("context", 5, 0.02), ("key", "k1", 0.2),
        )  # fmt: skip

    def create(self) -> Row:
        return {"id": self.chance.choice(MEMORIES), "entity": self.chance.choice(ENTITIES)} | (
            self.maybe(("context", {"n": self.chance.randint(0, 8)}, 0.5), ("key", "k1", 0.3))
        )

    def command(self, op: str, name: str | None) -> Row:
        """Draw the arguments of a command."""
        drawn = (a_command(self.chance) for _ in range(40))
        keys, value = next(((keys, value) for other, keys, value in drawn if other == op), ([], 1))
        args: Row = self.job() | {"path": ".".join(keys) if self.chance.random() < 0.98 else ".."}
        args |= {} if name is None else {name: value}
        args |= {"by": 1} if name == "by" and not isinstance(value, int) else {}
        args |= {"index": 0} if name == "index" and not isinstance(value, int) else {}
        return args | self.how()

    def how(self) -> Row:
        """Draw an expected version or a key."""
        return self.maybe(
            ("key", self.chance.choice(["c1", "c2"]), 0.15),
            ("expected_version", self.chance.randint(0, 6), 0.1),
        )

    def apply(self) -> Row:
        commands: Any = [
            {"op": op, "path": keys, "value": value}
            for op, keys, value in (a_command(self.chance) for _ in range(3))
        ]
        if self.chance.random() < 0.03:
            commands = []
        return self.job() | {"commands": commands} | self.how()

    def log(self) -> Row:
        return (
            self.job() | {"path": pick(self.chance, {"told": 9, "": 1}), "items": [1]} | self.how()
        )

    def condition(self) -> Row:
        return {"condition": self.chance.choice([*CONDITIONS, "$.n >"])}

    def queue(self) -> Row:
        chance = self.chance
        few = {"queue": "few", "max_running": chance.choice([1, 2, 2, None, 0])}
        keys = {"queue": "keys", "max_per_key": chance.choice([1, 1, 2, None])}
        keys["max_running"] = chance.choice([2, 3, None])
        keys |= {"rate_per_key": chance.choice([0.5, 0.3, 2, 0])} if chance.random() < 0.5 else {}
        keys |= {"burst_per_key": 2} if keys.get("rate_per_key") == 0.3 else {}
        slow = {"queue": "slow", "rate_per_second": chance.choice([0.5, 2, None, -1])}
        slow |= {"burst": 2} if slow["rate_per_second"] == 0.5 else {}
        both = {"queue": "q1", "max_running": 2, "rate_per_second": 0.5}
        return chance.choice([few, keys, slow, both, {"queue": "q1"}, {"queue": "a@b"}])

    def a_queue(self) -> Row:
        return {"queue": self.chance.choice([*QUEUES[2:], "a@b"])}

    def tick(self) -> Row:
        return {"by": pick(self.chance, {"1 s": 4, "7 s": 4, "31 s": 2, "-1 s": 0.2})}

    def skip(self) -> Row:
        return {"up_to": self.chance.choice(["infinity", self.later(60)])}

    def schedule(self) -> Row:
        return {"name": self.chance.choice(SCHEDULES)}

    def timetable(self) -> Row:
        chance = self.chance
        args = {"workflow": "w", "every": chance.choice(["20 s", "45 s"]), "starts_at": stamp(0)}
        return self.schedule() | args | self.maybe(
            ("catch_up", chance.choice(["none", "all"]), 0.5), ("overlap", "skip", 0.4),
            ("queue", chance.choice(QUEUES), 0.5), ("cron", "* *", 0.1),
            ("pinned_version", "2", 0.2),
        )  # fmt: skip

    def backfill(self) -> Row:
        now = self.game.state.now
        since, until = (max(now + self.chance.randint(-90, 30) * SECOND, 0) for _ in range(2))
        times = {"since": stamp(since), "until": stamp(until)}
        return self.schedule() | times | self.maybe(("priority", None, 0.3))

    def broken_timetable(self) -> Row:
        name = self.schedule()["name"]
        return {"id": f"$schedule/{name}", "path": "every", "value": "often"}

    def contract(self) -> Row:
        return {"entity": "checked", "schema": CONTRACT}

    def sql_hook(self) -> Row:
        name, attempts = self.chance.choice(list(ATTEMPTS.items()))
        return {"name": name, "function": f"model.{name}", "attempts": attempts}

    def old(self) -> Row:
        ago = self.chance.choice([0, 10, 60]) * SECOND
        return {"before": stamp(self.game.state.now - ago), "max_jobs": self.chance.randint(1, 4)}


def of_job(**more: Any) -> Callable[[Client], Row]:
    """Return a function that draws a job, with fixed other arguments."""
    return lambda c: c.job() | more


def of_command(op: str, name: str | None) -> Callable[[Client], Row]:
    """Return a function that draws the arguments of a command."""
    return lambda c: c.command(op, name)


RETENTION: dict[str, tuple[float, Callable[[Client], Row]]] = {
    "forget": (2, Client.job),
    "forget_finished": (2, Client.old),
    "terminate": (2, of_job(reason="enough")),
    "drop_schedule": (0.5, Client.schedule),
}
CALLS: dict[str, tuple[float, Callable[[Client], Row]]] = {
    "start": (10, Client.started),
    "start_many": (0.7, Client.starts),
    "signal": (9, lambda c: c.job() | c.signal()),
    "signal_with_start": (1, lambda c: c.start() | c.signal()),
    "signal_found": (0.4, lambda c: {"entity": "thing", "conditions": {}} | c.signal()),
    "hook": (3, Client.hook),
    "cancel": (2, of_job(reason="enough")),
    "cancel_hook": (2, Client.task),
    "cancel_found": (0.2, lambda c: {"entity": "thing", "conditions": {}}),
    "terminate": (0.7, of_job(reason="enough")),
    "pause": (0.8, Client.job),
    "resume": (2, lambda c: c.job() | c.maybe(("accept_changes", True, 0.3))),
    "repin": (0.8, lambda c: c.job() | {"version": c.chance.choice(["2", "3", None, ""])}),
    "retry": (2, Client.retry),
    "fork": (1.5, Client.fork),
    "forget": (0.5, Client.job),
    "forget_finished": (0.3, Client.old),
    "forget_old_runs": (0.5, Client.job),
    "entity_create": (1, Client.create),
    "entity_get": (0.5, lambda c: c.job() | {"path": c.chance.choice(["", "n", "told", "."])}),
    "entity_at": (0.4, lambda c: c.job() | {"version": c.version()}),
    "entity_meets": (0.4, lambda c: c.job() | c.condition()),
    "entity_set": (1, of_command("set", "value")),
    "entity_merge": (1, of_command("merge", "patch")),
    "entity_append": (1, of_command("append", "items")),
    "entity_prepend": (0.5, of_command("prepend", "items")),
    "entity_remove": (0.5, of_command("remove", "index")),
    "entity_increment": (2, of_command("increment", "by")),
    "entity_toggle": (1, of_command("toggle", None)),
    "entity_set_if_not_exists": (0.5, of_command("set_if_not_exists", "value")),
    "entity_delete": (0.5, of_command("delete", None)),
    "entity_log": (0.6, Client.log),
    "entity_apply": (1, Client.apply),
    "entity_restore": (0.5, lambda c: c.job() | {"version": c.version()} | c.how()),
    "define_contract": (0.5, Client.contract),
    "drop_contract": (0.2, lambda c: {"entity": "checked"}),
    "set_queue": (1.5, Client.queue),
    "pause_queue": (0.3, Client.a_queue),
    "resume_queue": (0.6, Client.a_queue),
    "read_item": (0.3, Client.item),
    "claim_item": (1, lambda c: c.item() | {"by": c.chance.choice(PEOPLE)}),
    "release_item": (0.5, lambda c: c.item() | c.maybe(("by", c.chance.choice(PEOPLE), 0.5))),
    "assign_item": (0.5, lambda c: c.item() | c.maybe(("assignee", c.chance.choice(PEOPLE), 0.7))),
    "resolve_item": (
        2,
        lambda c: c.item() | {"resolution": "yes"} | c.maybe(("by", c.chance.choice(PEOPLE), 0.6)),
    ),
    "create_schedule": (0.7, Client.timetable),
    "pause_schedule": (0.2, Client.schedule),
    "resume_schedule": (0.3, Client.schedule),
    "trigger_schedule": (0.3, lambda c: c.schedule() | {"key": c.chance.choice("ab")}),
    "backfill_schedule": (0.3, Client.backfill),
    "drop_schedule": (0.3, Client.schedule),
    "register_sql_hook": (0.5, Client.sql_hook),
    "drop_sql_hook": (0.1, lambda c: {"name": c.chance.choice(["adds", "fails"])}),
    "move_clock": (6, Client.tick),
    "skip_time": (2, Client.skip),
}
