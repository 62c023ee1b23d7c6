"""Statistics of an array, in numpy: what `measure` of darkroom.capture.measuring is in torch.

Percentiles, and the comparison with an earlier value, are estimated from every n-th element
where there are more than `MOST_SAMPLED`.
"""

from math import gcd, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.evidence import STATISTICS

MOST_SAMPLED = 65_536
"""Elements behind percentiles and comparisons."""
_EPSILON = 1e-9  # WeightUpdateRatio's `epsilon`, AWS' documentation of Debugger's rules
_RELATIVE_TOLERANCE = 1e-5  # UnchangedTensor's `rtol`, and numpy.allclose's
_SIZE_OF_NOTHING: dict[str, float] = dict.fromkeys(STATISTICS, nan) | {"zero_share": 0.0}


def tensor_statistics(
    array: NDArray[Any], *, previous: NDArray[Any] | None = None
) -> dict[str, float]:
    """The columns of STATISTICS of one tensor.

    Args:
        array: of any shape and any real type.
        previous: the tensor's value at the recorded step before.
    """
    flat = np.ravel(array)
    if not flat.size:
        return dict.fromkeys(STATISTICS, nan)
    if flat.dtype.kind != "f":
        flat = flat.astype(np.float64)
    finite, shares = _finite(flat)
    values = _of_finite(finite) if finite.size else dict(_SIZE_OF_NOTHING)
    return values | shares | _compared(array, previous=previous)


def unit_shares(output: NDArray[Any]) -> NDArray[np.float64]:
    """(C,) share of each channel's elements, in (n, C, …), that are not zero."""
    active = np.moveaxis(np.asarray(output) != 0, 1, 0)
    shares: NDArray[np.float64] = active.reshape(active.shape[0], -1).mean(axis=1)
    return shares


def _finite(flat: NDArray[Any]) -> tuple[NDArray[Any], dict[str, float]]:
    """The finite elements, and the shares of the others."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_sound = bool(np.isfinite(flat.sum(dtype=np.float64)))  # one pass, where all is well
    if is_sound:
        return flat, {"nan_share": 0.0, "infinite_share": 0.0}
    shares = {
        "nan_share": float(np.isnan(flat).mean()),
        "infinite_share": float(np.isinf(flat).mean()),
    }
    return flat[np.isfinite(flat)], shares


def _of_finite(finite: NDArray[Any]) -> dict[str, float]:
    low, high = np.percentile(_sample(finite), (5, 95), method="nearest")
    return {
        "mean": float(finite.mean(dtype=np.float64)),
        "std": float(finite.std(dtype=np.float64)),
        "minimum": float(finite.min()),
        "maximum": float(finite.max()),
        "abs_mean": float(np.abs(finite).mean(dtype=np.float64)),
        "p5": float(low),
        "p95": float(high),
        "zero_share": 1 - int(np.count_nonzero(finite)) / finite.size,
    }


def _compared(array: NDArray[Any], *, previous: NDArray[Any] | None) -> dict[str, float]:
    if previous is None or previous.shape != array.shape:
        return {"update_ratio": nan, "change_excess": nan}
    now, before = (_sample(np.ravel(one)).astype(np.float64) for one in (array, previous))
    with np.errstate(invalid="ignore"):  # of values that are not finite nothing can be said
        change, size = np.abs(now - before), np.abs(before)
        return {
            "update_ratio": float(change.mean() / (size.mean() + _EPSILON)),
            "change_excess": float((change - _RELATIVE_TOLERANCE * size).max()),
        }


def _sample(flat: NDArray[Any]) -> NDArray[Any]:
    """Evenly strided elements, `MOST_SAMPLED` at most.

    The stride shares no factor with the sides of kernels, nor with most numbers of channels:
    every 36th element of a 3×3 convolution's weights is the same corner of each kernel.
    """
    stride = -(-flat.size // MOST_SAMPLED)
    while gcd(stride, 2 * 3 * 5 * 7) > 1:
        stride += 1
    return flat[::stride]
