"""Whatever text stands in whichever argument of whichever verb, it is text (T18) (E12); and a time,
or a length of time, makes sense or is refused in own words.

The calls are made from the catalogue: every verb of `matrix.txt`, as a role that may call it, and
each of its arguments that can hold text, while the others say what they usually say.
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
from tests.security.house import KINDS, Connection, House
from tests.security.test_matrix import listed

Enter = Callable[[str], Connection]
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
"""Perdure's own refusals, and PostgreSQL's of what is not of its type at all (no JSON, no uuid)."""


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
        """Tell whether it needs a task that is held, or an item."""
        return bool({"task", "token", "item"} & set(self.needed)) or self.name == "advance"


def verbs_of(owner: Connection, kinds: Collection[str] = SHAPES) -> list[Verb]:
    """Give every verb that takes text somewhere, or what else, with the first role that may call
    it."""
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
def verbs(enter: Enter) -> list[Verb]:
    """Give these verbs."""
    return verbs_of(enter("owner"))


@pytest.fixture
def canary(enter: Enter) -> Iterator[None]:
    """Watch a table, a memory, the catalogue and the roles, which nothing may change."""
    owner = enter("owner")
    owner.execute("create table perdure.canary (bird text)")
    owner.execute("insert into canary values ('alive')")
    owner.execute("select entity_create('bystander', 'bird', '{\"alive\": true}')")
    before = state(owner)
    yield
    assert state(owner) == before
    owner.execute("drop table perdure.canary")
    owner.execute("select terminate(j.id) from jobs as j where j.status = 'running'")


def state(owner: Connection) -> list[Any]:
    """Look at all that nobody was asked to change."""
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


def stage(owner: Connection, *, works: bool = True) -> dict[str, Any]:
    """Make what a verb needs to get far: a job, and for work a hook that is held, and an item."""
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


def usual(verb: Verb, made: dict[str, Any]) -> dict[str, Any]:
    """Give each argument that is needed what it usually says."""
    said = made | {
        "path": {"entity_increment": "n", "entity_toggle": "on"}.get(verb.name, "list"),
        "value": "1", "items": "[1]", "patch": "{}", "entity": "doc", "conditions": "{}",
        "commands": "[]", "starts": "[]", "turns": "[]", "tasks": "[]", "schema": "{}",
        "name": "name", "key": None, "queue": "q", "queues": ["q"], "worker": "me", "kind": "hook",
        "workflow": "w", "topic": "q", "listener": "me", "stream": "s", "by": "me", "version": 1,
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
    """Give arguments of a verb that can hold text, each with some of the hostile texts."""
    for name, kind in verb.arguments.items():
        for text in chance.sample(TEXTS, min(len(TEXTS), amount(2))):
            for shape in SHAPES.get(kind, []):
                yield name, shape(text)


def call(connection: Connection, verb: Verb, given: dict[str, Any]) -> str:
    """Call a verb; tell how it ended."""
    named = ", ".join(f"{name} => %s::{verb.arguments[name]}" for name in given)
    query = f"{'call' if verb.is_procedure else 'select * from'} perdure.{verb.name}({named})"
    try:
        connection.execute(query.encode(), list(given.values()))
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    return "done"


def test_text_in_an_argument_is_never_sql(
    house: House, enter: Enter, canary: None, verbs: list[Verb]
) -> None:
    chance, ends = random.Random(seed()), Counter[str]()
    sessions = {role: enter(role) for role in ("owner", *KINDS)}
    for session in sessions.values():
        session.execute("set statement_timeout = '10 s'")  # nothing hangs for what it is given
    wrong: list[tuple[str, str, str, Any]] = []
    for verb in verbs:
        made, before = {}, None
        for name, hostile in attempts(verb, chance):
            if name != before:
                made, before = stage(sessions["owner"], works=verb.works), name
            end = call(sessions[verb.role], verb, usual(verb, made) | {name: hostile})
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
"""Where a time is written in JSON."""
CLOCKS = ("move_clock", "skip_time")


def known(owner: Connection, kind: str) -> list[str]:
    """Give the odd times of a type that this server knows: PostgreSQL 16 has no infinite length."""
    out = []
    for written in TIMES[kind]:
        try:
            owner.execute(f"select %s::{kind}".encode(), [written])
        except psycopg.DataError:
            continue
        out.append(written)
    return out


def odd_times(owner: Connection) -> Iterator[tuple[Verb, str, str, Any]]:
    """Give each place of a verb that takes a time: verb, argument, a name of the place, its value
    with an odd time."""
    times = {kind: known(owner, kind) for kind in TIMES}
    for verb in verbs_of(owner, TIMES):
        for name, kind in verb.arguments.items():
            yield from ((verb, name, odd, odd) for odd in times.get(kind, ()))
    verbs = {verb.name: verb for verb in verbs_of(owner)}
    for (verb_name, name, place), template in WRITTEN.items():
        for odd in MOMENTS if '"4713-' in json.dumps(template) else times["interval"]:
            yield verbs[verb_name], name, f"{place} {odd}", filled(template, odd)


def filled(template: Any, odd: str) -> Any:
    """Put a time in its place."""
    if isinstance(template, tuple):
        return odd
    if isinstance(template, dict):
        return {name: filled(value, odd) for name, value in template.items()}
    return [filled(value, odd) for value in template] if isinstance(template, list) else template


def test_an_odd_time_makes_sense_or_is_refused_in_own_words(
    house: House, enter: Enter, canary: None
) -> None:
    """And what was begun with one can be worked on."""
    sessions = {role: enter(role) for role in ("owner", *KINDS)}
    for session in sessions.values():
        session.execute("set statement_timeout = '10 s'")  # nobody waits for ever
    owner, wrong, ends = sessions["owner"], [], Counter[str]()
    for verb, name, place, value in odd_times(owner):
        made = stage(owner, works=verb.works)
        if verb.name == "retry":
            owner.execute("select terminate(%s)", [made["job"]])
        if verb.name == "advance" and name == "turns":
            held = {"job": made["job"], "task": made["task"], "token": made["token"]}
            said = json.dumps([held | {"state": "keep", "position": 0} | value[0]])
        else:
            said = value if isinstance(value, str) else json.dumps(value)
        with sessions[verb.role].transaction(force_rollback=verb.name in CLOCKS):
            end = call(sessions[verb.role], verb, usual(verb, made) | {name: said})
        ends[end] += 1
        if end != "done" and not re.fullmatch("PD...", end):
            wrong.append((end, verb.name, name, place))
    print(ends)
    assert wrong == []
    assert ends["done"] > sum(ends.values()) / 10
    query = "select hook(%s, 'name', '[1]', '$sql')"
    owner.execute(query, [stage(owner, works=False)["job"]])
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
    """Give what is put into a turn that is else as it should be."""
    for member in MEMBERS:
        for odd in chance.sample(ODD, min(len(ODD), amount(4))):
            yield {member: odd}
            if member in INNER:
                inner = chance.choice(INNER[member])
                yield {member: [WHOLE[member] | {inner: odd}]}
                yield {member: [odd]}


def test_an_odd_turn_spoils_no_other_turn_of_its_batch(enter: Enter) -> None:
    """It is refused by itself or means something, and the one beside it is applied (T17); where a
    member cannot be read it is said which, and of which turn, and nothing of the call is applied.
    """
    owner, worker, chance = enter("owner"), enter("worker"), random.Random(seed())
    ends, spoilt = Counter[str](), []
    good, position = stage(owner), 0
    look = "select t::text from tasks as t where t.job_id = any(%s) order by 1"
    for odd in odd_turns(chance):
        made = stage(owner)
        both = [
            (good, {"position": position, "facts": [{"kind": "note", "key": "k"}]}),
            (made, {"position": 0} | odd),
        ]
        turns = [
            {name: each[name] for name in ("job", "task", "token")} | {"state": "keep"} | more
            for each, more in both
        ]
        jobs = [good["job"], made["job"]]
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
