"""The lab for async tests. It waits in threads, so that the event loop of the test runs on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from perdure.basics.durations import Duration
from perdure.basics.threads import beside
from perdure.clients.async_client import AsyncClient, AsyncHandle, AsyncMemory, connect_async
from perdure.values.wire import Result
from perdure.workflow.app import App
from perdure.workflow.work import Workflow

from .doubles import Doubles
from .lab import Lab


class AsyncLab(Doubles):
    """Run one async test in an app of its own: `async with AsyncLab(app) as lab: ...`

    Its methods are those of Lab, awaited. `client` is an async client of the app; `plain` is the
    plain lab, whose worker runs in a thread.
    """

    client: AsyncClient

    def __init__(self, app: App, *, dsn: str | None = None, patience: Duration = 60):
        self.app = app
        self.plain = Lab(app, dsn=dsn, patience=patience)
        self._ending: AsyncExitStack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Create the app and start its worker."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(beside, self.plain.__exit__)  # also if it is cancelled
            await beside(self.plain.__enter__)
            opened = await connect_async(
                self.plain.dsn, self.plain.schema, codec=self.plain.app.codec, provision=False
            )
            self.client = await stack.enter_async_context(opened)
            await self._ending.enter_async_context(stack.pop_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the worker, restore what was mocked, and drop the app."""
        await self._ending.aclose()

    async def start(
        self, workflow: Workflow[Result], *args: Any, **options: Any
    ) -> AsyncHandle[Result]:
        """Start a job as `client.start()` does. It runs as far as it can without skipping time."""
        return await self.client.start(workflow, *args, **options)

    async def run(self, workflow: Workflow[Result], *args: Any, **options: Any) -> Result:
        """Start a job and return its result, skipping time as needed."""
        return await self.result(await self.start(workflow, *args, **options))

    async def result(self, job: AsyncHandle[Result] | str | UUID) -> Result:
        """Return the result of a job, skipping time as needed.

        Raises JobFailed, JobCancelled, and ResultTimeout if nothing is due that the job could wait
        for, for instance because it waits for a signal.
        """
        handle = job if isinstance(job, AsyncHandle) else self.client.handle(job)
        await asyncio.to_thread(self.plain.finish, handle.id)
        return await handle.result(timeout=0)

    def memory(self, job: AsyncHandle | str | UUID) -> AsyncMemory:
        """Return the memory of a job."""
        return self.client.entity(job.id if isinstance(job, AsyncHandle) else job)

    async def now(self) -> datetime:
        """Return the time of this app."""
        return await asyncio.to_thread(self.plain.now)

    async def settle(self) -> None:
        """Wait until no work is left and nothing is due. Skips no time. Raises ResultTimeout."""
        await asyncio.to_thread(self.plain.settle)

    async def pass_time(self, length: Duration) -> datetime:
        """Let time pass: what is due meanwhile happens, each at its time. Returns the new time."""
        return await asyncio.to_thread(self.plain.pass_time, length)

    async def check(self) -> None:
        """Check that all runs of all jobs replay as they ran, and that no invariant is broken.

        Raises NonDeterminism and AssertionError.
        """
        await asyncio.to_thread(self.plain.check)
