"""The game: a seeded scheduler lets actors call the database, and the model predicts each answer.

After each call the tables must be those of the model. Replies get lost and calls are repeated, at
once or much later with old tokens; the model predicts those calls too.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.model.real import Real, given_to
from tests.model.state import Row, State
from tests.model.verbs import LOOKS_AT_REAL, VERBS, readable
from tests.races.memory_model import Refused

Place = tuple[Any, ...]
LAST = 12  # calls that a failure shows
LONG = 1500  # letters of each


class Disagreement(AssertionError):
    """Database and model differ."""


class Game:
    """The database, the model, and chance."""

    def __init__(self, real: Real, seed: str, seen: Counter[str]) -> None:
        self.real = real
        self.seed = seed
        self.seen = seen
        self.chance = random.Random(seed)
        self.state = State()
        self.sent: list[tuple[str, Row]] = []

    def token(self) -> str:
        """Draw a token, or another name that is used once."""
        return str(uuid.UUID(int=self.chance.getrandbits(128)))

    def send(self, verb: str, /, **args: Any) -> Any:
        """Call a verb on both sides; return the answer, or the code of the error."""
        self.sent.append((verb, args))
        try:
            answer = readable(verb, self.real.call(verb, args))
        except Refused as refused:
            answer = refused.code
        tick = self.chance.randint(1, 20)  # milliseconds
        tables = self.real.tables(f"0.{tick:03}")
        expected = self.predicted(verb, copy.deepcopy(args), tables)
        self.learn(tables)
        self.compare({"the answer": expected, **self.tables()}, {"the answer": answer, **tables})
        self.count(verb, answer, tables)
        self.state.now += 1000 * tick
        return answer

    def predicted(self, verb: str, args: Row, tables: dict[str, Any]) -> Any:
        """Return the answer of the model; an error leaves the model unchanged."""
        kept = self.state.saved()
        got = given_to(tables, args.get("claim_id"), self.state.now)
        given = [got] if verb in LOOKS_AT_REAL else []
        try:
            return VERBS[verb](self.state, *given, **args)
        except Refused as refused:
            self.state.restore(kept)
            return refused.code

    def tables(self) -> dict[str, Any]:
        """Return the tables of the model."""
        s = self.state
        messages = [s.inbox[number] for number in sorted(s.inbox)]
        order = ("asked_at", "job_id", "task", "key")
        items = sorted(s.items.values(), key=lambda item: tuple(item[name] for name in order))
        shown = ("asked_at", "fingerprint")
        conditions = {place: {name: c[name] for name in shown} for place, c in s.conditions.items()}
        same = ("jobs", "tasks", "journal", "queues", "key_tokens", "lines")
        return {name: getattr(s, name) for name in same} | {
            "inbox": numbered(messages),
            "items": dict(enumerate(items)),
            "conditions": conditions,
        }

    def learn(self, tables: dict[str, Any]) -> None:
        """Copy the ids that the database has drawn for new messages and items."""
        tables["inbox"] = numbered(list(tables["inbox"].values()))
        mine = self.tables()
        for table in ("inbox", "items"):
            for place, row in tables[table].items():
                known = mine[table].get(place)
                if known is not None and known["id"] is None:
                    known["id"] = row["id"]

    def compare(self, expected: dict[str, Any], found: dict[str, Any]) -> None:
        """Raise Disagreement if database and model differ."""
        if wrong := list(differences(expected, found, ())):
            lines = [f"seed {self.seed}, call {len(self.sent)}"]
            lines += [f"  {verb}({args})"[:LONG] for verb, args in self.sent[-LAST:]]
            lines += [f"{place}: model {want!r}, database {have!r}" for place, want, have in wrong]
            raise Disagreement("\n".join(lines))

    def count(self, verb: str, answer: Any, tables: dict[str, Any]) -> None:
        """Count verbs and codes."""
        refused = isinstance(answer, str) and answer.startswith("PD")
        self.seen[f"{verb} refused" if refused else verb] += 1
        if refused:
            self.seen[answer] += 1
        for turn in answer["turns"] if verb == "advance" and not refused else ():
            self.seen[f"turn {turn['state']}"] += 1
            self.seen.update(codes(turn))
        for table in ("tasks", "jobs", "journal"):
            self.seen.update(set(codes(list(tables[table].values()))))

    def check_invariants(self) -> None:
        """Check the invariants of the database."""
        if broken := self.real.broken():
            lines = [f"seed {self.seed}, call {len(self.sent)}"]
            lines += [f"  {verb}({args})"[:LONG] for verb, args in self.sent[-LAST:]]
            raise Disagreement("\n".join([*lines, *map(str, broken)]))


def numbered(messages: list[Row]) -> dict[Any, Row]:
    """Number the messages of each job in their order."""
    counts: Counter[str] = Counter()
    places = {}
    for message in messages:
        counts[message["job_id"]] += 1
        places[message["job_id"], counts[message["job_id"]]] = message
    return places


def differences(expected: Any, found: Any, place: Place) -> Iterator[tuple[Place, Any, Any]]:
    """Yield the places in which two values differ; an id that the model cannot know equals any."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in expected.keys() | found.keys():
            if name not in expected or name not in found:
                yield (*place, name), expected.get(name, "nothing"), found.get(name, "nothing")
            elif not (expected[name] is None and is_drawn(name, place)):
                yield from differences(expected[name], found[name], (*place, name))
        return
    are_lists = isinstance(expected, list | tuple) and isinstance(found, list | tuple)
    if are_lists and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, (*place, number))
        return
    if place[:1] == ("journal",) and place[-1] == "fingerprint":
        expected = expected is not None
    if expected != found:
        yield place, expected, found


def is_drawn(name: str, place: Place) -> bool:
    """Return whether the database draws the value at a place, so that the model cannot know it."""
    return name == "id" or (name, *place) == ("token", "the answer")


def codes(value: Any) -> Iterator[str]:
    """Yield the codes of failures in a value."""
    if isinstance(value, dict):
        if str(value.get("code", "")).startswith("PD"):
            yield value["code"]
        for inner in value.values():
            yield from codes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from codes(inner)
