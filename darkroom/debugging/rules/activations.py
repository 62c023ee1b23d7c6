"""Rules over activations and over the images that enter the network."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.rules.rule import NotApplicableError, Rule, always, now, number
from darkroom.debugging.rules.series import finite_losses, loss_plot
from darkroom.telemetry.evidence import Evidence, Floats, Kind, Statistics
from darkroom.telemetry.findings import Hit
from darkroom.telemetry.tensors import unit_shares

# --- activations ---

_IMAGES_A_LOOK = 8
"""Of a batch, whose activations the recorder measures."""


def dead_relu(
    evidence: Evidence,
    *,
    tensor_regex: str | None = None,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
    persistence: int = 3,
    images: int = 24,
) -> list[Hit]:
    """More than `threshold_layer` % of a layer's channels are dead.

    SageMaker Debugger's DeadRelu and its thresholds. Functions that saturate at both ends,
    such as the hard sigmoid, are saturated_activation's matter.

    Args:
        tensor_regex: sought in the names of activations; null: all.
        threshold_inactivity: percent; a channel is dead if fewer of its outputs are not 0.
        threshold_layer: percent of the channels.
        persistence: recorded steps in a row over which the same channels are dead. Ours: in
            a deep layer of a trained network most outputs are 0 on any one small batch.
        images: that have to be seen in these steps, of which eight a step are looked at, or
            the whole batch; ours: smaller batches take more steps. 0 in AWS' rule.
    """
    names = _matching(evidence, "activation", tensor_regex=tensor_regex)
    hits = []
    for name in names:
        if evidence.tensors.statistics(name, kind="activation_input").units:
            continue
        outputs = evidence.tensors.statistics(name, kind="activation")
        steps, shares = _active(evidence, name, outputs=outputs)
        hit = _idle_layer(
            name,
            steps=steps,
            shares=shares,
            inactivity=threshold_inactivity,
            layer=threshold_layer,
            persistence=max(persistence, _looks_for(evidence, images=images)),
        )
        hits += [hit] if hit else []
    return _worst_first(hits)


def saturated_activation(
    evidence: Evidence,
    *,
    tensor_regex: str | None = None,
    threshold_tanh_min: float = -9.4999,
    threshold_tanh_max: float = 9.4999,
    threshold_sigmoid_min: float = -23.0,
    threshold_sigmoid_max: float = 16.99999,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
    persistence: int = 3,
    images: int = 24,
) -> list[Hit]:
    """More than `threshold_layer` % of a layer's channels are saturated.

    SageMaker Debugger's SaturatedActivation and its thresholds. Recorded shares were counted
    with its defaults for tanh and sigmoid; other bounds need whole tensors
    (recording.tensors: full) of modules whose names contain 'tanh' or 'sigmoid'.

    Args:
        tensor_regex: sought in the names of activations; null: all.
        threshold_tanh_min: below it a tanh is flat; likewise the next three.
        threshold_tanh_max: see there.
        threshold_sigmoid_min: see there.
        threshold_sigmoid_max: see there.
        threshold_inactivity: percent; a channel is saturated if fewer of its inputs lie
            between the bounds.
        threshold_layer: percent of the channels.
        persistence: recorded steps in a row over which the same channels are; ours, as above.
        images: seen in these steps; ours, as above.
    """
    bounds = {
        "tanh": (threshold_tanh_min, threshold_tanh_max),
        "sigmoid": (threshold_sigmoid_min, threshold_sigmoid_max),
    }
    hits = []
    for name in _matching(evidence, "activation_input", tensor_regex=tensor_regex):
        inputs = evidence.tensors.statistics(name, kind="activation_input")
        steps, shares = _unsaturated(evidence, name, inputs=inputs, bounds=bounds)
        hit = _idle_layer(
            name,
            steps=steps,
            shares=shares,
            inactivity=threshold_inactivity,
            layer=threshold_layer,
            persistence=max(persistence, _looks_for(evidence, images=images)),
        )
        hits += [hit] if hit else []
    return _worst_first(hits)


def _looks_for(evidence: Evidence, *, images: int) -> int:
    """Recorded steps in which so many images' activations are seen; 0 where it is unknown."""
    if not len(evidence.steps):
        return 0
    a_look = min(max(float(np.median(evidence.steps.images)), 1.0), _IMAGES_A_LOOK)
    return math.ceil(images / a_look)


