"""The lab: an app for one test, with a worker in a thread. See `testing`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from perdure.basics.durations import Duration, seconds
from perdure.clients.client import Client, Handle, Memory, connect
from perdure.clients.outcomes import REMEDIES
from perdure.database.source import Source
from perdure.errors import NonDeterminism, ResultTimeout
from perdure.replaying import in_a_line, recordings_of_runs, replay_journal
from perdure.values.wire import Result
from perdure.workers.engine import Engine
from perdure.workers.turns import Json
from perdure.workers.worker import Worker
from perdure.workflow.app import App, check_app
from perdure.workflow.sql_hook import SQL_QUEUE
from perdure.workflow.work import Workflow

from .doubles import Doubles

NEEDED = REMEDIES | {"worker": "Give the lab the app that has the function, or mock it."}
SEND_IT = "Send it what it waits for, and call result() again."
MORE_PATIENCE = "Mock what is slow, or give the lab more patience."
LOOK_EVERY = 0.002
"""Seconds between two checks whether work is done."""


class Lab(Doubles):
    """Run one test in an app of its own: `with Lab(app) as lab: lab.run(research, "subsidies")`.

    The app is a new schema in the database `dsn` (default `$PERDURE_DATABASE_URL`, else the
    embedded server), and is dropped at the end. A worker of it runs in a thread. While the test
    waits in `run`, `result` or `pass_time`, time is skipped to what is due next whenever no work is
    left. `patience` is how long real work may take (seconds).
    """

    def __init__(self, app: App, *, dsn: str | None = None, patience: Duration = 60):
        check_app(app)
        self.app = app
        self.schema = f"perdure_test_{uuid.uuid4().hex[:12]}"
        self._patience = seconds(patience)
        self._seen: dict[str, dict[str, Json]] = {}
        self._given = dsn
        self._queues: list[str] = []
        self._ending: ExitStack = ExitStack()

    def __enter__(self) -> Self:
        """Create the app and start its worker."""
        with ExitStack() as stack:
            source = Source(self._given, self.schema)
            stack.callback(source.close)
            self.dsn = source.dsn
            self.client: Client = stack.enter_context(
                connect(self.dsn, self.schema, codec=self.app.codec)
            )
            stack.callback(self._drop)
            served = self.client.calls.served_queues(
                [*self.app.queues(), SQL_QUEUE], self.app.version
            )
            self._queues = self.client.send(served)
            stack.enter_context(_LabWorker(self))
            self._ending.enter_context(stack.pop_all())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the worker, restore what was mocked, and drop the app."""
        self._ending.close()

    # Jobs.

    def start(self, workflow: Workflow[Result], *args: Any, **options: Any) -> Handle[Result]:
        """Start a job as `client.start()` does. It runs as far as it can without skipping time."""
        return self.client.start(workflow, *args, **options)

    def run(self, workflow: Workflow[Result], *args: Any, **options: Any) -> Result:
        """Start a job and return its result, skipping time as needed."""
        return self.result(self.start(workflow, *args, **options))

    def result(self, job: Handle[Result] | str | uuid.UUID) -> Result:
        """Return the result of a job, skipping time as needed.

        Raises JobFailed, JobCancelled, and ResultTimeout if nothing is due that the job could wait
        for, for instance because it waits for a signal.
        """
        handle = job if isinstance(job, Handle) else self.client.handle(job)
        self.finish(handle.id)
        return handle.result(timeout=0)

    def finish(self, job: str) -> None:
        """Wait for the end of a job, skipping time as needed. Raises ResultTimeout."""
        handle = self.client.handle(job)
        until = time.monotonic() + self._patience
        self.settle()
        while (status := handle.status()).status == "running":
            is_late = time.monotonic() > until
            goes_on = not is_late and self._skip()
            if not goes_on and handle.status().status == "running":  # otherwise it has just ended
                why = f" after {self._patience} s of work" if is_late else ", and nothing is due"
                raise ResultTimeout(
                    f"job {handle.id} has not ended{why}",
                    detail=f"It waits for {status.waiting_for}.",
                    hint=NEEDED.get(status.needs or "", MORE_PATIENCE if is_late else SEND_IT),
                )
            self.settle()

    def memory(self, job: Handle | str | uuid.UUID) -> Memory:
        """Return the memory of a job."""
        return self.client.entity(job.id if isinstance(job, Handle) else job)

    # Time.

    def now(self) -> datetime:
        """Return the time of this app."""
        now: datetime = self.client.send(self.client.calls.clock())
        return now

    def settle(self) -> None:
        """Wait until no work is left and nothing is due. Skips no time. Raises ResultTimeout."""
        until = time.monotonic() + self._patience
        while (task := self.client.send(self.client.calls.at_work(self._queues))) is not None:
            if time.monotonic() > until:
                job, name, state, worker = task
                raise ResultTimeout(
                    f"there is still work after {self._patience} s",
                    detail=f"{name} of job {job} is {state}"
                    + (f" by {worker}." if worker else "."),
                    hint=MORE_PATIENCE,
                )
            time.sleep(LOOK_EVERY)

    def pass_time(self, length: Duration) -> datetime:
        """Let time pass: what is due meanwhile happens, each at its time. Returns the new time."""
        until = self.now() + timedelta(seconds=seconds(length))
        self.settle()
        while self._skip(until):
            self.settle()
        left = (until - self.now()).total_seconds()
        if left > 0:
            self.client.send(self.client.calls.move_clock(left))
        self.settle()
        return self.now()

    def _skip(self, up_to: datetime | None = None) -> bool:
        """Skip time to what is due next; return False if nothing will be."""
        send, calls = self.client.send, self.client.calls
        while True:
            looked_at = self.now()  # what becomes due after it is not done when this look is over
            self.settle()
            if send(calls.skip_time(up_to, looked_at)) is not None:
                return True
            if not send(calls.will_be_due(self._queues, up_to)):
                return False

    # The end.

    def check(self) -> None:
        """Check that all runs of all jobs replay as they ran, and that no invariant is broken.

        Raises NonDeterminism and AssertionError.
        """
        differences = [found for found in self._replayed() if found is not None]
        if differences:
            raise NonDeterminism(
                "the code does not replay as it ran",
                detail="\n".join(map(in_a_line, differences)),
                hint=differences[0].hint,
            )
        calls = self.client.calls
        broken = self.client.send(calls.broken_invariants())
        broken += self.client.send(calls.broken_histories())
        if broken:  # `python -O` leaves out assertions, and a test is to be checked all the same
            raise AssertionError(f"the database is not sound: {broken}")

    def _replayed(self) -> Iterator[NonDeterminism | None]:
        for job, workflow in self.client.send(self.client.calls.workflows()):
            if workflow in self.app.coordinators:
                seen = self._seen.get(job, {})
                for recording in recordings_of_runs(self.client, job, seen):
                    yield replay_journal(self.app, recording.row, recording.journal)

    def _drop(self) -> None:
        self.client.send(self.client.calls.drop_schema())

    def note(self, row: Json) -> None:
        """Note how a coordinator began; an id that was forgotten begins again."""
        seen = self._seen.setdefault(row["job"], {})
        if row["position"] == 0 or row["task"] not in seen:
            seen[row["task"]] = row


class _LabEngine(Engine):
    """An engine that keeps nothing waiting in memory, and reports what it has begun."""

    def __init__(self, lab: Lab, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._lab = lab
        self.hurries = True

    def admit(self, row: Json) -> None:
        if row["kind"] == "coordinator":
            self._lab.note(row)
        super().admit(row)


class _LabWorker(Worker):
    def __init__(self, lab: Lab):
        super().__init__(
            lab.app, dsn=lab.dsn, schema=lab.schema, poll=0.5, grace=1, provision=False
        )
        self._make_engine = partial(_LabEngine, lab)
