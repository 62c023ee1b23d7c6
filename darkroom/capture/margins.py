"""How the network sees each training image over the epochs, for label-noise suspects.

Pleiss et al., Identifying mislabeled data using the area under the margin ranking, NeurIPS
2020: the mean, over the epochs, of the label's logit less the largest other one.
"""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from darkroom.files import atomic_path
from darkroom.rules.evidence import ImageMargins

if TYPE_CHECKING:
    from torch import Tensor


class MarginMeter:
    """Adds up margins, batch by batch.

    Args:
        labels: (N,) class indices of all training images.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self._labels = labels
        self._sum: NDArray[Any] = np.zeros(len(labels), dtype=np.float64)
        self._count: NDArray[Any] = np.zeros(len(labels), dtype=np.int64)
        self._other: NDArray[Any] = np.full(len(labels), -1, dtype=np.int64)

    def add(self, positions: NDArray[np.int64], *, logits: "Tensor", labels: "Tensor") -> None:
        """Take note of (n, C) logits of the images at (n,) positions with (n,) labels."""
        scores = logits.detach().float()
        own = scores.gather(1, labels[:, None])[:, 0]
        others = scores.scatter(1, labels[:, None], -inf).max(dim=1)
        margins = (own - others.values).cpu().numpy()
        usable = np.isfinite(margins)
        np.add.at(self._sum, positions[usable], margins[usable])
        np.add.at(self._count, positions[usable], 1)
        self._other[positions] = others.indices.cpu().numpy()

    def margins(self, paths: Sequence[str]) -> ImageMargins:
        """What there is so far."""
        return _margins(self._sum, self._count, labels=self._labels, other=self._other, paths=paths)

    def save(self, path: Path) -> None:
        """Write the sums, atomically."""
        with atomic_path(path, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, sum=self._sum, count=self._count, other=self._other, labels=self._labels)

    def restore(self, path: Path) -> None:
        """Go on from a file of `save`, if it is of these images."""
        arrays = _arrays(path)
        if arrays is not None and np.array_equal(arrays["labels"], self._labels):
            self._sum, self._count = arrays["sum"], arrays["count"]
            self._other = arrays["other"]


def read_margins(path: Path, *, paths: Sequence[str]) -> ImageMargins | None:
    """The margins that were saved; None where there are none."""
    arrays = _arrays(path)
    if arrays is None or len(arrays["labels"]) != len(paths):
        return None
    return _margins(
        arrays["sum"],
        arrays["count"],
        labels=arrays["labels"],
        other=arrays["other"],
        paths=paths,
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("sum", "count", "other", "labels")}
    except (OSError, ValueError, KeyError):
        return None


def _margins(
    total: NDArray[Any],
    count: NDArray[Any],
    *,
    labels: NDArray[Any],
    other: NDArray[Any],
    paths: Sequence[str],
) -> ImageMargins:
    seen = count > 0
    mean = np.full(len(total), np.nan)
    mean[seen] = total[seen] / count[seen]
    return ImageMargins(margin=mean, label=labels, predicted=other, paths=paths)
