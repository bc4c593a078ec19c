"""Schedules, from Python and with real workers: each due time starts one job. [P1]"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import perdure
from perdure.basics.durations import Duration
from tests.amount import seed
from tests.worker.processes import worker_process

Connection = psycopg.Connection[Any]

NEVER = "0 0 29 2 *"
"""A cron expression that does not become due during a test."""


def make_workflow(app: perdure.App) -> perdure.Coordinator[..., Any]:
    @app.coordinator(entity="report", queue="reports")
    async def report(memory: perdure.AsyncEntity, topic: str, pages: int = 1) -> Any:
        return [topic, pages, perdure.info().headers]

    return report


def test_schedule_is_created_listed_paused_resumed_and_dropped(
    client: perdure.Client, app: perdure.App
) -> None:
    report = make_workflow(app)

    due_at = client.create_schedule(
        report, "30 9 * * mon-fri", args=["wind"], time_zone="Europe/Berlin", headers={"tenant": 1}
    )

    assert due_at is not None
    assert due_at > datetime.now(UTC)
    (schedule,) = client.schedules()
    assert (schedule.name, schedule.workflow, schedule.cron) == (
        "report",
        "report",
        "30 9 * * mon-fri",
    )
    assert (schedule.time_zone, schedule.next_due_at) == ("Europe/Berlin", due_at)
    assert (schedule.catch_up, schedule.overlap, schedule.last_job) == ("last", "allow", None)
    memory = client.entity("$schedule/report").get()
    assert memory["queue"] == "reports"
    assert memory["entity"] == "report"
    assert memory["args"] == ["wind"]

    assert client.pause_schedule("report")
    assert not client.pause_schedule("report")
    (paused,) = client.schedules()
    assert (paused.paused, paused.next_due_at) == (True, None)
    assert client.resume_schedule("report")
    assert client.drop_schedule("report")
    assert not client.drop_schedule("report")
    assert client.schedules() == []


def test_backfill_starts_each_past_due_time_once(client: perdure.Client) -> None:
    """[P1] Also those that another call has started, and with the priority that is asked for."""
    new_year = datetime(2026, 1, 1, tzinfo=UTC)
    client.create_schedule("w", "@daily", name="daily", starts_at=new_year)
    second = client.backfill_schedule("daily", new_year.replace(day=2), new_year.replace(day=3))
    assert [(job.id, job.is_new) for job in second] == [("daily/2026-01-02T00:00:00Z", True)]
    jobs = client.backfill_schedule("daily", new_year, new_year.replace(day=4), priority=None)
    assert [(job.id[-20:-10], job.is_new) for job in jobs] == [
        ("2026-01-01", True),
        ("2026-01-02", False),
        ("2026-01-03", True),
    ]
    client.create_schedule("w", "* * * * *", name="daily", starts_at=new_year)
    with pytest.raises(perdure.InvalidArgument, match="more than 10000 times"):
        client.backfill_schedule("daily", new_year)


@pytest.mark.parametrize(("given", "want"), [({}, 3600), ({"timeout": "1 min"}, 60)])
def test_scheduled_job_has_the_timeout_of_its_workflow_or_schedule(
    app: perdure.App, client: perdure.Client, dsn: str, given: Any, want: int
) -> None:
    @app.coordinator(timeout="1 h")
    async def report(memory: perdure.AsyncEntity) -> None:
        pass

    client.create_schedule(report, NEVER, **given)
    handle = client.trigger_schedule("report")
    with psycopg.connect(dsn) as connection:
        query = "select timeout from perdure.jobs where id = %s"
        assert connection.execute(query, [handle.id]).fetchall() == [(timedelta(seconds=want),)]


@pytest.mark.parametrize("given", [{}, {"pinned_version": "2"}, {"pinned_version": None}])
def test_schedule_of_a_pinned_workflow_keeps_its_version(
    client: perdure.Client, dsn: str, given: Any
) -> None:
    """(E16) Workers of other versions leave its jobs alone, unless the schedule pins no version."""
    wanted = given.get("pinned_version", "1")
    apps = [perdure.App(version=number) for number in ("1", "2")]
    for app in apps:

        @app.coordinator(pinned=True)
        async def report(memory: perdure.AsyncEntity, version: str | None = app.version) -> Any:
            return version

    (first, second) = (app.coordinators["report"] for app in apps)
    client.create_schedule(first, NEVER, **given)
    handle = client.trigger_schedule("report")
    with perdure.Worker(apps[0], dsn=dsn), perdure.Worker(apps[1], dsn=dsn):
        assert handle.result(timeout=30) in ([wanted] if wanted else ["1", "2"])
        client.create_schedule(second, NEVER)  # as a deployment of the next version does
        assert client.trigger_schedule("report").result(timeout=30) == "2"


async def async_verbs(dsn: str) -> list[perdure.Schedule]:
    async with await perdure.connect_async(dsn) as client:
        starts_at = datetime(2100, 1, 1, tzinfo=UTC)
        due_at = await client.create_schedule(
            "w", every="1 month", name="monthly", args={"topic": "wind"}, starts_at=starts_at
        )
        assert due_at == starts_at
        assert await client.pause_schedule("monthly")
        assert await client.resume_schedule("monthly")
        handle = await client.trigger_schedule("monthly", key="k")
        assert handle.id == "monthly/now-k"
        jobs = await client.backfill_schedule("monthly", starts_at, starts_at.replace(month=3))
        assert jobs == []  # these times are left to the schedule
        schedules = await client.schedules()
        assert await client.drop_schedule("monthly")
        return schedules


def test_async_client_has_all_verbs_of_schedules(dsn: str) -> None:
    import asyncio

    (schedule,) = asyncio.run(async_verbs(dsn))
    assert (schedule.every, schedule.cron, schedule.workflow) == ("1 mon", None, "w")


@pytest.mark.parametrize(
    ("every", "stored"),
    [
        (90, "00:01:30"),
        (timedelta(days=1), "24:00:00"),
        ("1 day", "1 day"),
        ("1 h 30 min", "01:30:00"),
        ("2 weeks", "14 days"),
        ("3 months", "3 mons"),
    ],
)
def test_every_accepts_seconds_timedeltas_and_text(
    client: perdure.Client, every: Duration, stored: str
) -> None:
    """A timedelta of one day is 24 hours; the text "1 day" is a day of the calendar."""
    client.create_schedule("w", every=every, starts_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert client.entity("$schedule/w").get("every") == stored


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cron": "every now and then"}, perdure.InvalidSchedule),
        ({"cron": NEVER, "every": 5}, perdure.InvalidSchedule),
        ({}, perdure.InvalidSchedule),
        ({"every": 0.5}, perdure.InvalidSchedule),
        ({"every": "soon"}, perdure.InvalidArgument),
        ({"cron": NEVER, "time_zone": "Mars"}, perdure.InvalidSchedule),
        ({"cron": NEVER, "starts_at": datetime(2100, 1, 1)}, perdure.InvalidArgument),  # noqa: DTZ001
        ({"cron": NEVER, "args": "wind"}, perdure.InvalidArgument),
        ({"cron": NEVER, "colour": "red"}, perdure.InvalidArgument),
        ({"cron": NEVER, "args": [float("nan")]}, perdure.InvalidValue),
        ({"cron": NEVER, "name": ""}, perdure.InvalidName),
        ({"cron": NEVER, "name": "$own"}, perdure.InvalidName),
    ],
)
def test_create_schedule_rejects_invalid_arguments(
    client: perdure.Client, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.create_schedule("w", **options)
    assert client.schedules() == []


def test_verbs_on_a_missing_schedule_raise_schedule_not_found(client: perdure.Client) -> None:
    for verb in (client.pause_schedule, client.resume_schedule, client.trigger_schedule):
        with pytest.raises(perdure.ScheduleNotFound) as raised:
            verb("nothing")
        assert isinstance(raised.value, LookupError)


def test_schedule_joins_the_callers_transaction(
    client: perdure.Client, connection: Connection
) -> None:
    """[P1] It commits or rolls back with that transaction."""
    with connection.transaction(force_rollback=True):
        client.create_schedule("w", NEVER, connection=connection)
    assert client.schedules() == []
    with connection.transaction():
        client.create_schedule("w", NEVER, connection=connection)
    assert [schedule.name for schedule in client.schedules()] == ["w"]


def test_idle_worker_starts_and_runs_scheduled_jobs(
    client: perdure.Client, app: perdure.App, work: Callable[..., perdure.Worker]
) -> None:
    """(E14) The worker wakes at each due time, and the headers of the job contain it."""
    report = make_workflow(app)
    work(poll=60)  # so long that only the due time wakes it

    due_at = client.create_schedule(report, every="1 s", args=["wind", 2])

    assert due_at is not None
    for n in range(3):
        place = f"{due_at + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}"
        wait_for(partial(client.count, "report", {"$id": f"report/{place}"}))
        headers = {"schedule": "report", "due_at": place}
        assert client.handle(f"report/{place}").result("20 s") == ["wind", 2, headers]
    client.drop_schedule("report")


@pytest.mark.direct("a hint wakes it")
def test_edited_memory_of_a_schedule_wakes_an_idle_worker(
    client: perdure.Client,
    connection: Connection,
    app: perdure.App,
    work: Callable[..., perdure.Worker],
) -> None:
    """A new cron expression takes effect at once."""
    report = make_workflow(app)
    client.create_schedule(report, NEVER, args=["wind"])
    work(poll=60)
    wait_until_idle(connection)
    before = client.schedules()[0].next_due_at

    client.entity("$schedule/report").set("0 0 1 1 *", "cron")

    wait_for(lambda: client.schedules()[0].next_due_at != before)
    due_at = client.schedules()[0].next_due_at
    assert due_at is not None
    assert (due_at.month, due_at.day) == (1, 1)


@pytest.mark.direct("a hint wakes it")
def test_resumed_schedule_that_was_stuck_wakes_an_idle_worker(
    client: perdure.Client,
    connection: Connection,
    app: perdure.App,
    work: Callable[..., perdure.Worker],
) -> None:
    """A schedule is stuck if it has killed one worker after the other."""
    stick = "update tasks set stuck_reason = '{}', due_at = 'infinity' where name = '$schedule'"
    client.create_schedule("elsewhere", every="1 s", queue="nobody")
    connection.execute(stick)
    work(poll=60)
    wait_until_idle(connection)

    assert not client.resume_schedule("elsewhere")

    wait_for(lambda: client.schedules()[0].last_job is not None)
    client.drop_schedule("elsewhere")


def test_tick_that_waited_for_a_lock_is_followed_by_the_next(
    client: perdure.Client,
    connection: Connection,
    app: perdure.App,
    work: Callable[..., perdure.Worker],
) -> None:
    """(E14) The worker looks for work when the tick has ended, not at the end of its lease."""
    held = "select count(*) from tasks where name = '$schedule' and token is not null"
    started = "select count(*) from jobs where workflow = 'elsewhere'"
    client.create_schedule("elsewhere", every="1 s", queue="nobody")
    with connection.transaction():
        connection.execute("select from jobs where entity = '$schedule' for update")
        work(poll=60, lease=60)
        wait_for(lambda: connection.execute(held).fetchone() == (1,))
        time.sleep(0.5)  # until the worker has found no other work and sleeps
    wait_for(lambda: (connection.execute(started).fetchone() or (0,))[0] >= 3)
    client.drop_schedule("elsewhere")


def wait_until_idle(connection: Connection) -> None:
    """Wait until the worker listens for work and has looked for it once more."""
    idle = "select count(*) > 0 from listeners where topic = '$sql'"
    wait_for(lambda: connection.execute(idle).fetchone() == (True,))
    time.sleep(0.5)


def wait_for(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_second_starts_one_job_while_workers_are_killed(
    client: perdure.Client, connection: Connection, dsn: str
) -> None:
    """[P1] [P7] [P12] (E14) Another worker completes what a killed worker has begun."""
    chance = random.Random(seed())
    since = datetime.now(UTC)
    client.create_schedule("trivial", every="1 s", args=[1], catch_up="all")

    for point in ("committer: after claim", None, "committer: after claim", None):
        with (
            worker_process(dsn, lease=0.5),
            worker_process(dsn, lease=0.5, crash_at=point and f"{point}:3"),
        ):
            time.sleep(chance.uniform(1.5, 3))  # then both are killed, whatever they do
    with worker_process(dsn, lease=0.5):
        until = datetime.now(UTC)
        wait_for(lambda: is_up_to_date(client, until))
        client.pause_schedule("trivial")

    query = "select headers ->> 'due_at' from jobs where workflow = 'trivial' order by 1"
    times = [datetime.fromisoformat(row[0]) for row in connection.execute(query)]
    second = timedelta(seconds=1)
    assert times == [times[0] + n * second for n in range(len(times))]
    assert times[0] <= since + 2 * second
    assert times[-1] >= until.replace(microsecond=0) - second


def is_up_to_date(client: perdure.Client, until: datetime) -> bool:
    due_at = client.schedules()[0].next_due_at
    return due_at is not None and due_at > until


@pytest.mark.parametrize("kind", ["coordinator", "hook", "activity"])
def test_a_job_without_headers_has_empty_ones(
    app: perdure.App, client: perdure.Client, work: Any, kind: str
) -> None:
    """What read its due time there failed when a person or a test started it by hand."""

    def due() -> Any:
        return perdure.info().headers.get("due_at", "at once")

    @app.activity(queue="default")
    async def activity() -> Any:
        return due()

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> Any:
        return due()

    @app.coordinator
    async def nightly(memory: perdure.AsyncEntity) -> Any:
        if kind == "coordinator":
            return due()
        return await (hook(memory) if kind == "hook" else activity())

    work()
    assert client.start(nightly).result(timeout=40) == "at once"
