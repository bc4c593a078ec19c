"""Transactions: the rows of an activity and its recorded result commit together, once. (E8)"""

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
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
import perdure.testing
from perdure.database import worker_calls
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.replay.replay import Fact
from perdure.workers import hooks, lent_connections, outbox, transactions, waits
from perdure.workers.hook_journal import HookJournal
from perdure.workers.outbox import Outbox
from perdure.workers.turns import Turn
from perdure.workflow.operations import command_operation
from tests.worker.test_until import wait_for

pytestmark = pytest.mark.steady("it counts how often a function runs", "transaction")

T = "40 s"
BOOK = "insert into bookings (what) values (%s) returning id"
OPEN = "select count(*) from pg_stat_activity where application_name = 'perdure transaction'"

Step = Callable[[Any], Any]
"""What the function does with its connection after it has inserted its booking."""


class Bank:
    """The user's table of bookings, read through a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]):
        self._connection = connection
        self.run("create table bookings (id serial primary key, what text)")

    def run(self, query: str, *params: Any) -> list[Any]:
        cursor = self._connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[str]:
        """Give all bookings, in order."""
        return [what for (what,) in self.run("select what from bookings order by what")]

    def facts(self) -> list[str]:
        """Give the kinds of the facts about `book` in the journal, in order."""
        query = "select kind from perdure.journal where name = 'book' order by at, seq"
        return [kind for (kind,) in self.run(query)]


class Booking:
    """The transaction `book`: it inserts a booking, then takes its next step; `runs` counts."""

    def __init__(self, app: perdure.App, kind: str, **options: Any):
        self.steps: deque[Step] = deque()
        self.runs = 0
        self.kind = kind

        async def book_async(connection: psycopg.AsyncConnection[Any], what: str) -> Any:
            await connection.execute(BOOK, [what])
            result = self._take_step(connection)
            return await result if inspect.isawaitable(result) else result

        def book_plain(connection: psycopg.Connection[Any], what: str) -> Any:
            connection.execute(BOOK, [what])
            return self._take_step(connection)

        function: Any = book_async if kind == "async" else book_plain
        self.work = app.transaction(name="book", **options)(function)

        @app.coordinator
        async def books(memory: perdure.AsyncEntity, what: str) -> Any:
            return await self(what)

    async def __call__(self, what: str) -> Any:
        result = self.work(what)
        return await result

    def _take_step(self, connection: Any) -> Any:
        self.runs += 1
        return self.steps.popleft()(connection) if self.steps else f"run {self.runs}"

    def pause(self, seconds: float) -> Step:
        """Give a step that sleeps as this kind of function does."""
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
    """Give the transaction in both kinds; a failure is retried once."""
    return Booking(app, kind, retry=perdure.Retry(attempts=2, delay=0.01))


def fail(error: BaseException) -> Step:
    """Give a step that raises the error."""

    def step(_: Any) -> Any:
        raise error

    return step


# Rows and result commit together.


def test_rows_and_result_commit_in_one_transaction(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """[P4] (E8) Coordinators and hooks call the transaction, in plain and in async code."""

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


def test_earlier_facts_are_recorded_with_the_transaction(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """Results that are not recorded yet go with the transaction, in their order, without a round
    trip of their own."""

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


def test_result_has_the_annotated_type(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The caller gets the stored value, converted to the annotated type, as from any activity."""

    @app.transaction
    def gives_back(connection: psycopg.Connection[Any], pair: tuple[int, int]) -> tuple[int, int]:
        assert perdure.info().kind == "activity"
        return pair

    @app.coordinator
    def calls_it(memory: perdure.Entity) -> Any:
        return repr(gives_back((1, 2)))

    work()
    assert client.start(calls_it).result(T) == "(1, 2)"


