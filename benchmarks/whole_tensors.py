"""A recording with whole tensors and without statistics, of a network that only seems to learn.

Shapes and names are resnet18's, as smdebug's own hook has them; the values are noise.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import resnet18

from darkroom.config.debugging import RecordingConfig
from darkroom.debugging.recording.smdebug_writer import SmdebugWriter
from darkroom.debugging.recording.snapshots import Captured, Look
from darkroom.telemetry.evidence import Kind, RecordingFacts, RunMetadata, write_facts
from darkroom.telemetry.recording import STEP_PHASES, LineWriter, RecordingFolder

CLASSES, LOOKED_INTO_EVERY, LOSSES_EVERY, STEPS_PER_EPOCH = 10, 50, 10, 100

Shapes = dict[str, tuple[int, ...]]


def write_recording(folder: Path, *, most: int, batch: int, pixels: int) -> dict[str, Any]:
    """Write a recording with whole tensors; looks are added until `most` bytes are reached."""
    place = RecordingFolder(folder)
    parameters, calls = _shapes(batch=batch, pixels=pixels)
    writer = SmdebugWriter(place.tensors, root="ResNet", steps_per_epoch=STEPS_PER_EPOCH)
    network = _Network(parameters, calls=calls, batch=batch)
    written, looks, step = 0, 0, 0
    while written < most:
        look = network.look(step, is_whole=step % LOOKED_INTO_EVERY == 0)
        writer.write(look)
        written += sum(one.value.nbytes for one in look.tensors if one.value is not None)
        looks += look.full
        step += LOSSES_EVERY
    _write_logs(place, parameters=parameters, steps=step, batch=batch)
    largest = max((*parameters.values(), *calls.values()), key=np.prod)
    return {
        "bytes": sum(file.stat().st_size for file in place.tensors.rglob("*") if file.is_file()),
        "looks": looks,
        "steps": step // LOSSES_EVERY,
        "tensors_a_look": 2 * len(parameters) + 2 * len(calls) + 3,
        "largest_mb": round(4 * float(np.prod(largest)) / 1e6, 1),
        "batch": batch,
        "pixels": pixels,
    }


def _shapes(*, batch: int, pixels: int) -> tuple[Shapes, Shapes]:
    """Shapes of resnet18's parameters, and of what passes its ReLUs, by name."""
    calls: Shapes = {}

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        name = names[module]
        number = sum(key.partition(":")[0] == name for key in calls)
        calls[f"{name}:{number}" if number else name] = tuple(output.shape)

    with torch.device("meta"):
        model = resnet18(num_classes=CLASSES)
        names = {module: name for name, module in model.named_modules()}
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(keep)
        model(torch.empty(batch, 3, pixels, pixels))
    return {name: tuple(one.shape) for name, one in model.named_parameters()}, calls


class _Network:
    """Something with a network's tensors that learns: noise that moves."""

    def __init__(self, parameters: Shapes, *, calls: Shapes, batch: int) -> None:
        self._random = np.random.default_rng(0)
        self._calls, self._batch = calls, batch
        self._parameters = {name: 0.05 * self._noise(shape) for name, shape in parameters.items()}

    def look(self, step: int, *, is_whole: bool) -> Look:
        """The tensors of a step; without the whole network's only loss, logits and labels."""

        look = Look(mode="train", step=step, full=is_whole)
        labels = self._random.integers(CLASSES, size=self._batch)
        logits = self._noise((self._batch, CLASSES))
        logits[np.arange(self._batch), labels] += step / STEPS_PER_EPOCH
        look.tensors += [
            Captured("loss", kind="loss", value=np.array(_loss(step))),
            Captured("logits", kind="logits", value=logits),
            Captured("labels", kind="labels", value=labels),
        ]
        if is_whole:
            look.tensors += [*self._parameter_tensors(), *self._call_tensors()]
        return look

    def _parameter_tensors(self) -> Iterator[Captured]:
        for name, value in self._parameters.items():
            gradient = 0.01 * self._noise(value.shape)
            kind: Kind = "bias" if name.endswith("bias") else "weight"
            yield Captured(name, kind=kind, value=value.copy())
            yield Captured(name, kind="gradient", value=gradient)
            value -= np.float32(0.1) * gradient

    def _call_tensors(self) -> Iterator[Captured]:
        for name, shape in self._calls.items():
            value = self._noise(shape)
            yield Captured(name, kind="activation_input", value=value)
            yield Captured(name, kind="activation", value=np.maximum(value, 0))

    def _noise(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._random.standard_normal(shape, dtype=np.float32)


def _write_logs(place: RecordingFolder, *, parameters: Shapes, steps: int, batch: int) -> None:
    """recording.json and steps.jsonl, as the recorder leaves them."""
    training = RunMetadata(
        architecture="resnet18",
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        hyperparameters={"learning_rate": 0.001, "batch_size": batch},
        steps_per_epoch=STEPS_PER_EPOCH,
        class_counts={"train": [80] * CLASSES, "validation": [20] * CLASSES},
        trainable=dict.fromkeys(parameters, True),
        expected_trainable=dict.fromkeys(parameters, True),
    )
    recording = RecordingConfig(backend="smdebug", tensors="full", every_steps=LOOKED_INTO_EVERY)
    facts = RecordingFacts(training, recording, backend="smdebug", paths=(), starts=(time.time(),))
    write_facts(place.facts, facts)
    log = LineWriter(place.steps)
    for step in range(steps):
        log.write(
            {
                "step": step,
                "epoch": 1 + step // STEPS_PER_EPOCH,
                "started": 1.7e9 + step,
                "loss": _loss(step),
                "learning_rate": 0.001,
                "gradient_norm": 1.0,
                "images": batch,
                "correct": batch // 2,
                "seconds": dict.fromkeys(STEP_PHASES, 0.01),
            }
        )
    log.close()


def _loss(step: int) -> float:
    return float(np.log(CLASSES) / (1 + step / 200))
