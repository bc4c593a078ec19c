"""Differences between the code and its journal, in words, as a stuck task shows them.

They are stored unencrypted, also under a codec: they name calls and types, and contain no value,
except for `other_outcome()`, which is shown to the person who replays a job.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from perdure.errors import NonDeterminism

from .facts import Fact, OpenOperation

MAX_SHOWN = 10


def other_answer(
    identity: str, position: int, fact: Fact, operations: Collection[OpenOperation]
) -> NonDeterminism:
    """Say that the code waits for something else than the journal has recorded."""
    return _difference(identity, position, fact, f"the code waits for {listed(operations)}")


def other_arguments(
    identity: str, position: int, fact: Fact, operation: OpenOperation
) -> NonDeterminism:
    """Say that the code makes the call with other arguments."""
    call = _shown(operation.kind, operation.key, operation.fingerprint)
    return _difference(identity, position, fact, f"the code calls {call}: other arguments")


def other_end(
    identity: str, position: int, fact: Fact, raised: BaseException | None
) -> NonDeterminism:
    """Say that the code has finished, or raised, before the end of the journal.

    An error's text is a value.
    """
    instead = "has finished" if raised is None else f"raised {type(raised).__name__}"
    return _difference(identity, position, fact, f"the code {instead}")


def other_outcome(identity: str, outcome: str, instead: str) -> NonDeterminism:
    """Say that the code ends in another way than the job did."""
    return _other_code(identity, f"the job {outcome}, but the code {instead}")


def other_request(
    identity: str, key: str, fingerprint: str | None, operation: OpenOperation | None
) -> NonDeterminism:
    """Say that something is under way that the code does not wait for, or not in this way."""
    asked = _shown("answer", key, fingerprint)
    now = (
        "does not ask for it"
        if operation is None
        else f"asks for {_shown(operation.kind, key, operation.fingerprint)}"
    )
    return _other_code(identity, f"{asked} is under way, but the code {now}")


def no_order(identity: str) -> NonDeterminism:
    """Say that the code starts tasks in an order that differs between two processes."""
    return NonDeterminism(
        f"the code of {identity} gives several coroutines to as_completed()",
        detail="as_completed() takes them in an order that differs between two processes",
        hint="give it tasks: as_completed([asyncio.create_task(one) for one in …])",
    )


def no_rest(identity: str, steps: int) -> NonDeterminism:
    """Say that the code never rests, so that nothing can be told to it."""
    return NonDeterminism(
        f"the code of {identity} waits for nothing and does not end",
        detail=f"it has taken {steps:,} steps in a row; nothing can arrive meanwhile",
        hint="wait for something: a signal, an asyncio.Event or memory.until();"
        " no time passes in asyncio.sleep(0)",
    )


def _difference(identity: str, position: int, fact: Fact, instead: str) -> NonDeterminism:
    told = _shown(fact.kind, fact.key or fact.name or "?", fact.fingerprint)
    return _other_code(identity, f"at position {position} the journal tells {told}, but {instead}")


def _other_code(identity: str, detail: str) -> NonDeterminism:
    return NonDeterminism(
        f"the code of {identity} does not match its journal",
        detail=detail,
        hint="if the code has changed, run the code this began with, guard the change with"
        " patched(), or resume with accept_changes if only arguments differ; if it has not, use"
        " perdure.now(), random() and uuid() instead of the machine's, and sort sets",
    )


def _shown(kind: str, key: str, fingerprint: str | None) -> str:
    return f"{kind} {key}" + (f" (arguments {fingerprint})" if fingerprint else "")


def listed(operations: Collection[OpenOperation]) -> str:
    """List what the code waits for."""
    first = islice(operations, MAX_SHOWN)
    shown = ", ".join(_shown(each.kind, each.key, each.fingerprint) for each in first)
    more = len(operations) - MAX_SHOWN
    return (shown + f" and {more} more" if more > 0 else shown) or "nothing"
