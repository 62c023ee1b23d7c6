"""What rules are given: the tensors of a training, its steps, its epochs, its machine.

One rule set serves every source: a smdebug trial, the Parquet files of the torch recorder,
or arrays in memory (tests, and training while it runs).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from darkroom.base.errors import UserError
from darkroom.base.files import write_text
from darkroom.config.debugging import RecordingConfig
from darkroom.telemetry.epochs import EpochMetrics

# --- evidence ---

Mode = Literal["train", "eval"]
Kind = Literal[
    "loss",
    "gradient",
    "weight",
    "bias",
    "activation",
    "activation_input",
    "logits",
    "labels",
    "input",
]
"""Of a tensor. `weight` and `bias` are parameters before the step's update; `gradient` is
that of either, after unscaling and before clipping; `activation` and `activation_input` are
what comes out of and goes into modules such as ReLU; `input` is the model's."""


def parameter_kind(name: str) -> Literal["weight", "bias"]:
    """Which of the two a parameter is, by its name in the network."""
    return "bias" if name.rsplit(".", 1)[-1] == "bias" else "weight"


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STATISTICS = (
    "mean",
    "std",
    "minimum",
    "maximum",
    "abs_mean",
    "p5",
    "p95",
    "zero_share",
    "nan_share",
    "infinite_share",
    "update_ratio",
    "change_excess",
)
"""Columns of `Statistics`, in the order in which a recorder stores them.

Moments and percentiles are of the finite elements. `update_ratio`: mean|w − w'| / (mean|w'| +
1e-9), w' the value at the previous recorded step of that mode, for weights and biases.
`change_excess`: max(|x − x'| − 1e-5·|x'|) against the same earlier value: at most 1e-8 where
numpy.allclose would call the two equal. Both NaN where there is no earlier value, or the
shapes differ.
"""


@dataclass(frozen=True)
class Statistics:
    """A tensor over the steps at which it was recorded: arrays of the same length."""

    steps: Integers
    """Steps of the mode, ascending."""
    columns: Mapping[str, Floats]
    """By name of STATISTICS; NaN where unknown."""
    units: Mapping[int, Floats] = field(default_factory=dict)
    """Of activations, by step: (C,) share of the elements of each channel that are not zero.
    Of activation inputs: (C,) share inside the range where the function is not saturated.
    Of the input: (n, 3) mean of each channel of each image."""

    def __getitem__(self, column: str) -> Floats:
        return self.columns[column]


class TensorSource(Protocol):
    """The tensors of a training."""

    def names(self, kind: Kind) -> Sequence[str]:
        """Tensors of a kind, in the network's order; empty where none was recorded."""

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """Of one tensor; without steps where the mode has none."""

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """The whole tensor; None where only statistics were kept. Logits (n, C) and labels
        (n,) are always whole.

        Args:
            name: as `names` gives it.
            step: of the mode.
            mode: 'train' and 'eval' count their steps apart.
        """


@dataclass(frozen=True)
class StepLog:
    """Every training step, whether or not tensors were recorded: arrays of the same length."""

    step: Integers
    """From 0, ascending."""
    epoch: Integers
    """From 1."""
    started: Floats
    """Seconds since 1970."""
    loss: Floats
    """Mean over the batch, in nats; of several processes, over the first one's share of it. NaN or
    infinite where it was."""
    learning_rate: Floats
    gradient_norm: Floats
    """Before clipping; NaN where it was not computed."""
    images: Integers
    """Of the batch, or of the first process's share."""
    correct: Integers
    seconds: Mapping[str, Floats]
    """By phase of darkroom.telemetry.recording: the time spent on it in that step."""

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class EvaluationLog:
    """What surrounded the steps, an entry an epoch."""

    epoch: Integers
    started: Floats
    """Seconds since 1970."""
    seconds: Mapping[str, Floats]
    """By phase: 'evaluation' and 'checkpoint'."""


