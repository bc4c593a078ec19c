"""Functions of the user: whether they can be registered, how they run, and where they come from."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType
from typing import Any

from perdure.errors import InvalidArgument
from perdure.values.hints import signature_of_call

_BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)

_OF_METHODS = {"self": "an object", "cls": "a class"}
"""What Python gives a method, by the name of its first parameter."""


def check_usable(function: Callable[..., Any], name: str, kind: str, given: str | None) -> None:
    """Refuse a function that would fail whenever it runs; it is `given` this first, if anything.

    Raises InvalidArgument.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidArgument(
            f"{name} is a generator; a registered function must return once",
            hint="Return a list; perdure.publish() sends each item as it comes.",
        )
    parameters = list(signature_of_call(function).parameters.values())
    _check_bound(function, name, kind, parameters)
    if given is not None and not any(each.kind in _BY_PLACE for each in parameters[:1]):
        raise InvalidArgument(
            f"{name} has no parameter for the {given}",
            detail="It is the first argument, before all others.",
            hint=f"Write {name}({given}, …).",
        )


def _check_bound(
    function: Callable[..., Any], name: str, kind: str, parameters: Sequence[inspect.Parameter]
) -> None:
    """Refuse a method that has no object or class yet. Inside of a function any name is allowed."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    lacking = _OF_METHODS.get(parameters[0].name) if parameters else None
    if lacking is None or not owner or owner.endswith(">"):
        return
    known = owner.rpartition(".")[2]
    told = known.lower() if lacking == "an object" else known
    raise InvalidArgument(
        f"{name} is a method without {lacking}",
        hint=f"Register that of {lacking}: app.{kind}({told}.{name}).",
    )


def is_async(function: Callable[..., Any], *, is_given: bool) -> bool:
    """Tell whether a function must be awaited, also one wrapped around an `async def`.

    Such a wrapper may run what it wraps to its end. It cannot if that is given a memory or a
    connection, which are of one kind or the other.
    """
    if is_given and inspect.isfunction(function):
        function = inspect.unwrap(function)
    return is_awaited(function)


def is_awaited(function: Callable[..., Any]) -> bool:
    """Tell whether calls of a function must be awaited, as those of an `async def`."""
    while isinstance(function, partial):
        function = function.func
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code of a function, of what it wraps, or of a callable object."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    code = getattr(function, "__code__", None)
    return code if code is not None else getattr(type(function).__call__, "__code__", None)


def execution_of(module: str) -> tuple[int, object]:
    """Tell one execution of a module's code from another.

    A cell of a notebook, or a line of IPython, has a number. A module that is loaded again has
    another spec, which is equal to the one before.
    """
    ipython = sys.modules.get("IPython") if module == "__main__" else None
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        return shell.execution_count, None
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return id(spec), spec  # while it is held, no other has its id
