"""Deadlines: the earliest first, whatever was removed, and without a look at all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.workers.deadlines import SPARE, Deadlines
from perdure.workers.open_operations import OpenOperations

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "due"]), st.integers(0, 9)), max_size=60
)


@given(STEPS)
def test_first_is_the_earliest_and_of_these_the_first_added(steps: list[tuple[str, int]]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    kept: dict[str, int] = {}  # in the order in which they were added
    for number, (step, n) in enumerate(steps):
        if step == "add":
            key = f"{number}"
            deadlines.add(key, n, key)
            kept[key] = n
        elif step == "discard":
            key = f"{n}"
            deadlines.discard(key)
            kept.pop(key, None)
        else:
            due = sorted((key for key in kept if kept[key] <= n), key=kept.__getitem__)
            assert deadlines.take_due(n) == due
            kept = {key: at for key, at in kept.items() if at > n}
        assert len(deadlines) == len(kept)
        assert deadlines.earliest() == min(kept.values(), default=None)
        assert deadlines.first() == min(kept, key=kept.__getitem__, default=None)


def test_what_was_removed_is_released() -> None:
    """A limit of a day on each of a million short calls must not hold all of them for a day."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.add("last", 10**9, "last")
    for number in range(10_000):
        deadlines.add(f"{number}", number + 1, "short")
        deadlines.discard(f"{number}")
        assert len(deadlines._heap) <= 2 + SPARE
    assert deadlines.first() == "last"


def test_no_step_looks_at_all_timers() -> None:
    """Of 300 calls that each have a time limit, one answer costs as much as of three."""
    read = 0

    class Timer:
        kind = "timer"

        def __init__(self, number: int):
            self.key = f"$timer#{number}"

        @property
        def deadline(self) -> int:
            nonlocal read
            read += 1
            return 5

    operations = OpenOperations()
    timers: list[Any] = [Timer(number) for number in range(300)]
    for each in timers:
        operations._enter(each)
    for each in timers:
        assert operations.first_timer() is each
        assert operations.next_deadline() == 5
        operations.close(each)
    assert operations.first_timer() is None
    assert read == len(timers)


class Unread(dict[str, Any]):
    """A dict that is looked up, and never walked through."""

    def values(self) -> Any:
        raise AssertionError("it has looked at all activities")

    __iter__ = items = keys = values


def test_no_step_looks_at_all_activities() -> None:
    """Each is to start, pauses or is under way; lengths and the earliest pause say all."""

    def asked(number: int) -> Any:
        activity = SimpleNamespace(limits=SimpleNamespace(within=None))
        spec = SimpleNamespace(activity=activity)
        return SimpleNamespace(kind="activity", key=f"a#{number}", spec=spec)

    operations = OpenOperations()
    operations._activities = Unread()
    for number in range(3):
        operations._enter(asked(number))
    calls = operations.to_start
    assert not operations.is_under_way()
    assert not operations.has_all_begun()
    operations.to_start = []
    assert operations.is_under_way()
    assert operations.has_all_begun()
    operations.finish(calls[0])
    for call, until in zip(calls[1:], (7, 5), strict=True):
        assert operations.is_under_way()
        operations.pause(call, until)
    assert not operations.is_under_way()
    assert not operations.has_all_begun()
    assert operations.next_deadline() == operations.end_of_pause() == 5
    operations.end_pauses(now=6)
    assert operations.to_start == [calls[2]]
    assert operations.next_deadline() == 7
