"""Facts in the model: what turns report, and their effects on the memory and on inboxes."""

from __future__ import annotations

from typing import Any

from tests.model.jobs import take_message
from tests.model.judging import Fact, Turn
from tests.model.state import Row, State, failure
from tests.races.memory_model import MISSING, Refused, found


def run_facts(s: State, facts: list[Fact], turns: list[Turn], known: set[str]) -> None:
    """Carry out the effects of facts, then write them."""
    for place, fact in enumerate(facts):
        if fact.row["op"] == "get":
            read(s, fact, facts[:place])
        elif fact.row["op"] is not None:
            command(s, fact)
    for fact in facts:
        if fact.message is not None:
            for number, message in list(s.inbox.items()):
                if (message["job_id"], message["id"]) == (fact.turn.job, fact.message):
                    fact.row |= {"ok": message["ok"], "value": message["payload"]}
                    fact.row |= said_by_itself(fact.row, message)
                    take_message(s, number)
    send_signals(s, [fact for fact in facts if fact.said.get("signal")], known)
    for fact in facts:
        s.tell(fact.turn.job, fact.turn.task, fact.seq, **fact.row)


def said_by_itself(row: Row, message: Row) -> Row:
    """Return what a fact that takes a message need not say."""
    key = message["key"]
    kind = "signal" if key is None else "cancel" if key == "$cancel" else "answer"
    return {
        "kind": kind if row["kind"] == "note" else row["kind"],
        "key": row["key"] if key is None else key,
        "name": message["name"] if key is None and row["name"] is None else row["name"],
        "is_answer": kind == "answer",
    }


def command(s: State, fact: Fact) -> None:
    """Carry out a command; a refused command is an answer."""
    job = fact.turn.job
    expects = fact.said.get("expected_version")
    try:
        s.check_version(job, expects)
        answer = s.check_and_apply(job, fact.row["op"], fact.row["path"], fact.row["argument"])
        fact.row |= {"value": answer, "version": s.jobs[job]["version"]}
    except Refused as refused:
        fact.row |= {"ok": False, "value": failure(refused.code)}


def read(s: State, fact: Fact, before: list[Fact]) -> None:
    """Read the memory; the journal keeps only the version."""
    job, path = s.jobs[fact.turn.job], fact.row["path"]
    here = found(job["context"], path)
    if here is MISSING:
        here = log_items(s, fact.turn.job, path)
        for other in before:
            is_its = (other.turn.job, other.row["op"], other.row["path"]) == (
                fact.turn.job,
                "log",
                path,
            )
            here += other.row["argument"] if is_its and other.row["ok"] else []
        here = here or None
    fact.row |= {"value": here, "argument": {"version": job["version"]}}


def log_items(s: State, job: str, path: list[str]) -> list[Any]:
    """Read a log as a list."""
    return [
        item
        for _, argument in sorted(
            (row["version"], row["argument"])
            for (owner, _, _), row in s.journal.items()
            if owner == job and row["op"] == "log" and row["path"] == path and row["version"]
        )
        for item in argument
    ]


def send_signals(s: State, facts: list[Fact], known: set[str]) -> None:
    """Send the signals of turns: a hook's own signal answers its asker, others go to their
    targets."""
    for fact in facts:
        job = s.jobs.get(fact.target)
        if job is not None and not (fact.target in known or job["parent"] == fact.turn.job):
            job = None
        code = "PD401" if job is None else None
        if job is not None and job["status"] != "running" and not s.user_tasks(fact.target):
            code = "PD403"
        fact.row |= {"ok": code is None, "value": None if code is None else failure(code)}
    own = [fact for fact in facts if is_own(fact)]
    for fact in sorted(own, key=lambda fact: fact.turn.number):
        job, task, key = fact.turn.asker
        if (job, task) in s.tasks:
            sender = f"{fact.turn.job} {fact.turn.task}"
            name, payload = fact.said["signal"], fact.said.get("value")
            answer = {"payload": payload, "fingerprint": fact.turn.fingerprint}
            s.leave(job, task=task, key=key, name=name, sender=sender, **answer)
    for fact in sorted(facts, key=lambda fact: (fact.turn.number, fact.seq)):
        if fact.row["ok"] and not is_own(fact):
            sender = f"{fact.turn.job} {fact.turn.task}"
            name, payload = fact.said["signal"], fact.said.get("value")
            s.leave(fact.target, name=name, payload=payload, sender=sender)


def is_own(fact: Fact) -> bool:
    """Return whether a signal is a hook's early answer to its asker."""
    return fact.turn.signal == fact.said["signal"] and fact.target == fact.turn.job
