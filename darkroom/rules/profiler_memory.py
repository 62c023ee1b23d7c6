"""A training process whose memory grows without end; ours."""

import numpy as np

from darkroom.profiling.system import SystemSamples
from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.findings import Hit
from darkroom.rules.profiler_samples import machine_plot, samples_of
from darkroom.rules.rule import NotApplicableError, Rule

_MOST_POINTS = 60
_PARTS = 5
_STEADY = 0.3
_MEGABYTE = 1e6


def memory_growth(
    evidence: Evidence,
    *,
    threshold_percent: float = 5.0,
    minimum_megabytes: float = 48.0,
    warm_up_percent: float = 25.0,
    patience: int = 12,
) -> list[Hit]:
    """The resident memory of the training rises steadily, after the first epoch.

    The rise is that of the Theil–Sen line, the median slope of all pairs, over the samples
    that are judged (Sen, Estimates of the regression coefficient based on Kendall's tau,
    JASA 63, 1968). It is steady if each fifth's median lies above that of the fifth before,
    by 30 % of the mean difference or more: memory that is taken once, by a first evaluation
    or a cache that fills, does not rise in every fifth.

    Healthy trainings rose by at most 1.5 % after the warm-up, and not steadily (measured on
    recorded trainings of 12 to 90 s, sampled every 500 ms).

    Args:
        threshold_percent: of the memory in use after the warm-up.
        minimum_megabytes: that it rises by at least.
        warm_up_percent: of the samples, left out at least, beside the first epoch.
        patience: samples that it takes after the warm-up.
    """
    samples = samples_of(evidence)
    if len(evidence.steps) and evidence.steps.epoch.max() < 2:
        # Every image of the mapped cache that is read for the first time counts as its memory.
        raise NotApplicableError("memory grows in every first epoch, and there was no other")
    first = _warm_up(evidence, samples=samples, percent=warm_up_percent)
    time, memory = _known(samples.time[first:], samples.process_memory[first:])
    if len(memory) < patience:
        raise NotApplicableError(f"{len(memory)} samples after the warm-up; it takes {patience}")
    slope = theil_sen_slope(*_thinned(time, memory))
    rise = slope * float(time[-1] - time[0])
    start = float(np.median(memory[: max(1, len(memory) // 10)]))
    percent = 100 * rise / max(start, 1.0)
    if percent < threshold_percent or rise < minimum_megabytes * _MEGABYTE or not _steady(memory):
        return []
    figures: dict[str, float | str] = {
        "rise_megabytes": rise / _MEGABYTE,
        "rise_percent": percent,
        "threshold_percent": threshold_percent,
        "megabytes_a_minute": 60 * slope / _MEGABYTE,
        "last_megabytes": float(memory[-1]) / _MEGABYTE,
    }
    plot = machine_plot(
        samples,
        lines={"resident": samples.process_memory / _MEGABYTE},
        y_label="MB",
        threshold=None,
    )
    return [Hit("training process", None, figures, plot)]


def theil_sen_slope(x: Floats, y: Floats) -> float:
    """The median slope of all pairs of points; 0 of fewer than two."""
    one, other = np.triu_indices(len(x), k=1)
    runs = x[other] - x[one]
    slopes = (y[other] - y[one])[runs > 0] / runs[runs > 0]
    return float(np.median(slopes)) if len(slopes) else 0.0


def _warm_up(evidence: Evidence, *, samples: SystemSamples, percent: float) -> int:
    """Samples to leave out: the first epoch, with its evaluation, or a share."""
    share = int(np.ceil(len(samples) * percent / 100))
    later = evidence.steps.started[evidence.steps.epoch > 1]
    if not len(later):
        return share
    return max(share, int(np.searchsorted(samples.time, float(later[0]))))


def _known(time: Floats, memory: Floats) -> tuple[Floats, Floats]:
    known = np.isfinite(memory)
    return time[known], memory[known]


def _thinned(time: Floats, memory: Floats) -> tuple[Floats, Floats]:
    """Medians of neighbouring samples, where there are more than can be paired."""
    count = min(_MOST_POINTS, len(time))
    times, memories = np.array_split(time, count), np.array_split(memory, count)
    return (
        np.array([float(np.median(part)) for part in times]),
        np.array([float(np.median(part)) for part in memories]),
    )


def _steady(memory: Floats) -> bool:
    rises = np.diff([float(np.median(part)) for part in np.array_split(memory, _PARTS)])
    return bool((rises >= _STEADY * rises.mean()).all() and rises.mean() > 0)


RULES = (
    Rule(
        name="memory_growth",
        title="The training's memory grows steadily",
        severity="warning",
        meaning="Something is kept at every step; a long enough training will be killed for it.",
        advice=always(
            "keep numbers of a step by .item() or .detach(), not the tensors: those keep the "
            "whole graph",
            "look for lists, caches or hooks of your own that only ever grow",
            "compare with a run that records nothing (recording.backend: 'off')",
        ),
        evaluate=memory_growth,
        live=False,
    ),
)
