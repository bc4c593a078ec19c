"""The source: where the data of an app is, and how a connection to it is opened.

Every connection is in autocommit mode (one call = one transaction), uses UTF-8, and leads to a
server that accepts writes: if a DSN names several servers, to the primary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from perdure.basics.arguments import INTEGER, TEXT, check_argument
from perdure.basics.forks import note_connection
from perdure.basics.timed_connection import TimedConnection
from perdure.codecs import Codec
from perdure.errors import InvalidArgument

from .call import Call
from .calls import Calls
from .sending import send, send_async

DATABASE_URL = "PERDURE_DATABASE_URL"
SCHEMA = "PERDURE_SCHEMA"
DEFAULT_SCHEMA = "perdure"

SETTINGS: dict[str, Any] = {"autocommit": True, "client_encoding": "utf8"}

UNLESS_SAID: dict[str, Any] = {
    "target_session_attrs": "read-write",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Parameters that a DSN, or a variable of libpq, may override. A standby accepts no writes, and may
not know what was just written."""
VARIABLES = {
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}

AnyConnection = psycopg.Connection[TupleRow] | psycopg.AsyncConnection[TupleRow]
Begin = Callable[[psycopg.Connection[TupleRow]], None]


def parameters_of(dsn: str) -> dict[str, Any]:
    """Return the parameters in a connection string. Raises InvalidArgument.

    The error shows nothing of the string: it may contain a password, and errors are logged.
    """
    with suppress(psycopg.ProgrammingError):  # which quotes what it cannot read
        parameters = conninfo_to_dict(dsn)
        if "@" not in str(parameters.get("host", ""))[1:]:  # else it ends with the password
            return parameters
    raise InvalidArgument(
        "the connection string cannot be read",
        hint="Write postgresql://user@host/database, or host=... dbname=...; in a URL, write"
        " special characters of a password in percent notation, such as %40 for @.",
    )


class Home(NamedTuple):
    """The app that a worker serves: what clients connect to in code that it runs."""

    dsn: str
    schema: str
    codec: Codec | None


home: ContextVar[Home | None] = ContextVar("perdure home", default=None)


def home_unless(dsn: str | None, schema: str | None) -> Home | None:
    """Return the app whose worker runs this code, if nothing names another one."""
    return home.get() if dsn is None and schema is None else None


class Source:
    """Where the data of an app is: a DSN, else `$PERDURE_DATABASE_URL`, else the embedded server.

    The schema is the one given, else `$PERDURE_SCHEMA`, else `perdure`, as on the command line.
    `is_pooled` says, once there is a connection, whether a pooler is in between.
    """

    def __init__(self, dsn: str | None, schema: str | None, prepare_threshold: int | None = 0):
        if not isinstance(dsn, str | None):
            raise InvalidArgument(
                f"a DSN is a str, not a {type(dsn).__name__}",  # which may hold a password
                hint='Give a str, such as "postgresql:///my_database".',
            )
        if schema is None:
            schema = os.environ.get(SCHEMA) or DEFAULT_SCHEMA
        check_argument("schema", schema, TEXT)
        if prepare_threshold is not None:
            check_argument("prepare_threshold", prepare_threshold, INTEGER)
        self.schema = schema
        self.prepare_threshold = prepare_threshold
        self.is_pooled = False
        self._server: Any = None
        self.dsn = dsn or os.environ.get(DATABASE_URL) or self._embedded()
        said = {name for name, variable in VARIABLES.items() if variable in os.environ}
        said |= parameters_of(self.dsn).keys()
        chosen = {name: value for name, value in UNLESS_SAID.items() if name not in said}
        self._settings = SETTINGS | chosen

    def _embedded(self) -> str:
        from perdure.embedded.server import shared_server

        self._server = shared_server()
        return str(self._server.url())

    def close(self) -> None:
        """Leave the embedded server, if the data is there."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    @contextmanager
    def entrusted(self) -> Iterator[None]:
        """Leave the embedded server if the block raises, since nobody else would."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def provision(self, begin: Begin | None = None) -> None:
        """Install or upgrade the app; do nothing if it is current. Safe at the same time as others.

        `begin` is given the connection first. If that connection breaks, another one is tried once.
        """
        connection = self.connect("perdure install")
        try:
            self._install(connection, begin)
        except psycopg.OperationalError:
            if not connection.broken:
                raise
            self._install(self.connect("perdure install"), begin)

    def _install(self, connection: psycopg.Connection[TupleRow], begin: Begin | None) -> None:
        from perdure.installation.install import install

        with connection:
            if begin is not None:
                begin(connection)
            install(connection, self.schema)

    def connect(self, name: str, *, is_lent: bool = False) -> TimedConnection:
        """Open a connection. One that is lent to user code keeps the settings of the database.

        Raises psycopg.OperationalError.
        """
        connection = TimedConnection.connect(
            self.dsn, fallback_application_name=name, **self._settings
        )
        note_connection(connection)
        connection.prepare_threshold = None
        with _given_up_on_error(connection):
            for call in self._manners(
                connection, *send(connection, Calls.backend()), is_lent=is_lent
            ):
                send(connection, call)
        return connection

    async def connect_async(
        self, name: str, *, is_lent: bool = False
    ) -> psycopg.AsyncConnection[TupleRow]:
        """Open an asynchronous connection; see `connect`. Raises psycopg.OperationalError."""
        connection = await psycopg.AsyncConnection.connect(
            self.dsn, fallback_application_name=name, **self._settings
        )
        note_connection(connection)
        connection.prepare_threshold = None
        with _given_up_on_error(connection):
            answer = await send_async(connection.cursor(), Calls.backend())
            for call in self._manners(connection, *answer, is_lent=is_lent):
                await send_async(connection.cursor(), call)
        return connection

    def _manners(
        self, connection: AnyConnection, answering: int, isolation: str, *, is_lent: bool
    ) -> Iterator[Call]:
        """Return the settings that make a session like any other, whatever the database has set.

        Statements are prepared if the process that answers is the one that the server named.
        Otherwise a pooler is in between, and the next statement may go to another process. Settings
        made there may stay for others, except for the style of times, which poolers keep apart.
        """
        self.is_pooled = answering != connection.info.backend_pid
        if not self.is_pooled:
            connection.prepare_threshold = self.prepare_threshold
        if is_lent:
            return
        if isolation != "read committed" and not self.is_pooled:
            yield Calls.isolate()
        if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            yield Calls.write_times()


@contextmanager
def _given_up_on_error(connection: AnyConnection) -> Iterator[None]:
    """Close a connection that nobody will get."""
    try:
        yield
    except BaseException:
        connection.pgconn.finish()
        raise
