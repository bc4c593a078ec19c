"""Dataclasses on the wire: they come back as they were given, or are refused there (C37)."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import pydantic
import pytest

import perdure
from perdure.values import round_trips as typed_changes
from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json

T = TypeVar("T")
WHEN = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Page(pydantic.BaseModel):
    number: int = pydantic.Field(default=0, ge=0)


@dataclass
class Counted:
    name: str
    seen: int = field(default=0, init=False)
    pages: list[Page] = field(default_factory=list, init=False)


@dataclass(frozen=True, slots=True)
class Area:
    width: int
    height: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.width * self.height)


@dataclass
class Unset:
    name: str
    at: datetime = field(init=False)


@dataclass
class Scaled:
    size: int
    scale: InitVar[int]

    def __post_init__(self, scale: int) -> None:
        self.size *= scale


@dataclass
class ScaledOnce(Scaled):
    scale: InitVar[int] = 1


@dataclass
class ScaledAgain(Scaled):
    scale: InitVar[int] = 2


@dataclass
class Grows:
    size: int
    notes: Any = None

    def __post_init__(self) -> None:
        self.size += 1


@dataclass
class Bounded:
    limit: int
    notes: Any = None
    page: Page | None = None

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"hunter2: {self.limit}")


made: list[Any] = []


@dataclass
class Left:
    left: int
    below: Left | Right | None = None

    def __post_init__(self) -> None:
        made.append(self)


@dataclass
class Right:
    right: int
    below: Left | Right | None = None

    def __post_init__(self) -> None:
        made.append(self)


@dataclass(init=False)
class Parsed:
    first: str
    last: str

    def __init__(self, text: str) -> None:
        self.first, self.last = text.split()


def counted() -> Counted:
    made = Counted("a")
    made.seen, made.pages = 3, [Page(number=1)]
    return made


def beyond() -> Bounded:
    made = Bounded(1)
    made.limit = -1
    return made


@pytest.mark.parametrize(
    "value",
    [
        Counted("a"),
        counted(),
        Area(2, 3),
        Unset("a"),
        ScaledOnce(2),
        ScaledOnce(2, 5),
        Bounded(1, notes={"pair": [1], "at": None}, page=Page(number=1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_dataclass_comes_back_as_it_was_given(value: Any) -> None:
    """What is no argument of the class (init=False) was lost, without a word."""
    back = decoder(type(value))(as_stored(to_json(value)))
    assert type(back) is type(value)
    names = [name for name in value.__dataclass_fields__ if hasattr(value, name)]
    assert [getattr(back, name) for name in names] == [getattr(value, name) for name in names]


def test_what_an_older_version_did_not_write_is_as_the_class_makes_it() -> None:
    assert decoder(Counted)({"name": "a"}) == Counted("a")
    assert decoder(Area)({"width": 2, "height": 3}).size == 6


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Scaled(2, 3), "scale"),
        (ScaledAgain(2), "size"),
        (Grows(1), "size"),
        (Parsed("Ada Lovelace"), "text"),
        (beyond(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_is_refused_where_it_is_given(value: Any, place: str) -> None:
    """Its reader could not make it, or made something else of it without a word."""
    with pytest.raises(perdure.InvalidValue, match=f"a {type(value).__name__} ") as refused:
        to_json({"it": [value]})
    assert place in (refused.value.detail or "")
    assert refused.value.hint
    assert "hunter2" not in str(refused.value)


def test_what_json_cannot_hold_says_what_to_do_about_it() -> None:
    with pytest.raises(perdure.InvalidValue, match="of type set cannot be stored") as refused:
        to_json(Bounded(1, notes={"a"}))
    assert "sorted(value)" in (refused.value.hint or "")


def test_a_dataclass_without_code_of_its_own_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What that costs is paid for those alone that may come back as something else."""
    checked: list[Any] = []
    monkeypatch.setattr(typed_changes, "change_of", lambda value, back: checked.append(value))
    to_json([counted(), Unset("a")])
    assert not checked
    to_json(Area(1, 2))
    assert checked


def test_a_field_of_any_comes_as_json_gives_it() -> None:
    written = to_json(Bounded(1, notes={"at": WHEN, "pair": (1, Area(1, 2))}))
    area = {"width": 1, "height": 2, "size": 2}
    assert decoder(Bounded)(written).notes == {"at": WHEN.isoformat(), "pair": [1, area]}


@pydantic.dataclasses.dataclass
class Order:
    limit: int = pydantic.Field(default=0, ge=0, alias="maxLimit")
    price: Decimal = Decimal("0.10")
    tags: frozenset[str] = frozenset()
    data: bytes = b""
    later: Later | None = None


class SubOrder(Order):
    pass


@pydantic.dataclasses.dataclass(config={"strict": True})
class Strict:
    at: datetime = WHEN
    day: date = date(2030, 1, 1)


@pydantic.dataclasses.dataclass
class Held(Generic[T]):
    item: T


@pydantic.dataclasses.dataclass
class Later:
    page: Page


@pydantic.dataclasses.dataclass
class HasInitVar:
    name: str
    scale: InitVar[int]


@pydantic.dataclasses.dataclass
class HasLater:
    name: str
    seen: int = field(default=0, init=False)


@pydantic.dataclasses.dataclass
class Either:
    day: date | str


def assigned(value: Any, name: str, to: Any) -> Any:
    setattr(value, name, to)
    return value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, Order(maxLimit=3, tags=frozenset({"a"}), data=b"x", later=Later(Page(number=1)))),
        (SubOrder, SubOrder(maxLimit=3)),
        (Strict, Strict()),
        (Held[Page], Held(Page(number=1))),
        (Held[Strict], Held(Strict())),
        (list[Held[Page] | None], [Held(Page(number=1)), None]),
        (HasLater, HasLater("a")),
        (Either, Either("a")),
    ],
    ids=str,
)
def test_a_dataclass_of_pydantic_passes_as_its_models_do(kind: Any, value: Any) -> None:
    back = decoder(kind)(as_stored(to_json(value)))
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (assigned(Order(), "limit", -1), "maxLimit"),
        (assigned(Later(Page()), "page", Page.model_construct(number=-1)), "page.number"),
        (HasInitVar("a", 1), "scale"),
        (assigned(HasLater("a"), "seen", 3), "seen"),
        (Either(date(2030, 1, 1)), "day"),
    ],
    ids=repr,
)
def test_a_dataclass_that_pydantic_would_not_read_is_refused(value: Any, place: str) -> None:
    """It was stored, and its reader was told that it is mistyped."""
    with pytest.raises(perdure.InvalidValue) as refused:
        to_json({"it": value})
    assert place in (refused.value.detail or "")


def test_a_type_that_cannot_come_back_fails_nobody_who_only_names_it() -> None:
    """A function may say that it takes one, and never be given any."""
    decode = decoder(Scaled | None)
    assert decode(None) is None
    with pytest.raises(perdure.InvalidValue, match="a Scaled cannot be read back"):
        decode({"size": 1})


def test_a_class_that_misses_a_field_makes_none_of_the_others() -> None:
    """Of a union each member made all that is below, before it was refused: twice a level."""
    depth, value = 10, None
    for level in range(depth):
        value = (Left, Right)[level % 2](level, value)
    made.clear()
    stored = as_stored(to_json(value))
    assert len(made) <= depth * depth  # each level is read back
    made.clear()
    assert decoder(Left | Right)(stored) == value
    assert len(made) == depth
