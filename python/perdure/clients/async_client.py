"""Clients for async code: the methods of `client.py`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar
from uuid import UUID

from perdure.basics.faults import crash_point
from perdure.basics.names import as_id
from perdure.basics.threads import begun
from perdure.codecs import Codec
from perdure.database.call import Call
from perdure.database.sending import plain_cursor, send_async
from perdure.database.source import Source, home_unless
from perdure.errors import PerdureError
from perdure.values.wire import Result, Result_co
from perdure.workflow.context import refuse_clients
from perdure.workflow.memory import AsyncEntity, Awaited
from perdure.workflow.work import Workflow

from . import handles, starts
from .base_client import ClientMemoryAccess
from .caller_connection import joined_async_connection
from .contracts import BrokenContract
from .entities import Entities
from .finding import Found
from .handles import BaseHandle
from .indexing import Index
from .items import AsyncItem, Items
from .jobs import Jobs
from .outcomes import decoder_of
from .past import Authorship, Change, Difference, LogItem, Past
from .polling import Pages, Poll, Steps, next_page
from .pools import AsyncPool
from .queues import QueueDepth, Queues
from .requests import Relative, Status
from .schedules import Schedule, Schedules
from .sql_hooks import RegisteredSqlHook, SqlRegistry
from .streams import AsyncStream
from .timeline import TimelineItem
from .waiting import AsyncListener

P = ParamSpec("P")
T = TypeVar("T")


class AsyncMemory(
    AsyncEntity,
    Past[
        Awaited[list[Change]],
        Awaited[list[Difference]],
        Awaited[list[Authorship]],
        Awaited[list[LogItem]],
        Awaited[Any],
        Awaited[int],
        AsyncGenerator[Change, None],
    ],
):
    """The memory of a job or entity, used by async code outside of jobs.

    Its methods are those of Memory, awaited: `async for change in memory.watch(): ...`
    """

    __slots__ = ("_client", "_connection", "is_new")

    def __init__(self, client: AsyncClient, job: str, connection: Any):
        super().__init__(ClientMemoryAccess(client, job, connection), job)
        self._client: AsyncClient = client
        self._connection = connection
        self.is_new = None


class AsyncHandle(
    BaseHandle[
        AsyncMemory,
        Awaited[Result_co],
        Awaited[Status],
        Awaited[bool],
        Awaited[int],
        Awaited[str],
        Awaited[list[Relative]],
        Awaited[list["AsyncHandle[Any]"]],
        AsyncStream,
        AsyncGenerator[TimelineItem, None],
    ]
):
    """A job, used by async code: `await handle.result(timeout="10 min")`.

    Its methods are those of Handle, awaited: `async for item in handle.stream("tokens"): ...`
    """

    _streams = AsyncStream
    run_hook = handles.run_hook
    hook_result = handles.hook_result


def _new(verb: Callable[P, starts.New[Result]]) -> Callable[P, Awaited[AsyncHandle[Result]]]:
    """Give a method of an async client the type whose handle is awaited."""
    return verb  # type: ignore[return-value]


def _several(
    verb: Callable[P, starts.Several[Result]],
) -> Callable[P, Awaited[list[AsyncHandle[Result]]]]:
    return verb  # type: ignore[return-value]


class AsyncClient(
    Jobs[
        AsyncMemory,
        Awaited[AsyncMemory],
        Awaited[int],
        Awaited[bool],
        Awaited[Index],
        Awaited[list[Status]],
    ],
    Entities[
        Awaited[list[Found]],
        Awaited[int],
        Awaited[None],
        Awaited[bool],
        Awaited[dict[str, Any] | None],
        Awaited[list[BrokenContract]],
        Awaited[list[Index]],
        Awaited[list[tuple[str, bool]]],
    ],
    SqlRegistry[Awaited[None], Awaited[bool], Awaited[list[RegisteredSqlHook]]],
    Schedules[
        Awaited[datetime | None],
        Awaited[AsyncHandle],
        Awaited[list[AsyncHandle]],
        Awaited[bool],
        Awaited[list[Schedule]],
    ],
    Items[Awaited[AsyncItem], Awaited[list[AsyncItem]]],
    Queues[Awaited[None], Awaited[bool], Awaited[list[QueueDepth]]],
):
    """Talk to an app from async code. Tasks of one event loop may share one client.

    `connect_async()` makes it. Its methods are those of Client, awaited: `await
    client.start(research, "subsidies")`.
    """

    _make_memory = AsyncMemory
    _make_item = AsyncItem

    start = _new(starts.start)
    signal_with_start = _new(starts.signal_with_start)
    start_many = _several(starts.start_many)
    fork = _new(starts.fork)

    def __init__(self, source: Source, codec: Codec | None = None):
        super().__init__(source, codec)
        self._pool = AsyncPool(source)
        self._listener = AsyncListener(source, self.calls)

    async def __aenter__(self) -> Self:
        """Return this client. Raises InvalidArgument if it is closed."""
        self._pool.check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. A closed client raises InvalidArgument when it is used.

        Call it in the event loop in which the client was used: in another loop it closes nothing
        and raises InvalidArgument.
        """
        self._pool.bind_loop()
        self._listener.bind_loop()
        async with AsyncExitStack() as left:  # closes all of them, also if this is cancelled
            left.callback(self._source.close)
            left.push_async_callback(self._listener.close)
            left.push_async_callback(self._pool.close)

    def handle(
        self, job: str | UUID, workflow: Workflow[Result] | None = None
    ) -> AsyncHandle[Result]:
        """Return a handle of a job by its id. Nothing is sent to the database.

        `workflow`, if given, is the coordinator of the job: `result()` then returns its type.
        """
        return AsyncHandle(self, as_id(job), decoder_of(workflow))

    async def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call to the database, inside the transaction of `connection` if one is given."""
        refuse_clients()
        if connection is not None:
            self._pool.check_open()
            return await send_async(plain_cursor(await joined_async_connection(connection)), call)
        crash_point("async client: before call")
        answer = await self._pool.call(call)
        crash_point("async client: after call")
        return answer

    async def _wait(self, poll: Poll) -> Any:
        """Wait for what a poll looks for and return it, or None when its time is up."""
        refuse_clients()
        self._pool.check_open()
        return await self._listener.wait(poll)

    async def follow(self, steps: Steps[T]) -> T:
        """Take the steps of a verb one after another and return its result."""
        try:
            step = next(steps)
            while True:
                try:
                    told = await self._take(step)
                except PerdureError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(told)
        except StopIteration as end:
            result: T = end.value
            return result

    async def each(self, pages: Pages[T]) -> AsyncGenerator[T, None]:
        """Yield the items of pages, which are read from the database as they are needed."""
        told = None
        while (page := next_page(pages, told)) is not None:
            if isinstance(page, list):
                for item in page:
                    yield item
                told = None
            else:
                told = await self._take(page)

    async def _take(self, step: Call | Poll) -> Any:
        return await (self.send(step) if isinstance(step, Call) else self._wait(step))

    async def _block(self, function: Callable[..., T], *args: Any) -> T:
        self._pool.check_open()
        return await asyncio.to_thread(function, *args)


class Connecting(Coroutine[Any, Any, AsyncClient]):
    """What `connect_async()` returns: await it, or use it with `async with`."""

    def __init__(self, connecting: Coroutine[Any, Any, AsyncClient]):
        self._connecting = connecting
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, Any, AsyncClient]:
        return self._connecting.__await__()

    def send(self, value: Any) -> Any:
        """Take a step, as a coroutine does, so that a task can run it."""
        return self._connecting.send(value)

    def throw(self, *error: Any) -> Any:
        """Pass on an exception that the task is thrown."""
        return self._connecting.throw(*error)

    def close(self) -> None:
        """Give up connecting."""
        self._connecting.close()

    if not TYPE_CHECKING:  # for a type checker it has no other attributes

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse what the client would have."""
            if name.startswith("_"):  # what Python asks everything for
                raise AttributeError(name, name=name, obj=self)
            told = (
                "connect_async() was not awaited: write `client = await perdure.connect_async()`"
                f" or `async with`, and use client.{name}"
            )
            raise AttributeError(told, name=name, obj=self)

    async def __aenter__(self) -> AsyncClient:
        self._client = await self
        return self._client

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()


