"""Calls on jobs: to start, signal, end and read them; schedules; what jobs ask of people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from perdure.basics.arguments import check_arguments
from perdure.basics.durations import as_interval
from perdure.values.envelopes import MAIN, request_place

from . import unsealers
from .call import AppCalls, Call, or_null, to_text


class JobCalls(AppCalls):
    """The calls of one app on its jobs."""

    def start(self, workflow: str, args: Any, **options: Any) -> Call:
        """Start a job; returns (id, is_new)."""
        return self._call(
            "start", "row", **self._started({"workflow": workflow, "args": args} | options)
        )

    def _started(self, start: dict[str, Any]) -> dict[str, Any]:
        """Write the arguments of a start."""
        written = self._sealed_start(start)
        for name in ("args", "context", "headers"):
            if written.get(name) is not None:
                written[name] = to_text(written[name])
        return written

    def _sealed_start(self, start: dict[str, Any]) -> dict[str, Any]:
        seal, job = self._seal(start.get("key")), start["id"]
        sealed = start | {"args": seal.args(job, MAIN, start["args"])}
        if start.get("context") is not None:
            sealed["context"] = seal.document(job, [], start["context"])
        return sealed

    def signal_with_start(
        self, workflow: str, args: Any, job: str, name: str, payload: Any, **options: Any
    ) -> Call:
        """Send a signal to a job, which is started if it does not exist; returns (id, is_new)."""
        start = self._started({"workflow": workflow, "args": args, "id": job} | options)
        sealed = self._seal(options.get("key")).whole("signal", job, name, payload)
        return self._call("signal_with_start", "row", name=name, payload=or_null(sealed), **start)

    def start_many(self, starts: Sequence[dict[str, Any]]) -> Call:
        """Start jobs; returns a row (id, is_new) for each."""
        sealed = [self._sealed_start(start) for start in starts]
        return self._call("start_many", "rows", starts=to_text(sealed))

    def hook(self, job: str, name: str, args: Any, **options: Any) -> Call:
        """Start a hook from outside; returns the task's name."""
        sealed = self._seal(options.get("key")).args(job, name, args)
        return self._call("hook", id=job, name=name, args=to_text(sealed), **options)

    def register_sql_hook(self, name: str, function: str, **options: Any) -> Call:
        """Register a function of the database as a hook."""
        call = self._call("register_sql_hook", name=name, function=function, **options)
        named = b'"function" => pg_catalog.to_regproc(%s)'  # null if there is none
        return call._replace(query=call.query.replace(b'"function" => %s', named))

    def drop_sql_hook(self, name: str) -> Call:
        """Unregister a hook in SQL; returns False if there was none."""
        return self._call("drop_sql_hook", name=name)

    def sql_hooks(self) -> Call:
        """Read which functions of the database are hooks."""
        query = "select name, schema, function, attempts, retry_in, timeout, within"
        query = f"{query} from {self._quoted}.sql_hooks order by name"
        return Call("sql_hooks", query.encode(), (), "rows")

    def sql_hook_timeout(self, name: str) -> Call:
        """Ask how many seconds an attempt of a hook in SQL may take; returns None for no limit."""
        query = f"select extract(epoch from {self._quoted}.sql_hook_timeout(%s))"
        return Call("sql_hook_timeout", query.encode(), (name,))

    def signal(self, job: str, name: str, payload: Any, key: str | None) -> Call:
        """Send a signal; returns False if the key was used before."""
        sealed = self._seal(key).whole("signal", job, name, payload)
        return self._call("signal", id=job, name=name, payload=or_null(sealed), key=key)

    def cancel(self, job: str, reason: str | None) -> Call:
        """Ask a job to cancel."""
        return self._call("cancel", id=job, reason=self._reason(job, reason))

    def cancel_hook(self, job: str, task: str, reason: str | None) -> Call:
        """Ask a hook or activity of a job to cancel."""
        return self._call("cancel_hook", id=job, task=task, reason=self._reason(job, reason))

    def family(self, job: str, max_rows: int) -> Call:
        """Read the descendants of a job; returns a row for each, itself first."""
        return self._call("family", "rows", id=job, max_rows=max_rows)

    def terminate(self, job: str, reason: str | None) -> Call:
        """End a job at once."""
        return self._call("terminate", id=job, reason=self._reason(job, reason))

    def resume(self, job: str, task: str | None, accept_changes: bool) -> Call:
        """Wake stuck tasks; returns how many."""
        return self._call("resume", id=job, task=task, accept_changes=accept_changes)

    def repin(self, job: str, version: str | None) -> Call:
        """Pin a job to another version of the code, or to none; returns how many tasks moved."""
        check_arguments("repin", {"pinned_version": version})
        query = f"select {self._quoted}.repin(%s, %s)"
        return Call("repin", query.encode(), (job, version))

    def pause(self, job: str) -> Call:
        """Keep the tasks of a job from workers."""
        return self._call("pause", id=job)

    def retry(self, job: str, args: Any, timeout: str | None, key: str) -> Call:
        """Run a failed or cancelled job again; returns False if it does not run again."""
        sealed = self._seal(key).args(job, MAIN, args)
        return self._call("retry", id=job, args=or_null(sealed), timeout=timeout, key=key)

    def fork(self, job: str, new_id: str, seq: int | None, context: Any, key: str) -> Call:
        """Start a job from a place in the journal of another; returns (id, is_new)."""
        sealed = self._seal(key).document(new_id, [], context)
        written = or_null(sealed)
        return self._call("fork", "row", id=job, new_id=new_id, seq=seq, context=written, key=key)

    def timeline(self, job: str, after: list[Any] | None, max_rows: int) -> Call:
        """Read what belongs to a job, after a place; returns a row for each item."""
        call = self._call("timeline", "rows", id=job, after=or_null(after), max_rows=max_rows)
        return self._unsealed(call, partial(unsealers.timeline, job))

    def forget_finished(self, before: datetime, entity: str | None, max_jobs: int) -> Call:
        """Delete jobs that finished before a time; returns how many."""
        return self._call("forget_finished", before=before, entity=entity, max_jobs=max_jobs)

    def forget_old_runs(self, job: str, max_rows: int) -> Call:
        """Delete what old runs were told; returns how many facts."""
        return self._call("forget_old_runs", id=job, max_rows=max_rows)

    def result(self, job: str) -> Call:
        """Read how a job ended: (status, result, error)."""
        return self._unsealed(self._call("result", "row", id=job), partial(unsealers.result, job))

    def await_result(self, job: str, timeout: float) -> Call:
        """Let the server wait for the end of a job, for so many seconds, and read it."""
        call = self._call("await_result", "row", id=job, timeout=as_interval(timeout))
        return self._unsealed(call, partial(unsealers.result, job))

    def hook_result(self, job: str, task: str) -> Call:
        """Read how a hook from outside ended: (status, result, error)."""
        call = self._call("hook_result", "row", id=job, task=task)
        return self._unsealed(call, partial(unsealers.hook_result, job, task))

    def status(self, job: str) -> Call:
        """Read where a job stands."""
        return self._call("status", "row", id=job)

    def task_reason(self, job: str, task: str) -> Call:
        """Read in words what a task waits for; None if it has ended."""
        return self._call("task_reason", job=job, task=task)

    def task_needs(self, job: str, task: str) -> Call:
        """Read what a task needs that does not come by itself; None if nothing."""
        return self._call("task_needs", job=job, task=task)

    def list_jobs(self, **asked: Any) -> Call:
        """List jobs; returns a row for each."""
        return self._call("list_jobs", "rows", **asked)

    # Schedules.
    def create_schedule(self, name: str, workflow: str, args: Any, **options: Any) -> Call:
        """Create or change a schedule; returns when it is due next."""
        if options.get("headers") is not None:
            options["headers"] = to_text(options["headers"])
        sealed = self._seal(f"schedule {name}").args("", workflow, args)
        return self._call(
            "create_schedule", name=name, workflow=workflow, args=to_text(sealed), **options
        )

    def pause_schedule(self, name: str) -> Call:
        """Pause a schedule; returns False if it was paused."""
        return self._call("pause_schedule", name=name)

    def resume_schedule(self, name: str) -> Call:
        """Resume a schedule; returns False if it was not paused."""
        return self._call("resume_schedule", name=name)

    def trigger_schedule(self, name: str, key: str) -> Call:
        """Start the job of a schedule now; returns (id, is_new)."""
        return self._call("trigger_schedule", "row", name=name, key=key)

    def backfill_schedule(
        self, name: str, since: str, until: str | None, priority: int | None
    ) -> Call:
        """Start the jobs of past due times; returns rows (id, is_new)."""
        return self._call(
            "backfill_schedule", "rows", name=name, since=since, until=until, priority=priority
        )

    def drop_schedule(self, name: str) -> Call:
        """Delete a schedule; returns False if there is none."""
        return self._call("drop_schedule", name=name)

    def schedules(self) -> Call:
        """Read the schedules, a row each."""
        query = f"select * from {self._quoted}.schedules order by name"
        return Call("schedules", query.encode(), (), "rows")

    # What jobs ask of people.
    def list_items(self, after: list[Any] | None, **asked: Any) -> Call:
        """List items; returns a row for each."""
        call = self._call("list_items", "rows", after=or_null(after), **asked)
        return self._unsealed(call, unsealers.asked_items)

    def _item(self, verb: str, item: str, **given: Any) -> Call:
        return self._unsealed(self._call(verb, "row", item=item, **given), unsealers.asked_item)

    def read_item(self, item: str) -> Call:
        """Read an item, open or resolved."""
        return self._item("read_item", item)

    def claim_item(self, item: str, by: str) -> Call:
        """Claim an item for a person; returns the item, as the other calls on items do."""
        return self._item("claim_item", item, by=by)

    def release_item(self, item: str, by: str | None) -> Call:
        """Release an item."""
        return self._item("release_item", item, by=by)

    def assign_item(self, item: str, assignee: str | None) -> Call:
        """Assign an item to somebody else, or to anybody."""
        return self._item("assign_item", item, assignee=assignee)

    def resolve_item(
        self, item: str, asked_by: tuple[str, str, str], resolution: Any, by: str | None
    ) -> Call:
        """Resolve an item, which belongs to a job, a task of it and a key."""
        job, task, key = asked_by
        # A repeated call is recognized by this alone.
        sealed = self._seal(f"item {item}").result(job, request_place(task, key), resolution)
        return self._item("resolve_item", item, resolution=or_null(sealed), by=by)
