"""Errors: one class for each code, in one table shared by SQL, Python and the docs.

The hundreds say what a caller should do: `PD0..` drop this turn; `PD1..` the caller's mistake;
`PD2..` replay does not match; `PD3..` a limit; `PD4..` not found or finished; `PD5..` installing;
`PD6..` work that failed. Every error has a message (the fact), a detail (the circumstance) and a
hint (what to do now). SQL raises them with the code as SQLSTATE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, MappingProxyType
from typing import Any, ClassVar

import psycopg

Failed = dict[str, Any]
"""A failure as JSON: `type`, `message`; where known `traceback`, `code`, `detail`, `through`."""


class PerdureError(Exception):
    """The base class of all errors of perdure, with a code, a message, a detail and a hint.

    `except perdure.PerdureError as error: print(error.code, error.hint)`
    """

    code: ClassVar[str] = "PD000"
    message: str = ""  # a user's subclass may not call __init__()
    detail: str | None = None
    hint: str | None = None
    returned_by: CodeType | None = None  # the function whose result is refused: none of it runs now
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
        """Return the message, detail and hint, a line each."""
        lines = [self.message]
        lines += [f"detail: {self.detail}"] if self.detail else []
        lines += [f"hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)


# Drop this turn.
class TaskNotHeld(PerdureError, code="PD001"):
    """The task was claimed again, parked or ended. Nothing of this turn was applied."""


class InstanceNotAdopted(PerdureError, code="PD003"):
    """The app is a copy that nobody has adopted, or not the instance that the worker is to serve.

    Nothing is executed in it.
    """


class ProtocolNotSupported(PerdureError, code="PD004"):
    """This package and the installed functions use different protocols."""


# The caller's mistake.
class InvalidPath(PerdureError, ValueError, code="PD101"):
    """The path cannot be read."""


class WrongType(PerdureError, TypeError, code="PD102"):
    """A value on the path has another type than the command needs."""


class InvalidValue(PerdureError, ValueError, code="PD103"):
    """The value cannot be stored as JSON (NaN, infinity, NUL, a lone surrogate ...)."""

    is_chance: bool = False  # the next attempt may give one that can be stored


class InvalidName(PerdureError, ValueError, code="PD104"):
    """The name is empty, too long or not allowed."""


class VersionConflict(PerdureError, code="PD105"):
    """The memory is not at the expected version."""


class KeyReused(PerdureError, code="PD106"):
    """The key was used before, for another command."""


class InvalidArgument(PerdureError, ValueError, code="PD107"):
    """An argument is out of range or contradicts another."""


class InvalidCondition(PerdureError, ValueError, code="PD108"):
    """The condition on a memory is not a JSON path predicate, or is too long."""


class ContractBroken(PerdureError, ValueError, code="PD109"):
    """The memory would break the contract of its entity: `.path` says where, `.rule` which rule."""

    path: str | None = None
    rule: str | None = None


class InvalidSchedule(PerdureError, ValueError, code="PD110"):
    """The cron expression, interval, time zone or policy of a schedule makes no sense."""


class ItemNotYours(PerdureError, code="PD112"):
    """Somebody else has claimed the item."""


class ValueSealed(PerdureError, code="PD113"):
    """A value is encrypted, and there is no codec here, or none with its key."""


class SealBroken(PerdureError, code="PD114"):
    """An encrypted value was changed or moved, or belongs to another key."""


class QueueNotYours(PerdureError, code="PD115"):
    """The role that logged in has no access to the tasks of the queue. See `grant_access()`."""


class ValueMistyped(PerdureError, ValueError, TypeError, code="PD116"):
    """A stored value is not of the type that its reader names.

    `__cause__` is the error of the type itself.
    """


# Replay does not match.
class NonDeterminism(PerdureError, code="PD201"):
    """The code asks for something else than its journal says; see `.detail`.

    `.place` is the line of the code that waits, if that is known: `app/agent.py:12`.
    """

    place: str | None = None


class IoInCoordinator(PerdureError, RuntimeError, code="PD202"):
    """A coordinator used a socket, a thread, an executor or a client.

    That belongs in a hook or activity.
    """


# A limit.
class ValueTooLarge(PerdureError, ValueError, code="PD301"):
    """The value is larger than the limit."""


class ValueTooDeep(PerdureError, ValueError, code="PD302"):
    """The value is nested deeper than the limit."""


class MemoryTooLarge(PerdureError, ValueError, code="PD303"):
    """The command would make the memory larger than the limit."""


class NumberOutOfRange(PerdureError, ValueError, code="PD304"):
    """A number lies beyond 1e308 (or below -1e308)."""


class TooManyDeliveries(PerdureError, code="PD305"):
    """The task was claimed many times without any progress, and was parked."""


class TooManyIndexes(PerdureError, code="PD306"):
    """The entity has as many indexes on its memories as the limit allows."""


# Not found, or finished.
class JobNotFound(PerdureError, LookupError, code="PD401"):
    """There is no job with this id."""


class JobExists(PerdureError, code="PD402"):
    """A job with this id already exists."""


class JobFinished(PerdureError, code="PD403"):
    """The job has ended and cannot take this any more."""


class VersionNotFound(PerdureError, LookupError, code="PD404"):
    """The memory has never had this version."""


class ResultTimeout(PerdureError, TimeoutError, code="PD405"):
    """The job or hook had not ended in time. `.detail` says what it waits for.

    It is not stopped.
    """


class UnknownFunction(PerdureError, LookupError, code="PD406"):
    """This worker has no function with this name."""


class JobAtWork(PerdureError, code="PD407"):
    """The job is not deleted: it has a live task or child, or would be begun again."""


class ScheduleNotFound(PerdureError, LookupError, code="PD410"):
    """There is no schedule with this name."""


class ItemNotFound(PerdureError, LookupError, code="PD411"):
    """There is no open item with this id.

    `.detail` says who resolved it, or that nobody waits any more.
    """


class HookNotFound(PerdureError, LookupError, code="PD412"):
    """The job has no such hook that was started from outside."""


# Installing.
class InvalidSchema(PerdureError, ValueError, code="PD501"):
    """The name of the schema is empty, too long, reserved, or has a forbidden character."""


class SchemaOccupied(PerdureError, code="PD502"):
    """The schema holds objects that are not perdure's, or other roles may create objects in it."""


