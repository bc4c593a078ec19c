"""Traces: the spans that workers create, and the traces to which they belong."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

import perdure
from perdure import tracing
from tests.patience import wait_until

T = 20.0
Connection = psycopg.Connection[Any]
OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Give an exporter that keeps the spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> trace.Tracer:
    """Give a tracer."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


@pytest.fixture
def app(tracer: trace.Tracer) -> perdure.App:
    """Give an app that creates spans."""
    return perdure.App(tracer=tracer)


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[[], dict[str, list[ReadableSpan]]]:
    """Give a function that lists the ended spans by name."""

    def by_name() -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    return by_name


def parent_of(span: ReadableSpan) -> str:
    """Give the parent of a span, as W3C writes it."""
    assert span.context is not None
    assert span.parent is not None
    assert span.parent.trace_id == span.context.trace_id
    return f"00-{format_trace_id(span.parent.trace_id)}-{format_span_id(span.parent.span_id)}-01"


def attribute(span: ReadableSpan, name: str) -> Any:
    """Give one of perdure's attributes."""
    assert span.attributes is not None
    return span.attributes.get(f"perdure.{name}")


def test_spans_of_a_job_are_under_the_span_that_started_it(
    app: perdure.App,
    client: perdure.Client,
    tracer: trace.Tracer,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
) -> None:
    """This includes the spans that the user's code creates in hooks and activities."""

    @app.activity
    async def ask(question: str) -> str:
        with tracer.start_as_current_span("model"):
            return question.upper()

    @app.activity
    def look(place: str) -> str:
        with tracer.start_as_current_span("disk"):
            return place

    @app.hook
    async def view(memory: perdure.AsyncEntity, question: str) -> None:
        await memory.set(await ask(question), "answer")

    @app.hook
    def see(memory: perdure.Entity) -> None:
        memory.set(look("here"), "place")

    @app.coordinator(entity="talk")
    async def research(memory: perdure.AsyncEntity, question: str) -> Any:
        await asyncio.gather(view(memory, question), see(memory))
        await look("there")
        return await memory.get()

    work()
    with tracer.start_as_current_span("request") as request:
        handle = client.start(research, "why", id="r", headers=tracing.headers())
        assert handle.result(T) == {"answer": "WHY", "place": "here"}
    found = spans()
    top = request.get_span_context()
    root = f"00-{format_trace_id(top.trace_id)}-{format_span_id(top.span_id)}-01"

    def within(name: str) -> str:
        (span,) = found[name]
        assert span.context is not None
        own = span.context
        return f"00-{format_trace_id(own.trace_id)}-{format_span_id(own.span_id)}-01"

    for name in ("workflow research", "hook view", "hook see"):
        (span,) = found[name]
        assert parent_of(span) == root
        assert attribute(span, "job") == "r"
        assert attribute(span, "entity") == "talk"
        assert attribute(span, "state") == "done"
        assert span.status.status_code is StatusCode.UNSET
    assert parent_of(found["activity ask"][0]) == within("hook view")
    assert parent_of(found["model"][0]) == within("activity ask")
    assert {parent_of(span) for span in found["activity look"]} == {root, within("hook see")}
    assert len(found["disk"]) == 2


