"""Activities: retries, timeouts, threads, the types of their values, and their cost."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import math
import pickle
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import psycopg
import pydantic
import pytest
from typing_extensions import TypeAliasType

import perdure
from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json

if TYPE_CHECKING:
    from perdure import AsyncEntity

T = "40 s"


@pytest.fixture
def runs() -> Counter[str]:
    return Counter()


@pytest.mark.parametrize("inside", ["coordinator", "hook", "plain hook", "plain coordinator"])
@pytest.mark.parametrize("queue", [None, "elsewhere"])
def test_failing_activity_is_retried(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    runs: Counter[str],
    inside: str,
    queue: str | None,
) -> None:
    @app.activity(retry=perdure.Retry(attempts=3, delay=0.02), queue=queue)
    async def shaky() -> Any:
        runs["shaky"] += 1
        info = perdure.info()
        if info.attempt < 2:
            raise ConnectionError("not yet")
        return [info.attempt, info.kind, info.name, info.key is not None]

    @app.hook(name="hook")
    async def hook(memory: perdure.AsyncEntity) -> Any:
        return await shaky()

    @app.hook(name="plain hook")
    def plain_hook(memory: perdure.Entity) -> Any:
        return shaky()

    @app.coordinator(name="coordinator")
    async def coordinator(memory: perdure.AsyncEntity) -> Any:
        return await shaky()

    @app.coordinator(name="plain coordinator")
    def plain(memory: perdure.Entity) -> Any:
        return shaky()

    @app.coordinator
    async def runs_hook(memory: perdure.AsyncEntity, name: str) -> Any:
        return await perdure.exec_hook(name)

    work(queues=["default", "elsewhere"])
    handle = client.start("runs_hook", inside) if "hook" in inside else client.start(inside)
    assert handle.result(T) == [2, "activity", "shaky", True]
    assert runs["shaky"] == 3


@pytest.mark.parametrize("queue", [None, "default"])
def test_errors_listed_in_never_fail_at_once(
    app: perdure.App, client: perdure.Client, work: Any, runs: Counter[str], queue: str | None
) -> None:
    retry = perdure.Retry(attempts=5, delay=0.01, never=(ValueError, "KeyError"))

    @app.activity(retry=retry, queue=queue)
    async def breaks(what: str) -> None:
        runs[what] += 1
        raise KeyError(what) if what == "key" else ValueError(what)

    @app.coordinator
    async def tries(memory: perdure.AsyncEntity) -> Any:
        outcomes = await asyncio.gather(breaks("key"), breaks("value"), return_exceptions=True)
        return [[type(e).__name__, getattr(e, "type", e), str(e)] for e in outcomes]

    work()
    assert client.start(tries).result(T) == [
        ["ActivityFailed", "KeyError", "KeyError: 'key'"],
        ["ActivityFailed", "ValueError", "ValueError: value"],
    ]
    assert runs == {"key": 1, "value": 1}


def test_invalid_retry_policy_is_rejected_where_it_is_defined(app: perdure.App) -> None:
    policy: Any = perdure.Retry
    for never in (5, (5,), int, (ValueError, None)):
        with pytest.raises(perdure.InvalidArgument, match="does not name exceptions"):
            policy(attempts=3, never=never)
    wrong_attempts = [{"attempts": attempts} for attempts in ("3", 2.5, True)]
    for nonsense in (*wrong_attempts, {"factor": "2"}, {"factor": math.nan}):
        with pytest.raises(perdure.InvalidArgument, match="makes no sense"):
            policy(**nonsense)
    decorators: list[Any] = [app.activity, app.transaction, app.hook, app.coordinator]
    for decorator in decorators:
        wrong_retries = [{"retries": retries} for retries in ("3", -1, True)]
        for wrong in ({"retry": 3}, {"retry": perdure.Retry}, *wrong_retries):
            with pytest.raises(
                perdure.InvalidArgument, match=r"not a retry policy|number of retries"
            ):
                decorator(name="x", **wrong)(lambda *_: None)


@pytest.mark.parametrize("never", [ValueError, "ValueError", "ExceptionGroup", "Lost"])
def test_never_applies_to_the_members_of_an_exception_group(never: Any) -> None:
    """A TaskGroup raises one: another attempt would fail in the same member."""
    lost = perdure.ActivityFailed({"type": "Lost", "message": "it was there before"})
    inner = ExceptionGroup("inner", [ValueError("bad"), lost])
    group = ExceptionGroup("outer", [KeyError("k"), inner])
    assert not perdure.Retry(attempts=3, never=never).allows(group, 1)
    assert perdure.Retry(attempts=3, never="TypeError").allows(group, 1)


@pytest.mark.parametrize("never", [ValueError, "ValueError", [ValueError], (KeyError, ValueError)])
def test_never_accepts_one_exception_or_several(never: Any) -> None:
    retry = perdure.Retry(attempts=3, never=never)
    assert not retry.allows(ValueError(), 1)
    assert retry.allows(OSError(), 1)


def test_pause_is_capped_when_its_growth_overflows() -> None:
    retry = perdure.Retry(attempts=1000, delay=1, factor=1e9, max_delay=60, jitter=0)
    assert [retry.pause(made) for made in (1, 2, 64, 900)] == [1, 60, 60, 60]


def test_pause_grows_to_a_minute_unless_the_delay_is_longer() -> None:
    """Without `max_delay`, pauses grow to one minute, or stay at `delay` if that is longer."""
    hours = perdure.Retry(attempts=9, delay="1 h", jitter=0)
    assert [hours.pause(made) for made in (1, 2, 8)] == [3600, 3600, 3600]
    assert dataclasses.replace(hours, delay="2 h").pause(1) == 7200
    assert [perdure.Retry(jitter=0).pause(made) for made in (1, 2, 8)] == [1, 2, 60]
    assert perdure.Retry(delay="1 h", max_delay="5 min", jitter=0).pause(1) == 300


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(5, 5), ("1 h", 3600), (0.5, 2), (None, 2), ("soon", 2), (-1, 2), (1 / 3 + 3j, 2)],
)
def test_error_may_ask_for_a_longer_pause(
    asked: Any, pause: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A shorter one does not count, and one that is no length of time is shown in the log."""
    retry = perdure.Retry(attempts=9, delay=2, jitter=0, after=lambda error: error.args[0])
    assert retry.pause_after(OSError(asked), 1) == pause
    assert retry.pause_after(OSError(), 1) == 2
    assert ("not a duration" in caplog.text) == (asked in ("soon", 1 / 3 + 3j))
    assert "IndexError" in caplog.text


