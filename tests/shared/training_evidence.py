"""Recorded trainings as they could have been, in memory: a healthy one, and sick ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import EvaluationLog, Evidence, ImageMargins, RunMetadata, StepLog
from darkroom.telemetry.recording import BETWEEN_STEPS, STEP_PHASES
from darkroom.telemetry.system import SystemSamples
from training_tensors import MOBILENET_142, RESNET_62, MemoryTensors, network

CLASSES = ("beagle", "boxer", "chow", "collie", "pug", "saluki")
START = 1_790_000_000.0


def step_log(
    *, epochs: int, per_epoch: int, loss: Callable[[np.ndarray], np.ndarray], wait: float = 0.06
) -> StepLog:
    """Steps of a fifth of a second, of which waiting for data takes the share `wait`."""
    count, random = epochs * per_epoch, np.random.default_rng(2)
    step = np.arange(count)
    share = step / max(1, count)
    shares = {"data_wait": wait, "transfer": 0.01, "recording": 0.02, "optimiser": 0.06}
    rest = 1 - sum(shares.values())
    shares |= {"forward": rest * 0.36, "backward": rest * 0.62}
    seconds = {
        phase: 0.2 * shares[phase] * random.gamma(20, 1 / 20, size=count) for phase in STEP_PHASES
    }
    took = sum(seconds.values()) + 0.004
    between = 2.5 * (step // per_epoch)
    return StepLog(
        step=step,
        epoch=1 + step // per_epoch,
        started=START + np.concatenate([[0.0], np.cumsum(took)])[:count] + between,
        loss=loss(share) * np.exp(random.normal(scale=0.12, size=count)),
        learning_rate=1e-3 * np.minimum(1, share / 0.05) * 0.5 * (1 + np.cos(np.pi * share)),
        gradient_norm=1.4 * np.exp(random.normal(scale=0.4, size=count) - share),
        images=np.full(count, 32),
        correct=(32 * np.clip(0.2 + share, 0, 1)).astype(np.int64),
        seconds=seconds,
    )


def epoch_metrics(
    epochs: int, *, train_loss: Callable[[float], float], log_loss: Callable[[float], float]
) -> list[EpochMetrics]:
    """From losses by the share of the training."""
    return [
        EpochMetrics(
            epoch=epoch,
            learning_rate=1e-3,
            train_loss=train_loss(epoch / epochs),
            train_accuracy=float(np.exp(-train_loss(epoch / epochs))),
            validation={
                "accuracy": float(np.exp(-log_loss(epoch / epochs))),
                "balanced_accuracy": float(np.exp(-1.1 * log_loss(epoch / epochs))),
                "f1_macro": float(np.exp(-1.05 * log_loss(epoch / epochs))),
                "log_loss": log_loss(epoch / epochs),
                "calibration_error": 0.06 - 0.02 * epoch / epochs,
            },
            images_per_second=158.0 + epoch % 3,
            seconds=40.0,
        )
        for epoch in range(1, epochs + 1)
    ]


def system_samples(*, seconds: float, cores: int = 4, gpus: int = 0) -> SystemSamples:
    """One every half second."""
    count, random = max(2, int(2 * seconds)), np.random.default_rng(3)
    wave = 70 + 20 * np.sin(np.linspace(0, 12, count))
    return SystemSamples(
        time=START + np.arange(count) / 2,
        cpu=np.clip(wave[:, None] + random.normal(scale=9, size=(count, cores)), 0, 100),
        io_wait=random.gamma(1, 1.5, size=count),
        memory=np.linspace(38, 46, count),
        process_memory=np.linspace(1.6e9, 2.1e9, count),
        process_cpu=4 * wave,
        loader_cpu=np.full(count, np.nan),
        disk_read=random.gamma(1, 4e6, size=count),
        disk_write=random.gamma(1, 1e6, size=count),
        network_in=random.gamma(1, 2e4, size=count),
        network_out=random.gamma(1, 1e4, size=count),
        gpu=np.clip(60 + random.normal(scale=20, size=(count, gpus)), 0, 100),
        gpu_memory=np.full((count, gpus), 41.0),
    )


def image_margins(count: int = 300, *, wrong: int = 12) -> ImageMargins:
    """Of images, the first of which are labelled wrongly."""
    random = np.random.default_rng(4)
    margin = random.normal(loc=3, scale=0.8, size=count)
    margin[:wrong] = random.normal(loc=-2.4, scale=0.2, size=wrong)
    label = np.arange(count) % len(CLASSES)
    paths = [f"{CLASSES[at]}/{index:04d}.jpg" for index, at in enumerate(label)]
    return ImageMargins(
        margin=margin, label=label, predicted=(label + 1) % len(CLASSES), paths=paths
    )


def facts(**changes: object) -> RunMetadata:
    """Of a dogs' training."""
    return replace(
        RunMetadata(
            architecture="resnet18",
            classes=CLASSES,
            hyperparameters={
                "learning_rate": 1e-3,
                "batch_size": 32,
                "epochs": 8,
                "optimizer": "adamw",
                "objective": "f1_macro",
                "gradient_clip": 1.0,
                "augmentation": "crop_flip",
            },
            steps_per_epoch=150,
            class_counts={"train": [800] * 6, "validation": [100] * 6},
            trainable={},
            expected_trainable={},
            started=START,
        ),
        **changes,
    )


