"""The cancel of a hook: where its code learns, once, that it was asked to cancel or is late."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.workflow.context import is_shielded

from .quiescence import DurableWait

if TYPE_CHECKING:
    from .hooks import HookTurn


class HookCancel:
    """Cancels the code of a hook where it is, or at its next call.

    `is_due`: the code is still to learn of the cancel.
    """

    def __init__(self, turn: HookTurn):
        self._turn = turn
        self.is_due = False
        self._is_due_after_shield = False
        self._shielded: set[asyncio.Task[Any]] = set()

    def restart(self, *, is_due: bool) -> None:
        """Begin again with the code, which may have been asked to cancel before."""
        self.is_due = is_due
        self._is_due_after_shield = False

    def note_task(self, task: asyncio.Task[Any]) -> None:
        """Remember a call of a thread that is shielded: it is not cancelled."""
        if is_shielded.get() and not self._turn.hook.is_async:
            self._shielded.add(task)
            task.add_done_callback(self._shielded.discard, context=self._turn.engine.context)

    def soon(self) -> None:
        """Cancel the code after it has moved on from where it waits."""
        self._turn.soon(self.now)

    def now(self) -> None:
        """Cancel the code: an async hook where it is, a thread where it waits next.

        A task that is cancelled before its first step never runs its `finally` blocks. So code that
        has not begun is cancelled at the first call that its journal cannot answer. A thread in a
        shield is told when the shield ends.
        """
        turn = self._turn
        waiting: set[Any] = set()
        if turn.hook.is_async and turn.has_begun:
            waiting = {turn.root}
        elif not (turn.hook.is_async or turn.shielded_waits):
            waiting = turn.tasks - {turn.root} - self._shielded
        waits = tuple(turn.thread_waits)
        is_interrupted = turn.hook.is_async or any(call.is_interruptible() for call in waits)
        self.is_due = not (waiting and is_interrupted)
        if self.is_due and self._shielded:
            self._is_due_after_shield = True
        for task in waiting:
            task.cancel()

    # Where the code asks.

    async def reach(self) -> None:
        """Let the code be cancelled here, once, if it was asked to cancel before it ran again.

        All its concurrent tasks come to their places first. Shielded work continues, and code that
        waits for it notices the cancel afterwards.
        """
        self._turn.waits.take_cancel()
        if self.is_due and is_shielded.get():
            self._is_due_after_shield = True
        elif self.is_due:
            await self._wait_for_it()

    async def _wait_for_it(self) -> None:
        """Wait here until the code is cancelled.

        A task that stays, since the cancel was taken elsewhere, continues. Meanwhile the hook does
        not leave memory.
        """
        wait = DurableWait()
        self._turn.soon(partial(self._cancel_before, wait))
        self._turn.acting += 1
        try:
            await wait
        finally:
            self._turn.acting -= 1

    def _cancel_before(self, wait: DurableWait) -> None:
        if self.is_due:
            self.now()
        self._turn.soon(partial(_end_wait, wait))  # the inner tasks come first

    def end_shield(self) -> None:
        """Raise CancelledError if something shielded was under way when the cancel came."""
        if self._is_due_after_shield:
            self._raise_once()

    def check(self) -> None:
        """Raise CancelledError, once, if the code was asked to cancel and has no shield.

        Code that runs again first reaches the place where it was. Otherwise its `finally` blocks
        would not run.
        """
        if self._turn.is_there() and not is_shielded.get():
            self._raise_once()

    def _raise_once(self) -> None:
        if self.is_due:
            self.is_due = False
            raise asyncio.CancelledError("the hook was asked to cancel")

    def note_told(self) -> None:
        """Note that a thread is told now. Raises Evicted or Suspend if the hook only leaves."""
        self._turn.check_alive()
        self.is_due = False


def _end_wait(wait: DurableWait) -> None:
    if not wait.done():
        wait.set_result(None)
