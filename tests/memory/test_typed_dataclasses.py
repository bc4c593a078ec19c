"""Dataclasses are stored and read back unchanged, or rejected when they are stored (C37)."""

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


instances: list[Any] = []


@dataclass
class Left:
    left: int
    below: Left | Right | None = None

    def __post_init__(self) -> None:
        instances.append(self)


@dataclass
class Right:
    right: int
    below: Left | Right | None = None

    def __post_init__(self) -> None:
        instances.append(self)


@dataclass(init=False)
class Parsed:
    first: str
    last: str

    def __init__(self, text: str) -> None:
        self.first, self.last = text.split()


def counted_thrice() -> Counted:
    instances = Counted("a")
    instances.seen, instances.pages = 3, [Page(number=1)]
    return instances


def out_of_bounds() -> Bounded:
    instances = Bounded(1)
    instances.limit = -1
    return instances


@pytest.mark.parametrize(
    "value",
    [
        Counted("a"),
        counted_thrice(),
        Area(2, 3),
        Unset("a"),
        ScaledOnce(2),
        ScaledOnce(2, 5),
        Bounded(1, notes={"pair": [1], "at": None}, page=Page(number=1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_dataclass_is_read_back_unchanged(value: Any) -> None:
    """Fields with init=False are kept too."""
    decoded = decoder(type(value))(as_stored(to_json(value)))
    assert type(decoded) is type(value)
    names = [name for name in value.__dataclass_fields__ if hasattr(value, name)]
    assert [getattr(decoded, name) for name in names] == [getattr(value, name) for name in names]


def test_field_missing_in_stored_data_gets_the_value_of_the_class() -> None:
    assert decoder(Counted)({"name": "a"}) == Counted("a")
    assert decoder(Area)({"width": 2, "height": 3}).size == 6


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Scaled(2, 3), "scale"),
        (ScaledAgain(2), "size"),
        (Grows(1), "size"),
        (Parsed("Ada Lovelace"), "text"),
        (out_of_bounds(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_dataclass_that_cannot_be_read_back_is_rejected_when_stored(value: Any, place: str) -> None:
    """The error names the class and the cause, has a hint, and shows no value."""
    with pytest.raises(perdure.InvalidValue, match=f"a {type(value).__name__} ") as refused:
        to_json({"it": [value]})
    assert place in (refused.value.detail or "")
    assert refused.value.hint
    assert "hunter2" not in str(refused.value)


def test_hint_says_how_to_store_a_set() -> None:
    with pytest.raises(perdure.InvalidValue, match="of type set cannot be stored") as refused:
        to_json(Bounded(1, notes={"a"}))
    assert "sorted(value)" in (refused.value.hint or "")


def test_only_a_dataclass_with_its_own_code_is_read_back_to_check_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other dataclasses must not pay for the check."""
    checked: list[Any] = []
    monkeypatch.setattr(typed_changes, "change_of", lambda value, decoded: checked.append(value))
    to_json([counted_thrice(), Unset("a")])
    assert not checked
    to_json(Area(1, 2))
    assert checked


def test_value_in_a_field_of_type_any_is_plain_json() -> None:
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
def test_pydantic_dataclass_is_read_back_unchanged(kind: Any, value: Any) -> None:
    decoded = decoder(kind)(as_stored(to_json(value)))
    assert (decoded, type(decoded)) == (value, type(value))


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
def test_pydantic_dataclass_that_cannot_be_read_is_rejected(value: Any, place: str) -> None:
    """It is rejected when stored, and the error names the field."""
    with pytest.raises(perdure.InvalidValue) as refused:
        to_json({"it": value})
    assert place in (refused.value.detail or "")


def test_unreadable_type_in_a_union_fails_only_for_its_values() -> None:
    """A function may accept `Scaled | None` and never be given a Scaled."""
    decode = decoder(Scaled | None)
    assert decode(None) is None
    with pytest.raises(perdure.InvalidValue, match="a Scaled cannot be read back"):
        decode({"size": 1})


def test_member_of_a_union_that_does_not_fit_builds_no_nested_values() -> None:
    """Otherwise the number of objects would double at each level of a recursive union."""
    depth, value = 10, None
    for level in range(depth):
        value = (Left, Right)[level % 2](level, value)
    instances.clear()
    stored = as_stored(to_json(value))
    assert len(instances) <= depth * depth  # each level is read back
    instances.clear()
    assert decoder(Left | Right)(stored) == value
    assert len(instances) == depth