def healthy(
    *,
    names: Sequence[str] = RESNET_62,
    epochs: int = 8,
    per_epoch: int = 150,
    gpus: int = 0,
    **changes: object,
) -> Evidence:
    """A training that learns."""
    steps = epochs * per_epoch
    evidence = Evidence(
        facts=facts(),
        tensors=network(names, steps=steps),
        steps=step_log(
            epochs=epochs, per_epoch=per_epoch, loss=lambda s: 0.25 + 1.6 * np.exp(-4 * s)
        ),
        epochs=epoch_metrics(
            epochs,
            train_loss=lambda s: 0.25 + 1.6 * float(np.exp(-4 * s)),
            log_loss=lambda s: 0.32 + 1.3 * float(np.exp(-4 * s)),
        ),
        evaluations=evaluation_log(epochs, per_epoch=per_epoch),
        margins=image_margins(),
        system=system_samples(seconds=0.2 * steps + 2.5 * epochs, gpus=gpus),
    )
    return replace(evidence, **changes)


def evaluation_log(epochs: int, *, per_epoch: int) -> EvaluationLog:
    """Two seconds of evaluation an epoch, and a checkpoint."""
    epoch = np.arange(1, epochs + 1)
    seconds = dict(zip(BETWEEN_STEPS, (np.full(epochs, 2.1), np.full(epochs, 0.3)), strict=True))
    return EvaluationLog(epoch=epoch, started=START + epoch * 0.2 * per_epoch, seconds=seconds)


def overfitting(**changes: object) -> Evidence:
    """One whose validation loss turns round after a third."""
    epochs = epoch_metrics(
        10,
        train_loss=lambda s: 1.7 * float(np.exp(-6 * s)) + 0.01,
        log_loss=lambda s: 0.6 + 1.5 * float(np.exp(-9 * s)) + 0.9 * s,
    )
    return replace(
        healthy(epochs=10, per_epoch=100),
        epochs=epochs,
        steps=step_log(epochs=10, per_epoch=100, loss=lambda s: 1.7 * np.exp(-6 * s) + 0.01),
        **changes,
    )


def vanishing(*, names: Sequence[str] = MOBILENET_142, **changes: object) -> Evidence:
    """One whose gradients hardly reach the input, and whose units die."""
    depth_of = len(names)
    tensors = network(
        names,
        steps=1200,
        gradient=lambda depth, share: 1e-2 * 10 ** (-9 * (1 - depth / depth_of) * (0.5 + share)),
        active=lambda depth, share: 0.5 * np.exp(-4 * share * (depth / depth_of)),
    )
    steps = step_log(epochs=8, per_epoch=150, loss=lambda s: 1.79 - 0.05 * s, wait=0.45)
    return healthy(names=names, tensors=tensors, steps=steps, **changes)


def broken_at_step_3() -> Evidence:
    """One whose loss was no number from step 3 on, and that failed before its first epoch ended."""
    steps = step_log(epochs=1, per_epoch=6, loss=lambda s: 2 + 1e4 * s)
    loss = np.where(steps.step >= 3, np.nan, steps.loss)
    loss[2] = np.inf
    return Evidence(
        facts=facts(),
        tensors=network(RESNET_62, steps=6, broken_from=0.5),
        steps=replace(steps, loss=loss, gradient_norm=np.full(6, np.nan)),
    )


def nothing() -> Evidence:
    """One of which nothing was recorded."""
    none, whole = np.array([], dtype=np.float64), np.array([], dtype=np.int64)
    steps = StepLog(whole, whole, none, none, none, none, whole, whole, {})
    empty = facts(class_counts={}, hyperparameters={})
    return Evidence(facts=empty, tensors=MemoryTensors(), steps=steps)
