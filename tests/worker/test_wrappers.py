"""Functions that are not plain `def`: wrappers that take any arguments, and callable objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.testing import Lab

T = "40 s"


def logged(function: Callable[..., Any]) -> Any:
    """Wrap a function without functools.wraps, as is often done."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    wrapper.__name__ = function.__name__
    return wrapper


@pytest.mark.parametrize("kind", ["coordinator", "hook"])
def test_wrapper_rejects_positional_arguments_beside_keyword_arguments(
    app: perdure.App, kind: str
) -> None:
    """Nothing reveals the names of the positional arguments, so they would get lost."""

    async def review(memory: perdure.AsyncEntity, order: str = "none", urgent: bool = False) -> Any:
        return [order, urgent]

    work = getattr(app, kind)(logged(review))
    with pytest.raises(TypeError, match="args is positional: give keyword arguments or it"):
        work.shape.bind(("order-7",), {"urgent": True})
    assert work.shape.bind((), {"urgent": True}) == {"urgent": True}
    assert work.shape.bind(("order-7", True), {}) == ["order-7", True]


class Shouts:
    """An object that is called as a coroutine function is, and is none itself."""

    async def __call__(self, memory: perdure.AsyncEntity, text: str) -> str:
        await memory.set(text, "said")
        return text.upper()


def test_objects_with_an_async_call_are_async(app: perdure.App) -> None:
    """This holds for coordinators, hooks and mocks of hooks."""
    answers = app.hook(name="answers")(Shouts())
    shouts = app.coordinator(name="shouts")(Shouts())

    @app.coordinator(name="asks")
    async def asks(memory: perdure.AsyncEntity, text: str) -> str:
        answer: str = await answers(memory, text)
        return answer

    with Lab(app) as lab:
        assert lab.run(shouts, "one") == "ONE"
        assert lab.run(asks, "two") == "TWO"
        mocked = lab.mock(answers, Shouts())
        assert lab.run(asks, "three") == "THREE"
        assert len(mocked.calls) == 1
    assert (answers.is_async, shouts.is_async) == (True, True)


class Model:
    """An object as of a library, whose attributes have common names."""

    def __init__(self) -> None:
        self.name = "bert"
        self.shape = (3, 4)
        self.queue = "mine"

    def __call__(self, text: str) -> int:
        return len(text)


def test_attributes_of_an_object_do_not_replace_those_of_an_activity(app: perdure.App) -> None:
    """The name, queue and shape of an object are its own."""
    embed = app.activity(name="embed")(Model())
    assert (embed.name, embed.queue) == ("embed", None)
    assert embed.shape.bind(("abc",), {}) == ["abc"]
    assert app.functions() == ["activity embed"]


def test_registered_function_is_not_registered_again(app: perdure.App) -> None:
    """Otherwise its own options would silently win over those given with it."""

    @app.activity(queue="llm")
    def embed(text: str) -> int:
        return len(text)

    with pytest.raises(perdure.errors.InvalidArgument, match="embed is already registered") as info:
        perdure.App().activity(name="other")(embed)
    assert info.value.hint == "Give its function: embed.function."
