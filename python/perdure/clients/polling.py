"""Verbs of several calls, and what a client waits for.

Both are described once, and each kind of client carries them out in its own way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from perdure.basics.durations import Duration, seconds
from perdure.database.call import Call
from perdure.database.calls import Calls

T = TypeVar("T")

AT_THE_SERVER = 0.01
"""Seconds for which the server looks by itself before a client registers as waiting. Most answers
that come soon have come by then, so that nobody has to listen or be notified."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What a client waits for: how to be notified, and how to look.

    `is_seen` says by the answer of a call whether the wait is over. At `until` (monotonic seconds)
    it ends in any case, without an answer; so long the database may be silent. At `pauses_at` it
    ends too, for its caller to look elsewhere. With `wait`, the server itself can look for some
    seconds.
    """

    topic: str
    register: Callable[[str], Call]
    call: Callable[[], Call]
    is_seen: Callable[[Any], bool]
    until: float | None = None
    wait: Callable[[float], Call] | None = None
    pauses_at: float | None = None

    def first(self) -> Call:
        """Return the call that looks first, with a little patience if the server has any."""
        if self.wait is None:
            return self.call()
        return self.wait(max(0.0, self.pause(AT_THE_SERVER)))

    def is_over(self) -> bool:
        """Tell whether time is up."""
        return self.pause(1.0) <= 0

    def pause(self, delay: float) -> float:
        """Return the seconds until the next look if nobody notifies; less near the end."""
        ends = [end for end in (self.until, self.pauses_at) if end is not None]
        return min(delay, min(ends) - time.monotonic()) if ends else delay

    def once(self, call: Call) -> Poll:
        """Return a single look at something else, as patient with a silent database as this."""
        return replace(self, call=lambda: call, is_seen=lambda _: True, wait=None)

    def found(self, answer: Any) -> Any:
        """Return what was looked for, if this answer has it, or None."""
        return answer if self.is_seen(answer) else None


Steps = Generator[Call | Poll, Any, T]
"""Yields calls and looks, is given their answers, and returns the result."""

Pages = Generator[Call | Poll | list[T], Any, None]
"""Yields calls and looks, is given their answers, and yields the items of their pages."""


def next_page(pages: Pages[T], told: Any) -> Call | Poll | list[T] | None:
    """Give pages an answer, and return what comes next, or None at the end."""
    try:
        return pages.send(told)
    except StopIteration:
        return None


def until_of(timeout: Duration | None) -> tuple[float | None, float | None]:
    """Return a limit in seconds, and when it is reached (monotonic seconds)."""
    limit = None if timeout is None else seconds(timeout)
    return limit, None if limit is None else time.monotonic() + limit


def end_of(calls: Calls, job: str, until: float | None) -> Poll:
    """Look for the end of a job: (status, result, error)."""
    topic = f"$job/{job}"
    register = partial(calls.listen_for, topic)
    wait = partial(calls.await_result, job)
    return Poll(topic, register, lambda: calls.result(job), is_finished, until, wait)


def answer_of(calls: Calls, job: str, task: str, until: float | None) -> Poll:
    """Look for the end of a hook from outside: (status, result, error)."""
    topic, call = f"$job/{job}", calls.hook_result(job, task)
    return Poll(topic, partial(calls.listen_for, topic), lambda: call, is_finished, until)


def condition_on(calls: Calls, job: str, condition: str, until: float | None) -> Poll:
    """Look whether a memory meets a condition: the version that does."""
    call = calls.meets(job, condition)
    return Poll(f"$memory/{job}", partial(calls.watch, job), lambda: call, is_something, until)


def is_something(answer: Any) -> bool:
    """Tell whether there is an answer."""
    return answer is not None


def is_finished(row: Any) -> bool:
    """Tell whether the wait is over, by (status, result, error)."""
    return row is not None and row[0] != "running"
