"""The page `python/README.md` names every module, and no layer of the package imports one below
it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.source import ROOT

PACKAGE = ROOT / "python" / "perdure"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
"""A layer: its package or module, and a description that names its modules."""


def layers() -> dict[str, set[str]]:
    """Return the modules of each layer, in the order of the page."""
    page = (ROOT / "python" / "README.md").read_text("utf-8")
    return {
        layer: set(re.findall(r"`(\w+)`", layers_on_the_page))
        for layer, layers_on_the_page in ROW.findall(page)
    }


def modules() -> list[Path]:
    """Return all modules that belong to a layer."""
    private = (path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
    public = (path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
    return sorted([*private, *public])


def layer_of(path: Path) -> str:
    """Return the layer of a module: its package, or the module itself at the top level."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def needed(path: Path) -> set[str]:
    """Return the layers that a module imports at once: neither for types only, nor later."""
    body = ast.parse(path.read_text("utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and not node.level]
    named = [f"{node.module}.{each.name}" for node in imports for each in node.names]
    return {name.split(".")[1] for name in named if name.startswith("perdure.")}


def test_page_lists_each_module_in_its_layer() -> None:
    layers_on_the_page = layers()
    missing = [
        str(path.relative_to(PACKAGE))
        for path in modules()
        if layer_of(path) not in layers_on_the_page
        or (
            path.parent != PACKAGE
            and path.stem not in layers_on_the_page[layer_of(path)] | {"__init__"}
        )
    ]
    gone = [
        f"{layer}/{name}"
        for layer, names in layers_on_the_page.items()
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
