"""All places where a value can go into an app: every JSON argument of every verb that roles may
call, and every place inside such an argument.

A new verb or argument is included automatically. Arguments that hold no value are in `NO_VALUES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.security.secured import Connection
from tests.security.test_hostile_arguments import Verb, prepare_job, usual_arguments, verbs_of

VALUE = "<the value>"
"""Marks in a template where the value goes."""

NO_VALUES = {
    ("task_state", "failure"): "a row of tasks, as the views read it; it is not stored",
    ("task_state", "stuck_reason"): "the same",
}

COMMANDS = {
    "set": ("v", VALUE), "set_if_not_exists": ("new", VALUE), "merge": ("v", VALUE),
    "append": ("list", [VALUE]), "prepend": ("list", [VALUE]), "log": ("log", [VALUE]),
}  # fmt: skip
LEASING = ("extend", "release")
"""Verbs that move the end of a lease even if the progress sent with them is invalid."""

AGAIN = {"until": "2030-01-01T00:00:00Z"}

IN_TURNS: dict[str, Any] = {
    "its result": {"state": "done", "value": VALUE},
    "its failure": {"state": "failed", "value": VALUE},
    "why it was cancelled": {"state": "cancelled", "value": VALUE},
    "the failure of an attempt": {"state": "retry", "value": VALUE} | AGAIN,
    "why it is stuck": {"state": "stuck", "value": VALUE},
    "why it is given back": {"state": "release", "value": VALUE} | AGAIN,
    "the arguments of the next run": {"state": "continue", "value": VALUE},
    "why there is a next run": {"state": "continue", "failure": VALUE},
    "a fact": {"facts": [{"kind": "activity", "key": "a", "value": VALUE}]},
    "a failed fact": {"facts": [{"kind": "activity", "key": "a", "ok": False, "value": VALUE}]},
    "a signal": {"facts": [{"kind": "send", "key": "s", "signal": "s", "value": VALUE}]},
    "an item": {"requests": [{"kind": "item", "key": "k", "name": "n", "payload": VALUE}]},
}
IN_TURNS |= {
    f"a command, {op}": {"facts": [{"op": op, "path": [path], "value": value}]}
    for op, (path, value) in COMMANDS.items()
}
IN_TURNS |= {
    f"a request, {kind}": {"requests": [{"kind": kind, "key": "k", "name": "n", "args": VALUE}]}
    for kind in ("hook", "activity", "job")
}
IN_TURNS |= {
    f"a child, its {part}": {"requests": [{"kind": "job", "key": "k", "name": "n", part: VALUE}]}
    for part in ("context", "headers")
}

INSIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("advance", "turns"): {
        what: [{"position": 0, "state": "keep"} | arguments_with]
        for what, arguments_with in IN_TURNS.items()
    },
    ("entity_apply", "commands"): {
        op: [{"op": op, "path": path, "value": value}] for op, (path, value) in COMMANDS.items()
    },
    ("start_many", "starts"): {
        part: [{"workflow": "w", part: VALUE}] for part in ("args", "context", "headers")
    },
    ("extend", "tasks"): {"progress": [{"progress": VALUE}]},
    ("release", "tasks"): {"progress": [{"progress": VALUE}]},
}
"""The elements that hold values in arguments that are lists; each also names a lease."""


@dataclass(frozen=True, eq=False)
class Place:
    """A place for a value: an argument of a verb, and a place within it."""

    verb: Verb
    argument: str
    within: str
    template: Any

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.verb.name, self.argument, self.within)))

    @property
    def needs(self) -> str:
        """Return a key of what the verb needs; verbs with the same key can share it."""
        special = ("advance", "retry", *LEASING)
        return self.verb.name if self.verb.name in special else f"work: {self.verb.works}"

    def prepare(self, owner: Connection) -> dict[str, Any]:
        """Prepare what the verb needs: a held run for turns, an ended job for retry()."""
        if self.verb.name != "advance":
            prepared = prepare_job(owner, works=self.verb.works or self.verb.name in LEASING)
            if self.verb.name == "retry":
                owner.execute("select terminate(%s)", [prepared["job"]])
            return prepared
        job, token = f"job {uuid4()}", str(uuid4())
        start = "select start('w', id => %s, entity => 'doc', queue => %s, context => %s)"
        owner.execute(start, [job, job, '{"v": {"n": 1}, "list": [1]}'])
        owner.execute("select claim(array[%s], 'me', %s::uuid)", [job, token])
        return {"job": job, "task": "1/main", "token": token}

    def arguments_with(self, prepared: dict[str, Any], value: str) -> dict[str, Any]:
        """Return the arguments of a call, with a value given as JSON text."""
        template = self.template
        if self.verb.name in ("advance", *LEASING):
            lease = {name: prepared[name] for name in ("job", "task", "token")}
            template = [lease | each for each in template]
        written = json.dumps(template).replace(json.dumps(VALUE), value)
        more = {"cron": "0 0 1 1 *"} if self.verb.name == "create_schedule" else {}
        return usual_arguments(self.verb, prepared) | more | {self.argument: written}

    def query(self, arguments: dict[str, Any]) -> str:
        """Return the SQL of the call."""
        named = ", ".join(f"{name} => %s::{self.verb.arguments[name]}" for name in arguments)
        return f"select * from perdure.{self.verb.name}({named})"


def places(owner: Connection) -> Iterator[Place]:
    """Yield every place that takes a value."""
    for verb in verbs_of(owner):
        for argument, kind in verb.arguments.items():
            if "json" in kind and verb.role != "owner" and (verb.name, argument) not in NO_VALUES:
                inside = INSIDE.get((verb.name, argument), {"": VALUE})
                for within, template in inside.items():
                    yield Place(verb, argument, within, template)
