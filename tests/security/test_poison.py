"""Payloads that break others, given to every verb that takes one (T17): refused with the code that
is documented, and no row of any table is another afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.security.house import Connection
from tests.security.test_hostile_arguments import stage

Enter = Callable[[str], Connection]

# A member of an object, as JSON is written; what refuses the object.
PAYLOADS = {
    "NUL": (r'"a\u0000b"', "22P05"),
    "NUL in a key": (r'{"a\u0000": 1}', "22P05"),
    "half a surrogate pair": (r'"\ud800"', "22P02"),
    "NaN": ("NaN", "22P02"),
    "infinity": ("-Infinity", "22P02"),
    "a number of nine letters": ("1e131071", "PD304"),
    "a number beyond any": ("1e132000", "22003"),
    "a number that no double holds": ("1.1e308", "PD304"),
    "a thousand levels": ("[" * 1000 + "]" * 1000, "PD302"),
    "a hundred and one levels": ("[" * 101 + "]" * 101, "PD302"),
    "levels without end": ("[" * 100_000, "54001|22P02"),
    "a text of 1.1 MB": (f'"{"x" * 1_100_000}"', "PD301"),
    "a key of 1.1 MB": (f'{{"{"x" * 1_100_000}": 1}}', "PD301"),
    "220,000 nulls": ("[" + "null," * 219_999 + "null]", "PD301"),
}
# What looks as if it were: it is a value, and comes back as it was given.
HARMLESS = {
    "more digits than a double has": "9007199254740993.5",
    "an empty key, a dot, a quote": r'{"": 1, "a.b": 2, "a\"b": 3, "a}b": 4}',
    "a key twice": '{"a": 1, "a": 2}',
    "a text that says NaN": '"NaN"',
    "the text of a NUL": r'"\\u0000"',
    "letters from right to left": '"\u202e\u2066abc"',
    "a hundred levels, less its own": "[" * 98 + "]" * 98,
    "the largest number": "-1e308",
}

TURN = """select advance(jsonb_build_array(jsonb_build_object(
    'job', %%(job)s::text, 'task', %%(task)s::text, 'token', %%(token)s::text,
    'position', 0, %s)))"""
VERBS = {
    "start": "select start('w', %(payload)s)",
    "start, its memory": "select start('w', context => %(payload)s)",
    "start, its headers": "select start('w', headers => %(payload)s)",
    "start_many": "select start_many(jsonb_build_array(jsonb_build_object("
    "'workflow', 'w', 'args', %(payload)s::jsonb)))",
    "signal": "select signal(%(job)s, 's', %(payload)s)",
    "signal_with_start": "select signal_with_start('w', %(job)s, 's', %(payload)s)",
    "hook": "select hook(%(job)s, 'h', %(payload)s)",
    "retry": "select retry(%(ended)s, %(payload)s)",
    "fork": "select fork(%(job)s, 'forked', context => %(payload)s)",
    "entity_create": "select entity_create('new', 'doc', %(payload)s)",
    "entity_set": "select entity_set(%(job)s, %(payload)s, 'v')",
    "entity_set, all": "select entity_set(%(job)s, %(payload)s)",
    "entity_set_if_not_exists": "select entity_set_if_not_exists(%(job)s, 'new', %(payload)s)",
    "entity_merge": "select entity_merge(%(job)s, %(payload)s)",
    "entity_append": "select entity_append(%(job)s, 'list', %(payload)s)",
    "entity_prepend": "select entity_prepend(%(job)s, 'list', %(payload)s)",
    "entity_log": "select entity_log(%(job)s, 'log', %(payload)s)",
    "entity_apply": "select entity_apply(%(job)s, jsonb_build_array(jsonb_build_object("
    "'op', 'set', 'path', 'v', 'value', %(payload)s::jsonb)))",
    "publish": "select publish(%(job)s, %(task)s, %(token)s, 's', %(payload)s)",
    "finish_task": "select finish_task(%(job)s, %(task)s, %(token)s, %(payload)s)",
    "fail_task": "select fail_task(%(job)s, %(task)s, %(token)s, %(payload)s)",
    "resolve_item": "select resolve_item(%(item)s, %(payload)s)",
    "create_schedule": "select create_schedule('s', 'w', args => %(payload)s, every => '1 day')",
    "create_schedule, headers": "select create_schedule('s', 'w', headers => %(payload)s,"
    " every => '1 day')",
    "register_worker": "select register_worker('poison', '{q}', %(payload)s)",
    "find": "select * from find('doc', %(payload)s)",
    "advance, its result": TURN % "'state', 'done', 'value', %(payload)s::jsonb",
    "advance, a command": TURN % """'state', 'keep', 'facts', jsonb_build_array(jsonb_build_object(
        'op', 'set', 'path', array['v'], 'value', %(payload)s::jsonb))""",
    "advance, a request": TURN % """'state', 'keep', 'requests', jsonb_build_array(
        jsonb_build_object('kind', 'hook', 'key', 'k', 'name', 'n', 'args', %(payload)s::jsonb))""",
}  # fmt: skip


def rows(owner: Connection) -> dict[str, str]:
    """Sum up the rows of every table."""
    tables = owner.execute("""
        select relname from pg_class
         where relnamespace = 'perdure'::regnamespace and relkind = 'r'""").fetchall()
    out = {}
    for (name,) in tables:
        query = "select md5(string_agg(t::text, '' order by t::text)) from perdure.{} as t"
        row = owner.execute(sql.SQL(query).format(sql.Identifier(name))).fetchone()
        out[name] = row[0] if row else ""
    return out


def end(connection: Connection, query: str, values: dict[str, Any]) -> str:
    """Run a call; give the code of its refusal, be it raised or answered, or "done"."""
    try:
        answer = connection.execute(query.encode(), values).fetchone()
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    turns = answer[0].get("turns") if answer and isinstance(answer[0], dict) else None
    return turns[0]["error"]["code"] if turns and turns[0]["state"] == "refused" else "done"


@pytest.mark.parametrize("about", PAYLOADS)
def test_a_poisoned_payload_is_refused_by_every_verb_and_leaves_nothing(
    enter: Enter, about: str
) -> None:
    owner = enter("owner")
    written, wanted = PAYLOADS[about]
    given = stage(owner) | {"payload": f'{{"v": {written}}}'}
    given["ended"] = stage(owner)["job"]
    owner.execute("select terminate(%s)", [given["ended"]])
    before = rows(owner)
    ends = {verb: end(owner, query, given) for verb, query in VERBS.items()}
    assert {verb: code for verb, code in ends.items() if code not in wanted.split("|")} == {}
    assert rows(owner) == before


@pytest.mark.parametrize("about", HARMLESS)
def test_what_only_looks_like_poison_comes_back_as_it_is(enter: Enter, about: str) -> None:
    owner = enter("owner")
    job = stage(owner)["job"]
    given = {"job": job, "payload": f'{{"v": {HARMLESS[about]}}}'}
    assert end(owner, VERBS["entity_set, all"], given) == "done"
    query = "select entity_get(%(job)s) = %(payload)s::jsonb"
    assert owner.execute(query, given).fetchone() == (True,)
    text = "select entity_get(%s)::text"
    row = owner.execute(text, [job]).fetchone()
    assert row
    read, sent = (json.loads(text, parse_int=float) for text in (row[0], given["payload"]))
    assert read == sent
