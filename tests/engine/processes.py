"""Workers in processes of their own, started by the command line, which tests kill and stop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def worker_process(
    dsn: str, *, app: str, queues: Sequence[str] = ("default",), lease: str = "30 s",
    **settings: str,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """Run `perdure worker`; kill it at the end if it is still alive."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT)])} | settings
    command = [sys.executable, "-m", "perdure", "worker", app, "--dsn", dsn, "--lease", lease]
    for queue in queues:
        command += ["--queue", queue]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
