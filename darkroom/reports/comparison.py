"""Two trainings side by side, before and after a change, as one HTML page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from markupsafe import Markup

from darkroom.config.sections import Metric, is_better
from darkroom.evaluation.intervals import difference_interval
from darkroom.reports.chart_axes import Key, legend, number
from darkroom.reports.charts import Line, line_chart, share_bar
from darkroom.reports.pages import render_page
from darkroom.reports.training_curves import (
    OTHER,
    PARTS,
    best,
    epoch_chart,
    epoch_line,
    smoothed,
    spans_decades,
    time_by_phase,
    written,
)
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import Evidence, Floats, StepLog
from darkroom.telemetry.findings import Diagnosis, Finding

# --- run differences ---
# Two recorded trainings, before and after a change: what differs.

_SAME_WITHIN = 1e-9

_CONFIDENCE = 0.95
_OF_EACH_CLASS: tuple[Metric, ...] = (
    "balanced_accuracy",
    "f1_macro",
    "precision_macro",
    "recall_macro",
)

Fate = Literal["went", "came", "stayed"]
Chance = Literal["", "within chance", "chance unknown"]


@dataclass(frozen=True)
class RecordedRun:
    """A training, what was found in it, and what an hour of it costs."""

    name: str
    evidence: Evidence
    diagnosis: Diagnosis
    dollars_per_hour: float | None = None


@dataclass(frozen=True)
class Pair:
    """A value of both runs; None where a run has none."""

    name: str
    before: float | None
    after: float | None
    less_is_better: bool | None = None
    """None: neither is."""
    chance: Chance = ""
    """Whether other images could have turned the difference round; empty: hardly."""

    @property
    def difference(self) -> float | None:
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """A class of the style sheet: 'good', 'bad', or nothing."""
        change = self.difference
        if change is None or self.less_is_better is None or abs(change) <= _SAME_WITHIN:
            return ""
        if self.chance:
            return ""
        return "good" if (change < 0) == self.less_is_better else "bad"


@dataclass(frozen=True)
class Setting:
    """A setting that differs."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Traced:
    """What became of what a rule found."""

    fate: Fate
    before: Finding | None
    after: Finding | None

    @property
    def finding(self) -> Finding:
        """As it is now, or as it was where it went."""
        found = self.after or self.before
        assert found  # noqa: S101 - one of the two runs has it
        return found


