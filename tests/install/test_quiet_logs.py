"""A healthy app leaves nothing in the log of the server."""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import make_conninfo

import perdure
from perdure.embedded.server import Server

T = "15 s"
KINDS = ("client", "worker", "operator", "reader")


def complaints(server: Server) -> list[str]:
    """List what the server has logged that is more than information."""
    log = (server.folder / "log").read_text("utf-8")
    return re.findall(r".*\b(?:WARNING|ERROR|FATAL|PANIC): .*", log)


def test_first_install_and_work_of_every_role_leave_nothing_in_the_log(
    app: perdure.App, own_server: Server
) -> None:
    """An administrator who watches the log for errors is not called for nothing."""

    @app.coordinator
    async def greet(memory: perdure.AsyncEntity) -> object:
        await memory.set({"greeted": True})
        return await perdure.wait_for("name")

    def url(role: str = "postgres") -> str:
        return make_conninfo(own_server.url(), user=role)

    with perdure.connect(url(), schema="My app"), psycopg.connect(url()) as owner:
        for kind in KINDS:
            owner.execute(f"create role my_{kind} login".encode())
            owner.execute('select "My app".grant_access(%s, %s)', [f"my_{kind}", kind])
    for kind in KINDS:
        perdure.connect(url(f"my_{kind}"), schema="My app").close()
    with (
        perdure.Worker(app, dsn=url("my_worker"), schema="My app"),
        perdure.connect(url("my_client"), schema="My app") as client,
    ):
        handle = client.start(greet)
        handle.signal("name", "Ann")
        assert handle.result(T) == "Ann"
    assert complaints(own_server) == []
