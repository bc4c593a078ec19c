"""The page `python/api.md` lists what the package gives, as the package says it."""

from __future__ import annotations

import perdure
from tests.docs.api_page import PAGE, page


def test_the_page_is_what_the_package_gives() -> None:
    """If it is not, `python tests/docs/api_page.py` writes it."""
    assert PAGE.read_text("utf-8") == page()


def test_every_public_name_is_on_the_page() -> None:
    """Errors are listed with their codes; the kinds of functions and async classes in words."""
    written = page()
    words = {"SQL_QUEUE", "Activity", "Coordinator", "Hook", "Transaction", "SqlHook"}
    classes = {"Entity", "AsyncEntity", "TypedEntity", "TypedAsyncEntity", "AsyncItem"}
    missing = [
        name
        for name in perdure.__all__
        if name not in words | classes
        and not isinstance(getattr(perdure, name), type(perdure.PerdureError))
        and name not in written
    ]
    assert missing == []
