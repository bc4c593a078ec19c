"""Print what the demo shows: progress, a memory, a history. Plain text, 100 columns."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 100


def title(words: str) -> None:
    """Print a headline."""
    print(f"\n{words}\n{'─' * len(words)}")


def fact(name: str, value: object) -> None:
    """Print a name and what belongs to it."""
    indent = " " * 14
    first = f"  {name:<11} "
    print(textwrap.fill(str(value), WIDTH, initial_indent=first, subsequent_indent=indent))


def bar(name: str, done: int, of: int) -> str:
    """Return a bar of eight blocks: how much of it is done."""
    blocks = round(8 * done / of) if of else 0
    return f"{name} {'█' * blocks}{'░' * (8 - blocks)} {done}/{of}"


def document(document: Any) -> None:
    """Print a document as JSON, long texts and long lists shortened."""
    print(textwrap.indent(json.dumps(shorten(document), indent=2, ensure_ascii=False), "  "))


def shorten(value: Any, letters: int = 66, items: int = 1) -> Any:
    """Return the value with long texts cut and only the first items of long lists."""
    if isinstance(value, dict):
        return {key: shorten(inner, letters, items) for key, inner in value.items()}
    if isinstance(value, list):
        shown = [shorten(item, letters, items) for item in value[:items]]
        return [*shown, f"… and {len(value) - items} more"] if len(value) > items else shown
    if isinstance(value, str) and len(value) > letters:
        return value[: letters - 1] + "…"
    return value


def table(names: Sequence[str], rows: Sequence[Sequence[object]], at_most: int = 16) -> None:
    """Print rows under their names; of a long table the first and the last rows."""
    head, tail = at_most // 2, at_most - at_most // 2
    texts = [[str(cell) for cell in row] for row in rows]
    kept = texts if len(texts) <= at_most else [*texts[:head], *texts[-tail:]]
    widths = [max(map(len, column)) for column in zip(names, *kept, strict=True)]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in [names, *kept]
    ]
    if len(texts) > at_most:
        lines.insert(head + 1, f"  … {len(texts) - at_most} more …")
    for line in lines:
        print(line[: WIDTH + 2].rstrip())


def paragraph(words: str) -> None:
    """Print prose, wrapped and indented."""
    print(textwrap.fill(words, WIDTH, initial_indent="  ", subsequent_indent="  "))
