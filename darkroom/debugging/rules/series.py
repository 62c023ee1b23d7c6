"""What several rules ask of a training's steps: smoothed losses, learning rates, runs."""

import math

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.rules.rule import NotApplicableError
from darkroom.telemetry.evidence import Evidence, Floats, Integers, RunMetadata, StepLog
from darkroom.telemetry.findings import Plot
from darkroom.telemetry.system import SystemSamples

# --- series ---

IMAGES_BEHIND_A_MEAN = 32
"""Losses of smaller batches are averaged until so many images stand behind each mean."""
_MAX_PLOTTED = 200


def chance_loss(facts: RunMetadata) -> float:
    """Cross entropy of guessing evenly, in nats: ln C."""
    return math.log(max(len(facts.classes), 2))


def first_run(condition: NDArray[np.bool_], *, length: int) -> int | None:
    """Where the first `length` True in a row begin."""
    if len(condition) < length:
        return None
    sums = np.convolve(condition.astype(np.int64), np.ones(length, dtype=np.int64), "valid")
    found = np.flatnonzero(sums == length)
    return int(found[0]) if len(found) else None


def finite_losses(steps: StepLog) -> tuple[Integers, Floats]:
    """Steps whose loss is a number, and that loss."""
    usable = np.isfinite(steps.loss)
    return steps.step[usable], steps.loss[usable]


def smoothing_block(steps: StepLog, *, images: int = IMAGES_BEHIND_A_MEAN) -> int:
    """Steps that have so many images together."""
    batch = float(np.median(steps.images)) if len(steps) else 1.0
    return max(1, math.ceil(images / max(batch, 1.0)))


def block_means(values: Floats, *, size: int) -> Floats:
    """Means of consecutive blocks of equal size; an incomplete last one is left out."""
    blocks = len(values) // size
    means: Floats = values[: blocks * size].reshape(blocks, size).mean(axis=1)
    return means


def smoothed_losses(
    steps: StepLog, *, images: int = IMAGES_BEHIND_A_MEAN
) -> tuple[Integers, Floats]:
    """First step and mean loss of blocks of steps with so many images."""
    numbers, losses = finite_losses(steps)
    size = smoothing_block(steps, images=images)
    means = block_means(losses, size=size)
    return numbers[: len(means) * size : size], means


def first_loss(steps: StepLog) -> float:
    """Mean loss over the first batch, or the first batches where they are small; NaN: none."""
    _, losses = finite_losses(steps)
    size = smoothing_block(steps)
    return float(losses[:size].mean()) if len(losses) else math.nan


def last_loss(steps: StepLog) -> float:
    """Mean loss over the last tenth of the steps, three or more; NaN: none."""
    _, losses = finite_losses(steps)
    size = max(3, smoothing_block(steps), len(losses) // 10)
    return float(losses[-size:].mean()) if len(losses) else math.nan


def peak_rate(evidence: Evidence) -> float:
    """The highest learning rate of the schedule; NaN: unknown."""
    wanted = evidence.facts.hyperparameters.get("learning_rate")
    if isinstance(wanted, int | float):
        return float(wanted)
    rates = evidence.steps.learning_rate
    return float(rates.max()) if len(rates) else math.nan


def at_steps(steps: StepLog, column: Floats, *, wanted: Integers) -> Floats:
    """A column of the step log at some steps; NaN where the log lacks them."""
    found = np.full(len(wanted), np.nan)
    if len(steps):
        place = np.searchsorted(steps.step, wanted).clip(max=len(steps) - 1)
        known = steps.step[place] == wanted
        found[known] = column[place[known]]
    return found


def rate_shares(evidence: Evidence, *, wanted: Integers) -> Floats:
    """Learning rate at some steps over the peak; 1 where it is unknown."""
    steps = evidence.steps
    shares = at_steps(steps, steps.learning_rate, wanted=wanted) / peak_rate(evidence)
    return np.where(np.isfinite(shares), shares, 1.0)


def epoch_of(evidence: Evidence, *, step: int | None) -> int | None:
    """The epoch, from 1, of a training step; None: unknown."""
    if step is None:
        return None
    steps = evidence.steps
    epoch = at_steps(steps, steps.epoch.astype(np.float64), wanted=np.array([step]))[0]
    return None if np.isnan(epoch) else int(epoch)


def line_plot(
    x: Integers | Floats,
    *,
    lines: dict[str, Floats],
    x_label: str = "step",
    y_label: str = "",
    threshold: float | None = None,
    log: bool = False,
) -> Plot:
    """A plot of a few hundred points at most: of more, every so many is kept.

    Args:
        x: (n,) steps, epochs or seconds.
        lines: (n,) values by name in the legend; NaN where there is nothing.
        y_label: what is measured, with its unit.
        threshold: of the rule, drawn across; None: no line.
        log: logarithmic y axis.
    """
    stride = max(1, math.ceil(len(x) / _MAX_PLOTTED))
    return Plot(
        x_label=x_label,
        y_label=y_label,
        x=tuple(float(value) for value in x[::stride]),
        lines={name: tuple(float(v) for v in values[::stride]) for name, values in lines.items()},
        threshold=threshold,
        log=log,
    )


def loss_plot(evidence: Evidence, *, threshold: float | None = None) -> Plot:
    """The smoothed training loss."""
    x, losses = smoothed_losses(evidence.steps, images=IMAGES_BEHIND_A_MEAN)
    return line_plot(x, lines={"training loss": losses}, y_label="loss, nats", threshold=threshold)


# --- machine samples ---
# What several rules ask of the samples of the machine.


def samples_of(evidence: Evidence, *, patience: int = 1) -> SystemSamples:
    """The samples, if there are enough.

    Raises:
        NotApplicableError: none, or fewer than `patience`.
    """
    samples = evidence.system
    if not isinstance(samples, SystemSamples) or not len(samples):
        raise NotApplicableError("the machine was not sampled")
    if len(samples) < patience:
        raise NotApplicableError(f"{len(samples)} samples of the machine; it takes {patience}")
    return samples


def gpu_samples(evidence: Evidence, *, patience: int, gpus: int = 1) -> SystemSamples:
    """The same, of a machine with so many GPUs.

    Raises:
        NotApplicableError: no such GPUs, or too few samples.
    """
    samples = samples_of(evidence)
    count = samples.gpu.shape[1] if samples.gpu.ndim == 2 else 0
    if count < gpus:
        raise NotApplicableError("no GPU" if not count else f"{count} GPU; it takes {gpus}")
    return samples_of(evidence, patience=patience)


def total_cpu(samples: SystemSamples) -> Floats:
    """(n,) percent of all cores."""
    return means(samples.cpu)


def means(table: Floats) -> Floats:
    """(n,) of an (n, k) table, by row, of what is known; NaN where nothing is."""
    known = np.isfinite(table)
    sums = np.where(known, table, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    found: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found


def percentile(values: Floats, percent: float) -> float:
    """Of what is known, interpolated linearly; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if len(known) else float("nan")


def machine_plot(
    samples: SystemSamples, *, lines: dict[str, Floats], y_label: str, threshold: float | None
) -> Plot:
    """A plot of machine samples over the seconds since the first of them.

    Args:
        samples: of the machine, at least one.
        lines: a value for each sample, by name in the legend.
        y_label: what is measured, with its unit.
        threshold: of the rule, drawn across; None: no line.
    """
    seconds = samples.time - samples.time[0]
    return line_plot(seconds, lines=lines, x_label="seconds", y_label=y_label, threshold=threshold)
