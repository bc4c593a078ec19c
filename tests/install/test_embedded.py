"""The processes that use a folder share one embedded server, which stops after the last of them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure.embedded.postmaster
from perdure.embedded import binaries
from perdure.embedded import server as embedded
from perdure.embedded.server import Server, home
from perdure.errors import ServerUnavailable
from tests.cluster.machines import Machine, machine

USER = """
import sys, psycopg
from perdure.embedded.server import Server
server = Server(sys.argv[1]).start()
with psycopg.connect(server.url(), autocommit=True) as connection:
    print(*connection.execute("select pg_postmaster_start_time()::text").fetchone(), flush=True)
sys.stdin.readline()
"""
PACKAGES = os.fspath(Path(embedded.__file__).parents[2])
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that the server's account can enter; it cannot enter pytest's own."""
    path = embedded._unused_name()
    yield path
    eventually(lambda: not has_server(path))
    shutil.rmtree(path, ignore_errors=True)


def user(folder: Path) -> subprocess.Popen[str]:
    """Start a process that uses the server of a folder until its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PACKAGES},
    )


def server_of(process: subprocess.Popen[str]) -> str:
    """Return the start time of the server that a process has found."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def has_server(folder: Path) -> bool:
    """Check whether a server process runs in a folder."""
    try:
        os.kill(postmaster(folder), 0)
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return False
    return True


def postmaster(folder: Path) -> int:
    """Return the process id of the server in a folder."""
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def eventually(condition: Callable[[], bool], within: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.02)


def ask(server: Server, query: bytes) -> Any:
    """Run one query."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        asked = connection.execute(query)
        return asked.fetchone() if asked.description else None


def test_processes_that_use_one_folder_share_one_server(folder: Path) -> None:
    users = [user(folder) for _ in range(4)]
    assert len({server_of(each) for each in users}) == 1
    for each in users:
        each.communicate("")
    eventually(lambda: not has_server(folder))


def test_the_server_stays_when_the_process_that_started_it_leaves(folder: Path) -> None:
    first = user(folder)
    found = server_of(first)
    second = user(folder)
    assert server_of(second) == found
    first.communicate("")
    time.sleep(1.2 * embedded.LINGER)
    with Server(folder) as server:
        assert ask(server, b"select pg_postmaster_start_time()::text") == (found,)
    second.communicate("")


def test_the_server_stops_when_all_of_its_users_were_killed(folder: Path) -> None:
    users = [user(folder) for _ in range(2)]
    for each in users:
        server_of(each)
    assert has_server(folder)
    for each in users:
        each.kill()
        each.communicate()
    eventually(lambda: not has_server(folder))


@pytest.mark.skipif(sys.platform != "linux", reason="the state of sessions is seen on Linux only")
def test_server_stays_while_a_session_is_at_work(folder: Path) -> None:
    """A client that only has the URL is not interrupted within a statement or transaction."""
    with Server(folder) as server:
        session = psycopg.connect(server.url())
    session.execute("select 1")
    time.sleep(2 * embedded.LINGER)
    assert session.execute("select pg_sleep(%s), 2", [2 * embedded.LINGER]).fetchone() == ("", 2)
    session.rollback()
    eventually(lambda: not has_server(folder))
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 3")


def test_server_stops_and_keeps_its_data_when_its_supervisor_is_killed(folder: Path) -> None:
    with Server(folder) as server:
        ask(server, b"create table kept as select 42 as answer")
        os.kill(int((folder / "lock").read_text()), signal.SIGKILL)
        if sys.platform == "linux":  # elsewhere the next supervisor stops it
            eventually(lambda: not has_server(folder))
    with Server(folder) as server:
        assert ask(server, b"select answer from kept") == (42,)


def test_killed_server_is_started_again_for_its_users(folder: Path) -> None:
    with Server(folder) as server:
        ask(server, b"create table kept as select 42 as answer")
        killed = postmaster(folder)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: has_server(folder) and postmaster(folder) != killed)
        server.start()
        assert ask(server, b"select answer from kept") == (42,)


@contextmanager
def orphan() -> Iterator[tuple[Machine, int]]:
    """Give a killed server whose child process is suspended. The child holds the shared memory by
    which PostgreSQL recognizes a server in the same folder."""
    with machine() as made:
        made.start()
        with closing(psycopg.connect(made.url())) as connection:
            child = connection.info.backend_pid
            os.kill(child, signal.SIGSTOP)
            assert made.process is not None
            made.process.kill()
            made.process.wait()
            yield made, child


def test_killed_server_starts_again_once_its_last_child_has_ended() -> None:
    with orphan() as (killed, child):
        ends = threading.Timer(5, os.kill, [child, signal.SIGCONT])
        ends.start()
        killed.start()
        assert not ends.is_alive()
        assert killed.running()


def test_child_of_a_killed_server_that_does_not_end_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perdure.embedded.postmaster, "FREE_WITHIN", 0.0)
    with orphan() as (killed, child):
        with pytest.raises(RuntimeError, match=rf"still uses .*\b{child}\b"):
            killed.start()
        os.kill(child, signal.SIGKILL)


def test_process_that_arrives_while_the_server_stops_gets_a_server(folder: Path) -> None:
    failures: list[Exception] = []

    def use_repeatedly() -> None:
        try:
            for _ in range(8):
                server = Server(folder)
                server.linger = 0.0
                with server:
                    assert ask(server, b"select 1") == (1,)
        except Exception as error:  # noqa: BLE001 - any error fails the test
            failures.append(error)

    threads = [threading.Thread(target=use_repeatedly) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_server_can_be_stopped_started_and_crashed() -> None:
    with Server() as server:
        ask(server, b"create table kept as select 42 as answer")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            ask(server, b"select 1")
        server.start()
        server.crash()
        server.restart()
        assert ask(server, b"select answer from kept") == (42,)


def test_temporary_server_is_fast_and_leaves_no_files() -> None:
    with Server(settings={"work_mem": "123kB"}) as server:
        assert ask(server, b"show work_mem") == ("123kB",)
        assert ask(server, b"show fsync") == ("off",)
    eventually(lambda: not server.folder.exists())


def test_sockets_and_data_are_closed_to_other_users(folder: Path) -> None:
    with Server(folder) as server:
        for part in (folder / "run", folder / "data"):
            assert part.stat().st_mode & 0o077 == 0
        assert ask(server, b"show listen_addresses") == ("",)
        methods = b"select array_agg(distinct auth_method) from pg_hba_file_rules"
        assert ask(server, methods + b" where type = 'host'") == (["reject"],)


def impostor(folder: Path, answers: Connection) -> None:
    """Answer in the place of the supervisor, with the rights of the server's account."""
    os.setuid((folder / "data").stat().st_uid)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(folder / "run" / "control"))
    listener.listen()
    answers.send("ready")
    while True:
        user, _ = listener.accept()
        while user.recv(1000):
            user.sendall(b'{"host": "/elsewhere", "bindir": "/elsewhere", "port": 1}\n')


