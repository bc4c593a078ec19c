"""Traces: OpenTelemetry spans for what workers run, and the context that connects them.

    app = perdure.App(tracer=trace.get_tracer("agents"))
    client.start(research, "q", headers=tracing.headers())

The headers of a job name its trace as W3C defines it (`traceparent`), so clients in any language
can give them. A job without headers has a trace of its own, derived from its id. Spans show what
workers did; the journal is the truth.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags

from perdure.errors import Failed, InvalidArgument

if TYPE_CHECKING:
    from perdure.workers.turns import Json
    from perdure.workflow.context import Info

logger = logging.getLogger("perdure.worker")

_LOST = "a span is lost: the tracer has failed"

_NOWHERE = Context()
"""An empty context: the spans of a worker belong to the trace of a job, not to what started the
worker."""

_NANOSECONDS = 1000
"""In a microsecond."""


def headers() -> dict[str, str]:
    """Return headers for a job that is started here, so that it joins the running span's trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def _harmless() -> Iterator[None]:
    """Let work continue if the tracer, a sampler or a processor of the user fails."""
    try:
        yield
    except Exception:
        logger.exception(_LOST)


class AttemptSpan:
    """One attempt under way: its span, the parent of all that its code runs."""

    def __init__(self, span: Span):
        self._span = span

    def end(self, state: str, failure: Failed | None = None) -> None:
        """Record how it ended: `done`, `failed`, `retry`, `cancelled`, `park` or `drop`.

        A hook in SQL may also end as `stuck`, `waiting` or `gone`.
        """
        with _harmless():
            _tell(self._span, state, failure)
            self._span.end()


class Tracing:
    """Makes the spans of one app: `Tracing(tracer)`. Raises InvalidArgument for another object."""

    def __init__(self, tracer: trace.Tracer):
        if not isinstance(tracer, trace.Tracer):
            raise InvalidArgument(
                f"{tracer!r} is not a tracer"[:500],
                hint='Give an OpenTelemetry tracer: opentelemetry.trace.get_tracer("my_app").',
            )
        self._tracer = tracer

    def begin(
        self, info: Info, instance: str | None, context: contextvars.Context
    ) -> AttemptSpan | None:
        """Begin the span of an attempt: the current one of all that will run in the context."""
        try:
            around = _around(info, instance)
            span = self._span(info, around, f"{info.kind} {info.name}")
            context.run(otel.attach, trace.set_span_in_context(span, around))
        except Exception:
            logger.exception(_LOST)
            return None
        return AttemptSpan(span)

    def ended(
        self, info: Info, instance: str | None, began: int, state: str, failure: Failed | None
    ) -> None:
        """Record a run of a workflow that has ended, and began at an instant (µs)."""
        with _harmless():
            around = _around(info, instance)
            span = self._span(info, around, f"workflow {info.workflow}", began * _NANOSECONDS)
            _tell(span, state, failure)
            span.end()

    def carried(self, row: Json, instance: str | None) -> dict[str, str]:
        """Return the headers of a child of a claimed row's job, which belongs to the same trace."""
        carrier: dict[str, str] = {}
        with _harmless():
            propagate.inject(carrier, _trace_of(row["headers"], instance, row["job"]))
        return carrier

    def _span(self, info: Info, around: Context, name: str, start: int | None = None) -> Span:
        told = {
            "perdure.job": info.job,
            "perdure.task": info.task,
            "perdure.workflow": info.workflow,
            "perdure.entity": info.entity,
            "perdure.queue": info.queue,
            "perdure.key": info.key,
            "perdure.run": info.run,
            "perdure.attempt": info.attempt,
        }
        return self._tracer.start_span(
            name,
            around,
            attributes={key: value for key, value in told.items() if value is not None},
            start_time=start,
        )


def _around(info: Info, instance: str | None) -> Context:
    """Return the parent of an attempt: the hook that runs here, or the trace of its job."""
    is_inside = trace.get_current_span().get_span_context().is_valid
    return otel.get_current() if is_inside else _trace_of(info.headers, instance, info.job)


def _trace_of(headers: Any, instance: str | None, job: str) -> Context:
    """Return the trace that headers name, or that of the job itself."""
    known = headers.items() if isinstance(headers, dict) else ()
    carrier = {name: value for name, value in known if isinstance(value, str)}
    context = propagate.extract(carrier, _NOWHERE)
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    digest = blake2b(f"{instance}/{job}".encode(), digest_size=24).digest()
    own = SpanContext(
        trace_id=int.from_bytes(digest[:16]),
        span_id=int.from_bytes(digest[16:]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(NonRecordingSpan(own), context)


def _tell(span: Span, state: str, failure: Failed | None) -> None:
    span.set_attribute("perdure.state", state)
    if failure is None:
        if state in ("failed", "retry", "stuck"):  # for a hook in SQL the database keeps the reason
            span.set_status(Status(StatusCode.ERROR))
        return
    told = {name: failure.get(name) for name in ("type", "message", "traceback")}
    span.add_event(
        "exception",
        {
            "exception.type": str(told["type"]),
            "exception.message": str(told["message"]),
            "exception.stacktrace": str(told["traceback"] or ""),
        },
    )
    span.set_status(Status(StatusCode.ERROR, f"{told['type']}: {told['message']}"))
