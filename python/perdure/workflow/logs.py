"""Logs of user code: each line is written once, and says to which job it belongs.

    log = perdure.logger(__name__)
    log.info("%d sources found", 3)

A coordinator or hook that runs again writes nothing until it has reached the place where it was.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from .context import activity_info, runtime

if TYPE_CHECKING:
    from .context import Info

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class Logger(_Adapter):
    """A logger of the standard library for code that may be replayed."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """Tell whether a line of this level is written now."""
        serving = runtime()
        return not (serving is not None and serving.is_replaying()) and super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add to the record whose line it is: `perdure_job` and other fields."""
        who = _running()
        if who is not None:
            kwargs["extra"] = _fields(who) | dict(kwargs.get("extra") or {})
        return msg, kwargs


def logger(name: str) -> Logger:
    """Return the logger of this name for code of coordinators, hooks and activities.

    It is `logging.getLogger(name)` with the fields `perdure_job`, `perdure_task`, `perdure_name`,
    `perdure_workflow`, `perdure_run` and `perdure_attempt` in its records. Lines are not written
    again on replay; after a crash, the last lines may be.
    """
    return Logger(logging.getLogger(name), {})


def _running() -> Info | None:
    tell = activity_info.get()
    if tell is not None:
        return tell()
    serving = runtime()
    return None if serving is None else serving.info


def _fields(who: Info) -> dict[str, Any]:
    named = ("job", "task", "name", "workflow", "run", "attempt")
    return {f"perdure_{name}": getattr(who, name) for name in named}
