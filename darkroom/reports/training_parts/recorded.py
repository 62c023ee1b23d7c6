"""What was recorded and what not; images whose labels may be wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from darkroom.profiling.system import SystemSamples
from darkroom.rules.evidence import Evidence, ImageMargins, Kind, TensorSource
from darkroom.rules.label_noise import suspects as worst_margins

Thumbnails = Callable[[str], str | None]

_SUSPECTS = 24
_LEARNED = 0.5
"""Share of the images with a positive margin, below which all labels look wrong."""
_KINDS: dict[Kind, str] = {
    "gradient": "gradients",
    "weight": "weights",
    "bias": "biases",
    "activation": "activations",
    "activation_input": "inputs of activations",
    "logits": "logits",
    "labels": "labels of the batch",
    "input": "the network's input",
    "loss": "losses",
}


@dataclass(frozen=True)
class Suspect:
    """An image that the network kept seeing as another class."""

    path: str
    label: str
    predicted: str
    margin: float
    picture: str | None


def suspects(evidence: Evidence, *, thumbnails: Thumbnails | None) -> list[Suspect]:
    """Those whose margins are far below the usual, the lowest first.

    None where little was learned: then the margins tell of the network, not of the labels.
    """
    margins = evidence.margins
    if margins is None or not _has_learned(margins):
        return []
    shown = [int(i) for i in worst_margins(margins)[:_SUSPECTS]]
    classes = evidence.facts.classes
    return [_suspect(i, margins=margins, classes=classes, thumbnails=thumbnails) for i in shown]


def _has_learned(margins: ImageMargins) -> bool:
    seen = margins.margin[np.isfinite(margins.margin)]
    return len(seen) > 0 and float((seen > 0).mean()) >= _LEARNED


def recorded(evidence: Evidence, *, has_operators: bool) -> list[tuple[str, str, bool]]:
    """What, how much of it, and whether there is any."""
    steps, epochs = len(evidence.steps), len(evidence.epochs)
    rows = [
        ("steps", f"{steps:,} steps: loss, learning rate, time by phase", steps > 0),
        ("epochs", f"{epochs:,} epochs: metrics of the validation images", epochs > 0),
        *(
            _tensor_row(kind, label=label, source=evidence.tensors)
            for kind, label in _KINDS.items()
        ),
        _system_row(evidence.system),
        _margin_row(evidence.margins),
        ("operators", "time of each operator in the profiled steps", has_operators),
    ]
    return [(name, told if known else "not recorded", known) for name, told, known in rows]


def _suspect(
    index: int, *, margins: ImageMargins, classes: tuple[str, ...], thumbnails: Thumbnails | None
) -> Suspect:
    path = margins.paths[index]
    return Suspect(
        path=path,
        label=_class_name(int(margins.label[index]), classes=classes),
        predicted=_class_name(int(margins.predicted[index]), classes=classes),
        margin=float(margins.margin[index]),
        picture=thumbnails(path) if thumbnails else None,
    )


def _class_name(index: int, *, classes: tuple[str, ...]) -> str:
    return classes[index] if 0 <= index < len(classes) else "unknown"


def _tensor_row(kind: Kind, *, label: str, source: TensorSource) -> tuple[str, str, bool]:
    names = source.names(kind)
    if not names:
        return label, "", False
    steps = source.statistics(names[0], kind=kind).steps
    evaluations = source.statistics(names[0], kind=kind, mode="eval").steps
    told = f"{len(names):,} tensors, {len(steps):,} looks while training"
    return (
        label,
        told + (f", {len(evaluations):,} while evaluating" if len(evaluations) else ""),
        True,
    )


def _system_row(system: object | None) -> tuple[str, str, bool]:
    if not isinstance(system, SystemSamples) or not len(system.time):
        return "the machine", "", False
    gpus = system.gpu.shape[1] if system.gpu.ndim > 1 else 0
    cores = system.cpu.shape[1] if system.cpu.ndim > 1 else 0
    told = f"{len(system.time):,} samples of {cores} cores"
    return "the machine", told + (f" and {gpus} GPUs" if gpus else ", no GPU"), True


def _margin_row(margins: ImageMargins | None) -> tuple[str, str, bool]:
    seen = int(np.isfinite(margins.margin).sum()) if margins is not None else 0
    return "margins of the training images", f"{seen:,} images seen", seen > 0
