"""Make the golden journals of this release: `python tests/golden/make.py`.

A worker runs the coordinators of `golden_app.py` on a temporary server, while this file does what
the jobs wait for. Journals of earlier releases stay as they are.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from golden_app import app

import perdure
from perdure.embedded.server import Server
from perdure.errors import JobCancelled
from perdure.replaying import Recording, recording_of, write_recordings

HERE = Path(__file__).parent
ARGUMENTS: dict[str, tuple[Any, ...]] = {"activities": (21,), "plain": (1,)}
HELPERS = {"grandson", "black_sheep"}
"""Coordinators that only run as children of others."""
T = "30 s"


def until_waiting(client: perdure.Client, job: str) -> None:
    """Wait until a job waits for a signal."""
    while "signal" not in (client.handle(job).status().waiting_for or ""):
        time.sleep(0.01)


def until_recorded(client: perdure.Client, job: str, kind: str) -> None:
    """Wait until the journal of a job contains a fact of a kind."""
    while kind not in [row[1] for row in recording_of(client, job).journal]:
        time.sleep(0.01)


def drive(client: perdure.Client) -> None:
    """Do what the jobs wait for."""
    for number in (1, 2):
        client.handle("mail").signal("go", {"number": number})
    client.entity("conditions").until("$.n == 1", timeout=T)
    client.entity("conditions").set(2, "n")
    client.handle("plain").signal("go", "plainly")
    for job in ("cancelled", "plainly_cancelled"):
        until_waiting(client, job)
        client.handle(job).cancel("as a test")
    until_recorded(client, "late_answers", "dropped")
    client.handle("late_answers").signal("go")


def wait_for_end(client: perdure.Client, job: str) -> None:
    """Wait until a job has ended, in whatever way, or is where it should stay."""
    if job == "running":
        until_recorded(client, job, "signal")
        until_waiting(client, job)
        return
    try:
        client.handle(job).result(T)
    except JobCancelled:
        if "cancelled" not in job:
            raise


def without_tracebacks(value: Any) -> Any:
    """Remove tracebacks, which contain paths of this machine."""
    if isinstance(value, dict):
        kept = {name: without_tracebacks(each) for name, each in value.items()}
        return kept | ({"traceback": ""} if "traceback" in value else {})
    return [without_tracebacks(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    """Run all coordinators, and write their journals."""
    names = [name for name in app.coordinators if name not in HELPERS]
    with Server() as server, perdure.connect(server.url()) as client:
        with perdure.Worker(app, dsn=server.url()):
            for name in names:
                client.start(app.coordinators[name], *ARGUMENTS.get(name, ()), id=name)
            drive(client)
            for name in names:
                wait_for_end(client, name)
        recorded = [recording_of(client, name) for name in names]
    clean = [Recording(each.row, without_tracebacks(each.journal)) for each in recorded]
    path = HERE / f"{perdure.__version__}.jsonl"
    print(f"{write_recordings(path, clean)} journals written to {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
