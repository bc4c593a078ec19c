"""Text in any argument of any verb is never executed as SQL (T18) (E12), and odd times work or are
rejected by perdure.

The calls are made from the catalog: every verb of `matrix.txt` is called by a role that may call
it. One argument at a time is odd, while the others have usual values.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.amount import amount, seed
from tests.memory.test_find_injection import HOSTILE
from tests.security.secured import KINDS, Connection, SecuredApp
from tests.security.test_matrix import listed

ConnectAs = Callable[[str], Connection]
_numbers = count(1)

VERBS = """
select p.proname, p.prokind = 'p',
       p.proargnames[:p.pronargs],
       array(select format_type(t.type, null)
               from unnest(p.proargtypes) with ordinality as t (type, place)
              order by t.place),
       p.pronargs - p.pronargdefaults
  from pg_proc as p
 where p.pronamespace = 'perdure'::regnamespace
   and p.prorettype <> 'trigger'::regtype
 order by p.proname
"""

TEXTS = [
    *(text for text in HOSTILE if "\0" not in text),
    *("", " ", "@", "a@b", "$schedule", "$outside", "$hook/1", "1/main", "a/b", "/", ".", "a..b"),
    *("x" * 201, "x" * 10_000, "é" * 101, "[0]", "-1", "a[", '"', "$.a", "$.a == 1", "* * * * *"),
    *("'; drop table perdure.canary; --", "x'); delete from perdure.canary; --", "public"),
    *("1 day'; drop table perdure.canary; --", "$canary$; drop table perdure.canary; $canary$"),
]
SHAPES: dict[str, list[Callable[[str], Any]]] = {
    "text": [lambda text: text],
    "text[]": [lambda text: [text], lambda text: ["a", text], lambda text: [None, text]],
    "jsonb": [
        json.dumps,
        lambda text: json.dumps({text: text}),
        lambda text: json.dumps([text, {"op": text, "path": text, "value": text}]),
        lambda text: json.dumps([{"job": text, "task": text, "token": text, "facts": text}]),
        lambda text: json.dumps({"a": {"$eq": text, "$in": [text], text: text}, "type": text}),
        lambda text: text,
    ],
}
REFUSED = re.compile("PD[1345]..|PD001|22...")
"""Errors of perdure, and PostgreSQL's for text that is not of the type (no JSON, no uuid)."""


@dataclass(frozen=True)
class Verb:
    """A function with its arguments, and the role that calls it."""

    name: str
    is_procedure: bool
    arguments: dict[str, str]
    needed: list[str]
    role: str

    @property
    def works(self) -> bool:
        """Check whether the verb needs a held task or an item."""
        return bool({"task", "token", "item"} & set(self.needed)) or self.name == "advance"


def verbs_of(owner: Connection, kinds: Collection[str] = SHAPES) -> list[Verb]:
    """List every verb with an argument of some types (by default, those that hold text), each with
    the first role that may call it."""
    rights = listed()
    out = []
    for name, is_procedure, names, types, needed in owner.execute(VERBS).fetchall():
        if name not in rights or not set(types) & set(kinds):
            continue
        role = next((kind for kind in KINDS if rights[name][kind] == "call"), "owner")
        arguments = dict(zip(names, types, strict=True))
        out.append(Verb(name, is_procedure, arguments, names[:needed], role))
    return out


@pytest.fixture
def verbs(connect_as: ConnectAs) -> list[Verb]:
    """Give the verbs that take text."""
    return verbs_of(connect_as("owner"))


@pytest.fixture
def canary(connect_as: ConnectAs) -> Iterator[None]:
    """Check that a table, a memory, the catalog and the roles stay unchanged."""
    owner = connect_as("owner")
    owner.execute("create table perdure.canary (bird text)")
    owner.execute("insert into canary values ('alive')")
    owner.execute("select entity_create('bystander', 'bird', '{\"alive\": true}')")
    before = state(owner)
    yield
    assert state(owner) == before
    owner.execute("drop table perdure.canary")
    owner.execute("select terminate(j.id) from jobs as j where j.status = 'running'")
    owner.execute("select resume_queue(q.queue), set_queue(q.queue) from queues as q")


