"""What a training on this machine is going to need, found out before it: `check` tells it."""

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.config import Config
from darkroom.config.consistency import batch_sizes
from darkroom.config.tuning import Choices, trials_wanted
from darkroom.models.network import (
    build_model,
    has_active_batch_norm,
    imagenet_problem,
    imagenet_unavailable,
)
from darkroom.training.learner import SMALL_IMAGE, compute_threads

_MEASURED_PIXELS = 8 * 128**2
"""In a step: more images where they are small, whose fixed costs would be overrated else."""
_MEASURED_PARAMETERS = 120_000_000
"""Of larger networks, two steps would take too long, and too much memory, for a check."""
_ASPECT = 4 / 3
_COPIES_OF_A_MODEL = 4
_BYTES_A_PARAMETER = 4
_BYTES_OF_RECORDING = 50 * 10**6


@dataclass(frozen=True)
class Foresight:
    """What `check` prints, and what would end the run."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]


def foresee(
    config: Config, *, images: int | None, trained: int | None = None, stack: str
) -> Foresight:
    """Look ahead of a training.

    Args:
        images: of the whole source; None: not known before it is fetched.
        trained: of them in the training split; None: by the fractions that are held out.
        stack: on 'sagemaker' the machine is another one; there, it is not measured here.
    """
    problems, lines = weights_problems(config, stack=stack), list[str]()
    try:
        model = build_model(
            config.model.architecture,
            classes=2,
            fine_tune=config.model.fine_tune,
            image_size=config.model.image_size,
            seed=config.training.seed,
        )
    except UserError as error:
        return Foresight((), (*problems, f"model: {error}"))
    if images is not None:
        trained = trained or _trained(config, images=images)
        found, noted = _batch_problems(config, trained=trained, model=model)
        problems, lines = problems + found, lines + noted
    if stack == "local":
        if images is not None:
            lines.append(_duration(config, images=images, trained=trained or images, model=model))
        found, noted = _disk(config, images=images, model=model)
        problems, lines = problems + found, lines + noted
    return Foresight(tuple(lines), tuple(problems))


def weights_problems(config: Config, *, stack: str) -> list[str]:
    """Why ImageNet's weights cannot be had; on SageMaker it is the jobs that fetch them."""
    if config.model.weights != "imagenet" or stack == "sagemaker":
        return []
    reason = imagenet_problem(config.model.architecture)
    if reason is None:
        return []
    missing = imagenet_unavailable(config.model.architecture, reason=reason)
    return [f"model.weights: {missing}"]


def _trained(config: Config, *, images: int) -> int:
    """Images to train on, where the source's splits are not known."""
    held_out = config.data.validation_fraction + config.data.test_fraction
    return max(1, round(images * (1 - held_out)))


def _batch_problems(
    config: Config, *, trained: int, model: torch.nn.Module
) -> tuple[list[str], list[str]]:
    """Batches that batch-norm cannot work on, and those that hold everything at once."""
    problems, lines = [], []
    needed = 2 if has_active_batch_norm(model) else 1
    for key, sizes in batch_sizes(config).items():
        for size in sorted(set(sizes)):
            smallest = trained // math.ceil(trained / size)
            if smallest < needed:
                problems.append(
                    f"{key}: {size} would leave a step with {smallest} of about {trained:,} "
                    f"training images, and the batch-norm of {config.model.architecture} needs "
                    f"{needed}: take 3 or more"
                )
            elif size > trained:
                lines.append(
                    f"{key}: {size} is more than the about {trained:,} training images: an epoch "
                    "is one step"
                )
    return problems, lines


def _epochs(config: Config) -> float:
    """Epochs in all: those of the trials, and of the final training."""
    tuning, epochs = config.tuning, float(config.training.epochs)
    if not tuning.enabled:
        return epochs
    searched = tuning.search_space.epochs
    if searched is None:
        return (trials_wanted(tuning) + 1) * epochs
    values = searched.choices if isinstance(searched, Choices) else (searched.low, searched.high)
    return trials_wanted(tuning) * sum(values) / len(values) + searched.high


def _duration(config: Config, *, images: int, trained: int, model: torch.nn.Module) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > _MEASURED_PARAMETERS:
        return f"Duration       unknown: {parameters / 1e6:.0f} million parameters"
    epochs = _epochs(config)
    size, threads = config.model.image_size, config.training.threads
    threads = threads or (1 if size <= SMALL_IMAGE else torch.get_num_threads())
    learning, looking = (alone / threads for alone in _seconds_per_image(model, size=size))
    seconds = epochs * (trained * learning + (images - trained) * looking)
    return (
        f"Duration       about {_rough(seconds)} of training on this machine: {epochs:.0f} epochs "
        f"of {trained:,} images at {1 / learning:.0f} images/s"
    )


def _seconds_per_image(model: torch.nn.Module, *, size: int) -> tuple[float, float]:
    """To learn from one and to look at one, measured on random pixels, on one thread.

    In CPU time: what else the machine does now it will not do for hours.
    """
    count = max(2, min(64, _MEASURED_PIXELS // size**2))
    images, labels = torch.rand(count, 3, size, size), torch.zeros(count, dtype=torch.long)
    model.train()
    learning, looking = math.inf, math.inf
    with compute_threads(1, image_size=size):
        for _ in range(2):  # the first one warms up
            started = time.process_time()
            torch.autograd.backward(cross_entropy(model(images), labels))
            learned = time.process_time()
            with torch.no_grad():
                model(images)
            learning = min(learning, learned - started)
            looking = min(looking, time.process_time() - learned)
    return learning / count, looking / count


def _rough(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return "a minute" if seconds > 30 else f"{max(1, round(seconds))} seconds"


def _disk(
    config: Config, *, images: int | None, model: torch.nn.Module
) -> tuple[list[str], list[str]]:
    """What the run writes here: decoded images, models, recordings."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    needed = parameters * _BYTES_A_PARAMETER * _COPIES_OF_A_MODEL + _BYTES_OF_RECORDING
    if images is not None:
        needed += round(images * config.model.working_size**2 * _ASPECT * 3)
    place = _existing(workspace())
    free = shutil.disk_usage(place).free
    line = f"Disk           about {needed / 1e9:.1f} GB, of {free / 1e9:,.1f} GB free here"
    if needed <= free:
        return [], [line]
    problem = (
        f"disk: about {needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free at "
        f"{str(place)!r}: make room, or set DARKROOM_HOME to a folder on another disk"
    )
    return [problem], [line]


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
