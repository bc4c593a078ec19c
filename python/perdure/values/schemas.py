"""What pydantic knows of a class before it has seen a value.

These are the names under which its fields are written and read, and what might not come back as it
was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

from perdure.errors import InvalidValue

Place = tuple[str | int, ...]
"""Where a field is in the JSON: its name, or the path of an AliasPath."""

Node = Mapping[str, Any]
"""A part of what pydantic calls the core schema of a class."""

_ASIDE = frozenset({"metadata", "default", "expected", "members", "config", "computed_fields"}) | {
    "python_schema",  # the input was JSON
    "strict_schema",  # strictness is handled separately
}
_PLAIN = frozenset({"str", "int", "float", "bool", "none"})
_ARRAYS = frozenset({"list", "tuple", "set", "frozenset"})
_OBJECTS = frozenset({"model", "dataclass", "typed-dict", "dict"})
_FIELDS = frozenset({"model-field", "dataclass-field", "typed-dict-field"})


@dataclass(frozen=True, slots=True)
class Names:
    """How the fields of one class are called in the JSON.

    `fields` by the name that pydantic writes, `places` of those that are not read by that name, and
    `dropped`: computed fields, if the class accepts nothing that it does not know.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    is_root: bool = False


@lru_cache(maxsize=1024)
def names_of(kind: Any) -> Names:
    """Read the names of a model or dataclass as pydantic writes it."""
    node = _node_of(kind)
    return _names(node) if node else Names({each.name: each.name for each in fields(kind)})


def _node_of(kind: Any) -> Node | None:
    if not hasattr(kind, "__pydantic_core_schema__"):
        return None
    its = (each for each in nodes_of(kind) if each.get("cls") is kind)
    return next((each for each in its if each["type"] in ("model", "dataclass")), None)


@lru_cache(maxsize=1024)
def adapter_of(kind: Any) -> Any:
    """Return what reads and writes a dataclass of pydantic, or one with types: `Box[Page]`."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def nodes_of(kind: Any) -> Iterator[Node]:
    """Return the parts of a class's schema, at any depth, through which JSON passes."""
    known: dict[str, Node] = {}
    left: list[Any] = [_schema_of(kind)]
    while left:
        part = left.pop()
        if isinstance(part, list | tuple):
            left += part
        elif isinstance(part, Mapping) and isinstance(part.get("type"), str):
            known |= {each["ref"]: each for each in part.get("definitions", ())}
            yield part if part["type"] != "union" else _resolved(part, known)
            passed = part if _is_text_of_pydantic(part) else _ASIDE
            left += [each for key, each in part.items() if key not in passed]
        elif isinstance(part, Mapping):  # of names
            left += part.values()


def _schema_of(kind: Any) -> Any:
    if not hasattr(kind, "model_rebuild"):
        return adapter_of(kind).core_schema
    kind.model_rebuild()  # does nothing if the class is already complete
    return kind.__pydantic_core_schema__


def _resolved(union: Node, known: Mapping[str, Node]) -> Node:
    choices = (one[0] if isinstance(one, tuple) else one for one in union["choices"])
    return {**union, "choices": [known.get(one.get("schema_ref", ""), one) for one in choices]}


def _is_text_of_pydantic(node: Node) -> bool:
    """Tell whether a schema is a text that pydantic itself knows, such as a Path."""
    how = node.get("serialization") or {}
    module = getattr(how.get("function"), "__module__", None) or ""
    return how.get("type") == "function-plain" and module.startswith("pydantic._internal")


def parts_of(kind: Any, nodes: Iterable[Node]) -> tuple[type, ...]:
    """Return the models and dataclasses inside a class, with itself if it may contain itself."""
    known = list(nodes)
    again = {node.get("schema_ref") for node in known}
    its = (node for node in known if node["type"] in ("model", "dataclass"))
    return tuple(
        {one["cls"]: None for one in its if one["cls"] is not kind or one.get("ref", 0) in again}
    )


def is_strict(node: Node) -> bool:
    """Tell whether pydantic reads it differently from JSON than from parsed JSON."""
    config = node.get("config") or {}
    return (
        node.get("strict") is True
        or config.get("strict") is True
        or config.get("val_json_bytes", "utf8") != "utf8"
    )


def is_doubtful(node: Node) -> bool:
    """Tell whether a value may come back as another one, or not at all."""
    doubt = _DOUBTS.get(node["type"])
    return _is_written_by_code(node) or (doubt is not None and doubt(node))


