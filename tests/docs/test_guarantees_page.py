"""The page of guarantees lists every promise with a test that exists and cites it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.storms.figures import PROMISES, Figures, by_promise, cited, merged, note

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "sql" / "guarantees.md").read_text()
SHOWN = {
    name: re.findall(r"`(tests/[^`]+)`", row)
    for name, row in re.findall(r"^\| (P\d+) \|(.*)$", PAGE.split("\n## ")[0], re.MULTILINE)
}
PLACES = re.findall(r"\]\((?!http)([^)#]+)|`(tests/[\w/.]+|pgtap/[\w/.]+)`", PAGE)


def cited_by(place: str) -> str:
    """Return the source of a test, together with its module's docstring."""
    file, _, test = place.partition("::")
    text = (ROOT / file).read_text()
    functions = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test
    ]
    assert functions, f"no test is named {place}"
    return "\n".join(
        [ast.get_docstring(ast.parse(text)) or ""]
        + [ast.get_source_segment(text, node) or "" for node in functions]
    )


def test_page_lists_every_promise_that_is_cited() -> None:
    files = [
        *(ROOT / "sql").rglob("*.sql"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "pgtap").rglob("*.sql"),
    ]
    cited = {name for file in files for name in re.findall(r"\[(P\d+)\]", file.read_text())}
    assert set(SHOWN) == cited | {f"P{number}" for number in range(1, 14)}


@pytest.mark.parametrize("promise", SHOWN)
def test_promise_names_a_test_that_cites_it(promise: str) -> None:
    assert SHOWN[promise]
    for place in SHOWN[promise]:
        assert "::" in place, "the page must name a test, not a whole file"
        assert f"[{promise}]" in cited_by(place), place


def test_files_named_on_the_page_exist() -> None:
    for link, file in PLACES:
        place = (ROOT / "sql" / link).resolve() if link else ROOT / file
        assert place.exists(), link or file


def test_make_targets_named_on_the_page_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z-]+)", PAGE)) <= targets


def table(first: str) -> dict[str, dict[str, str]]:
    """Return the rows of the table whose first column has this name, by their first cell."""
    found = re.search(rf"^(\| {first} \|.*)\n\|[- :|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    head, *rows = (cells(line) for line in (found[1], *found[2].splitlines()))
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def storms() -> dict[str, str]:
    """Return the storms of the tests, each with the promises that its test cites."""
    return {
        found[1]: cited(ast.get_docstring(node))
        for folder in ("storms", "cluster", "model")
        for file in (ROOT / "tests" / folder).glob("test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and (found := re.search(r"(?:brewing|figures)\(['\"]([^'\"]+)", ast.unparse(node)))
    }


def test_parts_of_a_storm_are_merged_into_one_row() -> None:
    """The model runs as several tests, each of which reports a part of its row."""
    rows = [Figures("T2", "7", "P1", 1.5, operations=n, jobs=1) for n in (800, 1200)]
    other = Figures("T11", "7", "P1").row()
    (whole, last) = merged([rows[0].row(), other, rows[1].row()])
    assert whole == Figures("T2", "7", "P1", 3.0, operations=2000, jobs=2).row()
    assert last == other


def test_storms_on_the_page_exist_with_the_same_promises() -> None:
    """After a storm is renamed or cites other promises, run `make figures` again."""
    on_the_page = {name: row["promises"] for name, row in table("storm").items()}
    assert on_the_page.items() <= storms().items()


def test_no_storm_on_the_page_broke_a_promise() -> None:
    assert {row["violations"] for row in table("storm").values()} == {"0"}


def test_sums_of_the_figures_are_right() -> None:
    sums = [dict(zip(PROMISES, row, strict=True)) for row in by_promise([*table("storm").values()])]
    assert [*table("promise").values()] == sums


def test_note_replaces_its_section_only_if_perdure_note_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- faults -->\n<!-- end of faults -->\n<!-- pooled -->\n")
    monkeypatch.delenv("PERDURE_NOTE", raising=False)
    note("faults", "nobody asked", page)
    assert "nobody" not in page.read_text()
    monkeypatch.setenv("PERDURE_NOTE", "1")
    for text in ("1 test", "2 tests"):
        note("faults", text, page)
    on_the_page = "<!-- faults -->\n\n2 tests\n\n<!-- end of faults -->\n<!-- pooled -->\n"
    assert page.read_text() == on_the_page


def test_page_reports_a_whole_run_with_faults() -> None:
    """[P12] (T9): as written by `make faults NOTE=1`."""
    found = re.search(r"<!-- faults -->\n(.*)<!-- end of faults -->\n", PAGE, re.DOTALL)
    assert found is not None
    assert re.search(r"`make faults SHARE=.*` has run [\d,]{5,} tests, of which", found[1])
