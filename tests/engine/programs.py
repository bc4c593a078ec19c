"""The programs that are crashed: asyncio and the durable calls in every common way, on real SQL.

Each has the same memory and result whatever happens to the workers: nothing depends on which of two
quick events comes first. The loser of a race never comes, or comes in a day. Activities record
their executions in the ledger.
"""

# ruff: noqa: C901, PLR0915 - a function that defines several programs counts as all of them

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import perdure
from tests.engine.condition_programs import conditions
from tests.engine.family_programs import left_behind, limits, plain_shelters, shelters
from tests.engine.ledger import Book
from tests.engine.outside import Step, cancels, increments, resolves, sends, writes
from tests.engine.people_programs import people

Memory = perdure.AsyncEntity
PlainMemory = perdure.Entity

DAY = "1 day"
QUICK = perdure.Retry(attempts=3, delay=0.002, jitter=0)


@dataclass(frozen=True)
class Program:
    """A workflow, and the events outside while it runs."""

    workflow: str
    steps: tuple[Step, ...] = ()
    ends: str = "completed"


def app_of(ledger: Book) -> perdure.App:
    """Make the app of all programs."""
    app = perdure.App()
    parts = Parts(app, ledger)
    for define in (flows, waits, orders, families, signals, hook_flows, plain, cancelled,
                   conditions, people, shelters, plain_shelters, left_behind, limits):  # fmt: skip
        define(app, parts)
    return app


def ended(told: Any) -> Any:
    """Return a result, or the type and message of a failure."""
    return [told.type, told.message] if isinstance(told, perdure.Failure) else told


class Parts:
    """Activities and hooks that several programs use."""

    def __init__(self, app: perdure.App, ledger: Book) -> None:
        self._activities(app, ledger)
        self._far_activities(app, ledger)
        self._hooks(app)

    def _activities(self, app: perdure.App, ledger: Book) -> None:
        @app.activity
        async def double(x: int) -> int:
            ledger.note()
            await asyncio.sleep(0)
            return x * 2

        @app.activity
        def plus(x: int) -> int:
            ledger.note()
            return x + 1

        @app.activity
        async def picky(x: int) -> int:
            ledger.note()
            if x % 3 == 0:
                raise ValueError(f"bad {x}")
            return x

        @app.activity(retry=QUICK)
        async def shaky(x: int) -> int:
            ledger.note()
            if perdure.info().attempt < 2:
                raise ConnectionError(f"not yet {x}")
            return x * 3

        @app.activity(retry=QUICK)
        def hopeless(x: int) -> int:
            ledger.note()
            raise OSError(f"never {x}")

        @app.activity
        async def endless() -> None:
            await asyncio.sleep(3600)

        self.double, self.plus, self.picky = double, plus, picky
        self.shaky, self.hopeless, self.endless = shaky, hopeless, endless

    def _far_activities(self, app: perdure.App, ledger: Book) -> None:
        @app.activity(queue="far")
        async def far(x: int) -> int:
            ledger.note()
            return x * 5

        @app.activity(queue="far", retry=QUICK)
        def far_shaky(x: int) -> int:
            ledger.note()
            if perdure.info().attempt < 1:
                raise ConnectionError(f"not yet {x}")
            time.sleep(0.001)
            return x * 7

        self.far, self.far_shaky = far, far_shaky

    def _hooks(self, app: perdure.App) -> None:
        @app.hook
        async def page(memory: Memory, x: int) -> int:
            await memory.set({"read": await self.double(x)}, f"page{x}")
            await memory.merge({"length": await self.plus(x)}, f"page{x}")
            await memory.increment("pages")
            return x * 10

        @app.hook
        def plain_page(memory: PlainMemory, x: int) -> int:
            memory.set({"read": self.plus(x)}, f"plain{x}")
            both = [self.double.start(x), self.shaky.start(x)]
            memory.merge({"both": [each.result() for each in both]}, f"plain{x}")
            perdure.sleep(0.004)
            memory.increment("pages")
            return x * 10

        @app.hook
        async def failing(memory: Memory, x: int) -> None:
            await memory.set(await self.double(x), f"failing{x}")
            raise LookupError(f"lost {x}")

        self.page, self.plain_page, self.failing = page, plain_page, failing


