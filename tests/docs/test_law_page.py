"""The page of laws, `sql/README.md`, names each field of the replies to a worker."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import psycopg

import perdure

TEXT = (Path(__file__).parents[2] / "sql" / "README.md").read_text("utf-8")
TURN = TEXT.partition("## A turn")[2].partition("## Laws")[0]


def test_every_field_of_a_reply_is_on_the_page(dsn: str) -> None:
    """Authors of workers in other languages have only this page."""
    with perdure.connect(dsn) as client:
        client.start("told", id="told", queue="law").signal("go", 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = perdure")
        claim = "select claim('{law}', 'me', %s)"
        [claimed] = connection.execute(claim, [uuid4()]).fetchone() or [None]
        [task] = claimed["tasks"]
        turn = {"job": "told", "task": "1/main", "token": claimed["token"], "position": 0}
        turn |= {"state": "park", "awaits": ["go"]}
        advance = "select advance(jsonb_build_array(%s::jsonb))"
        [kept] = connection.execute(advance, [psycopg.types.json.Jsonb(turn)]).fetchone() or [None]
    [answer] = kept["turns"]
    assert answer["state"] == "keep"
    [message] = answer["messages"]
    fields = {*claimed, *task, *kept, *answer, *message}
    assert fields - set(re.findall(r"`(\w+)`", TURN)) == set()