def state(owner: Connection) -> list[Any]:
    """Read everything that no call should change."""
    ours = "where {} = 'perdure'::regnamespace order by oid"
    functions = ours.format("pronamespace")
    relations = ours.format("relname !~ '^memory_' and relnamespace")
    queries = (
        "select bird from canary",
        "select * from jobs where id = 'bystander'",
        "select * from history where job_id = 'bystander'",
        f"select oid, proname, proacl::text, md5(prosrc) from pg_proc {functions}",
        f"select oid, relname, relacl::text from pg_class {relations}",
        "select rolname, rolsuper, rolcanlogin from pg_roles order by oid",
        "select role, kind, queues from access order by role, kind",
        "select nspname from pg_namespace where nspname !~ '^pg_' order by oid",
    )
    return [owner.execute(query.encode()).fetchall() for query in queries]


def prepare_job(owner: Connection, *, works: bool = True) -> dict[str, Any]:
    """Make what a verb needs to get far: a job and, if it works on a task, a held hook and an
    item."""
    job, token = f"job {uuid4()}", str(uuid4())
    start = "select start('w', id => %s, entity => 'doc', queue => %s, context => %s)"
    owner.execute(start, [job, job, '{"v": {"n": 1}, "list": [1], "on": true, "n": 1}'])
    if not works:
        return {"job": job, "id": job}
    task = owner.execute("select hook(%s, 'h', queue => %s)", [job, job]).fetchone()
    owner.execute("select claim(array[%s], 'me', %s::uuid, 2)", [job, token])
    asks = {"kind": "item", "key": "i", "name": "look", "payload": {}}
    turn = {"job": job, "task": "1/main", "token": token, "position": 0, "state": "park"}
    turn |= {"awaits": [], "requests": [asks]}
    owner.execute("select advance(%s)", [json.dumps([turn])])
    item = owner.execute("select id from items where job_id = %s", [job]).fetchone()
    assert task
    assert item
    return {"job": job, "id": job, "task": task[0], "token": token, "item": item[0]}


def usual_arguments(verb: Verb, prepared: dict[str, Any]) -> dict[str, Any]:
    """Give each required argument a usual value."""
    said = prepared | {
        "path": {"entity_increment": "n", "entity_toggle": "on"}.get(verb.name, "list"),
        "value": "1", "items": "[1]", "patch": "{}", "entity": "doc", "conditions": "{}",
        "commands": "[]", "starts": "[]", "turns": "[]", "tasks": "[]", "schema": "{}",
        "name": "name", "key": None, "queue": "q", "queues": ["q"], "worker": "me", "kind": "hook",
        "workflow": "w", "topic": "q", "listener": "ear", "stream": "s", "by": "me", "version": 1,
        "before": "epoch", "condition": "$.n == 1", "function": "perdure.contract_failure",
        "role": "nobody", "attempts": 1, "failure": "{}",
    }  # fmt: skip
    if verb.name in ("start", "signal_with_start", "entity_create"):
        said["id"] = f"new-{next(_numbers)}"
    if verb.name == "create_schedule":
        said |= {"name": f"s-{next(_numbers)}", "cron": "0 0 1 1 *"}
    if verb.name == "entity_merge":
        said["path"] = "v"
    return {name: said.get(name) for name in verb.arguments if name in verb.needed}


def attempts(verb: Verb, chance: random.Random) -> Iterator[tuple[str, Any]]:
    """Yield each argument of a verb that can hold text, with some of the hostile texts."""
    for name, kind in verb.arguments.items():
        for text in chance.sample(TEXTS, min(len(TEXTS), amount(2))):
            for shape in SHAPES.get(kind, []):
                yield name, shape(text)


def call(connection: Connection, verb: Verb, given: dict[str, Any]) -> str:
    """Call a verb, and return how it ended."""
    named = ", ".join(f"{name} => %s::{verb.arguments[name]}" for name in given)
    query = f"{'call' if verb.is_procedure else 'select * from'} perdure.{verb.name}({named})"
    try:
        connection.execute(query.encode(), list(given.values()))
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    return "done"


def test_text_in_an_argument_is_never_executed_as_sql(
    secured: SecuredApp, connect_as: ConnectAs, canary: None, verbs: list[Verb]
) -> None:
    chance, ends = random.Random(seed()), Counter[str]()
    sessions = {role: connect_as(role) for role in ("owner", *KINDS)}
    for session in sessions.values():
        session.execute("set statement_timeout = '10 s'")  # no argument may make a verb hang
    wrong: list[tuple[str, str, str, Any]] = []
    for verb in verbs:
        prepared, before = {}, None
        for name, hostile in attempts(verb, chance):
            if name != before:
                prepared, before = prepare_job(sessions["owner"], works=verb.works), name
            end = call(sessions[verb.role], verb, usual_arguments(verb, prepared) | {name: hostile})
            ends[end] += 1
            if end != "done" and not REFUSED.fullmatch(end):
                wrong.append((end, verb.name, name, hostile))
    print(ends)
    assert wrong == []
    assert ends["done"] > sum(ends.values()) / 10


