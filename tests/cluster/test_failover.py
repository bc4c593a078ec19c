"""(T13) Failover: the primary dies, a standby takes over, and workers and clients continue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack

import perdure
from tests.amount import amount
from tests.cluster.load import BOOK, PAGES, Load, T
from tests.cluster.machines import Machine, dsn_of, wait_for
from tests.storms.figures import Figures
from tests.worker.processes import worker_process

CALLS = 50
LEADERLESS = 0.5
"""Seconds with only a standby, which takes no writes."""

QUICK = json.dumps({"poll": 0.2})


def be_synchronous(primary: Machine) -> None:
    """Acknowledge only commits that the standby has."""
    with primary.connect() as connection:
        connection.execute("alter system set synchronous_standby_names = '*'")
        connection.execute("select pg_reload_conf()")
        followed = "select from pg_stat_replication where sync_state = 'sync'"
        wait_for(lambda: connection.execute(followed).rowcount == 1)


def test_failover_to_a_synchronous_standby_loses_nothing_acknowledged(
    machines: Callable[..., Machine],
    primary: Machine,
    standby: Machine,
    figures: Callable[..., Figures],
) -> None:
    """[P1] [P12] (T34) Workers and clients find the new primary by themselves, with the hosts in
    their DSN."""
    dsn = dsn_of([primary, standby])
    old, new, row = primary, standby, figures("T13 failover")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker_process(dsn, lease=2, WORKER=QUICK)) for _ in range(2)
        ]
        primary.await_workers(2)
        load = stack.enter_context(Load(dsn))
        for turn in range(amount(1)):
            if turn > 0:
                new.forget_data()
                old.copy_to(new)
            be_synchronous(old)
            load.go_on(CALLS)
            old.kill()
            time.sleep(LEADERLESS)
            new.promote()
            new.check()
            load.go_on(CALLS)
            old, new = new, old
            row.faults += 1
        load.stop()
        load.tell(row)
        with perdure.connect(dsn, provision=False) as client:
            load.check(client)
        assert [worker.poll() for worker in workers] == [None, None]
    old.check()


def test_failover_to_a_lagging_standby_does_repeated_calls_once(
    machines: Callable[..., Machine], primary: Machine, standby: Machine
) -> None:
    """[P2] [P6] [P12] Calls of the lost part that are repeated by key are done once; tokens of the
    lost part are refused."""
    dsn = dsn_of([primary, standby])

    def ask(client: perdure.Client) -> None:
        for n in range(20):
            client.start("book", PAGES, id=f"asked {n}", key=f"asked {n}")
            client.entity("tally").increment("n", key=f"tally {n}")

    with ExitStack() as stack:
        client = stack.enter_context(perdure.connect(dsn, provision=False))
        for _ in range(2):
            stack.enter_context(worker_process(dsn, lease=1, WORKER=QUICK))
        primary.await_workers(2)
        client.create_entity("tally", "counter", {"n": 0})
        before = [client.start("book", PAGES, id=f"before {n}") for n in range(10)]
        client.start("trivial", 1, id="stolen", queue="nobody's")
        primary.lose_touch()
        ask(client)
        with primary.connect() as connection:
            claim = "select claim(array['nobody''s'], 'zombie') ->> 'token'"
            ((token,),) = connection.execute(claim).fetchall()
        before[0].result(T)
        primary.kill()
        standby.promote()
        standby.check()
        assert client.entity("tally").get("n") == 0
        turn = {"job": "stolen", "task": "1/main", "token": token, "position": 0}
        with standby.connect() as connection:
            for state in ("keep", "done"):
                advance = "select advance(%s) -> 'turns' -> 0 ->> 'state'"
                told = connection.execute(advance, [json.dumps([turn | {"state": state}])])
                assert told.fetchall() == [("fenced",)]
            kept = connection.execute("select extend(%s) -> 0 ->> 'state'", [json.dumps([turn])])
            assert kept.fetchall() == [("lost",)]
        ask(client)
        ask(client)
        assert client.entity("tally").get("n") == 20
        for handle in (*before, *(client.handle(f"asked {n}") for n in range(20))):
            assert handle.result(T) == BOOK
    standby.check()


def test_worker_of_the_old_primary_changes_nothing_on_the_new_one(
    machines: Callable[..., Machine], primary: Machine, standby: Machine
) -> None:
    """[P6] Two servers take writes, and each has a worker that ends the same jobs. Then the old
    server is gone, and its worker comes over with the tasks that it holds."""
    with ExitStack() as stack:
        old = stack.enter_context(perdure.connect(primary.url(), provision=False))
        books = [old.start("book", PAGES).id for _ in range(5)]
        slow = old.start("one_slow").id
        dsn = dsn_of([primary, standby])
        stack.enter_context(worker_process(dsn, lease=1, WORKER=QUICK, SLOW="2"))
        wait_for(lambda: old.handle(slow).memory.get() == {"log": ["begun"]})
        primary.lose_touch()
        standby.promote()
        new = stack.enter_context(perdure.connect(standby.url(), provision=False))
        for job in books:
            assert old.handle(job).result(T) == BOOK
            new.entity(job).set(True, "seen")
        stack.enter_context(worker_process(standby.url(), lease=1, WORKER=QUICK))
        assert new.handle(slow).result(T) == "slow"
        primary.kill()
        late = [new.start("book", PAGES).id for _ in range(5)]
        for job in books + late:
            assert new.handle(job).result(T) == BOOK
        assert new.handle(slow).memory.get("log") == ["begun", "done"]
        time.sleep(2.5)  # the code of the zombie has ended
        standby.check()
        assert new.handle(slow).status().status == "completed"
