"""Trainings as a profile sees them, in memory: steps and samples of the machine."""

from dataclasses import replace

import numpy as np

from darkroom.telemetry.evidence import EvaluationLog, Evidence, RunMetadata, Statistics, StepLog
from darkroom.telemetry.recording import STEP_PHASES
from darkroom.telemetry.system import SystemSamples

START = 1_790_000_000.0
HEALTHY_SHARES = {
    "data_wait": 0.065,
    "transfer": 0.006,
    "forward": 0.34,
    "backward": 0.49,
    "optimiser": 0.05,
    "recording": 0.049,
}
"""Of mobilenet_v3_small at 128 pixels on two cores, measured."""


class NoTensors:
    def names(self, kind):
        return ()

    def statistics(self, name, *, kind, mode="train"):
        return Statistics(np.zeros(0, dtype=np.int64), {})

    def value(self, name, *, kind, step, mode="train"):
        return None


def steps_of(
    *, count=200, per_epoch=50, seconds=0.2, images=32, slower_loading=1.0, seed=0, noise=0.1
) -> StepLog:
    random = np.random.default_rng(seed)
    phases = {
        phase: seconds * share * np.exp(random.normal(scale=noise, size=count))
        for phase, share in HEALTHY_SHARES.items()
    }
    phases["data_wait"] = phases["data_wait"] * slower_loading
    took = sum(phases.values())
    step = np.arange(count)
    return StepLog(
        step=step,
        epoch=1 + step // per_epoch,
        started=START + 3 + np.concatenate([[0.0], np.cumsum(took)[:-1]]),
        loss=np.full(count, 1.0),
        learning_rate=np.full(count, 1e-3),
        gradient_norm=np.full(count, np.nan),
        images=np.full(count, images),
        correct=np.full(count, images // 2),
        seconds={phase: phases[phase] for phase in STEP_PHASES},
    )


def samples_of_run(
    *, count=120, interval=0.5, cores=2, cpu=90.0, gpus=(), memory=1.2e9, start=START, seed=0
) -> SystemSamples:
    """`gpus`: percent busy of each; `memory`: bytes, a number or one for each sample."""
    random = np.random.default_rng(seed)
    zeros = np.zeros(count)

    def near(value, *, size):
        return np.clip(value + random.normal(scale=2, size=size), 0, 100)

    return SystemSamples(
        time=start + interval * np.arange(count),
        cpu=near(cpu, size=(count, cores)),
        io_wait=zeros + 1,
        memory=zeros + 30,
        process_memory=np.broadcast_to(memory, count).astype(float),
        process_cpu=near(cpu, size=count) * cores,
        loader_cpu=zeros + np.nan,
        disk_read=zeros + 1e6,
        disk_write=zeros,
        network_in=zeros,
        network_out=zeros,
        gpu=near(np.asarray(gpus, dtype=float), size=(count, len(gpus))),
        gpu_memory=np.full((count, len(gpus)), 40.0),
        loaders=zeros,
    )


def run(*, steps=None, system=None, evaluations=None, **facts) -> Evidence:
    hyperparameters = {"batch_size": 32, "image_size": 128, **facts.pop("hyperparameters", {})}
    known = RunMetadata(
        architecture="mobilenet_v3_small",
        classes=("cat", "dog"),
        hyperparameters=hyperparameters,
        steps_per_epoch=50,
        class_counts={},
        trainable={},
        expected_trainable={},
        started=START,
    )
    return Evidence(
        facts=replace(known, **facts),
        tensors=NoTensors(),
        steps=steps if steps is not None else steps_of(),
        system=system,
        evaluations=evaluations,
    )


def evaluations_of(*, epochs=4, evaluation=2.0, checkpoint=0.1) -> EvaluationLog:
    return EvaluationLog(
        epoch=np.arange(1, epochs + 1),
        started=START + 13 + 12 * np.arange(epochs),
        seconds={
            "evaluation": np.full(epochs, evaluation),
            "checkpoint": np.full(epochs, checkpoint),
        },
    )
