"""The page `sql/verbs.md` lists the verbs as the SQL declares and describes them."""

from __future__ import annotations

import re

from tests.docs.verbs_page import PAGE, SECTIONS, page
from tests.source import ROOT

INTERNAL = {
    "boolean_at", "words_at", "change_tables", "create_tables", "create_triggers", "create_views",
    "record_insert", "record_update", "refuse_delete", "refuse_new_id", "index_state",
    "index_work_is_running", "schedule_name", "task_state", "task_reason", "task_needs",
    "versioned_queue", "write_path",
}  # fmt: skip
"""Functions of indexes, views, triggers and the installer."""


def test_verbs_page_is_what_sql_declares() -> None:
    """If it is not, `python tests/docs/verbs_page.py` writes it."""
    assert PAGE.read_text("utf-8") == page()


def test_every_verb_is_on_the_page() -> None:
    """The matrix of access lists all functions for callers, checked against the catalog."""
    matrix = (ROOT / "tests" / "security" / "matrix.txt").read_text("utf-8")
    functions, _, _ = matrix.partition("\n\nhistory ")
    callable_ones = set(re.findall(r"^(\w+) +(?:call|-)", functions, re.MULTILINE))
    listed = " ".join(SECTIONS.values()).split()
    assert callable_ones - INTERNAL - set(listed) == set()
    assert len(listed) == len(set(listed))
