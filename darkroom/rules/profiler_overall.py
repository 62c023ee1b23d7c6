"""What is worth knowing of the whole, and nothing to be warned of."""

from collections.abc import Callable

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit
from darkroom.rules.profiler_samples import samples_of
from darkroom.rules.profiler_steps import step_seconds
from darkroom.rules.rule import NotApplicableError, Rule


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


RULES = (
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