def flows(app: perdure.App, parts: Parts) -> None:
    """Define plain asyncio: activities, commands and hooks in parallel."""
    double, plus, picky = parts.double, parts.plus, parts.picky

    @app.coordinator
    async def gathered(memory: Memory) -> Any:
        async def branch(x: int) -> int:
            first = await plus(await double(x))
            await memory.set(first, f"branch{x}")
            return await double(first)

        return await asyncio.gather(*(branch(x) for x in range(4)), parts.page(memory, 9))

    @app.coordinator
    async def grouped(memory: Memory) -> Any:
        out: list[Any] = []
        arrived = asyncio.Barrier(3)

        async def work(x: int) -> None:
            try:
                await picky(x)
                await arrived.wait()
                await perdure.wait_for("never")
            finally:
                await memory.set(await plus(x), f"left{x}")

        try:
            async with asyncio.TaskGroup() as works:
                for x in (1, 2):
                    works.create_task(work(x))
                await parts.page(memory, 1)
                await arrived.wait()
                works.create_task(work(3), name="three")
        except* perdure.ActivityFailed as errors:
            out += [str(error) for error in errors.exceptions]
        async with asyncio.TaskGroup() as steps:
            tasks = [steps.create_task(double(x)) for x in range(3)]
        return [*out, *(task.result() for task in tasks)]

    @app.coordinator
    async def first_completed(memory: Memory) -> Any:
        out: list[Any] = []
        endless = asyncio.ensure_future(parts.endless())
        never = asyncio.ensure_future(perdure.wait_for("never"))
        late = asyncio.ensure_future(asyncio.sleep(86_400))
        pending: set[Any] = {endless, never, late, asyncio.ensure_future(parts.page(memory, 2))}
        for x in range(3):
            pending.add(asyncio.ensure_future(double(x)))
        while len(pending) > 3:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            out += [task.result() for task in done]
        for task in pending:
            task.cancel()
        await memory.set(sorted(out), "out")
        return [*sorted(out), late in pending, await plus(1)]

    @app.coordinator
    async def completed(memory: Memory) -> Any:
        works = [double(1), parts.shaky(2), parts.far(3), parts.page(memory, 4), parts.far_shaky(5)]
        out = []
        for answer in asyncio.as_completed([asyncio.ensure_future(each) for each in works]):
            out.append(await plus(await answer))
            await memory.increment("completed")
        return sorted(out)

    @app.coordinator
    async def queued(memory: Memory) -> Any:
        items: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)
        few = asyncio.Semaphore(2)
        out: list[int] = []

        async def produce(x: int) -> None:
            async with few:
                await items.put(await double(x))

        async def consume() -> None:
            while (item := await items.get()) is not None:
                out.append(await plus(item))
                await memory.increment("sum", item)

        consumer = asyncio.create_task(consume(), name="consumer")
        producers = [asyncio.create_task(produce(x), name=f"make {x % 2}") for x in range(4)]
        await asyncio.gather(*producers)
        await items.put(None)
        await consumer
        return sorted(out)


