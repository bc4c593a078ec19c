"""Take a PDF document through extraction, validation, approval and notification.

    perdure worker document_pipeline:app --queue documents --schema examples
    python document_pipeline.py [FILE.pdf]                                # or all in one process

A hook for each page, all at the same time; a person approves by a signal from anywhere:

    perdure signal doc-17 approve '{"approved": true, "by": "jane"}' --schema examples
    select examples.signal('doc-17', 'approve', '{"approved": true, "by": "jane"}');

`processingSteps` tells the whole life in order. A marker is a command, and a command is applied
once, however often its hook is started again.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

import pdf
from pdf import Metadata, Page

import perdure

OUTBOX = Path(os.environ.get("PERDURE_EXAMPLE_OUTBOX", f"{tempfile.gettempdir()}/perdure-outbox"))
PACE = float(os.environ.get("PERDURE_EXAMPLE_PACE", "0"))  # seconds for 100 words

log = logging.getLogger("document_pipeline")
app = perdure.App()


class Decision(TypedDict):
    """What a person answered; `by` is null when nobody did."""

    approved: bool
    by: str | None
    reason: str | None


@app.activity
def list_pages(file: str | None) -> list[str]:
    """Return a reference for every page of the document (of a sample where none is named)."""
    return pdf.page_refs(file or pdf.sample())


@app.activity
def read_metadata(page_ref: str) -> Metadata:
    """Return what the document of this page says about itself."""
    return pdf.metadata(page_ref.rpartition("#page=")[0])


@app.activity(retries=2, timeout="2 min")
def read_page(ref: str) -> Page:
    """Extract one page."""
    log.info("read %s", ref)
    page = pdf.read_page(ref)
    time.sleep(PACE * page["words"] / 100)
    return page


@app.activity(retries=5)
def notify(document_id: str, message: dict[str, Any]) -> str:
    """Leave a message in the outbox. It has the document's name, so that twice is once."""
    log.info("notify %s", document_id)
    OUTBOX.mkdir(parents=True, exist_ok=True)
    letter = OUTBOX / f"{document_id}.json"
    letter.write_text(json.dumps(message, indent=2), "utf-8")
    return str(letter)


@app.hook(queue="documents", retries=2)
async def extraction(memory: perdure.AsyncEntity, ref: str, number: int, document_id: str) -> None:
    """Extract one page into its own place in the memory."""
    page = await read_page(ref)
    await memory.merge({"pages": {str(number): {**page, "documentId": document_id}}})
    await memory.append("processingSteps", f"page-{number}-extracted")


@app.hook(queue="documents", retries=2)
async def validation(memory: perdure.AsyncEntity) -> None:
    """Look for pages without text and for pages that stand there twice."""
    pages: list[Page] = list((await memory.get("pages")).values())
    pages.sort(key=lambda page: page["number"])
    first_with = {page["sha256"]: page["number"] for page in reversed(pages)}
    problems = [f"page {page['number']} has no text" for page in pages if not page["words"]] + [
        f"page {page['number']} repeats page {first_with[page['sha256']]}"
        for page in pages
        if page["words"] and first_with[page["sha256"]] != page["number"]
    ]
    await memory.merge({"validation": {"valid": not problems, "problems": problems}})
    await memory.append("processingSteps", "validated")


@app.hook(queue="documents", retries=2)
async def approval(memory: perdure.AsyncEntity, within: str) -> Decision:
    """Wait for a person's answer; nobody's answer within the time is a no."""
    await memory.merge({"status": "awaiting-approval"})
    await memory.append("processingSteps", "approval-requested")
    try:
        answer = await perdure.wait_for("approve", timeout=within)
        decision = Decision(
            approved=answer["approved"] is True, by=answer.get("by"), reason=answer.get("reason")
        )
    except TimeoutError:
        decision = Decision(approved=False, by=None, reason=f"no answer within {within}")
    await memory.merge({"approval": decision})
    await memory.append("processingSteps", "approved" if decision["approved"] else "not-approved")
    return decision


@app.hook(queue="documents", retries=2)
async def notification(memory: perdure.AsyncEntity, document_id: str) -> None:
    """Tell the outside world how it went."""
    message = {"documentId": document_id, "approval": await memory.get("approval")}
    await memory.merge({"notification": {"letter": await notify(document_id, message)}})
    await memory.append("processingSteps", "notified")


@app.coordinator(entity="document", queue="documents")
async def process_document(
    memory: perdure.AsyncEntity, file: str | None = None, approve_within: str = "2 d"
) -> dict[str, Any]:
    """Seed the memory, send out a hook for each page, then one step after the other."""
    received_at = perdure.now()
    document_id = f"doc-{received_at:%Y%m%d-%H%M%S-%f}"
    await memory.set(
        {
            "documentId": document_id,
            "receivedAt": received_at.isoformat(),
            "status": "extracting",
            "pages": {},
            "validation": None,
            "approval": None,
            "finalResult": None,
            "processingSteps": ["received"],
        }
    )
    refs = await list_pages(file)
    if not refs:
        raise ValueError(f"the document has no pages: {file}")
    await memory.merge({"pageRefs": refs, "metadata": await read_metadata(refs[0])})
    await memory.append("processingSteps", "pages-listed")
    await asyncio.gather(
        *(extraction(memory, ref, number, document_id) for number, ref in enumerate(refs, start=1))
    )
    await memory.append("processingSteps", "pages-extracted")
    await validation(memory)
    decision = await approval(memory, approve_within)
    await notification(memory, document_id)
    words = sum(page["words"] for page in (await memory.get("pages")).values())
    result = {"pages": len(refs), "words": words, "approvedBy": decision["by"]}
    await memory.merge(
        {"status": "completed" if decision["approved"] else "not-approved", "finalResult": result}
    )
    await memory.append("processingSteps", "completed")
    snapshot: dict[str, Any] = await memory.get()
    return snapshot


if __name__ == "__main__":
    with (
        perdure.connect(schema="examples") as client,
        perdure.Worker(app, queues=["documents"], schema="examples"),
    ):
        handle = client.start(process_document, next(iter(sys.argv[1:]), None))
        handle.signal("approve", {"approved": True, "by": "the person who ran this script"})
        print(json.dumps(handle.result(timeout="5 min"), indent=2))
