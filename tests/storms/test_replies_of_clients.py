"""The Python client loses the reply of each of its verbs, after the commit. [P12]

It repeats the call by itself. The verb returns what it returns without a lost reply, and is
executed once. The same in SQL: `tests/races/test_lost_replies.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure
from tests.databases import connected
from tests.races.sessions import Session
from tests.storms.cluster import Cluster
from tests.storms.proxy import Proxy, proxy_to

Verb = Callable[[perdure.Client, str], Any]

ADD = {"op": "increment", "path": "n", "value": 1}

# Each is called on a running job whose memory is {"n": 1, "list": [1, 2]}.
VERBS: dict[str, Verb] = {
    "start": lambda client, job: client.start("w", id=f"{job} new").id[len(job) :],
    "start_many": lambda client, job: len(client.start_many("w", [{"id": f"{job} 1"}, {}])),
    "signal": lambda client, job: client.handle(job).signal("go", 1),
    "signal_with_start": lambda client, job: client.signal_with_start("w", job, "go", 1).id == job,
    "hook": lambda client, job: client.handle(job).hook("h", key="k"),
    "fork": lambda client, job: client.fork(job, f"{job} fork").id[len(job) :],
    "create_entity": lambda client, job: client.create_entity(f"{job} e", "e", {"a": 1}).get(),
    "set": lambda client, job: client.entity(job).set(2, "n"),
    "merge": lambda client, job: client.entity(job).merge({"n": {"x": 1}}),
    "append": lambda client, job: client.entity(job).append("list", 3),
    "prepend": lambda client, job: client.entity(job).prepend("list", 0),
    "remove": lambda client, job: client.entity(job).remove("list", 0),
    "increment": lambda client, job: client.entity(job).increment("n", 5),
    "toggle": lambda client, job: client.entity(job).toggle("flag"),
    "set_if_not_exists": lambda client, job: client.entity(job).set_if_not_exists("m", 1),
    "delete": lambda client, job: client.entity(job).delete("n"),
    "log": lambda client, job: client.entity(job).log("log", "line"),
    "expected_version": lambda client, job: client.entity(job).set(2, "n", expected_version=1),
    "apply": lambda client, job: client.entity(job).apply([ADD]),
    "restore": lambda client, job: client.entity(job).restore(0),
    "retry": lambda client, job: client.handle(f"{job} ended").retry(),
}

# These have no key: they return the answer of the second call.
WITHOUT_KEY: dict[str, Verb] = {
    "cancel": lambda client, job: client.handle(job).cancel("enough"),
    "terminate": lambda client, job: client.handle(job).terminate("enough"),
    "pause": lambda client, job: client.handle(job).pause(),
    "resume": lambda client, job: client.handle(f"{job} paused").resume(),
    "forget": lambda client, job: client.forget(f"{job} ended"),
}


@pytest.fixture(scope="module")
def lossy(cluster: Cluster, shared_database: str) -> Iterator[tuple[Proxy, perdure.Client]]:
    """Provide a proxy, and a client that is connected through it."""
    dsn = cluster.server.url(shared_database)
    with proxy_to(dsn) as (proxy, cut), perdure.connect(cut) as client:
        yield proxy, client


@pytest.fixture(scope="module")
def look(cluster: Cluster, shared_database: str) -> Iterator[Session]:
    """Provide an undisturbed session."""
    with connected(cluster.url(shared_database)) as connection:
        yield Session(connection, connection, "storm")


def left(look: Session, job: str) -> list[Any]:
    """Return the rows that a verb may leave."""
    return look.run(
        """select substr(j.id, 1 + length(%s)), j.context, j.version, j.status,
                  (select count(*) from tasks as t where t.job_id = j.id),
                  (select count(*) from journal as f where f.job_id = j.id),
                  (select count(*) from inbox as i where i.job_id = j.id)
             from jobs as j where starts_with(j.id, %s) order by j.id""",
        job, job,
    )  # fmt: skip


def asked(name: str, verb: Verb, proxy: Proxy, client: perdure.Client) -> tuple[Any, Any]:
    """Call a verb on one job, and with a lost reply on an equal one."""
    before = proxy.lost
    for job in (f"told {name}", f"lost {name}"):
        client.start("w", id=job, context={"n": 1, "list": [1, 2]})
        client.start("w", id=f"{job} paused")
        client.handle(f"{job} paused").pause()
        client.start("w", id=f"{job} ended")
        client.handle(f"{job} ended").terminate()
    told = verb(client, f"told {name}")
    proxy.lose_replies(1)
    lost = verb(client, f"lost {name}")
    assert proxy.lost == before + 1
    return told, lost


@pytest.mark.parametrize("verb", VERBS)
def test_verb_with_a_lost_reply_returns_the_same_answer(
    verb: str, lossy: tuple[Proxy, perdure.Client], look: Session
) -> None:
    """[P1] [P2] [P5] [P12] (T8) Answer and rows are the same as without the loss."""
    told, lost = asked(verb, VERBS[verb], *lossy)
    assert lost == told
    assert left(look, f"lost {verb}") == left(look, f"told {verb}")


@pytest.mark.parametrize("verb", WITHOUT_KEY)
def test_verb_without_a_key_is_executed_once_and_returns_nothing_left(
    verb: str, lossy: tuple[Proxy, perdure.Client], look: Session
) -> None:
    """[P12] (T8) The rows are the same as without the loss; the answer is that of the second
    call."""
    told, lost = asked(verb, WITHOUT_KEY[verb], *lossy)
    assert (bool(told), bool(lost)) == (True, False)
    assert left(look, f"lost {verb}") == left(look, f"told {verb}")


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_short_wait_is_repeated_on_a_new_connection(
    lossy: tuple[Proxy, perdure.Client], timeout: float
) -> None:
    """[P12] A wait with a short timeout succeeds although the connection of the last wait is
    broken."""
    proxy, client = lossy
    handle = client.start("w", id=f"looked at for {timeout} s", context={"n": 1})
    assert handle.memory.until("$.n == 1", timeout) == 1
    proxy.cut(random.Random(0), 1.0)
    assert handle.memory.until("$.n == 1", timeout) == 1
    proxy.cut(random.Random(0), 1.0)
    with pytest.raises(perdure.ResultTimeout):
        handle.result(timeout)
