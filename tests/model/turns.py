"""Turns in the model: the reports of workers on their tasks, and their effects.

A batch is judged turn by turn, then applied in the order of `sql/README.md`: children, then facts,
then requests, then cancels, then ends, then the state of each task.
"""

from __future__ import annotations

from typing import Any

from tests.model.ends import continue_runs, end_tasks
from tests.model.facts import run_facts
from tests.model.judging import Fact, Turn, hold, judge_facts, read_facts, touched_jobs
from tests.model.requests import (
    ask_people,
    await_conditions,
    cancel_new_requests,
    request_children,
    request_tasks,
    withdraw,
)
from tests.model.state import ENDS, NEVER, SECOND, Row, State, failure, moment, stamp


def keep_or_park(s: State, turn: Turn, has_messages: bool) -> None:
    """Write the new state of a task that lives on."""
    row, state, facts = turn.row, turn.state, turn.get("facts")
    lets_go = state != "keep" and not (state == "park" and has_messages)
    until = moment(turn.get("until"))
    if until is None and lacks_code(turn):
        waited = s.now - max(row["told_at"] or 0, row["started_at"])
        until = s.now + max(SECOND // 4, min(waited, 60 * SECOND))  # no worker has functions here
    row["position"] += len(facts or [])
    row["asked"] = max(row["asked"], turn.get("asked") or 0)
    if facts is not None:
        last = moment(facts[-1].get("at")) if facts else None
        row["told_at"] = max(row["told_at"] or 0, s.now if last is None else last)
    row["until"] = until
    if facts or lets_go:
        row["deliveries"] = 0
    row["attempt"] += state == "retry"
    if state in ("retry", "release") and turn.get("value") is not None:
        row["failure"] = turn.get("value")
    row["stuck_reason"] = None
    if state == "stuck":
        row["stuck_reason"] = {} if turn.get("value") is None else turn.get("value")
    if not lets_go:
        return
    row |= {"last_token": row["token"], "last_worker": row["worker"], "token": None, "worker": None}
    row["awaits"] = turn.awaits if state == "park" else None
    if state in ("stuck", "park"):
        row["due_at"] = NEVER if until is None or state == "stuck" else until
    else:
        row["due_at"] = s.now if until is None else until


def apply_turns(
    s: State, turns: list[Turn], facts: list[Fact], known: set[str]
) -> dict[int, list[Row]]:
    """Apply the turns that hold their tasks; return the messages that have arrived for each."""
    applied = [turn for turn in turns if turn.verdict == "apply"]
    going_on = [turn for turn in turns if turn.verdict in ("apply", "applied")]
    request_children(s, applied)
    run_facts(s, facts, applied, known)
    request_tasks(s, applied)
    cancel_new_requests(s, applied)
    await_conditions(s, applied)
    ask_people(s, applied)
    withdraw(s, applied)
    continue_for_signals(s, applied)
    end_tasks(s, [turn for turn in applied if turn.state in ENDS])
    continue_runs(s, [turn for turn in applied if turn.state == "continue"])
    arrivals: dict[int, list[Row]] = {}
    if any(turn.awaits is not None for turn in going_on):
        for turn in going_on:
            messages = (
                s.open_messages(turn.job, turn.task, turn.awaits)
                if turn.state in ("keep", "park")
                else []
            )
            arrivals |= {turn.number: messages} if messages else {}
    for turn in applied:
        if turn.state in ("keep", "park", "retry", "stuck", "release"):
            keep_or_park(s, turn, turn.number in arrivals)
    s.wake(*receiving_jobs(applied, facts))
    for turn in applied:
        if is_able_to_hear(turn) and s.cancel_is_open(turn.job, turn.task):
            turn.row["due_at"] = min(turn.row["due_at"], s.now)
            turn.row["awaits"] = turn.row["awaits"] or []
    return arrivals


def continue_for_signals(s: State, turns: list[Turn]) -> None:
    """Let jobs run again that would end, and for which a signal has come."""
    for turn in turns:
        is_end = turn.state == "done" and turn.kind == "coordinator"
        signals = s.open_messages(turn.job, turn.task, turn.awaits)
        if is_end and any(message["task"] is None for message in signals):
            facts = [row for place, row in s.journal.items() if place[:2] == (turn.job, turn.task)]
            took_any = any(row["kind"] == "signal" for row in facts)
            until = None if took_any else stamp(s.now + SECOND)
            turn.said = turn.said | {"state": "continue", "value": None, "until": until}


def is_able_to_hear(turn: Turn) -> bool:
    """Return whether a task is given back to a holder that could cancel it."""
    return turn.state in ("retry", "release") and not lacks_code(turn)


def lacks_code(turn: Turn) -> bool:
    """Return whether a task is given back because its worker has no code for it."""
    return turn.state == "release" and (turn.get("value") or {}).get("code") == "PD406"


def receiving_jobs(turns: list[Turn], facts: list[Fact]) -> set[str]:
    """Return the jobs whose inboxes turns may have written."""
    jobs = {fact.target for fact in facts if fact.said.get("signal")}
    jobs |= {turn.job for turn in turns if turn.get("requests") is not None}
    return jobs | {
        turn.asker[0] for turn in turns if turn.asker and (turn.state in ENDS or turn.signal)
    }


def answer(s: State, turn: Turn, facts: list[Fact], arrivals: dict[int, list[Row]]) -> Row:
    """Return the answer to a turn."""
    messages = arrivals.get(turn.number, [])
    names = {"applied": "keep", "untouched": "refused"}
    state = names.get(turn.verdict, turn.verdict)
    answers: list[Any] = []
    if turn.verdict == "apply":
        kept = "keep" if messages else "parked"
        state = {"park": kept, "release": "released"}.get(turn.state, turn.state)
        answers = [
            [fact.seq, fact.row["ok"], fact.row["value"]]
            for fact in facts
            if fact.turn is turn and (fact.row["op"] or fact.said.get("signal"))
        ]
    elif turn.verdict == "applied":
        answers = [
            [seq, row["ok"], row["value"]]
            for (job, task, seq), row in sorted(s.journal.items())
            if (job, task) == (turn.job, turn.task)
            and seq > turn.position
            and (row["op"] is not None or row["kind"] == "send")
        ]
    error = failure("PD107") if turn.verdict == "untouched" else turn.failure
    return {
        "state": state,
        "answers": answers,
        "messages": [told_message(message) for message in messages],
        "again": turn.verdict in ("applied", "parked"),
        "error": error if state == "refused" else None,
    }


def told_message(message: Row) -> Row:
    """Return a message as a worker gets it."""
    names = ("id", "key", "name", "fingerprint", "ok", "payload", "sent_at")
    return {name: message[name] for name in names}


def advance_turns(s: State, turns: list[Row]) -> list[Row]:
    """Judge and apply a batch of turns; return the answers."""
    known = touched_jobs(s, turns) & s.jobs.keys()
    held = hold(s, turns)
    facts = read_facts(s, held)
    if judge_facts(facts):
        facts = read_facts(s, held)
    arrivals = apply_turns(s, held, facts, known)
    return [answer(s, turn, facts, arrivals) for turn in held]
