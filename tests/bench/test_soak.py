"""The soak on a small amount, where counts hold on every machine. `make soak` has the full
sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOAK = Path(__file__).with_name("soak.py")
AMOUNT = "0.002"


def soaked(folder: Path, *parts: str) -> list[dict[str, Any]]:
    """Run parts of the soak on their own server; return their goals."""
    file = folder / "soak.json"
    command = [sys.executable, SOAK, "--amount", AMOUNT, "--json", file, "--only", *parts]
    subprocess.run(command, check=True, timeout=120, cwd=folder)
    goals: list[dict[str, Any]] = json.loads(file.read_text())
    return goals


@pytest.mark.direct("it has a server of its own")
@pytest.mark.parametrize(
    ("parts", "least"),
    [(("growth",), 10), (("backlog", "retention"), 9), (("hints",), 4), (("crowd",), 12)],
    ids=["growth", "backlog and retention", "hints", "crowd"],
)
def test_counted_goals_of_the_soak_are_met(
    tmp_path: Path, parts: tuple[str, ...], least: int
) -> None:
    """(T22) Nothing grows, nothing is left behind, and no call reads more than it needs."""
    goals = [goal for goal in soaked(tmp_path, *parts) if goal["counted"]]
    assert len(goals) >= least
    assert [goal for goal in goals if not goal["is_met"]] == []
