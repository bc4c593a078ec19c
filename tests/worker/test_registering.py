"""Functions that cannot work as activities, hooks or coordinators are rejected when registered."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import inspect
import multiprocessing
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import psycopg
import pytest

import perdure
from perdure.testing import Lab

app_of_this_module = perdure.App()


class Bank:
    """A class of the user's."""

    rate = 2

    async def charge(self, amount: int) -> int:
        return self.rate * amount

    @classmethod
    async def open(cls) -> str:
        return cls.__name__

    @staticmethod
    async def pay(amount: int) -> int:
        return amount


def counted() -> Iterator[int]:
    yield 1


async def tokens() -> AsyncIterator[str]:
    yield "a"


async def nothing() -> None: ...


async def named(*, memory: perdure.AsyncEntity) -> None: ...


WRONG: dict[str, tuple[str, Callable[..., Any], dict[str, Any], str]] = {
    "a method": ("activity", Bank.charge, {}, "charge is a method without an object"),
    "a hook that is a method": ("hook", Bank.charge, {}, "charge is a method"),
    "a class method": ("activity", Bank.open.__func__, {}, "open is a method without a class"),
    "@app.activity above @classmethod": (
        "activity",
        inspect.getattr_static(Bank, "open"),
        {},
        "open is a method without a class",
    ),
    "a generator": ("activity", counted, {}, "counted is a generator"),
    "an async generator": ("activity", tokens, {}, "tokens is a generator"),
    "a generator that coordinates": ("coordinator", tokens, {}, "tokens is a generator"),
    "a coordinator without memory": (
        "coordinator",
        nothing,
        {},
        "nothing has no parameter for the mem",
    ),
    "a hook without memory": ("hook", nothing, {}, "nothing has no parameter for the memory"),
    "a memory by name": ("hook", named, {}, "named has no parameter for the memory"),
    "a transaction without connection": (
        "transaction",
        nothing,
        {},
        "no parameter for the connection",
    ),
    "a name that is no text": ("activity", nothing, {"name": 3}, "3 is not a name for a function"),
    "an empty name": ("activity", nothing, {"name": ""}, "'' is not a name for a function"),
}


@pytest.mark.parametrize("what", WRONG)
def test_unusable_function_is_rejected_when_it_is_registered(what: str) -> None:
    kind, function, options, message = WRONG[what]
    app = perdure.App()
    with pytest.raises((perdure.InvalidArgument, perdure.InvalidName)) as refused:
        getattr(app, kind)(**options)(function)
    assert refused.value.message.startswith(message) or message in refused.value.message
    assert refused.value.hint
    assert app.functions() == []


def test_the_hint_for_a_method_shows_what_to_write() -> None:
    class Post:
        def send(self) -> None: ...

    with pytest.raises(perdure.InvalidArgument) as refused:
        perdure.App().activity(Post.send)
    assert refused.value.hint == "Register that of an object: app.activity(post.send)."


def test_the_hint_for_a_class_method_shows_what_to_write() -> None:
    with pytest.raises(perdure.InvalidArgument) as refused:
        perdure.App().activity(inspect.getattr_static(Bank, "open"))
    assert refused.value.hint == "Register that of a class: app.activity(Bank.open)."


def test_name_is_unique_among_functions_of_one_kind() -> None:
    app = perdure.App()
    app.activity(nothing)
    app.coordinator(name="nothing")(lambda memory: None)
    with pytest.raises(perdure.InvalidName, match="this app has an activity named nothing already"):
        app.activity(nothing)


