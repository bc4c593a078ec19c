"""Generic types keep their type arguments when they are stored and read back (C37)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import pydantic
import pytest
import typing_extensions

from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json

T = TypeVar("T")
U = TypeVar("U")
Day = typing_extensions.TypeVar("Day", default=date)


class Page(pydantic.BaseModel):
    number: int


class Pair(NamedTuple, Generic[T]):
    first: T
    others: list[T] = []  # noqa: RUF012 - a field


class PagePair(Pair[Page]):
    pass


class Row(TypedDict, Generic[T]):
    item: T
    others: NotRequired[list[T]]


class Titled(Row[T]):
    title: str


class PageRow(Titled[Page]):
    owner: Page | None


@dataclass
class Box(Generic[T]):
    item: T
    others: list[T] = field(default_factory=list)


@dataclass
class PageBox(Box[Page]):
    owner: Page | None = None


@dataclass
class Lists(Box[list[T]], Generic[T]):
    last: T | None = None


class PageLists(Lists[Page]):
    pass


@dataclass
class Swapped(Generic[T, U]):
    one: T
    other: U


@dataclass
class SwappedBack(Swapped[U, T]):
    """Its type variables are ordered as its base lists them: U, T."""


@dataclass
class Above:
    item: date


@dataclass
class Left(Above):
    pass


@dataclass
class Right(Above):
    item: Page  # type: ignore[assignment]


@dataclass
class Both(Left, Right):
    """The nearest base in the MRO that annotates `item` counts: it is a Page."""


@dataclass
class Bare(Box):  # type: ignore[type-arg]
    pass


@dataclass
class OfPages(Box[Page]):
    pass


@dataclass
class Late(Bare, OfPages):
    """Only its last base gives the type argument."""


@dataclass
class Dated(Generic[Day]):
    at: Day


@pydantic.dataclasses.dataclass
class Checked(Generic[T]):
    item: T
    others: list[T] = field(default_factory=list)


@pydantic.dataclasses.dataclass
class CheckedPages(Checked[Page]):
    owner: Page | None = None


class Model(pydantic.BaseModel, Generic[T]):
    item: T
    others: list[T] = []


class PageModel(Model[Page]):
    owner: Page | None = None


PAGE = Page(number=1)
MANY = [Page(number=2)]
ITEM: dict[str, Any] = {"item": PAGE, "others": MANY}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Pair[Page], Pair(PAGE, MANY)),
        (Pair[list[Page]], Pair(MANY, [MANY])),
        (Pair[int], Pair(1, [2])),
        (PagePair, PagePair(PAGE, MANY)),
        (list[Pair[Page]] | None, [Pair(PAGE)]),
        (Row[Page], ITEM),
        (Row[Pair[Page]], {"item": Pair(PAGE)}),
        (Titled[Page], {**ITEM, "title": "a"}),
        (PageRow, {**ITEM, "title": "a", "owner": PAGE}),
        (Box[Page], Box(PAGE, MANY)),
        (Box[Box[Page]], Box(Box(PAGE), [])),
        (PageBox, PageBox(PAGE, MANY, PAGE)),
        (Lists[Page], Lists(MANY, [MANY], PAGE)),
        (PageLists, PageLists(MANY, [MANY], PAGE)),
        (SwappedBack[Page, date], SwappedBack(PAGE, date(2030, 1, 1))),
        (Both, Both(PAGE)),
        (Late, Late(PAGE, MANY)),
        (Dated, Dated(date(2030, 1, 1))),
        (Dated[Page], Dated(PAGE)),
        (Checked[Page], Checked(PAGE, MANY)),
        (CheckedPages, CheckedPages(PAGE, MANY, PAGE)),
        (Model[Page], Model[Page](**ITEM)),
        (PageModel, PageModel(**ITEM, owner=PAGE)),
    ],
    ids=str,
)
def test_value_of_a_generic_type_is_decoded_with_its_arguments(kind: Any, value: Any) -> None:
    """The arguments count whether they are in the annotation or in a subclass."""
    decoded = decoder(kind)(as_stored(to_json(value)))
    assert (decoded, type(decoded)) == (value, type(value))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it has no `class Box[T]`")
def test_type_parameter_syntax_is_supported() -> None:
    names: dict[str, Any] = {"Page": Page, "dataclass": dataclass, "NamedTuple": NamedTuple}
    lines = ("@dataclass", "class Box[T]: item: 'list[T]'", "class Pair[T](NamedTuple): item: T")
    exec("\n".join(lines), names)
    assert decoder(names["Box"][Page])({"item": [{"number": 1}]}).item == [PAGE]
    assert decoder(names["Pair"][Page])([{"number": 1}]).item == PAGE
