"""How much the random tests try: PERDURE_TEST_AMOUNT scales it, PERDURE_RACE_SEED repeats it."""

from __future__ import annotations

import os
import random


def amount(usual: int) -> int:
    """Scale an amount: `amount(2400)` is 24,000 with PERDURE_TEST_AMOUNT=10."""
    return max(1, int(usual * float(os.environ.get("PERDURE_TEST_AMOUNT", "1"))))


def seed() -> str:
    """Give the seed of this run, and print it; pytest shows it when the test fails."""
    seed = os.environ.get("PERDURE_RACE_SEED") or str(random.randrange(1_000_000))
    print(f"PERDURE_RACE_SEED={seed}")
    return seed
