"""Likeness: what is near to a vector, and what speaks of words, for clients and under indexes."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import perdure
from perdure.errors import InvalidArgument
from tests.vectors import create_pgvector

Connection = psycopg.Connection[Any]
Json = Any

DIMENSIONS = 8
MEMORIES = 300
ODD: list[Json] = [
    [0] * DIMENSIONS,
    [1] * (DIMENSIONS + 1),
    [],
    None,
    "[1, 2, 3]",
    5,
    {"0": 1},
    [*[1] * (DIMENSIONS - 1), "1"],
    [*[1] * (DIMENSIONS - 1), None],
    [*[1] * (DIMENSIONS - 1), 1e300],
    [*[1] * (DIMENSIONS - 1), [1]],
]
"""Values that are no vector that another could be near to."""


@pytest.fixture
def vectors(connection: Connection) -> dict[str, list[float]]:
    """Give the vectors of many memories, beside which stand some that are none."""
    create_pgvector(connection)
    chosen = random.Random(DIMENSIONS)
    made = {
        f"m{number:03}": [round(chosen.gauss(0, 1), 6) for _ in range(DIMENSIONS)]
        for number in range(MEMORIES)
    }
    made["twin"] = made["m007"]
    made["tiny"] = [1e-300, *made["m008"][1:]]
    odd = {f"odd{number}": value for number, value in enumerate(ODD)}
    for name, value in (made | odd).items():
        context = json.dumps({"embedding": value, "even": name[-1] in "02468"})
        connection.execute("select entity_create(%s, 'note', %s)", [name, context])
    connection.execute("select entity_create('none', 'note', '{}')")
    connection.execute(
        "select entity_create('stranger', 'other', %s)", [json.dumps({"embedding": made["m007"]})]
    )
    return made


def distance(one: list[float], other: list[float]) -> float:
    """Measure how far two vectors point apart."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return 1 - dot / math.hypot(*one) / math.hypot(*other)


def near(connection: Connection, to: list[float], size: int, conditions: Json = None) -> list[str]:
    """Name what is near to a vector, nearest first, read page by page."""
    order = json.dumps([{"path": "embedding", "near": to}])
    names: list[str] = []
    after = None
    while True:
        page = connection.execute(
            "select id, place from find('note', %s, %s, %s, %s)",
            [json.dumps(conditions or {}), order, size, after],
        ).fetchall()
        names += [row[0] for row in page]
        assert len(set(names)) == len(names), "a page gives a row again"
        if len(page) < size:
            return names
        after = json.dumps(page[-1][1])


def nodes(connection: Connection, to: list[float]) -> str:
    """Give the plan by which a page is found."""
    order = json.dumps([{"path": "embedding", "near": to}])
    (query,) = connection.execute("select find_query('note', '{}', %s)", [order]).fetchone() or ()
    return str(connection.execute(f"explain (format json) {query}".encode()).fetchone())


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_the_nearest_come_first(
    connection: Connection, vectors: dict[str, list[float]], size: int
) -> None:
    """All that have a vector, by their distance and then by id, in pages that join (E12)."""
    to = vectors["m007"]
    nearest = sorted(vectors, key=lambda name: (round(distance(vectors[name], to), 5), name))
    assert nearest[:2] == ["m007", "twin"]
    assert near(connection, to, size) == nearest
    evens = [name for name in nearest if name[-1] in "02468"]
    assert near(connection, to, size, {"even": True}) == evens


def test_an_index_gives_pages_of_any_length(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """An index of vectors alone stops at forty; find() goes on to the end (C73)."""
    to = vectors["m007"]
    name = connection.execute("select create_index('note', 'embedding', 'vector(8)')").fetchone()
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        connection.execute(f"set {setting} = off".encode())
    assert name is not None
    assert name[0] in nodes(connection, to)
    found = near(connection, to, 200)
    assert found[:2] == ["m007", "twin"]
    assert set(found) == set(vectors)
    distances = [distance(vectors[name], to) for name in found]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(distances))


