"""Strays: tasks that this worker has claimed and cannot run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .durations import to_iso
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
        """Give the task back, to be tried later; no attempt is lost."""
        due = self.engine.clock.now() + int(self.engine.release_for(self.row["name"]) * 1e6)
        return self.body("release", until=to_iso(due))

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
