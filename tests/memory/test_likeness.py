"""find() orders memories by the distance of vectors and searches their text, with and without
indexes."""

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
"""Values that have no distance to a vector of these dimensions."""


@pytest.fixture
def vectors(connection: Connection) -> dict[str, list[float]]:
    """Create many memories with vectors, and some without a usable one; return the vectors by
    id."""
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
    """Compute the cosine distance of two vectors."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return 1 - dot / math.hypot(*one) / math.hypot(*other)


def near(connection: Connection, to: list[float], size: int, conditions: Json = None) -> list[str]:
    """List the ids that find() gives for a vector, nearest first, read page by page."""
    order = json.dumps([{"path": "embedding", "near": to}])
    names: list[str] = []
    after = None
    while True:
        page = connection.execute(
            "select id, place from find('note', %s, %s, %s, %s)",
            [json.dumps(conditions or {}), order, size, after],
        ).fetchall()
        names += [row[0] for row in page]
        assert len(set(names)) == len(names), "two pages contain the same row"
        if len(page) < size:
            return names
        after = json.dumps(page[-1][1])


def plan_of(connection: Connection, to: list[float]) -> str:
    """Return the plan of a query for the nearest vectors."""
    order = json.dumps([{"path": "embedding", "near": to}])
    (query,) = connection.execute("select find_query('note', '{}', %s)", [order]).fetchone() or ()
    return str(connection.execute(f"explain (format json) {query}".encode()).fetchone())


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_nearest_vectors_come_first(
    connection: Connection, vectors: dict[str, list[float]], size: int
) -> None:
    """(E12) All memories with a vector come by distance and then by id, whatever the page size."""
    to = vectors["m007"]
    nearest = sorted(vectors, key=lambda name: (round(distance(vectors[name], to), 5), name))
    assert nearest[:2] == ["m007", "twin"]
    assert near(connection, to, size) == nearest
    evens = [name for name in nearest if name[-1] in "02468"]
    assert near(connection, to, size, {"even": True}) == evens


def test_an_index_gives_pages_of_any_length(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """(C73) An index scan of pgvector stops at 40 rows by default; find() continues to the end."""
    to = vectors["m007"]
    name = connection.execute("select create_index('note', 'embedding', 'vector(8)')").fetchone()
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        connection.execute(f"set {setting} = off".encode())
    assert name is not None
    assert name[0] in plan_of(connection, to)
    found = near(connection, to, 200)
    assert found[:2] == ["m007", "twin"]
    assert set(found) == set(vectors)
    distances = [distance(vectors[name], to) for name in found]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(distances))


def test_vector_index_accepts_a_write_of_any_value(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """(S9) A value that is not a vector, or an extreme one, is stored but not in the index."""
    connection.execute("select create_index('note', 'embedding', 'vector(8)')")
    hard = [*ODD, [1e37] * 8, [-1e-300] * 8, [9.99e37, *[-1] * 7], [1e38] * 8, [1e-45] * 8]
    for value in hard:
        connection.execute("select entity_set('m001', %s, 'embedding')", [json.dumps(value)])
    assert "m001" not in near(connection, vectors["m007"], 1000)


def test_find_leaves_the_pgvector_settings_of_the_session(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """find() changes hnsw.iterative_scan for its own statement only."""
    shown = "select current_setting('hnsw.iterative_scan', true)"
    with connection.transaction():
        near(connection, vectors["m007"], 10)
        assert connection.execute(shown.encode()).fetchone() in [("off",), (None,), ("",)]
    connection.execute("set hnsw.iterative_scan = 'relaxed_order'")
    with connection.transaction():
        near(connection, vectors["m007"], 10)
        assert connection.execute(shown.encode()).fetchone() == ("relaxed_order",)


def test_unsupported_vector_or_search_index_is_rejected(connection: Connection) -> None:
    """Bad kinds and lengths get a hint; pgvector older than 0.8 is named in the error's detail."""
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