def test_workflow_has_one_span_from_its_start_to_its_end(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
) -> None:
    """The coordinator leaves memory in between."""

    @app.coordinator
    async def sleeps(memory: perdure.AsyncEntity) -> None:
        await perdure.sleep(0.3)

    work()
    client.start(sleeps).result(T)
    wait_until(lambda: "workflow sleeps" in spans())
    (span,) = spans()["workflow sleeps"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 0.29e9


def test_each_attempt_has_a_span_with_its_failure(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
) -> None:
    """[P4] An attempt that is retried has the status of an error, too, and the state `retry`."""
    left = {"activity": [1], "hook": [1]}

    @app.activity(retry=perdure.Retry(attempts=2, delay=0.001))
    async def flaky() -> None:
        if left["activity"] and left["activity"].pop():
            raise ValueError("not yet")

    @app.hook(retry=perdure.Retry(attempts=2, delay=0.001))
    async def shaky(memory: perdure.AsyncEntity) -> None:
        if left["hook"] and left["hook"].pop():
            raise ValueError("not yet")

    @app.coordinator
    async def tries(memory: perdure.AsyncEntity) -> None:
        await flaky()
        await shaky(memory)
        raise RuntimeError("in vain")

    work()
    with pytest.raises(perdure.JobFailed):
        client.start(tries).result(T)
    for name in ("activity flaky", "hook shaky"):
        first, second = spans()[name]
        assert [attribute(first, "state"), attribute(second, "state")] == ["retry", "done"]
        assert [attribute(first, "attempt"), attribute(second, "attempt")] == [0, 1]
        assert first.status.status_code is StatusCode.ERROR
        assert first.status.description == "ValueError: not yet"
        (event,) = first.events
        assert event.attributes is not None
        assert event.attributes["exception.type"] == "ValueError"
        assert "raise ValueError" in str(event.attributes["exception.stacktrace"])
        assert second.status.status_code is StatusCode.UNSET
    (run,) = spans()["workflow tries"]
    assert attribute(run, "state") == "failed"
    assert run.status.description == "RuntimeError: in vain"


FUNCTIONS = """
create function public.add_up(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    return entity_increment(job, 'n', (args ->> 0)::numeric);
end $$;
create function public.in_vain(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    raise exception 'no';
end $$;
"""


def test_sql_hook_has_a_span_for_each_attempt(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    connection: Connection,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
) -> None:
    """[P4] Tasks of perdure's own, such as the deadline of a job, have no span."""
    connection.execute(FUNCTIONS)
    client.register_sql_hook("add up", "public.add_up")
    client.register_sql_hook("in vain", "public.in_vain", attempts=2, retry_in="1 ms")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        await memory.set({"n": 0})
        with pytest.raises(perdure.HookFailed):
            await perdure.exec_hook("in vain", queue=perdure.SQL_QUEUE)
        return int(await perdure.exec_hook("add up", 2, queue=perdure.SQL_QUEUE))

    work()
    handle = client.start(asks, timeout=T, headers={"traceparent": OWN})
    assert handle.result(T) == 2
    (added,) = spans()["hook add up"]
    first, second = spans()["hook in vain"]
    assert [parent_of(span) for span in (first, second, added)] == [OWN] * 3
    assert [attribute(span, "state") for span in (first, second, added)] == [
        "retry",
        "failed",
        "done",
    ]
    assert [attribute(span, "attempt") for span in (first, second)] == [0, 1]
    assert first.status.status_code is second.status.status_code is StatusCode.ERROR
    assert added.status.status_code is StatusCode.UNSET
    assert not [name for name in spans() if "$" in name]


@pytest.mark.parametrize("is_async", [True, False])
def test_hook_that_leaves_memory_has_a_span_for_each_turn(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
    is_async: bool,
) -> None:
    """All spans but the last one have the state `park`."""
    if is_async:

        @app.hook(name="waits")
        async def waits(memory: perdure.AsyncEntity) -> Any:
            return await perdure.wait_for("go")
    else:

        @app.hook(name="waits")
        def waits(memory: perdure.Entity) -> Any:
            return perdure.wait_for("go")

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await waits(memory)

    work(slots=1)
    handle = client.start(parent)
    wait_until(lambda: "hook waits" in spans())
    handle.signal("go", 1)
    assert handle.result(T) == 1
    wait_until(lambda: len(spans()["hook waits"]) > 1)
    states = [attribute(span, "state") for span in spans()["hook waits"]]
    assert states[-1] == "done"
    assert set(states[:-1]) == {"park"}


@pytest.mark.parametrize("by", ["coordinator", "hook"])
@pytest.mark.parametrize("headers", [None, {"traceparent": OWN, "tenant": 7}])
def test_parent_and_child_belong_to_one_trace(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
    headers: Any,
    by: str,
) -> None:
    """If the parent is started without a trace, it begins one of its own."""

    @app.coordinator
    async def kid(memory: perdure.AsyncEntity) -> Any:
        return perdure.info().headers

    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await perdure.child(kid)

    hook = app.hook(asks)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await (asks(memory) if by == "coordinator" else hook(memory))

    work()
    carried = client.start(parent, headers=headers).result(T)
    wait_until(lambda: {"workflow parent", "workflow kid"} <= spans().keys())
    parents = {parent_of(spans()[name][0]) for name in ("workflow parent", "workflow kid")}
    assert parents == {carried["traceparent"]}
    assert carried.keys() == {"traceparent"}
    assert headers is None or parents == {OWN}


def test_baggage_reaches_activities_hooks_and_children(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The headers carry it from the start of the job."""

    @app.activity
    async def carried() -> Any:
        return baggage.get_baggage("tenant")

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> Any:
        return [baggage.get_baggage("tenant"), await carried()]

    @app.coordinator
    async def kid(memory: perdure.AsyncEntity) -> Any:
        return await carried()

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return [await carried(), *await hook(memory), await perdure.child(kid)]

    work()
    token = attach(baggage.set_baggage("tenant", "acme"))
    try:
        handle = client.start(parent, headers=tracing.headers())
    finally:
        detach(token)
    assert handle.result(T) == ["acme"] * 4


@pytest.mark.parametrize("headers", [7, {"traceparent": 7}, {"traceparent": "mine"}, {}])
def test_headers_without_a_valid_trace_are_passed_on_unchanged(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
    headers: Any,
) -> None:
    """They are the user's. The job begins a trace of its own."""

    @app.coordinator
    async def plain(memory: perdure.AsyncEntity) -> Any:
        return perdure.info().headers

    work()
    assert client.start(plain, headers=headers).result(T) == headers
    wait_until(lambda: "workflow plain" in spans())
    assert parent_of(spans()["workflow plain"][0])


def test_two_jobs_have_two_traces(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    spans: Callable[[], dict[str, list[ReadableSpan]]],
) -> None:
    """The spans of their activities belong to these."""

    @app.activity
    async def step() -> None:
        """Do nothing."""

    @app.coordinator
    async def plain(memory: perdure.AsyncEntity) -> None:
        await step()

    work()
    for _ in range(2):
        client.start(plain).result(T)
    wait_until(lambda: len(spans().get("workflow plain", ())) == 2)
    traces = {parent_of(span) for span in spans()["workflow plain"]}
    assert len(traces) == 2
    assert {parent_of(span) for span in spans()["activity step"]} == traces


class Broken(SpanProcessor):
    """A span processor that fails on request, as an exporter of the user's may fail."""

    def __init__(self, where: str):
        self._where = where

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Fail if asked to."""
        if self._where == "start":
            raise RuntimeError("no room")

    def on_end(self, span: ReadableSpan) -> None:
        """Fail if asked to."""
        if self._where == "end":
            raise RuntimeError("no room")


@pytest.mark.parametrize("where", ["start", "end"])
def test_failing_tracer_does_not_fail_the_job(
    client: perdure.Client, work: Any, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """[P1] Its spans are lost, and the log says so."""
    provider = TracerProvider()
    provider.add_span_processor(Broken(where))
    app = perdure.App(tracer=provider.get_tracer("broken"))

    @app.activity
    async def step() -> int:
        return 1

    @app.hook
    async def add(memory: perdure.AsyncEntity) -> None:
        await memory.increment("n", await step())

    @app.coordinator
    async def plain(memory: perdure.AsyncEntity) -> Any:
        await add(memory)
        return await step() + await memory.get("n")

    work(app)
    assert client.start(plain).result(T) == 2
    assert "a span is lost" in caplog.text


def test_headers_outside_of_a_span_are_empty() -> None:
    assert contextvars.Context().run(tracing.headers) == {}


def test_invalid_tracer_is_rejected() -> None:
    with pytest.raises(perdure.InvalidArgument, match="'me' is not a tracer"):
        perdure.App(tracer="me")  # type: ignore[arg-type]
