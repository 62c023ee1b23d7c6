"""Statistics of tensors, and the table of them over steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gcd, nan, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from darkroom.telemetry.evidence import STATISTICS, Kind, Mode, Statistics

# --- table ---

Load = Callable[[], NDArray[Any]]
_Key = tuple[Kind, Mode, str]


@dataclass
class _Entry:
    """One tensor at one step."""

    statistics: tuple[float, ...]
    units: NDArray[Any] | None
    value: Load | None


@dataclass
class TensorTable:
    """Statistics in memory, whole tensors where they can be loaded from."""

    _entries: dict[_Key, dict[int, _Entry]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        kind: Kind,
        mode: Mode,
        step: int,
        statistics: Sequence[float] = (),
        units: NDArray[Any] | None = None,
        value: Load | None = None,
    ) -> None:
        """Take in one tensor at one step of a mode; what was there for the step is replaced.

        Args:
            statistics: in the order of STATISTICS; empty: unknown.
            value: loads the whole tensor.
        """
        row = tuple(statistics) or (np.nan,) * len(STATISTICS)
        self._entries.setdefault((kind, mode, name), {})[step] = _Entry(row, units, value)

    def names(self, kind: Kind) -> Sequence[str]:
        """Tensors of a kind, in the order in which they were first seen."""
        return list(dict.fromkeys(name for of, _, name in self._entries if of == kind))

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """Of one tensor, over its steps."""
        entries = sorted(self._entries.get((kind, mode, name), {}).items())
        rows = np.array([entry.statistics for _, entry in entries], dtype=np.float64)
        columns = rows.reshape(len(entries), len(STATISTICS)).T
        return Statistics(
            steps=np.array([step for step, _ in entries], dtype=np.int64),
            columns=dict(zip(STATISTICS, columns, strict=True)),
            units={
                step: entry.units.astype(np.float64)
                for step, entry in entries
                if entry.units is not None
            },
        )

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """Load the whole tensor, if it was kept.

        Args:
            name: as `names` gives it.
            step: of the mode.

        Returns:
            None where the step has no such tensor, or only its statistics.
        """
        entry = self._entries.get((kind, mode, name), {}).get(step)
        return entry.value() if entry and entry.value else None


# --- statistics ---
# Statistics of an array, in numpy: what `measure` of darkroom.debugging.recording.snapshots is in
# torch.
#
# Percentiles, and the comparison with an earlier value, are estimated from every n-th element
# where there are more than `MOST_SAMPLED`. The rest is of all elements, block after block that
# fits into a core's cache, so that an array is gone through once and never copied as a whole.

MAX_SAMPLED = 65_536
"""Elements behind percentiles and comparisons."""
_BLOCK = 32_768
"""Elements that are looked at together: 256 KB in double precision."""
EPSILON = 1e-9  # WeightUpdateRatio's `epsilon`, AWS' documentation of Debugger's rules
RELATIVE_TOLERANCE = 1e-5  # UnchangedTensor's `rtol`, and numpy.allclose's
_SIZE_OF_NOTHING: dict[str, float] = dict.fromkeys(STATISTICS, nan) | {"zero_share": 0.0}


@dataclass(frozen=True)
class Sample:
    """What is kept of a value to compare the next one with."""

    shape: tuple[int, ...]
    """Of the value."""
    elements: NDArray[np.float64]
    """`MOST_SAMPLED` at most."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> "Sample":
        """Of an array of any shape and any real type; a copy."""
        return cls(array.shape, _sample(np.ravel(array)).astype(np.float64))


def tensor_statistics(
    array: NDArray[Any], *, previous: NDArray[Any] | Sample | None = None
) -> dict[str, float]:
    """The columns of STATISTICS of one tensor.

    Args:
        array: of any shape and any real type.
        previous: the tensor's value at the recorded step before, or a sample of it.
    """
    flat = np.ravel(array)
    if not flat.size:
        return dict.fromkeys(STATISTICS, nan)
    with np.errstate(invalid="ignore", over="ignore"):
        values = _of_all(flat) | _compared(array, previous=previous)
    return {name: values[name] for name in STATISTICS}