def test_word_that_is_too_long_to_index_causes_no_notice(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    """PostgreSQL itself would send a notice to the client at each write."""
    connection.execute("select create_index('note', '', 'search')")
    writer = connect()
    notices: list[str] = []
    writer.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    document = json.dumps({"key": "x" * 5000, "notes": "solar"})
    writer.execute("select entity_create('long', 'note', %s)", [document])
    writer.execute("""select entity_set('long', '"wind"', 'notes')""")
    assert notices == []
    asked = """select id from find('note', '{"": {"$search": "wind"}}')"""
    assert writer.execute(asked.encode()).fetchall() == [("long",)]


def test_pages_join_when_a_session_prints_fewer_digits(
    connection: Connection, vectors: dict[str, list[float]]
) -> None:
    """(E12) The place of a row is exact, whatever extra_float_digits says."""
    connection.execute("set extra_float_digits = -15")
    found = near(connection, vectors["m007"], 7)
    assert sorted(found) == sorted(vectors)


def test_search_ignores_a_shadowing_language_of_the_session(connection: Connection) -> None:
    """The query of find_query() uses the language `english` of PostgreSQL, not one in the search
    path."""
    connection.execute("create schema shadow")
    connection.execute("create text search configuration shadow.english (copy = simple)")
    connection.execute("set search_path = shadow, pg_catalog, perdure")
    connection.execute("""select entity_create('n', 'note', '{"text": "panels"}')""")
    conditions = json.dumps({"text": {"$search": "panels"}})
    query = connection.execute("select find_query('note', %s)", [conditions]).fetchone()
    assert query is not None
    assert [row[0] for row in connection.execute(query[0].encode())] == ["n"]


@pytest.mark.parametrize("pattern", ["a_", "~/", "1_", "<!--", "<!-- ", "a1@", "<a b='"])
def test_pathological_text_is_indexed_quickly(connection: Connection, pattern: str) -> None:
    """PostgreSQL's parser alone takes a minute for 100 kB of such text; a write must not, as it
    holds the lock of the job."""
    connection.execute("select create_index('note', '', 'search')")
    connection.execute("set statement_timeout = '20 s'")
    text = f"solar {pattern * (99_900 // len(pattern))} wind"
    connection.execute("select entity_create('n', 'note', %s)", [json.dumps({"text": text})])
    asked = """select id from find('note', '{"text": {"$search": "solar"}}')"""
    assert connection.execute(asked.encode()).fetchall() == [("n",)]


@pytest.mark.parametrize("length", [199, 200, 201, 600])
def test_very_long_word_is_found_by_the_same_word_only(connection: Connection, length: int) -> None:
    """Text and searches cut long words in the same way."""
    word = "".join(random.Random(length).choices("abcdefghij", k=length))
    context = json.dumps({"text": f"a {word} stands here"})
    connection.execute("select entity_create('n', 'note', %s)", [context])
    asked = "select id from find('note', %s)"
    for searched, names in ((word, [("n",)]), (word[:-1] + "k", [])):
        conditions = json.dumps({"text": {"$search": searched}})
        assert connection.execute(asked.encode(), [conditions]).fetchall() == names


@pytest.mark.parametrize("negations", ["-" * 1000, "- " * 500, "!-(&|) " * 140])
def test_many_negations_in_a_search_count_as_one(connection: Connection, negations: str) -> None:
    """PostgreSQL itself fails when a query has too many negations."""
    context = json.dumps({"text": "solar wind"})
    connection.execute("select entity_create('n', 'note', %s)", [context])
    asked = "select id from find('note', %s, %s)"
    for words, names in (("solar", []), ("coal", [("n",)])):
        conditions = json.dumps({"text": {"$search": (negations + words)[-1000:]}})
        order = json.dumps([{"path": "text", "search": (negations + words)[-1000:]}])
        assert connection.execute(asked.encode(), [conditions, order]).fetchall() == names


@pytest.mark.parametrize("number", ["1e-400", "-1e-400", "1e-301", "1e10", "1e400"])
@pytest.mark.parametrize("key", [{"near": [1, 2]}, {"search": "x"}])
def test_place_with_an_impossible_number_is_rejected(
    connection: Connection, number: str, key: dict[str, Json]
) -> None:
    """Such a number is neither a distance nor a rank; some of them do not even fit a double."""
    create_pgvector(connection)
    order = json.dumps([{"path": "text"} | key])
    with pytest.raises(psycopg.Error) as error:
        connection.execute(
            "select id from find('note', '{}', %s, 10, %s)", [order, f'[[{number}], ["x"]]']
        )
    assert error.value.sqlstate == "PD107"


def test_vector_index_can_be_dropped_after_the_extension(connection: Connection) -> None:
    """Without pgvector its index is `missing`, a new one is rejected, and drop_index() removes the
    entry."""
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


@pytest.mark.direct("an index is built by a session")
def test_clients_search_and_index(dsn: str, connection: Connection) -> None:
    """(E12) A Python client has the search, the vectors and the indexes that SQL has."""
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
