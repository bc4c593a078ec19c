"""All commands in `sql/upgrading.md` run as written, in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import perdure
from perdure.embedded.server import Server

PAGE = Path(__file__).parents[2] / "sql" / "upgrading.md"


def test_every_command_of_the_page_runs(extended: Server, tmp_path: Path) -> None:
    program = tmp_path / "perdure"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    program.chmod(0o755)
    (tmp_path / "my_module.py").write_text("import perdure\n\napp = perdure.App()\n")
    place = dict(pair.split("=") for pair in extended.url().partition("?")[2].split("&"))
    environment = os.environ | {
        "PATH": os.pathsep.join(
            [os.fspath(tmp_path), os.fspath(extended.bindir), os.environ["PATH"]]
        ),
        "PYTHONPATH": os.fspath(Path(perdure.__file__).parents[1]),
        "PYTHONHASHSEED": "0",
        "PGHOST": place["host"],
        "PGPORT": place["port"],
        "PGUSER": "postgres",
    }
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for line in re.findall(r"# → (.*)", "\n".join(blocks)):
        assert line in ran.stdout.splitlines()
    assert "this app is a copy that nobody has adopted" in ran.stderr
    assert "this app is not the instance that the worker was told to serve" in ran.stderr
