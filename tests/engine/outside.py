"""The world outside of a job: what it can see of the job, and what it does to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


@dataclass
class Outside:
    """A connection to the app, and the job under test."""

    connection: Connection
    job: str = "job"
    lock: threading.RLock = field(default_factory=threading.RLock)

    def one(self, query: str, *params: Any) -> Any:
        """Return the first value of the first row."""
        rows = self.many(query, *params)
        return rows[0][0] if rows else None

    def many(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return all rows."""
        with self.lock:
            cursor = self.connection.execute(query.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def start(self, workflow: str, *args: Any) -> None:
        """Start the job."""
        self.many("select start(%s, %s, id => %s)", workflow, json.dumps(args), self.job)

    def memory(self, path: str = "") -> Any:
        """Read the memory of the job."""
        return self.one("select entity_get(%s, %s)", self.job, path)

    def ending(self) -> tuple[str, Any, Any]:
        """Return status, result and error of the job."""
        status, result, error = self.many("select * from result(%s)", self.job)[0]
        return status, result, error

    def broken(self) -> list[tuple[Any, ...]]:
        """Return the invariants that are broken."""
        return self.many("select * from assert_invariants()")


Step = Callable[[Outside], bool]
"""An event outside: called again and again until it returns true, when it has happened."""


def sends(name: str, payload: str = "null", when: str = "") -> Step:
    """Send a signal, once the memory is true at a path."""

    def step(outside: Outside) -> bool:
        if when and outside.memory(when) is not True:
            return False
        outside.many("select signal(%s, %s, %s::jsonb)", outside.job, name, payload)
        return True

    return step


def resolves(name: str, resolution: str) -> Step:
    """Resolve the most urgent item of a name that the job waits for, once there is one."""
    find_item = "select id from list_items(name => %s, job => %s, max_rows => 1)"

    def step(outside: Outside) -> bool:
        item = outside.one(find_item, name, outside.job)
        if item is None:
            return False
        outside.many("select resolve_item(%s, %s::jsonb, by => 'jane')", item, resolution)
        return True

    return step


def cancels(when: str) -> Step:
    """Cancel the job, once the memory is true at a path."""

    def step(outside: Outside) -> bool:
        if outside.memory(when) is not True:
            return False
        outside.many("select cancel(%s, 'enough')", outside.job)
        return True

    return step


def writes(patch: str, when: str) -> Step:
    """Change the memory by an ordinary UPDATE, once the memory is true at a path."""

    def step(outside: Outside) -> bool:
        if outside.memory(when) is not True:
            return False
        outside.many("update jobs set context = context || %s where id = %s", patch, outside.job)
        return True

    return step


def increments(path: str, when: str) -> Step:
    """Increment a number of the memory, once the memory is true at a path."""

    def step(outside: Outside) -> bool:
        if outside.memory(when) is not True:
            return False
        outside.many("select entity_increment(%s, %s, 100)", outside.job, path)
        return True

    return step
