"""The run as a whole: standing still, or unlike another."""

import numpy as np

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence, Kind, TensorSource
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.selecting import described, select

_COMPARED = ("mean", "std", "minimum", "maximum")


def stalled_training(evidence: Evidence, *, threshold: float = 1800.0) -> list[Hit]:
    """Nothing new was recorded for `threshold` seconds.

    SageMaker Debugger's StalledTrainingRule and its threshold. While the training runs, up to
    now; after its end, between any two steps, whatever lay between them.

    Args:
        threshold: seconds.
    """
    started = evidence.steps.started
    if not len(started):
        raise NotApplicableError("no steps were recorded")
    moments = started if evidence.ended else np.append(started, max(evidence.now, started[-1]))
    gaps = np.diff(moments)
    if not (gaps > threshold).any():
        return []
    at = int(gaps.argmax())
    figures: dict[str, float | str] = {"seconds": float(gaps[at]), "threshold": threshold}
    return [Hit("", int(evidence.steps.step[at]), figures)]


def similar_across_runs(
    evidence: Evidence,
    *,
    other_trials: str | None = None,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-8,
) -> list[Hit]:
    """A tensor differs from another run's at the same step.

    SageMaker Debugger's SimilarAcrossRuns: a check that a run repeats an earlier one. Whole
    tensors are compared where both were kept, else their mean, deviation, least and largest.

    Args:
        other_trials: the earlier run's recording, which `Evidence.other` holds.
        collection_names: such as 'weights, gradients'; null: weights.
        tensor_regex: sought in 'kind/name'.
        rtol: numpy.allclose's, whose defaults these are.
        atol: likewise.
    """
    if evidence.other is None:
        raise NotApplicableError("other_trials names no other run")
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=("weight",),
    ):
        step = _first_difference(evidence, kind, name, other=evidence.other, rtol=rtol, atol=atol)
        if step is not None:
            hits.append(Hit(described(kind, name), step, {"other_run": other_trials or ""}))
    return sorted(hits, key=lambda hit: hit.step or 0)


def _first_difference(
    evidence: Evidence, kind: Kind, name: str, *, other: TensorSource, rtol: float, atol: float
) -> int | None:
    """The first step that both recorded, at which they differ."""
    ours = evidence.tensors.statistics(name, kind=kind)
    theirs = other.statistics(name, kind=kind)
    common, at, there = np.intersect1d(ours.steps, theirs.steps, return_indices=True)
    for step, i, j in zip(common.tolist(), at.tolist(), there.tolist(), strict=True):
        pair = [one.value(name, kind=kind, step=step) for one in (evidence.tensors, other)]
        if any(value is None for value in pair):
            pair = [
                np.array([statistics[column][row] for column in _COMPARED])
                for statistics, row in ((ours, i), (theirs, j))
            ]
        first, second = (np.asarray(value, dtype=np.float64) for value in pair)
        if first.shape != second.shape or not np.allclose(
            first, second, rtol=rtol, atol=atol, equal_nan=True
        ):
            return int(step)
    return None


RULES = (
    Rule(
        name="stalled_training",
        title="The training stood still",
        severity="warning",
        meaning="No step was finished for long: a process hangs, or waits for data.",
        advice=always(
            "look at what the machine did in that time: disk, network, other programs",
            "if a process hangs, try training.processes: 1",
        ),
        evaluate=stalled_training,
    ),
    Rule(
        name="similar_across_runs",
        title="The run differs from the other one",
        severity="warning",
        meaning="It was to repeat the other run, and took another way from the named step on.",
        advice=always(
            "compare seed, data and hyperparameters of both runs",
            "compare versions and machines: other kernels round otherwise",
        ),
        evaluate=similar_across_runs,
    ),
)
