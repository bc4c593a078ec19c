"""The page `sql/verbs.md`, which lists what any SQL client can call: this program writes it.

Run `python tests/docs/verbs_page.py` after a change of a verb, a type, a view or their comments.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

from perdure.installation import script  # noqa: E402
from tests.source import SQL  # noqa: E402

PAGE = SQL / "verbs.md"

HEAD = """\
# The verbs in SQL

This page lists what any SQL client can call, with the arguments, the defaults and the type of the
answer. The functions are in the schema of the app: `select my_app.status('agent-1')`, or
`select * from my_app.status('agent-1')` for a row. Pass arguments by name where the order does not
say what they are: `my_app.start('research', id => 'agent-1')`. In `psql`, `\\df+ my_app.*` shows
the same.

A verb is a part of your transaction, and is atomic. If it fails, nothing is written, and the error
has a code, a message, a detail and a hint; the [list of errors](README.md#errors) explains the
codes. Which role may call what is up to [`grant_access()`](security.md). In Python, the same verbs
are [methods](../python/api.md).
"""

TAIL = """\
**See also:** [memory](memory.md), [clients](coordination/clients.md),
[workers in other languages](coordination/workers.md), [the protocol of turns](README.md#a-turn).
"""

SECTIONS = {
    "Jobs": "start start_many signal_with_start status result await_result list_jobs family"
    " timeline cancel cancel_hook terminate pause resume retry fork repin",
    "Signals, hooks and streams": "signal hook hook_result stream_items signal_found cancel_found",
    "Memory": "entity_create entity_get entity_set entity_set_if_not_exists entity_merge"
    " entity_append entity_prepend entity_remove entity_increment entity_toggle entity_delete"
    " entity_log entity_apply entity_items entity_history entity_at entity_diff entity_blame"
    " entity_restore entity_meets",
    "Find, indexes and contracts": "find count_found create_index drop_index define_contract"
    " drop_contract contract_of broken_contracts",
    "Questions to people": "list_items read_item claim_item release_item assign_item resolve_item",
    "Schedules": "create_schedule pause_schedule resume_schedule trigger_schedule"
    " backfill_schedule drop_schedule",
    "Queues": "set_queue pause_queue resume_queue queue_depths",
    "Hooks in SQL": "register_sql_hook drop_sql_hook run_sql_hooks",
    "Retention": "forget forget_finished forget_old_runs",
    "Checks": "assert_invariants assert_histories",
    "Notifications": "channel listen_for stop_listening entity_watch",
    "Workers": "register_worker forget_worker has_worker claim advance extend release read_journal"
    " publish finish_task fail_task take_sql_task run_task sql_hook_timeout time_out_task",
    "Replay": "running_coordinators recording_of origins_of",
    "Installing, copies and access": "migrate perdure_version adopt_instance grant_access"
    " revoke_access",
    "Tests": "create_test_helpers run_until_idle skip_time move_clock reset_clock",
}
"""The verbs, as readers look for them."""

INTRODUCTIONS = {
    "Memory": "The page on [memory](memory.md#the-verbs) shows them, and"
    " [what a command does](memory.md#what-a-command-does) to values of each type. Any command"
    " can be refused with PD101 (the path), PD103 (the value), PD105 (not the `expected_version`),"
    " PD106 (the `key` was used for another command), PD109 (a contract), PD30x (too large) or"
    " PD401 (no such job).",
    "Hooks in SQL": "The page on [hooks in SQL](coordination/sql_hooks.md) shows them.",
    "Notifications": "A notification is a hint that may be lost: after it, look.",
    "Workers": "The page on [workers in other languages](coordination/workers.md) shows a worker"
    " that calls them.",
    "Tests": "Only in an app for tests: they change the clock of the app, or need pgTAP.",
}

_FUNCTION = re.compile(
    r"^create (?:function|procedure) @extschema@\.(?P<name>\w+)\((?P<arguments>.*?)\)"
    r"(?:\s+returns (?P<returned>[^\n]+))?\nlanguage",
    re.MULTILINE | re.DOTALL,
)
_TYPE = re.compile(r"^create type @extschema@\.(\w+) as \(\n(.*?)^\);", re.MULTILINE | re.DOTALL)
_VIEW = re.compile(r"^create or replace view @extschema@\.(\w+) ", re.MULTILINE)
_COMMENT = r"^comment on (?:{}) @extschema@\.{}(?:\([^)]*\))? is\s+'((?:[^']|'')*)';"


def comment(source: str, kind: str, name: str) -> str:
    """Return the comment of an object for a cell of a table, without the labels of promises."""
    found = re.search(_COMMENT.format(kind, re.escape(name)), source, re.MULTILINE)
    assert found is not None, name
    told = re.sub(r" ?\[P\d+\]", "", found[1].replace("''", "'"))
    return told.replace("|", "\\|")


def signature(found: re.Match[str]) -> str:
    """Write a verb as it is declared, on one line."""
    arguments = " ".join(found["arguments"].split()).replace("@extschema@.", "")
    returned = (found["returned"] or "").replace("@extschema@.", "")
    answer = f" → {returned}" if returned not in ("", "void") else ""
    return f"{found['name']}({arguments}){answer}".replace("|", "\\|")


def verbs() -> dict[str, tuple[str, str]]:
    """Return each verb with its signature and what it does."""
    listed = " ".join(SECTIONS.values()).split()
    return {
        found["name"]: (signature(found), comment(part.text, "function|procedure", found["name"]))
        for part in script.parts()
        for found in _FUNCTION.finditer(part.text)
        if found["name"] in listed
    }


def answers(shown: str) -> list[tuple[str, str]]:
    """Return the types that the verbs of a text return, with their fields and meaning."""
    rows = []
    for file in sorted((SQL / "types").glob("*.sql")):
        source = file.read_text("utf-8")
        for name, body in _TYPE.findall(source):
            if re.search(rf"→ (setof )?{name}`", shown):
                fields = ", ".join(" ".join(line.split()) for line in body.strip().split(",\n"))
                rows.append((f"{name}: {fields}".replace("@extschema@.", ""),
                             comment(source, "type", name)))  # fmt: skip
    return sorted(rows)


def views() -> list[tuple[str, str]]:
    """Return the views with their columns and meaning."""
    source = (SQL / "schema" / "views.sql").read_text("utf-8")
    rows = []
    for name in _VIEW.findall(source):
        commented = rf"^comment on column @extschema@\.{name}\.(\w+) is"
        columns = re.findall(commented, source, re.MULTILINE)
        rows.append((f"{name}: {', '.join(columns)}", comment(source, "view", name)))
    return rows


def table(head: str, rows: list[tuple[str, str]]) -> str:
    """Write a table of names and what they are."""
    lines = [f"| `{name}` | {told} |" for name, told in rows]
    return "\n".join([f"| {head} | |", "|---|---|", *lines]) + "\n"


def prose(text: str) -> str:
    """Fill the paragraphs of a text as the other pages are."""
    filled = (fill(each, 120, break_on_hyphens=False) for each in text.strip().split("\n\n"))
    return "\n\n".join(filled) + "\n"


def page() -> str:
    """Write the page."""
    known = verbs()
    parts = [prose(HEAD)]
    for title, names in SECTIONS.items():
        parts += [f"## {title}\n"]
        parts += [prose(INTRODUCTIONS[title])] if title in INTRODUCTIONS else []
        parts += [table("verb", [known[name] for name in names.split()])]
    parts += ["## Views\n", table("view and columns", views())]
    parts += ["## What verbs return\n", table("type and fields", answers("\n".join(parts)))]
    return "\n".join([*parts, prose(TAIL)])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
