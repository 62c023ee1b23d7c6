"""Where the time went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from darkroom.profiling.phases import BETWEEN_STEPS, PHASES, STEP_PHASES
from darkroom.reports.charts.stacks import Column, Part, share_bar, stacked_columns
from darkroom.rules.evidence import EvaluationLog, Evidence, Floats, Integers, StepLog

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
_MOST_COLUMNS = 60
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
        groups = np.array_split(epochs, min(_MOST_COLUMNS, len(epochs)))
        members = [np.flatnonzero(np.isin(steps.epoch, group)) for group in groups]
        return _summed(by_step, members=members, names=[_span(g) for g in groups]), "epoch"
    members = np.array_split(np.arange(len(steps)), min(_MOST_COLUMNS, len(steps)))
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
