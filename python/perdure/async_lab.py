"""The lab of async tests: a lab that waits in threads, so that the loop of the test goes on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from .app import App
from .async_client import AsyncClient, AsyncHandle, AsyncMemory, connect_async
from .doubles import Doubles
from .durations import Duration
from .lab import Lab
from .threads import beside
from .typed import Result
from .work import Workflow


class AsyncLab(Doubles):
    """A laboratory for one async test: `async with AsyncLab(app) as lab: await lab.run(research)`.

    Its verbs are those of a Lab, awaited; `plain` is the lab itself, whose worker runs in a thread,
    `client` an async client of its app.
    """

    client: AsyncClient

    def __init__(self, app: App, *, dsn: str | None = None, patience: Duration = 60):
        self.app = app
        self.plain = Lab(app, dsn=dsn, patience=patience)
        self._ending: AsyncExitStack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Make the app, and start its worker."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(beside, self.plain.__exit__)  # also of what is cancelled
            await beside(self.plain.__enter__)
            opened = await connect_async(
                self.plain.dsn, self.plain.schema, codec=self.plain.app.codec, provision=False
            )
            self.client = await stack.enter_async_context(opened)
            await self._ending.enter_async_context(stack.pop_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the worker, put back what was mocked, and drop the app."""
        await self._ending.aclose()

    async def start(
        self, workflow: Workflow[Result], *args: Any, **options: Any
    ) -> AsyncHandle[Result]:
        """Start a job as `client.start` does; it goes as far as it can without skipped time."""
        return await self.client.start(workflow, *args, **options)

    async def run(self, workflow: Workflow[Result], *args: Any, **options: Any) -> Result:
        """Start a job and give its result, as `start` and `result` do."""
        return await self.result(await self.start(workflow, *args, **options))

    async def result(self, job: AsyncHandle[Result] | str | UUID) -> Result:
        """Give the result of a job, skipping time as often as it takes.

        Raises JobFailed and JobCancelled, and ResultTimeout where nothing is due that it could
        wait for, as when it wants a signal.
        """
        handle = job if isinstance(job, AsyncHandle) else self.client.handle(job)
        await asyncio.to_thread(self.plain.finish, handle.id)
        return await handle.result(timeout=0)

    def memory(self, job: AsyncHandle | str | UUID) -> AsyncMemory:
        """Give the memory of a job."""
        return self.client.entity(job.id if isinstance(job, AsyncHandle) else job)

    async def now(self) -> datetime:
        """Give the time of this app."""
        return await asyncio.to_thread(self.plain.now)

    async def settle(self) -> None:
        """Wait until nobody is at work and nothing is due; no time is skipped.

        Raises ResultTimeout.
        """
        await asyncio.to_thread(self.plain.settle)

    async def pass_time(self, length: Duration) -> datetime:
        """Let time pass: what is due meanwhile happens, each at its time. Gives the new time."""
        return await asyncio.to_thread(self.plain.pass_time, length)

    async def check(self) -> None:
        """Check that all runs of all jobs replay as they ran, and that the database is sound.

        Raises NonDeterminism and AssertionError.
        """
        await asyncio.to_thread(self.plain.check)
