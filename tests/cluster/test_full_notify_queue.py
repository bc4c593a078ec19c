"""The server keeps each notification until all who listen have read it, and its room is limited."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from perdure.embedded.server import Server
from perdure.errors import ServerUnavailable
from perdure.installation.install import install
from tests.databases import Connection, connected, find_app

SMALL = {"max_notify_queue_pages": "64", "log_min_messages": "fatal"}
FILL = "select pg_notify('other', n || repeat('x', 7000)) from generate_series(1, 4) as n"


def notify_for_ever(connection: Connection) -> None:
    """Send notifications until that fails."""
    while True:
        connection.execute(FILL)


def test_commit_does_not_fail_for_its_hint() -> None:
    """A hint may be lost. A forgotten session that listens, and keeps a transaction open, keeps
    all notifications of the server."""
    server = Server(settings=SMALL)
    try:
        server.start()
    except ServerUnavailable:
        pytest.skip("this server has no max_notify_queue_pages")
    with (
        closing(server),
        psycopg.connect(server.url(), autocommit=True) as forgotten,
        psycopg.connect(server.url(), autocommit=True) as other,
        connected(server.url()) as client,
    ):
        install(client, "perdure")
        find_app(client)
        client.execute("select listen_for('default', 'me')")
        forgotten.execute("listen other")
        forgotten.execute("begin")
        forgotten.execute("select 1")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            notify_for_ever(other)

        assert client.execute("select (start('w', id => 'j')).is_new").fetchone() == (True,)
        forgotten.execute("commit")
        client.execute("do $$ begin execute format('listen %I', channel()); end $$")
        client.execute("select start('w', id => 'k')")

        assert [hint.payload for hint in client.notifies(timeout=10, stop_after=1)] == ["default"]
