"""Losses, learning rate and metrics over the training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from markupsafe import Markup

from darkroom.config.sections import Metric
from darkroom.reports.chart_axes import HALF_WIDTH, Flag, Row, Upright, number
from darkroom.reports.charts import Column, Line, Part, line_chart, share_bar, stacked_columns
from darkroom.telemetry.epochs import EpochMetrics, best_epoch
from darkroom.telemetry.evidence import EvaluationLog, Evidence, Floats, Integers, StepLog
from darkroom.telemetry.findings import Finding, Plot
from darkroom.telemetry.recording import BETWEEN_STEPS, PHASES, STEP_PHASES

# --- curves ---

_SMOOTHED_OVER = 60  # parts of the training
_LOG_BEYOND = 30.0  # times the least loss
_MAX_EPOCH_LINES = 60
_STRETCHES = 400
_OBJECTIVES: tuple[Metric, ...] = ("f1_macro", *get_args(Metric))


def loss_chart(evidence: Evidence, *, flags: Sequence[Flag] = ()) -> Markup:
    """Losses by step, the learning rate below; nothing where no step was recorded."""
    steps = evidence.steps
    if not len(steps):
        return Markup("")
    x = steps.step.astype(np.float64)
    span = (float(x[0]), float(x[-1]))
    smooth = smoothed(steps.loss)
    lines = [
        Line("each step", x=x, y=steps.loss, colour="blue", shape="faint", clipped=True),
        Line("train, smoothed", x=x, y=smooth, colour="blue"),
        *_validation_loss(evidence),
    ]
    losses = line_chart(
        lines,
        x_label="",
        y_label="loss, nats",
        label="Training and validation loss by step",
        height=290,
        log=spans_decades([smooth, *(line.y for line in lines[2:])]),
        x_range=span,
        flags=flags,
        uprights=[*_epoch_lines(steps), *_best_line(evidence)],
        shades=_broken(steps),
        row=_epochs(steps),
    )
    return losses + line_chart(
        [Line("", x=x, y=steps.learning_rate, colour="purple")],
        x_label="step",
        y_label="rate",
        label="Learning rate by step",
        height=104,
        low=0.0,
        x_range=span,
        uprights=_epoch_lines(steps),
    )


def broken_losses(steps: StepLog) -> str:
    """What there is to say of losses that are no numbers."""
    wrong = np.flatnonzero(~np.isfinite(steps.loss))
    if not len(wrong):
        return ""
    share = f"{len(wrong):,} of {len(steps):,} steps"
    first = int(steps.step[wrong[0]])
    return f"The loss was not finite in {share}, first at step {first:,}: there the chart is red."


def _broken(steps: StepLog) -> list[tuple[float, float]]:
    """Stretches of steps whose loss is not finite; those a pixel apart are one."""
    wrong = steps.step[~np.isfinite(steps.loss)]
    if not len(wrong):
        return []
    apart = max(1.0, len(steps) / _STRETCHES)
    stretches = np.split(wrong, np.flatnonzero(np.diff(wrong) > apart) + 1)
    return [(float(one[0]) - 0.5, float(one[-1]) + 0.5) for one in stretches]


def metric_charts(evidence: Evidence) -> list[tuple[str, Markup]]:
    """Accuracy, the other validation metrics, the gradient's norm, the speed."""
    charts = [
        ("Accuracy", _accuracy(evidence.epochs)),
        ("Other validation metrics", _other_metrics(evidence.epochs)),
        ("Gradient norm before clipping", _gradient_norm(evidence)),
        ("Training images per second", _speed(evidence.epochs)),
    ]
    return [(name, chart) for name, chart in charts if chart]


def objective(evidence: Evidence) -> Metric | None:
    """The metric by which the best epoch was kept; None where no epoch has it."""
    wanted = evidence.facts.hyperparameters.get("objective")
    ranked = sorted(_OBJECTIVES, key=lambda metric: metric != wanted)
    return next((metric for metric in ranked if _all_have(evidence.epochs, metric)), None)


def best(evidence: Evidence) -> EpochMetrics | None:
    """The epoch whose weights were kept."""
    metric = objective(evidence)
    if metric is None:
        return None
    kept = best_epoch(evidence.epochs, objective=metric)
    return next(epoch for epoch in evidence.epochs if epoch.epoch == kept)