def waits(app: perdure.App, parts: Parts) -> None:
    """Define timers, timeouts, failures and retries."""
    double, plus = parts.double, parts.plus

    @app.coordinator
    async def sleeps(memory: Memory) -> Any:
        began = perdure.now()
        for x in range(3):
            await perdure.sleep(0.004)
            await memory.append("slept", x)
        await asyncio.gather(asyncio.sleep(0.006), perdure.sleep(0.003), double(1))
        return [await memory.get("slept"), (perdure.now() - began).total_seconds() >= 0.017]

    @app.coordinator
    async def timeouts(memory: Memory) -> Any:
        out: list[Any] = [await double(1)]
        try:
            async with asyncio.timeout(0.01):
                await perdure.wait_for("never")
        except TimeoutError:
            out.append("late")
        try:
            await perdure.wait_for("never", timeout=0.005)
        except TimeoutError:
            out.append(await plus(2))
        out.append(await asyncio.wait_for(parts.shaky(3), 3600))
        inner = asyncio.create_task(parts.page(memory, 3))
        try:
            both = asyncio.gather(inner, asyncio.sleep(86_400))
            await asyncio.wait_for(asyncio.shield(both), 0.01)
        except TimeoutError:
            out.append("patience")
        return [*out, await inner]

    @app.coordinator
    async def failures(memory: Memory) -> Any:
        told = await asyncio.gather(
            parts.shaky(1), parts.hopeless(2), parts.picky(3), parts.failing(memory, 4),
            return_exceptions=True,
        )  # fmt: skip
        out = [ended(each) for each in told]
        try:
            await memory.set("text", "text")
            await memory.increment("text")
        except perdure.WrongType as error:
            out.append(error.code)
        return [*out, await double(5)]

    @app.coordinator
    async def raising(memory: Memory) -> Any:
        await memory.set(await double(1), "before")
        await parts.failing(memory, 7)

    @app.coordinator
    async def patched(memory: Memory) -> Any:
        out: list[Any] = []
        for x in range(3):
            out.append(await plus(x))
            if perdure.patched("double"):
                out.append(await double(x))
            await perdure.sleep(0.002)
        if perdure.patched("page"):
            out.append(await parts.page(memory, 1))
        return out

    @app.coordinator
    async def chance(memory: Memory) -> Any:
        async def draw(x: int) -> Any:
            first = perdure.random().random()
            await plus(x)
            return first, perdure.random().randrange(1000), str(perdure.uuid())

        return [*await asyncio.gather(*(draw(x) for x in range(3))), str(perdure.uuid())]


def orders(app: perdure.App, parts: Parts) -> None:
    """Define commands on the memory: every verb, alone and in parallel."""

    @app.coordinator
    async def verbs(memory: Memory) -> Any:
        out: list[Any] = [await memory.set({"a": {"b": 1}, "list": []})]
        out.append(await memory.merge({"a": {"c": {"d": 2}}}))
        out.append(await memory.append("list", 1, {"x": 2}))
        out.append(await memory.prepend("list", [0]))
        out.append(await memory.remove("list", -1))
        out.append(await memory.increment("a.b", 2.5))
        out.append(await memory.toggle("on"))
        out.append(await memory.set_if_not_exists("a.b", 9))
        out.append(await memory.delete("a.c.d"))
        out.append(await parts.double(1))
        out.append(await memory.get())
        return out

    @app.coordinator
    async def together(memory: Memory) -> Any:
        out = await asyncio.gather(
            memory.increment("n"), memory.increment("n"), parts.plus(1), memory.append("list", 1),
            memory.remove("nothing", 0), memory.get("n"), return_exceptions=True,
        )  # fmt: skip
        for x in range(2):
            tasks = [asyncio.ensure_future(memory.increment(f"k{i}")) for i in range(3)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*tasks)
            await parts.double(x)
        told = [each.code if isinstance(each, perdure.PerdureError) else each for each in out]
        return [told, await memory.get("n")]

    @app.hook
    async def writer(memory: Memory, who: str) -> list[int]:
        out = []
        for x in range(3):
            out.append(await memory.append(f"lines.{who}", x))
            await memory.increment("total", await parts.plus(x))
            if x == 1:
                await perdure.sleep(0.003)
        return out

    @app.coordinator
    async def writers(memory: Memory) -> Any:
        await memory.set({"lines": {}, "total": 0})
        told = await asyncio.gather(*(writer(memory, who) for who in ("a", "b", "c")))
        await memory.increment("total", 1000)
        return [told, await memory.get("total")]


