"""The document pipeline runs as a whole, with real workers and files (C63-C72)."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import document_pipeline
import pdf
import psycopg
import pytest
from document_pipeline import process_document
from stage import Stage

import perdure

YES = {"approved": True, "by": "jane"}
APPROVE_BY_SQL = """
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("select " + sys.argv[2] + ".signal(%s, 'approve', %s)", sys.argv[3:])
"""


@pytest.fixture
def client(
    dsn: str, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[perdure.Client]:
    """Run the pipeline's worker in this process, with an outbox of the test."""
    monkeypatch.setattr(document_pipeline, "OUTBOX", tmp_path / "outbox")
    with (
        perdure.connect(dsn, schema=schema) as client,
        perdure.Worker(document_pipeline.app, queues=["documents"], dsn=dsn, schema=schema),
    ):
        yield client


@pytest.fixture
def letter(tmp_path: Path) -> str:
    """Write a PDF file of three pages, one of them without text."""
    pages = [
        ["An offer", "", "We offer to build a bridge of stone for a good price, and soon."],
        [],
        ["Terms", "", "The price (fixed) holds for ninety days from the date of this letter."],
    ]
    return str(pdf.write(tmp_path / "letter.pdf", "An offer", pages))


def all_markers(pages: int, answer: str = "approved") -> list[str]:
    """Return all markers of a complete job, with the pages in order."""
    return [
        *("received", "pages-listed"),
        *(f"page-{number}-extracted" for number in range(1, pages + 1)),
        *("pages-extracted", "validated", "approval-requested", answer, "notified", "completed"),
    ]


def assert_each_marker_once(memory: dict[str, Any], expected: list[str]) -> None:
    """C66, C68, C70: every marker occurs once, in order; only pages may finish in any order."""
    found = memory["processingSteps"]
    assert Counter(found) == Counter(expected)
    assert [s for s in found if not s.startswith("page-")] == [
        s for s in expected if not s.startswith("page-")
    ]
    assert found.index("pages-extracted") > max(
        place for place, step in enumerate(found) if step.startswith("page-")
    )


def approve_from_another_process(dsn: str, schema: str, job: str) -> None:
    """Send the approval by plain SQL, from a process that does not know the pipeline."""
    arguments = [sys.executable, "-c", APPROVE_BY_SQL, dsn, schema, job, json.dumps(YES)]
    subprocess.run(arguments, check=True)


def wait_until(client: perdure.Client, job: str, status: str) -> None:
    """Wait until the memory has this status."""
    deadline = time.monotonic() + 20
    while client.entity(job).get("status") != status:
        assert time.monotonic() < deadline, client.entity(job).get()
        time.sleep(0.02)


def test_document_is_extracted_validated_approved_and_notified(
    client: perdure.Client,
    connection: psycopg.Connection,
    dsn: str,
    schema: str,
    letter: str,
    tmp_path: Path,
) -> None:
    """C63-C72: the approval comes from another process."""
    handle = client.start(process_document, letter, id="letter")
    wait_until(client, "letter", "awaiting-approval")
    assert client.entity("letter").get("validation") == {
        "valid": False,
        "problems": ["page 2 has no text"],
    }
    approve_from_another_process(dsn, schema, "letter")
    memory = handle.result(timeout="30 s")

    assert memory["status"] == "completed"
    assert memory["approval"] == {"approved": True, "by": "jane", "reason": None}  # C65: nulls
    assert memory["metadata"]["title"] == "An offer"
    assert memory["pageRefs"] == pdf.page_refs(letter)
    for number, ref in enumerate(memory["pageRefs"], start=1):  # C67
        page = memory["pages"][str(number)]
        assert page == {**pdf.read_page(ref), "documentId": memory["documentId"]}
        assert (page["ref"], page["number"]) == (ref, number)
    assert memory["pages"]["1"]["summary"].startswith("We offer to build a bridge")
    assert memory["pages"]["2"]["summary"] is None
    assert memory["finalResult"]["approvedBy"] == "jane"
    assert_each_marker_once(memory, all_markers(3))
    sent = json.loads((tmp_path / "outbox" / f"{memory['documentId']}.json").read_text())
    assert sent == {"documentId": memory["documentId"], "approval": memory["approval"]}

    # C72: one history shows every version and its author.
    life = connection.execute(
        f"select version, task from {schema}.history"
        " where job_id = 'letter' and version is not null order by version"
    ).fetchall()
    assert [version for version, _ in life] == list(range(1, len(life) + 1))
    writers = {task.rpartition("/")[2] for _, task in life}
    pages = {f"extraction#{number}" for number in (1, 2, 3)}  # C71
    assert writers == {"main", *pages, "validation#1", "approval#1", "notification#1"}


