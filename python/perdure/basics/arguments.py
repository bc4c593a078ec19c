"""Arguments that SQL would misread, or could not read, are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from perdure.errors import InvalidArgument

from .names import check_name, check_own_name, check_queue


class Kind(NamedTuple):
    """What an argument may be, and what to say about other values."""

    accepts: Callable[[Any], bool]
    name: str
    hint: str


def is_whole(given: object, end: int = 2**63) -> bool:
    """Tell whether a value is a whole number between -end and end. True and False are not."""
    return isinstance(given, int) and not isinstance(given, bool) and -end <= given < end


TEXT = Kind(lambda given: isinstance(given, str), "text", "Give str.")
FLAG = Kind(lambda given: isinstance(given, bool), "boolean", "Give True or False.")
INTEGER = Kind(lambda given: is_whole(given, 2**31), "whole number", "Give int, of 32 bits.")
BIGINT = Kind(is_whole, "whole number", "Give int, of 64 bits.")

_STARTS = frozenset({"start", "signal_with_start", "create_schedule"})

NEEDED_BUT_IN: Mapping[str, frozenset[str]] = {
    "by": frozenset({"release_item", "resolve_item"}),
    "condition": frozenset(),
    "entity": _STARTS | {"forget_finished"},
    "function": frozenset(),
    "id": frozenset({"start"}),
    "index": frozenset(),
    "item": frozenset(),
    "kind": frozenset({"statements_to_create_index", "statements_to_drop_index"}),
    "name": frozenset({"list_items"}),
    "queue": _STARTS | {"hook", "queue_depths"},
    "task": frozenset({"resume"}),
    "version": frozenset({"entity_at"}),
    "workflow": frozenset({"list_jobs"}),
}
"""Arguments that may not be None, and the functions in which they may; all others may be None."""

NUMBERED = frozenset({"entity_history", "entity_items", "read_journal", "stream_items"})
"""Functions in which `after` and `before` are numbers of what was read; elsewhere `after` is text,
and `before` a time."""

_TEXTS = (
    "after assignee by catch_up condition cron entity function how id if_exists item job key kind"
    " limit_key name new_id overlap pinned_version queue reason signal status stream task time_zone"
    " topic workflow"
)
_INTEGERS = "attempts index last max_jobs max_per_key max_rows max_running place priority"
_BIGINTS = "expected_version seq to_version version"

KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(_TEXTS.split(), TEXT),
    **dict.fromkeys(_INTEGERS.split(), INTEGER),
    **dict.fromkeys(_BIGINTS.split(), BIGINT),
    "accept_changes": FLAG,
}


def check_arguments(function: str, given: Mapping[str, Any]) -> None:
    """Refuse what SQL cannot take as text, number or boolean, and None where it needs a value.

    `check_arguments("hook", {"name": "approve", "priority": 3})`. Raises InvalidArgument.
    """
    for name, value in given.items():
        is_number = name in ("after", "before") and function in NUMBERED
        kind = BIGINT if is_number else KINDS.get(name)
        if kind is None or kind.accepts(value):
            continue
        if value is not None or function not in NEEDED_BUT_IN.get(name, {function}):
            check_argument(name, value, kind)


def check_argument(name: str, given: Any, kind: Kind) -> None:
    """Refuse an argument of another kind: `check_argument("slots", 3, INTEGER)`.

    Raises InvalidArgument.
    """
    if not kind.accepts(given):
        raise InvalidArgument(f"{name}={given!r} is not a {kind.name}"[:500], hint=kind.hint)


def check_asked(options: Mapping[str, Any]) -> None:
    """Refuse options of a request that the database would refuse together with the whole turn.

    `check_asked({"queue": "ai", "priority": 3})`. None of the options is None. Raises
    InvalidArgument and InvalidName.
    """
    check_arguments("request", options)
    for option, value in options.items():
        if option == "queue":
            check_queue(value)
        elif option == "priority" and not 0 <= value <= 9:
            raise InvalidArgument(
                f"a priority must be between 0 (first) and 9 (last), not {value}",
                hint="Give 0 to 9, or leave it out for 5.",
            )
        elif option in _OWN_NAMES:
            check_own_name(value, _OWN_NAMES[option])
        elif option in _NAMES and value != _ANY.get(option):
            check_name(value, _NAMES[option])


_OWN_NAMES = {"id": "a child", "entity": "an entity"}
_NAMES = {"assignee": "an assignee", "limit_key": "a limit", "signal": "a signal"}
_ANY = {"limit_key": ""}
"""Values of options that mean that nothing was given."""


def listed(name: str, given: Any) -> list[Any]:
    """Return several values as a list: `listed("order_by", ["score", "-$created_at"])`.

    Raises InvalidArgument for text, a mapping, and what is not iterable.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidArgument(f"{name}={given!r} is not a list"[:500], hint="Give several: […].")
    return list(given)


def of_a_call(args: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split the arguments of a call, given as a list or a mapping. Raises InvalidArgument."""
    return ((), dict(args)) if isinstance(args, Mapping) else (tuple(listed("args", args)), {})
