"""Small questions about values that every package asks: what identifies one, what was meant."""

import hashlib
import json
from collections.abc import Iterable
from difflib import get_close_matches

_LIKENESS = 0.6
"""Of two names (difflib's ratio, and its default) for one to be taken for the other mistyped."""


def digest_of(content: object) -> str:
    """SHA-256 of a value as JSON, in 64 digits: the same whatever order its keys have."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def near_miss(name: str, *, among: Iterable[str]) -> str | None:
    """The candidate that a mistyped name most likely means, upper case and hyphens aside."""
    candidates = {_simplified(candidate): candidate for candidate in among}
    matches = get_close_matches(_simplified(name), candidates, n=1, cutoff=_LIKENESS)
    return candidates[matches[0]] if matches else None


def did_you_mean(name: str, *, among: Iterable[str]) -> str:
    """The question after a near miss, with a blank behind it; empty where there is none."""
    match = near_miss(name, among=among)
    return f"did you mean {match!r}? " if match else ""


def _simplified(name: str) -> str:
    return name.casefold().replace("-", "_")
