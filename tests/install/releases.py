"""Invented later releases: copies of `sql/` with every kind of change.

Version 0.2.0 adds a table, a column and an index. Its types gain attributes, and its functions get
other signatures, in all the ways in which `create or replace` fails or creates a second function.
Version 0.10.0 changes the tables again and drops a function that 0.2.0 added. A build is `sql/` of
this version from another day: its functions, types and views differ, and its tables may.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from perdure.installation import script

NOW = script.default_version()
LATER = ("0.2.0", "0.10.0")

COLOUR = """
alter table @extschema@.jobs add column colour text collate "C" not null default 'red';
comment on column @extschema@.jobs.colour is 'How it is painted.';
create index jobs_of_a_colour on @extschema@.jobs (colour) where colour <> 'red';
comment on index @extschema@.jobs_of_a_colour is 'Finds what was painted.';
create table @extschema@.colours (
    name  text  not null,

    constraint one_row_per_colour primary key (name)
);
comment on table @extschema@.colours is 'What one may paint with.';
comment on column @extschema@.colours.name is 'Its name.';
"""
SHADE = """
alter table @extschema@.jobs add column shade integer constraint shade_is_dark check (shade > 0);
comment on column @extschema@.jobs.shade is 'How dark it is.';
alter table @extschema@.colours add column shade integer;
comment on column @extschema@.colours.shade is 'How dark it may be.';
"""
PAINT = """

create function @extschema@.paint(id text, colour text) returns void
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    update jobs as j set colour = paint.colour where j.id = paint.id;
end
$$;
comment on function @extschema@.paint(text, text) is 'Paint a job.';
"""
PASSING = """

create function @extschema@.passing() returns integer language sql return 1;
comment on function @extschema@.passing() is 'Do nothing.';
"""


MORE_IN_A_VIEW = ("f.value, f.key\n", "f.value, f.key, f.ok\n")


def tree(folder: Path, version: str) -> Path:
    """Copy `sql/` as this version or a later one has it."""
    root = Path(shutil.copytree(str(script.source()), folder / version))
    if version in LATER:
        _number(root, version)
        _paint(root)
        _change_signatures(root)
    if version == "0.2.0":
        _append(root, "functions/jobs.sql", PASSING)
    if version == "0.10.0":
        (root / "migrations" / "0.10.0.sql").write_text(SHADE)
        _append(root, "schema/indexes.sql", SHADE)
        _append(root, "retired.sql", "drop function if exists @extschema@.passing();\n")
    return root


def build(folder: Path, *, tables: str = "") -> Path:
    """Copy `sql/` as another build of this version has it, with additions to its tables if
    given."""
    root = Path(shutil.copytree(str(script.source()), folder / "build"))
    _change_signatures(root)
    _append(root, "functions/jobs.sql", PASSING)
    _edit(root, "schema/views.sql", *MORE_IN_A_VIEW)
    _append(root, "schema/indexes.sql", tables)
    return root


def with_protocol(root: Path, protocol: int) -> Path:
    """Change the protocol version in the functions of a copy."""
    _edit(
        root, "functions/limits.sql", "is distinct from 1 then", f"is distinct from {protocol} then"
    )
    return root


def _number(root: Path, version: str) -> None:
    _edit(root, "perdure.control", NOW, version)
    _edit(root, "functions/limits.sql", f"return '{NOW}';", f"return '{version}';")
    first = f"\\ir migrations/{NOW}.sql\n"
    more = LATER[: LATER.index(version) + 1]
    _edit(root, "install.sql", first, first + "".join(f"\\ir migrations/{v}.sql\n" for v in more))


def _paint(root: Path) -> None:
    (root / "migrations" / "0.2.0.sql").write_text(COLOUR)
    _append(root, "schema/indexes.sql", COLOUR)
    _edit(root, "schema/views.sql", *MORE_IN_A_VIEW)
    _append(root, "functions/jobs.sql", PAINT)


def _change_signatures(root: Path) -> None:
    # A parameter gets another name; `create or replace` does not allow that.
    _edit(
        root,
        "functions/claim.sql",
        "commit(queues text[], in_sql boolean",
        "commit(queues text[], is_in_sql boolean",
    )
    _edit(
        root,
        "functions/claim.sql",
        "allow_asynchronous_commit.in_sql",
        "allow_asynchronous_commit.is_in_sql",
    )
    # One more parameter; `create or replace` would create a second function.
    hints = "functions/listeners.sql"
    _edit(
        root, hints, "(topics text[]) returns", "(topics text[], loud boolean default true) returns"
    )
    _edit(root, hints, "notify_listeners(text[]) is", "notify_listeners(text[], boolean) is")
    # Another result type.
    limits, end = "functions/limits.sql", "or upgrade the schema.';\n    end if;\n"
    _edit(root, limits, "(protocol integer) returns void", "(protocol integer) returns integer")
    _edit(root, limits, end, f"{end}    return check_protocol.protocol;\n")
    # Types gain an attribute, so each row constructor of them needs one more value.
    more = 0
    for types in (root / "types").iterdir():
        text, times = re.subn(
            r"(create type @extschema@\.(?:started|claimed_task) as \([^)]*[^\s)])\s*\);",
            r"\1,\n    colour text\n);",
            types.read_text(),
        )
        more += times
        types.write_text(text)
    assert more == 2
    for file in (root / "functions").rglob("*.sql"):
        text = file.read_text()
        file.write_text(re.sub(r"\)::(started|claimed_task)\b", r", null)::\1", text))


def _edit(root: Path, file: str, old: str, new: str) -> None:
    """Replace a text that occurs exactly once in a file."""
    text = (root / file).read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
    (root / file).write_text(text.replace(old, new))


def _append(root: Path, file: str, more: str) -> None:
    with (root / file).open("a") as opened:
        opened.write(more)
