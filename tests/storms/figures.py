"""The figures of storms: rows that pytest prints, and that `make figures` writes into the
guarantees."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = "figures of a storm"
"""The property of a test that has a row."""
PAGE = Path(__file__).parents[2] / "sql" / "guarantees.md"
SECTION = re.compile(r"(?<=<!-- figures -->\n).*(?=<!-- end of figures -->\n)", re.DOTALL)


@dataclass
class Figures:
    """The figures of one storm."""

    storm: str
    seed: str
    promises: str = ""
    """The promises that its test cites."""
    seconds: float = 0.0
    faults: int = 0
    operations: int = 0
    unknown: int = 0
    """Lost replies to calls that the test itself repeated."""
    jobs: int = 0
    deaths: int = 0
    """Deaths of worker processes."""
    violations: int = 0
    note: str = ""
    """A note below the table."""

    def row(self) -> list[str]:
        """Return the row as text."""
        return [self.storm, self.promises, f"{self.seconds:.1f}"] + [
            f"{number:,}"
            for number in (
                self.faults, self.operations, self.unknown, self.jobs, self.deaths,
                self.violations,
            )
        ] + [self.seed, self.note]  # fmt: skip


HEAD = ["storm", "promises", "seconds", "faults", "operations", "replies lost", "jobs", "deaths",
        "violations", "seed", "note"]  # fmt: skip
PROMISES = ["promise", "storms", "faults", "operations", "violations"]
NAMES = 2
"""Columns that are names, not numbers."""
NUMBERS = slice(NAMES, len(HEAD) - 2)


def cited(docstring: str | None) -> str:
    """Return the promises that a docstring cites."""
    return " ".join(re.findall(r"\[(P\d+)\]", docstring or ""))


def merged(rows: Iterable[list[str]]) -> list[list[str]]:
    """Merge the rows that are parts of one storm."""
    whole: dict[str, list[str]] = {}
    for row in rows:
        first = whole.setdefault(row[0], row)
        if first is not row:
            both = zip(first[NUMBERS], row[NUMBERS], strict=True)
            first[NUMBERS] = [added(*pair) for pair in both]
    return list(whole.values())


def added(one: str, two: str) -> str:
    """Add two numbers that are written as text."""
    if "." in one:
        return f"{float(one) + float(two):.1f}"
    return f"{int(one.replace(',', '')) + int(two.replace(',', '')):,}"


def tell(terminalreporter: Any) -> None:
    """Print the figures of the storms; `make figures` writes them down if no test has failed."""
    stats = terminalreporter.stats
    rows = merged(
        list(value)
        for reports in stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == FIGURES and report.when == "teardown"
    )
    if not rows:
        return
    terminalreporter.section("storms")
    for line in printed(rows):
        terminalreporter.line(line)
    if os.environ.get("PERDURE_FIGURES") and not (stats.get("failed") or stats.get("error")):
        write_down(rows, os.environ["PERDURE_TEST_AMOUNT"])


def printed(rows: Sequence[list[str]]) -> Iterator[str]:
    """Yield the lines of the table that pytest prints."""
    table = [HEAD, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(HEAD))]
    for row in table:
        cells = [
            f"{cell:<{width}}" if place < NAMES or HEAD[place] == "note" else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def by_promise(rows: Sequence[dict[str, str]]) -> Iterator[list[str]]:
    """Sum up the storms of each promise."""
    promises = {promise for row in rows for promise in row["promises"].split()}
    for promise in sorted(promises, key=lambda name: int(name[1:])):
        its = [row for row in rows if promise in row["promises"].split()]
        sums = (sum(int(row[what].replace(",", "")) for row in its) for what in PROMISES[2:])
        yield [promise, str(len(its)), *(f"{number:,}" for number in sums)]


def outcome(terminalreporter: Any) -> str:
    """Return how many tests a run had, and how many have failed."""
    count = {name: len(reports) for name, reports in terminalreporter.stats.items()}
    failed = count.get("failed", 0) + count.get("error", 0)
    return f"{count.get('passed', 0) + failed:,} tests, of which {failed or 'none'} failed"


def note(name: str, text: str, page: Path = PAGE) -> None:
    """Write the outcome of a run of the whole suite into its place on a page, for `make …
    NOTE=1`."""
    if os.environ.get("PERDURE_NOTE"):
        place = re.compile(rf"(?<=<!-- {name} -->\n).*(?=<!-- end of {name} -->\n)", re.DOTALL)
        lines = textwrap.fill(text, 140, break_on_hyphens=False)
        page.write_text(place.sub(lambda _: f"\n{lines}\n\n", page.read_text()))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> Iterator[str]:
    """Yield the lines of a table of a page."""
    for row in (head, ["---"] * names + ["---:"] * (len(head) - names), *rows):
        yield f"| {' | '.join(row)} |"


def write_down(rows: Sequence[list[str]], amount: str, page: Path = PAGE) -> None:
    """Write the figures into their section of a page."""
    lines = [
        f"`make figures AMOUNT={amount}`, on the embedded server and a machine with two cores:",
        "",
        *markdown(HEAD[:-2], [row[:-2] for row in rows], NAMES),
        "",
        *(f"{storm}: {note}.\n" for storm, *_, note in rows if note),
        "The sums of the storms that test each promise:",
        "",
        *markdown(
            PROMISES, list(by_promise([dict(zip(HEAD, row, strict=True)) for row in rows])), 1
        ),
    ]
    text = "\n".join(["", *lines, "", ""])
    page.write_text(SECTION.sub(lambda _: text, page.read_text()))
