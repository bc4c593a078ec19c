"""The worker: its options, and the event loop that serves, in this thread or in its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
import uuid
from asyncio.events import _get_running_loop
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Self

from perdure.basics.arguments import INTEGER, TEXT, check_argument, listed
from perdure.basics.durations import Duration, seconds
from perdure.basics.names import check_name, check_queue
from perdure.basics.threads import Threads, beside, in_thread
from perdure.database.source import Source
from perdure.errors import InvalidArgument
from perdure.workflow.app import App, check_app

from .engine import Engine
from .event_loop import close_loop, new_loop, run_to_end
from .hook_tasks import make_task
from .provisioning import Provisioning
from .service import Service, ends_before

logger = logging.getLogger("perdure.worker")

INSTANCE = "PERDURE_INSTANCE"

YOUNG_OBJECTS = 50_000
"""How many objects may be created before the collector looks at them: a few hundred workflows in
hand are tens of thousands, and all of them are freed by themselves. Only the user's code makes
cycles."""

BESIDE = min(32, (os.cpu_count() or 1) + 4)
"""Number of threads for `asyncio.to_thread()` of async code: as many as asyncio itself has."""

SHORTEST_LEASE, LONGEST_LEASE = 0.1, 86_400
"""Seconds, as the database has them."""

ONE_REQUEST = 0.25
"""Seconds within which a second signal is the first one again: `timeout` sends one to its child and
one to the process group, and a supervisor may forward the Ctrl-C that the group got too."""


class Worker:
    """Run an app's coordinators, hooks and activities: `with perdure.Worker(app): ...`

    As a context manager it runs in a thread of this process. `run()` blocks until SIGTERM or
    SIGINT.

    - `queues`: default all that the app's functions name. `dsn`, `schema`: as for `connect()`.
    - `version`: default that of the app. The worker also serves what is pinned to it on these
      queues.
    - `slots`: how many tasks it has in hand at a time (100). `cache`: how many parked coordinators
      stay in memory (1000).
    - `lease`: how long its tasks are its own without a sign of life (30 s).
    - `poll`: how often it looks for work without a notification (5 s).
    - `grace`: how long running work may take to end when the worker stops (10 s).
    - `prepare_threshold`: None prepares no statements. Behind a pooler there are no prepared
      statements or notifications.
    - `provision`: install or upgrade the app first. Default: True.
    - `instance`: the only instance of the app that it serves, default `$PERDURE_INSTANCE`; `perdure
      adopt` prints it. Such a worker creates no app.
    """

    _make_engine: Callable[..., Engine] = Engine
    _asked_at = 0.0  # when the first signal came
    _owns_process = False  # as `perdure worker` does

    def __init__(
        self,
        app: App,
        queues: Sequence[str] | None = None,
        *,
        version: str | None = None,
        dsn: str | None = None,
        schema: str | None = None,
        slots: int = 100,
        lease: Duration = 30,
        poll: Duration = 5,
        grace: Duration = 10,
        cache: int = 1000,
        prepare_threshold: int | None = 0,
        provision: bool = True,
        instance: str | None = None,
    ):
        check_app(app)
        self._queues = app.queues() if queues is None else listed("queues", queues)
        _check_work(self._queues, slots, seconds(poll), cache)
        check_lease(lease)
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._app = app
        self._version = _version_of(app, version)
        self._dsn = dsn
        self._schema = schema
        self._slots = slots
        self._lease = seconds(lease)
        self._poll = seconds(poll)
        self._grace = seconds(grace)
        self._cache = cache
        self._prepare_threshold = prepare_threshold
        self._provision = provision
        self._instance = _instance_of(instance)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._is_told_to_stop = False
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.name} of {', '.join(self._queues)}>"

    # In a thread.

    def start(self) -> Self:
        """Run in a thread of this process; return when the worker is ready.

        Raises InvalidArgument if it runs already, or the error that keeps it from working.
        """
        self._is_told_to_stop = False
        return self._start()

    def _start(self) -> Self:
        if self._thread is not None:
            raise InvalidArgument("this worker is already running", hint="Make another one.")
        self._started.clear()
        self._thread = threading.Thread(target=self._run_in_thread, name="perdure-worker")
        self._thread.daemon = True
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C: nobody would have the worker
            with suppress(Exception):  # the log says why it has ended
                self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            self._thread = None  # so that it can be started again
            raise self._error
        return self

    def stop(self) -> None:
        """Stop: finish what can be finished within the grace, and give back the rest.

        A worker that is just installing its app breaks that off. A `run()` that has yet to begin
        ends at once.
        """
        self._tell_to_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _tell_to_stop(self) -> None:
        """Tell the loop to stop, or the one that has yet to begin."""
        self._is_told_to_stop = True
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(stopping.set)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Start without blocking the event loop."""
        self._is_told_to_stop = False
        try:
            await beside(self._start, on_cancel=self._tell_to_stop)
        except asyncio.CancelledError:
            with suppress(Exception):  # the log says why it has ended
                await beside(self.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop without blocking the event loop."""
        await beside(self.stop)

    def _run_in_thread(self) -> None:
        self._error = None  # left by an earlier start
        try:
            self._run(handles_signals=False)
        except BaseException as error:
            self._error = error
            logger.exception("the worker has ended")
        finally:
            self._started.set()

    # In this thread.

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; a second signal ends the process at once.

        In the main thread, so does code that hangs until all leases have ended: exit code 1.

        Raises InvalidArgument inside a running event loop: use `start()` there.
        """
        if _get_running_loop() is not None:
            raise InvalidArgument(
                "a worker was run inside a running event loop",
                detail="run() has an event loop of its own, and blocks until the worker stops.",
                hint="Run it in a thread: start() and stop(), or `with worker:`.",
            )
        gc.freeze()  # loaded modules stay, so the collector need not check them
        gc.set_threshold(YOUNG_OBJECTS)
        self._run(handles_signals=threading.current_thread() is threading.main_thread())

    def _run(self, *, handles_signals: bool) -> None:
        if os.environ.get("PYTHONHASHSEED", "random") == "random":
            logger.log(
                logging.WARNING if handles_signals else logging.INFO,
                "PYTHONHASHSEED is not fixed: sets of text iterate differently elsewhere",
            )
        self._owns_process = handles_signals
        with ExitStack() as ending:  # cleans up when the loop has ended
            loop = new_loop()
            loop.set_default_executor(Threads(BESIDE, "perdure-beside"))
            try:
                if handles_signals:  # from here on only code raises KeyboardInterrupt
                    for number in (signal.SIGTERM, signal.SIGINT):
                        loop.add_signal_handler(number, self._asked_to_stop)
                run_to_end(loop, self._main(ending))
            finally:
                self._is_told_to_stop = False
                close_loop(loop)

    async def _main(self, ending: ExitStack) -> None:
        self._stopping = stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_told_to_stop:
            stopping.set()
        self._loop.set_task_factory(make_task)
        source = await in_thread(lambda: Source(self._dsn, self._schema, self._prepare_threshold))
        ending.callback(source.close)
        if stopping.is_set():
            return
        if not self._provision or await self._is_provisioned(source, stopping):
            await self._serve(source, stopping)

    async def _is_provisioned(self, source: Source, stopping: asyncio.Event) -> bool:
        """Install or upgrade the app; return False if asked to stop meanwhile."""
        provisioning = Provisioning(source, makes=self._instance is None)
        if await ends_before(stopping, provisioning.running):
            return True
        await provisioning.break_off()
        return False

    async def _serve(self, source: Source, stopping: asyncio.Event) -> None:
        engine = self._make_engine(
            self._app,
            source,
            queues=self._queues,
            name=self.name,
            slots=self._slots,
            lease_for=self._lease,
            poll=self._poll,
            cache=self._cache,
        )
        service = Service(
            engine, stopping, version=self._version, instance=self._instance, grace=self._grace
        )
        await service.run(on_ready=self._started.set, is_watched=self._owns_process)

    def _asked_to_stop(self) -> None:
        assert self._stopping is not None
        if not self._stopping.is_set():
            logger.info("the worker is asked to stop")
            self._stopping.set()
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > ONE_REQUEST:
            logger.warning("a second signal: the worker ends at once")
            os._exit(1)


def _check_work(queues: Sequence[str], slots: int, poll: float, cache: int) -> None:
    """Refuse a worker without work or without pauses. Raises InvalidArgument and InvalidName."""
    check_argument("slots", slots, INTEGER)
    check_argument("cache", cache, INTEGER)
    if cache < 0:
        raise InvalidArgument(f"a worker cannot keep {cache} coordinators", hint="Use cache=1000.")
    if not queues or slots < 1:
        raise InvalidArgument(
            "a worker needs a list of queues and at least one slot",
            detail=f"It was given {slots} slots, and the queues {list(queues)}."[:500],
            hint="Give queues, or register functions; give at least 1 slot.",
        )
    if poll <= 0:
        raise InvalidArgument("a worker needs a poll interval above 0", hint="Use poll=5.")
    for queue in queues:
        check_queue(queue)


def check_lease(lease: Duration) -> None:
    """Refuse a lease that no claim would get, in the words of the database."""
    if not SHORTEST_LEASE <= seconds(lease) <= LONGEST_LEASE:
        raise InvalidArgument(
            "a lease must last between 100 ms and 1 day",
            detail=f"It was given {lease!r}."[:500],
            hint="Choose how long a lost worker may keep its tasks: 30 s is a good length.",
        )


def _version_of(app: App, version: str | None) -> str | None:
    """Return the version of the code. Raises InvalidArgument if the app has another."""
    if version is not None:
        check_name(version, "a version")
    if version is not None and app.version not in (None, version):
        raise InvalidArgument(
            f"the app has version {app.version}, but its worker was given {version}",
            hint="Give the version only to the app.",
        )
    return version or app.version


def _instance_of(given: str | None) -> str | None:
    """Return the only instance that is served, if there is one. Raises InvalidArgument."""
    if given is not None:
        check_argument("instance", given, TEXT)
    instance = given or os.environ.get(INSTANCE)
    if not instance:
        return None
    try:
        return str(uuid.UUID(instance))
    except ValueError:
        raise InvalidArgument(
            f"{instance!r} is not an instance of an app"[:500],
            detail="An instance is a UUID that names an app at one place.",
            hint="Give the instance that `perdure adopt` has printed, or leave it out.",
        ) from None
