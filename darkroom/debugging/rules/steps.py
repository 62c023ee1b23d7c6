"""Rules over the times of steps, and over the framework's time as a whole."""

import math
from collections.abc import Callable

import numpy as np

from darkroom.debugging.rules.rule import NotApplicableError, Rule, always, now
from darkroom.debugging.rules.series import block_means, line_plot, samples_of
from darkroom.telemetry.evidence import Evidence, Floats, StepLog
from darkroom.telemetry.findings import Hit, Plot

# --- steps ---

_WARM_UP = 5
"""Steps in which memory and kernels are still being chosen."""
_PLOTTED = 60


def step_seconds(steps: StepLog) -> Floats:
    """(n,) what each step took, without what recording it cost."""
    phases = [values for phase, values in steps.seconds.items() if phase != "recording"]
    total: Floats = sum(map(np.nan_to_num, phases), np.zeros(len(steps)))
    return total


def max_initialization_time(evidence: Evidence, *, threshold: float = 20.0) -> list[Hit]:
    """More than `threshold` minutes passed from the start to the first step.

    SageMaker's MaxInitializationTime.

    Args:
        threshold: minutes.
    """
    steps, started = evidence.steps, evidence.facts.started
    if not len(steps) or not started:
        raise NotApplicableError("no step was recorded, or not when the training started")
    minutes = (float(steps.started[0]) - started) / 60
    if minutes <= threshold:
        return []
    figures: dict[str, float | str] = {"minutes": minutes, "threshold_minutes": threshold}
    return [Hit("", None, figures)]


def step_outlier(
    evidence: Evidence,
    *,
    stddev: float = 5.0,
    mode: str | None = None,
    n_outliers: int = 10,
) -> list[Hit]:
    """More than `n_outliers` steps, of over 100, took longer than mean + stddev · σ.

    SageMaker's StepOutlier; in its code stddev is 3. What recording a step cost is no part
    of its time here.

    Args:
        stddev: standard deviations.
        mode: 'train', or null; steps of evaluations are not timed.
        n_outliers: steps.
    """
    steps = evidence.steps
    if mode not in (None, "train"):
        raise NotApplicableError(f"steps of {mode!r} are not timed")
    if len(steps) <= 100:
        raise NotApplicableError(f"{len(steps)} steps; it takes more than 100")
    seconds = step_seconds(steps)
    limit = float(seconds.mean() + stddev * seconds.std())
    slow = np.flatnonzero(seconds > limit)
    if len(slow) <= n_outliers:
        return []
    figures: dict[str, float | str] = {
        "slow_steps": float(len(slow)),
        "threshold_steps": float(n_outliers),
        "limit_seconds": limit,
        "median_seconds": float(np.median(seconds)),
    }
    plot = line_plot(
        steps.step, lines={"step": seconds}, y_label="seconds", threshold=limit, log=True
    )
    return [Hit("", int(steps.step[slow[0]]), figures, plot)]


def data_wait(
    evidence: Evidence, *, threshold: float = 10.0, patience: int = 20, milliseconds: float = 2.0
) -> list[Hit]:
    """More than `threshold` % of the steps' time is spent waiting for images.

    Ours. Healthy trainings on a CPU spend 0.3 to 7 % (measured: resnet18 and
    mobilenet_v3_small at 16 to 128 pixels). The slowest hundredth of the steps is left out.

    Args:
        threshold: percent.
        patience: steps that it takes, the first five left out.
        milliseconds: a step; shorter waits are no matter.
    """
    steps = evidence.steps
    if len(steps) < patience + _WARM_UP:
        raise NotApplicableError(f"{len(steps)} steps; it takes {patience + _WARM_UP}")
    waits = np.nan_to_num(steps.seconds.get("data_wait", np.zeros(len(steps))))[_WARM_UP:]
    seconds = step_seconds(steps)[_WARM_UP:]
    usual = seconds <= np.percentile(seconds, 99)
    percent = 100 * float(waits[usual].sum()) / max(float(seconds[usual].sum()), 1e-9)
    wait = 1000 * float(waits[usual].mean())
    if percent <= threshold or wait < milliseconds:
        return []
    figures: dict[str, float | str] = {
        "waiting_percent": percent,
        "threshold_percent": threshold,
        "waiting_milliseconds_a_step": wait,
        "step_milliseconds": 1000 * float(seconds[usual].mean()),
    }
    plot = _wait_plot(steps, waits=waits, seconds=seconds, threshold=threshold)
    return [Hit("", None, figures, plot)]


def small_batches(
    evidence: Evidence, *, minimum_images: int = 4, steps_per_epoch: int = 50
) -> list[Hit]:
    """A step sees fewer than `minimum_images` images, though there are enough for more.

    Ours: what SageMaker's BatchSize is to GPUs. What a step costs whatever its batch is
    paid for each image, and gradients are noisy; batch-norm's statistics are too, below
    about 8 images (Wu and He, Group normalization, ECCV 2018, figure 1).

    Args:
        minimum_images: in a step, of one process.
        steps_per_epoch: with fewer, the data set is small too.
    """
    steps = evidence.steps
    if not len(steps):
        raise NotApplicableError("no steps were recorded")
    images = float(np.median(steps.images))
    if not 0 < images < minimum_images or evidence.facts.steps_per_epoch < steps_per_epoch:
        return []
    figures: dict[str, float | str] = {
        "images_a_step": images,
        "minimum_images": float(minimum_images),
        "steps_an_epoch": float(evidence.facts.steps_per_epoch),
        "milliseconds_an_image": 1000 * float(np.median(step_seconds(steps))) / images,
    }
    return [Hit("", None, figures)]


