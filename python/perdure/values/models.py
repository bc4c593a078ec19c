"""Pydantic's models and dataclasses on the wire.

They are written under the names by which they are read, and refused if they could not be read or
would come back as something else. What that takes is found out once for each class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import lru_cache, partial
from typing import Any

from perdure.errors import InvalidValue

from . import schemas
from .hints import types_of, variables_of
from .round_trips import Hints, check_round_trip
from .schemas import adapter_of


def is_model(thing: object) -> bool:
    """Tell whether a type is a pydantic model, without importing pydantic for it."""
    pydantic = sys.modules.get("pydantic")
    return (
        pydantic is not None and isinstance(thing, type) and issubclass(thing, pydantic.BaseModel)
    )


def is_of_pydantic(kind: type) -> bool:
    """Tell whether a type is a model or a dataclass of pydantic."""
    return hasattr(kind, "__pydantic_core_schema__")


@dataclass(frozen=True, slots=True)
class Plan:
    """How values of a model are written and read.

    Each is read back before it is given: pydantic lets values be assigned that it would not read. A
    plain model is then the same. Any other is compared, since its class alone does not decide it.
    """

    is_plain: bool
    parts: tuple[type, ...]
    is_read_as_json: bool
    is_round_trip: bool

    @property
    def is_compared(self) -> bool:
        """Tell whether a value is compared. Of a subclass, pydantic writes what its base knows."""
        return not self.is_plain or any(part.__subclasses__() for part in self.parts)


_HINTS = Hints(
    "If the value is wrong, set validate_assignment in the model's config, and it is refused where"
    " it is assigned; else change the field, its serializer or its aliases, or give plain values.",
    "Change the field, its serializer or its aliases; of several types that look the same in JSON"
    " let a Literal tell which it is.",
)
_PLAIN = Plan(is_plain=True, parts=(), is_read_as_json=False, is_round_trip=False)


def types_unknown_to_pydantic(kind: Any) -> dict[str, Any]:
    """Return the types of fields that a subclass of a generic dataclass fixes.

    To pydantic each of them is still a type variable.
    """
    fields = {} if is_model(kind) else kind.__pydantic_fields__
    free = set(getattr(kind, "__parameters__", ()))
    fixed = [name for name, each in fields.items() if set(variables_of(each.annotation)) - free]
    types = types_of(kind) if fixed else {}
    return {name: types[name] for name in fixed}


def model_json(model: Any) -> Any:
    """Return a model as JSON that reads as the same model.

    Raises InvalidValue if there is none.
    """
    plan = _plan(type(model))
    written = _written(model, plan)
    _check(model, written, plan)
    return written


def patch_json(model: Any) -> Any:
    """Return what was set in a model as JSON, without its defaults. Raises InvalidValue."""
    kind = type(model)
    plan = _plan(kind)
    if kind.model_fields.keys() <= vars(model).keys():
        _check(model, _written(model, plan), plan)  # a part by itself may be invalid
    return _written(model, plan, exclude_unset=True)


def model_decoder(kind: Any) -> Callable[[Any], Any]:
    """Return the function that makes a model of its JSON.

    Strict models accept a text for a date too.
    """
    is_of_model = is_model(kind)

    def decode(value: Any) -> Any:
        if not _plan(kind).is_read_as_json:
            read = kind.model_validate if is_of_model else adapter_of(kind).validate_python
            return read(value)
        from pydantic_core import to_json

        read = kind.model_validate_json if is_of_model else adapter_of(kind).validate_json
        return read(to_json(value))

    return decode


_decoder = lru_cache(maxsize=1024)(model_decoder)


def _plan(kind: Any) -> Plan:
    """Return the plan of a class.

    A class that is not complete says so itself when it is used. What another version of pydantic
    describes in other words is accepted as it is.
    """
    try:
        return _plan_of(kind)
    except Exception:  # noqa: BLE001 - PydanticUserError, NameError, and whatever that may raise
        return _PLAIN


@lru_cache(maxsize=1024)
def _plan_of(kind: Any) -> Plan:
    nodes = list(schemas.nodes_of(kind))
    return Plan(
        is_plain=not any(map(schemas.is_doubtful, nodes)),
        parts=schemas.parts_of(kind, nodes),
        is_read_as_json=any(map(schemas.is_strict, nodes)),
        is_round_trip=any(node["type"] == "json" for node in nodes),
    )


def _check(model: Any, written: Any, plan: Plan) -> None:
    """Read a model back before it is given. Raises InvalidValue."""
    kind: Any = type(model)
    read = partial(_decoder(kind), written)
    check_round_trip(model, read, _HINTS, is_compared=plan.is_compared)


def _written(model: Any, plan: Plan, exclude_unset: bool = False) -> Any:
    kind: Any = type(model)
    own = getattr(model, "model_dump", None)  # a class may have overridden it
    dump = own or partial(adapter_of(kind).dump_python, model)
    try:
        dumped = dump(
            mode="json", by_alias=True, exclude_unset=exclude_unset, round_trip=plan.is_round_trip
        )
    except ValueError as error:  # bytes that are not text, or a type that pydantic does not know
        raise InvalidValue(
            f"a {kind.__name__} cannot be stored as JSON",
            detail=f"Pydantic cannot write it: {error}"[:1000],
            hint="Give the field a field_serializer, or for bytes the model ser_json_bytes='base64'"
            " and val_json_bytes='base64'.",
        ) from error
    return dumped if plan.is_plain else _readable(model, dumped)


def _readable(value: Any, dumped: Any) -> Any:
    """Give what pydantic has written the names by which it is read, at every level."""
    if is_of_pydantic(type(value)) or is_dataclass(value):
        return _readable_model(value, dumped)
    if isinstance(value, Mapping) and isinstance(dumped, dict) and len(value) == len(dumped):
        pairs = zip(dumped.items(), value.values(), strict=True)
        return {key: _readable(each, item) for (key, item), each in pairs}
    if isinstance(value, list | tuple | set | frozenset) and isinstance(dumped, list):
        if len(value) == len(dumped):
            return [_readable(each, item) for each, item in zip(value, dumped, strict=True)]
    elif _is_masked(value, dumped):
        raise InvalidValue(
            f"a {type(value).__name__} cannot be stored as JSON",
            detail="Pydantic writes asterisks in its place, so the secret would be lost.",
            hint="Keep the secret where its code runs and pass its name; or give the field a"
            " field_serializer that returns value.get_secret_value(), and the app a codec.",
        )
    return dumped


def _readable_model(value: Any, dumped: Any) -> Any:
    kind: Any = type(value)
    names = schemas.names_of(kind)
    if names.is_root:
        return _readable(value.root, dumped)
    if not isinstance(dumped, dict):
        return dumped
    made: dict[str, Any] = {}
    for key, item in dumped.items():
        field = names.fields.get(key)
        if field is not None:
            inner = _readable(getattr(value, field), item)
            with suppress(LookupError, TypeError, AttributeError):  # another is in the way
                schemas.put(made, names.places.get(field, (key,)), inner)
        elif key not in names.dropped:
            made[key] = item
    return made


def _is_masked(value: Any, dumped: Any) -> bool:
    if not isinstance(dumped, str) or "*" not in dumped:
        return False
    from pydantic import Secret, SecretBytes, SecretStr

    return (
        isinstance(value, SecretStr | SecretBytes | Secret)
        and dumped == str(value)
        and value.get_secret_value() not in ("", b"", dumped)
    )