class RaisingPolicy(perdure.Retry):
    """A user's retry policy that raises an error."""

    def allows(self, error: BaseException, made: int) -> bool:
        raise LookupError(f"no rule for {error}")


class Silent(perdure.PerdureError):
    """A user's error without a message."""

    def __init__(self) -> None:
        pass


def test_work_fails_when_its_retry_policy_raises(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A policy that raises, or an error without a message, must not leave its task held for
    ever."""
    retry = RaisingPolicy(attempts=3)

    @app.activity(retry=retry)
    async def here() -> None:
        raise ValueError("card refused")

    @app.activity(retry=retry, queue="default")
    def dispatched() -> None:
        raise ValueError("card refused")

    @app.activity
    async def silent() -> None:
        raise Silent

    @app.hook(retry=retry)
    async def hook(memory: perdure.AsyncEntity) -> None:
        raise ValueError("card refused")

    @app.coordinator(retry=retry)
    async def tries(memory: perdure.AsyncEntity) -> Any:
        calls = [here(), dispatched(), silent(), hook(memory)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        await memory.set([str(error) for error in errors], "told")
        raise ValueError("card refused")

    work()
    handle = client.start(tries)
    with pytest.raises(perdure.JobFailed, match="LookupError: no rule for card refused"):
        handle.result(T)
    policy_error = "LookupError: no rule for card refused"
    assert handle.memory.get("told") == [policy_error, policy_error, "Silent", policy_error]


def test_log_reports_failed_attempts_and_their_retries(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any
) -> None:
    """Each failed attempt is logged with its error, and with the pause if it is retried.

    The raised `JobFailed` names its job and carries the traceback.
    """
    twice = perdure.Retry(attempts=2, delay=0.01, jitter=0)

    @app.activity(retry=twice)
    async def here() -> None:
        raise ConnectionError("bank down")

    @app.activity(queue="default")
    def dispatched() -> None:
        raise ConnectionError("mail down")

    @app.hook(retry=twice)
    async def hook(memory: perdure.AsyncEntity) -> None:
        raise ValueError("in hook")

    @app.hook
    async def fine(memory: perdure.AsyncEntity) -> None: ...

    @app.coordinator(retry=twice)
    async def pays(memory: perdure.AsyncEntity) -> None:
        await fine(memory)
        calls = here(), dispatched(), hook(memory)
        await asyncio.gather(*calls, return_exceptions=True)
        raise OSError("no more")

    caplog.set_level("DEBUG", "perdure.worker")
    work()
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(pays, id="j").result(T)
    logged = {
        (each.levelname, re.sub(r" \(\S+:\d+\)|(?<=again) (in|at) .*", "", each.message))
        for each in caplog.records
        if "has failed" in each.message
    }
    job, hooked = "<coordinator pays of j, task 1/main>", "<hook hook of j, task hook/"
    pauses = [text.rpartition("again in ")[2] for text in caplog.messages if "again in" in text]
    assert "0.010 s" in pauses
    expected = {
        (
            "INFO",
            f"attempt 1 of activity here of {job} has failed: ConnectionError: bank down; again",
        ),
        ("WARNING", f"attempt 2 of activity here of {job} has failed: ConnectionError: bank down"),
        ("INFO", f"a run of {job} has failed: OSError: no more; again"),
    }
    assert expected <= logged
    assert any(level == "WARNING" and "the job of <coordinator pays of j" in text and
               text.endswith("has failed: OSError: no more") for level, text in logged)  # fmt: skip
    for what, text in (("activity dispatched", "mail down"), (hooked[:10], "in hook")):
        assert any(level == "WARNING" and what in line and text in line for level, line in logged)
    assert any("raise OSError" in each.message for each in caplog.records)
    assert not [each for each in caplog.records if "fine" in each.message]
    assert raised.value.job == "j"
    assert raised.value.__notes__[0].startswith("job j\n\nTraceback (most recent call last):\n")
    assert pickle.loads(pickle.dumps(raised.value)).job == "j"


@pytest.mark.parametrize("queue", [None, "default"])
def test_slow_attempt_times_out(
    app: perdure.App, client: perdure.Client, work: Any, runs: Counter[str], queue: str | None
) -> None:
    @app.activity(timeout=0.1, retries=1, queue=queue)
    async def hangs() -> None:
        runs["hangs"] += 1
        await asyncio.sleep(60)

    @app.activity(timeout=0.1, queue=queue)
    def hangs_plain() -> None:
        time.sleep(0.6)
        runs["plain ended"] += 1

    @app.coordinator
    async def tries(memory: perdure.AsyncEntity) -> Any:
        outcomes = await asyncio.gather(hangs(), hangs_plain(), return_exceptions=True)
        return [str(error) for error in outcomes]

    work()
    assert client.start(tries).result(T) == [
        "TimeoutError: activity hangs took longer than 0.1 s",
        "TimeoutError: activity hangs_plain took longer than 0.1 s",
    ]
    assert runs == {"hangs": 2, "plain ended": runs["plain ended"]}


@pytest.mark.parametrize("inside", ["coordinator", "hook"])
def test_pause_before_a_retry_takes_no_slot_from_others(
    app: perdure.App, client: perdure.Client, work: Any, inside: str
) -> None:
    """Else, while a service is down, tasks that do not need it would wait for the pauses."""
    has_tried, has_run = threading.Event(), threading.Event()

    @app.activity(retry=perdure.Retry(attempts=5, delay=0.2))
    async def needs_other() -> bool:
        has_tried.set()
        if not has_run.is_set():
            raise ConnectionError("the other has not run yet")
        return True

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> bool:
        return await needs_other()

    @app.coordinator
    async def fails(memory: perdure.AsyncEntity) -> bool:
        return await (needs_other() if inside == "coordinator" else hook(memory))

    @app.coordinator
    async def other(memory: perdure.AsyncEntity) -> None:
        has_run.set()

    work(slots=1)
    handle = client.start(fails)
    assert has_tried.wait(10)
    client.start(other, priority=0)
    assert handle.result(T)


def test_status_explains_a_long_pause_before_a_retry(
    app: perdure.App, client: perdure.Client, work: Any, runs: Counter[str], dsn: str
) -> None:
    """The status names the activity that has failed, its error and the time of the next attempt."""

    @app.activity(retry=perdure.Retry(attempts=2, delay="1 h", jitter=0))
    async def shaky() -> int:
        runs["shaky"] += 1
        if runs["shaky"] == 1:
            raise ConnectionError("not yet")
        return perdure.info().attempt

    @app.coordinator
    async def patient(memory: perdure.AsyncEntity) -> Any:
        return await shaky()

    work()
    handle, deadline = client.start(patient), time.monotonic() + 10
    while not (waiting_for := handle.status().waiting_for or "").startswith("attempt"):
        assert time.monotonic() < deadline, waiting_for
        time.sleep(0.01)
    assert waiting_for.startswith("attempt 2 of shaky, after: not yet, its time: ")
    assert handle.status().status == "running"
    assert runs["shaky"] == 1
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)


def test_plain_activities_run_in_parallel_threads(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    barrier = threading.Barrier(3, timeout=5)

    @app.activity
    def meets() -> bool:
        barrier.wait()
        return threading.current_thread() is not threading.main_thread()

    @app.coordinator
    async def together(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(meets(), meets(), meets())

    work()
    assert client.start(together).result(T) == [True, True, True]


@pytest.mark.parametrize("error", [StopIteration, GeneratorExit])
@pytest.mark.parametrize("kind", ["activity", "dispatched", "hook", "transaction"])
def test_stop_iteration_and_generator_exit_fail_the_job(
    app: perdure.App, client: perdure.Client, work: Any, kind: str, error: type[BaseException]
) -> None:
    """Plain code that raises one of these errors fails its job.

    A future cannot carry StopIteration, so without special care the failure would reach nobody.
    """

    def raises_error(*_: Any) -> None:
        raise error

    if kind == "hook":
        app.hook(name="works")(raises_error)
    elif kind == "transaction":
        app.transaction(name="works")(raises_error)
    else:
        app.activity(name="works", queue="elsewhere" if kind == "dispatched" else None)(
            raises_error
        )

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await (app.hooks | app.activities)["works"](*[memory] if kind == "hook" else ())

    work()
    with pytest.raises(perdure.JobFailed, match=error.__name__):
        client.start(asks).result(T)


def test_activity_called_outside_a_job_runs_as_plain_function(app: perdure.App) -> None:
    @app.activity
    def double(number: int) -> int:
        return 2 * number

    @app.activity
    async def triple(number: int) -> int:
        result: int = double(number)
        return 3 * number + result

    assert double(4) == 8
    assert asyncio.run(triple(4)) == 20


def test_activity_can_call_another_activity(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def inner(number: int) -> int:
        return number + 1

    @app.activity
    async def outer(number: int) -> int:
        return 10 * await inner(number)

    @app.coordinator
    async def calls(memory: perdure.AsyncEntity) -> int:
        result: int = await outer(3)
        return result

    work()
    assert client.start(calls).result(T) == 40


def test_activity_cannot_use_durable_clock_or_uuid(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The error says that the call is in an activity, and its hint points to plain Python."""

    @app.activity
    def tries() -> list[str]:
        refused: list[str] = []
        for call in (perdure.now, perdure.uuid, lambda: perdure.sleep(1)):
            try:
                call()
            except perdure.InvalidArgument as error:
                refused.append(f"{error.message}, {'Python' in (error.hint or '')}")
        return refused

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> list[str]:
        return await tries()  # type: ignore[no-any-return]

    work()
    assert client.start(asks).result(T) == [
        f"{name}() was called in an activity, True" for name in ("now", "uuid", "sleep")
    ]


@pytest.mark.parametrize("place", ["coordinator", "hook", "activity"])
def test_thread_of_user_code_needs_a_copy_of_the_context(
    app: perdure.App, client: perdure.Client, work: Any, place: str
) -> None:
    """Calls in a thread without the context are refused with a hint at `copy_context()`; with a
    copy of it, they belong to the job."""

    def refused() -> list[str]:
        calls: dict[str, Callable[[], Any]] = {
            "publish": lambda: perdure.publish("words", "lost"),
            "heartbeat": lambda: perdure.heartbeat(1),
            "info": perdure.info,
            "patched": lambda: perdure.patched("new"),
            "count.start": count.start,
            "insert": insert,
        }
        hints = []
        for name, call in calls.items():
            with pytest.raises(perdure.InvalidArgument) as raised:
                call()
            assert f"{name}() was called in a thread that belongs to no" in raised.value.message
            hints.append("copy_context" in (raised.value.hint or ""))
        return hints

    def threads() -> tuple[list[bool], str]:
        with ThreadPoolExecutor(1) as pool:
            hints = pool.submit(refused).result()
            if place == "coordinator":
                return hints, perdure.info().job
            pool.submit(contextvars.copy_context().run, perdure.publish, "words", "kept").result()
            return hints, pool.submit(contextvars.copy_context().run, perdure.info).result().job

    @app.transaction
    def insert(connection: psycopg.Connection[Any]) -> None:
        """Do nothing: the call is refused before."""

    count = app.activity(lambda: 1, name="count")
    activity = app.activity(threads, name="activity")
    hook = app.hook(lambda memory: threads(), name="hook")

    @app.coordinator
    def coordinator(memory: perdure.Entity) -> Any:
        if place == "coordinator":
            return threads()
        return activity() if place == "activity" else hook(memory)

    work()
    handle = client.start(coordinator, id="j")
    assert handle.result(T) == [[True] * 6, "j"]
    words = [] if place == "coordinator" else ["kept"]
    assert [item.item for item in handle.stream("words")] == words


class Page(pydantic.BaseModel):
    number: int
    words: list[str] = []


@dataclass
class Note:
    text: str
    page: Page


def test_arguments_and_results_keep_their_types(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def read(number: int) -> Page:
        return Page(number=number, words=["a"])

    @app.hook
    async def annotate(memory: perdure.AsyncEntity, page: Page) -> Note:
        assert isinstance(page, Page)
        await memory.set(page, "page")
        return Note("seen", page)

    @app.coordinator
    async def typed(memory: perdure.AsyncEntity, pages: list[Page]) -> list[Note]:
        first = await read(7)
        assert isinstance(first, Page)
        notes = [await annotate(memory, page) for page in [first, *pages]]
        assert all(isinstance(note, Note) for note in notes)
        return notes

    work()
    notes = client.start(typed, [Page(number=1)]).result(T)
    assert notes == [Note("seen", Page(number=7, words=["a"])), Note("seen", Page(number=1))]


class Reader:
    """An object that can be called."""

    def __init__(self, first: int):
        self.first = first

    def __call__(self, page: Page, *, last: Page | None = None) -> Page:
        assert isinstance(page, Page)
        return Page(number=self.first + page.number + (last.number if last else 0))


class AsyncReader(Reader):
    async def __call__(self, page: Page, *, last: Page | None = None) -> Page:  # type: ignore[override]
        return super().__call__(page, last=last)


def added(words: list[str], page: Page) -> Page:
    assert isinstance(page, Page)
    return Page(number=page.number, words=page.words + words)


class Answerer:
    async def __call__(self, memory: AsyncEntity, page: Page) -> Page:
        await memory.set(page, "page")
        return added(["b"], page)


@pytest.mark.parametrize(
    "read",
    [
        Reader(1),
        AsyncReader(1),
        partial(added, ["a"]),
        partial(Reader(1), last=Page(number=2)),
        partial(partial(AsyncReader(1)), last=Page(number=2)),
    ],
    ids=["object", "async object", "partial", "partial object", "partial of partial"],
)
def test_callable_objects_and_partials_are_typed(
    app: perdure.App, client: perdure.Client, work: Any, read: Any
) -> None:
    """Objects with `__call__`, and partials, take and return the annotated types, not dicts."""
    activity: Any = app.activity(read, name="read")
    hook: Any = app.hook(partial(Answerer()), name="answer")

    @app.coordinator
    async def typed(memory: AsyncEntity, page: Page) -> list[bool]:
        found = [await activity(page), await hook(memory, page)]
        return [isinstance(each, Page) for each in found]

    async def adds(words: list[str], memory: AsyncEntity, page: Page) -> Page:
        return added(words, await activity(page))

    bound: Any = app.coordinator(partial(adds, ["c"]), name="held")
    work()
    assert client.start(typed, Page(number=1)).result(T) == [True, True]
    assert client.start(bound, Page(number=1)).result(T).words[-1] == "c"


Item = TypeVar("Item")
OrderId = NewType("OrderId", UUID)


@dataclass
class Box(Generic[Item]):
    item: Item
    others: list[Item]
    owner: Elsewhere | None = None  # type: ignore[name-defined]  # noqa: F821


class Range(NamedTuple):
    first: Page
    size: int = 1


def test_readable_annotations_are_used_beside_unreadable_ones(
    app: perdure.App, client: perdure.Client, work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that is imported only for the type checker does not disable the other annotations.

    A field that cannot be read is logged once: without a word, a dict would arrive instead of its
    type.
    """

    @app.coordinator
    async def typed(
        memory: AsyncEntity, id: OrderId, box: Box[Page], read: Range, **pages: Page
    ) -> list[str]:
        given = (id, box, box.item, *box.others, read, read.first, *pages.values())
        return [type(each).__name__ for each in given]

    work()
    page = Page(number=1)
    args = {"id": UUID(int=1), "box": Box(page, [page]), "read": Range(page), "more": page}
    (handle,) = client.start_many(typed, [{"args": args}])
    names = ["UUID", "Box", "Page", "Page", "Range", "Page", "Page"]
    assert handle.result(T) == names
    (warning,) = [each.message for each in caplog.records if each.name == "perdure.types"]
    assert "'owner' in Box cannot be read" in warning
    assert "name 'Elsewhere' is not defined" in warning


class Reply(pydantic.BaseModel):
    text: str


class Call(pydantic.BaseModel):
    text: str
    tool: str = "none"


@dataclass
class Seen:
    text: str


@dataclass
class SeenAt:
    text: str
    place: int = 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Reply | Call, Call(text="a", tool="b")),
        (Reply | Call, Call(text="a")),
        (Call | Reply, Reply(text="a")),
        (Call | Reply | None, Reply(text="a")),
        (Seen | SeenAt, SeenAt("a", 1)),
        (SeenAt | Seen, Seen("a")),
        (list[Seen | Call], [Call(text="a"), Seen("b")]),
    ],
)
def test_union_value_keeps_its_type(kind: Any, value: Any) -> None:
    """A stored value is read as the type that was written, even if an earlier one fits it."""
    assert decoder(kind)(as_stored(to_json(value))) == value


def test_union_reads_values_of_older_versions_as_first_type_that_fits() -> None:
    assert decoder(SeenAt | Call)({"text": "a", "more": 1}) == SeenAt("a")
    with pytest.raises(TypeError, match="fits none of Seen, Call"):
        decoder(Seen | Call)("a")


class Options(TypedDict, total=False):
    loud: bool


@pytest.mark.parametrize("value", ["", "ab", 3, True])
@pytest.mark.parametrize(
    "kind", [list[Page], dict[str, Page], tuple[int, ...], tuple[str, str], SeenAt, Options, Range]
)
def test_text_or_number_is_not_read_as_a_collection(kind: Any, value: Any) -> None:
    """In a union with `str`, an empty text must not become an empty list, nor "ab" a pair."""
    assert decoder(kind | str | int)(value) == value
    with pytest.raises(TypeError):
        decoder(kind)(value)


def test_type_alias_is_read_as_its_type() -> None:
    """Python 3.12 makes such an alias of `type Step = Reply | Call`."""
    step = TypeAliasType("step", Reply | Call)  # type: ignore[misc]
    value = Call(text="a", tool="b")
    assert decoder(step)(to_json(value)) == value
    assert decoder(list[step])(to_json([value])) == [value]  # type: ignore[valid-type]
    plain = TypeAliasType("plain", list[int])
    assert decoder(plain) is decoder(list[int])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no `type` statement")
def test_type_alias_can_be_recursive_or_generic() -> None:
    names: dict[str, Any] = {"Page": Page}
    exec("type Tree = list[Tree] | Page\ntype Pair[T] = tuple[T, Page]", names)
    tree = [[Page(number=1)], Page(number=2)]
    assert decoder(names["Tree"])(to_json(tree)) == tree
    assert decoder(names["Pair"][Page])(to_json(tree[1:] * 2)) == (tree[1], tree[1])


def test_activity_in_a_chain_costs_one_write(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any
) -> None:
    @app.activity
    async def step(number: int) -> int:
        return number

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity, length: int) -> int:
        return sum([await step(n) for n in range(length)])

    connection.execute(
        "create table public.calls (n integer);"
        " create function public.count_call() returns trigger language plpgsql as"
        " 'begin insert into public.calls values (1); return null; end';"
        " create trigger counted after insert on perdure.journal for each statement"
        " execute function public.count_call()"
    )
    work()
    assert client.start(chain, 10).result(T) == 45
    (writes,) = connection.execute("select count(*) from public.calls").fetchone()
    assert writes == 10  # the last one also finishes the job
    times = connection.execute("select count(distinct at) from journal").fetchone()
    assert times == (10,)


def test_info_with_progress_and_headers_can_be_hashed() -> None:
    """`functools.cache` needs that of every argument."""
    info = perdure.Info("j", "t", "n", "activity", headers={"a": 1}, progress={"page": 1})
    assert hash(info) == hash(perdure.Info("j", "t", "n", "activity"))
