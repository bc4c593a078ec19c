"""Threads for plain code: as many run as may run at a time, and each call is counted once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from perdure.basics.durations import from_iso
from perdure.basics.threads import Threads
from perdure.database import clock as clocks
from perdure.workers.hook_journal import HookJournal


def test_as_many_threads_run_as_are_allowed() -> None:
    """A new thread must not count as idle before it has its work; the next work would wait."""
    for _ in range(100):
        barrier = threading.Barrier(5, timeout=5)
        threads = Threads(5, "test")
        futures = [threads.submit(barrier.wait) for _ in range(5)]
        assert sorted(future.result(10) for future in futures) == [0, 1, 2, 3, 4]
        again = [threads.submit(barrier.wait) for _ in range(5)]
        assert sorted(future.result(10) for future in again) == [0, 1, 2, 3, 4]
        threads.shutdown()


def test_no_more_threads_run_than_allowed_and_waiting_work_is_cancelled() -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def wait() -> bool:
        begun.release()
        return go.wait(10)

    threads = Threads(2, "test")
    futures = [threads.submit(wait) for _ in range(5)]
    assert begun.acquire(timeout=5)
    assert begun.acquire(timeout=5)
    assert not begun.acquire(timeout=0.05)
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    assert [future.result(5) for future in futures[:2]] == [True, True]
    assert all(future.cancelled() for future in futures[2:])


@pytest.fixture
def switching() -> Iterator[None]:
    """Let Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_calls_of_two_threads_of_a_hook_get_different_keys(switching: None) -> None:
    """With the same key, one of two requests would be lost, and two `uuid()` would be equal."""
    for _ in range(100):
        journal, barrier = HookJournal(()), threading.Barrier(4, timeout=5)

        def make_calls(
            journal: HookJournal = journal, barrier: threading.Barrier = barrier
        ) -> set[str]:
            barrier.wait()
            return {journal.key(f"$uuid {number}") for number in range(100)}

        threads = Threads(4, "test")
        made = [threads.submit(make_calls) for _ in range(4)]
        assert len(set().union(*(keys.result(10) for keys in made))) == 400
        threads.shutdown()


def test_clock_is_never_ahead_while_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of a hook may ask for the time while the loop takes it from a reply."""
    clock, began, read = clocks.Clock(), 1000.0, []
    monkeypatch.setattr(clocks.time, "monotonic", lambda: began)
    clock.synchronize("2030-01-01T00:00:00+00:00")

    def interrupted() -> float:
        monkeypatch.setattr(clocks.time, "monotonic", lambda: began + 60)
        read.append(clock.now())
        return began + 60

    monkeypatch.setattr(clocks.time, "monotonic", interrupted)
    clock.synchronize("2030-01-01T00:01:00+00:00")
    assert read[0] <= clock.now() == from_iso("2030-01-01T00:01:00+00:00")