def connect_async(
    dsn: str | None = None,
    schema: str | None = None,
    *,
    codec: Codec | None = None,
    prepare_threshold: int | None = 0,
    provision: bool = True,
) -> Connecting:
    """Connect to an app from async code: `async with perdure.connect_async() as client: ...`

    Or write `client = await perdure.connect_async()`, and `await client.close()` at the end. The
    arguments are those of `connect()`.
    """
    if (home := home_unless(dsn, schema)) is not None:
        dsn, schema, codec, provision = home.dsn, home.schema, codec or home.codec, False
    return Connecting(_connected(dsn, schema, codec, prepare_threshold, provision))


async def _connected(
    dsn: str | None,
    schema: str | None,
    codec: Codec | None,
    prepare_threshold: int | None,
    provision: bool,
) -> AsyncClient:
    source = await _found(dsn, schema, prepare_threshold)
    with source.entrusted():
        if provision:
            await asyncio.to_thread(source.provision)
        return AsyncClient(source, codec)


async def _found(dsn: str | None, schema: str | None, prepare_threshold: int | None) -> Source:
    """Find out where the data is, in a thread, since the embedded server may have to start.

    A caller that gives up meanwhile leaves the server as soon as it has started.
    """
    finding = begun(lambda: Source(dsn, schema, prepare_threshold))
    try:
        return await asyncio.wrap_future(finding)
    except BaseException:  # cancelled, or closed
        finding.add_done_callback(_leave)
        raise


def _leave(finding: Future[Source]) -> None:
    if not finding.cancelled() and finding.exception() is None:
        finding.result().close()
