"""Pydantic models are stored and read back unchanged, or rejected when they are stored (C37)."""

from __future__ import annotations

import enum
from collections import deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pydantic
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

import perdure
from perdure.values import round_trips as typed_changes
from perdure.values import schemas as typed_schemas
from perdure.values.models import model_json
from perdure.values.stored import as_stored
from perdure.values.wire import decoder, to_json

WHEN = datetime(2030, 1, 1, 12, tzinfo=UTC)
Item = TypeVar("Item")


class Written(BaseModel):
    limit: int = Field(default=0, serialization_alias="maxLimit")


class Read(BaseModel):
    limit: int = Field(default=0, validation_alias="max_limit")


class Choices(BaseModel):
    limit: int = Field(default=0, validation_alias=AliasChoices("max_limit", "max"))


class Way(BaseModel):
    first: str = Field(default="", validation_alias=AliasPath("names", 0))
    last: str = Field(default="", validation_alias=AliasPath("names", 1))
    limit: int = Field(default=0, validation_alias=AliasPath("limits", "max"))


class WayOrName(BaseModel):
    limit: int = Field(default=0, validation_alias=AliasChoices(AliasPath("l", 0), "max"))


class Swapped(BaseModel):
    one: int = Field(default=0, serialization_alias="two")
    two: int = Field(default=0, serialization_alias="one")


class Camel(BaseModel):
    model_config = ConfigDict(
        alias_generator=pydantic.AliasGenerator(
            validation_alias=to_camel, serialization_alias=lambda name: f"out_{name}"
        )
    )
    max_limit: int = 0


class Checked(BaseModel):
    limit: int = Field(default=0, serialization_alias="maxLimit")

    @model_validator(mode="after")
    def is_right(self) -> Checked:
        return self


class Box(BaseModel, Generic[Item]):
    item: Item
    items: list[Item] = []


class Rows(RootModel[list[Written]]):
    pass


class Nested(BaseModel):
    one: Written
    some: list[Read] = []
    named: dict[str, Way] = {}
    pair: tuple[Written, int] | None = None
    either: Written | Way | None = None
    rows: Rows | None = None
    box: Box[Written] | None = None


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    one: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.one * 2


class HoldsClosed(BaseModel):
    closed: list[Closed]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        return len(self.closed)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime = WHEN
    day: date = date(2030, 1, 1)
    id: UUID = UUID(int=1)
    pair: tuple[int, str] = (1, "a")
    lasts: timedelta = timedelta(seconds=1.5)
    tags: set[str] = {"a"}
    price: Decimal = Decimal("0.10")


class StrictField(BaseModel):
    at: Annotated[datetime, Field(strict=True)]


class HoldsStrict(BaseModel):
    inner: list[Strict]


