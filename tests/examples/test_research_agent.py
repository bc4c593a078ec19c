"""The research agent runs as a whole (C54-C62), also across a kill -9 (C3, C4, C59)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import research_agent
import text
from stage import Stage

import perdure

SIDES = ("optimistic", "skeptical")


@pytest.fixture
def client(dsn: str, schema: str) -> Iterator[perdure.Client]:
    """Run the agent's worker in this process."""
    with (
        perdure.connect(dsn, schema=schema) as client,
        perdure.Worker(research_agent.app, queues=["agents"], dsn=dsn, schema=schema),
    ):
        yield client


def history(connection: psycopg.Connection, schema: str, job: str) -> list[dict[str, Any]]:
    """Read all changes with their authors, oldest first."""
    rows = connection.execute(
        f"select version, task, op, argument from {schema}.journal"
        " where job_id = %s and version is not null order by version",
        [job],
    )
    names = ("version", "task", "op", "argument")
    return [dict(zip(names, row, strict=True)) for row in rows]


def writer(row: dict[str, Any]) -> str:
    """Return the function that wrote a change: `1/main/optimistic#1` is `optimistic`."""
    return str(row["task"]).rpartition("/")[2].partition("#")[0]


def test_agent_completes_its_memory_and_returns_it(
    client: perdure.Client, connection: psycopg.Connection, schema: str
) -> None:
    """C54-C57, C60-C62: seed, three hooks at once, then a synthesis; the result is the memory."""
    handle = client.start(research_agent.research, research_agent.QUESTION, id="agent-jane-001")
    memory = handle.result(timeout="30 s")

    assert memory["query"] == research_agent.QUESTION
    assert memory["status"] == "completed"
    assert set(memory["perspectives"]) == {*SIDES, "synthesis"}
    assert memory["verification"]["supporting"] + memory["verification"]["contradicting"] > 0
    row = connection.execute(
        f"select context, version from {schema}.jobs where id = 'agent-jane-001'"
    ).fetchone()
    assert row is not None
    assert memory == row[0]

    changes = history(connection, schema, handle.id)
    assert [entry["version"] for entry in changes] == list(range(1, row[1] + 1))
    assert {writer(entry) for entry in changes} == {"main", *SIDES, "verification", "synthesis"}

    # C61: one merge writes the conclusion and the status, and leaves the rest as it was.
    concluded = [entry for entry in changes if writer(entry) == "synthesis"]
    assert [entry["op"] for entry in concluded] == ["merge"]
    assert concluded[0]["argument"] == {
        "perspectives": {"synthesis": memory["perspectives"]["synthesis"]},
        "status": "completed",
    }
    assert set(memory["perspectives"]["synthesis"]) == {"finalAssessment", "confidence"}
    for side in SIDES:
        case = next(e for e in changes if writer(e) == side and e["op"] == "merge")["argument"]
        assert case["perspectives"][side].items() <= memory["perspectives"][side].items()
        assert memory["perspectives"][side]["documentsRead"] == len(memory["sources"])


def test_every_quote_occurs_in_the_source_that_it_names(client: perdure.Client) -> None:
    """C60: the verification is true, and the assessment quotes verified text of both sides."""
    memory = client.start(research_agent.research, research_agent.QUESTION).result(timeout="30 s")
    shelf = text.library()
    checks = memory["verification"]["checks"]
    assert checks
    for check in checks:
        assert check["verbatim"]
        assert check["text"] in text.plain(shelf.documents[check["source"]])
    quoted = [
        c for c in checks if c["text"] in memory["perspectives"]["synthesis"]["finalAssessment"]
    ]
    assert {check["stance"] for check in quoted} == set(SIDES)
    assert 0 < memory["perspectives"]["synthesis"]["confidence"] <= 1


