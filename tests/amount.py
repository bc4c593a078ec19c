"""How much the random tests try: PERDURE_TEST_AMOUNT scales it, and PERDURE_RACE_SEED repeats a
run."""

from __future__ import annotations

import os
import random


def amount(usual: int) -> int:
    """Scale a number: `amount(2400)` is 24,000 with PERDURE_TEST_AMOUNT=10."""
    return max(1, int(usual * float(os.environ.get("PERDURE_TEST_AMOUNT", "1"))))


def seed() -> str:
    """Return the seed of this run, and print it, so that pytest shows it when a test fails."""
    seed = os.environ.get("PERDURE_RACE_SEED") or str(random.randrange(1_000_000))
    print(f"PERDURE_RACE_SEED={seed}")
    return seed
