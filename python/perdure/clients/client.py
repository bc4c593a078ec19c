"""Clients for plain code: start jobs, wait for them, signal them and use their memories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar
from uuid import UUID

from perdure.basics.faults import crash_point
from perdure.basics.names import as_id
from perdure.codecs import Codec
from perdure.database.call import Call
from perdure.database.sending import send
from perdure.database.source import Source, home_unless
from perdure.errors import PerdureError
from perdure.values.wire import Result, Result_co
from perdure.workflow.context import refuse_clients
from perdure.workflow.memory import Awaited, Entity
from perdure.workflow.work import Workflow

from . import handles, starts
from .base_client import ClientMemoryAccess
from .caller_connection import joined_connection
from .contracts import BrokenContract
from .entities import Entities
from .finding import Found
from .handles import BaseHandle
from .indexing import Index
from .items import Item, Items
from .jobs import Jobs
from .outcomes import decoder_of
from .past import Authorship, Change, Difference, LogItem, Past
from .polling import Pages, Poll, Steps, next_page
from .pools import Pool
from .queues import QueueDepth, Queues
from .requests import Relative, Status
from .schedules import Schedule, Schedules
from .sql_hooks import RegisteredSqlHook, SqlRegistry
from .streams import Stream
from .timeline import TimelineItem
from .waiting import Listener

P = ParamSpec("P")
T = TypeVar("T")


class Memory(
    Entity,
    Past[
        list[Change], list[Difference], list[Authorship], list[LogItem], Any, int, Iterator[Change]
    ],
):
    """A memory, used by plain code outside of jobs: `memory = client.entity("agent-1")`.

    Besides the commands of Entity it reads the past: `history()`, `at()`, `diff()`, `blame()`,
    `watch()`.
    """

    __slots__ = ("_client", "_connection", "is_new")

    def __init__(self, client: Client, job: str, connection: Any):
        super().__init__(ClientMemoryAccess(client, job, connection), job)
        self._client: Client = client
        self._connection = connection
        self.is_new = None


def _at_once(verb: Callable[P, Awaited[Result]]) -> Callable[P, Result]:
    """Give a method of a plain handle the type that returns at once."""
    return verb  # type: ignore[return-value]


class Handle(
    BaseHandle[
        Memory,
        Result_co,
        Status,
        bool,
        int,
        str,
        list[Relative],
        list["Handle[Any]"],
        Stream,
        Iterator[TimelineItem],
    ]
):
    """A job, used by plain code: `client.start(research, "q").result(timeout="1 min")`.

    `Handle[str]` is a handle of a job whose result is a `str`. A handle of a job that you only name
    is a `Handle[Any]`.
    """

    _streams = Stream
    run_hook = _at_once(handles.run_hook)
    hook_result = _at_once(handles.hook_result)


def _new(verb: Callable[P, starts.New[Result]]) -> Callable[P, Handle[Result]]:
    """Give a method of a plain client the type that returns its handle at once."""
    return verb  # type: ignore[return-value]


def _several(verb: Callable[P, starts.Several[Result]]) -> Callable[P, list[Handle[Result]]]:
    return verb  # type: ignore[return-value]


class Client(
    Jobs[Memory, Memory, int, bool, Index, list[Status]],
    Entities[
        list[Found],
        int,
        None,
        bool,
        dict[str, Any] | None,
        list[BrokenContract],
        list[Index],
        list[tuple[str, bool]],
    ],
    SqlRegistry[None, bool, list[RegisteredSqlHook]],
    Schedules[datetime | None, Handle, list[Handle], bool, list[Schedule]],
    Items[Item, list[Item]],
    Queues[None, bool, list[QueueDepth]],
):
    """Talk to an app from plain code. Threads may share one client.

    `connect()` makes it. Use it in a `with` block, or call `close()`. A call whose reply is lost is
    sent again for a minute. Methods with a `connection` argument take part in the transaction of
    that connection (psycopg, SQLAlchemy or Django).
    """

    _make_memory = Memory
    _make_item = Item

    start = _new(starts.start)
    signal_with_start = _new(starts.signal_with_start)
    start_many = _several(starts.start_many)
    fork = _new(starts.fork)

    def __init__(self, source: Source, codec: Codec | None = None):
        super().__init__(source, codec)
        self._pool = Pool(source)
        self._listeners: list[Listener] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        """Return this client. Raises InvalidArgument if it is closed."""
        self._pool.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. A closed client raises InvalidArgument when it is used."""
        self._is_closed = True
        self._pool.close()
        self._close_idle_listeners()
        self._source.close()

    def handle(self, job: str | UUID, workflow: Workflow[Result] | None = None) -> Handle[Result]:
        """Return a handle of a job by its id. Nothing is sent to the database.

        `workflow`, if given, is the coordinator of the job: `result()` then returns its type.
        """
        return Handle(self, as_id(job), decoder_of(workflow))

    def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call to the database, inside the transaction of `connection` if one is given."""
        refuse_clients()
        if connection is not None:
            self._pool.check_open()
            return send(joined_connection(connection), call)
        crash_point("client: before call")
        answer = self._pool.call(call)
        crash_point("client: after call")
        return answer

    def _wait(self, poll: Poll) -> Any:
        """Wait for what a poll looks for and return it, or None when its time is up."""
        refuse_clients()
        self._pool.check_open()
        listener = self._idle_listener() or Listener(self._source, self.calls)
        try:
            return listener.wait(poll)
        finally:
            self._listeners.append(listener)
            if self._is_closed:  # checked last: it may have just been closed
                self._close_idle_listeners()

    def _close_idle_listeners(self) -> None:
        while (listener := self._idle_listener()) is not None:
            listener.close()

    def _idle_listener(self) -> Listener | None:
        try:
            return self._listeners.pop()
        except IndexError:  # to check first would be a race between threads
            return None

    def follow(self, steps: Steps[T]) -> T:
        """Take the steps of a verb one after another and return its result."""
        try:
            step = next(steps)
            while True:
                try:
                    told = self._take(step)
                except PerdureError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(told)
        except StopIteration as end:
            result: T = end.value
            return result

    def each(self, pages: Pages[T]) -> Iterator[T]:
        """Yield the items of pages, which are read from the database as they are needed."""
        told = None
        while (page := next_page(pages, told)) is not None:
            if isinstance(page, list):
                yield from page
                told = None
            else:
                told = self._take(page)

    def _take(self, step: Call | Poll) -> Any:
        return self.send(step) if isinstance(step, Call) else self._wait(step)

    def _block(self, function: Callable[..., T], *args: Any) -> T:
        self._pool.check_open()
        return function(*args)


def connect(
    dsn: str | None = None,
    schema: str | None = None,
    *,
    codec: Codec | None = None,
    prepare_threshold: int | None = 0,
    provision: bool = True,
) -> Client:
    """Connect to an app and return a client: `with perdure.connect(schema="my_app") as client: ...`

    - `dsn`: the database. Default: `$PERDURE_DATABASE_URL`, else the embedded server.
    - `schema`: the name of the app. Default: `$PERDURE_SCHEMA`, else `perdure`. Without both, code
      that a worker runs connects to the worker's app, with its codec.
    - `codec`: encrypts what is sent. Give the codec that the app has.
    - `prepare_threshold`: None prepares no statements. Behind a pooler none are prepared anyway.
    - `provision`: install the app if the schema has none, and upgrade an older one. Default: True.
    """
    refuse_clients()
    if (home := home_unless(dsn, schema)) is not None:
        dsn, schema, codec, provision = home.dsn, home.schema, codec or home.codec, False
    source = Source(dsn, schema, prepare_threshold)
    with source.entrusted():
        if provision:
            source.provision()
        return Client(source, codec)
