"""Unservable turns: tasks that this worker has claimed and cannot run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from perdure.basics.durations import microseconds, to_iso
from perdure.errors import PerdureError, UnknownFunction
from perdure.failures import failure_of

from .turns import DROPPED, Json, Turn

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("perdure.worker")


FIRST_PAUSE = 0.25
"""Seconds for which a task is first given back when this worker has no code or no key for it."""
LONGEST_PAUSE, LONGEST_BESIDE_OTHERS = 60.0, 1.0
"""Seconds at most: where nobody is known to have the code, and where somebody is, who goes first
from then on. Who comes and has it wakes what others have given back: `wake_released()` in SQL looks
a minute ahead."""
KNOWN_FOR = 5.0
"""Seconds for which it is believed that another worker has a function."""

TELL_EVERY = 60.0
"""Seconds after which the log reports again which code is missing; many tasks may need it."""

MAX_KNOWN = 10_000
"""Number of tasks of which a worker remembers since when it gives them back."""

Code = tuple[str, str | None, str, str]


class MissingCode:
    """Functions that this worker was asked for and does not have."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._missed_since: dict[Code, float] = {}
        self._seen_elsewhere: dict[Code, float] = {}
        self._told_at: dict[Code, float] = {}
        self._given_back: dict[tuple[str, str], float] = {}

    async def pause_for(self, row: Json) -> float:
        """Return for how many seconds a task is given back.

        As long as its code has been missing, so that nobody is busy with it; but not for long if
        another worker could take it.
        """
        code = (row["queue"], row["pinned_version"], row["kind"], row["name"])
        missed_for = time.monotonic() - self._missed_since.setdefault(code, time.monotonic())
        pause = min(max(FIRST_PAUSE, missed_for), LONGEST_PAUSE)
        if await self._is_elsewhere(code):
            pause = min(self.pause_for_task(row), LONGEST_BESIDE_OTHERS)
            self._engine.committer.yield_claims(2 * pause)
        told_before = time.monotonic() - self._told_at.get(code, -TELL_EVERY) < TELL_EVERY
        if not told_before:
            self._told_at[code] = time.monotonic()
        logger.log(
            logging.DEBUG if told_before else logging.WARNING,
            "this worker has no function named %s: such tasks are given back for %.2f s",
            code[-1],
            pause,
        )
        return pause

    def pause_for_task(self, row: Json) -> float:
        """Return for how many seconds a task is given back, if others may have its code or key.

        Briefly at first, and longer as it returns here again and again.
        """
        place = row["job"], row["task"]
        if len(self._given_back) > MAX_KNOWN:
            self._given_back.clear()
        given_for = time.monotonic() - self._given_back.setdefault(place, time.monotonic())
        return min(max(FIRST_PAUSE, given_for), LONGEST_PAUSE)

    async def _is_elsewhere(self, code: Code) -> bool:
        """Ask the database whether another worker has it.

        A yes is believed for a while, a no is not: a worker that registers wakes its tasks at that
        moment.
        """
        if time.monotonic() - self._seen_elsewhere.get(code, -KNOWN_FOR) < KNOWN_FOR:
            return True
        if await self._engine.reader.call(self._engine.calls.has_worker(*code)):
            self._seen_elsewhere[code] = time.monotonic()
            return True
        return False


class MissingCodeTurn(Turn):
    """A task whose function this worker does not have: it is given back for others."""

    kind = "unknown"

    def begin(self) -> None:
        """Give the task back, as soon as it is known for how long."""
        self.engine.spawn(self._begin(), self)

    async def _begin(self) -> None:
        self._pause = await self.engine.missing.pause_for(self.row)
        self.submit()

    def build(self) -> Json:
        """Give the task back, to be tried later, and say why; no attempt is lost."""
        due = self.engine.clock.now() + microseconds(self._pause)
        return self.body("release", until=to_iso(due), value=failure_of(self._reason()))

    def _reason(self) -> PerdureError:
        name = self.row["name"]
        return UnknownFunction(
            f"worker {self.engine.name} has no {self.row['kind']} named {name!r}",
            detail="The task went back to its queue; no attempt was counted.",
            hint="Start a worker whose App registers it, or correct the name.",
        )

    def answered(self, answer: Json) -> None:
        """Let go, whatever the answer is."""
        if answer["state"] not in DROPPED:
            logger.warning("%r was not given back: %s", self, answer)
        self.over()


class LateTurn(MissingCodeTurn):
    """A task that arrived when the worker had begun to stop: it is given back unchanged."""

    kind = "late"

    def begin(self) -> None:
        """Give the task back."""
        self.submit()

    def build(self) -> Json:
        """Give the task back for whoever claims it first."""
        return self.body("release")


class SealedTurn(MissingCodeTurn):
    """A task with a value that cannot be decrypted here.

    It is given back for others who have the key, or until this worker gets it.
    """

    kind = "sealed"

    def __init__(self, engine: Engine, row: Json, error: PerdureError):
        super().__init__(engine, row)
        self._error = error

    async def _begin(self) -> None:
        self._pause = self.engine.missing.pause_for_task(self.row)
        logger.warning("%r goes back for %.2f s: %s", self, self._pause, self._error)
        self.submit()

    def _reason(self) -> PerdureError:
        return self._error


class ErrorTurn(MissingCodeTurn):
    """A task that is parked because of an error of this package."""

    kind = "spoiled"

    def __init__(self, engine: Engine, row: Json, body: Json):
        super().__init__(engine, row)
        self._body = body

    def begin(self) -> None:
        """Send it."""
        self.submit()

    def build(self) -> Json:
        """Give the task up, with its error."""
        return self._body
