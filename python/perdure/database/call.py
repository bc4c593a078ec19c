"""Calls: a statement with its parameters, made here and sent by the holder of a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple

from perdure.basics.arguments import check_arguments
from perdure.codecs import Codec, check_codec
from perdure.errors import InvalidName, InvalidValue

from .sealing import Fields, NullSealer, Sealer, write_json
from .unsealing import Origin, Unseal, UnsealSteps, unseal_answer

_OF_WORKERS = frozenset({"advance", "claim", "register_worker"})
"""Functions that only workers call, with arguments of their own making."""

Shape = Literal["value", "row", "rows"]

NULL_SEALER = NullSealer()
"""The sealer if there is no codec."""


class Call(NamedTuple):
    """A call of one SQL function; `again` is set when a claim is repeated after a lost reply.

    `opens` decrypts what the server has sent, `read` makes the answer from that.
    """

    function: str
    query: bytes
    params: tuple[Any, ...]
    shape: Shape = "value"
    again: Call | None = None
    read: Callable[[Any], Any] | None = None
    unseals: Callable[[Any], UnsealSteps] | None = None

    def as_it_is(self) -> Call:
        """Return the same call with an answer that leaves encrypted values as they are."""
        return self._replace(unseals=None)

    def reading(self, read: Callable[[Any], Any]) -> Call:
        """Return the same call with a way to read its answer."""
        return self._replace(read=read)


def to_text(value: Any) -> str:
    """Write a value as JSON for the server. Raises InvalidValue for what JSON cannot hold."""
    try:
        return write_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(
            f"this value cannot be written as JSON: {error}",
            hint="Use text, numbers, booleans, None, lists, dicts, dataclasses or pydantic models.",
        ) from error


def or_null(value: Any) -> str | None:
    """Write a value as JSON; None is the null of SQL."""
    return None if value is None else to_text(value)


class AppCalls:
    """What the calls of one app share: its schema and its codec.

    With a codec, values are encrypted here on their way in and decrypted on their way out, and
    nowhere else. `shows_envelopes` leaves them encrypted, for people who only look.
    """

    def __init__(self, schema: str, codec: Codec | None = None):
        if not schema or "\0" in schema or len(schema.encode()) > 63:
            raise InvalidName(
                f"{schema!r} is not a name for a schema", hint="Give a text of 1 to 63 bytes."
            )
        self.schema = schema
        check_codec(codec)
        self.codec = codec
        self.fields = Fields(() if codec is None else codec.memory)
        self.shows_envelopes = False
        self._quoted = '"' + schema.replace('"', '""') + '"'
        self._texts: dict[tuple[str, ...], bytes] = {}

    def _seal(self, key: str | None = None) -> Sealer:
        """Return what encrypts the values of a call, which may be repeated under `key`."""
        return NULL_SEALER if self.codec is None else Sealer(self.codec, self.fields, key)

    def _reason(self, job: str, reason: str | None) -> Any:
        return self._seal().whole("reason", job, "", reason)

    def _unsealing(self, unseal: Unseal) -> Callable[[Any], UnsealSteps] | None:
        if self.shows_envelopes:
            return None
        return partial(unseal_answer, self.codec, self.fields, self.origins, unseal)

    def _unsealed(self, call: Call, unseal: Unseal) -> Call:
        """Return the same call with a way to decrypt its answer."""
        return call._replace(unseals=self._unsealing(unseal))

    def origins(self, jobs: Iterable[str]) -> Call:
        """Read of which jobs some jobs come; returns an Origin for each that has any."""
        call = self._call("origins_of", "rows", ids=sorted(jobs))
        return call.reading(lambda rows: {job: Origin(*others) for job, *others in rows})

    def _call(self, function: str, shape: Shape = "value", /, **arguments: Any) -> Call:
        """Call with the arguments that are not None. SQL has defaults for the others.

        Raises InvalidArgument for a wrong type where SQL takes text or a number.
        """
        if function not in _OF_WORKERS:
            check_arguments(function, arguments)
        given = {name: value for name, value in arguments.items() if value is not None}
        place = (function, shape, *given)
        query = self._texts.get(place)
        if query is None:
            named = ", ".join(f'"{name}" => %s' for name in given)
            start = "select" if shape == "value" else "select * from"
            query = self._texts[place] = f"{start} {self._quoted}.{function}({named})".encode()
        return Call(function, query, tuple(given.values()), shape)