def _wait_plot(steps: StepLog, *, waits: Floats, seconds: Floats, threshold: float) -> Plot:
    size = math.ceil(len(waits) / _PLOTTED)
    shares = 100 * block_means(waits, size=size) / block_means(seconds, size=size).clip(1e-9)
    return line_plot(
        steps.step[_WARM_UP:][: len(shares) * size : size],
        lines={"waiting for images": shares},
        y_label="percent of the step",
        threshold=threshold,
    )


def _load_faster(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        "see what else the machine does: other processes take the CPU or the disk",
        f"lower model.resize_size{now(evidence, 'resize_size')}: cropping costs by the pixel",
        "set training.augmentation to 'none' once, to see what cropping costs",
        "put the cache (DARKROOM_HOME) on a local disk, if it lies on a network's",
    )


def _larger_batches(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"raise training.batch_size{now(evidence, 'batch_size')} to 32, and training.learning_rate "
        "by the square root of the factor",
        "lower model.image_size if a larger batch does not fit into memory",
    )


STEP_RULES = (
    Rule(
        name="data_wait",
        title="Training waits for its images",
        severity="warning",
        meaning="The network idles while a batch's images are read, cropped and resized.",
        advice=_load_faster,
        evaluate=data_wait,
    ),
    Rule(
        name="small_batches",
        title="Batches are very small",
        severity="warning",
        meaning=(
            "Every step pays its fixed cost for a few images, and steps in the direction of a "
            "few images only: the training is slow and its loss noisy."
        ),
        advice=_larger_batches,
        evaluate=small_batches,
    ),
    Rule(
        name="step_outlier",
        title="Some steps take far longer than others",
        severity="note",
        meaning="Something interrupts the training now and then.",
        advice=always(
            "see what happens at these steps: other programs, a full disk, a slow network drive",
        ),
        evaluate=step_outlier,
        live=False,
    ),
    Rule(
        name="max_initialization_time",
        title="It took long until the first step",
        severity="warning",
        meaning="The machine was paid for before anything was learned.",
        advice=always(
            "keep the cache of decoded images (DARKROOM_HOME) between trainings",
            "publish the data set as shards: few large files arrive sooner than many small ones",
        ),
        evaluate=max_initialization_time,
    ),
)


# --- overall ---
# What is worth knowing of the whole, and nothing to be warned of.


def overall_system_usage(evidence: Evidence) -> list[Hit]:
    """Never fires, as SageMaker's OverallSystemUsage: see profile_summary.json of the recording."""
    samples_of(evidence)
    return []


def overall_framework_metrics(evidence: Evidence) -> list[Hit]:
    """Never fires, as SageMaker's OverallFrameworkMetrics: see profile_summary.json."""
    if not len(evidence.steps):
        raise NotApplicableError("no steps were recorded")
    return []


def evaluation_share(evidence: Evidence, *, threshold: float = 40.0) -> list[Hit]:
    """More than `threshold` % of the training is spent on the validation split. Ours.

    Args:
        threshold: percent of the steps' and evaluations' time.
    """
    return _share(evidence, phase="evaluation", threshold=threshold)


def checkpoint_share(evidence: Evidence, *, threshold: float = 20.0) -> list[Hit]:
    """More than `threshold` % of the training is spent on writing checkpoints. Ours.

    Args:
        threshold: percent of the steps' and checkpoints' time.
    """
    return _share(evidence, phase="checkpoint", threshold=threshold)


def _share(evidence: Evidence, *, phase: str, threshold: float) -> list[Hit]:
    log = evidence.evaluations
    if log is None or not len(log.epoch) or not len(evidence.steps):
        raise NotApplicableError("no epoch was completed")
    seconds = float(sum(log.seconds.get(phase, ())))
    whole = float(step_seconds(evidence.steps).sum()) + seconds
    percent = 100 * seconds / whole if whole else 0.0
    if percent <= threshold:
        return []
    figures: dict[str, float | str] = {
        f"{phase}_percent": percent,
        "threshold_percent": threshold,
        f"{phase}_seconds_an_epoch": seconds / len(log.epoch),
    }
    return [Hit("", None, figures)]


def _silent(name: str, title: str, evaluate: Callable[[Evidence], list[Hit]]) -> Rule:
    return Rule(
        name=name,
        title=title,
        severity="note",
        meaning="",
        advice=always(),
        evaluate=evaluate,
        live=False,
    )


OVERALL_RULES = (
    Rule(
        name="evaluation_share",
        title="Much of the time goes into evaluation",
        severity="note",
        meaning="Validation after each epoch takes time that could be spent on learning.",
        advice=always("make the validation split smaller, or the epochs fewer and longer"),
        evaluate=evaluation_share,
        live=False,
    ),
    Rule(
        name="checkpoint_share",
        title="Much of the time goes into checkpoints",
        severity="note",
        meaning="The disk that they are written to is slow, or epochs are very short.",
        advice=always("put the run's folder (DARKROOM_HOME) on a local disk"),
        evaluate=checkpoint_share,
        live=False,
    ),
    _silent("overall_system_usage", "Use of the machine", overall_system_usage),
    _silent("overall_framework_metrics", "Time by phase", overall_framework_metrics),
)
