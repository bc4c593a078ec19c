"""Workers: they claim, report turns of the tasks that they believe they hold, and lose replies.

Their reports are drawn at random, so that most of them make sense and some do not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.model.game import Game
from tests.model.state import ENDS, SECOND, Row, stamp

JOBS = [f"j{number}" for number in range(5)]
QUEUES = ["q0", "q0", "q0", "q1", "few", "keys", "slow"]
SIGNALS = ["go", "stop"]
FAILURE = {"type": "ValueError", "message": "no"}
MAX_JOBS = 14
DEEP: Any = None
for _ in range(150):
    DEEP = [DEEP]


def pick(chance: random.Random, weights: dict[Any, float]) -> Any:
    """Draw one, by weight."""
    return chance.choices(list(weights), list(weights.values()))[0]


@dataclass
class Lease:
    """A worker's knowledge of a task that it holds or held."""

    job: str
    task: str
    token: str
    position: int
    kind: str
    name: str
    queue: str
    asker: Any
    messages: list[Row]

    @property
    def said(self) -> Row:
        return {"job": self.job, "task": self.task, "token": self.token}


@dataclass
class Worker:
    """A worker: claims, reports turns, and may lose replies."""

    game: Game
    name: str
    queues: list[str]
    held: dict[tuple[str, str], Lease] = field(default_factory=dict)
    lost: tuple[str, Row] | None = None

    @property
    def chance(self) -> random.Random:
        return self.game.chance

    def act(self) -> None:
        """Do one thing: repeat a call whose reply was lost, or make a new one."""
        if self.lost is not None:
            verb, args = self.lost
            self.lost = None
            if verb == "claim" or args.get("max_tasks"):
                args = args | {"again": True}
            self.hear(verb, args, self.game.send(verb, **args))
        elif not self.held or self.chance.random() < 0.15:
            self.claim()
        else:
            does = {self.turn: 10, self.turns: 2, self.extend: 1, self.release: 0.7, self.end: 1.5}
            does |= {self.publish: 0.4, self.forget_lease: 0.7}
            pick(self.chance, does)()

    def is_wanted(self) -> bool:
        """Return whether a task is due on its queues."""
        tasks, now = self.game.state.tasks.values(), self.game.state.now
        return any(task["queue"] in self.queues and task["due_at"] <= now for task in tasks)

    def say(self, verb: str, **args: Any) -> None:
        """Call a verb; the reply may get lost, or the call be repeated."""
        answer = self.game.send(verb, **args)
        fault = self.chance.random()
        if fault < 0.05:
            self.lost = (verb, args)
            return
        if fault < 0.12:
            self.game.send(verb, **args)
        self.hear(verb, args, answer)

    def hear(self, verb: str, args: Row, answer: Any) -> None:
        """Update the held leases from an answer."""
        if not isinstance(answer, dict):
            return
        for said, told in zip(args.get("turns", ()), answer.get("turns", ()), strict=True):
            self.hear_turn(said, told)
        for task in answer["tasks"]:
            lease = Lease(
                task["job"], task["task"], answer["token"], task["position"], task["kind"],
                task["name"], task["queue"], task["asker"], task["messages"],
            )  # fmt: skip
            self.held[lease.job, lease.task] = lease

    def hear_turn(self, said: Row, told: Row) -> None:
        """Update a lease from the answer to a turn."""
        place = (said["job"], said["task"])
        lease = self.held.get(place)
        if lease is None or lease.token != said["token"]:
            return
        if told["state"] == "keep":
            lease.position = said["position"] + len(said.get("facts") or ())
            lease.messages = told["messages"]
        elif told["state"] not in ("busy", "refused"):
            del self.held[place]

    def claim(self) -> None:
        chance = self.chance
        queues = self.queues if chance.random() < 0.8 else chance.sample(self.queues, 2)
        args: Row = {"queues": queues, "worker": self.name, "claim_id": self.game.token()}
        args["max_tasks"] = chance.choice([1, 2, 3, 5, 5, 0])
        args["lease_for"] = chance.choice(["5 s", "30 s", "30 s", "60 s"])
        strange = {"": 60, "protocol": 1, "instance": 1, "worker": 1, "lease_for": 1}
        match pick(chance, strange):
            case "protocol":
                args["protocol"] = 2
            case "instance":
                args["instance"] = self.game.token()
            case "worker":
                args["worker"] = ""
            case "lease_for":
                args["lease_for"] = "0 s"
        self.say("claim", **args)

    def forget_lease(self) -> None:
        """Die a little: forget a held lease."""
        self.held.pop(self.chance.choice(list(self.held)))

    def lease(self) -> Lease:
        return self.held[self.chance.choice(list(self.held))]

    def extend(self) -> None:
        lease = self.lease()
        progress = pick(self.chance, {None: 3, 1: 3, "x" * 10_001: 0.3})
        said = lease.said | ({} if progress is None else {"progress": progress})
        lease_for = pick(self.chance, {"30 s": 20, "2 days": 1})
        self.say("extend", tasks=[said], lease_for=lease_for.replace("2 days", "172800 s"))

    def release(self) -> None:
        lease = self.lease()
        self.held.pop((lease.job, lease.task))
        self.say("release", tasks=[lease.said | {"progress": "far"}])

    def end(self) -> None:
        lease = self.lease()
        if lease.kind != "coordinator" or self.chance.random() < 0.3:
            self.held.pop((lease.job, lease.task))
        if lease.queue == "$sql":
            is_slow = not lease.name.startswith("$") and self.chance.random() < 0.2
            self.say("time_out_task" if is_slow else "run_task", **lease.said)
        elif self.chance.random() < 0.5:
            self.say("finish_task", **lease.said, value=pick(self.chance, {1: 20, "big": 1}))
        else:
            later = stamp(self.game.state.now + self.chance.randint(1, 20) * SECOND)
            retry_at = pick(self.chance, {None: 4, later: 8, "infinity": 1})
            self.say("fail_task", **lease.said, failure=FAILURE, retry_at=retry_at)

    def publish(self) -> None:
        args = self.lease().said | {"stream": "told", "items": [self.chance.randint(0, 9)]}
        key = pick(self.chance, {None: 2, "1/1": 2})
        self.say("publish", **args, **({} if key is None else {"key": key}))

    def turn(self) -> None:
        lease = self.lease()
        if lease.queue == "$sql":
            return self.end()
        more: Row = {}
        if self.chance.random() < 0.2:
            more = {"queues": self.queues, "worker": self.name, "claim_id": self.game.token()}
            more["max_tasks"] = self.chance.randint(1, 3)
        if self.chance.random() < 0.01:
            more["protocol"] = 3
        return self.say("advance", turns=[self.make_turn(lease)], **more)

    def turns(self) -> None:
        """Report a batch of turns, now and then two of one task."""
        leases = [lease for lease in self.held.values() if lease.queue != "$sql"]
        turns = [self.make_turn(lease) for lease in leases[:4]]
        if turns and self.chance.random() < 0.1:
            turns.append(turns[0])
        self.say("advance", turns=turns)

    def make_turn(self, lease: Lease) -> Row:
        chance, now = self.chance, self.game.state.now
        weights = {"keep": 8, "park": 9, "done": 3, "failed": 1, "cancelled": 1, "retry": 1.5}
        weights |= {"stuck": 1, "release": 1, "continue": 2, "?": 0.3}
        if lease.kind != "coordinator":
            weights |= {"continue": 0.1, "done": 7}
        state = pick(chance, weights)
        turn: Row = lease.said | {"position": lease.position, "state": state}
        facts = self.make_facts(lease)
        turn |= {"facts": facts} if facts or chance.random() < 0.05 else {}
        if chance.random() < 0.45:
            requests = [self.make_request() for _ in range(chance.randint(1, 2))]
            if chance.random() < 0.9:  # otherwise two may share a key
                requests = list({request["key"]: request for request in requests}.values())
            turn["requests"] = requests
        if chance.random() < 0.15:
            turn["cancels"] = [f"{chance.choice('hacui')}#{chance.randint(1, 2)}"]
        if chance.random() < 0.1:
            open_keys = [f"{kind}#{n}" for kind in "hacui" for n in (1, 2) if chance.random() < 0.8]
            turn["open"] = {key: chance.choice(["a", "b", None]) for key in open_keys}
        turn |= self.make_fate(lease, state, now)
        if chance.random() < 0.2:
            turn["asked"] = chance.randint(1, 9)
        return turn

    def make_fate(self, lease: Lease, state: str, now: int) -> Row:
        """Draw the part of a turn that depends on its state."""
        chance = self.chance
        later = stamp(now + chance.randint(1, 40) * SECOND)
        awaits = chance.sample(SIGNALS, chance.randint(1, 2))
        match state:
            case "park":
                ways = [{"awaits": awaits}, {"awaits": awaits, "until": later}, {"until": later}]
                return chance.choice([*ways * 3, {}, {"awaits": []}])
            case "keep":
                return {"awaits": awaits} if chance.random() < 0.3 else {}
            case "retry" | "release":
                code = {"code": "PD406"} if chance.random() < 0.3 else {}
                until = pick(chance, {None: 3, later: 6, "infinity": 0.4})
                return {"value": FAILURE | code} | ({} if until is None else {"until": until})
            case "continue":
                value = pick(chance, {None: 2, "list": 3, "wrong": 0.5})
                args = {"list": [2], "wrong": "x"}.get(value)
                failed = {"failure": FAILURE} if chance.random() < 0.4 else {}
                until = {"until": later} if chance.random() < 0.4 else {}
                return ({} if args is None else {"value": args}) | failed | until
        fate: Row = {} if chance.random() < 0.2 else {"value": FAILURE if state != "done" else 5}
        if state == "done" and chance.random() < 0.3:
            fate["awaits"] = awaits
        if state in ENDS and lease.asker and chance.random() < 0.95:
            fate["touches"] = [lease.asker[0]]
        return fate

    def make_facts(self, lease: Lease) -> list[Row]:
        chance, now = self.chance, self.game.state.now
        facts: list[Row] = []
        for message in lease.messages:
            if chance.random() < 0.7:
                kind = {None: "signal", "$cancel": "cancel"}.get(message["key"], "answer")
                key = message["key"] or message["name"]
                facts.append({"kind": kind, "message": message["id"], "key": key})
        count = pick(chance, {0: 3, 1: 4, 2: 2, 3: 1})
        return facts + [self.make_fact(now) for _ in range(count)]

    def make_fact(self, now: int) -> Row:
        chance = self.chance
        match pick(
            chance, {"note": 3, "command": 6, "read": 2, "send": 3, "log": 1, "untimely": 0.3}
        ):
            case "command":
                op, path, value = a_command(chance)
                fact: Row = {"op": op, "path": path, "value": value, "key": "x#1"}
                if chance.random() < 0.1:
                    fact["expected_version"] = chance.randint(0, 9)
                return fact
            case "read":
                return {"op": "get", "path": chance.choice([[], ["n"], ["told"], ["list", "0"]])}
            case "send":
                target = pick(chance, {None: 5, chance.choice(JOBS): 4, "c0": 0.5, "nowhere": 0.5})
                fact = {"signal": chance.choice([*SIGNALS, "early"]), "value": chance.randint(0, 9)}
                return fact if target is None else fact | {"target": target}
            case "log":
                return {
                    "op": "log",
                    "path": ["told"],
                    "value": chance.choice([[1, 2], [3], [], None]),
                }
            case "untimely":
                at = now + chance.choice([-100, 100]) * SECOND
                return {"kind": "timer", "key": "t#1", "at": stamp(at)}
        return {"kind": "activity", "key": "a#1", "name": "a", "value": chance.randint(0, 9)}

    def make_request(self) -> Row:
        chance, now = self.chance, self.game.state.now
        is_crowded = len(self.game.state.jobs) >= MAX_JOBS
        kinds = {"hook": 4, "activity": 2, "job": 0 if is_crowded else 3, "until": 2, "item": 2}
        kind = pick(chance, kinds | {"sql": 1.5, "?": 0.1})
        key = f"{(kind if kind != 'job' else 'c')[0]}#{chance.randint(1, 2)}"
        request: Row = {"key": key, "kind": kind}
        request |= {"fingerprint": chance.choice("ab")} if chance.random() < 0.5 else {}
        later = stamp(now + chance.randint(1, 30) * SECOND)
        match kind:
            case "until":
                conditions = ["$.n > 2", "exists($.list[1])", "$.on == true", "$.n >"]
                return request | {"condition": chance.choices(conditions, [4, 4, 4, 0.3])[0]}
            case "item":
                names = {"name": "sign", "payload": {"a": 1}}
                request |= names | ({"assignee": "ann"} if chance.random() < 0.3 else {})
                return request | ({"expires_at": later} if chance.random() < 0.4 else {})
            case "sql":
                name = pick(chance, {"adds": 3, "fails": 2, "nobody": 1})
                return {"key": key, "kind": "hook", "name": name, "queue": "$sql", "args": []}
            case "job":
                return request | self.make_child(later)
        request |= {"name": pick(chance, {"f": 40, "": 0.3, "$f": 0.3}), "args": [1]}
        request |= {"queue": chance.choice(QUEUES), "priority": chance.choice([3, 5, 5])}
        for name, value, share in (
            ("signal", "early", 0.3 if kind == "hook" else 0), ("detached", True, 0.15),
            ("limit_key", "k1", 0.3), ("limit_key", "k2", 0.3), ("pinned_version", "2", 0.15),
            ("shielded", True, 0.15), ("due_at", later, 0.15),
        ):  # fmt: skip
            request |= {name: value} if chance.random() < share else {}
        return request

    def make_child(self, later: str) -> Row:
        chance = self.chance
        child: Row = {"name": "w", "queue": chance.choice(QUEUES)}
        for name, value, share in (
            ("on_parent_end", chance.choice(["continue", "cancel", "terminate"]), 0.6),
            ("detached", True, 0.2), ("context", {"n": 7}, 0.15), ("entity", "checked", 0.4),
            ("id", chance.choice([*JOBS, "c0", "c1"]), 0.2), ("timeout", "20 s", 0.2),
            ("due_at", later, 0.1), ("if_exists", "existing", 0.01), ("shielded", True, 0.1),
            ("limit_key", "k1", 0.3), ("queue", "$sql", 0.01),
        ):  # fmt: skip
            child |= {name: value} if chance.random() < share else {}
        return child


def a_command(chance: random.Random) -> tuple[str, list[str], Any]:
    """Draw a command, now and then a wrong one."""
    good: list[tuple[str, list[str], Any]] = [
        ("increment", ["n"], chance.choice([1, 1, 2, -3])),
        ("set", ["n"], chance.randint(0, 5)),
        ("set_if_not_exists", ["n"], 1),
        ("toggle", ["on"], None),
        ("append", ["list"], [chance.randint(0, 9)]),
        ("prepend", ["list"], [0, 1]),
        ("remove", ["list"], chance.choice([0, -1])),
        ("delete", ["list"], None),
        ("merge", ["deep"], {"a": {"b": chance.randint(0, 9)}}),
        ("merge", [], {"deep": {"c": 1}}),
        ("set", [], {"n": 1, "list": [1]}),
    ]
    bad: list[tuple[str, list[str], Any]] = [
        ("increment", ["list"], 1),
        ("append", ["n"], [1]),
        ("set", [], 5),
        ("increment", ["n"], "x"),
        ("set", ["k"] * 51, 1),
    ]
    return chance.choice(good if chance.random() < 0.93 else bad)
