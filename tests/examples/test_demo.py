"""The demo runs in every form that it offers, and what it prints is true (C2, C3, C6, C72)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import demo
import pdf
import psycopg
import pytest
import text
from stage import connected

from perdure.installation import script
from perdure.installation.install import install


def watch_demo(dsn: str, outbox: Path, *switches: str) -> str:
    """Run the demo as `make demo` does, and return what it printed."""
    run = subprocess.run(
        [sys.executable, demo.__file__, *switches],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ
        | {"PERDURE_DATABASE_URL": dsn, "PERDURE_EXAMPLE_OUTBOX": str(outbox)}
        | {"PERDURE_EXAMPLE_PACE": "0.08"},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_demo_prints_progress_answer_memory_and_history(dsn: str, tmp_path: Path) -> None:
    """C2, C6: one command shows all of it, with the SQL to read more."""
    printed = watch_demo(dsn, tmp_path)
    assert len(re.findall(r"^ +[\d.]+ s  version \d+", printed, re.MULTILINE)) > 3
    assert '"status": "completed"' in printed
    for part in ("optimistic", "skeptical", "verification", "synthesis", "Confidence 0."):
        assert part in printed
    assert f"select jsonb_pretty(context) from {demo.SCHEMA}.jobs" in printed
    quotes = re.findall(
        r"“(.+?)” \((python/[\w-]+)\)", text.plain(printed.partition("The answer")[2])
    )
    assert len(quotes) >= 2
    assert all(text.library().holds(quote, source) for quote, source in quotes)


def test_demo_answers_from_a_given_folder_though_its_worker_is_killed(
    dsn: str, tmp_path: Path
) -> None:
    """C3: the answer quotes the files in the folder."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for number in range(6):
        passages = (
            f"Night train number {number} is reliable and convenient.\n\n"
            f"However, night train number {number} is slow and expensive."
        )
        (shelf / f"{number}.txt").write_text(passages)
    printed = watch_demo(
        dsn, tmp_path, "--crash", "--folder", str(shelf), "--question", "Are night trains good?"
    )
    assert "kill -9" in printed
    assert "What the crash has cost" in printed
    quote = r"Night train number \d is reliable and convenient\.” \(\d\.txt\)"
    assert re.search(quote, text.plain(printed))


def test_demo_processes_a_given_pdf_though_its_worker_is_killed(dsn: str, tmp_path: Path) -> None:
    """C70, C72: another process approves; each marker occurs once in the history printed."""
    pages = [["This page holds some twenty words, more or less."] * 8 * n for n in range(1, 5)]
    file = str(pdf.write(tmp_path / "mine.pdf", "Mine", pages))
    printed = watch_demo(dsn, tmp_path, "--crash", "--pdf", file)
    life = text.plain(printed.partition("Its life")[2]).split(" → ")
    markers = [marker.split()[-1] for marker in life[:-1]]
    assert len(markers) == len(set(markers)) == 4 + 7
    assert "kill -9" in printed
    assert "approve '{" in printed
    assert list(tmp_path.glob("doc-*.json"))


def test_demo_leaves_schemas_of_other_builds_alone(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shared server keeps apps of earlier builds, whose tables may differ."""
    source = Path(shutil.copytree(str(script.source()), tmp_path / "sql"))
    with (source / "schema" / "settings.sql").open("a") as opened:
        opened.write("create table @extschema@.other ();\n")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema in ("demo", "demo_2"):
            install(connection, schema, source=source)
    for note in ("first", "second"):
        with connected(dsn, "demo") as (client, schema):
            assert schema == "demo_3"
            client.create_entity(note, "note")
        assert "schema demo_2 is left alone: the tables" in capsys.readouterr().out
