"""What rules find, and what a diagnosis of a whole training comes to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.config.debugging import Action, Severity

# --- findings ---

SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
"""From the mildest."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )


class Plot(_Part):
    """A small line chart that shows the evidence."""

    x_label: str
    y_label: str
    x: tuple[float, ...]
    lines: dict[str, tuple[float, ...]]
    """By legend; as long as `x`; NaN where there is nothing."""
    threshold: float | None = None
    """Drawn across, where one was crossed."""
    log: bool = False
    """Logarithmic y axis."""


class Finding(_Part):
    """One thing that is wrong, as far as the figures show."""

    rule: str
    """Such as 'vanishing_gradient'."""
    title: str
    """A sentence of at most 80 characters that names the problem, such as 'Gradients vanish'."""
    severity: Severity
    action: Action
    where: str = ""
    """Layer, class or device, as a person would name it; empty: the whole run."""
    step: int | None = None
    """Training step, from 0, at which the condition was first met; None: of no single step."""
    epoch: int | None = None
    """From 1."""
    evidence: dict[str, float | str]
    """Figures by name, units in the names: measured values beside the thresholds."""
    meaning: str
    """What this does to the training, in one to three sentences."""
    advice: tuple[str, ...]
    """What to try, what helps most first; each names the setting and, where known, a value."""
    plot: Plot | None = None
    occurrences: int = 1
    """How many layers or steps met the condition; `where` and `step` are the worst or first."""
    follows_from: str = ""
    """The rule whose finding explains this one; empty: none of those found does."""

    @property
    def headline(self) -> str:
        """One line for a terminal or a log."""
        place = [self.where] if self.where else []
        when = [f"step {self.step}"] if self.step is not None else []
        detail = f" ({', '.join([*place, *when])})" if place or when else ""
        return f"{self.severity}: {self.title}{detail} [{self.rule}]"

    @property
    def in_words(self) -> str:
        """What was found, and what to try first."""
        figures = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.evidence.items()
        )
        advice = f". Try: {self.advice[0]}" if self.advice else ""
        return f"{self.headline}: {figures}{advice}"

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sorts the most important first: causes, then by severity, then the earliest."""
        step = self.step if self.step is not None else 2**31
        return (bool(self.follows_from), -SEVERITIES.index(self.severity), step)


@dataclass(frozen=True)
class Hit:
    """Where a rule's condition is met: what the pure functions return."""

    where: str
    step: int | None
    figures: dict[str, float | str]
    """The evidence."""
    plot: Plot | None = None
    severity: Severity | None = None
    """Where it is another than the rule's."""


def tally(severities: Iterable[Severity]) -> str:
    """Such as '2 errors, 1 warning', the severest first; empty: there are none."""
    counts = Counter(severities)
    return ", ".join(
        f"{counts[name]:,} {name}{'' if counts[name] == 1 else 's'}"
        for name in reversed(SEVERITIES)
        if counts[name]
    )


def most_important(findings: Sequence[Finding], *, count: int = 3) -> list[Finding]:
    """The findings to read first."""
    return sorted(findings, key=lambda finding: finding.rank)[:count]


# --- result ---
# What was found in a training.


class RuleOutcome(BaseModel):
    """What came of one rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    title: str
    outcome: Literal["found", "clear", "not_applicable", "switched_off", "failed"]
    reason: str = ""
    """Why it says nothing, such as 'no GPU', or how it failed."""
    parameters: dict[str, int | float | str | bool | None] = {}


class Diagnosis(BaseModel):
    """Findings, the most important first, and every rule's outcome."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    findings: tuple[Finding, ...]
    rules: tuple[RuleOutcome, ...]
    stopped_by: str = ""
    """The rule that ended the training early."""
    usd_per_hour: float | None = None
    """Of the machine that trained; None: it has no known price."""

    @property
    def headline(self) -> list[Finding]:
        """The three to read first."""
        return most_important(self.findings)
