"""Every verb that takes a payload rejects values that would break readers, with the documented
code, and changes no row of any table (T17)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.security.payloads import INSIDE, LEASING, NO_VALUES, Place, places
from tests.security.secured import KINDS, Connection
from tests.security.test_hostile_arguments import prepare_job, verbs_of

ConnectAs = Callable[[str], Connection]

# A member of an object as JSON text, and the code with which the object is rejected.
PAYLOADS = {
    "NUL": (r'"a\u0000b"', "22P05"),
    "NUL in a key": (r'{"a\u0000": 1}', "22P05"),
    "half a surrogate pair": (r'"\ud800"', "22P02"),
    "NaN": ("NaN", "22P02"),
    "infinity": ("-Infinity", "22P02"),
    "a number with a huge exponent": ("1e131071", "PD304"),
    "a number beyond any": ("1e132000", "22003"),
    "a number that no double holds": ("1.1e308", "PD304"),
    "a thousand levels": ("[" * 1000 + "]" * 1000, "PD302"),
    "a hundred and one levels": ("[" * 101 + "]" * 101, "PD302"),
    "a hundred thousand open brackets": ("[" * 100_000, "54001|22P02"),
    "a text of 1.1 MB": (f'"{"x" * 1_100_000}"', "PD301"),
    "a key of 1.1 MB": (f'{{"{"x" * 1_100_000}": 1}}', "PD301"),
    "220,000 nulls": ("[" + "null," * 219_999 + "null]", "PD301"),
}
# Values that only look dangerous; they are read back as they were given.
HARMLESS = {
    "more digits than a double has": "9007199254740993.5",
    "an empty key, a dot, a quote": r'{"": 1, "a.b": 2, "a\"b": 3, "a}b": 4}',
    "a key twice": '{"a": 1, "a": 2}',
    "the text NaN": '"NaN"',
    "the text of a NUL": r'"\\u0000"',
    "right-to-left letters": '"\u202e\u2066abc"',
    "a hundred levels in all": "[" * 98 + "]" * 98,
    "the largest number": "-1e308",
}

# Arguments that are read first, and reject whatever is put there.
NO_PLACE = dict.fromkeys(
    (("find", "order_by"), ("find", "after"), ("list_items", "after"), ("timeline", "after")),
    "PD107",
)


def rows(owner: Connection) -> dict[str, str]:
    """Compute a hash of the rows of every table."""
    tables = owner.execute("""
        select relname from pg_class
         where relnamespace = 'perdure'::regnamespace and relkind = 'r'""").fetchall()
    out = {}
    for (name,) in tables:
        query = "select md5(string_agg(t::text, '' order by t::text)) from perdure.{} as t"
        row = owner.execute(sql.SQL(query).format(sql.Identifier(name))).fetchone()
        out[name] = row[0] if row else ""
    return out


def result_of(connection: Connection, query: str, values: list[Any]) -> str:
    """Run a call; return the code of its error, raised or answered, or "done"."""
    try:
        answers = connection.execute(query.encode(), values).fetchall()
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    refused = re.search(r'"code": "(\w+)"|"(fenced|gone|lost)"', json.dumps(answers, default=str))
    return refused[1] or refused[2] if refused else "done"


def given_to(connection: Connection, place: Place, made: dict[str, Any], value: str) -> str:
    """Put a value into its place, and return how the call ended."""
    call_arguments = place.arguments_with(made, value)
    return result_of(connection, place.query(call_arguments), list(call_arguments.values()))


@pytest.fixture
def sessions(connect_as: ConnectAs) -> dict[str, Connection]:
    """Give a connection for each kind of role."""
    return {kind: connect_as(kind) for kind in KINDS}


def test_exceptions_name_existing_arguments(connect_as: ConnectAs) -> None:
    arguments = {
        (verb.name, name) for verb in verbs_of(connect_as("owner")) for name in verb.arguments
    }
    assert {*NO_VALUES, *INSIDE, *NO_PLACE} - arguments == set()


def test_every_place_accepts_a_valid_value(
    connect_as: ConnectAs, sessions: dict[str, Connection]
) -> None:
    """Otherwise a rejection there would prove nothing about the payload."""
    owner = connect_as("owner")
    sound = {"define_contract": '{"type": "object"}', "broken_contracts": "{}"}
    ends = {
        str(place): given_to(
            sessions[place.verb.role],
            place,
            place.prepare(owner),
            sound.get(place.verb.name, '{"v": 1}'),
        )
        for place in places(owner)
        if (place.verb.name, place.argument) not in NO_PLACE
    }
    assert {place: code for place, code in ends.items() if code != "done"} == {}
    assert len(ends) > 60


@pytest.mark.parametrize("about", PAYLOADS)
def test_poisoned_payload_is_rejected_by_every_verb_without_trace(
    connect_as: ConnectAs, sessions: dict[str, Connection], about: str
) -> None:
    owner = connect_as("owner")
    written, wanted = PAYLOADS[about]
    everywhere = list(places(owner))
    made = {place.needs: place.prepare(owner) for place in everywhere}

    def wrong(where: list[Place]) -> dict[str, str]:
        ends = {
            place: given_to(
                sessions[place.verb.role], place, made[place.needs], f'{{"v": {written}}}'
            )
            for place in where
        }
        return {
            str(place): code for place, code in ends.items() if code not in expected(place, wanted)
        }

    assert wrong([place for place in everywhere if place.verb.name in LEASING]) == {}
    with_progress = "select from tasks where job_id = %s and progress is not null"
    assert [owner.execute(with_progress, [made[verb]["job"]]).rowcount for verb in LEASING] == [
        0,
        0,
    ]
    before = rows(owner)
    assert wrong([place for place in everywhere if place.verb.name not in LEASING]) == {}
    assert rows(owner) == before


def expected(place: Place, wanted: str) -> list[str]:
    """Return the codes that are right for a place, if the value is JSON at all."""
    if not wanted.startswith("PD"):
        return wanted.split("|")
    if place.verb.name == "extend":
        return [wanted, "PD301"]  # if it exceeds 10 kB
    if place.verb.name == "release":
        return ["done"]  # the progress is left out
    return [NO_PLACE.get((place.verb.name, place.argument), wanted)]


@pytest.mark.parametrize("about", HARMLESS)
def test_harmless_value_is_stored_unchanged(connect_as: ConnectAs, about: str) -> None:
    owner = connect_as("owner")
    job = prepare_job(owner)["job"]
    value = f'{{"v": {HARMLESS[about]}}}'
    assert result_of(owner, "select entity_set(%s, %s)", [job, value]) == "done"
    assert owner.execute("select entity_get(%s) = %s::jsonb", [job, value]).fetchone() == (True,)
    row = owner.execute("select entity_get(%s)::text", [job]).fetchone()
    assert row
    read, sent = (json.loads(text, parse_int=float) for text in (row[0], value))
    assert read == sent


WRITES = {
    "update": "update jobs set context = %s where id = %s",
    "insert": "insert into jobs (context, id, entity, version) values (%s, %s || '!', 'doc', 1)",
}


@pytest.mark.parametrize("how", WRITES)
def test_poisoned_document_is_rejected_by_plain_sql_without_trace(
    connect_as: ConnectAs, how: str
) -> None:
    """A memory may be larger and deeper than a single value that is put into it, so its limits
    differ."""
    owner = connect_as("owner")
    job = prepare_job(owner, works=False)["job"]
    before = rows(owner)
    poison = {about: each for about, each in PAYLOADS.items() if each[1] != "PD301"}
    del poison["a hundred and one levels"]
    poison["151 levels"] = ("[" * 151 + "]" * 151, "PD302")
    poison["more than 8 MB"] = (json.dumps([uuid4().hex for _ in range(260_000)]), "PD303")
    ends = {
        about: result_of(owner, WRITES[how], [f'{{"v": {written}}}', job])
        for about, (written, _) in poison.items()
    }
    wrong = {about: code for about, code in ends.items() if code not in poison[about][1].split("|")}
    assert wrong == {}
    assert rows(owner) == before
