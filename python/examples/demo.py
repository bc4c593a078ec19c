"""Watch perdure work: `make demo`, or `make demo DEMO_ARGS="--pipeline --crash"`.

Nothing here is needed to use perdure: read research_agent.py first. The demo starts a worker as a
process of its own and one of the two examples, reads the memory by plain SQL while the work runs,
and shows what is left: the memory, who wrote what, and where to look.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import model
import pdf
import reasoning
import show
import text
from document_pipeline import process_document
from research_agent import QUESTION, research
from stage import Memory, Stage, connected, database

import perdure

SCHEMA = "demo"
HISTORY = """select version, to_char(at, 'HH24:MI:SS.MS') as at, task, op,
       concat_ws(' ', array_to_string(path, '.'), left(argument::text, 60)) as change
  from {schema}.history
 where job_id = '{job}'
 order by version"""


def main() -> None:
    """Run the example that was asked for, and show it."""
    options = parse(sys.argv[1:])
    started = time.monotonic()
    print("perdure: permanent memory and coordinated execution, in PostgreSQL")
    with (
        database() as dsn,
        connected(dsn, SCHEMA) as (client, schema),
        tempfile.TemporaryDirectory(prefix="perdure-demo-") as folder,
    ):
        show.title("The stage")
        show.fact("database", dsn)
        show.fact("ready after", f"{time.monotonic() - started:.1f} s")
        play, module, queue = find_out, "research_agent", "agents"
        if options.pipeline:
            play, module, queue = take_in, "document_pipeline", "documents"
        with Stage(dsn, schema, module, queue, Path(folder)) as stage:
            show.fact("worker", f"process {stage.start_worker()}, as by: {stage.command}")
            job = play(client, stage, options)
            show_history(stage, job)
        show_where_to_look(schema, job)
    print(f"\nDone after {time.monotonic() - started:.1f} s.")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the switches."""
    parser = argparse.ArgumentParser(description="Watch perdure work.")
    parser.add_argument("--folder", type=absolute, help="research this folder of text files")
    parser.add_argument("--question", default=QUESTION, help="what the agent shall find out")
    parser.add_argument("--pipeline", action="store_true", help="run the document pipeline")
    parser.add_argument("--pdf", type=absolute, help="take this PDF file through the pipeline")
    parser.add_argument("--crash", action="store_true", help="kill the worker in the middle")
    options = parser.parse_args(arguments)
    options.pipeline = options.pipeline or options.pdf is not None
    return options


def absolute(path: str) -> str:
    """Return the whole path: the worker runs in another directory."""
    return str(Path(path).expanduser().resolve())


def find_out(client: perdure.Client, stage: Stage, options: argparse.Namespace) -> str:
    """Run the research agent, and return the id of its job."""
    documents = len(text.library(options.folder).documents)
    library = options.folder or "the language reference inside Python"
    show.fact("question", options.question)
    show.fact("library", f"{library}, {documents} texts")
    show.fact("prose by", model.name() or "counting (ANTHROPIC_API_KEY, OPENAI_API_KEY: a model)")

    def read_by(memory: Memory, side: str) -> int:
        return int(memory["perspectives"].get(side, {}).get("documentsRead", 0))

    def picture(memory: Memory) -> str:
        sources = len(memory.get("sources", []))
        bars = [show.bar(side, read_by(memory, side), sources) for side in reasoning.LEANINGS]
        checked = len(memory.get("verification", {}).get("checks", []))
        return "  ".join([*bars, f"{checked} quotes verified", memory["status"]])

    def halfway(memory: Memory) -> bool:
        return 2 * read_by(memory, "skeptical") >= len(memory.get("sources", [])) > 0

    show.title("Three hooks write one memory at the same time; plain SQL reads it meanwhile")
    handle = client.start(research, options.question, options.folder, id=new_id("research"))
    if options.crash:
        stage.watch(handle.id, picture, until=halfway)
        stage.crash(handle.id)
    stage.watch(handle.id, picture)
    memory = handle.result(timeout="1 min")
    show.title("The memory")
    show.document(memory)
    show.title("The answer")
    show.paragraph(memory["perspectives"]["synthesis"]["finalAssessment"])
    show_executions(stage)
    return handle.id


def take_in(client: perdure.Client, stage: Stage, options: argparse.Namespace) -> str:
    """Run the document pipeline, and return the id of its job."""
    file = options.pdf or pdf.sample(stage.folder)
    show.fact("document", file)

    def picture(memory: Memory) -> str:
        pages = show.bar("pages", len(memory["pages"]), len(memory.get("pageRefs", [])))
        return f"{pages}  {memory['status']}, {memory['processingSteps'][-1]}"

    show.title("A hook for each page writes one memory; plain SQL reads it meanwhile")
    handle = client.start(process_document, file, "1 min", id=new_id("document"))
    if options.crash:
        stage.watch(handle.id, picture, until=lambda memory: memory["pages"])
        stage.crash(handle.id)
    stage.watch(handle.id, picture, until=lambda memory: memory["status"] == "awaiting-approval")
    if not stage.look(handle.id)[2]:
        approve(stage, handle.id)
    stage.watch(handle.id, picture)
    memory = handle.result(timeout="1 min")
    show.title("The memory")
    show.document(memory)
    show.title("Its life")
    show.paragraph(" → ".join(memory["processingSteps"]))
    show_executions(stage)
    return handle.id


def approve(stage: Stage, job: str) -> None:
    """Answer the request for approval from another process, as a person would."""
    answer = '{"approved": true, "by": "jane"}'
    command = ["perdure", "signal", job, "approve", answer, "--schema", stage.schema]
    print(f"  Jane, in another process: perdure signal {job} approve '{answer}'")
    environment = os.environ | {"PERDURE_DATABASE_URL": stage.dsn}
    subprocess.run([sys.executable, "-m", *command], check=True, env=environment)


def show_executions(stage: Stage) -> None:
    """Tell what was executed how often, by the workers' own logs; only after a crash."""
    if len(stage.logs) > 1:
        before, after = stage.executed()
        again = ", ".join((before & after).elements()) or "nothing"
        show.title("What the crash has cost")
        show.fact("executed", f"{before.total()} before the kill, {after.total()} after it")
        show.fact("twice", f"{again} (begun, but not recorded when the kill came)")


def show_history(stage: Stage, job: str) -> None:
    """Print who wrote what into the memory."""
    show.title("Its history: which hook wrote what, in which version")
    with stage.sql.cursor() as cursor:
        rows = cursor.execute(HISTORY.format(schema=stage.schema, job=job)).fetchall()
        show.table([column.name for column in cursor.description or []], rows)


def show_where_to_look(schema: str, job: str) -> None:
    """Print what to type to look at it all again."""
    show.title("Look at it yourself: the memory stays")
    script = str(Path(sys.executable).with_name("perdure")).removeprefix(f"{Path.cwd()}/")
    print(f"  {script} psql --schema {schema}\n")
    for query in (
        f"select id, context->>'status' as status, version from {schema}.jobs order by created_at",
        f"select jsonb_pretty(context) from {schema}.jobs where id = '{job}'",
        HISTORY.format(schema=schema, job=job),
    ):
        print(textwrap.indent(f"{query};", "  "))


def new_id(prefix: str) -> str:
    """Return an id that says when the job was started."""
    return f"{prefix}-{time.strftime('%Y%m%d-%H%M%S')}"


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, perdure.JobFailed) as error:
        sys.exit(f"error: {error}")
