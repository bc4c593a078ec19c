"""The page about the package, `python/README.md`, names all modules, in layers that go one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.source import ROOT

PACKAGE = ROOT / "python" / "perdure"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
"""A layer: its package or module, and what is in it."""


def layers() -> dict[str, set[str]]:
    """Name the modules of each layer, from the top of the page."""
    page = (ROOT / "python" / "README.md").read_text("utf-8")
    return {layer: set(re.findall(r"`(\w+)`", told)) for layer, told in ROW.findall(page)}


def modules() -> list[Path]:
    """Give all modules that stand in a layer."""
    private = (path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
    doors = (path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
    return sorted([*private, *doors])


def layer_of(path: Path) -> str:
    """Name the layer of a module: its package, or itself if it stands in none."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def needed(path: Path) -> set[str]:
    """Name the layers that a module needs as soon as it is imported: not for types, nor later."""
    body = ast.parse(path.read_text("utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and not node.level]
    named = [f"{node.module}.{each.name}" for node in imports for each in node.names]
    return {name.split(".")[1] for name in named if name.startswith("perdure.")}


def test_each_module_stands_in_its_layer() -> None:
    told = layers()
    missing = [
        str(path.relative_to(PACKAGE))
        for path in modules()
        if layer_of(path) not in told
        or (path.parent != PACKAGE and path.stem not in told[layer_of(path)] | {"__init__"})
    ]
    gone = [
        f"{layer}/{name}"
        for layer, names in told.items()
        if (PACKAGE / layer).is_dir()
        for name in names
        if not (PACKAGE / layer / f"{name}.py").exists()
    ]
    assert (missing, gone) == ([], [])


def test_no_layer_imports_one_below() -> None:
    order = list(layers())
    downwards = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in modules()
        for other in needed(path) & set(order)
        if order.index(other) > order.index(layer_of(path))
    ]
    assert downwards == []