@dataclass(frozen=True)
class ImageMargins:
    """How the network saw each training image over the epochs (area under the margin).

    Pleiss et al., Identifying mislabeled data using the area under the margin ranking,
    NeurIPS 2020: the margin is the label's logit less the largest other one; mislabelled
    images keep a negative one while the rest is learned.
    """

    margin: Floats
    """(N,) mean margin; NaN for images that were not seen."""
    label: Integers
    """(N,) class indices."""
    predicted: Integers
    """(N,) the class, apart from the label's, with the largest logit when last seen; -1: never."""
    paths: Sequence[str]
    """(N,) in the manifest."""


@dataclass(frozen=True)
class RunMetadata:
    """What is known beforehand."""

    architecture: str
    classes: tuple[str, ...]
    hyperparameters: Mapping[str, int | float | str | bool]
    steps_per_epoch: int
    class_counts: Mapping[str, Sequence[int]]
    """Images by split ('train', 'validation') and class, in the order of `classes`."""
    trainable: Mapping[str, bool]
    """By parameter: whether the optimiser has it."""
    expected_trainable: Mapping[str, bool]
    """By parameter: whether `model.fine_tune` says that it learns."""
    shared_images: Sequence[tuple[str, str]] = ()
    """Training and validation image that look the same; the first hundred pairs."""
    shared_count: int = 0
    """Validation images that look like some training image."""
    processes: int = 1
    started: float = 0.0
    """Seconds since 1970, of the first start."""


@dataclass(frozen=True)
class Evidence:
    """Everything that rules can be asked about."""

    facts: RunMetadata
    tensors: TensorSource
    steps: StepLog
    epochs: Sequence[EpochMetrics] = ()
    evaluations: EvaluationLog | None = None
    margins: ImageMargins | None = None
    system: "object | None" = None
    """darkroom.telemetry.system.SystemSamples."""
    other: TensorSource | None = None
    """Of an earlier run that this one is to equal: what `similar_across_runs` compares with."""
    trial: str = ""
    """Folder of the smdebug trial that holds the tensors, for rules of people's own that are
    smdebug's; empty: recorded otherwise."""
    ended: bool = True
    """False while the training runs."""
    now: float = 0.0
    """Seconds since 1970: when the evidence was gathered."""


# --- facts ---
# What a recording says of itself before the first step: recording.json.

_VERSION = 1


@dataclass(frozen=True)
class RecordingFacts:
    """The training's facts, and how it was recorded."""

    training: RunMetadata
    recording: RecordingConfig
    backend: str
    """Which one 'auto' came to: 'smdebug' or 'torch'."""
    paths: tuple[str, ...]
    """Of the training images in the manifest, as margins.npz numbers them."""
    starts: tuple[float, ...]
    """Seconds since 1970, of each start: more than one where the training was interrupted."""
    version: int = _VERSION


def write_facts(path: Path, facts: RecordingFacts) -> None:
    """Write recording.json; the starts of an earlier one are kept."""
    with_starts = replace(facts, starts=(*_earlier_starts(path), *facts.starts))
    content = asdict(with_starts) | {"recording": facts.recording.model_dump()}
    write_text(path, json.dumps(content))


def read_facts(path: Path) -> RecordingFacts:
    """Read recording.json.

    Raises:
        UserError: there is none, or it is of another version.
    """
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        facts = TypeAdapter(RecordingFacts).validate_python(content)
    except FileNotFoundError as error:
        raise UserError(f"{str(path.parent)!r} is no recording: it has no {path.name}") from error
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{str(path)!r} cannot be read as a recording's facts: {error}") from error
    started = min(facts.starts, default=facts.training.started)
    return replace(facts, training=replace(facts.training, started=started))


def _earlier_starts(path: Path) -> tuple[float, ...]:
    try:
        return tuple(float(start) for start in json.loads(path.read_text())["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()
