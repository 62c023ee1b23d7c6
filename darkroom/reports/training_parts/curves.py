"""Losses, learning rate and metrics over the training."""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
from markupsafe import Markup

from darkroom.config.metrics import Metric
from darkroom.reports.charts.lines import Line, line_chart
from darkroom.reports.charts.marks import Flag, Row, Upright
from darkroom.reports.charts.svg import HALF_WIDTH
from darkroom.rules.evidence import Evidence, Floats, StepLog
from darkroom.training.history import EpochMetrics, best_epoch

_SMOOTHED_OVER = 60  # parts of the training
_LOG_BEYOND = 30.0  # times the least loss
_MOST_EPOCH_LINES = 60
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
    """A value of each epoch."""
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
    return [Upright(float(step)) for step in starts] if len(starts) <= _MOST_EPOCH_LINES else []


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
