"""Transactions: an activity's rows and its recorded result are committed together, once. (E8)"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
import perdure.testing
from perdure.database import calls
from perdure.replay.replay import Fact
from perdure.workers import lent_connections, transactions
from perdure.workers.hook_journal import HookJournal
from perdure.workers.outbox import Outbox
from perdure.workflow.operations import command_operation
from tests.worker.test_until import wait_for

pytestmark = pytest.mark.steady("it counts how often a function runs", "transaction")

T = "40 s"
BOOK = "insert into bookings (what) values (%s) returning id"
OPEN = "select count(*) from pg_stat_activity where application_name = 'perdure transaction'"

Step = Callable[[Any], Any]
"""What a function does with its connection, after it has booked."""


class Bank:
    """A table of the user's, seen from a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]):
        self._connection = connection
        self.run("create table bookings (id serial primary key, what text)")

    def run(self, query: str, *params: Any) -> list[Any]:
        cursor = self._connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[str]:
        """Give what stands booked, in order."""
        return [what for (what,) in self.run("select what from bookings order by what")]

    def facts(self) -> list[str]:
        """Give the kinds of facts that tell of bookings, in order."""
        query = "select kind from perdure.journal where name = 'book' order by at, seq"
        return [kind for (kind,) in self.run(query)]


class Booking:
    """The transaction `book`: it books, then takes the next of its steps; `runs` counts."""

    def __init__(self, app: perdure.App, kind: str, **options: Any):
        self.steps: deque[Step] = deque()
        self.runs = 0
        self.kind = kind

        async def book_async(connection: psycopg.AsyncConnection[Any], what: str) -> Any:
            await connection.execute(BOOK, [what])
            told = self._take_step(connection)
            return await told if inspect.isawaitable(told) else told

        def book_plain(connection: psycopg.Connection[Any], what: str) -> Any:
            connection.execute(BOOK, [what])
            return self._take_step(connection)

        function: Any = book_async if kind == "async" else book_plain
        self.work = app.transaction(name="book", **options)(function)

        @app.coordinator
        async def books(memory: perdure.AsyncEntity, what: str) -> Any:
            return await self(what)

    async def __call__(self, what: str) -> Any:
        told = self.work(what)
        return await told

    def _take_step(self, connection: Any) -> Any:
        self.runs += 1
        return self.steps.popleft()(connection) if self.steps else f"run {self.runs}"

    def pause(self, seconds: float) -> Step:
        """Sleep as such a function does."""
        return lambda _: asyncio.sleep(seconds) if self.kind == "async" else time.sleep(seconds)


@pytest.fixture
def bank(dsn: str) -> Iterator[Bank]:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        yield Bank(connection)


