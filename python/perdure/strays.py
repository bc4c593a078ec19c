"""Strays: tasks that this worker has claimed and cannot run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .durations import to_iso
from .errors import UnknownFunction, failure_of
from .turns import DROPPED, Json, Turn

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("perdure.worker")


class Unknown(Turn):
    """A task whose function this worker does not have: it is given back for others."""

    kind = "unknown"

    def begin(self) -> None:
        """Give the task back."""
        self.submit()

    def build(self) -> Json:
        """Give the task back, to be tried later, and say why; no attempt is lost."""
        name = self.row["name"]
        due = self.engine.clock.now() + int(self.engine.release_for(name) * 1e6)
        error = UnknownFunction(
            f"worker {self.engine.name} has no {self.row['kind']} named {name!r}",
            detail="The task went back to its queue; no attempt was counted.",
            hint="Start a worker whose App registers it, or correct the name.",
        )
        return self.body("release", until=to_iso(due), value=failure_of(error))

    def answered(self, answer: Json) -> None:
        """Let go, whatever was said."""
        if answer["state"] not in DROPPED:
            logger.warning("%r was not given back: %s", self, answer)
        self.over()

    def nudge(self) -> None:
        """Nothing runs that could be cancelled."""

    def drop(self) -> None:
        """Let go."""
        self.over()

    def drain(self) -> None:
        """Go on: it goes by itself."""


class Spoiled(Unknown):
    """A task that is parked because of an error of this package."""

    kind = "spoiled"

    def __init__(self, engine: Engine, row: Json, last_words: Json):
        super().__init__(engine, row)
        self._last_words = last_words

    def build(self) -> Json:
        """Give the task up, with its error."""
        return self._last_words
