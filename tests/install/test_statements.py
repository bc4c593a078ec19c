"""A script is taken apart into the statements that psql would send."""

from __future__ import annotations

import pytest

from perdure.installation import script
from perdure.installation.statements import split

CASES = {
    "nothing": ("", []),
    "only comments": ("-- a;\n/* b; */\n", []),
    "two": ("select 1; select 2;", ["select 1", "select 2"]),
    "the last one unended": ("select 1;\nselect 2", ["select 1", "select 2"]),
    "empty ones": (";;select 1;;", ["select 1"]),
    "a quote": ("select ';';", ["select ';'"]),
    "a doubled quote": ("select 'it''s;';", ["select 'it''s;'"]),
    "a backslash is plain": (r"select '\'; select 2;", [r"select '\'", "select 2"]),
    "an escape string": (r"select e'\';'; select 2;", [r"select e'\';'", "select 2"]),
    "a word that ends in e": ("select name';';", ["select name';'"]),
    "a quoted name": ('select 1 as ";"";";', ['select 1 as ";"";"']),
    "dollars": ("do $$ a; b; $$;", ["do $$ a; b; $$"]),
    "tagged dollars": ("do $a$ $$;$$ $b$ $a$;", ["do $a$ $$;$$ $b$ $a$"]),
    "a tag that is not ascii": ("do $é$ ; $é$;", ["do $é$ ; $é$"]),
    "parameters": ("select $1; select $2;", ["select $1", "select $2"]),
    "a dollar in a name": ("select a$b$c; select 2;", ["select a$b$c", "select 2"]),
    "nested comments": ("/* a /* ; */ ; */ select 1;", ["/* a /* ; */ ; */ select 1"]),
    "a comment in a quote": ("select '--;'; select 2;", ["select '--;'", "select 2"]),
    "a quote in a comment": ("select 1 -- it's\n; select 2;", ["select 1 -- it's", "select 2"]),
    "a comment goes with what follows": (
        "select 1;\n-- b\nselect 2;",
        ["select 1", "-- b\nselect 2"],
    ),
    "an atomic body": (
        "create function f() begin atomic select 1; select case when a then 1 end; end; select 2;",
        [
            "create function f() begin atomic select 1; select case when a then 1 end; end",
            "select 2",
        ],
    ),
    "begin is a statement too": ("begin; commit;", ["begin", "commit"]),
}


@pytest.mark.parametrize(("text", "statements"), CASES.values(), ids=CASES.keys())
def test_a_script_is_split(text: str, statements: list[str]) -> None:
    assert [statement.text for statement in split(text)] == statements


def test_a_statement_knows_its_line() -> None:
    text = "-- one\n\nselect 1;\n\n/* four\n */ select 2;\n"
    assert [statement.line for statement in split(text)] == [3, 6]


@pytest.mark.parametrize("text", ["select $$ 1;", "/* /* */ select 1;"])
def test_what_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - two functions refuse it, each in its words
        list(split(text))


def test_no_statement_of_the_core_is_lost() -> None:
    for part in script.parts():
        kept = [statement.text for statement in split(part.text)]
        rest = part.text
        for text in kept:
            before, found, rest = rest.partition(text)
            assert found
            assert before.strip(" ;\n") == ""
        assert rest.strip(" ;\n") == ""
