"""What was found in a training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.rules.findings import Finding, most_important


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
