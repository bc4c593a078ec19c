"""Threads for plain code: as many run as may run at a time, and each is counted once."""

from __future__ import annotations

import threading

from perdure.basics.threads import Threads


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
