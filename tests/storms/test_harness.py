"""The harness itself: the proxy does what it says, and the checkers find what is broken. (T32)"""

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
    """Give the weather of one caller."""
    history = History(tmp_path / "history")
    yield Wind(proxy[1], history)
    history.close()


@pytest.fixture
def look(cluster: Cluster, storm_database: str) -> Iterator[Session]:
    """Give a session that nothing disturbs, and the hot memories."""
    with connected(cluster.url(storm_database)) as connection:
        for job in JOBS:
            connection.execute("select entity_create(%s, 'hot')", [job])
        yield Session(connection, connection, "storm")


def test_a_lost_reply_is_lost_after_the_commit(proxy: Through, look: Session) -> None:
    """(T8): the statement was carried out; in a transaction only the end is lost."""
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


def test_nothing_comes_through_a_black_hole_and_much_through_slices(proxy: Through) -> None:
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
            hear_until_the_end(connection)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def hear_until_the_end(connection: psycopg.Connection[Any]) -> None:
    """Read what comes, until the connection breaks."""
    while True:
        connection.pgconn.consume_input()


def test_what_is_broken_after_a_fault_is_told_though_it_heals(
    cluster: Cluster, storm_database: str, tmp_path: Path
) -> None:
    """[P8]: a control. One looks after each fault, or each few; in the calm none of it is seen."""
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
    """A caller that repeats what it is not told of under another key, as if it were new."""

    def key_of(self, key: str, tries: int) -> str:
        """Give another key each time."""
        self._last = f"{key} {tries}" if tries else key
        return self._last

    def note(self, job: str, key: str | None, *event: Any, **told: Any) -> None:
        """Remember an event by the key that was answered."""
        super().note(job, key and self._last, *event, **told)


def written(caller: Caller, through: Proxy, look: Session) -> list[str]:
    """Let a caller write while replies are lost; gives what is wrong then."""
    through.lose_replies(10)
    for number in range(60):
        caller.write(JOBS[0], any_command(caller.chance, 0), f"{caller.name} {number}")
    return broken_memories(look, [caller])


@pytest.mark.parametrize("kind", [Caller, Careless])
def test_commands_that_are_done_twice_are_found(
    kind: type[Caller], wind: Wind, proxy: Through, look: Session
) -> None:
    """[P2]: a control. Who repeats under the same key does nothing twice; else it is noticed."""
    with closing(kind(1, wind, random.Random(1))) as caller:
        wrong = written(caller, proxy[0], look)
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
def test_commands_that_are_lost_are_found(
    loss: str, wind: Wind, proxy: Through, look: Session
) -> None:
    """[P3]: a control. What was acknowledged is taken away as the owner of the tables can."""
    with closing(Caller(1, wind, random.Random(1))) as caller:
        assert written(caller, proxy[0], look) == []
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
def test_tables_and_indexes_that_are_damaged_are_found(kind: str, look: Session) -> None:
    """(T7): a control of what is looked at after each storm."""
    if not can_be_seen(look.connection):
        pytest.skip("the server has no amcheck: pages are not looked at")
    assert damage(look.connection) == []
    look.run("set search_path = public, pg_catalog")
    for statement in DAMAGES[kind]:
        look.run(statement)
    assert len(damage(look.connection)) == 1
