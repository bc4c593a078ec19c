"""Small disks: a folder of limited size, which can be filled and freed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

import pytest

from perdure.embedded import binaries

PIECE = b"\0" * 65536


class Disk:
    """A disk in memory; `fill()` takes the room that is left."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room for anything."""
        with self._ballast.open("ab", buffering=0) as ballast:
            size = len(PIECE)
            while size:
                try:
                    ballast.write(PIECE[:size])
                except OSError as error:
                    if error.errno != ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Free the room again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def disk(megabytes: int) -> Iterator[Disk]:
    """Mount a small disk; skip the test if that is not allowed."""
    account = binaries.account(Path("/nowhere"))
    with tempfile.TemporaryDirectory(prefix="perdure-") as parent:
        Path(parent).chmod(0o711)
        folder = Path(parent) / "disk"
        folder.mkdir()
        options = f"size={megabytes}m,mode=0700"
        mount = ["mount", "-t", "tmpfs", "-o", options, "perdure", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only who may mount can make a small disk")
        try:
            if account is not None:
                shutil.chown(folder, account)
            yield Disk(folder)
        finally:
            with suppress(OSError):
                subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
