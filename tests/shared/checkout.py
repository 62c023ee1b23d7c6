"""Where what tests look at lies."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
CHECKOUT = TESTS.parent
PHOTOGRAPHS = CHECKOUT.parent / "shared" / "data"
"""Real ones, which not every machine has."""
