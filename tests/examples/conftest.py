"""The examples are modules in one folder, which import each other by name."""

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
    """Ignore an API key in the environment of the person who runs the tests."""
    for name in MODEL_SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def same_perdure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that a test starts import the same package as the test, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(PYTHON))
