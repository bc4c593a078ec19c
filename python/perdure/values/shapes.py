"""How the arguments and the result of a function are written and read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .decoding import argument_as
from .hints import is_typed_dict, signature_of_call, types_of, types_of_call, unpacked
from .items import Decode, unchanged
from .wire import decoder, to_json


@dataclass(frozen=True, slots=True)
class Shape:
    """How the arguments and the result of a function are written and read."""

    name: str
    signature: inspect.Signature
    skip: int
    result: Decode
    positional: tuple[tuple[str, Decode], ...]
    rest: Decode
    named: Mapping[str, Decode]
    others: Decode
    is_plain: bool
    fitting: range

    def arguments(self, args: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return stored args (array: positional, object: keyword, null: none) for a call.

        Raises ValueMistyped.
        """
        if isinstance(args, list) and self.is_plain:
            return tuple(args), {}
        if args is None:
            return (), {}
        if isinstance(args, dict):
            return (), {name: self._named(name, value) for name, value in args.items()}
        if not isinstance(args, list):
            return (args,), {}
        return tuple(self._placed(place, value) for place, value in enumerate(args)), {}

    def _named(self, name: str, value: Any) -> Any:
        return argument_as(self.named.get(name, self.others), value, name, self.name)

    def _placed(self, place: int, value: Any) -> Any:
        known = place < len(self.positional)
        name, decode = self.positional[place] if known else (str(place + 1), self.rest)
        return argument_as(decode, value, name, self.name)

    def _passed(self) -> str:
        """Say which argument no caller gives: a function without it takes one argument less."""
        passed = list(self.signature.parameters)[: self.skip]
        return f"; perdure passes {passed[0]} itself" if passed else ""

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments of a call as JSON. A wrong call fails where it is made.

        An array if all are positional, else an object. Raises TypeError.
        """
        if not kwargs and len(args) in self.fitting:
            return to_json(args)
        try:
            bound = self.signature.bind(*(None,) * self.skip, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}{self._passed()}") from None
        if not kwargs:
            return to_json(args)
        named: dict[str, Any] = {}
        for place, (name, value) in enumerate(bound.arguments.items()):
            parameter = self.signature.parameters[name]
            is_rest = parameter.kind is parameter.VAR_POSITIONAL
            if place < self.skip and not (is_rest and len(value) > self.skip):
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= value
            elif is_rest or parameter.kind is parameter.POSITIONAL_ONLY:
                raise TypeError(f"{name} is positional: give keyword arguments or it, not both")
            else:
                named[name] = value
        return to_json(named)


def bind_unknown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the arguments of a function that is only named, as JSON. Raises TypeError."""
    if args and kwargs:
        raise TypeError("a function given by name takes positional or keyword arguments, not both")
    return to_json(kwargs or args)


def shape_of(function: Callable[..., Any], skip: int = 0) -> Shape:
    """Read a function's annotations; `skip` leading parameters (the memory) are not on the wire."""
    signature = signature_of_call(function)
    hints = types_of_call(function, signature, skip)
    positional: list[tuple[str, Decode]] = []
    named: dict[str, Decode] = {}
    rest: Decode = unchanged
    others: Decode = unchanged
    for parameter in list(signature.parameters.values())[skip:]:
        hint = hints.get(parameter.name)
        decode = decoder(hint) if unpacked(hint) is None else unchanged
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = decode
        elif is_typed_dict(options := unpacked(hint)):
            named |= {name: decoder(each) for name, each in types_of(options).items()}
        elif parameter.kind is parameter.VAR_KEYWORD:
            others = decode
        else:
            named[parameter.name] = decode
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append((parameter.name, decode))
    result = decoder(hints.get("return"))
    is_plain = rest is unchanged and all(decode is unchanged for _, decode in positional)
    fitting = _fitting(list(signature.parameters.values())[skip:])
    name = getattr(function, "__name__", repr(function))
    return Shape(
        name, signature, skip, result, tuple(positional), rest, named, others, is_plain, fitting
    )


def _fitting(parameters: list[inspect.Parameter]) -> range:
    """Return how many positional arguments fit by number alone; none if that is not known."""
    if any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in parameters):
        return range(0)
    needed = sum(one.default is one.empty for one in parameters)
    return range(needed, len(parameters) + 1)
