"""How dataclasses are made again of their fields, and whether their own code has a say in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from inspect import Parameter
from typing import Any

from perdure.errors import InvalidValue

from .hints import signature_of

_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Construction:
    """How instances of a dataclass are made.

    All fields are written. The class is given those that its `__init__` takes; the others
    (`init=False`) are set `later`. `is_by_code` if the result may differ from what was written.
    """

    names: tuple[str, ...]
    later: frozenset[str]
    is_by_code: bool
    needed: frozenset[str]


@lru_cache(maxsize=1024)
def construction_of(kind: Any) -> Construction:
    """Return how instances of a class are made.

    Raises InvalidValue if its `__init__` takes something that no field keeps.
    """
    names = tuple(each.name for each in fields(kind))
    taken = signature_of(kind).parameters
    needed = {name for name, each in taken.items() if each.default is each.empty}
    lost = [name for name in needed.difference(names) if taken[name].kind not in _MANY]
    if lost:
        raise InvalidValue(
            f"a {kind.__name__} cannot be read back from the JSON that it is written as",
            detail=f"It is made of {', '.join(lost)}, which none of its fields keeps.",
            hint="Give an InitVar a default, or keep it in a field; or give plain values.",
        )
    later = frozenset(names) - taken.keys()
    by_code = hasattr(kind, "__post_init__") or not taken.keys() <= {*names}
    return Construction(names, later, by_code, frozenset(needed.intersection(names)))


def make(kind: Any, known: Mapping[str, Any]) -> Any:
    """Make an instance of the known fields; the class fills in the others."""
    later = construction_of(kind).later
    if not later:
        return kind(**known)
    made = kind(**{name: value for name, value in known.items() if name not in later})
    for name in known.keys() & later:
        object.__setattr__(made, name, known[name])  # it may be frozen
    return made
