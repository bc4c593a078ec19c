"""Statements: splits a SQL script, because poolers and Citus want one statement at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*)
    | (?P<open>/\*)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<string>\b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<semicolon>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_NESTED = re.compile(r"/\*|\*/")


class Statement(NamedTuple):
    """One statement without its semicolon, and the line of the script that holds its first word."""

    text: str
    line: int


def split(script: str) -> Iterator[Statement]:
    """Yield the statements of a script; comments between two statements stay with the second.

    Knows quotes, `E''` strings, dollar quotes, nested comments and `begin atomic … end` bodies.

    >>> [found.text for found in split("select ';'; select 2")]
    ["select ';'", 'select 2']
    """
    start = position = 0
    first: int | None = None  # the place of the first word; comments alone are no statement
    depth = 0  # of `begin atomic` and of the `case … end` inside it
    previous = ""
    while token := _TOKEN.search(script, position):
        position = token.end()
        match token.lastgroup:
            case "comment":
                continue
            case "open":
                position = _end_of_comment(script, position)
                continue
            case "dollar":
                position = script.index(token[0], position) + len(token[0])
            case "word":
                word = token[0].lower()
                depth += _nesting(word, previous, depth)
                previous = word
            case "semicolon" if depth == 0:
                if first is not None:
                    yield _statement(script, start, first, token.start())
                start, first = position, None
                continue
        if first is None:
            first = token.start()
    if first is not None:
        yield _statement(script, start, first, len(script))


def _statement(script: str, start: int, first: int, end: int) -> Statement:
    return Statement(script[start:end].strip(), script.count("\n", 0, first) + 1)


def _nesting(word: str, previous: str, depth: int) -> int:
    """Return by how much a word opens or closes a body in which semicolons end nothing."""
    if depth == 0:
        return int(word == "atomic" and previous == "begin")
    return {"case": 1, "end": -1}.get(word, 0)


def _end_of_comment(script: str, position: int) -> int:
    depth = 1
    for mark in _NESTED.finditer(script, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise ValueError("a comment of the script does not end")
