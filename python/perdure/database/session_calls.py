"""Calls that concern a session, its notifications, or the app as a whole: clock and checks."""

from __future__ import annotations

from datetime import datetime

from .call import AppCalls, Call


class SessionCalls(AppCalls):
    """The calls of one app that concern a session, or the app as a whole."""

    def listen_for(self, topic: str, listener: str) -> Call:
        """Record that somebody waits for a topic."""
        return self._call("listen_for", topic=topic, listener=listener)

    def stop_listening(self, listener: str) -> Call:
        """Record that nobody waits any more."""
        return self._call("stop_listening", listener=listener)

    def channel(self) -> Call:
        """Name the channel of this app's notifications."""
        return self._call("channel")

    @staticmethod
    def backend() -> Call:
        """Ask which process of the server answers, and how its transactions are isolated."""
        query = b"select pg_backend_pid(), current_setting('default_transaction_isolation')"
        return Call("backend", query, (), "row")

    @staticmethod
    def isolate() -> Call:
        """Let each statement of this session see what was committed before it."""
        query = b"set default_transaction_isolation = 'read committed'"
        return Call("isolate", query, (), "rows")

    @staticmethod
    def write_times() -> Call:
        """Let this session write times in the form that psycopg reads."""
        return Call("write_times", b"set datestyle = 'ISO'", (), "rows")

    @staticmethod
    def unlisten() -> Call:
        """Hear nothing more on this connection."""
        return Call("unlisten", b"unlisten *", (), "rows")

    # Tests.
    def clock(self) -> Call:
        """Tell the time of the app."""
        return self._call("clock")

    def move_clock(self, seconds: float) -> Call:
        """Move the clock of the app forward; returns the new time."""
        return self._call("move_clock", by=f"{seconds} s")

    def skip_time(self, up_to: datetime | None, since: datetime) -> Call:
        """Move the clock to what is due next after `since`; returns None if nothing will be."""
        return self._call("skip_time", up_to=up_to, since=since)

    @property
    def _kept_back(self) -> str:
        """Write why a due task `t` cannot be claimed."""
        return f"{self._quoted}.queue_reason(t.queue, t.limit_key, {self._quoted}.clock())"

    def at_work(self, queues: list[str]) -> Call:
        """Find a task that is held, or is due on one of these queues and not kept back by a limit.

        Returns (job, name, state, worker).
        """
        query = f"""select w.job_id, w.name, w.state, w.worker
                      from {self._quoted}.waiting as w
                      join {self._quoted}.tasks as t using (job_id, task)
                     where w.state = 'leased' or (w.state = 'ready' and t.queue = any(%s)
                       and {self._kept_back} is null)
                     limit 1"""
        return Call("waiting", query.encode(), (queues,), "row")

    def will_be_due(self, queues: list[str], up_to: datetime | None) -> Call:
        """Tell whether anything happens by itself: now on these queues, or by a time on any."""
        query = f"""select exists (
            select from {self._quoted}.tasks as t
             where due_at < 'infinity' and due_at <= coalesce(%s, 'infinity'::timestamptz)
               and not paused
               and not (token is null and awaits is null
                        and {self._quoted}.lacked_code_or_key(failure))
               and (due_at > {self._quoted}.clock()
                    or queue = any(%s) and {self._kept_back} is null))"""
        return Call("tasks", query.encode(), (up_to, queues))

    def drop_schema(self) -> Call:
        """Drop the app, with all that is in it."""
        return Call("drop", f"drop schema if exists {self._quoted} cascade".encode(), (), "rows")

    def workflows(self) -> Call:
        """Name the jobs that have a workflow: rows (id, workflow)."""
        query = f"select id, workflow from {self._quoted}.jobs where workflow is not null"
        return Call("jobs", f"{query} order by id".encode(), (), "rows")

    # For people.
    def broken_histories(self) -> Call:
        """Recompute every memory of the app; returns a row (json) for whatever is wrong."""
        query = f"select pg_catalog.to_jsonb(b) from {self._quoted}.assert_histories"
        query = f"{query}(max_jobs => null) as b"
        return Call("assert_histories", query.encode(), (), "rows")

    def broken_invariants(self) -> Call:
        """Check the app's tables; returns a row (json) for whatever is wrong."""
        query = f"select pg_catalog.to_jsonb(b) from {self._quoted}.assert_invariants() as b"
        return Call("assert_invariants", query.encode(), (), "rows")

    @staticmethod
    def listen(channel: str) -> Call:
        """Hear the app's notifications on this connection."""
        quoted = channel.replace('"', '""')
        return Call("listen", f'listen "{quoted}"'.encode(), (), "rows")
