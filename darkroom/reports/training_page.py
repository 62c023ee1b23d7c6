"""Write the report on a training: diagnose its recording, and lay out what was found as a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from darkroom.config.debugging import DiagnosisConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.diagnosis import diagnose
from darkroom.debugging.profiling.advice import CostLine, cost_advice, run_costs
from darkroom.reports.chart_axes import duration, number
from darkroom.reports.pages import render_page, thumbnail
from darkroom.reports.training_curves import (
    Numbered,
    best,
    broken_losses,
    flags,
    interrupted,
    loss_chart,
    metric_charts,
    numbered,
    objective,
    spent,
    time_by_phase,
    time_charts,
    written,
)
from darkroom.reports.training_health import (
    health_maps,
    machine_charts,
    recorded,
    shared_machine,
    suspects,
)
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Diagnosis, Finding, RuleOutcome, tally
from darkroom.telemetry.operators import OperatorTable
from darkroom.telemetry.system import TrainingPrices

# --- costs ---
# Operators, and what the profiler's advice would save.

_MAX_OPERATORS = 20


class Advice(Protocol):
    """What the page needs to know of a line of advice."""

    @property
    def advice(self) -> str: ...
    @property
    def seconds(self) -> float:
        """That it would save of a training like this one."""
        ...

    @property
    def dollars(self) -> float | None:
        """The same; None: no price is known."""
        ...

    @property
    def basis(self) -> str:
        """How that was measured or estimated."""
        ...

    @property
    def estimated(self) -> bool: ...


@dataclass(frozen=True)
class OperatorRow:
    """An operator in a profiled step."""

    name: str
    calls: float
    own_ms: float
    """Without what it called."""
    total_ms: float
    """With what it called, on the CPU."""
    share: float
    """Of the time of all operators."""


def operator_rows(table: OperatorTable | None) -> list[OperatorRow]:
    """Those that took longest, the longest first."""
    if table is None:
        return []
    steps = max(1, table.steps)
    return [
        OperatorRow(
            one.name,
            calls=one.calls / steps,
            own_ms=1e3 * one.seconds / steps,
            total_ms=one.total_cpu_ms / steps,
            share=one.share,
        )
        for one in table.operators[:_MAX_OPERATORS]
    ]


def operators_note(table: OperatorTable | None) -> str:
    """Of what the rows are a part."""
    if table is None:
        return ""
    place = "on the GPU" if table.on_device else "on the CPU"
    shown = min(_MAX_OPERATORS, len(table.operators))
    return (
        f"The {shown} of {table.operators_in_all} operators that took longest {place}, in a step; "
        f"mean of {table.steps} profiled steps. Own time is without what an operator calls."
    )


# --- training page ---

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


# --- reporting ---
# A recording judged, and its report written.

_THUMBNAIL_SIDE = 96
_USUAL_INSTANCE = "ml.m5.xlarge"
"""On which a training that ran on no AWS machine is priced: the default of `sagemaker.training`."""


@dataclass(frozen=True)
class Report:
    """What was found, as data and as an HTML page."""

    evidence: Evidence
    diagnosis: Diagnosis
    report: str


def diagnose_and_report(
    recording: Path,
    *,
    config: DiagnosisConfig,
    dataset: Dataset | None = None,
    prices: TrainingPrices = TrainingPrices(),  # noqa: B008 - frozen
    run_name: str = "",
    failure: str = "",
) -> Report:
    """Judge a recording, and write the training report.

    Args:
        recording: its folder.
        dataset: what was trained on: for pictures, and for images in two splits.
        failure: the error that the training ended with; empty: it did not fail.

    Raises:
        UserError: the folder is no recording, or a rule is unknown.
    """
    told = diagnose(recording, config=config, dataset=dataset)
    price = prices.usd_per_hour.get(prices.instance_type or "")
    costs = cost_advice(
        told.evidence,
        instance_type=prices.instance_type,
        price_per_hour=price,
        alternatives=prices.usd_per_hour,
    )
    page = training_report(
        told.evidence,
        diagnosis=told.diagnosis,
        operators=told.operators,
        run_costs=_run_costs(told.evidence, prices=prices),
        costs=costs,
        run_name=run_name,
        failure=failure,
        thumbnails=partial(_picture, dataset) if dataset else None,
    )
    diagnosis = told.diagnosis.model_copy(update={"usd_per_hour": price})
    return Report(told.evidence, diagnosis, page)


def _run_costs(evidence: Evidence, *, prices: TrainingPrices) -> list[CostLine]:
    """Of the machine that was used; of one that has no price, on the usual instance instead."""
    usd = prices.usd_per_hour
    return run_costs(
        evidence,
        instance_type=prices.instance_type,
        price_per_hour=usd.get(prices.instance_type or ""),
        alternatives={name: usd[name] for name in (_USUAL_INSTANCE,) if name in usd},
    )


def _picture(dataset: Dataset, path: str) -> str | None:
    file = dataset.root / path
    return thumbnail(file, side=_THUMBNAIL_SIDE) if file.is_file() else None