def _matching(evidence: Evidence, kind: Kind, *, tensor_regex: str | None) -> list[str]:
    names = [name for name in evidence.tensors.names(kind) if re.search(tensor_regex or "", name)]
    if not names:
        raise NotApplicableError(f"no {kind.replace('_', ' ')} was recorded")
    return names


def _active(evidence: Evidence, name: str, *, outputs: Statistics) -> tuple[list[int], Floats]:
    """(looks, C) share of each channel's outputs that are not zero, and the looks' steps."""
    rows = dict(outputs.units)
    for step in outputs.steps.tolist():
        if step not in rows:
            value = evidence.tensors.value(name, kind="activation", step=step)
            if value is not None and value.ndim > 1:
                rows[step] = unit_shares(value)
    return _stacked(rows)


def _unsaturated(
    evidence: Evidence,
    name: str,
    *,
    inputs: Statistics,
    bounds: dict[str, tuple[float, float]],
) -> tuple[list[int], Floats]:
    """(looks, C) share of each channel's inputs between the bounds, and the looks' steps."""
    rows = dict(inputs.units)
    function = next((word for word in bounds if word in name.lower()), None)
    for step in inputs.steps.tolist() if function else []:
        value = evidence.tensors.value(name, kind="activation_input", step=step)
        if function and value is not None and value.ndim > 1:
            low, high = bounds[function]
            inside = np.asarray(value, dtype=np.float64)
            rows[step] = unit_shares((inside > low) & (inside < high))
    return _stacked(rows)


def _stacked(rows: dict[int, NDArray[np.float64]]) -> tuple[list[int], Floats]:
    """Rows of the most frequent length, by step."""
    lengths = [len(row) for row in rows.values()]
    usual = max(set(lengths), key=lengths.count, default=0)
    steps = [step for step in sorted(rows) if len(rows[step]) == usual]
    return steps, np.array([rows[step] for step in steps]).reshape(len(steps), usual)


def _idle_layer(
    name: str,
    *,
    steps: list[int],
    shares: Floats,
    inactivity: float,
    layer: float,
    persistence: int,
) -> Hit | None:
    """Where too many channels first were idle over so many looks."""
    for at in range(len(steps) - persistence + 1):
        most = shares[at : at + persistence].max(axis=0)
        idle = float(100 * (100 * most < inactivity).mean()) if most.size else 0.0
        if idle > layer:
            figures: dict[str, float | str] = {
                "channels_percent": idle,
                "threshold_percent": layer,
                "channels": float(most.size),
            }
            return Hit(where=name, step=steps[at], figures=figures)
    return None


def _worst_first(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -float(hit.figures["channels_percent"]))


ACTIVATION_RULES = (
    Rule(
        name="dead_relu",
        title="Most channels of an activation are dead",
        severity="warning",
        meaning=(
            "These channels put out zero for every image, so that no gradient passes through "
            "them: that part of the network neither helps nor learns."
        ),
        advice=always(
            "look at the bias before the named activation: a large negative one kills it; start "
            "from trained weights (model.weights: imagenet)",
            "lower training.learning_rate: one large step can push biases so far",
            "lengthen training.warmup_epochs",
        ),
        evaluate=dead_relu,
    ),
    Rule(
        name="saturated_activation",
        title="Most channels of an activation are saturated",
        severity="note",
        meaning=(
            "The function is flat where its inputs lie, so that hardly any gradient passes. "
            "Squeeze-and-excitation gates of trained networks may be so by design."
        ),
        advice=always(
            "lower training.learning_rate, if the named layer was not saturated at the start",
            "check the scale of what goes into the named layer",
        ),
        evaluate=saturated_activation,
    ),
)


# --- inputs ---
# What goes into the network: pixels that were not normalised, batches that are too small.


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
    images = float(np.median(steps.images))
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


INPUT_RULES = (
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
