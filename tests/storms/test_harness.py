"""(T32) The harness itself: the proxy does what it promises, and the checkers find violations."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.databases import connected
from tests.races.sessions import Session
from tests.races.test_random_history import JOBS, any_command
from tests.storms.cluster import Cluster
from tests.storms.damage import can_be_seen, damage
from tests.storms.history import History
from tests.storms.load import Caller, Wind, broken_memories
from tests.storms.proxy import Proxy
from tests.storms.storm import Faults, Storm

Through = tuple[Proxy, str]


@pytest.fixture
def wind(proxy: Through, tmp_path: Path) -> Iterator[Wind]:
    """Provide the state of a storm with one caller."""
    history = History(tmp_path / "history")
    yield Wind(proxy[1], history)
    history.close()


@pytest.fixture
def look(cluster: Cluster, storm_database: str) -> Iterator[Session]:
    """Provide an undisturbed session, and the hot memories."""
    with connected(cluster.url(storm_database)) as connection:
        for job in JOBS:
            connection.execute("select entity_create(%s, 'hot')", [job])
        yield Session(connection, connection, "storm")


def test_proxy_loses_a_reply_after_the_commit(proxy: Through, look: Session) -> None:
    """(T8) The statement was executed; in a transaction only the reply to the commit is lost."""
    through, dsn = proxy
    write = "select perdure.entity_increment('hot 0', 'n')"
    with psycopg.connect(dsn) as connection:
        through.lose_replies(1)
        connection.execute(write)
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert (look.memory("hot 0"), through.lost) == (({"n": 1}, 1), 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        through.lose_replies(1)
        with pytest.raises(psycopg.OperationalError):
            connection.execute(write)
    assert (look.memory("hot 0"), through.lost) == (({"n": 2}, 2), 2)


def test_proxy_swallows_everything_or_slices_replies(proxy: Through) -> None:
    through, dsn = proxy
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        through.slice(True)
        query = "select string_agg(n::text, ' ') from generate_series(1, 9999) as n"
        (long,) = connection.execute(query).fetchone() or ("",)
        assert long == " ".join(map(str, range(1, 10000)))
        through.swallow()
        connection.pgconn.send_query(b"select 1")
        connection.pgconn.flush()
        time.sleep(0.2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        through.heal()
        with pytest.raises(psycopg.OperationalError):
            read_until_it_breaks(connection)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def read_until_it_breaks(connection: psycopg.Connection[Any]) -> None:
    """Read until the connection breaks."""
    while True:
        connection.pgconn.consume_input()


def test_storm_reports_a_violation_that_heals(
    cluster: Cluster, storm_database: str, tmp_path: Path
) -> None:
    """[P8] A control: invariants are checked after each fault, or after every few; the calm does
    not show this violation."""
    url = cluster.url(storm_database)
    broken = ["a wedge"]
    storm = Storm("harness", cluster, url, url, tmp_path, looks=lambda _: broken)
    storm.blow(Faults({"crash": lambda _: None}, (0.0, 0.0)), 2)
    storm.blow(Faults({"cut": lambda _: None}, (0.0, 0.0), each=3), 8)
    broken.clear()
    storm.look("in the calm")
    storm.history.close()
    assert storm.wind.wrong == 2 * ["after crash: a wedge"] + 2 * ["after cut: a wedge"]


class Careless(Caller):
    """A caller that repeats a call without an answer under another key, as if it were new."""

    def key_of(self, key: str, tries: int) -> str:
        """Return another key each time."""
        self._last = f"{key} {tries}" if tries else key
        return self._last

    def note(self, job: str, key: str | None, *event: Any, **told: Any) -> None:
        """Record an event under the key that was answered."""
        super().note(job, key and self._last, *event, **told)


def violations_after_writes(caller: Caller, through: Proxy, look: Session) -> list[str]:
    """Let a caller write while replies are lost; return the violations."""
    through.lose_replies(10)
    for number in range(60):
        caller.write(JOBS[0], any_command(caller.chance, 0), f"{caller.name} {number}")
    return broken_memories(look, [caller])


@pytest.mark.parametrize("kind", [Caller, Careless])
def test_checker_finds_commands_that_were_applied_twice(
    kind: type[Caller], wind: Wind, proxy: Through, look: Session
) -> None:
    """[P2] A control: a caller that repeats under the same key applies nothing twice; one that uses
    other keys is found."""
    with closing(kind(1, wind, random.Random(1))) as caller:
        wrong = violations_after_writes(caller, proxy[0], look)
    assert proxy[0].lost == 10
    assert (wrong == []) == (kind is Caller)
    unknown = [operation.unknown for operation in wind.history.operations()]
    assert sum(unknown) == 10


LOSSES: dict[str, str] = {
    "a command is lost": "delete from journal where job_id = 'hot 0' and version = 3",
    "a document is lost": "update jobs set context = '{}', version = version",
    "the last command is lost": """
        with lost as (delete from journal as f using jobs as j
                       where f.job_id = j.id and f.version = j.version
                   returning j.id, j.version, f.op)
        update jobs as j set version = lost.version - 1 from lost where j.id = lost.id""",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_checker_finds_commands_that_were_lost(
    loss: str, wind: Wind, proxy: Through, look: Session
) -> None:
    """[P3] A control: the owner of the tables takes acknowledged commands away."""
    with closing(Caller(1, wind, random.Random(1))) as caller:
        assert violations_after_writes(caller, proxy[0], look) == []
    look.run("alter table jobs disable trigger user")
    look.run(LOSSES[loss])
    assert broken_memories(look, [caller]) != []


DAMAGES: dict[str, list[str]] = {
    "an index lacks a row": [
        "create table t (id integer constraint i primary key)",
        "update pg_index set indisready = false where indexrelid = 'i'::regclass",
        "insert into t values (1)",
        "update pg_index set indisready = true where indexrelid = 'i'::regclass",
    ],
    "a table has an older row than it says": [
        "create table t as select 1",
        "update pg_class set relfrozenxid = pg_current_xact_id()::xid where oid = 't'::regclass",
    ],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_of_tables_and_indexes_is_found(kind: str, look: Session) -> None:
    """(T7) A control of the check after each storm."""
    if not can_be_seen(look.connection):
        pytest.skip("the server has no amcheck: pages are not looked at")
    assert damage(look.connection) == []
    look.run("set search_path = public, pg_catalog")
    for statement in DAMAGES[kind]:
        look.run(statement)
    assert len(damage(look.connection)) == 1