MOMENTS = (
    *("infinity", "-infinity", "epoch", "4713-01-01 00:00+00 BC", "294276-12-31 23:59+00"),
    *("9999-12-31 23:59+00", "0001-01-01 00:00+00 BC"),
)
LENGTHS = (
    *("0", "-1 s", "1 microsecond", "1 day", "1 mon -31 days", "-1 mon 31 days", "1000 years"),
    *("178000000 years", "-178000000 years", "2147483647 days", "2562047788 hours"),
    *("-infinity", "infinity"),
)
TIMES = {"timestamp with time zone": MOMENTS, "interval": LENGTHS}
ASKED = {"key": "k#1", "name": "n"}
WRITTEN: dict[tuple[str, str, str], Any] = {
    ("start_many", "starts", "due_at"): [{"workflow": "w", "due_at": MOMENTS}],
    ("start_many", "starts", "timeout"): [{"workflow": "w", "timeout": LENGTHS}],
    ("advance", "turns", "park"): [{"state": "park", "until": MOMENTS, "awaits": ["go"]}],
    ("advance", "turns", "retry"): [{"state": "retry", "until": MOMENTS, "failure": {}}],
    ("advance", "turns", "release"): [{"state": "release", "until": MOMENTS}],
    ("advance", "turns", "fact"): [{"facts": [{"kind": "note", "key": "k", "at": MOMENTS}]}],
    ("advance", "turns", "hook"): [{"requests": [ASKED | {"due_at": MOMENTS}]}],
    ("advance", "turns", "child"): [{"requests": [ASKED | {"kind": "job", "due_at": MOMENTS}]}],
    ("advance", "turns", "limit"): [{"requests": [ASKED | {"kind": "job", "timeout": LENGTHS}]}],
    ("advance", "turns", "item"): [{"requests": [ASKED | {"kind": "item", "expires_at": MOMENTS}]}],
    ("find", "conditions", "time"): {"v.n": {"$gt": {"$time": MOMENTS}}},
    ("find", "conditions", "since"): {"$created_at": {"$gt": MOMENTS}},
    ("timeline", "after", "place"): [1, MOMENTS, "1/main", 0],
}
"""Places for a time inside JSON."""
CLOCKS = ("move_clock", "skip_time")


def known(owner: Connection, kind: str) -> list[str]:
    """List the odd times that this server knows: PostgreSQL 16 has no infinite interval."""
    out = []
    for written in TIMES[kind]:
        try:
            owner.execute(f"select %s::{kind}".encode(), [written])
        except psycopg.DataError:
            continue
        out.append(written)
    return out


def odd_times(owner: Connection) -> Iterator[tuple[Verb, str, str, Any]]:
    """Yield each place of a verb that takes a time: verb, argument, name of the place, odd
    value."""
    times = {kind: known(owner, kind) for kind in TIMES}
    for verb in verbs_of(owner, TIMES):
        for name, kind in verb.arguments.items():
            yield from ((verb, name, odd, odd) for odd in times.get(kind, ()))
    verbs = {verb.name: verb for verb in verbs_of(owner)}
    for (verb_name, name, place), template in WRITTEN.items():
        for odd in MOMENTS if '"4713-' in json.dumps(template) else times["interval"]:
            yield verbs[verb_name], name, f"{place} {odd}", filled(template, odd)


def filled(template: Any, odd: str) -> Any:
    """Put a time into a template."""
    if isinstance(template, tuple):
        return odd
    if isinstance(template, dict):
        return {name: filled(value, odd) for name, value in template.items()}
    return [filled(value, odd) for value in template] if isinstance(template, list) else template