def test_pipeline_runs_without_arguments(client: perdure.Client) -> None:
    """C63: the pages come from an activity; an early approval waits in the inbox."""
    handle = client.start(process_document)
    handle.signal("approve", YES)
    memory = handle.result(timeout="30 s")
    assert memory["status"] == "completed"
    assert memory["validation"] == {"valid": True, "problems": []}
    assert_each_marker_once(memory, all_markers(len(memory["pageRefs"])))


def test_document_without_pages_fails_with_a_message(
    client: perdure.Client, tmp_path: Path
) -> None:
    """C64: result() raises the error of the coordinator, and the memory remains."""
    file = str(pdf.write(tmp_path / "none.pdf", "None", []))
    handle = client.start(process_document, file)
    with pytest.raises(perdure.JobFailed, match=r"the document has no pages: .*none\.pdf"):
        handle.result(timeout="30 s")
    assert handle.memory.get("processingSteps") == ["received"]


def test_file_that_is_not_a_pdf_fails_with_a_message(
    client: perdure.Client, tmp_path: Path
) -> None:
    """C64: result() also raises the error of an activity."""
    (tmp_path / "empty.pdf").touch()
    handle = client.start(process_document, str(tmp_path / "empty.pdf"))
    with pytest.raises(perdure.JobFailed, match="empty file"):
        handle.result(timeout="30 s")


def test_document_is_not_approved_when_the_answer_times_out(
    client: perdure.Client, letter: str
) -> None:
    """C40, C68: the timeout is recorded like an answer."""
    memory = client.start(process_document, letter, "0.2 s").result(timeout="30 s")
    assert memory["status"] == "not-approved"
    assert memory["approval"] == {
        "approved": False,
        "by": None,
        "reason": "no answer within 0.2 s",
    }
    assert_each_marker_once(memory, all_markers(3, answer="not-approved"))


def test_document_is_not_approved_when_a_person_refuses(
    client: perdure.Client, letter: str
) -> None:
    """C68: a refusal ends the job like an approval, with its reason."""
    handle = client.start(process_document, letter)
    handle.signal("approve", {"approved": False, "by": "joe", "reason": "page 2"})
    memory = handle.result(timeout="30 s")
    assert memory["status"] == "not-approved"
    assert memory["approval"] == {"approved": False, "by": "joe", "reason": "page 2"}


def test_hook_that_fails_after_its_marker_does_not_repeat_it(
    client: perdure.Client, letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C70: three hooks fail once after their marker, and are retried."""
    broken: set[str] = set()
    append = perdure.AsyncEntity.append

    async def append_and_break(memory: perdure.AsyncEntity, path: str, *items: str) -> int:
        length = await append(memory, path, *items)
        if items[0] in {"page-1-extracted", "validated", "notified"} - broken:
            broken.add(items[0])
            raise ConnectionResetError(f"broken behind {items[0]}")
        return length

    monkeypatch.setattr(perdure.AsyncEntity, "append", append_and_break)
    handle = client.start(process_document, letter)
    handle.signal("approve", YES)
    assert_each_marker_once(handle.result(timeout="30 s"), all_markers(3))
    assert broken == {"page-1-extracted", "validated", "notified"}


def test_markers_occur_once_though_the_worker_is_killed(
    dsn: str, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C70, C4: after kill -9 among the pages, no recorded page is read again."""
    monkeypatch.setenv("PERDURE_EXAMPLE_OUTBOX", str(tmp_path / "outbox"))
    pages = [["This page holds some twenty words, more or less."] * 8 * n for n in range(1, 7)]
    file = str(pdf.write(tmp_path / "six.pdf", "Six pages", pages))
    stage = Stage(dsn, schema, "document_pipeline", "documents", tmp_path, pace=0.1)
    with perdure.connect(dsn, schema=schema) as client, stage:
        stage.start_worker()
        handle = client.start(process_document, file, id="six")
        handle.signal("approve", YES)
        stage.watch("six", str, until=lambda memory: memory["pages"])
        stage.kill_worker()
        _, at_the_kill, _ = stage.look("six")
        stage.start_worker()
        memory = handle.result(timeout="30 s")

    assert_each_marker_once(memory, all_markers(6))
    assert memory["documentId"] == at_the_kill["documentId"]  # C59, and in every page's record:
    assert {page["documentId"] for page in memory["pages"].values()} == {memory["documentId"]}
    assert at_the_kill["pages"].items() <= memory["pages"].items()
    recorded = {f"read {page['ref']}" for page in at_the_kill["pages"].values()}
    assert not recorded & set(stage.executed()[1])
    assert sum(executed.total() for executed in stage.executed()) >= 6 + 1
