"""Research a question in a library of text: three hooks work at the same time, a fourth concludes.

    perdure worker research_agent:app --queue agents --schema examples       # any number of these
    python research_agent.py "Is it safe to ...?" [FOLDER OF TEXT]   # or all in one process

The coordinator is thin: it seeds the memory, fans out, waits and returns. The hooks are stateless:
whatever they find, they write into the memory. The activities do the work, and what one returned
is recorded: a worker that is killed in the middle costs no document a second reading.
"""

import asyncio
import logging
import os
import sys
import time
from typing import Any

import model
import reasoning
import text
from reasoning import Balance, Case, Check
from text import Passage

import perdure

QUESTION = "Is it safe to rely on the order of dictionary keys?"
PACE = float(os.environ.get("PERDURE_EXAMPLE_PACE", "0"))  # seconds a reading takes, to watch it

log = logging.getLogger("research_agent")
app = perdure.App()
asking_a_model = perdure.Retry(attempts=4, delay=1.0, never=(model.ModelRefused,))


@app.activity
def choose_sources(question: str, folder: str | None) -> list[str]:
    """Return the documents that say most about the question, best first."""
    return text.library(folder).best_sources(question, at_most=8)


@app.activity
def read(source: str, question: str, stance: str, folder: str | None) -> list[Passage]:
    """Return what a document says to the question, seen with one stance."""
    log.info("read %s, %s", source, stance)
    time.sleep(PACE)
    return reasoning.evidence(text.library(folder), question, source, stance)


@app.activity(retry=asking_a_model, timeout="2 min")
def argue(question: str, stance: str, found: list[Passage]) -> Case:
    """Argue one side from the passages that were found for it."""
    return reasoning.make_case(question, stance, found)


@app.activity
def weigh(question: str, folder: str | None) -> Balance:
    """Weigh what the whole library says, whichever side it takes."""
    return reasoning.weigh(text.library(folder), question)


@app.activity
def look_up(stance: str, quotes: list[Passage], folder: str | None) -> list[Check]:
    """Look every quote up in the document that it names."""
    return reasoning.check(text.library(folder), stance, quotes)


@app.activity(retry=asking_a_model, timeout="2 min")
def conclude(memory: dict[str, Any]) -> dict[str, Any]:
    """Return the final assessment and its confidence."""
    return reasoning.conclude(memory)


async def take_side(
    memory: perdure.AsyncEntity, stance: str, question: str, sources: list[str], folder: str | None
) -> None:
    """Read every source with one stance, argue from it, and tell the verification."""
    evidence: list[Passage] = []
    for source in sources:
        found = await read(source, question, stance, folder)
        if found:
            await memory.append(f"perspectives.{stance}.evidence", *found)
        await memory.increment(f"perspectives.{stance}.documentsRead")
        evidence += found
    case = await argue(question, stance, evidence)
    await memory.merge({"perspectives": {stance: case}})
    await memory.signal(f"{stance}-case", case["quotes"])


@app.hook(queue="agents")
async def optimistic(
    memory: perdure.AsyncEntity, question: str, sources: list[str], folder: str | None
) -> None:
    """Collect what speaks for it."""
    await take_side(memory, "optimistic", question, sources, folder)


@app.hook(queue="agents")
async def skeptical(
    memory: perdure.AsyncEntity, question: str, sources: list[str], folder: str | None
) -> None:
    """Collect what speaks against it."""
    await take_side(memory, "skeptical", question, sources, folder)


@app.hook(queue="agents")
async def verification(memory: perdure.AsyncEntity, question: str, folder: str | None) -> None:
    """Weigh the library on its own; look up the quotes of the others as they come in."""
    await memory.merge({"verification": {**await weigh(question, folder), "checks": []}})
    for stance in reasoning.LEANINGS:
        quotes = await perdure.wait_for(f"{stance}-case")
        await memory.append("verification.checks", *await look_up(stance, quotes, folder))


@app.hook(queue="agents")
async def synthesis(memory: perdure.AsyncEntity) -> None:
    """Read everything, and add the conclusion in one merge beside what stands there."""
    conclusion = await conclude(await memory.get())
    await memory.merge({"perspectives": {"synthesis": conclusion}, "status": "completed"})


@app.coordinator(entity="research-agent", queue="agents")
async def research(
    memory: perdure.AsyncEntity, question: str, folder: str | None = None
) -> dict[str, Any]:
    """Seed the memory, send out the hooks, and return what the memory has become."""
    asked_at = perdure.now().isoformat()
    await memory.set(
        {"query": question, "askedAt": asked_at, "status": "researching", "perspectives": {}}
    )
    sources = await choose_sources(question, folder)
    await memory.merge({"sources": sources})
    await asyncio.gather(
        optimistic(memory, question, sources, folder),
        skeptical(memory, question, sources, folder),
        verification(memory, question, folder),
    )
    await synthesis(memory)
    snapshot: dict[str, Any] = await memory.get()
    return snapshot


if __name__ == "__main__":
    asked, folder = (*sys.argv[1:3], None, None)[:2]
    with (
        perdure.connect(schema="examples") as client,
        perdure.Worker(app, queues=["agents"], schema="examples"),
    ):
        answer = client.start(research, asked or QUESTION, folder).result(timeout="5 min")
        print(answer["perspectives"]["synthesis"]["finalAssessment"])