def test_odd_time_is_accepted_or_rejected_with_an_error_of_perdure(
    secured: SecuredApp, connect_as: ConnectAs, canary: None
) -> None:
    """Jobs that were started with an odd time can still be worked on."""
    sessions = {role: connect_as(role) for role in ("owner", *KINDS)}
    for session in sessions.values():
        session.execute("set statement_timeout = '10 s'")  # no call may wait for ever
    owner, wrong, ends = sessions["owner"], [], Counter[str]()
    for verb, name, place, value in odd_times(owner):
        prepared = prepare_job(owner, works=verb.works)
        if verb.name == "retry":
            owner.execute("select terminate(%s)", [prepared["job"]])
        if verb.name == "advance" and name == "turns":
            held = {"job": prepared["job"], "task": prepared["task"], "token": prepared["token"]}
            said = json.dumps([held | {"state": "keep", "position": 0} | value[0]])
        else:
            said = value if isinstance(value, str) else json.dumps(value)
        with sessions[verb.role].transaction(force_rollback=verb.name in CLOCKS):
            end = call(sessions[verb.role], verb, usual_arguments(verb, prepared) | {name: said})
        ends[end] += 1
        if end != "done" and not re.fullmatch("PD...", end):
            wrong.append((end, verb.name, name, place))
    print(ends)
    assert wrong == []
    assert ends["done"] > sum(ends.values()) / 10
    query = "select hook(%s, 'name', '[1]', '$sql')"
    owner.execute(query, [prepare_job(owner, works=False)["job"]])
    owner.execute("select run_until_idle(1000)")
    owner.execute("select claim(array(select distinct queue from tasks), 'me', max_tasks => 1000)")
    owner.execute("select status(id) from jobs")
    owner.execute("select * from waiting, schedules")


MEMBERS = (
    *("facts", "requests", "cancels", "awaits", "until", "value", "state", "failure", "touches"),
    *("position", "signal", "progress"),
)
INNER = {
    "facts": ("op", "path", "value", "kind", "key", "name", "fingerprint", "ok", "at", "signal",
              "target", "message", "payload", "expected_version", "version"),
    "requests": ("kind", "key", "name", "args", "queue", "priority", "due_at", "condition",
                 "entity", "workflow", "context", "id", "pinned_version", "limit_key", "until",
                 "on_parent_end", "assignee", "headers", "detached", "attempts", "timeout"),
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "facts": {"op": "set", "path": ["v"], "value": 1},
    "requests": {"kind": "activity", "key": "k", "name": "n", "args": []},
}
ODD: list[Any] = ["'", "x", "", 0, -1, 1.5, 1e300, True, None, [], {}, [1], {"a": 1}, [None], [[]]]


def odd_turns(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield changes that make an otherwise valid turn odd."""
    for member in MEMBERS:
        for odd in chance.sample(ODD, min(len(ODD), amount(4))):
            yield {member: odd}
            if member in INNER:
                inner = chance.choice(INNER[member])
                yield {member: [WHOLE[member] | {inner: odd}]}
                yield {member: [odd]}


def test_odd_turn_does_not_affect_other_turns_of_its_batch(connect_as: ConnectAs) -> None:
    """(T17) An odd turn is applied or refused by itself. If it cannot be read at all, the error
    names the turn, and nothing of the whole call is applied."""
    owner, worker, chance = connect_as("owner"), connect_as("worker"), random.Random(seed())
    ends, spoilt = Counter[str](), []
    good, position = prepare_job(owner), 0
    look = "select t::text from tasks as t where t.job_id = any(%s) order by 1"
    for odd in odd_turns(chance):
        prepared = prepare_job(owner)
        both = [
            (good, {"position": position, "facts": [{"kind": "note", "key": "k"}]}),
            (prepared, {"position": 0} | odd),
        ]
        turns = [
            {name: each[name] for name in ("job", "task", "token")} | {"state": "keep"} | more
            for each, more in both
        ]
        jobs = [good["job"], prepared["job"]]
        before = owner.execute(look, [jobs]).fetchall()
        try:
            row = worker.execute("select advance(%s)", [json.dumps(turns)]).fetchone()
        except psycopg.Error as error:
            ends[error.sqlstate or ""] += 1
            assert owner.execute(look, [jobs]).fetchall() == before
            if error.sqlstate != "PD107" or "It is turn 2 of 2" not in str(error):
                spoilt.append((odd, error.sqlstate, str(error)))
            continue
        assert row
        position += 1
        first, second = (turn["state"] for turn in row[0]["turns"])
        ends[second] += 1
        if first != "keep":
            spoilt.append((odd, first, second))
    print(ends)
    assert spoilt == []
    assert ends["keep"] > 0
    assert ends["refused"] > 0
