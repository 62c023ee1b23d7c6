"""A recording judged, and its report written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from darkroom.config.debugging import DiagnosisConfig
from darkroom.dataset import Dataset
from darkroom.diagnosis.diagnosing import diagnose
from darkroom.diagnosis.result import Diagnosis
from darkroom.profiling.advice import CostLine, cost_advice, run_costs
from darkroom.reports.pages import thumbnail
from darkroom.reports.training_page import training_report
from darkroom.rules.evidence import Evidence

_THUMBNAIL_SIDE = 96
_USUAL_INSTANCE = "ml.m5.xlarge"
"""On which a training that ran on no AWS machine is priced: the default of `sagemaker.training`."""


@dataclass(frozen=True)
class TrainingPrices:
    """What machines to train on cost."""

    instance_type: str | None = None
    """That was used; None: one of no price."""
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    """By instance type."""


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
    prices: TrainingPrices = TrainingPrices(),
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
