"""Two trainings side by side, before and after a change, as one HTML page."""

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from darkroom.reports.charts.lines import Line, line_chart
from darkroom.reports.charts.scales import number
from darkroom.reports.charts.stacks import share_bar
from darkroom.reports.charts.svg import Key, legend
from darkroom.reports.pages import render_page
from darkroom.reports.run_differences import (
    Pair,
    RecordedRun,
    Traced,
    are_comparable,
    caveats,
    course,
    findings,
    metrics,
    phases,
    seconds,
    settings,
)
from darkroom.reports.training_parts.curves import (
    epoch_chart,
    epoch_line,
    smoothed,
    spans_decades,
)
from darkroom.reports.training_parts.times import PARTS, time_by_phase
from darkroom.rules.evidence import Floats, StepLog
from darkroom.training.history import EpochMetrics

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
