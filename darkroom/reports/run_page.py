"""The overview of a run: what came of it in one sentence, and the way to everything else.

Of a run that failed, or was stopped, it holds what had come of it until then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from darkroom.config.sections import SPLITS, Metric
from darkroom.evaluation.evaluate import Evaluation, MetricValue
from darkroom.evaluation.findings import findings
from darkroom.reports.pages import render_page
from darkroom.runs.summary import BatchSummary, DataSummary, EndpointSummary, Timings, metric_label
from darkroom.telemetry.findings import Diagnosis, Finding, most_important
from darkroom.tuning.results import TuningResult

Tone = Literal["good", "warning", "bad"]

_SHOWN_FINDINGS = 5
_SHOWN_TRIALS = 5
_SHOWN_CLASSES = 30
_PAGES = {
    "validation": "The data set: what was found in the images",
    "training": "The training: its course, and what was found in it",
    "evaluation": "The evaluation: where the model errs",
    "compilation": "The engines that were measured",
}


@dataclass(frozen=True)
class Failure:
    """Why a run did not come to its end."""

    component: str
    """That was under way; empty: none was."""
    reason: str
    kind: Literal["failed", "stopped", "interrupted"]
    """By an error, by a rule or check of the run itself, or by whoever ended it."""


@dataclass(frozen=True)
class Overview:
    """What is known of a run; None and empty where it did not get so far."""

    name: str
    stack: str
    started: datetime
    source: str
    pages: Sequence[str]
    """Reports beside this page, by name."""
    timings: Timings | None
    places: Sequence[tuple[str, str]]
    """What lies where, by what it is."""
    failure: Failure | None = None
    data: DataSummary | None = None
    search: TuningResult | None = None
    diagnosis: Diagnosis | None = None
    test: Evaluation | None = None
    validation: Evaluation | None = None
    gate: str = ""
    """What the model had to reach, in words."""
    endpoint: EndpointSummary | None = None
    endpoint_reason: str = ""
    """Why there is none."""
    batch: BatchSummary | None = None


def run_page(overview: Overview) -> str:
    """The overview as one HTML page, which links the reports that lie beside it."""
    tone, verdict = verdict_of(overview)
    diagnosis = overview.diagnosis
    found = diagnosis.findings if diagnosis else ()
    return render_page(
        "run.html.j2",
        run=overview,
        tone=tone,
        verdict=verdict,
        headline=_headline(overview.test),
        metrics=_metrics(overview),
        splits=SPLITS,
        classes=_classes(overview.data),
        classes_shown=_SHOWN_CLASSES,
        trials=_trials(overview.search),
        findings=most_important(found, count=_SHOWN_FINDINGS),
        more_findings=max(0, len(found) - _SHOWN_FINDINGS),
        evaluation_findings=findings(overview.test) if overview.test else [],
        pages=[(f"{name}.html", _PAGES.get(name, name)) for name in overview.pages],
        next_steps=_next_steps(overview),
    )


def verdict_of(overview: Overview) -> tuple[Tone, str]:
    """What came of a run, in one sentence, and whether that is good."""
    if overview.failure:
        return _verdict_of_failure(overview.failure)
    if overview.test is None:
        return "warning", "The run ended without an evaluation."
    accuracy = overview.test.metrics["accuracy"]
    low, high = accuracy.interval or (0.0, 1.0)
    images = len(overview.test.predictions)
    level = f"{100 * overview.test.confidence_level:g} %"
    told = (
        f"{accuracy.value:.1%} of {images:,} test images are classified right "
        f"({level} interval {low:.1%} to {high:.1%})"
    )
    guess, guessed = _best_guess(overview.test)
    if low <= guess:
        return "bad", (
            f"{told}: that is not shown to be better than always answering {guessed!r}, which "
            f"would be right for {guess:.1%}. {_fate(overview)}"
        )
    if overview.endpoint and overview.endpoint.agreement == 1:
        return "good", f"{told}. {_fate(overview)}"
    return "warning", f"{told}. {_fate(overview)}"


def _verdict_of_failure(failure: Failure) -> tuple[Tone, str]:
    where = f" in {failure.component}" if failure.component else ""
    if failure.kind == "interrupted":
        return "warning", f"The run was interrupted{where}; the same command goes on where it can."
    word = "was stopped" if failure.kind == "stopped" else "failed"
    return "bad", f"The run {word}{where}: nothing was deployed."


def _best_guess(evaluation: Evaluation) -> tuple[float, str]:
    """The share of the most frequent class, which needs no model, and its name."""
    largest = max(evaluation.per_class, key=lambda score: score.support)
    return largest.support / max(1, len(evaluation.predictions)), largest.name


def _fate(overview: Overview) -> str:
    endpoint = overview.endpoint
    if endpoint is None:
        return f"It was not deployed: {overview.endpoint_reason}."
    agreed = f"{endpoint.agreement:.1%} of {endpoint.checked_images} images as evaluated"
    stays = f"it listens at {endpoint.url}" if endpoint.url else "it was stopped after the check"
    return f"It was deployed; the endpoint answered {agreed}, and {stays}."


def _headline(evaluation: Evaluation | None) -> list[tuple[str, MetricValue]]:
    if evaluation is None:
        return []
    metrics = evaluation.metrics
    return [(metric_label(name), metrics[name]) for name in get_args(Metric) if name in metrics]


def _metrics(overview: Overview) -> list[tuple[str, MetricValue | None, MetricValue | None]]:
    """Name, validation and test of every metric."""
    validation, test = (
        evaluation.metrics if evaluation else {}
        for evaluation in (overview.validation, overview.test)
    )
    names = dict.fromkeys(
        [name for name in get_args(Metric) if name in test] + [*test] + [*validation]
    )
    return [(metric_label(name), validation.get(name), test.get(name)) for name in names]


def _classes(data: DataSummary | None) -> list[tuple[str, list[int]]]:
    """Name and images by split, the largest class first."""
    if data is None:
        return []
    counts = data.counts
    names = {name for by_class in counts.values() for name in by_class}
    rows = [(name, [counts[split].get(name, 0) for split in SPLITS]) for name in names]
    return sorted(rows, key=lambda row: (-sum(row[1]), row[0]))


def _trials(search: TuningResult | None) -> list[str]:
    """The best trials, in words."""
    if search is None:
        return []
    sign = -1 if search.direction == "maximize" else 1
    complete = [trial for trial in search.trials if trial.state == "complete"]
    ranked = sorted(complete, key=lambda trial: sign * trial.value)
    return [trial.in_words(search.objective) for trial in ranked[:_SHOWN_TRIALS]]


def _next_steps(overview: Overview) -> list[str]:
    """What to do next, what helps most first."""
    advice = [_advice(one) for one in most_important(_findings(overview), count=2) if one.advice]
    if overview.failure:
        again = "Give the same command again: what was done already is reused."
        return [*advice, again]
    left = [
        f"Compare it with another run: python run.py compare OTHER_RUN {overview.name}",
        f"Classify images with it: python run.py predict IMAGE --model {overview.name}",
    ]
    if overview.endpoint is None:
        return [*advice, "Look at the mistakes: the evaluation shows them", *left]
    return [*advice, *left]


def _findings(overview: Overview) -> Sequence[Finding]:
    found = overview.diagnosis.findings if overview.diagnosis else ()
    return [finding for finding in found if finding.severity != "note"]


def _advice(finding: Finding) -> str:
    return f"{finding.title}: {finding.advice[0]}"
