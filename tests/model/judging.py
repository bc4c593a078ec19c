"""The judgment of turns in the model, by their contents and by the rows of their tasks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tests.model.state import (
    CONDITIONS,
    ENDS,
    Row,
    State,
    check_call,
    check_name,
    check_own_name,
    check_pin,
    check_value,
    failure,
    moment,
)
from tests.races.memory_model import Refused

STATES = ("keep", "park", *ENDS, "retry", "stuck", "release", "continue")


@dataclass
class Turn:
    """A turn with the row of the task that it holds, and its verdict."""

    number: int
    job: str
    task: str
    said: Row
    row: Row | None = None
    verdict: str = "apply"
    failure: Row | None = None
    told_at: int = 0
    is_from_outside: bool = False

    @property
    def state(self) -> str:
        return self.said["state"]

    @property
    def kind(self) -> str:
        return self.row["kind"]

    @property
    def asker(self) -> tuple[str, str, str] | None:
        return self.row["asker"]

    @property
    def signal(self) -> str | None:
        return self.row["signal"] if self.asker else None

    @property
    def fingerprint(self) -> str | None:
        return self.row["fingerprint"]

    @property
    def accepts_changes(self) -> bool:
        return self.row["accept_changes"]

    @property
    def position(self) -> int:
        return self.said.get("position") or 0

    def get(self, name: str) -> Any:
        return self.said.get(name)

    def list(self, name: str) -> Any:
        return self.said.get(name) or []

    @property
    def awaits(self) -> list[str] | None:
        given = self.said.get("awaits")
        return [] if given is None and self.state == "park" else given


@dataclass
class Fact:
    """A new row of the journal, and its effects."""

    turn: Turn
    seq: int
    said: Row
    row: Row
    is_untimely: bool

    @property
    def message(self) -> int | None:
        return self.said.get("message")

    @property
    def target(self) -> str:
        return self.said.get("target") or self.turn.job


def takes_own_answers(s: State, said: Row) -> bool:
    """Return whether a turn takes only answers to requests of its task, and what is gone."""
    named = {fact.get("message") for fact in said.get("facts") or []}
    return all(
        (message["job_id"], message["task"]) == (said["job"], said["task"])
        and message["key"] != "$cancel"
        for message in s.inbox.values()
        if message["id"] in named
    )


def touched_jobs(s: State, turns: list[Row]) -> set[str]:
    """Return the jobs that turns touch."""
    names: set[str] = set()
    for said in turns:
        says_more = any(fact.get("op") or fact.get("signal") for fact in said.get("facts") or [])
        asks = "requests" in said or "cancels" in said
        if said["state"] != "keep" or asks or says_more or not takes_own_answers(s, said):
            names.add(said["job"])
        names |= set(said.get("touches") or ()) | {
            fact["target"] for fact in said.get("facts") or [] if "target" in fact
        }
        if "cancels" in said:
            named = {(said["job"], f"{said['task']}/{key}") for key in said["cancels"]}
            its = {job: (row["parent"], row["asked_as"]) for job, row in s.jobs.items()}
            names |= {job for job, request in its.items() if request in named}
    return names


def check_request(request: Row) -> None:
    """Refuse a wrong request."""
    check_name(request.get("key"))
    kind = request.get("kind", "hook")
    if kind not in ("hook", "activity", "job", "until", "item"):
        raise Refused("PD107")
    if kind == "until":
        if request.get("condition") not in CONDITIONS:
            raise Refused("PD108")
    else:
        args = request.get("args")
        name, queue = request.get("name"), request.get("queue", "default")
        it = name, [] if args is None else args, queue, request.get("priority", 5)
        check_call(*it, is_run=kind == "job")
    check_pin(request.get("pinned_version"), request.get("queue"))
    check_own_name(request.get("id", "none"))
    check_own_name(request.get("entity", "none"))
    check_name(request.get("assignee", "none"))
    check_value(request.get("payload"))
    if request.get("on_parent_end") not in (None, "continue", "cancel", "terminate"):
        raise Refused("PD107")
    if request.get("due_at") == "infinity" or (kind == "job" and "if_exists" in request):
        raise Refused("PD107")


def check_turn(turn: Turn) -> None:
    """Refuse a wrong turn."""
    if turn.state not in STATES:
        raise Refused("PD107")
    check_value(turn.get("value"))
    for fact in turn.list("facts"):
        check_value(fact.get("value"))
    for request in turn.list("requests"):
        check_request(request)
    for one, other in combinations(turn.list("requests"), 2):
        if one["key"] == other["key"] and one != other:
            raise Refused("PD107")
    if turn.state in ("retry", "release", "continue") and turn.get("until") == "infinity":
        raise Refused("PD107")
    if turn.state == "continue":
        if turn.kind != "coordinator":
            raise Refused("PD107")
        if not isinstance(turn.get("value"), list | dict | None):
            raise Refused("PD103")


def makes_a_wait(s: State, turn: Turn, request: Row) -> bool:
    """Return whether a request makes something that the task waits for."""
    kind, key = request.get("kind"), request.get("key")
    is_withdrawn = kind in ("until", "item") and key in turn.list("cancels")
    is_answered = key is not None and s.is_answered(turn.job, turn.task, key)
    has_child = kind == "job" and any(
        (job["parent"], job["asked_as"], job["status"])
        == (turn.job, f"{turn.task}/{key}", "running")
        for job in s.jobs.values()
    )
    return not (request.get("detached") or is_withdrawn or is_answered or has_child)


def check_wait(s: State, turn: Turn) -> None:
    """Refuse a park that nothing could end."""
    if turn.state != "park" or turn.get("until") is not None or turn.awaits:
        return
    name = (turn.job, turn.task)
    taken = {fact.get("message") for fact in turn.list("facts")}
    open_items = [p for p in s.items.values() if p["resolved_at"] is None]
    asked = [place for place in s.conditions if place[:2] == name]
    asked += [(*name, p["key"]) for p in open_items if (p["job_id"], p["task"]) == name]
    if not (
        any(makes_a_wait(s, turn, request) for request in turn.list("requests"))
        or any(
            row["asker"] and row["asker"][:2] == name and not s.is_answered(*row["asker"])
            for row in s.tasks.values()
        )
        or any(message["id"] not in taken for message in s.open_messages(*name, ()))
        or any(key not in turn.list("cancels") for *_, key in asked)
    ):
        raise Refused("PD107")


def check_open(s: State, turn: Turn) -> None:
    """Refuse code that runs again and does not wait for its earlier requests."""
    said = turn.get("open")
    if said is None:
        return
    name = (turn.job, turn.task)
    taken = {fact.get("message") for fact in turn.list("facts")}
    asked = [(row["asker"], row) for row in s.tasks.values() if row["asker"]]
    asked += s.conditions.items()
    for item in s.items.values():
        if item["resolved_at"] is None:
            asked.append(((item["job_id"], item["task"], item["key"]), item))
    known = [(place[2], row) for place, row in asked if place[:2] == name]
    known = [(key, row) for key, row in known if not s.is_answered(*name, key)]
    known += [
        (message["key"], message)
        for message in s.open_messages(*name, ())
        if message["key"] != "$cancel" and message["id"] not in taken
    ]
    for key, row in known:
        is_other = None not in (said.get(key), row["fingerprint"]) and not turn.accepts_changes
        if key not in turn.list("cancels") and (
            key not in said or (is_other and said[key] != row["fingerprint"])
        ):
            raise Refused("PD201")


def messages_are_open(s: State, turn: Turn) -> bool:
    """Return whether all messages that a turn consumes are still open."""
    named = [fact["message"] for fact in turn.list("facts") if fact.get("message") is not None]
    known = [
        message["id"]
        for message in s.inbox.values()
        if message["job_id"] == turn.job
        and message["id"] in named
        and message["consumed_at"] is None
    ]
    return len(named) == len(known)


def check_repetition(s: State, turn: Turn) -> None:
    """Refuse a turn at an earlier position that is not one of those that were applied."""
    places = enumerate(turn.list("facts"), turn.position + 1)
    recorded = [(said, s.journal.get((turn.job, turn.task, place))) for place, said in places]
    named = {said.get("message") for said, _ in recorded} - {None}
    is_new = any(m["id"] in named and m["consumed_at"] is None for m in s.inbox.values())
    if turn.state not in ("keep", "park") or is_new or any(is_other(*it) for it in recorded):
        raise Refused("PD107")


def is_other(said: Row, row: Row | None) -> bool:
    """Return whether a fact is not the one that is recorded in its place."""
    if row is None or row["op"] != said.get("op"):
        return True
    if said.get("message") is not None and (row["is_answer"] or row["key"] == "$cancel"):
        return False
    names_message_alone = said.get("key") is None and said.get("message") is not None
    return not names_message_alone and row["key"] != said.get("key")


def judged(s: State, turn: Turn, touched: set[str], is_second: bool) -> str:
    """Judge a turn by the token and the position of its task; a refusal is raised."""
    row, token = turn.row, turn.get("token")
    if is_second:
        return "busy"
    if row is None:
        return "gone"
    if row["token"] is None and row["last_token"] == token:
        return "parked"
    if row["token"] != token or row["position"] < turn.position:
        return "fenced"
    if row["position"] > turn.position:
        check_repetition(s, turn)
        return "applied"
    check_turn(turn)
    check_wait(s, turn)
    check_open(s, turn)
    if turn.state in ENDS and turn.asker and turn.asker[0] not in touched:
        return "untouched"
    if not messages_are_open(s, turn):
        return "stale"
    return "apply"


def hold(s: State, turns: list[Row]) -> list[Turn]:
    """Lock the tasks of turns and judge each turn."""
    touched = touched_jobs(s, turns)
    held: list[Turn] = []
    for number, said in enumerate(turns):
        row = s.tasks.get((said["job"], said["task"]))
        turn = Turn(number, said["job"], said["task"], said, row)
        is_second = any((one.job, one.task) == (turn.job, turn.task) for one in held)
        if row is not None:
            told_at = row["told_at"] if row["told_at"] is not None else row["started_at"]
            turn.told_at = told_at or 0
        try:
            turn.verdict = judged(s, turn, touched, is_second)
        except Refused as refused:
            turn.verdict, turn.failure = "refused", failure(refused.code)
        held.append(turn)
    return held


def read_facts(s: State, turns: list[Turn]) -> list[Fact]:
    """Read the facts of turns that apply, job by job."""
    facts: list[Fact] = []
    for turn in sorted(turns, key=lambda turn: (turn.job, turn.number)):
        latest = turn.told_at
        for place, said in enumerate(turn.list("facts") if turn.verdict == "apply" else (), 1):
            facts.append(read_fact(s, turn, place, said, latest))
            latest = max(latest, moment(said.get("at")) or 0)
    return facts


def read_fact(s: State, turn: Turn, place: int, said: Row, latest: int) -> Fact:
    """Read a fact of a turn."""
    op, signal, at = said.get("op"), said.get("signal"), moment(said.get("at"))
    now = max(s.now, turn.told_at)
    kind = (
        "read"
        if op == "get"
        else "command"
        if op
        else "send"
        if signal
        else said.get("kind", "note")
    )
    row = {
        "kind": kind,
        "key": said.get("key"),
        "name": said.get("name"),
        "ok": said.get("ok", True),
        "value": None if op or signal else said.get("value"),
        "op": op,
        "path": said.get("path", []) if op else None,
        "argument": said.get("value") if op or signal else None,
        "at": now if at is None else at,
    }
    is_untimely = at is not None and (at > now or at < latest)
    return Fact(turn, turn.position + place, said, row, is_untimely)


def judge_facts(facts: list[Fact]) -> bool:
    """Refuse turns with untimely facts, or with messages that another turn of the batch
    consumes."""
    first: dict[Any, int] = {}
    for fact in facts:
        if fact.message is not None:
            place = (fact.turn.job, fact.message)
            first[place] = min(first.get(place, fact.turn.number), fact.turn.number)
    late: dict[int, tuple[Turn, bool]] = {}
    for fact in facts:
        taken = fact.message is not None and fact.turn.number > first[fact.turn.job, fact.message]
        if fact.is_untimely or taken:
            was = late.get(fact.turn.number, (fact.turn, False))[1]
            late[fact.turn.number] = (fact.turn, was or fact.is_untimely)
    for turn, is_untimely in late.values():
        turn.verdict = "replay" if is_untimely else "stale"
    return bool(late)
