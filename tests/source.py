"""The source code as the tidy tests read it: SQL functions with bodies, Python as syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from perdure.installation import script

ROOT = Path(__file__).resolve().parents[1]
SQL = ROOT / "sql"
PYTHON = ROOT / "python" / "perdure"

_FUNCTION = re.compile(
    r"^create (?:function|procedure) @extschema@\.(?P<name>\w+).*?"
    r"^as \$(?P<tag>\w*)\$\n(?P<body>.*?)^\$(?P=tag)\$;",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_WRITES = re.compile(r"\b(?:insert into|delete from) (?:@extschema@\.)?(\w+)|\bupdate (\w+) as\b")


@dataclass(frozen=True)
class Function:
    """A PL/pgSQL function of `sql/functions/`."""

    file: Path
    name: str
    body: str

    @cached_property
    def code(self) -> str:
        """Return the body without comments and literals."""
        return _LITERAL.sub("''", _COMMENT.sub("", self.body))

    @property
    def lines(self) -> int:
        """Return the number of lines of the body."""
        return self.body.count("\n")

    def called(self, names: set[str]) -> set[str]:
        """Return which of some functions it calls, except itself."""
        return (set(re.findall(r"\b(\w+)\(", self.code)) & names) - {self.name}

    def written(self) -> set[str]:
        """Return the tables it writes to."""
        return {name for found in _WRITES.findall(self.code) for name in found if name}

    def __str__(self) -> str:
        """Return file and name."""
        return f"{self.file.relative_to(ROOT)}: {self.name}"


def sql_files() -> list[Path]:
    """List the files of functions in the order of `install.sql`."""
    listed = re.findall(r"^\\ir (functions/\S+)$", (SQL / "install.sql").read_text(), re.MULTILINE)
    return [SQL / name for name in listed]


def sql_functions() -> list[Function]:
    """List the functions in the order in which they are installed."""
    return [
        Function(file, found["name"], found["body"])
        for file in sql_files()
        for found in _FUNCTION.finditer(file.read_text())
    ]


def concept(file: Path) -> str:
    """Return the concept of a file: its own name, or that of its folder."""
    return file.relative_to(SQL / "functions").with_suffix("").parts[0]


def raised_in_sql() -> set[str]:
    """Return the error codes that the SQL mentions."""
    return {code for part in script.parts() for code in re.findall(r"'(PD\d{3})'", part.text)}


def python_files() -> list[Path]:
    """List the modules of the package."""
    return sorted(PYTHON.rglob("*.py"))


def literals(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module that are not docstrings, with their lines."""
    tree = ast.parse(file.read_text())
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in statements:
            if isinstance(node.value, bytes):
                yield node.lineno, node.value.decode("utf-8", "replace")
            elif isinstance(node.value, str):
                yield node.lineno, node.value


def python_functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions and methods of a module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls_without(keyword: str, names: set[str]) -> Iterator[str]:
    """Yield the calls of these names in the package that do not give an argument."""
    for file in python_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = {each.arg for each in node.keywords}
                if node.func.id in names and not given & {keyword, None}:
                    yield f"{file.name}:{node.lineno} {node.func.id}"


def imported(layer: str) -> set[str]:
    """Return the layers that the modules of a layer import, at once or later."""
    trees = [ast.parse(file.read_text()) for file in (PYTHON / layer).glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{each.name}" for node in nodes for each in node.names]
    return {name.split(".")[1] for name in names if name.startswith("perdure.")}


# Volatile functions that are not verbs for callers: only other verbs call them, or they only wait.
_PARTS_OF_VERBS = {
    "run_command", "run_commands", "take_sql_task", "create_tables", "create_triggers",
    "create_views", "change_tables", "await_result",
}  # fmt: skip


def mutators(connection: psycopg.Connection[Any]) -> set[str]:
    """Return the verbs that may change something: volatile functions for outside callers. A verb is
    a function that no other function calls, or that forces its plans, as entry points do."""
    query = """
        select proname,
               exists (select from unnest(proconfig) as c where c like 'plan_cache_mode=force%')
          from pg_proc
         where pronamespace = 'perdure'::regnamespace
           and provolatile = 'v'
           and prorettype <> 'trigger'::regtype"""
    functions = sql_functions()
    names = {function.name for function in functions}
    called = {name for function in functions for name in function.called(names)}
    known = connection.execute(query).fetchall()
    return {name for name, is_entry in known if is_entry or name not in called} - _PARTS_OF_VERBS
