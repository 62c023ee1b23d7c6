"""Activations that are dead or saturated."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence, Floats, Kind, Statistics
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.statistics import unit_shares

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


RULES = (
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