def test_no_value_makes_a_write_fail_under_it(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """What is no vector is not in the index, and is written all the same (S9)."""
    connection.execute("select create_index('note', 'embedding', 'vector(8)')")
    hard = [*ODD, [1e37] * 8, [-1e-300] * 8, [9.99e37, *[-1] * 7], [1e38] * 8, [1e-45] * 8]
    for value in hard:
        connection.execute("select entity_set('m001', %s, 'embedding')", [json.dumps(value)])
    assert "m001" not in near(connection, vectors["m007"], 1000)


def test_who_looks_for_vectors_keeps_his_settings(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """What find() tells pgvector is for its own statement."""
    shown = "select current_setting('hnsw.iterative_scan', true)"
    with connection.transaction():
        near(connection, vectors["m007"], 10)
        assert connection.execute(shown.encode()).fetchone() in [("off",), (None,), ("",)]
    connection.execute("set hnsw.iterative_scan = 'relaxed_order'")
    with connection.transaction():
        near(connection, vectors["m007"], 10)
        assert connection.execute(shown.encode()).fetchone() == ("relaxed_order",)


def test_vectors_of_an_index_have_their_limits(connection: Connection) -> None:
    """What pgvector cannot index, or an old one would cut, is refused with a hint."""
    create_pgvector(connection)
    refused: list[tuple[str, str]] = [
        ("vector(2001)", "2000"),
        ("vector(0)", "kind"),
        ("vector(03)", "kind"),
        ("vector", "kind"),
        ("vector(3", "kind"),
        ("search(english)", "kind"),
        ("search()", "kind"),
        ("search(klingon)", "language"),
    ]
    for kind, words in refused:
        with pytest.raises(psycopg.Error, match=words) as error:
            connection.execute("select create_index('note', 'embedding', %s)", [kind])
        assert error.value.sqlstate == "PD107"
        assert error.value.diag.message_hint
    with pytest.raises(psycopg.Error, match="the whole memory is not a vector"):
        connection.execute("select create_index('note', '', 'vector(3)')")
    connection.execute("update pg_extension set extversion = '0.7.4' where extname = 'vector'")
    with pytest.raises(psycopg.Error, match="or later") as old:
        connection.execute("select create_index('note', 'embedding', 'vector(3)')")
    assert old.value.diag.message_detail == "This database has 0.7."
    connection.execute("select create_index('note', 'notes', 'search')")


def test_a_word_that_is_too_long_is_told_to_nobody(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    """PostgreSQL would tell whoever writes, each time, that it leaves out a word."""
    connection.execute("select create_index('note', '', 'search')")
    writer = connect()
    told: list[str] = []
    writer.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    document = json.dumps({"key": "x" * 5000, "notes": "solar"})
    writer.execute("select entity_create('long', 'note', %s)", [document])
    writer.execute("""select entity_set('long', '"wind"', 'notes')""")
    assert told == []
    asked = """select id from find('note', '{"": {"$search": "wind"}}')"""
    assert writer.execute(asked.encode()).fetchall() == [("long",)]


def test_pages_join_whatever_digits_a_session_writes(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """A place is exact, however few digits of a float the session wants to see (E12)."""
    connection.execute("set extra_float_digits = -15")
    found = near(connection, vectors["m007"], 7)
    assert sorted(found) == sorted(vectors)


def test_a_language_of_the_session_is_not_ours(connection: Connection) -> None:
    """What find_query() gives for EXPLAIN finds what find() does, whatever stands first there."""
    connection.execute("create schema shadow")
    connection.execute("create text search configuration shadow.english (copy = simple)")
    connection.execute("set search_path = shadow, pg_catalog, perdure")
    connection.execute("""select entity_create('n', 'note', '{"text": "panels"}')""")
    conditions = json.dumps({"text": {"$search": "panels"}})
    query = connection.execute("select find_query('note', %s)", [conditions]).fetchone()
    assert query is not None
    assert [row[0] for row in connection.execute(query[0].encode())] == ["n"]


@pytest.mark.parametrize("said", ["a_", "~/", "1_", "<!--", "<!-- ", "a1@", "<a b='"])
def test_no_text_holds_a_write_up(connection: Connection, said: str) -> None:
    """PostgreSQL's parser took a minute for some texts of 100 kB; so did a write, and its lock."""
    connection.execute("select create_index('note', '', 'search')")
    connection.execute("set statement_timeout = '20 s'")
    text = f"solar {said * (99_900 // len(said))} wind"
    connection.execute("select entity_create('n', 'note', %s)", [json.dumps({"text": text})])
    asked = """select id from find('note', '{"text": {"$search": "solar"}}')"""
    assert connection.execute(asked.encode()).fetchall() == [("n",)]


@pytest.mark.parametrize("length", [199, 200, 201, 600])
def test_a_long_word_is_found_in_its_pieces(connection: Connection, length: int) -> None:
    """Text and search are cut alike."""
    word = "".join(random.Random(length).choices("abcdefghij", k=length))
    context = json.dumps({"text": f"a {word} stands here"})
    connection.execute("select entity_create('n', 'note', %s)", [context])
    asked = "select id from find('note', %s)"
    for said, names in ((word, [("n",)]), (word[:-1] + "k", [])):
        conditions = json.dumps({"text": {"$search": said}})
        assert connection.execute(asked.encode(), [conditions]).fetchall() == names


@pytest.mark.parametrize("said", ["-" * 1000, "- " * 500, "!-(&|) " * 140])
def test_many_dashes_are_one(connection: Connection, said: str) -> None:
    """PostgreSQL itself fails of more negations than it can count; a search never does."""
    context = json.dumps({"text": "solar wind"})
    connection.execute("select entity_create('n', 'note', %s)", [context])
    asked = "select id from find('note', %s, %s)"
    for words, names in (("solar", []), ("coal", [("n",)])):
        conditions = json.dumps({"text": {"$search": (said + words)[-1000:]}})
        order = json.dumps([{"path": "text", "search": (said + words)[-1000:]}])
        assert connection.execute(asked.encode(), [conditions, order]).fetchall() == names


@pytest.mark.parametrize("number", ["1e-400", "-1e-400", "1e-301", "1e10", "1e400"])
@pytest.mark.parametrize("key", [{"near": [1, 2]}, {"search": "x"}])
def test_a_place_that_no_row_has_is_refused(
    connection: Connection, number: str, key: dict[str, Json]
) -> None:
    """Such a number is no distance, and no rank, and no double at all, some of them."""
    create_pgvector(connection)
    order = json.dumps([{"path": "text"} | key])
    with pytest.raises(psycopg.Error) as error:
        connection.execute(
            "select id from find('note', '{}', %s, 10, %s)", [order, f'[[{number}], ["x"]]']
        )
    assert error.value.sqlstate == "PD107"


def test_who_has_dropped_pgvector_drops_its_indexes(connection: Connection) -> None:
    """They are wanted no more, and what needs the extension says that it is not there."""
    create_pgvector(connection)
    connection.execute("select create_index('note', 'embedding', 'vector(2)')")
    connection.execute("drop extension vector cascade")
    with pytest.raises(psycopg.Error, match="pgvector") as error:
        connection.execute("select create_index('note', 'embedding', 'vector(2)')")
    assert error.value.sqlstate == "PD107"
    assert error.value.diag.message_detail == "This database has none."
    assert connection.execute("select state from indexes").fetchall() == [("missing",)]
    connection.execute("select drop_index('note', 'embedding', 'vector(2)')")
    assert connection.execute("select state from indexes").fetchall() == []


@pytest.mark.direct("an index is made by a session")
def test_clients_search_and_index(dsn: str, connection: Connection) -> None:
    """What SQL can do, a client does in the same words (E12)."""
    create_pgvector(connection)
    with perdure.connect(dsn) as client:
        for name, notes, embedding in (
            ("sun", "Solar panels convert sunlight", [1.0, 0.0]),
            ("wind", "A turbine has no panel", [0.0, 1.0]),
            ("german", "Die Häuser", [0.5, 0.5]),
        ):
            client.create_entity(name, "note", {"notes": notes, "embedding": embedding})
        for path, kind in (("notes", "search"), ("", "search(german)"), ("embedding", "vector(2)")):
            made = client.create_index("note", path, kind)
            assert (made.path, made.kind, made.state) == (path, kind, "valid")
        assert [row.id for row in client.find("note", {"notes": {"$search": "panel -solar"}})] == [
            "wind"
        ]
        german = {"": {"$search": {"text": "Haus", "language": "german"}}}
        assert client.count("note", german) == 1
        best = client.find("note", order_by={"path": "notes", "search": "panel or sunlight"})
        assert [row.id for row in best] == ["sun", "wind", "german"]
        nearest = client.find("note", order_by={"path": "embedding", "near": [1, 0.1]})
        assert [row.id for row in nearest] == ["sun", "german", "wind"]
        assert nearest[0].place[0][0] == pytest.approx(distance([1, 0], [1, 0.1]), abs=1e-6)
        with pytest.raises(InvalidArgument, match="near"):
            client.find("note", order_by={"path": "embedding", "near": [0, 0]})
        assert client.drop_index("note", "embedding", "vector(2)") is True