def smoothed(values: Floats) -> Floats:
    """A moving mean of the finite values; NaN where there is none near."""
    if not len(values):
        return values
    window = max(1, len(values) // _SMOOTHED_OVER)
    finite = np.isfinite(values)
    kernel = np.ones(2 * (window // 2) + 1)
    count = np.convolve(finite.astype(np.float64), kernel, mode="full")
    total = np.convolve(np.where(finite, values, 0.0), kernel, mode="full")
    middle = slice(len(kernel) // 2, len(kernel) // 2 + len(values))
    mean = np.full(len(values), np.nan)
    np.divide(total[middle], count[middle], out=mean, where=finite & (count[middle] > 0))
    return mean


def spans_decades(curves: Sequence[Floats]) -> bool:
    """Whether a linear axis would hide the smaller values."""
    values = np.hstack([*curves, np.empty(0)])
    positive = values[np.isfinite(values) & (values > 0)]
    return len(positive) > 0 and bool(positive.max() > _LOG_BEYOND * np.median(positive))


def epoch_line(
    label: str, *, epochs: Sequence[EpochMetrics], of: Callable[[EpochMetrics], float], colour: str
) -> Line:
    """A line with one value for each epoch.

    Args:
        label: in the legend; empty: none.
        of: the value of an epoch.
        colour: a class of the style sheet, such as 'blue'.
    """
    return Line(
        label,
        x=np.array([epoch.epoch for epoch in epochs], dtype=np.float64),
        y=np.array([of(epoch) for epoch in epochs], dtype=np.float64),
        colour=colour,
        shape="dots",
    )


def epoch_chart(lines: Sequence[Line], *, label: str, y_label: str) -> Markup:
    """Values of epochs, in half the page's width."""
    return line_chart(
        lines,
        x_label="epoch",
        y_label=y_label,
        label=label,
        width=HALF_WIDTH,
        height=210,
    )


def _all_have(epochs: Sequence[EpochMetrics], metric: object) -> bool:
    return bool(epochs) and all(metric in epoch.validation for epoch in epochs)


def _validation_loss(evidence: Evidence) -> list[Line]:
    steps = evidence.steps
    ends = {int(epoch): float(step) for epoch, step in zip(steps.epoch, steps.step, strict=True)}
    known = [
        (ends[epoch.epoch], epoch.validation["log_loss"])
        for epoch in evidence.epochs
        if epoch.epoch in ends and "log_loss" in epoch.validation
    ]
    if not known:
        return []
    x, y = np.array(known, dtype=np.float64).T
    return [Line("validation", x=x, y=y, colour="orange", shape="dots")]


def _best_line(evidence: Evidence) -> list[Upright]:
    kept = best(evidence)
    if kept is None:
        return []
    of_epoch = evidence.steps.step[evidence.steps.epoch == kept.epoch]
    if not len(of_epoch):
        return []
    return [Upright(float(of_epoch[-1]), label=f"best: epoch {kept.epoch}", kind="best")]


def _epoch_lines(steps: StepLog) -> list[Upright]:
    starts = steps.step[1:][np.diff(steps.epoch) != 0]
    return [Upright(float(step)) for step in starts] if len(starts) <= _MAX_EPOCH_LINES else []


def _epochs(steps: StepLog) -> Row:
    firsts = np.flatnonzero(np.diff(steps.epoch, prepend=steps.epoch[0] - 1))
    lasts = [*(firsts[1:] - 1), len(steps) - 1]
    spans = [
        (float(steps.step[first]), float(steps.step[last]), str(int(steps.epoch[first])))
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return Row("epoch", spans=spans)


def _accuracy(epochs: Sequence[EpochMetrics]) -> Markup:
    if not epochs:
        return Markup("")
    lines = [epoch_line("train", epochs=epochs, of=lambda e: e.train_accuracy, colour="blue")]
    if _all_have(epochs, "accuracy"):
        lines.append(
            epoch_line(
                "validation", epochs=epochs, of=lambda e: e.validation["accuracy"], colour="orange"
            )
        )
    return epoch_chart(lines, label="Accuracy by epoch", y_label="accuracy")


def _other_metrics(epochs: Sequence[EpochMetrics]) -> Markup:
    names = [name for name in _SHOWN if _all_have(epochs, name)]
    lines = [_metric_line(name, epochs=epochs, colour=_SHOWN[name]) for name in names]
    return epoch_chart(lines, label="Validation by epoch", y_label="") if lines else Markup("")


_SHOWN = {
    "f1_macro": "orange",
    "balanced_accuracy": "green",
    "calibration_error": "pink",
}


def _metric_line(name: str, *, epochs: Sequence[EpochMetrics], colour: str) -> Line:
    return epoch_line(
        name.replace("_", " ").replace("f1", "F1"),
        epochs=epochs,
        of=lambda epoch: epoch.validation[name],
        colour=colour,
    )


def _gradient_norm(evidence: Evidence) -> Markup:
    steps = evidence.steps
    if not np.isfinite(steps.gradient_norm).any():
        return Markup("")
    x = steps.step.astype(np.float64)
    clip = evidence.facts.hyperparameters.get("gradient_clip")
    return line_chart(
        [
            Line("each step", x=x, y=steps.gradient_norm, colour="green", shape="faint"),
            Line("smoothed", x=x, y=smoothed(steps.gradient_norm), colour="green"),
        ],
        x_label="step",
        y_label="norm",
        label="Gradient norm by step",
        width=HALF_WIDTH,
        height=210,
        log=True,
        threshold=float(clip) if clip else None,
        threshold_label="clipped to",
    )


def _speed(epochs: Sequence[EpochMetrics]) -> Markup:
    if not epochs:
        return Markup("")
    line = epoch_line("", epochs=epochs, of=lambda e: e.images_per_second, colour="blue")
    return epoch_chart([line], label="Images per second by epoch", y_label="images/s")


# --- findings ---
# Findings as the page shows them: numbered, the most important first.

COLOURS = ("blue", "orange", "green", "purple", "pink", "sky", "yellow", "grey")
_MAX_LINES = len(COLOURS)


@dataclass(frozen=True)
class Numbered:
    """A finding and its number on this page."""

    number: int
    finding: Finding

    @property
    def place(self) -> str:
        """Where and when, as a sentence's fragment."""
        found = self.finding
        parts = [found.where or "the whole run"]
        if found.step is not None:
            parts.append(f"step {found.step:,}")
        if found.epoch is not None:
            parts.append(f"epoch {found.epoch}")
        if found.occurrences > 1:
            parts.append(f"{found.occurrences:,} places")
        return " · ".join(parts)

    @property
    def figures(self) -> list[tuple[str, str]]:
        """The evidence."""
        return [
            (name.replace("_", " "), written(value))
            for name, value in self.finding.evidence.items()
        ]

    @property
    def plot(self) -> Markup:
        """The evidence, drawn; nothing where there is none."""
        plot = self.finding.plot
        return small_plot(plot, label=self.finding.title) if plot else Markup("")


def numbered(findings: Sequence[Finding]) -> list[Numbered]:
    """The most important first, from 1."""
    ranked = sorted(findings, key=lambda finding: finding.rank)
    return [Numbered(index, finding) for index, finding in enumerate(ranked, start=1)]


def flags(findings: Sequence[Numbered], *, steps: StepLog) -> list[Flag]:
    """Of the findings that belong to a step or an epoch."""
    placed = [(one, _step_of(one.finding, steps=steps)) for one in findings]
    return [
        Flag(
            x=step,
            number=one.number,
            severity=one.finding.severity,
            title=f"{one.finding.title} ({one.place})",
        )
        for one, step in placed
        if step is not None
    ]


def small_plot(plot: Plot, *, label: str) -> Markup:
    """A finding's own chart."""
    x = np.array(plot.x, dtype=np.float64)
    lines = [
        Line(name, x=x, y=np.array(values, dtype=np.float64), colour=colour, shape="dots")
        for (name, values), colour in zip(
            list(plot.lines.items())[:_MAX_LINES], COLOURS, strict=False
        )
    ]
    return line_chart(
        lines,
        x_label=plot.x_label,
        y_label=plot.y_label,
        label=label,
        width=HALF_WIDTH,
        height=190,
        log=plot.log or _is_better_logarithmic(lines),
        threshold=plot.threshold,
        whole=all(value == int(value) for value in plot.x if math.isfinite(value)),
    )


def _is_better_logarithmic(lines: Sequence[Line]) -> bool:
    values = [line.y[np.isfinite(line.y)] for line in lines]
    return all((one > 0).all() for one in values) and spans_decades(values)


def written(value: object) -> str:
    """A figure, or what else there is, as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return number(float(value))


def _step_of(finding: Finding, *, steps: StepLog) -> float | None:
    """In the training's steps; of an epoch, its last one."""
    if not len(steps):
        return None
    if finding.step is not None:
        return float(finding.step)
    of_epoch = steps.step[steps.epoch == finding.epoch]
    return float(of_epoch[-1]) if len(of_epoch) else None


# --- times ---
# Where the time went.

OTHER = "other"
"""Between steps, and in no phase."""

PARTS = (
    Part("data_wait", "waiting for data", "orange"),
    Part("transfer", "to the device", "yellow"),
    Part("forward", "forward", "blue"),
    Part("backward", "backward", "sky"),
    Part("optimiser", "optimiser", "purple"),
    Part("recording", "recording", "pink"),
    Part("evaluation", "evaluation", "green"),
    Part("checkpoint", "checkpoint", "red"),
    Part(OTHER, "not accounted for", "grey"),
)

_FEW_EPOCHS = 4
_MAX_COLUMNS = 60
_INTERRUPTED_SECONDS, _INTERRUPTED_STEPS = 120.0, 100.0


@dataclass(frozen=True)
class Spent:
    """A phase's share of the time."""

    part: Part
    seconds: float
    share: float


def time_by_phase(evidence: Evidence) -> dict[str, float]:
    """Seconds of the whole training by phase, `OTHER` included; phases that took none are out."""
    by_step = _by_step(evidence)
    totals = {name: float(np.nansum(seconds)) for name, seconds in by_step.items()}
    return {name: seconds for name, seconds in totals.items() if seconds > 0}


def interrupted(evidence: Evidence) -> float:
    """Seconds in which the training did not run, between its first step and its last."""
    accounted = sum(_in_phases(evidence).values(), np.zeros(len(evidence.steps)))
    gaps = _gaps(evidence.steps, accounted=accounted)
    return float(gaps[gaps > _longest_gap(accounted)].sum())


def spent(evidence: Evidence) -> list[Spent]:
    """Every phase that took time, in the order of a step."""
    totals = time_by_phase(evidence)
    whole = sum(totals.values()) or 1.0
    return [
        Spent(part, totals[part.name], totals[part.name] / whole)
        for part in PARTS
        if part.name in totals
    ]


def time_charts(evidence: Evidence) -> Markup:
    """Columns over the training, and one bar of the whole; nothing without steps."""
    totals = time_by_phase(evidence)
    if not totals:
        return Markup("")
    parts = [part for part in PARTS if part.name in totals]
    columns, label = _columns(evidence)
    return share_bar(totals, parts=parts, label="Shares of the time") + stacked_columns(
        columns, parts=parts, x_label=label, label="Time by phase over the training"
    )


def _by_step(evidence: Evidence) -> dict[str, Floats]:
    """Seconds by phase, (steps,), and what is in none; interruptions are left out."""
    seconds = _in_phases(evidence)
    accounted = sum(seconds.values(), np.zeros(len(evidence.steps)))
    gaps = _gaps(evidence.steps, accounted=accounted)
    return {**seconds, OTHER: np.where(gaps > _longest_gap(accounted), 0.0, gaps)}


def _in_phases(evidence: Evidence) -> dict[str, Floats]:
    """Seconds by phase, (steps,); what lies between steps counts to the step before."""
    steps = evidence.steps
    seconds: dict[str, Floats] = {
        phase: np.nan_to_num(steps.seconds.get(phase, np.zeros(len(steps))))
        for phase in STEP_PHASES
    }
    if evidence.evaluations is not None:
        lasts = _last_steps(steps)
        seconds |= {
            phase: _at_ends(evidence.evaluations, phase=phase, lasts=lasts, count=len(steps))
            for phase in BETWEEN_STEPS
        }
    return seconds


def _gaps(steps: StepLog, *, accounted: Floats) -> Floats:
    """After each step, the seconds until the next that are in no phase."""
    whole = np.diff(steps.started, append=steps.started[-1:] + accounted[-1:])
    gaps: Floats = np.clip(np.nan_to_num(whole - accounted), 0.0, None)
    return gaps


def _longest_gap(accounted: Floats) -> float:
    """Beyond which the training did not run."""
    usual = float(np.median(accounted)) if len(accounted) else 0.0
    return max(_INTERRUPTED_SECONDS, _INTERRUPTED_STEPS * usual)


def _last_steps(steps: StepLog) -> dict[int, int]:
    """Index of each epoch's last step."""
    return {int(epoch): index for index, epoch in enumerate(steps.epoch)}


def _at_ends(log: EvaluationLog, *, phase: str, lasts: dict[int, int], count: int) -> Floats:
    seconds = np.zeros(count)
    for epoch, value in zip(log.epoch, log.seconds.get(phase, ()), strict=False):
        if int(epoch) in lasts and np.isfinite(value):
            seconds[lasts[int(epoch)]] += value
    return seconds


def _columns(evidence: Evidence) -> tuple[list[Column], str]:
    """By epoch, or where there are few of them by stretches of steps."""
    steps = evidence.steps
    epochs = np.unique(steps.epoch)
    by_step = _by_step(evidence)
    if len(epochs) >= _FEW_EPOCHS:
        groups = np.array_split(epochs, min(_MAX_COLUMNS, len(epochs)))
        members = [np.flatnonzero(np.isin(steps.epoch, group)) for group in groups]
        return _summed(by_step, members=members, names=[_span(g) for g in groups]), "epoch"
    members = np.array_split(np.arange(len(steps)), min(_MAX_COLUMNS, len(steps)))
    names = [f"{int(steps.step[group[0]]):,}" for group in members]
    return _summed(by_step, members=members, names=names), "steps from"


def _span(group: Integers) -> str:
    first, last = int(group[0]), int(group[-1])
    return str(first) if first == last else f"{first}–{last}"


def _summed(
    by_step: dict[str, Floats], *, members: Sequence[Integers], names: Sequence[str]
) -> list[Column]:
    return [
        Column(name, {phase: float(seconds[group].sum()) for phase, seconds in by_step.items()})
        for name, group in zip(names, members, strict=True)
    ]


assert set(PHASES) <= {part.name for part in PARTS}  # noqa: S101