def settings(before: RecordedRun, *, after: RecordedRun) -> list[Setting]:
    """Those that differ, by name."""
    old, new = _settings(before.evidence), _settings(after.evidence)
    names = sorted(old.keys() | new.keys())
    return [
        Setting(name, before=written(old.get(name)), after=written(new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    ]


def metrics(before: RecordedRun, *, after: RecordedRun) -> list[Pair]:
    """Of the epoch whose weights were kept, on the validation images."""
    old, new = best(before.evidence), best(after.evidence)
    comparable = are_comparable(before, after=after)
    was: Mapping[str, float] = old.validation if old else {}
    is_: Mapping[str, float] = new.validation if new else {}
    return [
        Pair(
            metric.replace("_", " ").replace("f1", "F1"),
            before=was.get(metric),
            after=is_.get(metric),
            # Of other classes or images, a larger number is not a better one.
            less_is_better=is_better(0.0, 1.0, metric=metric) if comparable else None,
            chance=_chance(
                metric,
                before=was.get(metric),
                after=is_.get(metric),
                images=before.evidence.facts.class_counts.get("validation", ()),
            )
            if comparable
            else "",
        )
        for metric in get_args(Metric)
        if metric in was or metric in is_
    ]


def _chance(
    metric: Metric, *, before: float | None, after: float | None, images: Sequence[int]
) -> Chance:
    """Whether a difference between two trainings lies within what other images would bring.

    A recording has no predictions by image, so that the trainings are compared as if by
    different images of the same kind. Averages over classes vary as the accuracy of so many
    images would of which the smallest classes' share is as large as in the average. Of losses
    and calibration errors nothing is known that says how far they vary.

    Args:
        images: of each class.
    """
    if before is None or after is None or abs(after - before) <= _SAME_WITHIN:
        return ""
    present = [count for count in images if count]
    if not present or (metric != "accuracy" and metric not in _OF_EACH_CLASS):
        return "chance unknown"
    trials = float(sum(present))
    if metric in _OF_EACH_CLASS:
        trials = len(present) ** 2 / sum(1 / count for count in present)
    low, high = difference_interval(before, after, trials=(trials, trials), confidence=_CONFIDENCE)
    return "within chance" if low <= 0 <= high else ""


def course(before: RecordedRun, *, after: RecordedRun) -> list[Pair]:
    """How the trainings went: losses, length, speed, cost."""

    def pair(
        name: str, of: Callable[[RecordedRun], float | None], *, less: bool | None = None
    ) -> Pair:
        return Pair(name, before=of(before), after=of(after), less_is_better=less)

    pairs = [
        pair("training loss, epoch kept", _train_loss),
        pair("epoch kept", _kept_epoch),
        pair("steps", lambda run: float(len(run.evidence.steps))),
        pair("seconds", seconds, less=True),
        pair("training images per second", _speed, less=False),
        pair("dollars, estimated", _dollars, less=True),
    ]
    return [one for one in pairs if one.before is not None or one.after is not None]


def phases(before: RecordedRun, *, after: RecordedRun) -> list[Pair]:
    """Seconds by phase, in the order of a step."""
    old, new = time_by_phase(before.evidence), time_by_phase(after.evidence)
    return [
        Pair(
            part.label,
            before=old.get(part.name, 0.0),
            after=new.get(part.name, 0.0),
            less_is_better=None if part.name == OTHER else True,
        )
        for part in PARTS
        if part.name in old or part.name in new
    ]


def findings(before: RecordedRun, *, after: RecordedRun) -> list[Traced]:
    """What came first, then what stayed, then what went; by rule, for places move."""
    old, new = _by_rule(before.diagnosis), _by_rule(after.diagnosis)
    came = [Traced("came", None, new[rule]) for rule in new if rule not in old]
    stayed = [Traced("stayed", old[rule], new[rule]) for rule in new if rule in old]
    went = [Traced("went", old[rule], None) for rule in old if rule not in new]
    return [*came, *stayed, *went]


def are_comparable(before: RecordedRun, *, after: RecordedRun) -> bool:
    """Whether both were judged by the same classes and as many validation images of each."""
    old, new = before.evidence.facts, after.evidence.facts
    judged = [facts.class_counts.get("validation", ()) for facts in (old, new)]
    return old.classes == new.classes and list(judged[0]) == list(judged[1])


def caveats(before: RecordedRun, *, after: RecordedRun) -> list[str]:
    """Why figures of the two may not be comparable."""
    old, new = before.evidence.facts, after.evidence.facts
    told = []
    if old.started and old == new:
        told.append("Both are one and the same training: the later run reused the earlier one's.")
    if old.classes != new.classes:
        told.append("The classes differ: metrics cannot be compared.")
    elif not are_comparable(before, after=after):
        told.append("The numbers of validation images differ: metrics are of other images.")
    elif dict(old.class_counts) != dict(new.class_counts):
        told.append("They were trained on other numbers of images.")
    for run in (before, after):
        if not run.diagnosis.rules:
            told.append(f"{run.name} was not judged: what it has no finding of may be there.")
        if not run.evidence.ended:
            told.append(f"{run.name} had not ended.")
    return told


def seconds(run: RecordedRun) -> float | None:
    """Of the whole training."""
    return sum(time_by_phase(run.evidence).values()) or None


def _settings(evidence: Evidence) -> dict[str, int | float | str | bool]:
    facts = evidence.facts
    images = {f"{split} images": sum(counts) for split, counts in facts.class_counts.items()}
    return {
        **facts.hyperparameters,
        "architecture": facts.architecture,
        "classes": len(facts.classes),
        "processes": facts.processes,
        **images,
    }


def _by_rule(diagnosis: Diagnosis) -> dict[str, Finding]:
    """The most important finding of each rule, the most important rule first."""
    ranked: Sequence[Finding] = sorted(diagnosis.findings, key=lambda one: one.rank, reverse=True)
    latest = {one.rule: one for one in ranked}
    return dict(sorted(latest.items(), key=lambda item: item[1].rank))


def _train_loss(run: RecordedRun) -> float | None:
    kept = best(run.evidence)
    return kept.train_loss if kept else None


def _kept_epoch(run: RecordedRun) -> float | None:
    kept = best(run.evidence)
    return float(kept.epoch) if kept else None


def _speed(run: RecordedRun) -> float | None:
    total = seconds(run)
    return float(run.evidence.steps.images.sum()) / total if total else None


def _dollars(run: RecordedRun) -> float | None:
    total = seconds(run)
    if total is None or run.dollars_per_hour is None:
        return None
    return total / 3600 * run.dollars_per_hour


# --- comparison page ---

_BEFORE, _AFTER = "blue", "orange"
_CHARTED = ("accuracy", "f1_macro", "log_loss", "calibration_error")


def comparison_page(before: RecordedRun, *, after: RecordedRun) -> str:
    """What changed between two trainings, the most telling first."""
    return render_page(
        "comparison.html.j2",
        before=before.name,
        after=after.name,
        verdict=verdict(before, after=after),
        caveats=caveats(before, after=after),
        settings=settings(before, after=after),
        tables=[
            ("Validation metrics of the epoch kept", metrics(before, after=after)),
            ("The course of the training", course(before, after=after)),
        ],
        loss=_losses(before, after=after),
        charts=_metric_charts(before, after=after),
        findings=findings(before, after=after),
        phases=phases(before, after=after),
        bars=_bars(before, after=after),
        parts=_parts_key(before, after=after),
        key=legend([Key(f"before: {before.name}", _BEFORE), Key(f"after: {after.name}", _AFTER)]),
        number=number,
        signed=signed,
    )


def verdict(before: RecordedRun, *, after: RecordedRun) -> str:
    """The differences in a sentence or two."""
    comparable = are_comparable(before, after=after)
    told = _metric_told(metrics(before, after=after)) if comparable else ""
    parts = [told, _time_told(before, after=after)]
    parts.append(_findings_told(findings(before, after=after)))
    return " ".join(part for part in parts if part) or "Neither run has anything to compare."


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    if value is None:
        return "–"
    return f"+{number(value)}" if value > 0 else number(value) if value < 0 else "0"


def _metric_told(pairs: Sequence[Pair]) -> str:
    telling = next((pair for pair in pairs if pair.name == "F1 macro"), None)
    if telling is None or telling.before is None or telling.after is None:
        return ""
    chance = f", {telling.chance}" if telling.chance else ""
    return f"F1 macro went from {telling.before:.3f} to {telling.after:.3f}{chance}."


def _time_told(before: RecordedRun, *, after: RecordedRun) -> str:
    old, new = seconds(before), seconds(after)
    if not old or not new:
        return ""
    if abs(new / old - 1) < 0.01:
        return "It took as long."
    return f"It took {abs(new / old - 1):.0%} {'longer' if new > old else 'less time'}."


def _findings_told(traced: Sequence[Traced]) -> str:
    counts = [
        (sum(one.fate == fate for one in traced), fate) for fate in ("came", "stayed", "went")
    ]
    told = ", ".join(f"{count} {fate}" for count, fate in counts if count)
    return f"Findings: {told}." if told else ""


def _losses(before: RecordedRun, *, after: RecordedRun) -> Markup:
    lines = [
        line
        for run, name, colour in ((before, "before", _BEFORE), (after, "after", _AFTER))
        for line in _loss_lines(run, name=name, colour=colour)
    ]
    if not lines:
        return Markup("")
    return line_chart(
        lines,
        x_label="epochs completed",
        y_label="loss, nats",
        label="Losses of both trainings",
        height=290,
        whole=False,
        log=spans_decades([line.y for line in lines]),
    )


def _loss_lines(run: RecordedRun, *, name: str, colour: str) -> list[Line]:
    lines = []
    steps, epochs = run.evidence.steps, run.evidence.epochs
    if len(steps):
        x = _in_epochs(steps)
        lines.append(Line(f"{name}, train", x=x, y=smoothed(steps.loss), colour=colour))
    known = [epoch for epoch in epochs if "log_loss" in epoch.validation]
    if known:
        x = np.array([epoch.epoch for epoch in known], dtype=np.float64)
        y = np.array([epoch.validation["log_loss"] for epoch in known], dtype=np.float64)
        lines.append(Line(f"{name}, validation", x=x, y=y, colour=colour, shape="dashed"))
    return lines


def _in_epochs(steps: StepLog) -> Floats:
    """Of each step, how many epochs were completed: comparable whatever the batch size."""
    first = np.searchsorted(steps.epoch, steps.epoch, side="left")
    last = np.searchsorted(steps.epoch, steps.epoch, side="right")
    within = (np.arange(len(steps)) - first + 1) / (last - first)
    return np.asarray(steps.epoch - 1.0 + within, dtype=np.float64)


def _metric_charts(before: RecordedRun, *, after: RecordedRun) -> list[tuple[str, Markup]]:
    charts = []
    for name in _CHARTED:
        lines = [
            epoch_line(label, epochs=epochs, of=_of(name), colour=colour)
            for run, label, colour in ((before, "before", _BEFORE), (after, "after", _AFTER))
            if (epochs := [e for e in run.evidence.epochs if name in e.validation])
        ]
        if lines:
            words = name.replace("_", " ").replace("f1", "F1")
            chart = epoch_chart(lines, label=f"Validation {words} of both", y_label=words)
            charts.append((f"Validation {words}", chart))
    return charts


def _of(name: str) -> Callable[[EpochMetrics], float]:
    return lambda epoch: epoch.validation[name]


def _bars(before: RecordedRun, *, after: RecordedRun) -> list[tuple[str, Markup]]:
    """Where each one's time went, as shares."""
    bars = []
    for run in (before, after):
        totals = time_by_phase(run.evidence)
        parts = [part for part in PARTS if part.name in totals]
        if totals:
            bars.append((run.name, share_bar(totals, parts=parts, label=f"Time of {run.name}")))
    return bars


def _parts_key(before: RecordedRun, *, after: RecordedRun) -> Markup:
    known = time_by_phase(before.evidence).keys() | time_by_phase(after.evidence).keys()
    return legend([Key(part.label, part.colour, "area") for part in PARTS if part.name in known])