def families(app: perdure.App, parts: Parts) -> None:
    """Define children, hooks of hooks, and detached hooks."""

    @app.coordinator
    async def small(memory: Memory, x: int) -> int:
        await memory.set(await parts.double(x), "x")
        told: int = await parts.page(memory, x)
        if x == 3:
            raise ArithmeticError("three")
        return told + x

    @app.coordinator
    def plain_small(memory: PlainMemory, x: int) -> int:
        memory.increment("x", parts.plus(x))
        perdure.sleep(0.003)
        number: int = memory.get("x")
        return number

    @app.coordinator
    async def parent(memory: Memory) -> Any:
        told = await asyncio.gather(
            *(perdure.child(small, x) for x in (1, 2, 3)),
            perdure.child(plain_small, 4, id=f"{memory.id}/named"),
            return_exceptions=True,
        )
        out = [ended(each) for each in told]
        await memory.set(out, "children")
        return [out, await parts.plus(1)]

    @app.hook
    async def leaf(memory: Memory, x: int) -> int:
        await memory.set(await parts.double(x), f"leaf{x}")
        return x * 10

    @app.hook
    async def branch(memory: Memory, x: int) -> Any:
        leaves = await asyncio.gather(*(leaf(memory, x + i) for i in range(2)))
        await memory.set(sum(leaves), f"branch{x}")
        try:
            await parts.failing(memory, x)
        except perdure.HookFailed as error:
            return [leaves, error.message, await perdure.child(small, x + 10)]

    @app.hook
    def plain_branch(memory: PlainMemory, x: int) -> Any:
        leaves = [leaf.start(x), leaf.start(x + 1)]
        return [[each.result() for each in leaves], perdure.child(plain_small, x)]

    @app.coordinator
    async def tree(memory: Memory) -> Any:
        return await asyncio.gather(branch(memory, 1), plain_branch(memory, 5))

    @app.hook
    async def loner(memory: Memory, x: int) -> None:
        await memory.set(await parts.double(x), f"loner{x}")
        await perdure.sleep(0.003)
        await memory.signal("loner", x)

    @app.coordinator
    async def detached(memory: Memory) -> Any:
        for x in range(2):
            perdure.start_hook(loner, x)
        return sorted([await perdure.wait_for("loner") for _ in range(2)])


def signals(app: perdure.App, parts: Parts) -> None:
    """Define signals between hooks, coordinators, jobs and the outside world."""

    @app.hook
    async def early(memory: Memory, x: int) -> str:
        await memory.signal(perdure.info().signal or "?", {"early": await parts.double(x)})
        await memory.set(await parts.plus(x), "after")
        await memory.signal("went on", x)
        return "late"

    @app.coordinator
    async def answers(memory: Memory) -> Any:
        first = await perdure.exec_hook(early, 1, signal="ready")
        second = await perdure.wait_for("went on")
        third = await perdure.exec_hook(parts.page, 2, signal="never sent")
        return [first, second, third]

    @app.hook
    async def asker(memory: Memory) -> Any:
        out = []
        for x in range(2):
            await memory.signal("question", await parts.double(x))
            out.append(await perdure.wait_for("answer"))
        try:
            await perdure.wait_for("nothing", timeout=0.004)
        except TimeoutError:
            return [*out, await parts.plus(7)]

    @app.hook
    def teller(memory: PlainMemory) -> str:
        for _ in range(2):
            question = perdure.wait_for("question", timeout=DAY)
            memory.append("questions", question)
            memory.signal("answer", question + parts.plus(0))
        return "told"

    @app.coordinator
    async def ping_pong(memory: Memory) -> Any:
        return await asyncio.gather(teller(memory), asker(memory))

    @app.coordinator
    async def outside(memory: Memory) -> Any:
        out = [await perdure.wait_for("go") for _ in range(2)]
        await memory.set(True, "asking")
        out.append(await perdure.wait_for("go"))
        await memory.increment("n", await parts.double(out[-1]))
        await memory.set(True, "counting")
        out.append(await perdure.wait_for("stop", timeout=DAY))
        return [*out, await memory.get("n")]

    @app.coordinator
    async def listener(memory: Memory) -> Any:
        heard = [await perdure.wait_for("note") for _ in range(3)]
        await memory.set(heard, "heard")
        return heard

    @app.hook
    async def talker(memory: Memory) -> None:
        await perdure.signal(f"{memory.id}/ear", "note", await parts.plus(1))

    @app.coordinator
    async def across(memory: Memory) -> Any:
        own = f"{memory.id}/ear"
        ear = asyncio.create_task(perdure.child(listener, id=own))
        await memory.set(await parts.double(4), "four")
        for x in range(2):
            await perdure.signal(own, "note", x * 100)
        await talker(memory)
        return await ear


