"""Findings as the page shows them: numbered, the most important first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from darkroom.reports.charts.lines import Line, line_chart
from darkroom.reports.charts.marks import Flag
from darkroom.reports.charts.scales import number
from darkroom.reports.charts.svg import HALF_WIDTH
from darkroom.reports.training_parts.curves import spans_decades
from darkroom.rules.evidence import StepLog
from darkroom.rules.findings import Finding, Plot

COLOURS = ("blue", "orange", "green", "purple", "pink", "sky", "yellow", "grey")
_MOST_LINES = len(COLOURS)


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
            list(plot.lines.items())[:_MOST_LINES], COLOURS, strict=False
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
