"""Errors: one class a code, one table shared by SQL, Python and docs.

The hundreds tell what a caller should do: `PD0..` drop this turn, `PD1..` the caller's mistake,
`PD2..` replay does not match, `PD3..` a limit, `PD4..` not found or finished, `PD5..` installing,
`PD6..` work that failed. Every error has a message (the fact), a detail (the circumstance) and a
hint (what to do now); SQL raises them with the code as SQLSTATE.
"""

from __future__ import annotations

import json
import traceback as tracebacks
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar

import psycopg

MAX_MESSAGE = 10_000
MAX_TRACEBACK = 20_000
MAX_FRAMES = 40
MAX_CAUSES = 4
MAX_MEMBERS = 10

Failed = dict[str, Any]
"""A failure as JSON: `type`, `message`; where known `traceback`, `code`, `detail`, `through`."""


class PerdureError(Exception):
    """Tell what went wrong, with a code, a detail and a hint.

    `except perdure.PerdureError as error: print(error.code, error.hint)`
    """

    code: ClassVar[str] = "PD000"
    message: str = ""  # a subclass of a user may not call __init__()
    detail: str | None = None
    hint: str | None = None
    codes: ClassVar[dict[str, type[PerdureError]]] = {}

    def __init_subclass__(cls, code: str | None = None, **rest: Any) -> None:
        """Enter the class in the table of codes."""
        super().__init_subclass__(**rest)
        if code is not None:
            cls.code = code
            PerdureError.codes.setdefault(code, cls)

    def __init__(self, message: str = "", *, detail: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        """Give the message, and what else is known, a line each."""
        lines = [self.message]
        lines += [f"detail: {self.detail}"] if self.detail else []
        lines += [f"hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)


# Drop this turn.
class TaskNotHeld(PerdureError, code="PD001"):
    """The task was claimed again, parked or ended: nothing of this turn was applied."""


class InstanceNotAdopted(PerdureError, code="PD003"):
    """The app is a copy that nobody has adopted, or not the instance that a worker was told to
    serve: it does not execute."""


class ProtocolNotSupported(PerdureError, code="PD004"):
    """This package and the installed functions speak different protocols."""


# The caller's mistake.
class InvalidPath(PerdureError, ValueError, code="PD101"):
    """The path cannot be read."""


class WrongType(PerdureError, TypeError, code="PD102"):
    """Something on the path has another type than the command needs."""


class InvalidValue(PerdureError, ValueError, code="PD103"):
    """The value cannot be kept as JSON (NaN, infinity, NUL, a lone surrogate, …)."""

    is_chance: bool = False  # the next attempt may well give one that can


class InvalidName(PerdureError, ValueError, code="PD104"):
    """The name is empty, too long or not allowed."""


class VersionConflict(PerdureError, code="PD105"):
    """The document is not at the expected version."""


class KeyReused(PerdureError, code="PD106"):
    """The key was used before, for another command."""


class InvalidArgument(PerdureError, ValueError, code="PD107"):
    """An argument is out of its range or contradicts another."""


class InvalidCondition(PerdureError, ValueError, code="PD108"):
    """A condition on a memory is no JSON path predicate, or too long."""


class ContractBroken(PerdureError, ValueError, code="PD109"):
    """The document would not fit the contract of its entity: `.path` tells where, `.rule` which."""

    path: str | None = None
    rule: str | None = None


class InvalidSchedule(PerdureError, ValueError, code="PD110"):
    """Nobody can follow the schedule: its cron expression, interval, time zone or policies."""


class ItemNotYours(PerdureError, code="PD112"):
    """Somebody else has claimed the item."""


class ValueSealed(PerdureError, code="PD113"):
    """A value is encrypted, and there is no codec here, or none with its key."""


class SealBroken(PerdureError, code="PD114"):
    """An encrypted value is not what was written there: changed, moved, or of another key."""


class QueueNotYours(PerdureError, code="PD115"):
    """The role that logged in has no access to the tasks of the queue: see `grant_access()`."""


class ValueMistyped(PerdureError, ValueError, TypeError, code="PD116"):
    """A stored value is not of the type that its reader names: what the type itself has raised is
    the `__cause__`."""


# Replay does not match.
class NonDeterminism(PerdureError, code="PD201"):
    """The code asks for something else than its journal tells; `.detail` shows the difference."""


class IoInCoordinator(PerdureError, RuntimeError, code="PD202"):
    """A coordinator asked for a socket, a thread or a clock; that belongs in a hook or activity."""


# A limit.
class ValueTooLarge(PerdureError, ValueError, code="PD301"):
    """The value is larger than the limit."""


class ValueTooDeep(PerdureError, ValueError, code="PD302"):
    """The value is nested deeper than the limit."""


class MemoryTooLarge(PerdureError, ValueError, code="PD303"):
    """The command would make the document larger than the limit."""


class NumberOutOfRange(PerdureError, ValueError, code="PD304"):
    """A number has more digits than the limit."""


class TooManyDeliveries(PerdureError, code="PD305"):
    """The task was claimed many times without any progress and was parked."""


class TooManyIndexes(PerdureError, code="PD306"):
    """The entity has as many indexes on its memories as the limit allows."""


# Not found, or finished.
class JobNotFound(PerdureError, LookupError, code="PD401"):
    """There is no job of this id."""


class JobExists(PerdureError, code="PD402"):
    """There is a job of this id already."""


class JobFinished(PerdureError, code="PD403"):
    """The job is finished and takes no more of this."""


class VersionNotFound(PerdureError, LookupError, code="PD404"):
    """The memory has never had this version."""


class ResultTimeout(PerdureError, TimeoutError, code="PD405"):
    """The job was not finished in time; `.detail` tells what it waits for."""


class UnknownFunction(PerdureError, LookupError, code="PD406"):
    """This worker has no function of this name."""


class JobAtWork(PerdureError, code="PD407"):
    """A task of the job is alive, and would lose its memory, or would begin the job again."""


class ScheduleNotFound(PerdureError, LookupError, code="PD410"):
    """There is no schedule of this name."""


class ItemNotFound(PerdureError, LookupError, code="PD411"):
    """No open item has this id; `.detail` tells who resolved it, or that nobody waits any more."""


class HookNotFound(PerdureError, LookupError, code="PD412"):
    """The job has no such hook: nobody asked for it from outside."""


# Installing.
class InvalidSchema(PerdureError, ValueError, code="PD501"):
    """The schema's name is empty, too long, reserved, or holds a character that is not allowed."""


class SchemaOccupied(PerdureError, code="PD502"):
    """The schema holds objects that are not perdure's, or others may create in it."""


class NewerSchema(PerdureError, code="PD503"):
    """The schema was made by a newer version than this package."""


class ExtensionOutdated(PerdureError, code="PD504"):
    """The schema holds the extension in another version than this package's."""


class NotMigrated(PerdureError, code="PD505"):
    """The tables are of another version than the functions: nothing is executed on them."""


class ServerUnavailable(PerdureError, code="PD506"):
    """The embedded server cannot be found or does not start."""


class OtherBuild(PerdureError, code="PD507"):
    """The tables were made by another build of the same version, and differ."""


class AppNotFound(PerdureError, LookupError, code="PD508"):
    """There is no app in the schema, and what was asked for would not make one."""


# Work that failed.
class Failure(PerdureError):
    """Carry what a piece of work raised: `.type`, `.message` and `.traceback` of the original.

    `.attempts` tells how often an activity or hook was tried, `.job` whose result was asked for,
    where that is known.
    """

    failure: Mapping[str, Any] = MappingProxyType({})
    type: str = "Exception"
    traceback: str | None = None
    attempts: int | None = None
    job: str | None = None

    def __init__(self, failure: Mapping[str, Any] | str | None = None):
        given: Failed = {"message": failure} if isinstance(failure, str) else dict(failure or {})
        super().__init__(
            str(given.get("message") or ""), detail=given.get("detail"), hint=given.get("hint")
        )
        self.failure = given
        self.type = str(given.get("type") or "Exception")
        self.traceback = given.get("traceback")
        self.attempts = given.get("attempts")

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def __reduce__(self) -> tuple[Any, tuple[Failed], dict[str, Any]]:
        """Let a failure be copied and pickled."""
        return self.__class__, (dict(self.failure),), self.__dict__


class JobFailed(Failure, code="PD601"):
    """The job's coordinator raised."""


class JobCancelled(Failure, code="PD602"):
    """The job was cancelled or terminated."""


class ActivityFailed(Failure, code="PD603"):
    """The activity raised, and has no attempt left."""


class HookFailed(Failure, code="PD604"):
    """The hook raised, and has no attempt left."""


class ChildFailed(Failure, code="PD605"):
    """The child job failed or was cancelled."""


def from_database(error: psycopg.Error) -> PerdureError | None:
    """Give the class of a PDxxx SQLSTATE with its message, or None for any other error."""
    if error.sqlstate not in PerdureError.codes:
        return None
    diag = error.diag
    return from_failure(
        {
            "code": error.sqlstate,
            "message": diag.message_primary or str(error),
            "detail": diag.message_detail,
            "hint": diag.message_hint,
            "path": diag.column_name,
            "rule": diag.constraint_name,
        }
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raise this package's errors in place of psycopg's: `with translated(): cursor.execute(…)`.

    Also where it is psycopg that cannot write a text.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidValue(
            "half a surrogate pair is no character", hint="decode the text with errors='replace'"
        ) from error
    except psycopg.Error as error:
        known = from_database(error) or _no_letter(error)
        if known is None:
            raise
        raise known from error


def _no_letter(error: psycopg.Error) -> InvalidValue | None:
    """Say it in the package's words where a text has a letter that no text there has: NUL, or one
    that a database has not whose encoding is not UTF8. None for any other error."""
    is_letter = isinstance(error, psycopg.errors.UntranslatableCharacter)
    is_nul = "\\u0000" in (error.diag.message_detail or "") if is_letter else "NUL" in str(error)
    if isinstance(error, psycopg.DataError) and is_nul:
        return InvalidValue("PostgreSQL's text has no NUL character", hint="remove it")
    if is_letter:
        return InvalidValue(
            "the database has no such character",
            detail=error.diag.message_primary,
            hint="Use a database whose encoding is UTF8, or remove it.",
        )
    return None


@contextmanager
def among(what: str, place: int, size: int, id: object = None) -> Iterator[None]:
    """Let an error say which of many it is about, counted from 1, as SQL does: `with among("start",
    2, 3, "agent-1"): …`."""
    try:
        yield
    except Exception as error:
        which = f"{what} {place} of {size}" + (f", '{id}'"[:200] if id else "")
        where = f"It is {which}; none of them was carried out."
        if isinstance(error, PerdureError):
            error.detail = f"{where} {error.detail or ''}".rstrip()
        else:
            error.add_note(where)
        raise


def from_failure(failure: Mapping[str, Any]) -> PerdureError:
    """Give the error that a refused command's failure JSON describes, by its code."""
    kind = PerdureError.codes.get(str(failure.get("code")), PerdureError)
    message = str(failure.get("message") or failure.get("type") or "")
    more = {name: failure.get(name) for name in ("detail", "hint")}
    if issubclass(kind, Failure):
        return kind({"type": kind.__name__, "message": message} | more)
    error = kind(message, **more)
    if isinstance(error, ContractBroken):
        error.path, error.rule = failure.get("path"), failure.get("rule")
    return error


def failure_of(error: BaseException, through: str | None = None) -> Failed:
    """Describe an exception as failure JSON: `{"type", "message", "traceback", …}`.

    A Failure keeps the type and message of its origin; `through` is added to its way
    ("activity search"), so that one sees where it came from. Never raises: who tells of an error
    that tells nothing of itself would be ended by it, and so would all that he holds.
    """
    try:
        failure = _carried(error) or _described(error)
    except Exception:  # noqa: BLE001 - properties and comparisons of the user's
        name = storable(type(error).__name__, MAX_MESSAGE)
        failure = {"type": name, "message": f"<{name} without a readable description>"}
    way = failure.pop("through", [])
    way += [through] if through else []
    return failure | ({"through": way} if way else {})


def _carried(error: BaseException) -> Failed | None:
    """Give what a Failure carries; None for any other, and where somebody's own cannot be told."""
    if not (isinstance(error, Failure) and error.failure):
        return None
    failure = dict(error.failure) | {"type": error.type, "message": error.message}
    try:
        failure["through"] = [*failure.get("through", ()), type(error).__name__]
        written = json.dumps(failure, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # nor can half a surrogate pair be encoded
        return None
    return None if b"\\u0000" in written else failure


def _described(error: BaseException) -> Failed:
    message = str(error.message) if isinstance(error, PerdureError) else text_of(error)
    failure: Failed = {
        "type": storable(type(error).__name__, MAX_MESSAGE),
        "message": storable(message, MAX_MESSAGE),
        "traceback": storable(_traceback_of(error)[-MAX_TRACEBACK:], MAX_TRACEBACK),
    }
    if isinstance(error, PerdureError):
        failure["code"] = error.code
        extra = {"detail": error.detail, "hint": error.hint}
        failure |= {name: storable(str(text), MAX_MESSAGE) for name, text in extra.items() if text}
    if isinstance(error, BaseExceptionGroup):
        members = [failure_of(member) for member in error.exceptions[:MAX_MEMBERS]]
        told = "; ".join(f"{member['type']}: {member['message']}" for member in members)
        failure["message"] = storable(f"{message}: {told}", MAX_MESSAGE)
        failure["errors"] = [_brief(member) for member in members]
    return failure


def _brief(failure: Failed) -> Failed:
    return {name: failure[name] for name in ("type", "message", "code") if name in failure}


def _traceback_of(error: BaseException) -> str:
    """Write the tracebacks of an error and its causes, as Python does but for the carets: marking
    columns parses source, which is slow, and not safe beside other threads before Python 3.12."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MAX_CAUSES:
        frames = tracebacks.StackSummary.extract(
            tracebacks.walk_tb(cause.__traceback__), limit=-MAX_FRAMES
        )
        last = f"{type(cause).__name__}: {text_of(cause)}\n"
        notes = [f"{note}\n" for note in getattr(cause, "__notes__", ())]
        lines = ["Traceback (most recent call last):\n", *frames.format(), last, *notes]
        parts.append("".join(lines))
        if cause.__cause__ is None and not cause.__suppress_context__:
            cause = cause.__context__
        else:
            cause = cause.__cause__
    return "\nThe error before led to this one:\n\n".join(reversed(parts))


def text_of(error: BaseException) -> str:
    """Give the message of an exception, whatever it is."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    try:
        return str(str(error))  # what a class of its own gives for a text is one of these
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide that the work failed
        return f"<{type(error).__name__} without a readable message>"


def storable(text: str, limit: int) -> str:
    """Cut text and replace what PostgreSQL's JSON cannot hold (NUL, lone surrogates)."""
    return text[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