def hook_flows(app: perdure.App, parts: Parts) -> None:
    """Define hooks that wait, gather, fail, are retried and are cancelled."""

    @app.hook
    async def sleeper(memory: Memory, x: int) -> int:
        await memory.append("log", f"begins {x}")
        await perdure.sleep(0.006)
        async with asyncio.TaskGroup() as group:
            group.create_task(perdure.sleep(0.004))
            answer = group.create_task(parts.shaky(x))
        await memory.append("log", f"ends {x}")
        return answer.result()

    @app.coordinator
    async def sleepers(memory: Memory) -> Any:
        first = await sleeper(memory, 1)
        return [first, await sleeper(memory, 2), await memory.get("log")]

    @app.hook
    async def wide(memory: Memory) -> Any:
        async def waits() -> Any:
            return await perdure.wait_for("go", timeout=DAY)

        async def works(x: int) -> Any:
            done = await parts.double(x)
            await memory.set(done, f"wide{x}")
            if x == 2:
                await memory.set(True, "ready")
            return done

        tasks = [asyncio.create_task(works(x)) for x in range(3)]
        told = await asyncio.gather(waits(), *tasks, parts.far(1), parts.page(memory, 6))
        return [*told, await memory.get("wide1")]

    @app.coordinator
    async def wide_hook(memory: Memory) -> Any:
        return await wide(memory)

    @app.hook(retry=QUICK)
    async def trying(memory: Memory) -> Any:
        number = await parts.double(perdure.info().attempt)
        await memory.append("attempts", perdure.info().attempt)
        await parts.plus(1)
        if perdure.info().attempt < 2:
            raise ConnectionError("not yet")
        return [number, await memory.get("attempts")]

    @app.coordinator
    async def tries(memory: Memory) -> Any:
        return await trying(memory)

    @app.hook
    async def careful(memory: Memory) -> None:
        try:
            await memory.set(True, "begun")
            await memory.signal("begun")
            await perdure.wait_for("never")
        finally:
            await memory.set(await parts.plus(1), "clean")
            await memory.signal("clean")

    @app.hook
    def plain_careful(memory: PlainMemory) -> None:
        try:
            memory.signal("begun")
            perdure.sleep(DAY)
        finally:
            memory.set(parts.plus(2), "plain_clean")
            memory.signal("clean")

    @app.coordinator
    async def withdrawn(memory: Memory) -> Any:
        tasks = [asyncio.create_task(each(memory)) for each in (careful, plain_careful)]
        for _ in tasks:
            await perdure.wait_for("begun")
        for task in tasks:
            task.cancel()
        for _ in tasks:
            await perdure.wait_for("clean")
        return [task.cancelled() for task in tasks]


def plain(app: perdure.App, parts: Parts) -> None:
    """Define plain coordinators, which run again from the top."""

    @app.coordinator
    def plain_line(memory: PlainMemory) -> Any:
        out: list[Any] = [parts.double(4), memory.increment("n")]
        try:
            out.append(parts.picky(3))
        except perdure.ActivityFailed as error:
            out.append(error.message)
        perdure.sleep(0.003)
        out.append(parts.page(memory, 1))
        out.append(perdure.child("small", 2))
        return [*out, memory.get("n"), str(perdure.uuid())]

    @app.coordinator
    def plain_parallel(memory: PlainMemory) -> Any:
        pending = [parts.double.start(x) for x in range(3)]
        hooks = [parts.page.start(x) for x in (7, 8)]
        try:
            perdure.wait_for("never", timeout=0.005)
        except TimeoutError:
            memory.append("log", "late")
        out = [each.result() for each in (*reversed(pending), *hooks)]
        if perdure.patched("more"):
            out.append(parts.shaky(3))
        return [*out, perdure.random().random()]

    @app.coordinator
    def plain_swallowing(memory: PlainMemory) -> Any:
        out: list[Any] = []
        for x in range(3):
            try:
                out.append(parts.picky(x))
            except BaseException as error:  # noqa: BLE001 - swallows everything
                out.append(str(error))
            finally:
                memory.append("done", parts.plus(x))
        return out


