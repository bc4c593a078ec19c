"""Other tests of this project, run again under conditions that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run_tests(*chosen: str, **conditions: str) -> None:
    """Run tests in their own process; a failure there is a failure here."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    environment = {
        name: value
        for name, value in os.environ.items()
        if "PYTEST" not in name and name != "PERDURE_NOTE"
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment | conditions, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
