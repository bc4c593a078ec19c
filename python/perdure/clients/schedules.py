"""Schedules: workflows that start by cron or at an interval.

Each method is written once for both kinds of clients: it returns its answer, or an awaitable of it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from perdure.basics.durations import Duration, micros, seconds, to_iso
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.errors import InvalidArgument
from perdure.workflow.work import Workflow

from .base_client import BaseClient
from .past import rows_of
from .requests import one_of_many
from .starts import started

_Time = TypeVar("_Time")
_Handle = TypeVar("_Handle")
_Handles = TypeVar("_Handles")
_Bool = TypeVar("_Bool")
_Schedules = TypeVar("_Schedules")

CatchUp = Literal["none", "last", "all"]
Overlap = Literal["allow", "skip"]

_CALENDAR = re.compile(r"\s*\d+\s*(mon|month|months|y|year|years)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule. `last_job` was started last; `waits_for` says in words what comes next."""

    name: str
    workflow: str | None
    cron: str | None
    every: str | None
    time_zone: str
    catch_up: str
    overlap: str
    paused: bool
    next_due_at: datetime | None
    last_job: str | None
    last_started_at: datetime | None
    waits_for: str


OPTIONS = frozenset({"entity", "queue", "priority", "headers", "limit_key", "pinned_version"})
"""Further options of create_schedule() for the jobs that are started."""


def interval_of(duration: Duration) -> str:
    """Write a duration for the server.

    Text keeps its days and months; all else is written in seconds. Raises InvalidArgument.
    """
    if isinstance(duration, str):
        if not _CALENDAR.fullmatch(duration):
            seconds(duration)
        return duration
    return f"{seconds(duration)} s"


def schedule_call(
    calls: Calls,
    workflow: Workflow,
    name: str | None,
    args: Any,
    timing: dict[str, Any],
    options: Any,
) -> Call:
    """Return the call that creates a schedule. Raises InvalidArgument for an unknown option."""
    if unknown := options.keys() - OPTIONS:
        raise InvalidArgument(
            f"a schedule has no option {min(unknown)}",
            hint=f"Known options: {', '.join(sorted(OPTIONS))}.",
        )
    start = one_of_many(workflow, {"args": args} | options)
    known = timing | {option: start.get(option) for option in OPTIONS}
    if known["timeout"] is None:  # the timeout of the coordinator itself
        known["timeout"] = start.get("timeout")
    called = start["workflow"]
    return calls.create_schedule(called if name is None else name, called, start["args"], **known)


class Schedules(BaseClient, Generic[_Time, _Handle, _Handles, _Bool, _Schedules]):
    """The methods of a client that concern schedules."""

    def create_schedule(
        self,
        workflow: Workflow,
        cron: str | None = None,
        *,
        every: Duration | None = None,
        name: str | None = None,
        args: Sequence[Any] | Mapping[str, Any] = (),
        time_zone: str = "UTC",
        starts_at: datetime | None = None,
        catch_up: CatchUp = "last",
        overlap: Overlap = "allow",
        timeout: Duration | None = None,
        connection: Any = None,
        **options: Any,
    ) -> _Time:
        """Create or change a schedule: `client.create_schedule(research, "0 9 * * mon-fri")`.

        - `every="15 min"`: an interval instead, from `starts_at` on. Days and months follow the
          calendar of `time_zone`.
        - `name`: default the name of the workflow. `args`, `timeout`: for each job that is started.
        - `catch_up`: which missed due times get a job: "none", "last" or "all".
        - `overlap="skip"`: start nothing while a job of the schedule runs.
        - Options: entity, queue, priority, headers, limit_key, pinned_version.

        Returns the next due time, or None while it is paused. Raises InvalidSchedule,
        InvalidArgument, InvalidName.
        """
        timing = {
            "cron": cron,
            "every": None if every is None else interval_of(every),
            "time_zone": time_zone,
            "starts_at": None if starts_at is None else to_iso(micros(starts_at)),
            "catch_up": catch_up,
            "overlap": overlap,
            "timeout": None if timeout is None else interval_of(timeout),
        }
        call = schedule_call(self.calls, workflow, name, args, timing, options)
        return self.give(call, connection)

    def schedules(self) -> _Schedules:
        """List the schedules by name, with their next due time and the job they started last."""
        return self.give(self.calls.schedules().reading(rows_of(Schedule)))

    def pause_schedule(self, name: str) -> _Bool:
        """Let a schedule start nothing until it is resumed.

        Returns False if it is paused already. Raises ScheduleNotFound.
        """
        return self.give(self.calls.pause_schedule(name))

    def resume_schedule(self, name: str) -> _Bool:
        """Resume a schedule that is paused or stuck; it catches up as its `catch_up` says.

        Returns False if it was not paused. Raises ScheduleNotFound and InvalidSchedule.
        """
        return self.give(self.calls.resume_schedule(name))

    def trigger_schedule(self, name: str, *, key: str | None = None) -> _Handle:
        """Start the job of a schedule now and return its handle. The same `key` starts once.

        Raises ScheduleNotFound and InvalidSchedule.
        """
        call = self.calls.trigger_schedule(name, key or uuid.uuid4().hex)
        return self.give(call.reading(partial(started, self, None)))

    def backfill_schedule(
        self,
        name: str,
        since: datetime,
        until: datetime | None = None,
        *,
        priority: int | None = 9,
    ) -> _Handles:
        """Start the jobs of past due times from `since` on, and before `until` (default: now).

        Each due time has one job: `handle.is_new` tells whether this call started it. One call
        starts at most 10,000. All other work goes first, unless a `priority` says otherwise; None
        is that of the schedule. Raises ScheduleNotFound, InvalidSchedule and InvalidArgument.
        """
        end = None if until is None else to_iso(micros(until))
        call = self.calls.backfill_schedule(name, to_iso(micros(since)), end, priority)
        handle = partial(started, self, None)
        return self.give(call.reading(lambda rows: [handle(row) for row in rows]))

    def drop_schedule(self, name: str) -> _Bool:
        """Delete a schedule; its jobs stay. Returns False if there is none. Raises JobAtWork."""
        return self.give(self.calls.drop_schedule(name))
