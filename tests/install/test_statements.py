"""The install script is split into the statements that psql would send."""

from __future__ import annotations

import pytest

from perdure.installation import script
from perdure.installation.statements import split

CASES = {
    "empty script": ("", []),
    "only comments": ("-- a;\n/* b; */\n", []),
    "two statements": ("select 1; select 2;", ["select 1", "select 2"]),
    "the last one without a semicolon": ("select 1;\nselect 2", ["select 1", "select 2"]),
    "empty statements": (";;select 1;;", ["select 1"]),
    "a quote": ("select ';';", ["select ';'"]),
    "a doubled quote": ("select 'it''s;';", ["select 'it''s;'"]),
    "a backslash is plain": (r"select '\'; select 2;", [r"select '\'", "select 2"]),
    "an escape string": (r"select e'\';'; select 2;", [r"select e'\';'", "select 2"]),
    "a word that ends in e": ("select name';';", ["select name';'"]),
    "a quoted name": ('select 1 as ";"";";', ['select 1 as ";"";"']),
    "dollar quotes": ("do $$ a; b; $$;", ["do $$ a; b; $$"]),
    "tagged dollar quotes": ("do $a$ $$;$$ $b$ $a$;", ["do $a$ $$;$$ $b$ $a$"]),
    "a non-ASCII tag": ("do $é$ ; $é$;", ["do $é$ ; $é$"]),
    "parameters": ("select $1; select $2;", ["select $1", "select $2"]),
    "a dollar in a name": ("select a$b$c; select 2;", ["select a$b$c", "select 2"]),
    "nested comments": ("/* a /* ; */ ; */ select 1;", ["/* a /* ; */ ; */ select 1"]),
    "a comment in a quote": ("select '--;'; select 2;", ["select '--;'", "select 2"]),
    "a quote in a comment": ("select 1 -- it's\n; select 2;", ["select 1 -- it's", "select 2"]),
    "a comment belongs to the next statement": (
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
    "begin as a statement": ("begin; commit;", ["begin", "commit"]),
}


@pytest.mark.parametrize(("text", "statements"), CASES.values(), ids=CASES.keys())
def test_script_is_split_into_statements(text: str, statements: list[str]) -> None:
    assert [statement.text for statement in split(text)] == statements


def test_statement_has_its_line_number() -> None:
    text = "-- one\n\nselect 1;\n\n/* four\n */ select 2;\n"
    assert [statement.line for statement in split(text)] == [3, 6]


@pytest.mark.parametrize("text", ["select $$ 1;", "/* /* */ select 1;"])
def test_unterminated_quote_or_comment_is_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - two functions raise it, with different messages
        list(split(text))


def test_splitting_loses_no_text_of_the_install_script() -> None:
    for part in script.parts():
        kept = [statement.text for statement in split(part.text)]
        rest = part.text
        for text in kept:
            before, found, rest = rest.partition(text)
            assert found
            assert before.strip(" ;\n") == ""
        assert rest.strip(" ;\n") == ""
