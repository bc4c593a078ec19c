"""Many writers change one document: no update is lost, and versions give their order. [P2] [P3]"""

from __future__ import annotations

import random
from functools import partial

import psycopg
import pytest

from tests.races.sessions import Session, Stage, command, together

WRITERS = 8
EACH = 50  # commands of each writer


def versions(session: Session, job: str) -> list[int]:
    """Read the versions of a job's history, in order."""
    query = "select version from history where job_id = %s order by version"
    return [row[0] for row in session.run(query, job)]


def test_four_hundred_increments_from_eight_sessions_are_all_counted(stage: Stage) -> None:
    """[P3] (C31) (C42) Each number from 1 to 400 is the answer to one of them."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="counter")

    def write(session: Session) -> list[int]:
        return [session.call("entity_increment", id="e", path="a.b") for _ in range(EACH)]

    answers = together(*(partial(write, session) for session in sessions))

    assert sorted(number for each in answers for number in each) == list(range(1, 401))
    assert all(each == sorted(each) for each in answers)
    assert sessions[0].memory("e") == ({"a": {"b": 400}}, 400)
    assert versions(sessions[0], "e") == list(range(1, 401))


def test_concurrent_merges_of_adjacent_subtrees_keep_all_changes(stage: Stage) -> None:
    """[P3] (C27) (C62) Clients, turns and plain UPDATEs write; each gets a version of its own."""
    holder, plain, *outside = stage.sessions(6)
    task = holder.held("j", context={"plain": 0})

    def merge(session: Session) -> list[int]:
        patches = ({"deep": {session.name: {str(n): n}}} for n in range(EACH))
        return [session.call("entity_merge", id="j", patch=patch) for patch in patches]

    def turns() -> list[int]:
        answers = []
        for n in range(EACH):
            turn = task.told(n).keep(command("merge", "deep.turns", {str(n): n}))
            answers += holder.advance(turn, waiting=True).values
        return answers

    def update() -> list[int]:
        query = """
            update jobs
               set context = jsonb_set(context, '{plain}', to_jsonb((context ->> 'plain')::int + 1))
             where id = 'j' returning version"""
        return [plain.one(query) for _ in range(EACH)]

    answers = together(turns, update, *(partial(merge, session) for session in outside))

    total = 6 * EACH
    assert sorted(version for each in answers for version in each) == list(range(2, total + 2))
    context, version = plain.memory("j")
    assert version == total + 1
    assert context.pop("plain") == EACH
    written = {str(n): n for n in range(EACH)}
    names = {"turns", *(session.name for session in outside)}
    assert context == {"deep": dict.fromkeys(names, written)}
    assert versions(plain, "j") == list(range(1, total + 2))


def test_concurrent_appends_and_prepends_keep_order_of_each_writer(
    stage: Stage,
) -> None:
    """[P3] (C28) (C29) (C66) Each item is in the list once; each length is one answer."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="list", context={"list": ["middle"]})

    def write(place: int, session: Session) -> list[int]:
        function = "entity_append" if place % 2 else "entity_prepend"
        return [
            session.call(function, id="e", path="list", items=[f"{place}/{n}"]) for n in range(EACH)
        ]

    lengths = together(*(partial(write, place, session) for place, session in enumerate(sessions)))

    assert sorted(length for each in lengths for length in each) == list(range(2, 402))
    items = sessions[0].memory("e")[0]["list"]
    middle = items.index("middle")
    for place in range(WRITERS):
        part = items[middle + 1 :] if place % 2 else items[:middle][::-1]
        own = [item for item in part if item.startswith(f"{place}/")]
        assert own == [f"{place}/{n}" for n in range(EACH)]


def test_compare_and_set_lets_one_of_eight_win_each_round(stage: Stage) -> None:
    """[P3] (E11) expected_version is compared under the lock; the others get PD105."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="race")

    def bid(session: Session, version: int) -> str | None:
        try:
            value = session.name
            session.call("entity_set", id="e", path="by", value=value, expected_version=version)
        except psycopg.Error as error:
            return error.sqlstate
        return session.name

    for version in range(10):
        bids = together(*(partial(bid, session, version) for session in sessions))
        (winner,) = set(bids) - {"PD105"}
        assert bids.count("PD105") == WRITERS - 1
        assert sessions[0].memory("e") == ({"by": winner}, version + 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_command_that_waited_is_applied_to_new_memory(a: Session, b: Session, end: str) -> None:
    """[P3] (C20) The memory is read under the lock, not in the statement that waits."""
    a.call("entity_create", id="e", entity="x", context={"list": [1]})
    a.begin()
    assert a.call("entity_append", id="e", path="list", items=[2]) == 2
    appending = b.later(b.call, "entity_append", id="e", path="list", items=[3])
    assert appending.waits()
    a.end(end)

    assert appending.get() == (3 if end == "commit" else 2)
    assert b.memory("e") == (({"list": [1, 2, 3]}, 3) if end == "commit" else ({"list": [1, 3]}, 2))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_merge_that_waited_for_adjacent_merge_keeps_both(a: Session, b: Session, end: str) -> None:
    """[P3] (C27) (C61) Both create the same parent deep in the document."""
    a.call("entity_create", id="e", entity="x")
    a.begin()
    a.call("entity_merge", id="e", patch={"deep": {"er": {"a": 1}}, "list": [1]})
    merging = b.later(b.call, "entity_merge", id="e", patch={"er": {"b": 2}}, path="deep")
    assert merging.waits()
    a.end(end)
    merging.get()

    both = {"deep": {"er": {"a": 1, "b": 2}}, "list": [1]}
    assert b.memory("e") == ((both, 2) if end == "commit" else ({"deep": {"er": {"b": 2}}}, 1))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_key_that_is_used_by_two_at_once_is_one_command(a: Session, b: Session, end: str) -> None:
    """[P2] [P12] The second waits for the first; only after a rollback it applies the command."""
    a.call("entity_create", id="e", entity="x")
    a.begin()
    assert a.call("entity_increment", id="e", path="n", by=5, key="k") == 5
    repeating = b.later(b.call, "entity_increment", id="e", path="n", by=5, key="k")
    assert repeating.waits()
    a.end(end)

    assert repeating.get() == 5
    assert b.memory("e") == ({"n": 5}, 1)


def test_keys_repeated_by_all_sessions_at_once_are_applied_once(stage: Stage) -> None:
    """[P2] [P12] Eight sessions send the same fifty commands, each in an order of its own."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="x")

    def write(place: int, session: Session) -> dict[int, int]:
        order = random.Random(place).sample(range(EACH), EACH)
        return {
            n: session.call("entity_append", id="e", path="l", items=[n], key=f"k{n}")
            for n in order
        }

    answers = together(*(partial(write, place, session) for place, session in enumerate(sessions)))

    assert all(each == answers[0] for each in answers)
    context, version = sessions[0].memory("e")
    assert version == EACH
    assert context["l"] == sorted(range(EACH), key=lambda n: answers[0][n])
