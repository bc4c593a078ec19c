"""The page about the package, `python/README.md`, names all modules, in layers that go one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.source import ROOT

PACKAGE = ROOT / "python" / "perdure"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}


def layers() -> dict[str, int]:
    """Number the layer of each module, from the top of the page."""
    page = (ROOT / "python" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!layer)[^|`-]+ \| (.*) \|$", page, re.MULTILINE)
    named = [(name, at) for at, row in enumerate(rows) for name in re.findall(r"`(\w+)`", row)]
    return {name: at for name, at in named if name in MODULES}


def needed(path: Path) -> set[str]:
    """Name the modules that one needs as soon as it is imported: not for types, nor later."""
    body = ast.parse(path.read_text("utf-8")).body
    ours = [node for node in body if isinstance(node, ast.ImportFrom) and node.level == 1]
    return {name for node in ours for name in [node.module or "", *(a.name for a in node.names)]}


def test_each_module_stands_in_a_layer() -> None:
    assert sorted(MODULES.keys() - layers().keys()) == []


def test_no_module_imports_one_of_a_layer_below() -> None:
    layer = layers()
    downwards = [
        f"{name} imports {other}"
        for name, path in sorted(MODULES.items())
        for other in needed(path) & layer.keys()
        if layer[other] > layer[name]
    ]
    assert downwards == []
