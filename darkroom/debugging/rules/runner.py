"""Run rules over evidence: check their configuration, apply them, explain what they found."""

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from darkroom.base.errors import UserError
from darkroom.base.values import did_you_mean
from darkroom.config.debugging import (
    Action,
    CustomRuleConfig,
    DiagnosisConfig,
    RuleConfig,
    Severity,
)
from darkroom.debugging.rules.catalogue import RULES
from darkroom.debugging.rules.custom import load_custom_rule
from darkroom.debugging.rules.rule import NotApplicableError, Rule, Value
from darkroom.debugging.rules.series import epoch_of
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import SEVERITIES, Diagnosis, Finding, Hit, RuleOutcome

__all__ = ["DEFAULT_ACTIONS", "check_rules", "judge"]


# --- checks of the rules' configuration ---
# Whether what a configuration says of rules can be done: all problems at once, before a run.


@dataclass(frozen=True)
class ConfiguredRule:
    """A rule, and what differs from its defaults."""

    rule: Rule
    config: RuleConfig

    @property
    def parameters(self) -> dict[str, Value]:
        """All of them, with their values."""
        return {**self.rule.parameters, **self.config.parameters}


def check_rules(config: DiagnosisConfig) -> None:
    """See that every rule and parameter that is named exists, and that values fit.

    Raises:
        UserError: all problems.
    """
    configured_rules(config)


def configured_rules(config: DiagnosisConfig) -> list[ConfiguredRule]:
    """Every rule with its configuration, the user's own ones last.

    Raises:
        UserError: all problems.
    """
    problems = [_unknown_rule(name) for name in config.rules if name not in RULES]
    rules = [
        ConfiguredRule(rule, config.rules.get(name, RuleConfig())) for name, rule in RULES.items()
    ]
    for custom in config.custom:
        try:
            rules.append(ConfiguredRule(load_custom_rule(custom.function), custom))
        except UserError as error:
            problems += error.problems
    problems += _repeated(rules)
    problems += [problem for one in rules for problem in _parameter_problems(one)]
    problems += [problem for one in rules for problem in _action_problems(one, live=config.live)]
    if problems:
        raise UserError(problems)
    return rules


def _unknown_rule(name: str) -> str:
    meant = did_you_mean(name, among=RULES)
    return f"diagnosis.rules: unknown rule {name!r}; {meant}docs/rules.md lists all {len(RULES)}"