class Based(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Parsed(BaseModel):
    rows: Json[list[int]]


class Opened(BaseModel):
    secret: SecretStr

    @field_serializer("secret")
    def open(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str = Field(serialization_alias="catName")


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Tree(BaseModel):
    size: int = Field(default=0, serialization_alias="treeSize")
    below: list[Tree] = []


class Wrapped(BaseModel):
    limit: int = Field(default=0, serialization_alias="maxLimit")

    @model_serializer(mode="wrap")
    def write(self, handler: Any) -> Any:
        return handler(self)


CONVERTED: list[BaseModel] = [
    Written(limit=500),
    Read(max_limit=500),
    Choices(max=500),
    Way(names=["a", "b"], limits={"max": 5}),
    Way(names=["", "b"]),
    WayOrName(max=3),
    Swapped(one=1, two=2),
    Camel(maxLimit=3),
    Checked(limit=3),
    Box[Written](item=Written(limit=1), items=[Written(limit=2)]),
    Box[Strict](item=Strict()),
    Rows([Written(limit=1)]),
    Nested(
        one=Written(limit=1),
        some=[Read(max_limit=2)],
        named={"a": Way(limits={"max": 5})},
        pair=(Written(limit=3), 4),
        either=Way(limits={"max": 5}),
        rows=Rows([Written(limit=1)]),
        box=Box[Written](item=Written(limit=5)),
    ),
    Closed(one=2),
    HoldsClosed(closed=[Closed(one=2)]),
    Strict(),
    StrictField(at=WHEN),
    HoldsStrict(inner=[Strict()]),
    Based(data=b"\xff\x00"),
    Based(data=b"abcd"),
    Parsed(rows="[1, 2]"),
    Opened(secret=SecretStr("hunter2")),
    Owner(pet=Cat(name="Tom")),
    Owner(pet=Dog(name="Rex")),
    Tree(size=1, below=[Tree(size=2)]),
    Wrapped(limit=3),
]


@pytest.mark.parametrize("value", CONVERTED, ids=lambda value: type(value).__name__)
def test_model_is_read_back_unchanged(value: BaseModel) -> None:
    """A model is written under the names that it reads; otherwise a reader would get defaults."""
    kind = type(value)
    assert decoder(kind)(as_stored(to_json(value))) == value
    assert decoder(list[kind] | None)(as_stored(to_json([value]))) == [value]  # type: ignore[valid-type]


class Aliased(BaseModel):
    limit: int = Field(default=0, alias="maxLimit")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    limit: int = Field(default=0, validation_alias="max_limit")
    size: int = Field(default=0, alias="maxSize")


class ByGenerator(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    max_limit: int = 0


class Second(BaseModel):
    limit: int = Field(
        default=0, validation_alias=AliasChoices("max", "most"), serialization_alias="most"
    )


class Computed(BaseModel):
    one: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.one * 2


class LeftOut(BaseModel):
    one: int
    handle: Any = Field(default=None, exclude=True)


class Own(BaseModel):
    at: datetime

    @field_serializer("at")
    def write(self, at: datetime) -> str:
        return at.isoformat(" ")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Aliased(maxLimit=3), {"maxLimit": 3}),
        (ByName(max_limit=3, maxSize=4), {"limit": 3, "maxSize": 4}),
        (ByGenerator(maxLimit=3), {"maxLimit": 3}),
        (Second(max=3), {"most": 3}),
        (Computed(), {"one": 1, "twice": 2}),
        (LeftOut(one=1, handle=object()), {"one": 1}),
        (Own(at=WHEN), {"at": "2030-01-01 12:00:00+00:00"}),
        (Strict(), to_json(Strict())),
    ],
)
def test_model_without_ambiguity_is_written_as_pydantic_writes_it(
    value: BaseModel, written: Any
) -> None:
    """Existing journals hold this form, and replayed code must ask for the same."""
    assert to_json(value) == written == value.model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        (Choices, {"max_limit": 3}, Choices(max=3)),
        (ByName, {"max_limit": 3}, ByName(max_limit=3)),
        (Second, {"max": 3}, Second(max=3)),
        (Way, {"names": ["a"]}, Way(names=["a"])),
    ],
)
def test_all_names_that_a_model_accepts_are_read(kind: Any, stored: Any, value: BaseModel) -> None:
    assert decoder(kind)(stored) == value


class Account(BaseModel):
    name: str
    password: SecretStr | None = None
    key: SecretBytes = SecretBytes(b"")


class Holds(BaseModel):
    accounts: dict[str, list[Account]]


class Size(enum.Enum):
    SMALL = (1, 2)


class Sized(BaseModel):
    size: Size


class German(BaseModel):
    day: date

    @field_serializer("day")
    def write(self, day: date) -> str:
        return day.strftime("%d.%m.%Y")


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def write(self, price: float) -> float:
        return round(price, 2)


class Left(BaseModel):
    text: str


class Right(BaseModel):
    text: str
    tool: str = "none"


class Either(BaseModel):
    step: Right | Left


class DayOrText(BaseModel):
    day: date | str


class First(BaseModel):
    it: int | str = Field(union_mode="left_to_right")