class NewerSchema(PerdureError, code="PD503"):
    """The schema was made by a newer version than this package."""


class ExtensionOutdated(PerdureError, code="PD504"):
    """The extension in the schema has another version than this package."""


class NotMigrated(PerdureError, code="PD505"):
    """The tables have another version than the functions. Nothing is executed on them."""


class ServerUnavailable(PerdureError, code="PD506"):
    """The embedded server cannot be found or does not start."""


class OtherBuild(PerdureError, code="PD507"):
    """The tables were made by another build of the same version, and differ."""


class AppNotFound(PerdureError, LookupError, code="PD508"):
    """There is no app in the schema, and this call does not create one."""


# Work that failed.
class Failure(PerdureError):
    """An error that carries what a piece of work raised: its `.type`, `.message` and `.traceback`.

    `.attempts` says how often an activity or hook was tried, and `.job` to which job the result
    belongs, if known.
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
        """Make failures copyable and picklable."""
        return self.__class__, (dict(self.failure),), self.__dict__


class JobFailed(Failure, code="PD601"):
    """The coordinator of the job raised."""


class JobCancelled(Failure, code="PD602"):
    """The job was cancelled or terminated."""


class ActivityFailed(Failure, code="PD603"):
    """The activity raised and has no attempt left."""


class HookFailed(Failure, code="PD604"):
    """The hook raised and has no attempt left."""


class ChildFailed(Failure, code="PD605"):
    """The child job failed or was cancelled."""


def from_database(error: psycopg.Error) -> PerdureError | None:
    """Return the error of a PDxxx SQLSTATE, or None for any other database error."""
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
    """Raise this package's errors in place of psycopg's: `with translated(): cursor.execute(...)`.

    Errors of psycopg that cannot encode a text are translated too.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidValue(
            "half a surrogate pair is not a character", hint="decode the text with errors='replace'"
        ) from error
    except psycopg.Error as error:
        known = from_database(error) or _no_letter(error)
        if known is None:
            raise
        raise known from error


def _no_letter(error: psycopg.Error) -> InvalidValue | None:
    """Return an InvalidValue for a character that the database cannot store, or None.

    Such a character is NUL, or one that an encoding other than UTF8 does not have.
    """
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
    """Let an error say which of many it concerns: `with among("start", 2, 3, "agent-1"): ...`

    The place is counted from 1, as in SQL.
    """
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
    """Return the error that a failure JSON describes, by its code."""
    kind = PerdureError.codes.get(str(failure.get("code")), PerdureError)
    message = str(failure.get("message") or failure.get("type") or "")
    more = {name: failure.get(name) for name in ("detail", "hint")}
    if issubclass(kind, Failure):
        return kind({"type": kind.__name__, "message": message} | more)
    error = kind(message, **more)
    if isinstance(error, ContractBroken):
        error.path, error.rule = failure.get("path"), failure.get("rule")
    return error
