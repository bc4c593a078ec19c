"""Forks: a child process that inherits a client uses connections of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure

T = "40 s"
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """End a test that hangs."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("a process hangs"))
    signal.alarm(30)
    yield
    signal.alarm(0)


def forked(*works: Callable[[], Any]) -> None:
    """Run each function in a child process, all at once, and check that none fails."""
    children = []
    for work in works:
        child = os.fork()
        if not child:
            signal.alarm(20)
            status = 1
            try:
                warnings.simplefilter("error")
                work()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [
        0 for _ in works
    ]


def reads(client: perdure.Client, number: int) -> Callable[[], None]:
    """Return a function that reads a memory that no other process reads, many times."""

    def work() -> None:
        read = [client.entity(f"e{number}").get("n") for _ in range(500)]
        assert read == [number] * 500

    return work


def test_forked_processes_get_their_own_answers(client: perdure.Client) -> None:
    for number in range(4):
        client.create_entity(f"e{number}", "thing", {"n": number})
    reads(client, 0)()
    forked(*(reads(client, number) for number in range(4)))
    reads(client, 0)()


def sessions(client: perdure.Client) -> set[int]:
    """Return the sessions of clients that the server knows."""
    with client._source.connect("looks") as connection:
        rows = connection.execute(
            "select pid from pg_stat_activity"
            " where application_name = 'perdure client' and datname = current_database()"
        )
        return {pid for (pid,) in rows}


@pytest.mark.steady("it counts sessions")
def test_child_that_closes_a_client_keeps_the_session_of_its_parent(client: perdure.Client) -> None:
    client.create_entity("e1", "thing", {"n": 1})
    before = sessions(client)

    def work() -> None:
        reads(client, 1)()
        client.close()

    forked(work)
    reads(client, 1)()
    assert sessions(client) == before


def test_child_can_use_a_client_that_another_thread_held(client: perdure.Client) -> None:
    """The process forks while a thread of the parent waits for an answer on the client."""
    client.create_entity("e1", "thing", {"n": 1})
    with client._source.connect("test") as blocking, blocking.transaction():
        client.entity("e1", connection=blocking).set({"n": 2})
        thread = threading.Thread(target=client.entity("e1").set, args=({"n": 3},))
        thread.start()
        time.sleep(0.3)
        forked(reads(client, 1))
    thread.join()
    assert client.entity("e1").get("n") == 3


def test_forked_processes_can_wait_for_results(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("go")

    handles = [client.start(waits) for _ in range(3)]
    work()
    for handle in handles[:1]:  # a listener of the parent that was used, and is idle now
        handle.signal("go", 0)
        assert handle.result(T) == 0

    def ends(number: int) -> Callable[[], None]:
        def work() -> None:
            threading.Timer(0.3, handles[number].signal, ("go", number)).start()
            assert handles[number].result(T) == number

        return work

    forked(ends(1), ends(2))


def test_forked_process_can_use_an_inherited_async_client(dsn: str, client: perdure.Client) -> None:
    client.create_entity("e1", "thing", {"n": 1})
    client.create_entity("e2", "thing", {"n": 2})

    async def parent() -> None:
        shared = await perdure.connect_async(dsn)
        watching = asyncio.create_task(shared.entity("e1").until("$.done == true"))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(forked, lambda: asyncio.run(child(shared)))
        assert await shared.entity("e1").get("n") == 1
        await shared.entity("e1").merge({"done": True})
        await asyncio.wait_for(watching, 10)
        await shared.close()

    async def child(shared: perdure.AsyncClient) -> None:
        assert [await shared.entity("e2").get("n") for _ in range(50)] == [2] * 50
        watching = asyncio.create_task(shared.entity("e2").until("$.done == true"))
        await asyncio.sleep(0.1)
        await shared.entity("e2").merge({"done": True})
        await watching
        await shared.close()

    asyncio.run(parent())