class Mismatched(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64")
    data: bytes


class Backwards(BaseModel):
    last: str = Field(default="", validation_alias=AliasPath("names", -1))


class Missed(BaseModel):
    one: int = Field(exclude=True)


class Sub(Left):
    more: int = 0


class AsAny(BaseModel):
    it: SerializeAsAny[Left]


class Zoo(BaseModel):
    some: list[Left]


class Branch(BaseModel):
    below: list[Branch] = []


class Twig(Branch):
    pass


class InTheWay(BaseModel):
    name: str = "x"
    first: str = Field(default="", validation_alias=AliasPath("name", 0))


@pytest.mark.parametrize(
    "value",
    [
        Account(name="a", password=SecretStr("hunter2")),
        Account(name="a", key=SecretBytes(b"hunter2")),
        Holds(accounts={"a": [Account(name="a", password=SecretStr("hunter2"))]}),
        Sized(size=Size.SMALL),
        German(day=date(2030, 1, 2)),
        Rounded(price=1.239),
        Either(step=Left(text="a")),
        DayOrText(day=date(2030, 1, 2)),
        First.model_construct(it="5"),
        Mismatched(data=b"abc"),
        Backwards(names=["a"]),
        Missed(one=1),
        AsAny(it=Sub(text="a", more=1)),
        Zoo(some=[Left(text="a"), Sub(text="a", more=1)]),
        Branch(below=[Twig()]),
        InTheWay.model_construct(name="x", first="y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_model_that_cannot_be_read_back_is_rejected_when_stored(value: BaseModel) -> None:
    """The error names the cause, has a hint, and shows no secret."""
    with pytest.raises(perdure.InvalidValue) as refused:
        to_json({"it": [value]})
    assert any(name in str(refused.value) for name in (type(value).__name__, "Secret", "item -1"))
    assert refused.value.hint
    assert "hunter2" not in str(refused.value)


class Picky:
    """Instances are compared by identity."""


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    picky: Picky
    notes: dict[str, Any] = {}
    tags: Any = None
    parts: deque[int] = deque()
    handle: Any = Field(default=None, exclude=True)
    _seen: int = pydantic.PrivateAttr(default=0)

    @field_serializer("picky")
    def write(self, picky: Picky) -> str:
        return "picky"

    @field_validator("picky", mode="before")
    @classmethod
    def read(cls, value: Any) -> Picky:
        return value if isinstance(value, Picky) else Picky()


def test_model_with_incomparable_or_untyped_values_is_accepted() -> None:
    """An untyped value is read as plain JSON, and an excluded field gets its default."""
    odd = Odd(picky=Picky(), notes={"at": WHEN, "pair": (1, 2)}, parts=deque([1]), handle=object())
    odd._seen = 3
    back = decoder(Odd)(as_stored(to_json(odd)))
    assert back.notes == {"at": "2030-01-01T12:00:00Z", "pair": [1, 2]}
    assert back.handle is None
    assert to_json(Account(name="a", password=SecretStr(""))) == {
        "name": "a",
        "password": "",
        "key": "",
    }


class Plain(BaseModel):
    one: int
    at: datetime | None = None
    some: list[Right] = []
    file: Path = Path()
    either: str | int | list[str] | Right | None = None


@pytest.mark.parametrize("kind", [Plain, Aliased, ByGenerator, Computed, LeftOut, Owner])
def test_only_an_ambiguous_model_is_read_back_to_check_it(
    kind: type[BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other models must not pay for the check."""
    checked: list[Any] = []
    monkeypatch.setattr(typed_changes, "change_of", lambda model, back: checked.append(model))
    values = {
        Plain: Plain(one=1),
        LeftOut: LeftOut(one=1),
        Owner: Owner(pet=Cat(name="a")),
    }
    model_json(values.get(kind) or kind())
    assert bool(checked) is (kind is Owner)  # a cat is written under a name that it does not read


class Bill(BaseModel):
    total: float = Field(default=0, ge=0)
    some: list[Bill] = []


def invalid_by_assignment() -> Bill:
    bill = Bill()
    bill.total = -1.5
    return bill


@pydantic.dataclasses.dataclass
class Sum:
    total: float = Field(default=0, ge=0)


def invalid_dataclass() -> Sum:
    made = Sum()
    made.total = -1.5
    return made


@pytest.mark.parametrize(
    "invalid",
    [
        invalid_by_assignment(),
        invalid_dataclass(),
        Bill().model_copy(update={"total": -1.5}),
        Bill.model_construct(total=-1.5),
        Bill(some=[Bill(), Bill.model_construct(total=-1.5)]),
        Right.model_construct(tool="a"),
    ],
    ids=["assigned", "dataclass", "copied", "constructed", "inside", "incomplete"],
)
def test_invalid_model_is_rejected_by_every_verb_that_stores(dsn: str, invalid: Any) -> None:
    """If it were stored, nobody could read it. The error does not show the invalid value."""
    with perdure.connect(dsn) as client:
        memory = client.create_entity("one", "thing").typed(type(invalid))
        for give in (
            lambda: to_json({"it": [invalid]}),
            lambda: memory.set(invalid),
            lambda: client.start("some", invalid),
            lambda: client.entity("one").append("list", invalid),
        ):
            with pytest.raises(perdure.InvalidValue, match="cannot be read back") as refused:
                give()
            assert "-1.5" not in str(refused.value)
        assert client.entity("one").get() == {}


@pydantic.dataclasses.dataclass
class Order:
    limit: int = pydantic.Field(default=0, alias="maxLimit")
    at: datetime | None = pydantic.Field(default=None, validation_alias=AliasPath("times", 0))
    name: str = "a"


@pydantic.dataclasses.dataclass(config=ConfigDict(populate_by_name=True))
class NamedOrder:
    limit: int = pydantic.Field(default=0, alias="maxLimit")


class HoldsOrder(BaseModel):
    orders: list[Order]


def test_pydantic_dataclass_is_written_and_read_by_its_aliases() -> None:
    order = Order(maxLimit=3, times=[WHEN])  # type: ignore[call-arg]
    written = as_stored(to_json(order))
    assert written == {"maxLimit": 3, "times": ["2030-01-01T12:00:00Z"], "name": "a"}
    assert decoder(Order)(written) == order
    holds = HoldsOrder(orders=[order])
    assert decoder(HoldsOrder)(as_stored(to_json(holds))) == holds
    named = NamedOrder(limit=3)
    assert to_json(named) == {"maxLimit": 3}
    assert decoder(NamedOrder)({"limit": 3}) == decoder(NamedOrder)({"maxLimit": 3}) == named


def test_merge_of_a_model_writes_the_names_that_it_reads(dsn: str) -> None:
    with perdure.connect(dsn) as client:
        memory = client.create_entity("one", "thing").typed(Nested)
        memory.merge(Nested(one=Written(limit=3)))
        assert memory.get() == Nested(one=Written(limit=3))
        account = client.create_entity("two", "thing").typed(Account)
        for given in (
            Account(name="a", password=SecretStr("hunter2")),
            Account.model_construct(password=SecretStr("hunter2")),
        ):
            with pytest.raises(perdure.InvalidValue):
                account.merge(given)
        assert client.entity("two").get() == {}


def test_contract_of_a_model_uses_the_names_that_are_stored(dsn: str) -> None:
    with perdure.connect(dsn) as client:
        client.define_contract("thing", Closed)
        client.define_contract("limit", Read)
        client.create_entity("one", "thing", Closed(one=1))
        memory = client.create_entity("two", "limit", Read(max_limit=4)).typed(Read)
        assert memory.get("max_limit") == memory.get().limit == 4


def test_model_with_an_unknown_schema_is_dumped_by_pydantic_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another version of pydantic may describe its classes in a way that perdure cannot read."""

    class Fresh(BaseModel):
        at: datetime = Field(alias="when")

    @pydantic.dataclasses.dataclass
    class Kept:
        at: int = 1

    def unknown(kind: Any) -> Any:
        raise KeyError("schema")

    monkeypatch.setattr(typed_schemas, "nodes_of", unknown)
    value = Fresh(when=datetime(2026, 1, 2, tzinfo=UTC))
    assert to_json(value) == value.model_dump(mode="json", by_alias=True)
    assert decoder(Fresh)(to_json(value)) == value
    assert decoder(Kept)(to_json(Kept(at=2))) == Kept(at=2)
