"""One broken rule."""

from dataclasses import dataclass

VALIDATION = "ValidationException"


@dataclass(frozen=True)
class RuleProblem:
    """Why AWS would refuse a request."""

    message: str
    code: str = VALIDATION
    """AWS's error code."""