@pytest.mark.parametrize(
    ("kind", "inside"),
    [("activity", "async coordinator"), ("hook", "coordinator"), ("coordinator", "hook")],
)
def test_function_is_not_registered_by_code_that_runs(
    app: perdure.App, dsn: str, kind: str, inside: str
) -> None:
    """At its first run, and not only when the name is taken at the second."""

    def defines(memory: Any) -> None:
        @getattr(app, kind)
        def inner(memory: Any) -> None: ...

    @app.coordinator(name="async coordinator")
    async def awaits(memory: perdure.AsyncEntity) -> None:
        defines(memory)

    app.coordinator(name="coordinator")(defines)
    maintain = app.hook(defines)

    @app.coordinator(name="hook")
    async def hooks(memory: perdure.AsyncEntity) -> None:
        await maintain(memory)

    known = app.functions()
    with (
        Lab(app, dsn=dsn) as lab,
        pytest.raises(perdure.JobFailed, match=f"{kind} inner is defined inside of") as failed,
    ):
        lab.run(inside)
    assert failed.value.hint is not None
    assert failed.value.hint.startswith("Define it at the top level of a module")
    assert app.functions() == known


LATE = """
from the_app import app

def made(name):
    @app.activity(name=name)
    def returns():
        return 1
    return returns

s = made("s")
"""


