"""Unions, enums and subclasses of dict and list keep their types when stored and read back
(C37)."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pydantic
import pytest

from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json


@dataclass
class Approval:
    by: str
    limit: int


class Model(pydantic.BaseModel):
    by: str
    limit: int


class More(pydantic.BaseModel):
    by: str
    limit: int
    note: str = ""


class Colour(enum.Enum):
    RED = "red"


class Box(enum.Enum):
    SMALL = (1, 2)
    LARGE = (3, (4, 5))


class Day(enum.Enum):
    FIRST = date(2030, 1, 1)
    LAST = datetime(2030, 12, 31, 12)  # noqa: DTZ001


class Known(enum.Enum):
    ONE = UUID(int=1)
    TWO = UUID(int=2)


class Lasting(enum.Enum):
    SHORT = timedelta(seconds=1)
    NONE = None

    @classmethod
    def _missing_(cls, value: object) -> Lasting:
        return cls.NONE


@dataclass(frozen=True)
class Size:
    width: int
    height: int


class Sized(Size, enum.Enum):
    SMALL = 1, 2
    LARGE = 3, 4


Day2 = NewType("Day2", date)
ID = UUID(int=7)


@pytest.mark.parametrize("kind", [Approval, Model])
@pytest.mark.parametrize("stored", [{"by": "jane"}, "jane", 5, ["jane"]])
def test_value_that_fits_no_member_of_a_union_is_rejected(kind: Any, stored: Any) -> None:
    """`X | None` raises the same type of error as X alone; a union of classes raises TypeError."""
    alone: list[type[Exception]] = []
    for annotation in (kind, kind | None, kind | date):
        with pytest.raises((TypeError, pydantic.ValidationError)) as refused:
            decoder(annotation)(stored)
        alone.append(refused.type)
    assert alone[0] is alone[1]
    with pytest.raises(TypeError, match="fits none of"):
        decoder(Approval | Model | None)(stored)


def test_null_is_accepted_only_if_the_union_contains_none() -> None:
    assert decoder(Approval | None)(None) is None
    with pytest.raises(TypeError):
        decoder(Approval | Model)(None)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int | UUID, 5),
        (str | date, "2026-01-31"),
        (date | str, "2026-01-31"),
        (Day2 | str, "2026-01-31"),
        (Annotated[date, "day"] | Annotated[str, "text"], "2026-01-31"),
        (str | UUID | None, str(ID)),
        (float | timedelta, 2.5),
        (float | timedelta, 2),
        (bool | timedelta, True),
        (str | Colour, "red"),
        (Literal["red"] | Colour, "red"),
        (dict[str, Any] | Model, {"by": "jane", "limit": 3, "other": 4}),
        (Model | dict, {"by": "jane"}),
        (list[str] | list[date], ["a"]),
    ],
)
def test_value_of_a_plain_union_member_is_not_converted(kind: Any, value: Any) -> None:
    """A text must not become a date, UUID or enum, nor a number a timedelta."""
    made = decoder(kind)(value)
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int | UUID, ID),
        (int | timedelta, timedelta(seconds=3)),
        (int | date | None, date(2026, 1, 31)),
        (Literal["blue"] | Colour, Colour.RED),
        (dict[str, Any] | Model, Model(by="jane", limit=3)),
        (Model | list[Model], [Model(by="jane", limit=3)]),
        (Any | Model, Model(by="jane", limit=3)),
        (str | Approval | Model, Approval("jane", 3)),
    ],
)
def test_union_members_with_different_json_are_told_apart(kind: Any, value: Any) -> None:
    made = decoder(kind)(as_stored(to_json(value)))
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize("form", [lambda of: of, lambda of: list[of]])
def test_first_of_equal_union_members_wins_in_the_order_written(form: Any) -> None:
    """Though `A | B` equals `B | A` in Python, a decoder of one is not used for the other."""
    stored: Any = {"by": "jane", "limit": 3}
    stored, first = (stored, type) if form(int) is int else ([stored], lambda of: type(of[0]))
    assert first(decoder(form(Approval | Model))(stored)) is Approval
    assert first(decoder(form(Model | Approval))(stored)) is Model
    assert first(decoder(form(Approval | Model))(stored)) is Approval


def test_annotated_type_with_unhashable_metadata_is_decoded() -> None:
    kind = Annotated[Model, {"a": "note"}]
    assert decoder(kind)({"by": "jane", "limit": 3}) == Model(by="jane", limit=3)
    assert decoder(list[kind] | None)([{"by": "jane", "limit": 3}]) == [Model(by="jane", limit=3)]


@pytest.mark.parametrize("value", [*Box, *Day, *Known, *Lasting, *Sized, *Colour], ids=str)
def test_enum_with_any_kind_of_values_is_read_back(value: Any) -> None:
    assert decoder(type(value))(as_stored(to_json(value))) is value
    assert decoder(list[type(value)] | None)(as_stored(to_json([value]))) == [value]  # type: ignore[misc]


def test_value_that_is_not_a_member_of_an_enum_is_rejected() -> None:
    for kind, stored in ((Box, [1, 3]), (Day, "2030-01-02"), (Known, "1"), (Colour, "blue")):
        with pytest.raises(ValueError, match="is not a valid"):
            decoder(kind)(stored)
    assert decoder(Lasting)("what?") is Lasting.NONE


PAGE = Model(by="a", limit=1)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (MutableMapping[str, Model], {"a": PAGE}),
        (Mapping[str, Model], {"a": PAGE}),
        (defaultdict[str, Model], defaultdict(None, {"a": PAGE})),
        (defaultdict[str, list[Model]], defaultdict(list, {"a": [PAGE]})),
        (defaultdict[str, int], defaultdict(int, {"a": 1})),
        (OrderedDict[str, Model], OrderedDict({"a": PAGE})),
        (Counter[str], Counter("aab")),
        (Sequence[Model], [PAGE]),
        (MutableSequence[Model], [PAGE]),
    ],
)
def test_subclasses_of_dict_and_list_are_read_back(kind: Any, value: Any) -> None:
    """The container and the values in it keep their types."""
    made = decoder(kind)(as_stored(to_json(value)))
    assert (made, type(made)) == (value, type(value))
    if isinstance(value, defaultdict):
        assert made.default_factory is value.default_factory
