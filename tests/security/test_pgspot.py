"""pgspot reads the script as an attacker would: paths, names, what it creates (S1) (S3)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perdure import script

# What commits can have no settings of its own; it names everything in full.
ALLOWED = ["extschema.run_sql_hooks(max_tasks integer,INOUT ran integer)"]


def test_pgspot_finds_nothing(tmp_path: Path) -> None:
    """Bodies are left to plpgsql_check, which knows composite variables; pgspot does not."""
    pytest.importorskip("pgspot", reason="pgspot is not there: pip install 'perdure[lint]'")
    install = tmp_path / "perdure.sql"
    made = "create schema extschema;\nset search_path = pg_catalog, pg_temp;\n"
    install.write_text(made + script.render(script.parts()), "utf-8")
    command = [sys.executable, "-m", "pgspot", "--no-plpgsql", str(install)]
    for name in ALLOWED:
        command += ["--proc-without-search-path", name]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "Errors: 0 Warnings: 0 Unknown: 0"
    assert told.returncode == 0, told.stderr
