"""Test workflows in an app of their own, with a worker beside the test and time that is skipped.

    with perdure.testing.Lab(app) as lab:
        lab.mock(search, lambda query: [f"about {query}"])
        assert lab.run(research, "subsidies") == "done"         # also if it sleeps for thirty days
        lab.check()

    async with perdure.testing.AsyncLab(app) as lab:            # in an async test
        assert await lab.run(research, "subsidies") == "done"

With pytest, the fixture `perdure_lab` gives each test a lab and checks it at the end.
"""

from __future__ import annotations

from .async_lab import AsyncLab
from .doubles import Mocked
from .lab import Lab

__all__ = ["AsyncLab", "Lab", "Mocked"]
