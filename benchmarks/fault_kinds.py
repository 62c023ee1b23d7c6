"""Faults that are put into real trainings, each with the rules that name it rightly.

A fault changes the data set, the hyperparameters, the network before its first step, or the
loop's own parts while it trains. Nothing of it touches the recording or the rules.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.training import batches, loop
from darkroom.training.batches import Normaliser

Values = dict[str, Any]


def _same_data(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    return dataset


def _same_model(model: nn.Module) -> None:
    return None


@contextmanager
def _same_loop() -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Fault:
    """One way to spoil a training."""

    name: str
    rules: tuple[str, ...]
    """Any of which names it."""
    values: Callable[[Values], Values] = lambda values: {}
    """What differs in the hyperparameters, given the healthy ones."""
    data: Callable[[Dataset, np.random.Generator], Dataset] = _same_data
    model: Callable[[nn.Module], None] = _same_model
    loop: Callable[[], Any] = field(default=lambda: _same_loop())
    """A context in which the training runs."""


def _relabelled(share: float) -> Callable[[Dataset, np.random.Generator], Dataset]:
    """Give a share of the training images another class, any."""

    def relabel(dataset: Dataset, rng: np.random.Generator) -> Dataset:
        def wrong(record: ImageRecord) -> ImageRecord:
            if record.split != "train" or rng.random() >= share:
                return record
            others = [name for name in dataset.classes if name != record.label]
            return replace(record, label=str(rng.choice(others)))

        return _with(dataset, [wrong(record) for record in dataset.records])

    return relabel


def _shuffled(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    train = list(dataset.split("train"))
    labels = rng.permutation([record.label for record in train])
    mixed = [replace(r, label=str(label)) for r, label in zip(train, labels, strict=True)]
    return _with(dataset, [*mixed, *dataset.split("validation"), *dataset.split("test")])


def _without_a_class(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    missing = str(rng.choice(dataset.classes))
    kept = [r for r in dataset.records if not (r.split == "train" and r.label == missing)]
    return _with(dataset, kept)


def _leaking(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """A third of the validation images is trained on too."""
    validation = dataset.split("validation")
    chosen = rng.choice(len(validation), size=len(validation) // 3, replace=False)
    copies = [replace(validation[number], split="train") for number in chosen]
    return _with(dataset, [*dataset.records, *copies])


def _few_images(count: int) -> Callable[[Dataset, np.random.Generator], Dataset]:
    """Equally many of each class to train on."""

    def choose(dataset: Dataset, rng: np.random.Generator) -> Dataset:
        train = dataset.split("train")
        seen: Counter[str] = Counter()
        kept = []
        for number in rng.permutation(len(train)):
            label = train[number].label
            seen[label] += 1
            if seen[label] <= count // len(dataset.classes):
                kept.append(train[number])
        return _with(dataset, [*kept, *dataset.split("validation"), *dataset.split("test")])

    return choose


def _with(dataset: Dataset, records: list[ImageRecord]) -> Dataset:
    changed = make_dataset(records, root=dataset.root, source=dataset.source)
    return replace(changed, classes=dataset.classes)


def _scale_weights(factor: float) -> Callable[[nn.Module], None]:
    def scale(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(factor)

    return scale


def _kill_activations(model: nn.Module) -> None:
    """Shift what batch-norm gives to the activations far below zero, in the later half."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in norms[len(norms) // 2 :]:
            layer.bias.fill_(-10)


def _freeze_first_half(model: nn.Module) -> None:
    parameters = list(model.parameters())
    for parameter in parameters[: len(parameters) // 2]:
        parameter.requires_grad_(False)


class _RawPixels(Normaliser):
    """Bytes as they are, from 0 to 255."""

    def __call__(self, batch: Tensor) -> Tensor:
        return batch.to(torch.float32).permute(0, 3, 1, 2)


@contextmanager
def _raw_pixels() -> Iterator[None]:
    with mock.patch("darkroom.training.learner.Normaliser", _RawPixels):
        yield


@contextmanager
def _nan_in_a_batch(step: int = 60) -> Iterator[None]:
    original, calls = Normaliser.__call__, [0]

    def spoil(self: Normaliser, batch: Tensor) -> Tensor:
        calls[0] += 1
        images = original(self, batch)
        if calls[0] == step:
            images = images.clone()
            images[0] = torch.nan
        return images

    with mock.patch.object(Normaliser, "__call__", spoil):
        yield


@contextmanager
def _slow_loader(factor: int = 10) -> Iterator[None]:
    original = loop.training_batch

    def slow(*arguments: Any, **options: Any) -> Tensor:
        started = time.perf_counter()
        batch = original(*arguments, **options)
        time.sleep((factor - 1) * (time.perf_counter() - started))
        return batch

    with mock.patch.object(loop, "training_batch", slow):
        yield


@contextmanager
def _memory_leak(megabytes: int = 4) -> Iterator[None]:
    kept: list[Any] = []
    original = batches.Normaliser.__call__

    def leak(self: Normaliser, batch: Tensor) -> Tensor:
        kept.append(np.ones(megabytes * 2**17))
        return original(self, batch)

    with mock.patch.object(Normaliser, "__call__", leak):
        yield


@contextmanager
def _batches_of_one() -> Iterator[None]:
    """Without the check that refuses them where batch-norm is."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(loop, "check_batches"))
        yield


FAULTS: tuple[Fault, ...] = (
    Fault(
        "learning rate × 1000",
        ("learning_rate_too_high",),
        values=lambda healthy: {"learning_rate": min(10.0, healthy["learning_rate"] * 1000)},
    ),
    Fault(
        "learning rate ÷ 1000",
        ("learning_rate_too_low",),
        values=lambda healthy: {"learning_rate": healthy["learning_rate"] / 1000},
    ),
    Fault("inputs not normalised", ("check_input_images",), loop=_raw_pixels),
    Fault("weights all zero", ("all_zero",), model=_scale_weights(0)),
    Fault("weights × 100", ("poor_weight_initialization",), model=_scale_weights(100)),
    Fault("dead activations", ("dead_relu",), model=_kill_activations),
    Fault("labels shuffled", ("label_noise",), data=_shuffled),
    Fault("20 % of the labels wrong", ("label_noise",), data=_relabelled(0.2)),
    Fault("NaN in a batch", ("exploding_tensor", "non_finite_loss"), loop=_nan_in_a_batch),
    Fault("layers frozen that should learn", ("layer_not_learning",), model=_freeze_first_half),
    Fault("a class without training images", ("class_missing",), data=_without_a_class),
    Fault("validation images in training", ("leakage",), data=_leaking),
    Fault("data loader ten times as slow", ("data_wait", "dataloader"), loop=_slow_loader),
    Fault(
        "memory leak of 4 MB a step",
        ("memory_growth",),
        values=lambda healthy: {"epochs": 12},  # seconds enough to see a rise
        loop=_memory_leak,
    ),
    Fault(
        "batches of one image",
        ("noisy_batches",),
        values=lambda healthy: {"batch_size": 1, "image_size": 64, "epochs": 2},
        data=_few_images(150),
        loop=_batches_of_one,
    ),
    Fault(
        "forty images to train on",
        ("overfit", "train_validation_divergence"),
        # As they are, and often enough, so that they are learned by heart.
        values=lambda healthy: {"epochs": 160, "batch_size": 20, "augmentation": "none"},
        data=_few_images(40),
    ),
)
