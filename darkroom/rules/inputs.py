"""What goes into the network: pixels that were not normalised, batches that are too small."""

import numpy as np

from darkroom.rules.advising import always, now, number
from darkroom.rules.evidence import Evidence, Floats, Statistics
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import finite_losses, loss_plot


def check_input_images(
    evidence: Evidence,
    *,
    threshold_mean: float = 3.0,
    threshold_samples: int = 16,
    channel: int = 1,
    only_mean: bool = False,
) -> list[Hit]:
    """The images that go into the network are not normalised.

    SageMaker Debugger's CheckInputImages: |mean| of a channel above `threshold_mean`, over
    `threshold_samples` images or more. Its defaults, 0.2 and 500, take the data to be
    centred; ours are normalised by ImageNet's mean and deviation, so that a mean lies between
    −2.1 (black) and 2.6 (white). Raw pixels betray themselves otherwise: none is negative,
    as everything darker than a mid grey is once normalised.

    Args:
        threshold_mean: of the mean of any channel.
        threshold_samples: images that were looked at.
        channel: axis of the channels, where whole inputs are all there is.
        only_mean: whether negative values are no matter; true in AWS' rule.
    """
    names = evidence.tensors.names("input")
    if not names:
        raise NotApplicableError("the network's input was not recorded")
    inputs = evidence.tensors.statistics(names[0], kind="input")
    steps, means = _means(evidence, names[0], inputs=inputs, channel=channel)
    if len(means) < threshold_samples:
        raise NotApplicableError(f"{len(means)} of {threshold_samples} images were looked at")
    by_channel = means.mean(axis=0)
    worst = int(np.abs(by_channel).argmax())
    lowest, highest = float(np.nanmin(inputs["minimum"])), float(np.nanmax(inputs["maximum"]))
    raw = lowest >= 0 and not only_mean
    if not (abs(by_channel[worst]) > threshold_mean or raw):
        return []
    figures: dict[str, float | str] = {
        "mean": float(by_channel[worst]),
        "threshold_mean": threshold_mean,
        "lowest": lowest,
        "highest": highest,
        "images": float(len(means)),
    }
    return [Hit(f"channel {worst}" if not raw else "all channels", steps[-1], figures)]


def noisy_batches(
    evidence: Evidence,
    *,
    smallest_batch: int = 3,
    noise_threshold: float = 0.8,
    noisy_images: int = 8,
    minimum_steps: int = 50,
) -> list[Hit]:
    """Batches of one to three images, or losses that are mostly noise.

    Args:
        smallest_batch: images a process has in a step: of up to 3, batch-norm's statistics
            err by more than half (Wu and He, Group normalization, ECCV 2018: error rises
            steeply below 8); the gradient is hardly that of the task.
        noise_threshold: standard deviation of the difference between consecutive losses,
            over √2 times the mean loss, above which noise drowns the rest: a note.
        noisy_images: a step, below which batches are called noisy: larger ones cannot help
            it, what is left is the data's.
        minimum_steps: before which noise is not judged.
    """
    steps = evidence.steps
    if not len(steps):
        raise NotApplicableError("no steps were recorded")
    images = float(np.median(steps.images)) / max(evidence.facts.processes, 1)
    if images <= smallest_batch:
        figures: dict[str, float | str] = {"images": images, "threshold": float(smallest_batch)}
        return [Hit("", int(steps.step[0]), figures, plot=loss_plot(evidence))]
    _, losses = finite_losses(steps)
    if len(losses) < minimum_steps or images >= noisy_images:
        return []
    noise = float(np.diff(losses).std() / np.sqrt(2) / max(losses.mean(), 1e-12))
    if noise <= noise_threshold:
        return []
    figures = {"noise_over_loss": noise, "threshold": noise_threshold, "images": images}
    return [Hit("", None, figures, plot=loss_plot(evidence), severity="note")]


def _means(
    evidence: Evidence, name: str, *, inputs: Statistics, channel: int
) -> tuple[list[int], Floats]:
    """Steps that were looked at, and (images, C) means of each image's channels."""
    rows = {step: rows for step, rows in inputs.units.items() if rows.ndim == 2}
    for step in inputs.steps.tolist():
        if step not in rows:
            value = evidence.tensors.value(name, kind="input", step=step)
            if value is not None and value.ndim == 4:
                axes = tuple(axis for axis in (1, 2, 3) if axis != channel)
                rows[step] = np.asarray(value, dtype=np.float64).mean(axis=axes)
    steps = sorted(rows)
    if not steps:
        return [], np.zeros((0, 3))
    means = np.concatenate([rows[step] for step in steps])
    return steps, means[np.isfinite(means).all(axis=1)]


def _batch_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    processes = number(evidence, "processes", default=1)
    return (
        f"raise training.batch_size{now(evidence, 'batch_size')} to {int(16 * processes)} or more",
        *([f"use fewer training.processes (now {processes:.0f})"] if processes > 1 else []),
        "if memory is short, take a smaller model.image_size rather than a smaller batch",
    )


RULES = (
    Rule(
        name="check_input_images",
        title="Images are not normalised",
        severity="error",
        meaning=(
            "The network expects channels around 0, as it was trained with; other values "
            "disturb trained weights and make learning slow or unstable."
        ),
        advice=always(
            "normalise by ImageNet's mean and deviation, as darkroom.images does for training "
            "and serving alike",
            "if you call the network yourself, divide pixels by 255 before that",
        ),
        evaluate=check_input_images,
    ),
    Rule(
        name="noisy_batches",
        title="Batches are too small",
        severity="warning",
        meaning="What a step learns depends more on which few images it saw than on the task.",
        advice=_batch_advice,
        evaluate=noisy_batches,
    ),
)
