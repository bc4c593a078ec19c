"""A worker whose database does not answer yet says so, and can be stopped."""

from __future__ import annotations

import logging
import threading

import pytest

import perdure

NOWHERE = "postgresql://postgres@127.0.0.1:1/nowhere"
IN_TIME = 20.0


def test_a_worker_that_cannot_register_yet_says_so_and_stops(
    app: perdure.App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said nothing, and heard neither `stop()` nor SIGTERM until the database was there."""
    has_said = threading.Event()
    warn = logging.getLogger("perdure.worker").warning

    def warning(text: str, *args: object) -> None:
        warn(text, *args)
        has_said.set()

    monkeypatch.setattr(logging.getLogger("perdure.worker"), "warning", warning)
    worker = perdure.Worker(app, dsn=NOWHERE, provision=False)
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    assert has_said.wait(IN_TIME)
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(IN_TIME)
    starting.join(IN_TIME)
    assert not stopping.is_alive()
    assert not starting.is_alive()
    assert "the database does not answer" in caplog.text