def unit_shares(output: NDArray[Any]) -> NDArray[np.float64]:
    """(C,) share of each channel's elements, in (n, C, …), that are not zero."""
    output = np.asarray(output)
    images, channels, size = len(output), output.shape[1], prod(output.shape[2:])
    active = np.zeros(channels, dtype=np.int64)
    for image in output:  # one after the other: the flags then stay in the cache
        flags = (image != 0).reshape(channels, size).view(np.uint8)
        active += np.add.reduce(flags, axis=1, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = active / np.float64(images * size)
    return shares


def even_stride(size: int, *, most: int) -> int:
    """The stride by which at most so many of `size` elements are taken.

    It shares no factor with the sides of kernels, nor with most numbers of channels: every
    36th element of a 3×3 convolution's weights is the same corner of each kernel.
    """
    stride = -(-size // most)
    while gcd(stride, 2 * 3 * 5 * 7) > 1:
        stride += 1
    return stride


class _Moments(NamedTuple):
    """Of finite elements, in double precision."""

    total: float
    squares: float
    """Sum of the squared distances from the mean."""
    absolute: float
    minimum: float
    maximum: float
    nonzero: int


def _of_all(flat: NDArray[Any]) -> dict[str, float]:
    """The finite elements' statistics, and the shares of the others."""
    moments = _moments(flat)
    if np.isfinite(moments.total):
        return _of_finite(flat, moments) | {"nan_share": 0.0, "infinite_share": 0.0}
    shares = {
        "nan_share": np.count_nonzero(np.isnan(flat)) / flat.size,
        "infinite_share": np.count_nonzero(np.isinf(flat)) / flat.size,
    }
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return _SIZE_OF_NOTHING | shares
    return _of_finite(finite, _moments(finite)) | shares


def _of_finite(finite: NDArray[Any], moments: _Moments) -> dict[str, float]:
    low, high = np.percentile(_sample(finite), (5, 95), method="nearest")
    return {
        "mean": moments.total / finite.size,
        "std": float(np.sqrt(moments.squares / finite.size)),
        "minimum": moments.minimum,
        "maximum": moments.maximum,
        "abs_mean": moments.absolute / finite.size,
        "p5": float(low),
        "p95": float(high),
        "zero_share": 1 - moments.nonzero / finite.size,
    }


def _moments(flat: NDArray[Any]) -> _Moments:
    """Block after block; squares are those within the blocks, and those of their means.

    Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American
    Statistician 37 (1983), equation 2.1.
    """
    room = np.empty((2, min(flat.size, _BLOCK)))
    blocks = [
        _of_block(flat[start : start + _BLOCK], room=room) for start in range(0, flat.size, _BLOCK)
    ]
    sizes = np.full(len(blocks), _BLOCK)
    sizes[-1] = flat.size - _BLOCK * (len(blocks) - 1)
    totals = np.array([block.total for block in blocks])
    total = float(totals.sum())
    between = sizes * (totals / sizes - total / flat.size) ** 2
    return _Moments(
        total=total,
        squares=float(np.sum([block.squares for block in blocks]) + between.sum()),
        absolute=float(np.sum([block.absolute for block in blocks])),
        minimum=min(block.minimum for block in blocks),
        maximum=max(block.maximum for block in blocks),
        nonzero=sum(block.nonzero for block in blocks),
    )


def _of_block(block: NDArray[Any], *, room: NDArray[np.float64]) -> _Moments:
    """Of one block; `room` is overwritten."""
    values, other = room[:, : block.size]
    np.copyto(values, block)
    total = float(values.sum())
    absolute = float(np.abs(values, out=other).sum())
    values -= total / block.size
    return _Moments(
        total=total,
        squares=float(np.multiply(values, values, out=other).sum()),
        absolute=absolute,
        minimum=float(block.min()),
        maximum=float(block.max()),
        nonzero=int(np.count_nonzero(block != 0)),
    )


def _compared(array: NDArray[Any], *, previous: NDArray[Any] | Sample | None) -> dict[str, float]:
    """NaN where there is nothing to compare with, and of values that are not finite."""
    if previous is None or previous.shape != array.shape:
        return {"update_ratio": nan, "change_excess": nan}
    earlier = previous if isinstance(previous, Sample) else Sample.of(previous)
    now, before = Sample.of(array).elements, earlier.elements
    change, size = np.abs(now - before), np.abs(before)
    return {
        "update_ratio": float(change.mean() / (size.mean() + EPSILON)),
        "change_excess": float((change - RELATIVE_TOLERANCE * size).max()),
    }


def _sample(flat: NDArray[Any]) -> NDArray[Any]:
    """Evenly strided elements, `MOST_SAMPLED` at most."""
    return flat[:: even_stride(flat.size, most=MAX_SAMPLED)]
