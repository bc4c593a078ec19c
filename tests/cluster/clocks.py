"""Wrong clocks: libfaketime gives a process another time, which can change while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def library() -> str:
    """Find libfaketime; skip the test if the machine has none."""
    for found in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return os.fspath(found)
    pytest.skip("there is no libfaketime here: apt-get install faketime")


class Clock:
    """The clock of a server that was started `with clock.told():`."""

    def __init__(self, file: Path):
        self._file = file
        self.set("+0")
        file.chmod(0o644)

    def set(self, offset: str) -> None:
        """Change the time from now on: `+7200`, `-1800`, or `+0 x10`."""
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        new.chmod(0o644)
        new.replace(self._file)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Apply this clock to processes that start meanwhile."""
        before = dict(os.environ)
        os.environ |= {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": os.fspath(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
