"""A rule: what it needs, its parameters, its severity, and the wording of its advice."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from darkroom.config.debugging import Severity
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Hit

# --- rule ---

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


# --- advice ---
# Wordings of advice that name Darkroom's settings with the run's own values.

Advice = Callable[[Hit, Evidence], tuple[str, ...]]


def always(*advice: str) -> Advice:
    """The same advice whatever was hit."""
    return lambda hit, evidence: advice


def now(evidence: Evidence, name: str) -> str:
    """' (now 0.001)' for a hyperparameter; empty where it is unknown."""
    value = evidence.facts.hyperparameters.get(name)
    if value is None:
        return ""
    return f" (now {value:g})" if isinstance(value, float) else f" (now {value})"


def number(evidence: Evidence, name: str, *, default: float) -> float:
    """A hyperparameter as a number; `default` where it is unknown."""
    value = evidence.facts.hyperparameters.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def change_rate(evidence: Evidence, *, factor: float) -> str:
    """'lower training.learning_rate from 1 to about 0.001'."""
    verb = "raise" if factor > 1 else "lower"
    rate = number(evidence, "learning_rate", default=0)
    if not rate:
        return f"{verb} training.learning_rate by a factor of {max(factor, 1 / factor):.0f}"
    return f"{verb} training.learning_rate from {rate:g} to about {min(rate * factor, 10):.1g}"


def clip_gradients(evidence: Evidence) -> tuple[str, ...]:
    """To clip, where nothing is clipped."""
    if number(evidence, "gradient_clip", default=1):
        return ()
    return ("set training.gradient_clip to 1 (now 0: not clipped)",)


def usual_rate(evidence: Evidence) -> float:
    """A learning rate that usually works: 1e-3 for AdamW, the default; 1e-2 for SGD.

    Kingma and Ba, Adam, ICLR 2015 (1e-3); torchvision's references/classification
    (0.1 for SGD from scratch with batches of 256, a tenth of it to fine-tune).
    """
    return 1e-2 if evidence.facts.hyperparameters.get("optimizer") == "sgd" else 1e-3


def toward_usual_rate(evidence: Evidence, *, factor: float) -> str:
    """Change the rate by a factor, or to the usual one where that is further in that direction."""
    rate, usual = number(evidence, "learning_rate", default=0), usual_rate(evidence)
    if rate:
        further = max if factor > 1 else min
        factor = further(factor, usual / rate)
    return change_rate(evidence, factor=factor)
