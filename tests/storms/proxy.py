"""A proxy between clients and the server that understands PostgreSQL's protocol and spoils
connections.

It runs on an event loop in a thread of its own. Each connection to its port is connected to the
server. Bytes are passed on message by message, so that the proxy knows when a statement is
committed: the server has sent CommandComplete, and then that no transaction is open. A reply is
lost after that moment: the call has been executed, and the caller does not know.
"""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

T = TypeVar("T")

READY, IDLE = b"Z", b"I"
COMMAND_COMPLETE = b"C"
CALLS = (b"SELECT", b"COMMIT")


class Messages:
    """Cuts the stream of a server into its messages."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, piece: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the messages that are complete: type, and all bytes."""
        self._rest += piece
        while len(self._rest) >= 5:
            (length,) = struct.unpack("!I", self._rest[1:5])
            if len(self._rest) <= length:
                return
            message, self._rest = self._rest[: length + 1], self._rest[length + 1 :]
            yield message[:1], message


def is_call(kind: bytes, message: bytes) -> bool:
    """Return whether a message reports the end of a call or a transaction."""
    return kind == COMMAND_COMPLETE and message[5:].startswith(CALLS)


class Passage:
    """One connection through the proxy."""

    def __init__(
        self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._is_ready = False  # whether the start of the session is over
        self._is_done = False  # whether a statement was executed since the server was ready
        self._held: list[bytes] = []  # the current reply, while replies are to be lost

    def cut(self) -> None:
        """Break the connection on both sides, as a reset does."""
        for writer in (self._client, self._server):
            writer.transport.abort()

    async def ask(self, reader: asyncio.StreamReader) -> None:
        """Pass on the messages of the client."""
        while piece := await reader.read(65536):
            await self._proxy.weather()
            self._server.write(piece)
            await self._server.drain()

    async def answer(self, reader: asyncio.StreamReader) -> None:
        """Pass on the messages of the server, except replies that are lost."""
        messages = Messages()
        while piece := await reader.read(65536):
            await self._proxy.weather()
            for kind, message in messages.cut(piece):
                self._held.append(message)
                self._is_done = self._is_done or is_call(kind, message)
                if kind == READY and self._is_lost(message):
                    self.cut()
                    return
            if self._may_pass_on():
                await self._pass_on()

    def _is_lost(self, ready: bytes) -> bool:
        """Return whether a complete reply is lost."""
        is_committed = self._is_ready and self._is_done and ready[5:6] == IDLE
        self._is_ready, self._is_done = True, False
        return is_committed and self._proxy.loses_reply()

    def _may_pass_on(self) -> bool:
        """Return whether no received message can belong to a reply that will be lost."""
        return not self._proxy.to_lose or not self._is_done

    async def _pass_on(self) -> None:
        heard, self._held = b"".join(self._held), []
        for slice_ in self._proxy.sliced(heard):
            self._client.write(slice_)
            await self._client.drain()


class Proxy:
    """Passes connections on, and spoils them as a test asks. All methods are thread-safe."""

    def __init__(self, path: str) -> None:
        self.dsn_options: dict[str, Any] = {}
        self.lost = 0
        """Lost replies so far."""
        self.cuts = 0
        self.to_lose = 0
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._passages: set[Passage] = set()
        self._delay = 0.0
        self._is_open: asyncio.Event | None = None
        self._slices = False

    # Methods for tests.

    def lose_replies(self, count: int) -> None:
        """Lose the next replies to committed statements, of any client."""
        self._do(lambda: setattr(self, "to_lose", self.to_lose + count))

    def cut(self, chance: random.Random, share: float) -> None:
        """Break a share of the connections, in any state."""

        def cut() -> None:
            for passage in list(self._passages):
                if chance.random() < share:
                    self.cuts += 1
                    passage.cut()

        self._do(cut)

    def delay(self, seconds: float) -> None:
        """Delay every piece from now on."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def slice(self, slices: bool) -> None:
        """Pass replies on in small pieces, or whole."""
        self._do(lambda: setattr(self, "_slices", slices))

    def swallow(self) -> None:
        """Pass nothing on, and break nothing: a black hole, until `heal()`."""
        self._do(lambda: self._opened().clear())

    def heal(self) -> None:
        """Break the connections that were swallowed, and stop all faults."""

        def heal() -> None:
            if not self._opened().is_set():
                for passage in list(self._passages):
                    self.cuts += 1
                    passage.cut()
            self.to_lose, self._delay, self._slices = 0, 0.0, False
            self._opened().set()

        self._do(heal)

    # Methods for passages.

    def loses_reply(self) -> bool:
        """Return whether this reply is to be lost."""
        if not self.to_lose:
            return False
        self.to_lose -= 1
        self.lost += 1
        return True

    async def weather(self) -> None:
        """Wait while pieces are held back."""
        await self._opened().wait()
        if self._delay:
            await asyncio.sleep(random.uniform(0, self._delay))

    def sliced(self, heard: bytes) -> Iterator[bytes]:
        """Yield the pieces in which a reply is passed on."""
        size = 7 if self._slices else max(1, len(heard))
        for place in range(0, min(len(heard), 70 * size), size):
            last = place + size >= 70 * size
            yield heard[place:] if last else heard[place : place + size]

    # Start and stop.

    def _opened(self) -> asyncio.Event:
        if self._is_open is None:
            self._is_open = asyncio.Event()
            self._is_open.set()
        return self._is_open

    def _do(self, what: Callable[[], T]) -> T:
        """Run a function on the loop, and wait for it."""

        async def do() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result()

    async def _serve(
        self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter
    ) -> None:
        try:
            server_in, server_out = await asyncio.open_unix_connection(self._path)
        except OSError:  # the server is down: the connection is refused
            client_out.transport.abort()
            return
        passage = Passage(self, client_out, server_out)
        self._passages.add(passage)
        ways = [
            asyncio.ensure_future(passage.ask(client_in)),
            asyncio.ensure_future(passage.answer(server_in)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._passages.discard(passage)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (client_out, server_out):
                writer.close()

    async def listen(self) -> int:
        """Start to listen; return the port."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._listener.close()
        self._opened().set()
        for passage in list(self._passages):
            passage.cut()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)

    @contextmanager
    def running(self) -> Iterator[int]:
        """Run in a thread; return the port."""
        thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        thread.start()
        try:
            yield asyncio.run_coroutine_threadsafe(self.listen(), self._loop).result()
        finally:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()


@contextmanager
def proxy_to(dsn: str) -> Iterator[tuple[Proxy, str]]:
    """Open a proxy to the server of a DSN; return the proxy, and the DSN that leads through it."""
    place = conninfo_to_dict(dsn)
    proxy = Proxy(f"{place['host']}/.s.PGSQL.{place['port']}")
    with proxy.running() as port:
        yield (
            proxy,
            make_conninfo(
                dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"
            ),
        )
