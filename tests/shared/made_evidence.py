"""Evidence made up for the tests of rules: a healthy training, of which a test changes a part."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from darkroom.config import Hyperparameters
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import Evidence, ImageMargins, RunMetadata, StepLog
from memory_source import MemorySource

CLASSES = ("cat", "dog", "hat")
CHANCE = float(np.log(3))
LOOKS = (0, 1, 2, 3, 4, 25, 50, 75, 100, 125)
STEPS = 128
WEIGHTS = ("conv1.weight", "layer1.conv.weight", "fc.weight")


def made_facts(**changes: object) -> RunMetadata:
    hyperparameters = Hyperparameters(epochs=4, weights="none").model_dump()
    facts = RunMetadata(
        architecture="resnet18",
        classes=CLASSES,
        hyperparameters=hyperparameters | changes.pop("hyperparameters", {}),
        steps_per_epoch=32,
        class_counts={"train": (340, 340, 344), "validation": (60, 60, 60)},
        trainable=dict.fromkeys((*WEIGHTS, "fc.bias"), True),
        expected_trainable=dict.fromkeys((*WEIGHTS, "fc.bias"), True),
    )
    return replace(facts, **changes)


def made_steps(
    losses: Sequence[float],
    *,
    images: int = 32,
    peak: float = 1e-3,
    started: Sequence[float] | None = None,
) -> StepLog:
    count = len(losses)
    per_epoch = max(1, count // 4)
    warmup = per_epoch // 2
    decay = np.cos(np.pi * (np.arange(count) - warmup) / max(1, count - warmup))
    rates = peak * np.minimum((np.arange(count) + 1) / (warmup + 1), (1 + decay) / 2)
    return StepLog(
        step=np.arange(count),
        epoch=1 + np.arange(count) // per_epoch,
        started=np.asarray(np.arange(count) if started is None else started, dtype=float),
        loss=np.asarray(losses, dtype=float),
        learning_rate=rates,
        gradient_norm=np.ones(count),
        images=np.full(count, images),
        correct=np.full(count, images // 2),
        seconds={},
    )


def falling(count: int = STEPS, *, start: float = CHANCE, end: float = 0.2) -> np.ndarray:
    """A loss that falls with the noise of batches."""
    rng = np.random.default_rng(0)
    return (end + (start - end) * np.exp(-np.arange(count) / 30)) * rng.uniform(0.8, 1.25, count)


def made_epochs(
    train: Sequence[float],
    validation: Sequence[float],
    *,
    accuracy: float = 0.9,
    balanced: float | None = None,
    train_accuracy: float = 0.9,
) -> list[EpochMetrics]:
    return [
        EpochMetrics(
            epoch=number,
            learning_rate=1e-3,
            train_loss=loss,
            train_accuracy=train_accuracy,
            validation={
                "log_loss": other,
                "accuracy": accuracy,
                "balanced_accuracy": accuracy if balanced is None else balanced,
            },
            images_per_second=1,
            seconds=1,
        )
        for number, (loss, other) in enumerate(zip(train, validation, strict=True), start=1)
    ]


def made_tensors(
    *, looks: Sequence[int] = LOOKS, replaced: Mapping[tuple[str, str], object] | None = None
) -> MemorySource:
    """Weights that move by AdamW's steps, gradients, activations, inputs, logits and labels.

    Args:
        replaced: by kind and name: a function of (step, usual array) that gives another array.
    """
    rng = np.random.default_rng(1)
    source = MemorySource()

    def add(name: str, kind: str, step: int, array: np.ndarray, mode: str = "train") -> None:
        change = (replaced or {}).get((kind, name))
        array = change(step, array) if change else array
        if array is not None:
            source.add(name, kind=kind, step=step, array=array, mode=mode)

    weights = {name: rng.normal(0, 0.05, (16, 8, 3, 3)) for name in WEIGHTS}
    for step in looks:
        add("input", "input", step, rng.normal(-0.2, 1, (8, 3, 6, 6)))
        for name, weight in weights.items():
            add(name, "weight", step, weight + 0.002 * rng.normal(size=weight.shape) * (step + 1))
            add(name, "gradient", step, rng.normal(0, 1e-3, weight.shape))
        add("fc.bias", "bias", step, np.full(3, 0.01 * step))
        add("fc.bias", "gradient", step, rng.normal(0, 1e-9, 3))
        for name in ("relu", "layer1.relu"):
            values = rng.normal(0, 1, (8, 16, 4, 4))
            add(name, "activation_input", step, values)
            add(name, "activation", step, values.clip(0))
        add("logits", "logits", step, 3 * np.eye(3)[np.arange(12) % 3])
        add("labels", "labels", step, np.arange(12) % 3)
    for epoch in range(4):
        add("logits", "logits", epoch, 3 * np.eye(3)[np.arange(90) % 3], "eval")
        add("labels", "labels", epoch, np.arange(90) % 3, "eval")
    return source


def healthy(**changes: object) -> Evidence:
    """A training from which nothing is to be reported."""
    evidence = Evidence(
        facts=made_facts(),
        tensors=made_tensors(),
        steps=made_steps(falling()),
        epochs=made_epochs([0.9, 0.6, 0.4, 0.3], [0.8, 0.5, 0.42, 0.4]),
        margins=made_margins(),
    )
    return replace(evidence, **changes)


def made_margins(*, count: int = 1024, wrong: float = 0.0) -> ImageMargins:
    """Margins of a network that is right of 90 %, and of a share of wrong labels."""
    rng = np.random.default_rng(2)
    mislabelled = rng.random(count) < wrong
    margin = np.where(mislabelled, rng.normal(-1.6, 1, count), rng.normal(1.28, 1, count))
    return ImageMargins(
        margin=margin,
        label=np.arange(count) % 3,
        predicted=(np.arange(count) + 1) % 3,
        paths=[f"{CLASSES[number % 3]}/{number}.jpg" for number in range(count)],
    )