def test_dispatched_transaction_is_retried_and_ends_its_task(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    """With a queue of its own, it commits its rows once, and its failures reach the caller."""
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


def test_signal_taken_before_a_transaction_is_not_delivered_twice(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    """[P5] The signal stays in the inbox until the transaction records that it was taken. Another
    signal that arrives meanwhile must not bring it again."""
    book = Booking(app, kind)

    async def takes() -> list[Any]:
        first = await perdure.wait_for("go")
        booked, second = await asyncio.gather(book(f"{first}"), perdure.wait_for("go"))
        return [first, booked, second]

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


# Failures roll back.


def test_a_failure_rolls_back_and_is_recorded(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """[P10] A failed attempt leaves no rows, and counts as an attempt of any activity does."""
    book.steps += [fail(ValueError("one"))]
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert bank.facts() == ["attempt", "activity"]
    book.steps += [fail(ValueError("two")), fail(ValueError("three"))]
    with pytest.raises(perdure.JobFailed, match="ValueError: three") as raised:
        client.start("books", "b").result(T)
    assert "activity book" in raised.value.failure["through"]
    assert bank.rows() == ["a"]


def test_failure_is_raised_in_the_calling_hook(
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


def test_lab_runs_and_mocks_transactions(dsn: str) -> None:
    """A mock gets the connection, too, and pauses between attempts are skipped."""
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
def test_exit_raised_in_the_function_does_not_end_the_worker(
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
    """Another attempt would not help, so the function runs once."""
    book.steps += [lambda _: float("nan")]
    work()
    with pytest.raises(perdure.JobFailed, match="InvalidValue"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows()) == (1, [])


def test_result_that_the_database_refuses_rolls_back(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the package has not checked the value first."""
    monkeypatch.setattr(transactions, "stored_result", lambda _, value: value)
    book.steps += [lambda _: "x" * 2_000_000]
    work()
    with pytest.raises(perdure.JobFailed, match="ValueTooLarge"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows()) == (1, [])


def test_a_constraint_that_fails_at_the_commit_rolls_back(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The result is recorded in the same transaction, and is rolled back with it."""
    bank.run("alter table bookings add unique (what) deferrable initially deferred")
    bank.run("insert into bookings (what) values ('a')")
    work()
    with pytest.raises(perdure.JobFailed, match="UniqueViolation"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["attempt", "activity"])


@pytest.mark.direct("it holds a lock for its session")
def test_hook_ends_while_its_abandoned_transaction_fails_to_commit(
    app: perdure.App, client: perdure.Client, bank: Bank, dsn: str, work: Any
) -> None:
    """The hook returns without awaiting its transaction, whose commit hangs and then fails."""
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


def fails_and_closes(connection: Any) -> Any:
    """End as code does that closes its connection in a `finally` block."""
    closing = connection.close()

    async def fails() -> None:
        await closing
        raise ValueError("of its own")

    if inspect.isawaitable(closing):
        return fails()
    raise ValueError("of its own")


def test_function_must_not_end_its_transaction(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """psycopg refuses `commit()` and `rollback()`. A statement that ends the transaction fails the
    job, and so does `close()`; the function does not run again."""
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
    book.runs = 0
    book.steps += [lambda connection: connection.close()]
    with pytest.raises(perdure.JobFailed, match="has ended the transaction"):
        client.start("books", "closed").result(T)
    assert book.runs == 1
    book.runs = 0
    book.steps += [fails_and_closes] * 9
    with pytest.raises(perdure.JobFailed, match="of its own"):
        client.start("books", "failed").result(T)
    assert book.runs == 2  # as often as the policy allows
    assert bank.rows() == ["commit", "commit and chain"]


def executed(connection: Any, text: str) -> Any:
    """Execute a statement and give no result, because a cursor could not be stored."""
    cursor = connection.execute(text)

    async def wait() -> None:
        await cursor

    return wait() if inspect.isawaitable(cursor) else None


def test_transaction_block_inside_the_function_is_a_savepoint(
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


def test_call_without_connection_outside_of_a_job_is_rejected(book: Booking, bank: Bank) -> None:
    with pytest.raises(perdure.InvalidArgument, match="outside of a coordinator"):
        book.work("a")
    assert bank.rows() == []


def test_unknown_isolation_level_is_rejected(app: perdure.App) -> None:
    with pytest.raises(perdure.InvalidArgument, match="not an isolation level"):
        app.transaction(isolation="chaos")(lambda connection: None)  # type: ignore[call-overload]


# Conflicts and lost connections: the function runs again.


@pytest.mark.parametrize(
    "conflict", [psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected]
)
def test_a_conflict_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, conflict: type[Exception]
) -> None:
    """A serialization failure or a deadlock is no failed attempt, and nothing of it is recorded."""
    book.steps += [fail(conflict("a conflict"))] * 2
    work()
    assert client.start("books", "a").result(T) == "run 3"
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_conflict_that_another_error_hides_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    error = LookupError("no such account")
    error.__cause__ = psycopg.errors.SerializationFailure("could not serialize access")
    book.steps.append(fail(error))
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert bank.rows() == ["a"]


def test_errors_that_cause_each_other_fail_the_job(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The search for a conflict among the causes must end, or it would block the worker."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    book.steps += [fail(one)] * 2  # in both attempts
    work()
    with pytest.raises(perdure.JobFailed, match="ValueError: one"):
        client.start("books", "a").result(T)
    assert bank.rows() == []


def test_conflict_that_repeats_too_often_is_a_failed_attempt(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_RUNS", 3)
    book.steps += [fail(psycopg.errors.SerializationFailure("a conflict"))] * 6
    work()
    with pytest.raises(perdure.JobFailed, match="SerializationFailure"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (6, [], ["attempt", "activity"])


def test_two_deadlocked_transactions_both_complete(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The server ends one of them, and its function runs again."""
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


@pytest.mark.parametrize(("too_slow", "runs"), [(1, 2), (4, 4)], ids=["once", "always"])
def test_transaction_that_the_server_finds_too_long_runs_again_once(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, too_slow: int, runs: int
) -> None:
    """A worker that was held up is not to blame. A function that is too slow would be each time."""

    def dawdle(connection: Any) -> Any:
        limit = "set idle_in_transaction_session_timeout = '50 ms'"
        if book.kind == "async":
            return dawdle_async(connection, limit)
        connection.execute(limit)
        time.sleep(0.3)
        return "too late"

    async def dawdle_async(connection: Any, limit: str) -> str:
        await connection.execute(limit)
        await asyncio.sleep(0.3)
        return "too late"

    book.steps += [dawdle] * too_slow
    work()
    job = client.start("books", "a")
    if too_slow == 1:
        assert job.result(T) == "run 2"
        assert (bank.rows(), bank.facts()) == (["a"], ["activity"])
    else:
        with pytest.raises(perdure.JobFailed, match="idle-in-transaction timeout"):
            job.result(T)
        assert (bank.rows(), bank.facts()) == ([], ["attempt", "activity"])
    assert book.runs == runs


@pytest.mark.parametrize(
    "code", ["57014", "55P03", "53200"], ids=["cancelled", "lock timeout", "no memory"]
)
def test_error_while_recording_runs_the_function_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    monkeypatch: pytest.MonkeyPatch, code: str,
) -> None:  # fmt: skip
    """(T6) No attempt has failed: the function is not to blame for a statement of the worker."""
    record = Calls.record

    def failing(self: Calls, *given: Any) -> Call:
        monkeypatch.setattr(Calls, "record", record)
        statement = f"do $$ begin raise 'not now' using errcode = '{code}'; end $$"
        return Call("record", statement.encode(), ())

    monkeypatch.setattr(Calls, "record", failing)
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_cancelled_statement_of_the_function_is_a_failed_attempt(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    book.steps += [fail(psycopg.errors.QueryCanceled("a limit"))] * 2
    work()
    with pytest.raises(perdure.JobFailed, match="QueryCanceled"):
        client.start("books", "a").result(T)
    assert (book.runs, bank.rows(), bank.facts()) == (2, [], ["attempt", "activity"])


def cut(connection: Any, cables: list[int]) -> None:
    """Cut the network: the server does not notice, and keeps the connection open."""
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
def test_commit_whose_reply_is_lost_is_looked_up(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str,
    at_commit: Callable[[str], None], fate: str, runs: int, caller: str,
) -> None:  # fmt: skip
    """[P12] The worker asks the database whether it was applied, and runs the function again only
    if it was not. Either way, the rows are inserted once."""
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


def test_second_run_of_an_applied_turn_commits_nothing(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    at_commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """[P12] Here the worker runs the function again without asking whether it was applied."""

    async def never_asks(_: Any) -> None:
        return None

    monkeypatch.setattr(transactions.TransactionAttempt, "_what_became", never_asks)
    at_commit("committed, reply lost")
    work()
    assert client.start("books", "a").result(T) == "run 1"
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


def test_transaction_cut_off_before_its_commit_runs_again(
    book: Booking, client: perdure.Client, bank: Bank, work: Any,
    at_commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """When the network is cut, the server ends the transaction after a moment."""
    monkeypatch.setattr(worker_calls, "COMMIT_WITHIN", "1 s")
    at_commit("the network is cut")
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


# Fences, cancels and time limits.


@pytest.mark.parametrize("end", ["terminate", "steal"])
def test_transaction_that_has_lost_its_task_commits_nothing(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, end: str
) -> None:
    """[P6] If the job is terminated or the task is stolen, rows and fact are rolled back."""
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
        assert client.start("books", "b").result(T) == "run 2"  # the worker goes on
        assert bank.rows() == ["b"]
    else:
        assert handle.result(T) == "run 2"
        assert (book.runs, bank.rows(), bank.facts()) == (2, ["a"], ["activity"])


def test_cancel_ends_a_running_transaction(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """The worker looks into the inbox while the function runs."""
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


def test_cancelled_transaction_stops_waiting_for_a_lock(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any, dsn: str
) -> None:
    """A timeout in the coordinator cancels it, and its statement ends in the server, too."""
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


def test_cancelled_transaction_keeps_its_place_until_its_thread_ends(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is open as long: another one would be beyond the limit."""
    monkeypatch.setattr(lent_connections, "MAX_OPEN", 1)
    begun, goes_on = threading.Event(), threading.Event()
    ended: list[str] = []

    @app.transaction
    def book(connection: Any, what: str) -> None:
        if what == "slowly":
            begun.set()
            goes_on.wait(20)
        ended.append(what)

    @app.coordinator
    async def books(memory: perdure.AsyncEntity, what: str) -> None:
        await book(what)

    work()
    cancelled = client.start(books, "slowly")
    assert begun.wait(20)
    cancelled.cancel()
    with pytest.raises(perdure.JobCancelled):
        cancelled.result(T)
    following = client.start(books, "next")
    time.sleep(0.3)
    assert ended == []
    goes_on.set()
    following.result(T)
    assert ended == ["slowly", "next"]


@pytest.mark.parametrize("where", ["in a statement", "in its code"])
def test_a_timeout_rolls_back(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, where: str
) -> None:
    """Each attempt has the timeout, from when its function begins; a late one commits nothing."""
    book = Booking(app, kind, timeout=0.3, retry=perdure.Retry(attempts=2, delay=0.5))
    sleep: Step = lambda connection: executed(connection, "select pg_sleep(60)")  # noqa: E731
    book.steps += [sleep if where == "in a statement" else book.pause(0.6)]
    work()
    assert client.start("books", "a").result(T) == "run 2"
    assert (bank.rows(), bank.facts()) == (["a"], ["attempt", "activity"])


@pytest.mark.parametrize("caller", ["books", "hooked"])
def test_limit_of_all_attempts_is_recorded_before_the_first_begins(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, caller: str
) -> None:
    """Otherwise a crash in the first attempt would restart the limit."""
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


def test_timeout_does_not_interrupt_a_commit(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str
) -> None:
    """Once the commit has begun, only the database knows its outcome, however long that takes."""
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


# Concurrent work, and the connections.


def test_function_may_write_to_the_memory_of_its_own_job(
    book: Booking, app: perdure.App, client: perdure.Client, bank: Bank, work: Any, dsn: str
) -> None:
    """It then holds the lock of its job; the other work of the job waits, but not for ever."""

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
    results, booked = client.start(busy).result(T)
    assert sorted(results[1:3]) == [1, 2]
    assert booked == 2
    assert sorted(results[0] + results[3]) == list(range(1, 11))
    results = client.start(busy_hooked).result(T)
    assert sorted(results[1:3]) == [1, 2]
    assert bank.rows() == ["a", "b", "c", "d"]


def test_signals_and_activities_go_on_during_a_transaction(
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


def test_command_made_while_a_hook_commits_is_sent_afterwards(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would send it, and the hook would wait for ever."""
    commits = asyncio.Event()

    @app.transaction
    async def book(connection: Any) -> None: ...

    @app.hook
    async def books(memory: perdure.AsyncEntity) -> Any:
        async def write() -> int:
            await commits.wait()
            return await memory.increment("n")

        return await asyncio.gather(book(), write())

    monkeypatch.setattr(
        transactions, "crash_point", lambda at: commits.set() if "before commit" in at else None
    )
    work()
    client.create_entity("shop", "shop")
    assert client.handle("shop").run_hook(books, timeout=T) == [None, 1]


def test_hook_that_could_not_park_runs_its_transaction_once(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of its transaction must not be taken for the answer that it could not park."""
    runs: list[str] = []
    signals: list[bool] = []

    @app.transaction
    def book(connection: Any) -> str:
        return "booked"

    @app.hook
    def books(memory: perdure.Entity) -> list[Any]:
        runs.append("run")
        return [perdure.wait_for("go"), book(), perdure.wait_for("stop")]

    def signal(at: str) -> None:
        if at == "hook: before park" and not signals:
            signals.append(client.handle("shop").signal("go", 1))

    monkeypatch.setattr(waits, "GRACE", 0.0)
    monkeypatch.setattr(outbox, "FLUSH_WITHIN", 60.0)  # no turn between the park and the commit
    monkeypatch.setattr(Turn, "take_hint", lambda turn: None)
    monkeypatch.setattr(hooks, "crash_point", signal)
    work(cache=0)
    client.create_entity("shop", "shop")
    handle = client.handle("shop")
    task = handle.hook(books)
    wait_for(dsn, "select 'stop' = any(awaits) and token is null from perdure.tasks")
    handle.signal("stop", 2)
    assert handle.hook_result(task, books, timeout=T) == [1, "booked", 2]
    assert len(runs) == 3


def test_more_transactions_than_connections_take_turns(
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
def test_async_and_plain_transactions_share_the_connections(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P8] (T33) Idle connections of one kind make room for the other kind."""
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
def test_idle_connection_is_closed(
    book: Booking, client: perdure.Client, bank: Bank, work: Any, dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """[P8] (T33) Others may need it: the server has a limited number of connections."""
    monkeypatch.setattr(lent_connections, "IDLE_FOR", 0.5)
    work()
    for _ in range(2):
        handles = [client.start("books", "a") for _ in range(3)]
        for handle in handles:
            handle.result(T)
        assert bank.run(OPEN)[0][0] > 0
        wait_for(dsn, OPEN.replace("count(*)", "count(*) = 0"))


@pytest.mark.direct("it ends the processes behind connections")
def test_idle_connections_that_were_lost_together_cost_one_pause(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    """[P8] A server that restarts ends all of them. Trying ten, one by one, would take 7 s."""
    work()
    book.steps += [book.pause(0.5)] * 10
    for handle in [client.start("books", "a") for _ in range(10)]:
        handle.result(T)
    assert bank.run(OPEN)[0][0] == 10
    bank.run(OPEN.replace("count(*)", "bool_and(pg_terminate_backend(pid))"))
    began = time.monotonic()
    assert client.start("books", "a").result(T) == "run 11"
    assert time.monotonic() - began < 3


def test_state_of_a_session_does_not_reach_the_next_transaction(
    book: Booking, client: perdure.Client, bank: Bank, work: Any
) -> None:
    role = f"spoiler_{uuid4().hex}"
    bank.run(f"create role {role} superuser")
    spoils = [
        "set statement_timeout = '1 h'",
        f"set role {role}",
        "create temporary table scratch (n integer)",
        "select pg_advisory_lock(7)",
        "listen spoiled",
        "declare kept cursor with hold for select 1",
        "prepare mine as select 1",
    ]
    looks = """
        select current_setting('statement_timeout'), current_user = session_user,
               to_regclass('pg_temp.scratch') is null, pg_backend_pid(),
               (select count(*) from pg_locks as l
                 where l.locktype = 'advisory' and l.pid = pg_backend_pid()),
               (select count(*) from pg_listening_channels()),
               (select count(*) from pg_cursors where is_holdable),
               (select count(*) from pg_prepared_statements where from_sql)"""

    async def spoil_async(connection: Any) -> int:
        connection.row_factory = dict_row
        connection.cursor_factory = psycopg.AsyncClientCursor
        for query in spoils:
            await connection.execute(query)
        return int(connection.info.backend_pid)

    def spoil(connection: Any) -> int:
        connection.row_factory = dict_row
        connection.cursor_factory = psycopg.ClientCursor
        for query in spoils:
            connection.execute(query)
        return int(connection.info.backend_pid)

    async def look_async(connection: Any) -> Any:
        cursor = await connection.execute(looks)
        return [type(cursor) is psycopg.AsyncCursor, *await cursor.fetchone()]

    def look(connection: Any) -> Any:
        cursor = connection.execute(looks)
        return [type(cursor) is psycopg.Cursor, *cursor.fetchone()]

    work()
    book.steps += [spoil_async, look_async] if book.kind == "async" else [spoil, look]
    spoiled = client.start("books", "a").result(T)
    assert client.start("books", "b").result(T) == [True, "0", True, True, spoiled, 0, 0, 0, 0]
    bank.run(f"drop role {role}")


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_isolation_level_applies_to_the_whole_transaction(
    app: perdure.App, client: perdure.Client, bank: Bank, work: Any, kind: str, level: Any
) -> None:
    """At the higher levels, a task row that has changed since the snapshot is a conflict, and the
    function runs again."""
    book = Booking(app, kind, isolation=level)

    def move(connection: Any) -> Any:
        bank.run("update perdure.tasks set priority = priority")  # as a heartbeat does
        return executed(connection, "select 1")

    book.steps += [move]
    work(lease=300)  # so that no heartbeat is another conflict
    # Another turn of the job may cause one more conflict.
    expected = [None] if level == "read committed" else ["run 2", "run 3"]
    assert client.start("books", "a").result(T) in expected
    assert (bank.rows(), bank.facts()) == (["a"], ["activity"])


def test_facts_that_a_hook_takes_back_are_sent_before_later_ones() -> None:
    """The answers of commands are matched by position."""

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
    outbox.withdraw("search#1")
    sent = outbox.send_with(Fact("activity", "book#1", True, None, 0))
    assert [fact["key"] for fact in sent["facts"]] == ["step#1", "first", "book#1"]
    late = outbox.command(second, "second")
    outbox.withdraw("search#2")
    outbox.take_back()
    again = outbox.send()
    assert [fact["key"] for fact in again["facts"]] == ["step#1", "first", "second"]
    assert again["cancels"] == ["search#1", "search#2"]
    assert outbox.acknowledge(5, {"answers": [[7, True, 1], [8, True, 3]]}) == 8
    assert (early.result().value, late.result().value) == (1, 3)
    assert turn.journal.fact("book#1") is None


def test_connection_is_closed_when_its_reset_is_interrupted(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout that interrupts the reset leaves the session in an unknown state."""
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
