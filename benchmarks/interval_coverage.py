"""How often the intervals of an evaluation hold the truth: simulated models and test sets.

    python -m benchmarks.interval_coverage [--experiments 400] [--classes 2 10 100] …

Each model sees an image's class through Gaussian noise, more of it in some images than in
others, and knows how much: its probabilities are calibrated, or sharpened to be overconfident.
The truth is what a very large test set gives. Test sets are drawn at random, so that classes have
different numbers of images, and some may be absent. Printed are the share of the experiments whose
interval holds the truth and, where not every experiment has an interval, the share that has one.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from darkroom.evaluation.intervals import class_intervals, metric_intervals
from darkroom.evaluation.metrics import (
    confusion_counts,
    headline_metrics,
    top_k_hits,
    weighted_metrics,
)

ACCURACIES = (0.6, 0.9, 0.97, 0.995)
IMAGES = (20, 60, 270, 1000)
CLASSES = (2, 10, 100)
SHARPENING = (1.0, 1.5)
AVERAGED = ("precision", "recall", "f1")
"""By class: of the first class, which stands for all."""

_SPREAD = 0.4
"""Standard deviation of the logarithm of how well images can be seen."""
_TRUTH_IMAGES = 400_000
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Model:
    """A simulated classifier."""

    classes: int
    clarity: float
    sharpening: float = 1.0

    def answers(
        self, images: int, *, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(N,) labels and (N, C) probabilities."""
        labels = generator.integers(self.classes, size=images)
        clarity = self.clarity * np.exp(_SPREAD * generator.normal(size=images))
        seen = generator.normal(size=(images, self.classes))
        seen[np.arange(images), labels] += clarity
        # Of Gaussian noise, this is the log likelihood of each class, up to a constant.
        scores = self.sharpening * clarity[:, None] * seen
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return labels, scores / scores.sum(axis=1, keepdims=True)


def model_of(accuracy: float, *, classes: int, sharpening: float = 1.0) -> Model:
    """The model that is right so often, found by bisection."""
    low, high = 0.0, 12.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        generator = np.random.default_rng(0)
        images = min(40_000, _CHUNK_NUMBERS // classes)
        labels, answered = Model(classes, middle).answers(images, generator=generator)
        low, high = (
            (middle, high)
            if (answered.argmax(axis=1) == labels).mean() < accuracy
            else (low, middle)
        )
    return Model(classes, (low + high) / 2, sharpening)


def values_of(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Every metric that an evaluation has."""
    classes = probabilities.shape[1]
    confusion = confusion_counts(labels, probabilities.argmax(axis=1), classes=classes)
    values = headline_metrics(labels, probabilities)
    values |= {name: float(value) for name, value in weighted_metrics(confusion).items()}
    if classes > 5:
        values["top5_accuracy"] = float(top_k_hits(labels, probabilities, k=5).mean())
    return values


@cache
def truth_of(model: Model) -> dict[str, float]:
    """Metrics on a very large test set, and the scores of a class."""
    generator = np.random.default_rng(1)
    chunk = _CHUNK_NUMBERS // model.classes
    sums: dict[str, float] = defaultdict(float)
    confusion = np.zeros((model.classes, model.classes), dtype=np.int64)
    gaps, done = np.zeros(15), 0
    while done < _TRUTH_IMAGES:
        labels, answered = model.answers(min(chunk, _TRUTH_IMAGES), generator=generator)
        predicted, top = answered.argmax(axis=1), answered.max(axis=1)
        confusion += confusion_counts(labels, predicted, classes=model.classes)
        found = values_of(labels, answered)
        for name in ("log_loss", "top5_accuracy"):
            sums[name] += found.get(name, 0.0) * len(labels)
        bins = np.minimum((top * 15).astype(int), 14)
        gaps += np.bincount(bins, weights=(predicted == labels) - top, minlength=15)
        done += len(labels)
    # All classes are alike: so are their scores, and averages over them.
    accuracy = float(np.trace(confusion) / confusion.sum())
    truth = dict.fromkeys(values_of(labels, answered), accuracy)
    truth |= {f"{name} of a class": accuracy for name in AVERAGED}
    truth |= {name: total / done for name, total in sums.items() if name in truth}
    is_calibrated = model.sharpening == 1
    truth["calibration_error"] = 0.0 if is_calibrated else float(np.abs(gaps).sum() / done)
    return truth


def covered(
    model: Model, *, images: int, experiments: int, seed: int = 0, samples: int = 150
) -> dict[str, tuple[float, float]]:
    """By metric: the share of intervals that hold the truth, and of experiments that have one."""
    truth, hits = truth_of(model), defaultdict[str, list[bool | None]](list)
    for number in range(experiments):
        generator = np.random.default_rng((seed, number))
        labels, answered = model.answers(images, generator=generator)
        values = values_of(labels, answered)
        found = dict(
            metric_intervals(
                labels,
                answered,
                values=values,
                samples=samples,
                confidence=0.95,
                calibration_bins=15,
                seed=number,
            )
        )
        confusion = confusion_counts(labels, answered.argmax(axis=1), classes=model.classes)
        first = class_intervals(confusion, confidence=0.95)[0]
        found |= {f"{name} of a class": getattr(first, name) for name in AVERAGED}
        for name, interval in found.items():
            holds = None if interval is None else interval[0] <= truth[name] <= interval[1]
            hits[name].append(holds)
    return {name: _shares(found) for name, found in hits.items()}


def _shares(found: Sequence[bool | None]) -> tuple[float, float]:
    told = [holds for holds in found if holds is not None]
    return float(np.mean(told)) if told else float("nan"), len(told) / len(found)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """The table, as Markdown."""
    header_written = False
    for sharpening in options.sharpening:
        for classes in options.classes:
            for accuracy in options.accuracies:
                model = model_of(accuracy, classes=classes, sharpening=sharpening)
                for images in options.images:
                    found = covered(model, images=images, experiments=options.experiments)
                    if not header_written:
                        names = [name for name in found if name != "top5_accuracy"]
                        yield _row("sharpened", "classes", "accuracy", "images", *names)
                        yield "|---" * (len(names) + 4) + "|"
                        header_written = True
                    cells = [_cell(*found[name]) for name in names]
                    yield _row(
                        f"{sharpening:g}", str(classes), f"{accuracy:g}", str(images), *cells
                    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(share: float, published: float) -> str:
    if not published:
        return "–"
    return f"{share:.3f}" if published == 1 else f"{share:.3f} ({published:.0%})"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--accuracies", type=float, nargs="+", default=ACCURACIES)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--sharpening", type=float, nargs="+", default=SHARPENING)
    for line in lines(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
