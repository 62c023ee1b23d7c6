"""Judging a training: every rule over its evidence, one finding a rule, causes first."""

import math
from collections.abc import Mapping, Sequence

from darkroom.config.debugging import Action, DiagnosisConfig, Severity
from darkroom.diagnosis.result import Diagnosis, RuleOutcome
from darkroom.rules.checking import ConfiguredRule, check_rules, configured_rules
from darkroom.rules.evidence import Evidence
from darkroom.rules.explaining import explained
from darkroom.rules.findings import SEVERITIES, Finding, Hit
from darkroom.rules.rule import NotApplicableError
from darkroom.rules.series import epoch_of

__all__ = ["DEFAULT_ACTIONS", "check_rules", "judge"]

DEFAULT_ACTIONS: Mapping[Severity, Action] = {"note": "note", "warning": "warn", "error": "warn"}
"""Nothing ends a training unless the configuration says so: a rule may err, and the loop ends
a training whose loss is no number anyway."""
_ENDING: tuple[Action, ...] = ("fail", "stop")
_LONGEST_REASON = 300


def judge(evidence: Evidence, *, config: DiagnosisConfig, live: bool = False) -> Diagnosis:
    """Evaluate every rule.

    Args:
        live: the training runs: rules that need its end are left out, and `stopped_by` names
            the first finding whose action ends it.

    Raises:
        UserError: the configuration names rules, parameters or files that do not exist.
    """
    return judge_by(evidence, rules=configured_rules(config), live=live)


def judge_by(
    evidence: Evidence, *, rules: Sequence[ConfiguredRule], live: bool = False
) -> Diagnosis:
    """Evaluate rules that were configured before, as a live judge does again and again."""
    findings, outcomes = [], []
    for one in rules:
        outcome, finding = _judge_one(evidence, one, live=live)
        outcomes.append(outcome)
        findings += [finding] if finding else []
    ranked = explained(findings)
    return Diagnosis(
        findings=tuple(ranked),
        rules=tuple(outcomes),
        stopped_by=_ended_by(ranked) if live else "",
    )


def _judge_one(
    evidence: Evidence, one: ConfiguredRule, *, live: bool
) -> tuple[RuleOutcome, Finding | None]:
    rule = one.rule
    outcome = RuleOutcome(
        rule=rule.name, title=rule.title, outcome="clear", parameters=one.parameters
    )
    if not one.config.enabled:
        return outcome.model_copy(update={"outcome": "switched_off"}), None
    if live and not rule.live:
        reason = "judged when the training has ended"
        return outcome.model_copy(update={"outcome": "not_applicable", "reason": reason}), None
    try:
        hits = rule.evaluate(evidence, **one.config.parameters)
        finding = _finding(evidence, one, hits=hits) if hits else None
    except NotApplicableError as error:
        return _said(outcome, outcome="not_applicable", reason=str(error)), None
    except (Exception, SystemExit) as error:  # a rule's fault must not become the training's
        reason = f"{type(error).__name__}: {error}"
        return _said(outcome, outcome="failed", reason=reason), None
    return (_said(outcome, outcome="found") if finding else outcome), finding


def _said(of: RuleOutcome, *, outcome: str, reason: str = "") -> RuleOutcome:
    return of.model_copy(update={"outcome": outcome, "reason": reason[:_LONGEST_REASON]})


def _finding(evidence: Evidence, one: ConfiguredRule, *, hits: Sequence[Hit]) -> Finding:
    """One finding of all hits: the worst place, and how many there are."""
    rule, worst = one.rule, hits[0]
    severity = one.config.severity or _severest(hits, default=rule.severity)
    return Finding(
        rule=rule.name,
        title=rule.title,
        severity=severity,
        action=one.config.action or DEFAULT_ACTIONS[severity],
        where=worst.where,
        step=worst.step,
        epoch=epoch_of(evidence, step=worst.step),
        evidence={name: _plain(value) for name, value in worst.figures.items()},
        meaning=rule.meaning,
        advice=rule.advice(worst, evidence),
        plot=worst.plot,
        occurrences=len(hits),
    )


def _severest(hits: Sequence[Hit], *, default: Severity) -> Severity:
    return max((hit.severity or default for hit in hits), key=SEVERITIES.index)


def _plain(value: float | str) -> float | str:
    """Python's own types, and text for what JSON cannot say."""
    if isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else str(float(value))


def _ended_by(findings: Sequence[Finding]) -> str:
    """The rule that ends the training: one that fails it before one that stops it."""
    for action in _ENDING:
        for finding in findings:
            if finding.action == action:
                return finding.rule
    return ""