@pytest.mark.skipif(not AS_ROOT or sys.platform != "linux", reason="another account is needed")
def test_another_account_cannot_answer_in_the_place_of_the_supervisor(folder: Path) -> None:
    """Who has taken over the server, and so its folder of sockets, could send root elsewhere."""
    with Server(folder):
        pass
    eventually(lambda: not (folder / "run" / "control").exists())
    forks = multiprocessing.get_context("fork")
    here, there = forks.Pipe()
    process = forks.Process(target=impostor, args=(folder, there), daemon=True)
    process.start()
    try:
        assert here.recv() == "ready"
        with Server(folder) as server:
            assert server.bindir.name == "bin"
            assert ask(server, b"select 1") == (1,)
    finally:
        process.kill()
        process.join()


def test_folder_with_a_path_too_long_for_a_socket_works(folder: Path) -> None:
    deep = folder / "/".join(["a-rather-long-name-of-a-folder"] * 5)
    with Server(deep) as server, Server(deep) as another:
        assert ask(server, b"select 1") == (1,)
        assert server.url() == another.url()
    eventually(lambda: not has_server(deep))


def test_folder_that_others_may_write_to_is_rejected(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ServerUnavailable, match="others may write"):
        Server(tmp_path).start()


def test_folder_that_cannot_be_created_is_reported_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerUnavailable, match="cannot be created") as refused:
        Server(tmp_path / "file" / "below").start()
    assert "PERDURE_HOME" in (refused.value.hint or "")


@pytest.mark.skipif(not AS_ROOT, reason="only root hands the server to another account")
def test_closed_parent_folder_is_not_opened_for_the_server_of_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerUnavailable, match="cannot enter"):
        Server(closed / "below").start()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_invalid_setting_is_reported() -> None:
    with pytest.raises(ServerUnavailable, match="no_such_setting"):
        Server(settings={"no_such_setting": "1"}).start()


def test_data_of_another_postgresql_version_is_rejected(folder: Path) -> None:
    with Server(folder):
        pass
    eventually(lambda: not has_server(folder))
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerUnavailable, match="written by PostgreSQL 9"):
        Server(folder).start()


def test_missing_programs_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(binaries.BINDIR, os.fspath(tmp_path))
    with pytest.raises(ServerUnavailable, match="no initdb"):
        Server().start()
    monkeypatch.delenv(binaries.BINDIR)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerUnavailable) as refused:
        Server().start()
    assert "perdure[embedded]" in (refused.value.hint or "")


def test_home_of_the_shared_server_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.HOME, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert home() == Path("/data/perdure")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/jane")
    assert home() == Path("/home/jane/.local/share/perdure")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert home() == binaries.STORE
    monkeypatch.setenv(embedded.HOME, "/elsewhere")
    assert home() == Path("/elsewhere")