def put(made: dict[str, Any], place: Place, value: Any) -> None:
    """Set a value where an AliasPath reads it: `put({}, ("names", 1), "x")`.

    Raises InvalidValue if it counts from the end.
    """
    into: Any = made
    for step, following in pairwise(place):
        _widen(into, step)
        if (into[step] if isinstance(step, int) else into.get(step)) is None:
            into[step] = [] if isinstance(following, int) else {}
        into = into[step]
    _widen(into, place[-1])
    into[place[-1]] = value


def _widen(into: Any, step: str | int) -> None:
    if isinstance(step, int):
        if step < 0:
            raise InvalidValue(
                f"nothing can be written at item {step}, which an AliasPath reads",
                detail="It counts from the end of a list that is written only for it.",
                hint="Let it count from the beginning, or set validate_by_name.",
            )
        into.extend([None] * (step + 1 - len(into)))


def _names(node: Node) -> Names:
    if node.get("root_model"):
        return Names(is_root=True)
    config = node.get("config") or {}
    inner = _inner(node)
    is_closed = "forbid" in (config.get("extra_fields_behavior"), inner.get("extra_behavior"))
    computed = inner.get("computed_fields") or () if is_closed else ()
    return Names(
        {one.get("serialization_alias", name): name for name, one in _fields(node).items()},
        {
            name: places[0]
            for name, one in _fields(node).items()
            if (one.get("serialization_alias", name),)
            not in (places := _read_at(name, one, config))
        },
        frozenset(one.get("alias", one["property_name"]) for one in computed),
    )


def _inner(node: Node) -> Node:
    while "fields" not in node or node["type"] == "dataclass":  # validators wrap them
        node = node["schema"]
    return node


def _fields(node: Node) -> Mapping[str, Node]:
    found = _inner(node)["fields"]
    return found if isinstance(found, Mapping) else {one["name"]: one for one in found}


def _read_at(name: str, one: Node, config: Node) -> tuple[Place, ...]:
    """Return where pydantic reads a field; names before paths."""
    alias = one.get("validation_alias")
    if alias is None:
        return ((name,),)
    is_by_name = config.get("validate_by_name") or config.get("populate_by_name")
    by_name: list[Place] = [(name,)] if is_by_name else []
    if config.get("validate_by_alias", True) is False:
        return tuple(by_name)
    several = [alias] if isinstance(alias, str) else alias
    if isinstance(alias, list) and not isinstance(alias[0], list):
        several = [alias]
    places = [(each,) if isinstance(each, str) else tuple(each) for each in several]
    return tuple(sorted(places + by_name, key=len))


def _is_written_by_code(node: Node) -> bool:
    how = node.get("serialization") or {}
    if how.get("type") == "any":  # SerializeAsAny: writes all fields of a subclass too
        return True
    if how.get("type") not in ("function-plain", "function-wrap"):
        return False
    module = getattr(how["function"], "__module__", None) or ""
    return not module.startswith(("pydantic._internal", "pydantic.networks"))


def _is_class_doubtful(node: Node) -> bool:
    config = node.get("config") or {}
    names = _names(node)
    return bool(names.dropped or names.places) or any(key.startswith("ser_json") for key in config)


def _is_typed_dict_doubtful(node: Node) -> bool:
    return bool(_names(node).places)


def _is_field_doubtful(node: Node) -> bool:
    is_missed = node.get("serialization_exclude") and node["schema"]["type"] != "default"
    is_given = node.get("init", True) and not node.get("init_only")
    return bool(is_missed or "serialization_exclude_if" in node or not is_given)


def _is_union_doubtful(node: Node) -> bool:
    """Tell whether two members may look the same in JSON; text and numbers come back exactly."""
    if node.get("mode") == "left_to_right":
        return True
    kinds = [_kind(one) for one in node["choices"]]
    others = [kind for kind in kinds if kind not in _PLAIN]
    return (
        not set(others) <= _ARRAYS | _OBJECTS
        or sum(kind in _ARRAYS for kind in others) > 1
        or sum(kind in _OBJECTS for kind in others) > 1
    )


def _kind(node: Node) -> str:
    while node["type"] in ("function-before", "function-after", "function-wrap", "nullable"):
        node = node["schema"]
    return "any" if node.get("root_model") else str(node["type"])


def _is_enum_doubtful(node: Node) -> bool:
    return not all(isinstance(one.value, str | int | float) for one in node["members"])


_DOUBTS: Mapping[str, Callable[[Node], bool]] = {
    "model": _is_class_doubtful,
    "dataclass": _is_class_doubtful,
    "typed-dict": _is_typed_dict_doubtful,
    **dict.fromkeys(_FIELDS, _is_field_doubtful),
    "union": _is_union_doubtful,
    "tagged-union": lambda node: callable(node["discriminator"]),
    "enum": _is_enum_doubtful,
    "json": bool,
}