def _repeated(rules: Iterable[ConfiguredRule]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for one in rules:
        if one.rule.name in seen:
            problems.append(
                f"diagnosis.custom: there is a rule {one.rule.name!r} already; rename the function"
            )
        seen.add(one.rule.name)
    return problems


def _parameter_problems(one: ConfiguredRule) -> list[str]:
    known = one.rule.parameters
    types = _types(one.rule)
    where = f"{_where(one)}.parameters"
    problems = []
    for name, value in one.config.parameters.items():
        if name not in known:
            problems.append(
                f"{where}: unknown parameter {name!r}; {one.rule.name} has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        elif not _fits(value, allowed=types[name]):
            problems.append(
                f"{where}.{name} must be {_worded(types[name])}, not {value!r}; "
                f"its default is {known[name]!r}"
            )
        elif problem := _regex_problem(name, value):
            problems.append(f"{where}.{name}: {value!r} is no regular expression: {problem}")
    return problems


def _action_problems(one: ConfiguredRule, *, live: bool) -> list[str]:
    """To stop a training there has to be one that runs."""
    if one.config.action != "stop" or not one.config.enabled or (live and one.rule.live):
        return []
    why = (
        f"{one.rule.name} is judged when the training has ended"
        if live
        else "diagnosis.live is false: nothing is judged before the training has ended"
    )
    return [
        f"{_where(one)}.action: 'stop' ends nothing: {why}; 'fail' fails the run then, and "
        "nothing is registered"
    ]


def _where(one: ConfiguredRule) -> str:
    if isinstance(one.config, CustomRuleConfig):
        return f"diagnosis.custom {one.config.function!r}"
    return f"diagnosis.rules.{one.rule.name}"


def _types(rule: Rule) -> Mapping[str, tuple[type, ...]]:
    """By parameter: the types that it may have; those of its default where it has none."""
    return {
        name: _allowed(parameter.annotation, default=parameter.default)
        for name, parameter in inspect.signature(rule.evaluate).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _allowed(annotation: object, *, default: Value) -> tuple[type, ...]:
    if isinstance(annotation, type) and annotation in (int, float, str, bool):
        return (annotation,)
    if options := get_args(annotation):
        return tuple(options)
    return () if default is None else (type(default),)


def _fits(value: Value, *, allowed: tuple[type, ...]) -> bool:
    if not allowed or type(value) in allowed:
        return True
    return type(value) is int and float in allowed


def _worded(allowed: tuple[type, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return " or ".join(names.get(one, "null") for one in allowed)


def _regex_problem(name: str, value: Value) -> str:
    if not (name.endswith("regex") and isinstance(value, str)):
        return ""
    try:
        re.compile(value)
    except re.error as error:
        return str(error)
    return ""


# --- explanations ---
# Which findings follow from which: data, so that a diagnosis begins with the causes.

_NOTHING_LEARNED = (
    *("loss_not_decreasing", "plateau", "underfitting", "overtraining"),
    *("class_imbalance", "confusion", "chance_level"),
)
_NO_GRADIENT = (
    *("vanishing_gradient", "layer_not_learning", "unchanged_tensor", "weight_update_ratio"),
    "learning_rate_too_low",
)
_UNSTABLE = (
    *("non_finite_loss", "exploding_tensor", "loss_spike", "weight_update_ratio", "dead_relu"),
    *("saturated_activation", "vanishing_gradient", "layer_not_learning"),
)
_RATE = "training.learning_rate"
"""Of which the cause alone says what it should be: one rate is advised, not several."""
_POOR_VALIDATION = ("overfit", "train_validation_divergence", "chance_level")
_LABELS = ("label_noise",)

EXPLAINS: Mapping[str, Sequence[str]] = {
    "check_input_images": (
        *("poor_weight_initialization", "learning_rate_too_high", "unchanged_tensor"),
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "all_zero": (
        *("dead_relu", "saturated_activation", "poor_weight_initialization"),
        *(*_NO_GRADIENT, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "poor_weight_initialization": (
        *("learning_rate_too_high", "learning_rate_too_low", "unchanged_tensor"),
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "learning_rate_too_high": (
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS, "unchanged_tensor"),
    ),
    "noisy_batches": (
        *("small_batches", "loss_spike", "poor_weight_initialization", "learning_rate_too_high"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION),
    ),
    "dead_relu": (*_NO_GRADIENT, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    "learning_rate_too_low": (
        *("unchanged_tensor", "layer_not_learning", "weight_update_ratio"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "layer_not_learning": (
        *("unchanged_tensor", "vanishing_gradient", "weight_update_ratio"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "vanishing_gradient": ("unchanged_tensor", "weight_update_ratio", *_NOTHING_LEARNED),
    "class_missing": ("class_imbalance", "confusion", *_POOR_VALIDATION),
    "label_noise": (*_NOTHING_LEARNED, *_POOR_VALIDATION),
    "non_finite_loss": ("exploding_tensor", "vanishing_gradient", "dead_relu"),
    "train_validation_divergence": ("overtraining",),
    "overfit": ("train_validation_divergence", "overtraining"),
}
"""By cause: what it brings about. The causes are in the order in which they are believed: of
two that explain one another the first is the cause."""


def explained(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those that follow from another one marked so, in the order of their rank.

    A note explains nothing.
    """
    titles = {
        finding.rule: finding.title
        for finding in findings
        if SEVERITIES.index(finding.severity) > 0
    }
    marked: dict[str, str] = {}
    for cause in (cause for cause in EXPLAINS if cause in titles):
        for finding in findings:
            follows = finding.rule in EXPLAINS[cause] and finding.rule not in marked
            if follows and marked.get(cause) != finding.rule:
                marked[finding.rule] = cause
    all_marked = [
        _marked(finding, cause=marked.get(finding.rule, ""), titles=titles) for finding in findings
    ]
    return sorted(all_marked, key=lambda finding: finding.rank)


def _marked(finding: Finding, *, cause: str, titles: Mapping[str, str]) -> Finding:
    if not cause:
        return finding
    advice = [f"first see to {cause}", *(one for one in finding.advice if _RATE not in one)]
    meaning = f"Probably follows from {titles[cause]!r} ({cause}). {finding.meaning}"
    return finding.model_copy(
        update={"follows_from": cause, "meaning": meaning, "advice": tuple(advice)}
    )


# --- evaluation of the rules ---

DEFAULT_ACTIONS: Mapping[Severity, Action] = {"note": "note", "warning": "warn", "error": "warn"}
"""Nothing ends a training unless the configuration says so: a rule may err, and the loop ends
a training whose loss is no number anyway."""
_ENDING: tuple[Action, ...] = ("fail", "stop")
_MAX_REASON = 300


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
    return of.model_copy(update={"outcome": outcome, "reason": reason[:_MAX_REASON]})


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
