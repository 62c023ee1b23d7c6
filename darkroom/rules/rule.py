"""A rule: a pure function that finds where a condition is met, and what a person makes of it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from darkroom.config.debugging import Severity
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit

Value = int | float | str | bool | None


class NotApplicableError(Exception):
    """A rule has nothing to judge; the message says why, such as 'no GPU'."""


class Evaluate(Protocol):
    """Finds where the condition is met: the worst place first, nothing where all is well.

    Parameters are keyword-only, annotated and have defaults; the same evidence gives the
    same hits.

    Raises:
        NotApplicableError: what the rule judges was not recorded, or is not there yet.
    """

    def __call__(self, evidence: Evidence, **parameters: Value) -> Sequence[Hit]: ...


@dataclass(frozen=True)
class Rule:
    """A condition and its meaning."""

    name: str
    """As configurations write it, such as 'vanishing_gradient'."""
    title: str
    severity: Severity
    meaning: str
    advice: Callable[[Hit, Evidence], tuple[str, ...]]
    """What to try after a hit, what helps most first."""
    evaluate: Callable[..., Sequence[Hit]]
    """See `Evaluate`."""
    live: bool = True
    """Whether it says anything of a training that has not ended."""

    @property
    def parameters(self) -> Mapping[str, Value]:
        """Names and defaults."""
        signature = inspect.signature(self.evaluate)
        return {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
