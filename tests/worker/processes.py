"""Workers in processes of their own, which tests may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

RUN = """
import datetime, json, logging, os, sys, time
logging.basicConfig(level=logging.INFO)
if skew := float(os.environ.get("SKEW", "0")):
    true = time.time
    time.time = lambda: true() + skew
    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)
    datetime.datetime = Skewed
import perdure
from kill_app import app
if "PERDURE_FAULTS" in os.environ:
    from tests.storms import faulty
    faulty.meet_faults()
version = os.environ.get("VERSION")
queues = sys.argv[3:] or None
lease = float(sys.argv[2])
more = json.loads(os.environ.get("WORKER", "{}"))
perdure.Worker(app, queues, dsn=sys.argv[1], version=version, lease=lease, grace=2, **more).run()
"""


@contextmanager
def worker_process(
    dsn: str, *queues: str, lease: float = 1.0, crash_at: str | None = None, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of `kill_app` in a process, and kill it at the end if it still runs.

    It serves the given queues, or all queues that the app names. In the settings, WORKER may hold
    further arguments of the worker as JSON, and SKEW the seconds by which its clock is wrong.
    """
    environment = dict(os.environ, PYTHONHASHSEED="0", **settings)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "python", ROOT, HERE)))
    if crash_at is not None:
        environment["PERDURE_CRASH_AT"] = crash_at
    command = [sys.executable, "-c", RUN, dsn, str(lease), *queues]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
