"""The report of a training: what was found first, then what it was found in.

One HTML page that loads nothing: its charts are SVG in the page's own colours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.diagnosis.result import Diagnosis, RuleOutcome
from darkroom.profiling.operators_table import OperatorTable
from darkroom.reports.charts.scales import duration, number
from darkroom.reports.pages import render_page
from darkroom.reports.training_parts.costs import (
    Advice,
    operator_rows,
    operators_note,
)
from darkroom.reports.training_parts.curves import (
    best,
    broken_losses,
    loss_chart,
    metric_charts,
    objective,
)
from darkroom.reports.training_parts.findings import Numbered, flags, numbered, written
from darkroom.reports.training_parts.health import health_maps
from darkroom.reports.training_parts.machine import machine_charts, shared_machine
from darkroom.reports.training_parts.recorded import recorded, suspects
from darkroom.reports.training_parts.times import interrupted, spent, time_by_phase, time_charts
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Finding, tally

_HEADLINE = 3
_ORDER = ("found", "failed", "clear", "not_applicable", "switched_off")

Card = tuple[str, str, str]


def training_report(
    evidence: Evidence,
    *,
    diagnosis: Diagnosis,
    operators: OperatorTable | None = None,
    run_costs: Sequence[Advice] = (),
    costs: Sequence[Advice] = (),
    run_name: str = "",
    failure: str = "",
    thumbnails: Callable[[str], str | None] | None = None,
) -> str:
    """The training as one HTML page; what was not recorded is said, and left out.

    Args:
        operators: where the time of the profiled steps went.
        run_costs: what the training cost or would cost, and what of it was idle.
        costs: what the profiler's advice would save.
        failure: the error that the training ended with; empty: it did not fail.
        thumbnails: the picture of an image of the manifest, by path, as a data URI.
    """
    findings = numbered(diagnosis.findings)
    return render_page(
        "training.html.j2",
        name=run_name,
        facts=evidence.facts,
        facts_line=_facts_line(evidence),
        verdict=verdict(diagnosis, ended=evidence.ended),
        failure=failure,
        cards=_cards(evidence),
        headline=findings[:_HEADLINE],
        further=findings[_HEADLINE:],
        loss=loss_chart(evidence, flags=flags(findings, steps=evidence.steps)),
        broken=broken_losses(evidence.steps),
        metrics=metric_charts(evidence),
        health=health_maps(evidence.tensors),
        rules=_rules(diagnosis, findings=findings),
        time=time_charts(evidence),
        spent=spent(evidence),
        interrupted=interrupted(evidence),
        machine=machine_charts(evidence.system),
        shared=shared_machine(evidence),
        operators=operator_rows(operators),
        operators_note=operators_note(operators),
        run_costs=list(run_costs),
        costs=list(costs),
        suspects=suspects(evidence, thumbnails=thumbnails),
        recorded=recorded(evidence, has_operators=operators is not None),
        hyperparameters=[
            (k, written(v)) for k, v in sorted(evidence.facts.hyperparameters.items())
        ],
        duration=duration,
        number=number,
    )


def verdict(diagnosis: Diagnosis, *, ended: bool = True) -> tuple[str, str]:
    """A class of the style sheet, and a sentence or two."""
    told = "" if ended else " The training had not ended when this was written."
    if diagnosis.stopped_by:
        told = f" The rule {diagnosis.stopped_by} ended the training early.{told}"
    failed = sum(rule.outcome == "failed" for rule in diagnosis.rules)
    if failed:
        told = f"{told} {_counted(failed, 'rule')} could not be evaluated."
    if diagnosis.findings:
        first = diagnosis.headline[0].title
        return _worst(
            diagnosis.findings
        ), f"{tally(one.severity for one in diagnosis.findings)}. First: {first}.{told}"
    applied = sum(rule.outcome == "clear" for rule in diagnosis.rules)
    if not applied:
        return "warning", f"Not judged: no rule was evaluated.{told}"
    return "good", f"Nothing was found by the {_counted(applied, 'rule')} that applied.{told}"


def _worst(findings: Sequence[Finding]) -> str:
    severities = {finding.severity for finding in findings}
    return "bad" if "error" in severities else "warning" if "warning" in severities else "good"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _facts_line(evidence: Evidence) -> str:
    facts = evidence.facts
    images = {split: sum(counts) for split, counts in facts.class_counts.items()}
    parts = [
        facts.architecture,
        _counted(len(facts.classes), "class").replace("classs", "classes"),
        *(f"{count:,} {split} images" for split, count in images.items() if count),
    ]
    if facts.processes > 1:
        parts.append(f"{facts.processes} processes")
    return " · ".join(parts)


def _cards(evidence: Evidence) -> list[Card]:
    return [
        *_best_cards(evidence),
        *_step_cards(evidence),
        *_speed_cards(evidence),
        *_waiting_card(evidence),
    ]


def _best_cards(evidence: Evidence) -> list[Card]:
    kept, metric = best(evidence), objective(evidence)
    if kept is None or metric is None:
        return []
    name = metric.replace("_", " ").replace("f1", "F1")
    note = f"epoch {kept.epoch} of {len(evidence.epochs)}, validation"
    cards = [(name, number(kept.validation[metric]), note)]
    if metric != "accuracy" and "accuracy" in kept.validation:
        told = f"{number(kept.train_accuracy)} while training"
        cards.append(("accuracy", number(kept.validation["accuracy"]), told))
    return cards


def _step_cards(evidence: Evidence) -> list[Card]:
    steps = evidence.steps
    if not len(steps):
        return [("steps", "0", "none was recorded")]
    epochs = len(np.unique(steps.epoch))
    last = number(float(steps.loss[-1]))
    return [
        ("steps", f"{len(steps):,}", f"in {_counted(epochs, 'epoch')}"),
        ("last loss", last, "of the last step"),
    ]


def _speed_cards(evidence: Evidence) -> list[Card]:
    total = sum(time_by_phase(evidence).values())
    if not total:
        return []
    images = int(evidence.steps.images.sum())
    return [("time", duration(total), f"{images / total:,.0f} training images/s overall")]


def _waiting_card(evidence: Evidence) -> list[Card]:
    times = time_by_phase(evidence)
    total = sum(times.values())
    if not total:
        return []
    share = times.get("data_wait", 0.0) / total
    return [("waiting for data", f"{share:.0%}", "of the time")]


@dataclass(frozen=True)
class _RuleRow:
    outcome: RuleOutcome
    findings: Sequence[Numbered]

    @property
    def first(self) -> int:
        """Number of the most important of its findings."""
        return min((one.number for one in self.findings), default=0)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        return [(name, written(value)) for name, value in self.outcome.parameters.items()]


def _rules(diagnosis: Diagnosis, *, findings: Sequence[Numbered]) -> list[_RuleRow]:
    """Those that found something first, in the order of what they found."""
    rows = [
        _RuleRow(rule, [one for one in findings if one.finding.rule == rule.rule])
        for rule in diagnosis.rules
    ]
    return sorted(rows, key=lambda row: (_ORDER.index(row.outcome.outcome), row.first))
