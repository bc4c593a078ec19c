"""PgBouncer in transaction mode: each transaction gets any of a few sessions of the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from perdure.embedded import binaries
from tests.cluster.machines import program, wait_for

PORT = 6432
POOL = 5
MANY = 60
"""Sessions for tests that hold many transactions open at the same time."""

SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
admin_users = postgres
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 500
server_lifetime = 3600
server_login_retry = 1
logfile = {folder}/log
log_connections = 0
log_disconnections = 0
"""


@dataclass(frozen=True)
class Pooler:
    """A running pooler in front of a server."""

    folder: Path

    def url(self, dbname: str = "postgres") -> str:
        """Return the connection string of a database, through the pooler."""
        return make_conninfo(host=os.fspath(self.folder), port=PORT, dbname=dbname, user="postgres")

    def answers(self) -> bool:
        """Return whether the pooler takes connections."""
        try:
            return bool(self.show("version"))
        except psycopg.OperationalError:
            return False

    def show(self, what: str) -> list[dict[str, Any]]:
        """Run a `show` command of the pooler."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True) as admin:
            cursor = psycopg.ClientCursor(admin, row_factory=psycopg.rows.dict_row)
            return list(cursor.execute(f"show {what}".encode()))


@contextmanager
def pooler(server: str, pool: int = POOL) -> Iterator[Pooler]:
    """Run PgBouncer in front of the server with this connection string."""
    name = program("pgbouncer", "pgbouncer")
    known = conninfo_to_dict(server)
    target = " ".join(f"{key}={known[key]}" for key in ("host", "port", "user") if key in known)
    account = binaries.account(Path("/nowhere"))
    with tempfile.TemporaryDirectory(prefix="perdure-", dir="/tmp") as made:
        folder, ini = Path(made), Path(made) / "pgbouncer.ini"
        ini.write_text(SETTINGS.format(server=target, port=PORT, folder=made, pool=pool))
        for path in (folder, ini):
            if account:
                shutil.chown(path, account)
        process = subprocess.Popen(
            [name, "-q", ini], user=account, extra_groups=[] if account else None
        )
        try:
            running = Pooler(folder)
            wait_for(running.answers)
            yield running
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
        finally:
            process.kill()
            process.wait()
