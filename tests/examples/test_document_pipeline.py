"""The document pipeline, run for real (C63-C72)."""

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
    """Run the pipeline's worker in this process, with an outbox of its own."""
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


def steps(pages: int, answer: str = "approved") -> list[str]:
    """Return the markers of a whole life, the pages in order."""
    return [
        *("received", "pages-listed"),
        *(f"page-{number}-extracted" for number in range(1, pages + 1)),
        *("pages-extracted", "validated", "approval-requested", answer, "notified", "completed"),
    ]


def assert_each_marker_once(memory: dict[str, Any], expected: list[str]) -> None:
    """C66, C68, C70: every marker once; in order, but that pages end as they like."""
    found = memory["processingSteps"]
    assert Counter(found) == Counter(expected)
    assert [s for s in found if not s.startswith("page-")] == [
        s for s in expected if not s.startswith("page-")
    ]
    assert found.index("pages-extracted") > max(
        place for place, step in enumerate(found) if step.startswith("page-")
    )


def approve_from_another_process(dsn: str, schema: str, job: str) -> None:
    """Send the answer by plain SQL, from a process that knows nothing of the pipeline."""
    arguments = [sys.executable, "-c", APPROVE_BY_SQL, dsn, schema, job, json.dumps(YES)]
    subprocess.run(arguments, check=True)


def wait_until(client: perdure.Client, job: str, status: str) -> None:
    """Wait until the memory has this status."""
    deadline = time.monotonic() + 20
    while client.entity(job).get("status") != status:
        assert time.monotonic() < deadline, client.entity(job).get()
        time.sleep(0.02)


def test_a_document_of_the_user_goes_its_whole_way(
    client: perdure.Client,
    connection: psycopg.Connection,
    dsn: str,
    schema: str,
    letter: str,
    tmp_path: Path,
) -> None:
    """C63-C72: pages, extraction, validation, approval from another process, notification."""
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
    assert_each_marker_once(memory, steps(3))
    sent = json.loads((tmp_path / "outbox" / f"{memory['documentId']}.json").read_text())
    assert sent == {"documentId": memory["documentId"], "approval": memory["approval"]}

    # C72: one record tells the whole life, version by version, and who wrote each.
    life = connection.execute(
        f"select version, task from {schema}.history"
        " where job_id = 'letter' and version is not null order by version"
    ).fetchall()
    assert [version for version, _ in life] == list(range(1, len(life) + 1))
    writers = {task.rpartition("/")[2] for _, task in life}
    pages = {f"extraction#{number}" for number in (1, 2, 3)}  # C71
    assert writers == {"main", *pages, "validation#1", "approval#1", "notification#1"}


def test_it_needs_no_arguments(client: perdure.Client) -> None:
    """C63: the pages come from an activity; an approval that comes early waits in the inbox."""
    handle = client.start(process_document)
    handle.signal("approve", YES)
    memory = handle.result(timeout="30 s")
    assert memory["status"] == "completed"
    assert memory["validation"] == {"valid": True, "problems": []}
    assert_each_marker_once(memory, steps(len(memory["pageRefs"])))


def test_a_document_without_pages_fails_with_its_message(
    client: perdure.Client, tmp_path: Path
) -> None:
    """C64: result() raises the message; the memory outlives the run."""
    file = str(pdf.write(tmp_path / "none.pdf", "None", []))
    handle = client.start(process_document, file)
    with pytest.raises(perdure.JobFailed, match=r"the document has no pages: .*none\.pdf"):
        handle.result(timeout="30 s")
    assert handle.memory.get("processingSteps") == ["received"]


def test_a_file_that_is_no_pdf_fails_with_the_reason(
    client: perdure.Client, tmp_path: Path
) -> None:
    """C64: so does what an activity finds."""
    (tmp_path / "empty.pdf").touch()
    handle = client.start(process_document, str(tmp_path / "empty.pdf"))
    with pytest.raises(perdure.JobFailed, match="empty file"):
        handle.result(timeout="30 s")


def test_nobody_answers_in_time(client: perdure.Client, letter: str) -> None:
    """C40, C68: the wait has an end, which is told like an answer."""
    memory = client.start(process_document, letter, "0.2 s").result(timeout="30 s")
    assert memory["status"] == "not-approved"
    assert memory["approval"] == {
        "approved": False,
        "by": None,
        "reason": "no answer within 0.2 s",
    }
    assert_each_marker_once(memory, steps(3, answer="not-approved"))


def test_a_person_says_no(client: perdure.Client, letter: str) -> None:
    """C68: a no is an answer too."""
    handle = client.start(process_document, letter)
    handle.signal("approve", {"approved": False, "by": "joe", "reason": "page 2"})
    memory = handle.result(timeout="30 s")
    assert memory["status"] == "not-approved"
    assert memory["approval"] == {"approved": False, "by": "joe", "reason": "page 2"}


def test_a_hook_that_fails_after_its_marker_leaves_it_once(
    client: perdure.Client, letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C70: every hook is broken once behind its marker and tried again."""
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
    assert_each_marker_once(handle.result(timeout="30 s"), steps(3))
    assert broken == {"page-1-extracted", "validated", "notified"}


def test_a_killed_worker_leaves_every_marker_once(
    dsn: str, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C70, C4: kill -9 among the pages; no recorded page is read again."""
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

    assert_each_marker_once(memory, steps(6))
    assert memory["documentId"] == at_the_kill["documentId"]  # C59, and in every page's record:
    assert {page["documentId"] for page in memory["pages"].values()} == {memory["documentId"]}
    assert at_the_kill["pages"].items() <= memory["pages"].items()
    recorded = {f"read {page['ref']}" for page in at_the_kill["pages"].values()}
    assert not recorded & set(stage.executed()[1])
    assert sum(executed.total() for executed in stage.executed()) >= 6 + 1