@pytest.fixture(params=["async", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def book(app: perdure.App, bank: Bank, kind: str) -> Booking:
    """Give a transaction of each kind, which is tried once again when it fails."""
    return Booking(app, kind, retry=perdure.Retry(attempts=2, delay=0.01))


def fail(error: BaseException) -> Step:
    """Raise in the function."""

    def step(_: Any) -> Any:
        raise error

    return step


# Together.


def test_rows_and_result_are_of_one_transaction(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """[P4] (E8): from coordinators and hooks, plain and asynchronous."""

    @app.hook
    async def hooks(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(book("b"), memory.append("log", 1), book("c"))

    @app.hook
    def hooks_plainly(memory: perdure.Entity) -> Any:
        started = [book.work.start(what) for what in ("d", "e")]
        return [each.result() for each in started]

    @app.coordinator
    async def all_ways(memory: perdure.AsyncEntity) -> Any:
        return [await book("a"), await hooks(memory), await hooks_plainly(memory)]

    @app.coordinator
    def plainly(memory: perdure.Entity) -> Any:
        return [book.work("f"), memory.append("log", 1), book.work("g")]

    work()
    assert client.start(all_ways).result(T) == ["run 1", ["run 2", 1, "run 3"], ["run 4", "run 5"]]
    assert client.start(plainly).result(T) == ["run 6", 1, "run 7"]
    assert bank.rows() == ["a", "b", "c", "d", "e", "f", "g"]
    together = "select count(*) from bookings b join perdure.journal j on j.xmin = b.xmin"
    assert bank.run(f"{together} and j.name = 'book'") == [(7,)]


def test_what_was_told_before_is_recorded_before(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """With the transaction, in its order, without a round trip of its own."""

    @app.activity
    async def step(number: int) -> int:
        return number

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity) -> Any:
        return [await step(1), await book("a"), await step(2), await book("b")]

    work()
    assert client.start(chain).result(T) == [1, "run 1", 2, "run 2"]
    facts = bank.run("select key, xmin::text from perdure.journal order by seq")
    assert [key for key, _ in facts] == ["step#1", "book#1", "step#2", "book#2"]
    assert len({xmin for _, xmin in facts}) == 2


def test_results_are_stored_and_typed(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The live value is the stored one, as with any activity."""

    @app.transaction
    def tells(connection: psycopg.Connection[Any], pair: tuple[int, int]) -> tuple[int, int]:
        assert perdure.info().kind == "activity"
        return pair

    @app.coordinator
    def asks(memory: perdure.Entity) -> Any:
        return repr(tells((1, 2)))

    work()
    assert client.start(asks).result(T) == "(1, 2)"


def test_one_that_is_sent_to_a_queue_ends_its_task_with_its_rows(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    book = Booking(app, kind, queue="bank", retry=perdure.Retry(attempts=2, delay=0.01))
    book.steps += [fail(ValueError("once"))]
    work(queues=["default"])
    work(queues=["bank"])
    assert client.start("books", "a").result(T) == "run 2"
    assert bank.rows() == ["a"]
    book.steps += [fail(ValueError("one")), fail(ValueError("two"))]
    with pytest.raises(perdure.JobFailed, match="ValueError: two"):
        client.start("books", "b").result(T)
    assert bank.rows() == ["a"]


def test_mail_that_was_taken_before_is_not_told_again_meanwhile(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    """[P5]: it lies open until the transaction records that it was taken."""
    book = Booking(app, kind)

    async def takes() -> list[Any]:
        first = await perdure.wait_for("go")
        told, second = await asyncio.gather(book(f"{first}"), perdure.wait_for("go"))
        return [first, told, second]

    @app.hook
    async def hooks(memory: perdure.AsyncEntity) -> Any:
        return await takes()

    @app.coordinator
    async def hooked(memory: perdure.AsyncEntity) -> Any:
        return await hooks(memory)

    @app.coordinator
    async def direct(memory: perdure.AsyncEntity) -> Any:
        return [await book(await answers(memory)), await takes()]

    @app.hook
    async def answers(memory: perdure.AsyncEntity) -> str:
        return "answer"

    book.steps += [book.pause(0.5)] * 3
    work()
    for name, wanted in (("hooked", [1, None, 2]), ("direct", [None, [1, None, 2]])):
        handle = client.start(name)
        handle.signal("go", 1)
        while not bank.run("select 1 from pg_stat_activity where state like 'idle in tr%'"):
            time.sleep(0.01)
        time.sleep(0.2)
        handle.signal("go", 2)
        assert handle.result(T) == wanted
    assert (book.runs, bank.rows()) == (3, ["1", "1", "answer"])


# Failing.


def test_a_failure_rolls_back_and_is_recorded(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """[P10]: attempts count as those of any activity."""
    book.steps += [fail(ValueError("one"))]
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert bank.facts() == ["attempt", "activity"]
    book.steps += [fail(ValueError("two")), fail(ValueError("three"))]
    with pytest.raises(perdure.JobFailed, match="ValueError: three") as raised:
        client.start("books", "b").result(T)
    assert "activity book" in raised.value.failure["through"]
    assert bank.rows() == ["a"]


def test_a_hook_is_told_of_failures_too(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    @app.hook
    async def hooks(memory: perdure.AsyncEntity) -> Any:
        try:
            await book("a")
        except perdure.ActivityFailed as error:
            return [error.type, await book("b")]

    @app.coordinator
    async def hooked(memory: perdure.AsyncEntity) -> Any:
        return await hooks(memory)

    book.steps += [fail(KeyError("one")), fail(KeyError("two"))]
    work()
    assert client.start(hooked).result(T) == ["KeyError", "run 3"]
    assert bank.rows() == ["b"]


def test_a_lab_runs_and_mocks_it(dsn: str) -> None:
    """A mock is given the connection, too, and pauses are skipped."""
    app = perdure.App()

    @app.transaction(retry=perdure.Retry(attempts=2, delay="1 h"))
    async def ask(connection: psycopg.AsyncConnection[Any], what: str) -> str:
        raise ValueError(what)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, what: str) -> str:
        return await ask(what)

    with perdure.testing.Lab(app, dsn=dsn) as lab:
        with pytest.raises(perdure.JobFailed, match="ValueError: a"):
            lab.run(asks, "a")
        mocked = lab.mock(ask, lambda connection, what: what + connection.info.dbname)
        assert lab.run(asks, "b").startswith("bperdure")
        assert mocked.calls == [("b",)]


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit()],
    ids=["exit", "interrupt", "generator"],
)
def test_nothing_that_it_raises_ends_the_worker(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, error: BaseException
) -> None:
    book.steps += [fail(error)]
    work()
    with pytest.raises(perdure.JobFailed, match=type(error).__name__):
        client.start("books", "a").result(T)
    assert client.start("books", "b").result(T) == "run 2"
    assert bank.rows() == ["b"]


def test_a_result_that_cannot_be_stored_rolls_back(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """And no other attempt would mend it."""
    book.steps += [lambda _: float("nan")]
    work()
    with pytest.raises(perdure.JobFailed, match="InvalidValue"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows()) == (1, [])


def test_a_turn_that_is_refused_rolls_back(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the database judges a value otherwise than this package."""
    monkeypatch.setattr(transactions, "stored", lambda value: value)
    book.steps += [lambda _: "x" * 2_000_000]
    work()
    with pytest.raises(perdure.JobFailed, match="ValueTooLarge"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows()) == (1, [])


def test_a_constraint_that_fails_at_the_commit_rolls_back(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The result was recorded in that transaction, and is rolled back with it."""
    bank.run("alter table bookings add unique (what) deferrable initially deferred")
    bank.run("insert into bookings (what) values ('a')")
    work()
    with pytest.raises(perdure.JobFailed, match="UniqueViolation"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["attempt", "activity"])


@pytest.mark.direct("it holds a lock for its session")
def test_a_hook_ends_while_a_transaction_that_it_has_left_cannot_commit(
    app: perdure.App, client: perdure.Client, bank: Bank, dsn: str, work: Any
) -> None:
    bank.run(
        "create function no_bookings() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(1); raise 'closed'; end $$"
    )
    bank.run(
        "create constraint trigger no_bookings after insert on bookings deferrable"
        " initially deferred for each row execute function no_bookings()"
    )
    left: list[Any] = []
    is_committing = threading.Event()

    @app.transaction
    async def book(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(BOOK, ["a"])

    @app.hook
    async def leaves_it(memory: perdure.AsyncEntity) -> str:
        left.append(asyncio.create_task(book()))
        await asyncio.to_thread(is_committing.wait, 20)
        return "done"

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await leaves_it(memory)

    bank.run("select pg_advisory_lock(1)")
    work()
    handle = client.start(asks)
    wait_for(dsn, "select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted")
    is_committing.set()
    end = time.monotonic() + 20
    while not left[0].done():
        assert time.monotonic() < end
        time.sleep(0.01)
    bank.run("select pg_advisory_unlock(1)")
    assert handle.result(T) == "done"
    assert bank.rows() == []


def test_it_must_not_end_its_transaction(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """psycopg refuses its methods; what statements have committed is told, and not done again."""
    work()
    book.steps += [lambda connection: connection.commit()] * 2
    with pytest.raises(perdure.JobFailed, match="commit"):
        client.start("books", "a").result(T)
    book.steps += [lambda connection: connection.rollback()] * 2
    with pytest.raises(perdure.JobFailed, match="rollback"):
        client.start("books", "b").result(T)
    assert (book.runs, bank.rows()) == (4, [])
    for statement in ("commit", "commit and chain", "rollback"):
        book.runs = 0
        book.steps += [lambda connection, text=statement: executed(connection, text)]  # type: ignore[misc]
        with pytest.raises(perdure.JobFailed, match="has ended the transaction"):
            client.start("books", statement).result(T)
        assert book.runs == 1
    assert bank.rows() == ["commit", "commit and chain"]


def executed(connection: Any, text: str) -> Any:
    """Run a statement; gives nothing that could be stored, so nothing of it."""
    cursor = connection.execute(text)

    async def wait() -> None:
        await cursor

    return wait() if inspect.isawaitable(cursor) else None


def test_a_block_inside_is_a_savepoint(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    async def undo_async(connection: Any) -> str:
        async with connection.transaction(force_rollback=True):
            await connection.execute(BOOK, ["undone"])
        return "kept"

    def undo(connection: Any) -> str:
        with connection.transaction(force_rollback=True):
            connection.execute(BOOK, ["undone"])
        return "kept"

    book.steps += [undo_async if book.kind == "async" else undo]
    work()
    assert client.start("books", "a").result(T) == "kept"
    assert bank.rows() == ["a"]


def test_it_is_called_with_a_connection_elsewhere(book: Booking, bank: Bank) -> None:
    with pytest.raises(perdure.InvalidArgument, match="outside of a coordinator"):
        book.work("a")
    assert bank.rows() == []


def test_a_level_of_isolation_has_a_name(app: perdure.App) -> None:
    with pytest.raises(perdure.InvalidArgument, match="not an isolation level"):
        app.transaction(isolation="chaos")(lambda connection: None)  # type: ignore[call-overload]


# Again.


@pytest.mark.parametrize(
    "conflict", [psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected]
)
def test_a_conflict_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, conflict: type[Exception]
) -> None:
    """It is no failed attempt: nothing is recorded of it."""
    book.steps += [fail(conflict("a conflict"))] * 2
    work()
    assert client.start("books", "a").result(T) == "run 3"
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_errors_that_are_causes_of_each_other_are_a_failure(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """Who looked among them for a conflict went round for ever, and held up the worker."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    book.steps += [fail(one)] * 2  # an attempt, and another
    work()
    with pytest.raises(perdure.JobFailed, match="ValueError: one"):
        client.start("books", "a").result(T)
    assert bank.rows() == []


def test_a_conflict_without_end_is_a_failure(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_RUNS", 3)
    book.steps += [fail(psycopg.errors.SerializationFailure("a conflict"))] * 6
    work()
    with pytest.raises(perdure.JobFailed, match="SerializationFailure"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (6, [], ["attempt", "activity"])


def test_a_deadlock_of_two_is_broken_by_the_server(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    bank.run("insert into bookings (what) values ('x'), ('y')")
    both = threading.Barrier(2)
    meet = [both.wait, both.wait]

    @app.transaction
    def lock(connection: psycopg.Connection[Any], first: str, second: str) -> None:
        query = "update bookings set what = what where what = %s"
        connection.execute(query, [first])
        if meet:
            meet.pop()(10)
        connection.execute(query, [second])

    @app.coordinator
    def locks(memory: perdure.Entity, first: str, second: str) -> None:
        lock(first, second)

    work()
    handles = [client.start(locks, *pair) for pair in (("x", "y"), ("y", "x"))]
    assert [handle.result(T) for handle in handles] == [None, None]


@pytest.mark.direct("it ends the process behind a connection")
def test_a_lost_connection_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    def lose(connection: Any) -> Any:
        bank.run("select pg_terminate_backend(%s)", connection.info.backend_pid)
        return executed(connection, "select 1")

    book.steps += [lose]
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


@pytest.mark.parametrize(
    "code", ["57014", "55P03", "53200"], ids=["cancelled", "lock timeout", "no memory"]
)
def test_what_ends_the_recording_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    monkeypatch: pytest.MonkeyPatch, code: str,
) -> None:  # fmt: skip
    """(T6): the function is not to blame for what the worker itself asks; no attempt has failed."""
    record = calls.Calls.record

    def spoiled(self: calls.Calls, *given: Any) -> calls.Call:
        monkeypatch.setattr(calls.Calls, "record", record)
        spoil = f"do $$ begin raise 'not now' using errcode = '{code}'; end $$"
        return calls.Call("record", spoil.encode(), ())

    monkeypatch.setattr(calls.Calls, "record", spoiled)
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_what_ends_a_statement_of_the_function_is_its_own_failure(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    book.steps += [fail(psycopg.errors.QueryCanceled("a limit"))] * 2
    work()
    with pytest.raises(perdure.JobFailed, match="QueryCanceled"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (2, [], ["attempt", "activity"])


def cut(connection: Any, cables: list[int]) -> None:
    """Cut the network: the server sees nothing of it, and holds the connection open."""
    here, there = socket.socketpair()
    cables.append(os.dup(connection.fileno()))
    os.dup2(here.fileno(), connection.fileno())
    here.close()
    there.close()


def lose(connection: Any) -> None:
    """Lose the connection."""
    connection.pgconn.finish()
    raise psycopg.OperationalError("the connection is lost")


@pytest.fixture
def at_commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give a function that says how the next commit ends."""
    fates: list[str] = []
    cables: list[int] = []
    plain, asynchronous = psycopg.Transaction.__exit__, psycopg.AsyncTransaction.__aexit__

    def fate_of(block: Any, error: Any) -> str:
        fate = fates.pop() if fates and error == (None, None, None) else "committed"
        if fate == "the network is cut":
            cut(block.connection, cables)
        if fate == "lost before it was sent":
            lose(block.connection)
        return fate

    def leave(block: Any, *error: Any) -> Any:
        fate = fate_of(block, error)
        left = plain(block, *error)
        if fate == "committed, reply lost":
            lose(block.connection)
        return left

    async def leave_async(block: Any, *error: Any) -> Any:
        fate = fate_of(block, error)
        left = await asynchronous(block, *error)
        if fate == "committed, reply lost":
            lose(block.connection)
        return left

    monkeypatch.setattr(psycopg.Transaction, "__exit__", leave)
    monkeypatch.setattr(psycopg.AsyncTransaction, "__aexit__", leave_async)
    yield fates.append
    for cable in cables:
        os.close(cable)


@pytest.mark.parametrize("caller", ["coordinator", "hook", "queue"])
@pytest.mark.parametrize(
    ("fate", "runs"), [("committed, reply lost", 1), ("lost before it was sent", 2)]
)
def test_a_commit_without_an_answer_is_asked_for(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str,
    at_commit: Callable[[str], None], fate: str, runs: int, caller: str,
) -> None:  # fmt: skip
    """[P12]: the function runs again only if it was not applied; the rows stand once."""
    book = Booking(app, kind, queue="bank" if caller == "queue" else None)

    @app.hook
    async def hooks(memory: perdure.AsyncEntity, what: str) -> Any:
        return [await book(what), await memory.append("log", what)]

    @app.coordinator
    async def hooked(memory: perdure.AsyncEntity, what: str) -> Any:
        return await hooks(memory, what)

    at_commit(fate)
    work()
    handle = client.start("hooked" if caller == "hook" else "books", "a")
    assert handle.result(T) == ([f"run {runs}", 1] if caller == "hook" else f"run {runs}")
    assert (book.runs, bank.rows()) == (runs, ["a"])
    if caller != "queue":
        assert bank.facts() == ["activity"]


def test_whose_turn_was_applied_before_commits_nothing(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    at_commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """[P12]: also if it were to run again without having asked."""

    async def never_asks(_: Any) -> None:
        return None

    monkeypatch.setattr(transactions.TransactionAttempt, "_what_became", never_asks)
    at_commit("committed, reply lost")
    work()
    assert client.start("books", "a").result(T) == "run 1"
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


def test_a_transaction_that_is_left_open_delays_others_for_a_moment(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    at_commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As when the network is cut before the commit: the server gives up, and it runs again."""
    monkeypatch.setattr(calls, "COMMIT_WITHIN", "1 s")
    at_commit("the network is cut")
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


# Fences.


@pytest.mark.parametrize("end", ["terminate", "steal"])
def test_who_has_lost_the_task_commits_nothing(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, end: str
) -> None:
    """[P6]: terminated, or held by another; the rows are rolled back with the fact."""
    job = "job"

    def lose(_: Any) -> None:
        if end == "terminate":
            bank.run("select perdure.terminate(%s)", job)
        else:
            bank.run("update perdure.tasks set token = gen_random_uuid(), due_at = now()")

    book.steps += [lose]
    work(lease=300)
    handle = client.start("books", "a", id=job)
    if end == "terminate":
        with pytest.raises(perdure.JobCancelled):
            handle.result(T)
        assert client.start("books", "b").result(T) == "run 2"  # it works on
        assert bank.rows() == ["b"]
    else:
        assert handle.result(T) == "run 2"
        assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


def test_a_cancel_ends_it_while_it_runs(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The inbox is looked at meanwhile."""
    book = Booking(app, "async")
    book.steps += [book.pause(60)]
    work()
    handle = client.start("books", "a")
    while not book.runs:
        time.sleep(0.01)
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert bank.rows() == []


def test_a_thread_that_waits_for_a_lock_is_interrupted(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any, dsn: str
) -> None:
    """Cancelled by a limit of the code; what waits in the server waits no longer."""
    wait = "lock table bookings in exclusive mode"

    @app.coordinator
    async def limits(memory: perdure.AsyncEntity) -> Any:
        try:
            async with asyncio.timeout(0.3):
                await book("a")
        except TimeoutError:
            return await memory.append("log", "late")

    book.steps += [lambda connection: executed(connection, wait)]
    with psycopg.connect(dsn) as other:
        other.execute("lock table bookings in row share mode")
        work()
        assert client.start(limits).result(T) == 1
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        while bank.run(waiting) != [(0,)]:
            time.sleep(0.01)
    assert bank.rows() == []


@pytest.mark.parametrize("where", ["in a statement", "in its code"])
def test_a_timeout_rolls_back(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, where: str
) -> None:
    """It counts for each attempt, from when the function begins; who comes late commits nothing."""
    book = Booking(app, kind, timeout=0.3, retry=perdure.Retry(attempts=2, delay=0.5))
    sleep: Step = lambda connection: executed(connection, "select pg_sleep(60)")  # noqa: E731
    book.steps += [sleep if where == "in a statement" else book.pause(0.6)]
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (bank.rows(), bank.facts()) == (["a"], ["attempt", "activity"])


@pytest.mark.parametrize("caller", ["books", "hooked"])
def test_all_attempts_have_a_limit_that_is_recorded_before_the_first_begins(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, caller: str
) -> None:
    """Else a crash in that attempt would let the time begin again."""
    book = Booking(app, kind, within=0.6, retry=perdure.Retry(attempts=9, delay=0.2, factor=1))
    recorded: list[Any] = []

    @app.hook
    async def hooks(memory: perdure.AsyncEntity, what: str) -> Any:
        return await book(what)

    @app.coordinator
    async def hooked(memory: perdure.AsyncEntity, what: str) -> Any:
        return await hooks(memory, what)

    def look(_: Any) -> None:
        recorded.append(bank.run("select count(*) from perdure.journal where kind = 'note'"))
        raise ValueError("no")

    book.steps += [look] * 9
    work()
    with pytest.raises(perdure.JobFailed, match=r"was not done within 0\.6 s"):
        client.start(caller, "a").result(T)
    assert 1 < book.runs < 9
    assert recorded[0] == [(1,)]
    assert bank.rows() == []


def test_a_commit_that_has_begun_is_not_cut_short(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    """Its outcome is what the database says, however long that takes."""
    bank.run(
        "create function slowly() returns trigger language plpgsql as"
        " 'begin perform pg_sleep(1); return null; end'"
    )
    bank.run(
        "create constraint trigger slow after insert on bookings deferrable initially deferred"
        " for each row execute function slowly()"
    )
    book = Booking(app, kind, timeout=0.5)
    work()
    assert client.start("books", "a").result(T) == "run 1"
    assert (book.runs, bank.rows(), bank.facts()) == (1, ["a"], ["activity"])


# Beside other work.


def test_it_may_use_the_memory_of_its_own_job(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any, dsn: str
) -> None:
    """It holds the lock of its job then: the rest of the job waits, and not for ever."""

    @app.coordinator
    async def busy(memory: perdure.AsyncEntity) -> Any:
        async def writes() -> list[Any]:
            return [await memory.append("log", n) for n in range(5)]

        both = await asyncio.gather(writes(), book("a"), book("b"), writes())
        return [both, await memory.get("booked")]

    @app.hook
    async def busy_hook(memory: perdure.AsyncEntity) -> Any:
        async def writes() -> list[Any]:
            return [await memory.append("hook log", n) for n in range(5)]

        return await asyncio.gather(writes(), book("c"), book("d"), writes())

    @app.coordinator
    async def busy_hooked(memory: perdure.AsyncEntity) -> Any:
        return await busy_hook(memory)

    async def count_async(connection: Any) -> Any:
        async with await perdure.connect_async(dsn) as other:
            job = perdure.info().job
            counted = await other.entity(job, connection=connection).increment("booked")
        await asyncio.sleep(0.2)
        return counted

    def count(connection: Any) -> Any:
        counted = client.entity(perdure.info().job, connection=connection).increment("booked")
        time.sleep(0.2)
        return counted

    book.steps += [count_async if book.kind == "async" else count] * 4
    work()
    told, booked = client.start(busy).result(T)
    assert sorted(told[1:3]) == [1, 2]
    assert booked == 2
    assert sorted(told[0] + told[3]) == list(range(1, 11))
    told = client.start(busy_hooked).result(T)
    assert sorted(told[1:3]) == [1, 2]
    assert bank.rows() == ["a", "b", "c", "d"]


def test_signals_and_activities_go_on_meanwhile(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    heard = threading.Event()

    @app.activity
    async def note(what: Any) -> Any:
        heard.set()
        return what

    @app.coordinator
    async def listens(memory: perdure.AsyncEntity) -> Any:
        async def hears() -> Any:
            return [await perdure.wait_for("go"), await note(await perdure.wait_for("go"))]

        return await asyncio.gather(book("a"), note("at once"), hears())

    async def wait_async(_: Any) -> str:
        await asyncio.to_thread(heard.wait, 20)
        return "heard"

    book.steps += [wait_async if book.kind == "async" else lambda _: heard.wait(20) and "heard"]
    handle = client.start(listens)
    work()
    for n in range(2):
        handle.signal("go", n)
    assert handle.result(T) == ["heard", "at once", [0, 1]]


def test_more_than_there_are_connections_take_turns(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(lent_connections, "MAX_OPEN", 2)
    book = Booking(app, kind)
    work()
    handles = [client.start("books", f"{n:02}") for n in range(20)]
    for handle in handles:
        handle.result(T)
    assert bank.rows() == [f"{n:02}" for n in range(20)]
    assert book.runs == 20
    assert bank.run(OPEN)[0][0] <= 2


def test_a_worker_says_once_that_it_has_too_few_connections(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(lent_connections, "MAX_OPEN", 1)
    monkeypatch.setattr(lent_connections, "CROWDED_AFTER", 0.1)
    begun, goes_on = threading.Event(), threading.Event()

    @app.transaction
    def book(connection: psycopg.Connection[Any]) -> None:
        begun.set()
        assert goes_on.wait(20)

    @app.coordinator
    async def books(memory: perdure.AsyncEntity) -> None:
        await book()

    worker = work()
    handles = [client.start(books)]
    assert begun.wait(20)
    handles += [client.start(books) for _ in range(2)]
    until = time.monotonic() + 20
    while "this worker has 1 open" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.02)
    handles.append(client.start(books))
    time.sleep(0.3)
    goes_on.set()
    for handle in handles:
        handle.result(T)
    worker.stop()
    assert caplog.text.count("run more workers") == 1


@pytest.mark.direct("it counts sessions")
def test_both_kinds_share_the_connections(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P8] (T33): those of one kind that are idle make room for the other."""
    monkeypatch.setattr(lent_connections, "MAX_OPEN", 2)

    @app.transaction
    async def book_async(connection: psycopg.AsyncConnection[Any], what: str) -> None:
        await connection.execute(BOOK, [what])

    @app.transaction
    def book_plain(connection: psycopg.Connection[Any], what: str) -> None:
        connection.execute(BOOK, [what])

    @app.coordinator
    async def books(memory: perdure.AsyncEntity, whats: list[str]) -> None:
        for book in (book_async, book_plain, book_async):
            await asyncio.gather(*(book(what) for what in whats))

    work()
    client.start(books, ["a", "b", "c"]).result(T)
    assert bank.rows() == [*"aaabbbccc"]
    assert bank.run(OPEN)[0][0] <= 2


@pytest.mark.direct("it counts sessions")
def test_a_connection_that_nobody_uses_is_closed(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """[P8] (T33): the server may have no other for whoever has none."""
    monkeypatch.setattr(lent_connections, "IDLE_FOR", 0.5)
    work()
    for _ in range(2):
        handles = [client.start("books", "a") for _ in range(3)]
        for handle in handles:
            handle.result(T)
        assert bank.run(OPEN)[0][0] > 0
        wait_for(dsn, OPEN.replace("count(*)", "count(*) = 0"))


def test_nothing_of_a_session_reaches_the_next_transaction(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    async def spoil_async(connection: Any) -> None:
        connection.row_factory = dict_row
        await connection.execute("set statement_timeout = '1 h'")

    def spoil(connection: Any) -> None:
        connection.row_factory = dict_row
        connection.execute("set statement_timeout = '1 h'")

    async def look_async(connection: Any) -> Any:
        return list(await (await connection.execute("show statement_timeout")).fetchone())

    def look(connection: Any) -> Any:
        return list(connection.execute("show statement_timeout").fetchone())

    work()
    book.steps += [spoil_async, look_async] if book.kind == "async" else [spoil, look]
    client.start("books", "a").result(T)
    assert client.start("books", "b").result(T) == ["0"]


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_level_of_isolation_is_the_transactions_own(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, level: Any
) -> None:
    """What it locks with an old snapshot is a conflict: its function runs again."""
    book = Booking(app, kind, isolation=level)

    def move(connection: Any) -> Any:
        bank.run("update perdure.tasks set priority = priority")  # as a heartbeat does
        return executed(connection, "select 1")

    book.steps += [move]
    work(lease=300)  # no heartbeat comes in between, which would be a conflict, too
    told = [None] if level == "read committed" else ["run 2", "run 3"]  # a turn may come between
    assert client.start("books", "a").result(T) in told
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_what_a_hook_takes_back_is_sent_before_what_it_said_since() -> None:
    """The answers of commands find them by their places."""

    class Loop:
        def create_future(self) -> Any:
            return Future()

    turn: Any = SimpleNamespace(
        engine=SimpleNamespace(
            clock=SimpleNamespace(now=lambda: 0), loop=Loop(), call_later=lambda *_: None
        ),
        journal=HookJournal(()),
        submit=lambda: None,
        flush=lambda: None,
    )
    outbox = Outbox(turn, 0)
    first, second = (command_operation("increment", ["n"], number, None) for number in (1, 2))
    outbox.append("activity", "step#1", value=1)
    early = outbox.command(first, "first")
    sent = outbox.send_with(Fact("activity", "book#1", True, None, 0))
    assert [fact["key"] for fact in sent["facts"]] == ["step#1", "first", "book#1"]
    late = outbox.command(second, "second")
    outbox.take_back()
    assert [fact["key"] for fact in outbox.send()["facts"]] == ["step#1", "first", "second"]
    assert outbox.acknowledge(5, {"answers": [[7, True, 1], [8, True, 3]]}) == 8
    assert (early.result().value, late.result().value) == (1, 3)
    assert turn.journal.fact("book#1") is None


def test_a_connection_is_closed_where_its_reset_is_cut_short(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the attempt's limit: it was neither kept nor closed, and in a state that nobody knew."""
    lent: list[Any] = []
    send_async = transactions.send_async

    async def hangs(cursor: Any, call: Any) -> Any:
        if call.function == "reset":
            await asyncio.Event().wait()
        return await send_async(cursor, call)

    monkeypatch.setattr(transactions, "send_async", hangs)

    @app.transaction(timeout=0.2)
    async def fails(connection: Any) -> None:
        lent.append(connection)
        raise ValueError("no")

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        await fails()

    work()
    with pytest.raises(perdure.JobFailed):
        client.start(begins).result(T)
    pause = threading.Event()
    for _ in range(500):
        if lent[0].closed:
            break
        pause.wait(0.02)
    assert lent[0].closed
