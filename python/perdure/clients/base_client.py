"""What both kinds of clients have in common: how a call is sent, and a memory reached."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar
from uuid import UUID

from perdure.basics.paths import write_path
from perdure.codecs import Codec
from perdure.database.call import Call
from perdure.database.source import Source
from perdure.errors import InvalidArgument
from perdure.workflow.work import Workflow

from .caller_connection import check_outside
from .polling import Pages, Steps
from .requests import Requests

A = TypeVar("A")


class BaseClient:
    """What both kinds of clients have in common."""

    def __init__(self, source: Source, codec: Codec | None = None):
        if not isinstance(source, Source):
            raise InvalidArgument(
                f"a client cannot be made of a {type(source).__name__}",
                hint="Call connect(dsn), or await connect_async(dsn), to make one.",
            )
        self._source = source
        self.requests = Requests(source.schema, codec)
        self.calls = self.requests.calls

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.schema}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, and its handles with it. Raises InvalidArgument."""
        raise InvalidArgument(
            "a client cannot be copied or pickled",
            detail="Its connections belong to this process.",
            hint="Pass the id of a job, and connect in each process. A forked process may use it.",
        )

    @property
    def dsn(self) -> str:
        """Return the connection string: `Worker(app, dsn=client.dsn, schema=client.schema)`."""
        return self._source.dsn

    @property
    def schema(self) -> str:
        """Return the name of the app."""
        return self._source.schema

    def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call to the database, inside the transaction of `connection` if one is given."""
        raise NotImplementedError

    def give(self, call: Call, connection: Any = None) -> A:  # type: ignore[type-var]
        """Send a call, and return its answer in the type of the method that asks."""
        given: A = self.send(call, connection)
        return given

    def follow(self, steps: Steps[Any]) -> Any:
        """Take the steps of a verb one after another and return its result."""
        raise NotImplementedError

    def each(self, pages: Pages[Any]) -> Any:
        """Yield the items of pages, which are read from the database as they are needed."""
        raise NotImplementedError

    def handle(self, job: str | UUID, workflow: Workflow | None = None) -> Any:
        """Return a handle of a job by its id. Nothing is sent to the database."""
        raise NotImplementedError

    def entity(self, job: str | UUID, *, connection: Any = None) -> Any:
        """Return a memory. With `connection`, what it does joins that transaction."""
        raise NotImplementedError


class ClientMemoryAccess:
    """Carries out the commands of a memory handle through a client."""

    def __init__(self, client: Any, job: str, connection: Any):
        self._client = client
        self._job = job
        self._connection = connection

    def command(
        self, op: str, path: list[str], named: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Change the memory."""
        call = self._client.requests.command(self._job, op, path, named, options)
        return self._client.send(call, self._connection)

    def read(self, path: list[str]) -> Any:
        """Read from the memory."""
        return self._client.send(
            self._client.calls.read(self._job, write_path(path)), self._connection
        )

    def until(self, condition: str, timeout: float | None) -> Any:
        """Wait until the memory meets a condition."""
        check_outside("until", self._connection)
        return self._client.until(self._job, condition, timeout)

    def signal(self, name: str, payload: Any, key: str | None) -> Any:
        """Send the job a signal."""
        call = self._client.requests.signal(self._job, name, payload, key)
        return self._client.send(call, self._connection)
