"""Run an example's worker as a process of its own, and watch a job's memory by plain SQL."""

import importlib
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg

import perdure
from perdure.embedded import server as embedded
from perdure.errors import NewerSchema, OtherBuild

LEASE = "2 s"  # how long a dead worker's tasks stay its own: short, for those who watch
EXECUTED = re.compile(r"\b((?:read|notify) .+)")  # what the examples' activities log
Memory = dict[str, Any]


@contextmanager
def database() -> Iterator[str]:
    """Give the URL of the database in the environment, else of the embedded server."""
    if url := os.environ.get("PERDURE_DATABASE_URL"):
        yield url
    else:
        with embedded.shared_server() as server:
            yield server.url()


@contextmanager
def connected(dsn: str, schema: str) -> Iterator[tuple[perdure.Client, str]]:
    """Connect to the app in a schema, and say in which: in the next one, `demo_2` after `demo`,
    where what another build of perdure has left there cannot be brought to this one."""
    for number in count(2):
        try:
            client = perdure.connect(dsn, schema=schema)
            break
        except (NewerSchema, OtherBuild) as error:
            print(f"  schema {schema} is left alone: {error.message}")
            schema = f"{schema.partition('_')[0]}_{number}"
    with client:
        yield client, schema


@dataclass
class Stage:
    """Hold the worker process of one example, and the log of every worker so far.

    `pace` is how long the activities read at least, in seconds: a machine is too fast to watch.
    """

    dsn: str
    schema: str
    module: str
    queue: str
    folder: Path
    pace: float = float(os.environ.get("PERDURE_EXAMPLE_PACE", "0.15"))
    logs: list[Path] = field(default_factory=list)
    worker: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        """Connect."""
        self.sql = psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the worker."""
        self.stop_worker()
        self.sql.close()

    @property
    def command(self) -> str:
        """Return what you would type to start such a worker."""
        return f"perdure worker {self.module}:app --queue {self.queue} --schema {self.schema}"

    def start_worker(self) -> int:
        """Start a worker process and return its process id."""
        log = self.folder / f"worker-{len(self.logs) + 1}.log"
        with log.open("wb") as stderr:
            self.worker = subprocess.Popen(
                [sys.executable, __file__, self.module, self.queue, self.schema],
                env=os.environ | self._settings(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self.logs.append(log)
        return self.worker.pid

    def _settings(self) -> dict[str, str]:
        return {
            "PERDURE_DATABASE_URL": self.dsn,
            "PERDURE_EXAMPLE_PACE": str(self.pace),
            "PYTHONHASHSEED": "0",  # sets of strings must iterate alike in every worker
        }

    def stop_worker(self) -> None:
        """Ask the worker to finish what it is doing, and wait for its end."""
        if self.worker and self.worker.poll() is None:
            self.worker.terminate()
            self.worker.wait(20)

    def kill_worker(self) -> int:
        """End the worker on the spot with SIGKILL, and return the process id that it had."""
        if self.worker is None:
            raise LookupError("no worker has been started")
        self.worker.kill()
        self.worker.wait()
        return self.worker.pid

    def crash(self, job: str) -> None:
        """Kill the worker in the middle of its work, and start another."""
        killed = self.kill_worker()
        version, _, _ = self.look(job)
        print(f"  kill -9 {killed}: the memory stands at version {version}. Another worker,")
        print(f"  process {self.start_worker()}, goes on when the lease of the dead one has ended:")

    def executed(self) -> list[Counter[str]]:
        """Return, for each worker so far, what its activities did and how often."""
        return [Counter(EXECUTED.findall(log.read_text("utf-8"))) for log in self.logs]

    def look(self, job: str) -> tuple[int, Memory, bool]:
        """Return version, memory and end of a job, read by plain SQL."""
        looked = self.sql.execute(
            f"select version, context, finished_at is not null from {self.schema}.jobs"
            " where id = %s",
            [job],
        ).fetchone()
        if looked is None:
            raise LookupError(f"no job {job} in schema {self.schema}")
        return looked

    def watch(
        self,
        job: str,
        picture: Callable[[Memory], str],
        until: Callable[[Memory], object] = lambda _: False,
        timeout: float = 60.0,
    ) -> None:
        """Print the picture of a memory whenever it changes, until it is as wanted or ended."""
        started, shown = time.monotonic(), ""
        while (elapsed := time.monotonic() - started) < timeout:
            version, memory, ended = self.look(job)
            if memory and (line := picture(memory)) != shown:
                print(f"  {elapsed:4.1f} s  version {version:<3}  {line}", flush=True)
                shown = line
            if ended or (memory and until(memory)):
                return
            if self.worker and self.worker.poll() is not None:
                raise RuntimeError(f"the worker ended: {self.logs[-1].read_text('utf-8')[-2000:]}")
            time.sleep(0.05)
        raise TimeoutError(f"job {job} is not there after {timeout:g} s: {shown}")


def work(module: str, queue: str, schema: str) -> None:
    """Be the worker: what `perdure worker` does, with a short lease, and with the log turned on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    app: perdure.App = importlib.import_module(module).app
    perdure.Worker(app, queues=[queue], schema=schema, lease=LEASE).run()


if __name__ == "__main__":
    work(*sys.argv[1:])
