"""Every command runs beside every other on one memory: the second works on what the first left.

A runs in an open transaction; B comes meanwhile and waits; then A commits or rolls back. The
answers to both and the rows that are left must equal those of A and then B, run in sequence on a
memory of their own; after a rollback, those of B alone. Each command also meets a turn of the
running coordinator, a plain UPDATE, a cancel and a terminate. All work on one document, and most of
them change what the others work on, or make it impossible. [P2] [P3]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, product
from typing import Any

import pytest

from tests.races.sessions import Session, command
from tests.races.test_pairs import (
    Cast,
    Mutator,
    Outcome,
    has_skipped,
    plain_update,
    result_of,
    rows_left,
    send_turn,
    verb,
)

DOCUMENT = {"n": 1, "on": True, "list": [1, 2], "deep": {"a": {"b": 1}}}
_numbers = count(1)

COMMANDS: dict[str, Mutator] = {
    "set": Mutator(verb("entity_set", value={"n": 100, "list": ["set"], "new": {"key": 0}})),
    "set at a path": Mutator(verb("entity_set", path="deep.a", value="text")),
    "merge": Mutator(
        verb("entity_merge", patch={"n": 10, "list": [0], "deep": {"a": {"c": 1}, "d": {}}})
    ),
    "append": Mutator(verb("entity_append", path="list", items=["appended"])),
    "prepend": Mutator(verb("entity_prepend", path="list", items=["prepended"])),
    "remove": Mutator(verb("entity_remove", path="list", index=-1)),
    "increment": Mutator(verb("entity_increment", path="n", by=5)),
    "toggle": Mutator(verb("entity_toggle", path="on")),
    "set_if_not_exists": Mutator(verb("entity_set_if_not_exists", path="new.key", value="key")),
    "delete": Mutator(verb("entity_delete", path="list")),
    "delete deep": Mutator(verb("entity_delete", path="deep.a.b")),
    "compare and set": Mutator(verb("entity_set", path="n", value=7, expected_version=1)),
    "with a key": Mutator(verb("entity_increment", path="n", by=3, key="k")),
    "another with this key": Mutator(verb("entity_append", path="list", items=[], key="k")),
}

OTHERS: dict[str, Mutator] = {
    "a turn": Mutator(
        send_turn(
            "main",
            "keep",
            command("increment", "n", 2),
            command("append", "list", ["turn"]),
            command("get"),
            command("set_if_not_exists", "new.key", "turn"),
        )
    ),
    "a plain update": Mutator(plain_update),
    "a cancel": Mutator(verb("cancel", reason="enough")),
    "a terminate": Mutator(verb("terminate", reason="now")),
}

MUTATORS = COMMANDS | OTHERS


def cast(session: Session) -> Cast:
    """Start a job whose coordinator is held, with the document that all calls change."""
    job = f"pair {next(_numbers):06}"
    main = session.held(job, context=DOCUMENT)
    return Cast(job, main, main, main, main)


_sequences: dict[tuple[str, ...], Outcome] = {}


def one_after_the_other(session: Session, *names: str) -> Outcome:
    """Run one or two calls in sequence on a job of their own; each sequence runs only once."""
    if names not in _sequences:
        actors = cast(session)
        answers: list[Any] = [result_of(MUTATORS[name], session, actors) for name in names]
        first = answers[0] if len(names) > 1 else None
        _sequences[names] = Outcome(first, answers[-1], rows_left(session, actors))
    return _sequences[names]


def pairs() -> Iterator[tuple[str, str, str]]:
    """Make the pairs, all with a commit, and every seventh with a rollback too."""
    ordered = [
        (first, second)
        for first, second in product(MUTATORS, MUTATORS)
        if first in COMMANDS or second in COMMANDS
    ]
    for number, (first, second) in enumerate(ordered):
        yield first, second, "commit"
        if number % 7 == 0:
            yield first, second, "rollback"


@pytest.mark.parametrize(("first", "second", "end"), list(pairs()))
def test_call_that_waits_for_command_works_on_its_result(
    a: Session, b: Session, first: str, second: str, end: str
) -> None:
    """[P2] [P3] (C20) (C25) (C26) (C27) (C28) (C29) (C30) (C31) (C32) (C33) (C34) After a rollback
    of the first call, the second works on the memory as it was.
    """
    names = (first, second) if end == "commit" else (second,)
    expected = one_after_the_other(a, *names)
    actors = cast(a)

    a.begin()
    one = result_of(MUTATORS[first], a, actors)
    coming = b.later(result_of, MUTATORS[second], b, actors)
    waited = coming.waits()
    a.end(end)
    two = coming.get()
    if has_skipped(two):
        two = result_of(MUTATORS[second], b, actors)

    assert Outcome(one if end == "commit" else None, two, rows_left(a, actors)) == expected
    assert waited


def test_most_pairs_leave_other_rows_in_other_order(a: Session) -> None:
    """A pair whose two orders look alike would prove little."""
    visible = [
        one_after_the_other(a, first, second).left != one_after_the_other(a, second, first).left
        for first, second in product(COMMANDS, COMMANDS)
        if first != second
    ]
    assert sum(visible) > 0.95 * len(visible)