def test_hooks_write_adjacent_subtrees_at_the_same_time(
    client: perdure.Client,
    connection: psycopg.Connection,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C55, C62: the changes of the two hooks interleave."""
    monkeypatch.setattr(research_agent, "PACE", 0.02)
    handle = client.start(research_agent.research, research_agent.QUESTION)
    handle.result(timeout="30 s")
    changes = history(connection, schema, handle.id)
    spans = [[e["version"] for e in changes if writer(e) == side] for side in SIDES]
    assert max(map(min, spans)) < min(map(max, spans))


def test_agent_answers_from_a_given_folder(client: perdure.Client, tmp_path: Path) -> None:
    """Its sources are only the files in that folder."""
    (tmp_path / "for.txt").write_text("Night trains are reliable and convenient for long journeys.")
    (tmp_path / "against.md").write_text("However, night trains are slow and expensive to run.")
    question = "Are night trains worth it?"
    memory = client.start(research_agent.research, question, str(tmp_path)).result(timeout="30 s")
    assert set(memory["sources"]) == {"for.txt", "against.md"}
    assessment = memory["perspectives"]["synthesis"]["finalAssessment"]
    assert "reliable and convenient for long journeys.” (for.txt)" in assessment
    assert "slow and expensive to run.” (against.md)" in assessment


def test_question_outside_the_library_gets_no_confidence(
    client: perdure.Client, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("Storks build their nests on the roofs of old houses.")
    memory = client.start(research_agent.research, "Do zeppelins dream?", str(tmp_path)).result(
        timeout="30 s"
    )
    assert memory["perspectives"]["synthesis"]["confidence"] == 0
    assert memory["status"] == "completed"


def test_result_raises_the_error_about_a_missing_folder(
    client: perdure.Client, tmp_path: Path
) -> None:
    handle = client.start(research_agent.research, "Why?", str(tmp_path / "missing"))
    with pytest.raises(perdure.JobFailed, match="no such folder"):
        handle.result(timeout="30 s")


def test_killed_worker_loses_and_repeats_nothing_that_was_recorded(
    dsn: str, schema: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """C3, C4, C59: after kill -9 in the middle, the memory equals that of an undisturbed run."""

    def readings(memory: dict[str, Any]) -> int:
        sides = (memory["perspectives"].get(side, {}) for side in SIDES)
        return sum(side.get("documentsRead", 0) for side in sides)

    stage = Stage(dsn, schema, "research_agent", "agents", tmp_path, pace=0.1)
    with perdure.connect(dsn, schema=schema) as client, stage:
        stage.start_worker()
        whole = client.start(research_agent.research, research_agent.QUESTION, id="whole")
        stage.watch("whole", str)
        undisturbed = whole.result(timeout="30 s")
        before = stage.executed()[0]

        handle = client.start(research_agent.research, research_agent.QUESTION, id="killed")
        stage.watch("killed", str, until=lambda memory: readings(memory) >= 4)
        stage.kill_worker()
        _, at_the_kill, _ = stage.look("killed")
        recorded = recorded_readings(connection, schema, "killed")
        stage.start_worker()
        memory = handle.result(timeout="30 s")

    asked_at = memory.pop("askedAt")
    assert asked_at == at_the_kill["askedAt"]  # C59
    undisturbed.pop("askedAt")
    assert memory == undisturbed  # C4: nothing twice, nothing lost
    assert 4 <= len(recorded) < 16
    assert not recorded & set(stage.executed()[1])  # C4: what was recorded is not done again
    assert before.total() == 16
    assert (stage.executed()[0] + stage.executed()[1]).total() <= 2 * 16 + len(SIDES)


def recorded_readings(connection: psycopg.Connection, schema: str, job: str) -> set[str]:
    """Return the readings that are recorded, as the activity logs them."""
    sources = connection.execute(
        f"select context->'sources' from {schema}.jobs where id = %s", [job]
    ).fetchone()
    counted = connection.execute(
        f"select task, count(*) from {schema}.journal"
        " where job_id = %s and kind = 'activity' and name = 'read' group by task",
        [job],
    ).fetchall()
    assert sources is not None
    return {
        f"read {source}, {task.rpartition('/')[2].partition('#')[0]}"
        for task, count in counted
        for source in sources[0][:count]
    }
