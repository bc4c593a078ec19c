"""Storms under load. PERDURE_TEST_AMOUNT makes them longer, PERDURE_RACE_SEED repeats one."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import perdure
from tests.amount import amount
from tests.cluster.poolers import pooler
from tests.databases import connected
from tests.races.sessions import Session, Stage, together
from tests.races.test_deadlocks import Chaos
from tests.storms.cluster import Cluster
from tests.storms.faulty import FAULTS, Driver
from tests.storms.load import BOUND
from tests.storms.points import ANY, ORDERLY, POINTS, Fuse, burnt, points_in_code, worker_points
from tests.storms.proxy import Proxy
from tests.storms.storm import Faults, Storm
from tests.storms.storm_app import app
from tests.storms.workers import LEASE

Brew = Callable[..., Storm]
MANY = 100


def test_list_of_crash_points_is_complete_and_unique() -> None:
    """(T5) The list of the sweeps is that of the source, and no name is used at two places, as a
    sweep would reach only one of them."""
    assert sorted(points_in_code()) == sorted(POINTS)


def test_ended_cancelled_and_limited_sessions_break_no_promise(
    brewing: Brew, cluster: Cluster, storm_database: str
) -> None:
    """[P1] [P2] [P3] [P5] [P12] (T6) Sessions end, and statements are cancelled or reach short
    limits."""
    storm = brewing("T6 sessions")

    def limit(chance: random.Random) -> None:
        cluster.limit_sessions(
            storm_database,
            statement_timeout=f"{chance.randint(2, 50)}ms" if chance.random() < 0.5 else "",
            lock_timeout=f"{chance.randint(1, 20)}ms" if chance.random() < 0.5 else "",
        )
        cluster.end_sessions(chance, 0.3)

    deeds = {
        "terminate": lambda chance: cluster.end_sessions(chance, 0.3),
        "cancel": lambda chance: cluster.cancel_statements(chance, 0.7),
        "limit": limit,
    }
    with storm.crew(2), storm.load():
        storm.blow(Faults(deeds, (0.02, 0.1), each=10), amount(20))
        cluster.limit_sessions(storm_database, statement_timeout="", lock_timeout="")
        cluster.end_sessions(random.Random(0), 1.0)
    assert storm.judge() == []


def test_faults_behind_a_pooler_break_no_promise(
    brewing: Brew, cluster: Cluster, storm_database: str
) -> None:
    """[P1] [P4] [P5] [P11] [P12] (T14) Five sessions of the server serve all clients in any order,
    without notifications. Connections to the server end, statements are cancelled, workers die."""
    with pooler(cluster.server.url()) as entrance:
        # Settings that callers make in their sessions would reach other clients.
        storm = brewing("T14 storm", entrance.url(storm_database), callers=0)
        with storm.crew(2) as crew, storm.load():
            deeds: dict[str, Callable[[random.Random], object]] = {
                "terminate": lambda chance: cluster.end_sessions(chance, 0.3),
                "cancel": lambda chance: cluster.cancel_statements(chance, 0.7),
                "kill a worker": crew.kill,
                "retire a worker": crew.retire,
            }
            storm.blow(Faults(deeds, (0.05, 0.2), each=5), amount(15))
        assert storm.judge() == []


def test_crashes_of_the_server_lose_nothing_acknowledged(brewing: Brew, cluster: Cluster) -> None:
    """[P1] [P2] [P3] [P5] [P12] [P13] (T7) The server is stopped on the spot, the postmaster or a
    backend is killed by `kill -9`, and the checkpointer or the walwriter stops for a while."""
    storm = brewing("T7 server")
    deeds: dict[str, Callable[[random.Random], object]] = {
        "crash": lambda _: cluster.crash(),
        "kill the postmaster": lambda _: cluster.kill(),
        "kill a backend": cluster.kill_backend,
        "stop the checkpointer": lambda _: cluster.stop_process("checkpointer", 0.3),
        "stop the walwriter": lambda _: cluster.stop_process("walwriter", 0.3),
    }
    with storm.crew(2), storm.load():
        storm.blow(Faults(deeds, (0.1, 0.5)), amount(5))
    assert storm.judge() == []


def test_faults_of_the_network_break_no_promise(brewing: Brew, proxy: tuple[Proxy, str]) -> None:
    """[P1] [P2] [P5] [P12] (T8) Connections are cut, delayed and swallowed, and replies to
    committed calls are lost."""
    through, dsn = proxy
    storm = brewing("T8 network", dsn)

    def hold_up(chance: random.Random) -> None:
        through.delay(chance.uniform(0.005, 0.05))
        time.sleep(0.3)
        through.heal()

    def slice_(chance: random.Random) -> None:
        through.slice(True)
        time.sleep(0.1)
        through.heal()

    def swallow(chance: random.Random) -> None:
        through.swallow()
        time.sleep(chance.uniform(0.1, 2 * LEASE))
        through.heal()

    lose: Callable[[random.Random], object] = lambda chance: through.lose_replies(  # noqa: E731
        chance.randint(1, 20)
    )
    deeds: dict[str, Callable[[random.Random], object]] = {
        "cut": lambda chance: through.cut(chance, 0.5),
        "hold up": hold_up,
        "slice": slice_,
        "swallow": swallow,
        "lose replies": lose,
        "lose more replies": lose,
    }
    with storm.crew(2), storm.load():
        storm.blow(Faults(deeds, (0.02, 0.1)), amount(12))
        through.lose_replies(3)  # chance may never have drawn this, or only without calls
        until = time.monotonic() + BOUND
        while not through.lost and time.monotonic() < until:
            time.sleep(0.01)
        through.heal()
    storm.figures.faults += through.lost
    assert storm.judge() == []
    assert through.lost > 0


def test_workers_are_killed_at_every_crash_point(brewing: Brew, tmp_path: Path) -> None:
    """[P4] [P5] [P6] [P8] [P9] (T5) Each crash point of the code kills a worker under load."""
    storm = brewing("T5 workers")
    points = worker_points()
    fuses = [Fuse(point) for point in amount(1) * sorted(ORDERLY)]
    fuses += amount(1) * len(points - ORDERLY) * [Fuse(ANY, workers=amount(1))]
    storm.random("fuses").shuffle(fuses)
    with storm.crew(4, fuses), storm.load():
        until = time.monotonic() + amount(1) * BOUND
        while time.monotonic() < until and len(burnt(tmp_path)) < amount(1) * len(points):
            time.sleep(0.02)
    storm.figures.faults += len(burnt(tmp_path))
    assert storm.judge() == []
    assert points - set(burnt(tmp_path)) == set(), "points that no worker reached"


def test_zombie_that_wakes_at_any_point_changes_no_row(
    brewing: Brew, tmp_path: Path, cluster: Cluster, storm_database: str
) -> None:
    """[P6] (T10) At each point a worker is stopped until others have done everything.

    In a user's transaction it holds the user's locks, which a limit of the server ends.
    """
    cluster.limit_sessions(storm_database, idle_in_transaction_session_timeout=f"{2 * LEASE}s")
    storm = brewing("T10 points")
    points = worker_points() - ORDERLY
    fuses = len(points) * [Fuse(ANY, signal=signal.SIGSTOP)]
    with storm.crew(len(fuses) + 1, fuses) as crew, connected(storm.direct) as connection:
        with storm.load():
            until = time.monotonic() + BOUND
            while time.monotonic() < until and set(burnt(tmp_path)) != points:
                time.sleep(0.02)
        assert storm.wind.wrong == []
        look = Session(connection, connection, "storm")
        while look.one("select count(*) from tasks"):  # of hooks that clean up
            assert storm.wind.seconds_left() > 0
            time.sleep(0.02)
        before = look.everything()
        crew.wake()
        time.sleep(LEASE)
        assert look.everything() == before
    assert storm.late_turns() > 0, "no zombie has tried to change a row"
    storm.figures.faults += len(burnt(tmp_path))
    assert storm.judge() == []
    assert points - set(burnt(tmp_path)) == set(), "points that no worker reached"


def test_zombies_across_leases_and_parks_have_no_effect(brewing: Brew) -> None:
    """[P6] (T10) Workers are stopped for longer than their leases, and then continue."""
    storm = brewing("T10 zombies")
    with storm.crew(4) as crew, storm.load():

        def stop(chance: random.Random) -> None:
            crew.stop(chance, chance.uniform(0.5, 2) * LEASE)

        deeds: dict[str, Callable[[random.Random], object]] = {
            "stop": stop,
            "kill": crew.kill,
            "retire": crew.retire,
        }
        storm.blow(Faults(deeds, (0.1, 0.4)), amount(8))
        for more in range(MANY):  # chance may have stopped no holder of a task
            if storm.late_turns():
                break
            chance = storm.random(f"more {more}")
            storm.blow(Faults({"stop": lambda _, chance=chance: stop(chance)}, (0.1, 0.4)), 1)
    assert storm.judge() == []
    assert storm.late_turns() > 0, "no zombie has tried to change anything"


def test_random_calls_cause_no_deadlock(brewing: Brew) -> None:
    """[P3] [P5] [P8] (T16) With a deadlock_timeout of 10 ms and no faults, four sessions make
    random calls on the same tasks, in batches, beside workers and clients."""
    storm = brewing(
        "T16 deadlocks", customers=6, avoid=frozenset({"sums"})
    )  # the random calls end children
    jobs = [f"q {number}" for number in range(8)]
    with storm.crew(2), storm.load(), ExitStack() as stack:
        stage = Stage(lambda: stack.enter_context(connected(storm.direct)), patience=BOUND)
        sessions = stage.sessions(4)
        for job in jobs:
            sessions[0].start(job, queue="q")
        chaos = [Chaos(session, jobs, storm.random(session.name)) for session in sessions]
        seen = together(*(partial(each.run, amount(15)) for each in chaos), patience=amount(60))
    storm.figures.operations += sum(seen, Counter()).total()
    assert storm.judge() == []


def test_faults_of_the_driver_break_no_promise(brewing: Brew) -> None:
    """[P1] [P2] [P4] [P5] [P12] (T9) The driver of a worker and a client in this process fails,
    times out and loses answers. `make faults` applies it to other tests."""
    storm = brewing("T9 driver")
    driver = Driver(0.05, storm.random("driver"))
    with driver.in_place(), perdure.Worker(app, dsn=storm.dsn, lease=LEASE, poll=1), storm.load():
        time.sleep(amount(2))
    storm.figures.faults += driver.done.total() - driver.done["statements"]
    assert storm.judge() == []
    assert all(driver.done[fault] for fault in FAULTS)
