"""The examples are modules that stand side by side, as a newcomer would lay them out."""

import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2] / "python"
sys.path.insert(0, str(PYTHON / "examples"))

MODEL_SETTINGS = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL"),
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"),
)


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a key in the tester's environment from being used."""
    for name in MODEL_SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def same_perdure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that a test starts import what the test imports, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(PYTHON))
