"""Rules for the source code, beside those that `pgtap/tidy.sql` checks in the catalog."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch

import psycopg
import pytest

from perdure.errors import Failure, PerdureError
from perdure.installation import script
from tests.source import (
    ROOT,
    SQL,
    calls_without,
    concept,
    imported,
    literals,
    python_files,
    python_functions,
    raised_in_sql,
    sql_files,
    sql_functions,
)

MAX_BODY = 70  # lines of a SQL function
MAX_FILE = 300  # lines of a SQL file
MAX_PYTHON_FUNCTION = 40

# A table is written only by the file or folder of its name, with these exceptions.
WRITERS = {
    "workers": {"workers", "listeners"},
    "settings": {"instances", "testing"},
    "wanted_indexes": {"indexing"},
    "key_tokens": {"queues"},
    "lines": {"queues"},
}

# Concepts that may build statements at run time.
MAY_BUILD_STATEMENTS = {"access", "indexing", "migrations", "sql_hooks"}

# The modules that may hold SQL: the calls, the installer, and the script that it runs.
WITH_SQL = {"call.py", "catalogue.py", "install.py", "script.py"}
STATEMENT = re.compile(
    r"\s*(select|insert into|update \w+ set|delete from|with \w+ as|create \w+|drop \w+|alter \w+"
    r"|set local|set search_path|listen|notify|grant|revoke)\s",
    re.IGNORECASE,
)

TOP = {"pyproject.toml", "sql", "python", "tests", "pgtap", "Makefile", "README.md"}
TOP |= {"LICENSE", "CHANGELOG.md", "conftest.py"}

PROMISES = [f"P{number}" for number in range(1, 14)]


def test_top_folder_holds_only_known_files() -> None:
    made = [pattern.strip("/") for pattern in (ROOT / ".gitignore").read_text().split()]
    shown = (path.name for path in ROOT.iterdir() if not path.name.startswith("."))
    assert {name for name in shown if not any(fnmatch(name, each) for each in made)} == TOP


def test_install_script_includes_every_file_of_functions() -> None:
    assert set(sql_files()) == set((SQL / "functions").rglob("*.sql"))


def test_parser_of_these_tests_finds_every_function() -> None:
    texts = [file.read_text() for file in sql_files()]
    created = re.findall(r"^create (?:function|procedure) ", "\n".join(texts), re.MULTILINE)
    assert len(sql_functions()) == len(created) > 50


def test_sql_functions_are_short() -> None:
    assert [str(f) for f in sql_functions() if f.lines > MAX_BODY] == []


def test_sql_files_are_short() -> None:
    long = {
        f.name: n for f in SQL.rglob("*.sql") if (n := len(f.read_text().splitlines())) > MAX_FILE
    }
    assert long == {}


def test_table_is_written_only_by_the_file_of_its_concept() -> None:
    violations = [
        f"{function} writes {table}"
        for function in sql_functions()
        for table in function.written()
        if concept(function.file) not in WRITERS.get(table, {table})
    ]
    assert violations == []


def test_function_calls_only_functions_installed_before_it() -> None:
    functions = sql_functions()
    names = {function.name for function in functions}
    above: set[str] = set()
    upwards = []
    for function in functions:
        upwards += [f"{function} calls {name}" for name in function.called(names) - above]
        above.add(function.name)
    assert sorted(upwards) == []


def test_no_other_file_builds_statements_at_run_time() -> None:
    dynamic = [
        str(function)
        for function in sql_functions()
        if re.search(r"\bexecute\b", function.code)
        and concept(function.file) not in MAY_BUILD_STATEMENTS
    ]
    assert dynamic == []


def test_sql_and_python_have_the_same_version(connection: psycopg.Connection) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert script.default_version() == project
    assert connection.execute("select perdure_version()").fetchone() == (project,)


def documented_errors() -> dict[str, str]:
    """Read the table of errors in `sql/README.md`: names by code."""
    rows = re.findall(r"^\| (PD\d{3}) \| (\w+) \|", (SQL / "README.md").read_text(), re.MULTILINE)
    return dict(rows)


def test_errors_of_python_are_those_of_the_docs() -> None:
    assert {
        code: error.__name__ for code, error in PerdureError.codes.items()
    } == documented_errors()


def test_python_knows_every_error_of_the_sql() -> None:
    assert raised_in_sql() - set(PerdureError.codes) == set()


def test_every_error_is_raised_somewhere() -> None:
    elsewhere = "".join(f.read_text() for f in python_files() if f.name != "errors.py")
    unused = {
        code: error.__name__
        for code, error in PerdureError.codes.items()
        if code not in raised_in_sql() and error.__name__ not in elsewhere
    }
    assert unused == {}


def test_every_error_of_python_has_a_hint() -> None:
    """Failures carry what their origin says."""
    kinds = [kind for kind in PerdureError.codes.values() if not issubclass(kind, Failure)]
    assert list(calls_without("hint", {kind.__name__ for kind in kinds})) == []


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_cited_by_a_test(promise: str) -> None:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "pgtap").rglob("*.sql")]
    assert any(f"[{promise}]" in file.read_text() for file in files)


def test_python_modules_outside_a_few_contain_no_sql() -> None:
    elsewhere = [
        f"{file.name}:{line}: {text.strip()[:60]}"
        for file in python_files()
        if not (file.name in WITH_SQL or file.name.endswith("_calls.py"))
        for line, text in literals(file)
        if STATEMENT.match(text)
    ]
    assert elsewhere == []


def test_python_functions_are_short() -> None:
    long = [
        f"{file.name}: {function.name}"
        for file in python_files()
        for function in python_functions(file)
        if (function.end_lineno or 0) - function.lineno >= MAX_PYTHON_FUNCTION
    ]
    assert long == []


def test_clients_and_workers_do_not_import_each_other() -> None:
    assert "workers" not in imported("clients")
    assert "clients" not in imported("workers")
