"""Calls of workers: claims, turns, leases and journals; queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from perdure.basics.durations import as_interval
from perdure.basics.paths import parse_path
from perdure.errors import InvalidArgument

from . import unsealers
from .call import AppCalls, Call, to_text
from .sealing import check_size
from .unsealing import Unseal, Unsealer

PROTOCOL = 1
JOURNAL_PAGE = 10_000

COMMIT_WITHIN = "10 s"
"""How long a transaction that has recorded its result may keep others waiting for its commit."""

RESET = b"""
do $$
declare
    statement text;
begin
    reset all;
    reset session authorization;
    reset role;  -- to that of the connection string, if there is one
    execute 'close all';
    unlisten *;
    discard temp;
    discard sequences;
    for statement in select p.name from pg_catalog.pg_prepared_statements as p where p.from_sql loop
        execute pg_catalog.format('deallocate %I', statement);
    end loop;
    perform pg_catalog.pg_advisory_unlock_all();
end
$$"""

Task = dict[str, Any]
"""What names a held task in heartbeats and releases: `{"job", "task", "token"}`, perhaps with its
`progress`."""


class WorkerCalls(AppCalls):
    """The calls of the workers of one app."""

    def claim(self, **asked: Any) -> Call:
        """Claim due tasks.

        If the server crashes it may forget the claim, and the tasks are due again.
        """
        return self._repeatable("claim", Unsealer.claimed, durable=False, **asked)

    def sealable(self, value: Any) -> Any:
        """Return a value that can be sealed. Raises ValueTooLarge."""
        if self.codec is not None:
            check_size(value)
        return value

    def turn(self, body: Any, row: Task) -> str:
        """Write a turn of a claimed task for advance()."""
        return to_text(self._seal().turn(body, row))

    def advance(self, turns: str, bodies: Sequence[Any], **asked: Any) -> Call:
        """Send turns (a JSON array), and claim up to `max_tasks` tasks in the same round trip.

        `bodies` are those of which the turns were written; the other arguments are those of
        `claim()`.
        """

        def unseal(unsealer: Unsealer, reply: Any) -> Any:
            return unsealer.advanced(bodies, reply)

        if "max_tasks" in asked:
            return self._repeatable("advance", unseal, turns=turns, **asked)
        return self._unsealed(
            self._call("advance", turns=turns, **asked, protocol=PROTOCOL), unseal
        )

    def _repeatable(self, function: str, unseal: Unseal, **arguments: Any) -> Call:
        call = self._unsealed(self._call(function, **arguments, protocol=PROTOCOL), unseal)
        again = self._call(function, **arguments, protocol=PROTOCOL, again=True)
        return call._replace(again=self._unsealed(again, unseal))

    def extend(self, tasks: list[Task], lease_for: float) -> Call:
        """Renew leases."""
        sealed = self._leases(tasks)
        return self._call("extend", tasks=to_text(sealed), lease_for=as_interval(lease_for))

    def _leases(self, tasks: list[Task]) -> list[Task]:
        """Encrypt the progress of tasks."""
        if self.codec is None:
            return tasks
        seal = self._seal()
        return [
            task | {"progress": seal.progress(task)} if "progress" in task else task
            for task in tasks
        ]

    def release(self, tasks: list[Task]) -> Call:
        """Give leases back before their time."""
        return self._call("release", tasks=to_text(self._leases(tasks)))

    def publish(self, task: Task, stream: str, items: Any, key: str, source: str) -> Call:
        """Add items to a stream for a held task; returns the version."""
        sealed = self._seal(key).items(task["job"], parse_path(stream), items)
        given = {"stream": stream, "items": to_text(sealed), "key": key, "source": source}
        return self._call("publish", **task, **given)

    @staticmethod
    def transaction_began() -> Call:
        """Ask when the open transaction began, which tells it from any other."""
        return Call("now", b"select extract(epoch from now())::text", ())

    def record(self, turn: Any, row: Task, began: str) -> Call:
        """Send a turn as the last statement of the transaction that began then; else null.

        From here on rows are locked that others need, so a commit that does not come is given up.
        """
        query = (
            "select case when extract(epoch from now())::text = %s"
            f" and set_config('idle_in_transaction_session_timeout', '{COMMIT_WITHIN}', true) <> ''"
            f" then {self._quoted}.advance(turns => %s, waiting => true, protocol => %s) end"
        )
        params = began, f"[{self.turn(turn, row)}]", PROTOCOL
        unseals = self._unsealing(
            lambda unsealer, reply: reply and unsealer.advanced([turn], reply)
        )
        return Call("record", query.encode(), params, unseals=unseals)

    @staticmethod
    def reset() -> Call:
        """Undo what a session was left with: as `discard all`, but prepared statements stay."""
        return Call("reset", RESET, (), "rows")

    def run_task(self, job: str, task: str, token: str) -> Call:
        """Run a held task of the queue `$sql` in the database; returns what became of it."""
        return self._call("run_task", job=job, task=task, token=token)

    def time_out_task(self, job: str, task: str, token: str) -> Call:
        """Report that run_task() was given up as too slow; returns what became of the task."""
        return self._call("time_out_task", job=job, task=task, token=token)

    def read_journal(self, job: str, task: str, after: int) -> Call:
        """Read a page of what a task has been told."""
        call = self._call("read_journal", job=job, task=task, after=after, max_rows=JOURNAL_PAGE)
        return self._unsealed(call, partial(unsealers.journal, job, task))

    def running_coordinators(self, after: str, max_rows: int, workflow: str | None) -> Call:
        """Read a page of what replays of running jobs need; returns a row (json) for each."""
        query = f"select pg_catalog.to_jsonb(r) from {self._quoted}.running_coordinators"
        query = f"{query}(%s, %s, %s) as r"
        return Call("running_coordinators", query.encode(), (after, max_rows, workflow), "rows")

    def recording_of(self, job: str) -> Call:
        """Read what the replay of one job needs."""
        query = f"select pg_catalog.to_jsonb(r) from {self._quoted}.recording_of(%s) as r"
        return Call("recording_of", query.encode(), (job,))

    def adopt_instance(self, copied_at: datetime | None) -> Call:
        """Let a copy of the app execute; returns its new instance."""
        return self._call("adopt_instance", copied_at=copied_at)

    def register_worker(self, worker: str, details: dict[str, Any], **more: Any) -> Call:
        """Register a worker; returns {"instance", "version", "at", "queues"}."""
        known = {"worker": worker, "details": to_text(details), "protocol": PROTOCOL}
        return self._call("register_worker", **known, **more)

    def has_worker(self, queue: str, version: str | None, kind: str, name: str) -> Call:
        """Ask whether some worker serves a queue and version, and has a function."""
        query = f"select {self._quoted}.has_worker(%s, %s, %s, %s)"
        return Call("has_worker", query.encode(), (queue, version, kind, name))

    def served_queues(self, queues: list[str], version: str | None) -> Call:
        """Name the queues that a worker of a version claims from."""
        query = f"select {self._quoted}.served_queues(%s, %s)"
        return Call("served_queues", query.encode(), (queues, version))

    def forget_worker(self, worker: str) -> Call:
        """Unregister a worker."""
        return self._call("forget_worker", worker=worker)

    # Queues.
    def set_queue(self, queue: str, rates: Mapping[str, Any], **limits: Any) -> Call:
        """Limit a queue; a limit that is None is removed."""
        limits |= {name: _number(name, rate) for name, rate in rates.items()}
        return self._call("set_queue", queue=queue, **limits).reading(lambda _: None)

    def pause_queue(self, queue: str) -> Call:
        """Keep the tasks of a queue from workers."""
        return self._call("pause_queue", queue=queue)

    def resume_queue(self, queue: str) -> Call:
        """Give the tasks of a queue to workers again."""
        return self._call("resume_queue", queue=queue)

    def queue_depths(self, queue: str | None) -> Call:
        """Count the tasks of each queue, or of one."""
        return self._call("queue_depths", "rows", queue=queue)


def _number(name: str, value: Any) -> Decimal | None:
    """Return a number as it is written: 0.1 is a tenth. Raises InvalidArgument."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidArgument(f"{name}={value!r} is not a number"[:500], hint="Give int or float.")
    return Decimal(str(value))
