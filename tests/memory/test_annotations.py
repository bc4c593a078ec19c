"""Values are decoded according to type annotations, or rejected if they do not fit (C37)."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NewType,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
)
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import ReadOnly, TypeAliasType

import perdure
from perdure.values.shapes import shape_of
from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json

T = TypeVar("T")
DAY = date(2030, 1, 1)
WHEN = datetime(2030, 1, 1, 12, tzinfo=UTC)
Number = NewType("Number", int)
Named = TypeAliasType("Named", dict[int, T], type_params=(T,))  # type: ignore[valid-type]


class Page(BaseModel):
    number: int


class Pages(RootModel[list[Page]]):
    pass


class Colour(enum.Enum):
    RED = "red"
    GREY = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ADA = "ada"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@dataclass
class Dog:
    name: str
    kind: Literal["dog"] = "dog"


@dataclass
class Tree:
    page: Page
    left: Tree | None = None
    others: list[Tree] | None = None


class Node(NamedTuple):
    page: Page
    left: Node | None = None


class CatDict(TypedDict):
    kind: Literal["cat"]


class DogDict(TypedDict):
    kind: Literal["dog"]
    at: ReadOnly[date]


class CatModel(BaseModel):
    kind: Literal["cat"] = "cat"


class DogModel(BaseModel):
    kind: Literal["dog"] = "dog"


PAGE = Page(number=1)
PET = Annotated[CatModel | DogModel, Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (tuple, (1, "a")),
        (tuple[()], ()),
        (tuple[Page, date, str], (PAGE, DAY, "a")),
        (tuple[int, *tuple[Page, ...]], (1, PAGE, PAGE)),
        (tuple[int, *tuple[Page, ...]], (1,)),
        (tuple[*tuple[Page, date], *tuple[Page, ...], str], (PAGE, DAY, "a")),
        (tuple[tuple[int, date], ...], ((1, DAY), (2, DAY))),
        (list[tuple[Page, timedelta | None]], [(PAGE, None), (PAGE, timedelta(1))]),
        (dict[int, Page], {1: PAGE}),
        (dict[Annotated[Number, "note"], list[date]], {1: [DAY]}),
        (dict[float, int], {1.5: 2, 1e16: 3}),
        (dict[bool, int], {True: 1}),
        (dict[Level, Page], {Level.LOW: PAGE}),
        (dict[Name, int], {Name.ADA: 1}),
        (dict[Literal[1, "a"], int], {1: 1, "a": 2}),
        (Counter[int], Counter([1, 1])),
        (defaultdict[int, list[int]], defaultdict(list, {1: [2]})),
        (dict[int, Page] | list[Page], {1: PAGE}),
        (Named[Page], {1: PAGE}),
        (OrderedDict, OrderedDict(a=1)),
        (Counter, Counter("aa")),
        (defaultdict, defaultdict(None, a=1)),
        (Literal["a", 1, None], 1),
        (Literal[Colour.GREY, "x"], Colour.GREY),
        (Literal["x"] | Colour, Colour.GREY),
        (Rights, Rights.READ | Rights.WRITE),
        (Cat | Dog, Dog("Rex")),
        (list[Cat | Dog] | None, [Dog("Rex"), Cat("Tom")]),
        (list[Cat] | list[Dog], [Dog("Rex")]),
        (CatDict | DogDict, {"kind": "dog", "at": DAY}),
        (list[PET], [DogModel(), CatModel()]),
        (Pages, Pages([PAGE])),
        (Final[Page], PAGE),
        (Node, Node(PAGE, Node(PAGE))),
        (Tree, Tree(PAGE, Tree(PAGE), [Tree(PAGE)])),
        (Iterable[Page], [PAGE]),
        (datetime | date, WHEN),
        (time | None, time(1, 2, tzinfo=UTC)),
        (dict[str, Page | list[Page] | str | None], {"a": [PAGE], "b": PAGE, "c": "d", "e": None}),
        (tuple[UUID, datetime] | None, (UUID(int=1), WHEN)),
    ],
    ids=str,
)
def test_decoded_value_has_the_annotated_type(kind: Any, value: Any) -> None:
    """A value that was stored and decoded equals the original and has its type; dict keys too."""
    decoded = decoder(kind)(as_stored(to_json(value)))
    assert (decoded, type(decoded)) == (value, type(value))
    if isinstance(value, dict):
        assert [*map(type, decoded)] == [*map(type, sorted(value, key=str))]


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal | None, 1.1, Decimal("1.1")),
        (Decimal | str, "1.10", "1.10"),
        (set[date], ["2030-01-01"], {DAY}),
        (frozenset[str], ["a"], frozenset("a")),
        (Set[str], ["a"], {"a"}),
        (set, [1], {1}),
        (deque[Page], [{"number": 1}], deque([PAGE])),
        (list[str] | set[str], ["a"], ["a"]),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (Literal["a"] | None, None, None),
    ],
    ids=str,
)
def test_other_json_forms_are_converted_to_the_annotated_type(
    kind: Any, stored: Any, value: Any
) -> None:
    """A reader gets the annotated type though the sender stored `str(price)` or `sorted(tags)`."""
    decoded = decoder(kind)(stored)
    assert (decoded, type(decoded)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (Literal["a", "b"], "c"),
        (Literal[1], True),
        (Literal["a"] | None, "c"),
        (Cat, {"name": "Rex", "kind": "dog"}),
        (Cat | Dog, {"name": "Rex", "kind": "cow"}),
        (dict[int, str], {"a": "b"}),
        (dict[Level, str], {"3": "b"}),
        (set[str], "abc"),
        (Decimal, [1]),
        (Decimal, None),
        (tuple[int, *tuple[Page, ...], str], [1]),
    ],
    ids=str,
)
def test_value_that_does_not_fit_its_annotation_is_rejected(kind: Any, stored: Any) -> None:
    with pytest.raises((TypeError, ValueError, LookupError, ArithmeticError)):
        decoder(kind)(stored)


class Options(TypedDict, total=False):
    page: Page
    since: date


def read(first: int, *rest: *tuple[Page, ...], **options: Unpack[Options]) -> None:
    """Take keyword arguments that a TypedDict names."""


def test_keyword_arguments_have_the_types_of_their_typed_dict() -> None:
    shape = shape_of(read)
    assert shape.arguments([1, 2]) == ((1, 2), {})
    sent = as_stored(shape.bind((1,), {"page": PAGE, "since": DAY}))
    assert shape.arguments(sent) == ((), {"first": 1, "page": PAGE, "since": DAY})


def test_type_given_by_name_alone_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Text that names no known type is not resolved: the value stays plain JSON, and the log says
    why."""
    assert decoder(list["Page | never"])([{"number": 1}]) == [{"number": 1}]  # type: ignore[misc]  # noqa: F821
    assert "'Page | never' looks like a type but is not one" in caplog.text


def test_dict_key_that_json_cannot_hold_is_rejected() -> None:
    with pytest.raises(perdure.InvalidValue, match="a key of type UUID"):
        as_stored(to_json({UUID(int=1): 1}))


def test_alias_is_read_alike_in_two_threads_at_a_time() -> None:
    """What a thread reads of an alias while another one does is kept for all later values."""

    class Note:
        """A note in an annotation: once, while it is looked at, another thread reads `union`."""

        union: Any = None
        made: Any = None

        def __hash__(self) -> int:
            union, self.union = self.union, None
            if union is not None:
                with ThreadPoolExecutor(1) as pool:
                    self.made = pool.submit(decoder, union).result()
            return 1

    note = Note()
    alias: Any = TypeAliasType("alias", Annotated[str, note])
    note.union = Union[alias, Page]  # noqa: UP007 - before Python 3.12 an alias has no `|`
    assert decoder(alias)("a") == "a"
    assert note.made({"number": 1}) == Page(number=1)
