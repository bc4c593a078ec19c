"""Crash points: those in the code, and what happens to a worker that passes one."""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from perdure.basics import faults
from tests.source import python_files

POINTS = frozenset(
    {
        "activity: after final flush",
        "activity: after function",
        "activity: before final flush",
        "activity: before function",
        "async client: after call",
        "async client: before call",
        "client: after call",
        "client: before call",
        "committer: after claim",
        "committer: before send",
        "coordinator: after advance",
        "coordinator: after final flush",
        "coordinator: after park",
        "coordinator: before final flush",
        "coordinator: before flush",
        "coordinator: before park",
        "heartbeat: before send",
        "hook: after advance",
        "hook: after final flush",
        "hook: after function",
        "hook: after park",
        "hook: before final flush",
        "hook: before flush",
        "hook: before function",
        "hook: before park",
        "index: before statement",
        "transaction: after commit",
        "transaction: after function",
        "transaction: before commit",
        "worker: after release",
        "worker: before release",
    }
)
"""The names of all crash points of the package; sweeps kill at each of them."""

ORDERLY = frozenset({"worker: before release", "worker: after release"})
"""Points that a worker passes only if it was asked to stop."""

OF_CLIENTS = ("client: ", "async client: ", "index: ")


def points_in_code() -> list[str]:
    """Return the name of every point in the source of the package, once for each place."""
    return [point for file in python_files() for point in points_in(file)]


def worker_points() -> set[str]:
    """Return the points that workers pass."""
    return {point for point in points_in_code() if not point.startswith(OF_CLIENTS)}


def client_points() -> set[str]:
    """Return the points that clients pass."""
    return {*points_in_code()} - worker_points()


def points_in(file: Path) -> Iterator[str]:
    """Yield the points of a module: `crash_point("…")`, or one with an ending from a dict of the
    module or its default: `crash_point(f"before {_PHASES.get(state, "…")}")`."""
    tree = ast.parse(file.read_text())
    dicts = {
        target.id: [one.value for one in node.value.values if isinstance(one, ast.Constant)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="crash_point"), args=[ast.Constant(value=str(name))]):
                yield name
            case ast.Call(
                func=ast.Name(id="crash_point"),
                args=[
                    ast.JoinedStr(
                        values=[
                            ast.Constant(value=str(start)),
                            ast.FormattedValue(
                                value=ast.Call(
                                    func=ast.Attribute(value=ast.Name(id=named)),
                                    args=[_, ast.Constant(value=default)],
                                )
                            ),
                        ]
                    )
                ],
            ):
                yield from (f"{start}{end}" for end in (*dicts[named], default))
            case ast.Call(func=ast.Name(id="crash_point")):
                raise AssertionError(f"{file.name}:{node.lineno}: what is this point called?")


ANY = "any"
"""The first point that a worker passes and that has not burnt often enough."""


@dataclass(frozen=True)
class Fuse:
    """A fault at the n-th passage of a point: `kill -9`, or a stop.

    With ANY as its point, it hits so many workers at each point, in the order in which they arrive.
    """

    point: str
    passage: int = 1
    signal: int = signal.SIGKILL
    workers: int = 1


_ALONE = threading.Lock()


@dataclass
class Passages:
    """The points that a worker process passes; it burns its fuse, and records that before."""

    fuse: Fuse
    path: str
    passed: Counter[str] = field(default_factory=Counter)

    def __call__(self, point: str) -> None:
        """Pass a point. No other thread may end the process while this one takes a point."""
        with _ALONE:
            self.passed[point] += 1
            if self._is_due(point):
                with Path(self.path).open("a") as file:
                    file.write(f"{os.getpid()} {point}\n")
                os.kill(os.getpid(), self.fuse.signal)

    def _is_due(self, point: str) -> bool:
        if self.fuse.point != ANY:
            return point == self.fuse.point and self.passed[point] == self.fuse.passage
        for number in range(self.fuse.workers):
            with suppress(FileExistsError):
                Path(f"{self.path}, {point}, {number}").touch(exist_ok=False)
                return True
        return False


def burnt(folder: Path) -> list[str]:
    """Return the points at which fuses have burnt."""
    path = folder / "points"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines]


def pass_through(passages: Passages) -> None:
    """Pass the points of all modules of the package in this process to these passages."""
    for name, module in list(sys.modules.items()):
        if name.startswith("perdure.") and module is not faults and hasattr(module, "crash_point"):
            module.crash_point = passages  # type: ignore[attr-defined]