def test_running_code_may_import_a_module_that_registers(
    app: perdure.App, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module may call what defines a function, and the code may make an app of its own."""
    (tmp_path / "late.py").write_text(LATE)
    monkeypatch.setitem(sys.modules, "the_app", SimpleNamespace(app=app))
    monkeypatch.syspath_prepend(tmp_path)

    @app.coordinator
    def imports(memory: perdure.Entity) -> Any:
        perdure.App().activity(lambda: None)
        return importlib.import_module("late").s()

    try:
        with Lab(app, dsn=dsn) as lab:
            assert lab.run(imports) == 1
    finally:
        sys.modules.pop("late", None)


def test_function_that_is_defined_again_is_told_so() -> None:
    """A handler that registers what it starts meets this at its second request."""
    app = perdure.App()

    def handles() -> None:
        @app.coordinator
        def answers(memory: perdure.Entity) -> None: ...

    handles()
    with pytest.raises(perdure.InvalidName, match="a coordinator named answers already") as refused:
        handles()
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("Define it at the top level of a module")


def test_bound_and_static_methods_can_be_registered(app: perdure.App, dsn: str) -> None:
    charge = app.activity(Bank().charge)
    pay = app.activity(inspect.getattr_static(Bank, "pay"))  # as @app.activity above @staticmethod
    opened = app.activity(Bank.open)

    @app.coordinator
    async def all_three(self: perdure.AsyncEntity) -> list[Any]:  # here any name is allowed
        return [await charge(2), await pay(3), await opened()]

    with Lab(app, dsn=dsn) as lab:
        assert lab.run(all_three) == [4, 3, "Bank"]


def test_function_of_c_without_a_signature_can_be_called(app: perdure.App, dsn: str) -> None:
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    largest = app.activity(max)

    @app.coordinator
    async def calls(memory: perdure.AsyncEntity) -> Any:
        with pytest.raises(TypeError, match="give keyword arguments or it, not both"):
            largest(1, default=3)
        return await largest(1, 5, 2)

    with Lab(app, dsn=dsn) as lab:
        assert lab.run(calls) == 5


@app_of_this_module.activity
def halved(number: int) -> float:
    return number / 2


def test_registered_function_is_pickled_and_copied_as_a_function_is() -> None:
    """So an activity may give one to a pool of processes. A copy would not be that of the app."""
    assert pickle.loads(pickle.dumps(halved)) is halved
    assert copy.deepcopy({"calls": halved})["calls"] is copy.copy(halved) is halved
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(halved, 5).result(60) == 2.5


def plain_half(number: int) -> float:
    return number / 2


def test_function_that_its_name_does_not_lead_to_is_pickled_with_what_it_has() -> None:
    """It was registered under the name of a plain function, or is a hook in SQL."""
    for made in (perdure.App().activity(plain_half), perdure.sql_hook("counts")):
        copied = pickle.loads(pickle.dumps(made))
        assert (type(copied), copied.name) == (type(made), made.name)
        assert copied.function is made.function


def test_module_that_is_loaded_again_redefines_its_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `%autoreload` of a notebook does, while the app is in another module."""
    file = tmp_path / "loaded_again.py"
    file.write_text("from the_app import app\n@app.activity\ndef search(): return 1\n")
    app = perdure.App()
    monkeypatch.setitem(sys.modules, "the_app", SimpleNamespace(app=app))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("loaded_again")
    try:
        file.write_text(f"{file.read_text().replace('1', '22')}")
        importlib.reload(module)
        assert app.activities["search"].function() == 22
        with pytest.raises(perdure.InvalidName, match="an activity named search already"):
            app.activity(module.search.function)
        sys.modules["again"] = sys.modules.pop("loaded_again")
        with pytest.raises(perdure.InvalidName, match="an activity named search already"):
            exec(file.read_text(), {"__name__": "again"})
    finally:
        sys.modules.pop("again", None)
        sys.modules.pop("loaded_again", None)


def test_notebook_cell_that_runs_again_redefines_its_functions(
    client: perdure.Client, work: Any, app: perdure.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running worker uses the new functions. One name twice in one cell is still rejected."""
    shell = SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    def run_cell(answer: int) -> Any:
        def asks(memory: perdure.Entity) -> int:
            return answer

        asks.__module__ = "__main__"
        return app.coordinator(asks)

    run_cell(1)
    work()
    assert client.start("asks").result("40 s") == 1
    with pytest.raises(perdure.InvalidName, match="a coordinator named asks already"):
        run_cell(2)
    shell.execution_count = 2
    run_cell(2)
    assert client.start("asks").result("40 s") == 2
    with pytest.raises(perdure.InvalidName, match="a coordinator named asks already"):
        run_cell(3)


def test_notebook_does_not_redefine_functions_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    app = perdure.App()
    app.activity(nothing)
    shell = SimpleNamespace(execution_count=7)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    own = FunctionType(nothing.__code__, {"__name__": "__main__"}, "nothing")
    assert own.__module__ == "__main__"
    with pytest.raises(perdure.InvalidName, match="this app has an activity named nothing already"):
        app.activity(own)


def traced(function: Any) -> Any:
    """Decorate as many libraries do: with a plain function around any other."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_async_function_behind_a_plain_decorator_is_awaited(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Its coroutine must not be taken for its result."""

    @app.activity
    @traced
    async def search(query: str) -> list[str]:
        await asyncio.sleep(0)
        return [query, perdure.info().kind]

    @app.activity(timeout=20)
    @traced
    def plain(query: str) -> str:
        return query

    @app.transaction
    @traced
    async def booked(connection: psycopg.AsyncConnection, number: int) -> int:
        await connection.execute("select 1")
        return number

    @app.hook
    @traced
    async def notes(memory: perdure.AsyncEntity, text: str) -> str:
        await memory.set({"text": text})
        return text

    @app.coordinator
    @traced
    async def asks(memory: perdure.AsyncEntity) -> list[Any]:
        return [await search("a"), await plain("b"), await booked(3), await notes(memory, "d")]

    work()
    job = client.start(asks)
    assert job.result("40 s") == [["a", "activity"], "b", 3, "d"]
    assert job.memory.get() == {"text": "d"}


def test_option_that_a_decorator_does_not_have_is_told_which_it_has() -> None:
    """The error is raised at the decorator, and names nothing that only perdure knows."""
    app: Any = perdure.App(version="1")
    shared = "name, queue, retries, retry, timeout"
    for decorator, options in (
        (app.activity, f"limit_key, {shared}, within"),
        (app.hook, f"limit_key, {shared}, within"),
        (app.transaction, f"isolation, limit_key, {shared}, within"),
        (
            app.coordinator,
            f"again_for, entity, limit_key, {shared}".replace("queue", "pinned, queue"),
        ),
    ):
        with pytest.raises(TypeError) as refused:
            decorator(task_queue="q")
        wanted = f"{decorator.__name__}() has no option 'task_queue'; it has {options}"
        assert str(refused.value) == wanted