def cancelled(app: perdure.App, parts: Parts) -> None:
    """Define cancellation in the middle, and durable cleaning up after it."""

    @app.coordinator
    async def cleaning(memory: Memory) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(perdure.sleep(DAY))
                group.create_task(careful_part())
                await memory.set(await parts.double(1), "one")
                await memory.set(True, "ready")
        finally:
            await memory.set([await parts.plus(100), await parts.page(memory, 3)], "clean")

    async def careful_part() -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await perdure.memory().append("left", await parts.shaky(2))

    @app.coordinator
    async def stubborn(memory: Memory) -> Any:
        out: list[Any] = []
        for x in range(3):
            try:
                out.append(await parts.double(x))
                if x == 1:
                    await memory.set(True, "ready")
                    await perdure.sleep(DAY)
            except asyncio.CancelledError as error:
                out.append(str(error))
        return out

    @app.coordinator
    def plain_cleaning(memory: PlainMemory) -> Any:
        out: list[Any] = []
        try:
            out.append(parts.plus(1))
            memory.set(True, "ready")
            out.append(perdure.wait_for("never"))
        except asyncio.CancelledError as error:
            out.append([str(error), parts.plus(2)])
        finally:
            memory.set(parts.page(memory, 4), "clean")
        return [*out, parts.double(1)]


SENT = (
    sends("go", "1"), sends("go", "2"), sends("go", "3", when="asking"),
    increments("n", when="counting"), sends("stop", '"end"', when="counting"),
)  # fmt: skip

PROGRAMS = [
    *map(Program, (
        "gathered", "grouped", "first_completed", "completed", "queued", "sleeps", "timeouts",
        "failures", "patched", "chance", "verbs", "together", "writers", "parent", "tree",
        "detached", "answers", "ping_pong", "across", "sleepers", "tries", "withdrawn",
        "plain_line", "plain_parallel", "plain_swallowing", "links", "until_true", "until_together",
        "started", "plainly_started", "limited",
    )),
    Program("raising", ends="failed"),
    Program("outside", SENT),
    Program("wide_hook", (sends("go", '"went"', when="ready"),)),
    Program("until_outside", (
        increments("n", when="asking"), writes('{"written": "by hand"}', when="writing"),
    )),
    Program("until_cancelled", (cancels("ready"),), ends="cancelled"),
    Program("plain_until", (increments("n", when="asking"),)),
    Program("asks_people", (
        resolves("one", '{"ok": true}'), resolves("two", '"2"'), resolves("three", "3"),
        resolves("four", '"first"'),
    )),
    Program("plain_asks_people", (resolves("one", "null"), resolves("two", "[2]"))),
    Program("asks_in_vain", (cancels("ready"), resolves("clean up", '"done"')), ends="cancelled"),
    Program("cleaning", (cancels("ready"),), ends="cancelled"),
    Program("sheltered", (cancels("ready"),), ends="cancelled"),
    Program("sheltered_hook", (cancels("ready"),), ends="cancelled"),
    Program("plain_sheltered", (cancels("ready"),), ends="cancelled"),
    Program("plain_sheltered_hook", (cancels("ready"),), ends="cancelled"),
    Program("stubborn", (cancels("ready"),)),
    Program("plain_cleaning", (cancels("ready"),)),
]  # fmt: skip
