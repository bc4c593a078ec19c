"""What annotations name: those of a function, however it is wrapped, and those of a class.

Types are filled in for the type variables of the class and of its bases.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

if sys.version_info >= (3, 13):
    from typing import ReadOnly
else:
    from typing_extensions import ReadOnly

logger = logging.getLogger("perdure.types")

Known = Mapping[Any, Any]
"""Types by the type variables that they replace."""

_BESIDE = (
    typing.Annotated,
    typing.Required,
    typing.NotRequired,
    typing.Final,
    typing.ClassVar,
    ReadOnly,
)

if sys.version_info >= (3, 14):  # the default fails for names that only type checkers know
    from annotationlib import Format

    signature_of = functools.partial(inspect.signature, annotation_format=Format.FORWARDREF)
    _annotations_of = functools.partial(inspect.get_annotations, format=Format.FORWARDREF)
else:
    signature_of = inspect.signature
    _annotations_of = inspect.get_annotations

_ANYTHING = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)


def signature_of_call(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; any arguments for one of C that does not say it."""
    try:
        return signature_of(function)
    except (TypeError, ValueError):
        return _ANYTHING


def is_typed_dict(thing: object) -> bool:
    """Tell whether a type is a TypedDict, of `typing` or of `typing_extensions`."""
    return isinstance(thing, type) and issubclass(thing, dict) and hasattr(thing, "__total__")


def is_alias(annotation: object) -> bool:
    """Tell whether `type Step = Reply | Call` has made it."""
    return type(annotation).__name__ == "TypeAliasType"  # of typing_extensions, before 3.12


def bare(annotation: Any) -> Any:
    """Return an annotation's type without names and notes: `int` of `Annotated[UserId, "note"]`."""
    while True:
        if typing.get_origin(annotation) in _BESIDE:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif is_alias(annotation):
            annotation = annotation.__value__
        elif is_alias(typing.get_origin(annotation)):
            annotation = annotation.__origin__.__value__[annotation.__args__]
        else:
            return annotation


def unpacked(annotation: Any) -> Any:
    """Return what `*Pair` or `Unpack[Pair]` refers to, or None for anything else."""
    if typing.get_origin(annotation) is typing.Unpack:
        return typing.get_args(annotation)[0]
    return annotation if getattr(annotation, "__unpacked__", False) else None


def types_of(kind: type, arguments: Sequence[Any] = ()) -> dict[str, Any]:
    """Read the types of a class's fields: `types_of(Box, [Page])` are those of a `Box[Page]`."""
    found: dict[str, Any] = {}
    for owner, known in reversed(_lineage(kind, arguments).items()):
        for name, annotation in _own_annotations(owner).items():
            found[name] = _filled(_read(owner, name, annotation), known)
    return found


def types_of_call(
    function: Callable[..., Any], signature: inspect.Signature, skip: int
) -> dict[str, Any]:
    """Read the types of a call's parameters but the first `skip`, and of its `return`."""
    owner = _written(function)
    annotations = {each.name: each.annotation for each in signature.parameters.values()}
    read = [*list(annotations.items())[skip:], ("return", signature.return_annotation)]
    return {
        name: _read(owner, name, annotation)
        for name, annotation in read
        if annotation is not inspect.Signature.empty
    }


def _written(function: Any) -> Any:
    """Find the function that is called in the end: annotations are written there."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or isinstance(function, type):
            return function
        else:
            function = type(function).__call__


def _lineage(kind: type, arguments: Sequence[Any]) -> dict[type, Known]:
    """Return a class and its bases, nearest first, with the types of their type variables."""
    found: dict[Any, Known] = {kind: _known(kind, arguments)}
    ancestors = _ancestors(kind)
    for owner in ancestors:
        known = found.setdefault(owner, _known(owner))
        for base in _bases(owner):
            if filled := [_filled(each, known) for each in typing.get_args(base)]:
                found.setdefault(_class_of(base), _known(_class_of(base), filled))
    return {owner: found[owner] for owner in ancestors}


def _ancestors(kind: type) -> Sequence[type]:
    """Return a class and its bases; to Python, a TypedDict has none of its own."""
    if not is_typed_dict(kind):
        return kind.__mro__
    bases = filter(is_typed_dict, map(_class_of, _bases(kind)))
    return [kind, *chain.from_iterable(map(_ancestors, bases))]


def _bases(kind: type) -> Sequence[Any]:
    """Return the bases of a class as they are written: `Box[Page]`."""
    written: Sequence[Any] = vars(kind).get("__orig_bases__", kind.__bases__)
    return written


def _class_of(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _known(kind: Any, arguments: Sequence[Any] = ()) -> Known:
    variables = getattr(kind, "__parameters__", ())
    known = dict(zip(variables, arguments, strict=False))
    others = (each for each in variables if getattr(each, "has_default", bool)())
    return {each: each.__default__ for each in others} | known


def _filled(hint: Any, known: Known) -> Any:
    """Put types in the place of the type variables of an annotation."""
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    variables = variables_of(hint)
    if not known.keys() & set(variables):
        return hint
    return hint[tuple(known.get(each, each) for each in variables)]


def variables_of(hint: Any) -> Sequence[Any]:
    """Name the type variables of an annotation, but not those of a bare class."""
    if isinstance(hint, typing.TypeVar):
        return (hint,)
    return () if isinstance(hint, type) else getattr(hint, "__parameters__", ())


def _own_annotations(owner: type) -> Mapping[str, Any]:
    """Return what is written in a class itself. That of a TypedDict includes its bases."""
    own = _annotations_of(owner)
    if not is_typed_dict(owner):
        return own
    bases = filter(is_typed_dict, map(_class_of, _bases(owner)))
    said = [_annotations_of(each) for each in bases]
    return {
        name: each for name, each in own.items() if not any(one.get(name) == each for one in said)
    }


def _read(owner: Any, name: str, annotation: Any) -> Any:
    """Read one annotation, if it can be read; others beside it may be unreadable here."""
    module = getattr(sys.modules.get(owner.__module__), "__dict__", {})
    variables = {each.__name__: each for each in getattr(owner, "__type_params__", ())}
    inside = getattr(owner, "__globals__", module) | variables
    names = dict(vars(owner)) if isinstance(owner, type) else {}
    alone = type("alone", (), {"__annotations__": {name: annotation}})
    try:  # as Python does: the names of the module come before those of the class
        hints = typing.get_type_hints(alone, names, inside, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        logger.warning(
            "the annotation %s of %r in %s cannot be read, so its values stay plain JSON:"
            " %s; import its names at run time, at the top of the module",
            annotation,
            name,
            getattr(owner, "__qualname__", owner),
            error,
        )
        return Any
    return hints[name]
