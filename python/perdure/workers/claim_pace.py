"""The pace of claims: when a worker looks for tasks.

A busy worker takes a claim along with the turns that it sends anyway. One that has nothing to do
asks to be notified, and then looks when it is, and now and then besides, because notifications may
be lost. One notification wakes all idle workers: who was late twice lets the quicker go first.
"""

from __future__ import annotations

import random
import time

ASK_EVERY = 60.0
"""Seconds after which an idle worker asks for notifications again, which also shows that it is
alive."""

ASK_AGAIN = 0.02
"""Seconds from a claim that found something to the next, unless a turn takes one along, or the
worker is notified."""

BUSY = 5
"""Number of claims in a row that find something while other tasks are held, after which a worker
needs no notifications: each of its turns takes a claim along."""

OUTRUN, STEP_BACK, SOON = 2, 0.02, 2.0
"""After OUTRUN claims in a row that others' notifications asked for and that found nothing, not
even what is due in SOON seconds, others are quicker. Such a worker looks STEP_BACK seconds later,
for what they cannot take."""


class ClaimPace:
    """Decide when the next claim is due, by what the last ones have found."""

    def __init__(self, poll: float):
        self.is_registered = False
        """Whether this worker has asked to be notified."""
        self._poll = poll
        self._claim_at = self._look_at = self._asked_at = 0.0
        self._finds = 0
        self._losses = 0
        self._yields_until = 0.0
        self._was_hinted = self._has_rivals = self._heeds_rivals = False

    # Reasons to look.

    def claim_in(self, delay: float) -> bool:
        """Look after at most `delay` seconds; return whether it is earlier than planned."""
        at = time.monotonic() + delay
        self._look_at = min(self._look_at, at)
        return self._claim_by(at)

    def notified(self, *, by_others: bool) -> bool:
        """Look for tasks of which a session has notified; return whether it is earlier.

        Of tasks that this worker itself has made due it already took its part, and goes second if
        nothing may be left.
        """
        self._was_hinted = True
        self._has_rivals = self._has_rivals or by_others
        return self._claim_by(time.monotonic() + self._yield_delay())

    def yield_claims(self, seconds: float) -> None:
        """Let others claim first for so many seconds: they have missing functions."""
        self._yields_until = time.monotonic() + seconds

    def _claim_by(self, at: float) -> bool:
        is_earlier = at < self._claim_at
        self._claim_at = min(self._claim_at, at)
        return is_earlier

    def _yield_delay(self, then: float = 0.0) -> float:
        """Return the seconds for which others go first, now or after so many seconds."""
        is_second = self._losses >= OUTRUN or time.monotonic() + then < self._yields_until
        return STEP_BACK if is_second else 0.0

    # Now, or later.

    def seconds_left(self) -> float:
        """Return the seconds until the next claim; it is due if there are none."""
        return self._claim_at - time.monotonic()

    def needs_no_hints(self, room: int) -> bool:
        """Tell whether to stop listening: this worker is full, or claims with each turn anyway."""
        return self.is_registered and (room <= 0 or self._finds >= BUSY)

    def asks_for_hints(self) -> bool:
        """Tell whether a claim asks for notifications, should it find nothing."""
        return not self.is_registered or time.monotonic() - self._asked_at > ASK_EVERY

    # What claims have found.

    def begin(self) -> None:
        """Note that a claim begins: what notifies from now on asks for another one."""
        self._heeds_rivals, self._has_rivals = self._has_rivals, False
        self._was_hinted = False

    def register(self, *, began_at: float, found: bool) -> None:
        """Note that a claim asked for notifications; it gets them if it found nothing."""
        self.is_registered = not found
        self._asked_at = began_at

    def plan(
        self, *, found: bool, is_full: bool, due_in: float, search_in: float, has_hints: bool
    ) -> None:
        """Plan the next claim after one that found tasks, or all it wanted, or nothing.

        The next task is due in `due_in` seconds (infinity if there is none, or nobody knows), and a
        search from the beginning is possible in `search_in` seconds.
        """
        self._finds = self._finds + 1 if found else 0
        if found or due_in < SOON:
            self._losses = 0
        elif self._heeds_rivals:
            self._losses += 1
        delay = min(0.0 if is_full else self._pause(), search_in)
        if found:  # a claim that gets tasks is not told when the next are due
            known = self._look_at - time.monotonic() if has_hints else ASK_AGAIN
            delay = min(delay, max(0.0, known))
        self._claim_at = time.monotonic() + min(delay, due_in + 0.001 + self._yield_delay(due_in))
        if not found:
            self._look_at = self._claim_at

    def unregister(self) -> None:
        """Note that nobody notifies this worker any more."""
        self.is_registered = False

    def rest(self) -> None:
        """Note that no task is held: what claims found is done."""
        self._finds = 0

    def _pause(self) -> float:
        """Return the seconds until the next look, after one that has found everything."""
        if not self.is_registered:
            return 0.0
        if self._was_hinted:
            return self._yield_delay()
        return self._poll * random.uniform(0.8, 1.2)
