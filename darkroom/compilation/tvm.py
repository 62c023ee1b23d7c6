"""Looks into a network with Apache TVM: times by operator, and where it leaves torch.

TVM lives in an environment of its own (`make tvm`): it wants other packages than the rest.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from darkroom.base.errors import DarkroomError
from darkroom.compilation.results import OperatorTime, TvmInsight
from darkroom.models.bundle import ONNX_FILE, Bundle
from darkroom.models.engine import Floats
from darkroom.models.prediction import softmax

PYTHON_VARIABLE = "DARKROOM_TVM_PYTHON"
"""Names another interpreter that has TVM."""
TOLERANCE = 1e-3
"""Share of a tensor's largest value by which float32 kernels may differ.

Sums in another order differ by some 1e-6 of it here; a wrong operator by 1e-2 and more.
"""
_IMAGES = 4
_SECONDS = 900
_CHECKOUT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("tvm_program.py")


class TvmError(DarkroomError):
    """TVM tells nothing; the message says why."""


@dataclass(frozen=True)
class Call:
    """One call of a kernel: its output, and the milliseconds it took."""

    name: str
    ms: float
    output: Floats


def insight(bundle: Bundle, *, images: Floats) -> TvmInsight:
    """What TVM tells of a bundle's network.

    Args:
        images: (N, 3, S, S); the first few are used, the first for single operators.

    Raises:
        TvmError: TVM is not installed, or fails.
    """
    from darkroom.compilation.torch_tensors import torch_tensors

    images = images[:_IMAGES]
    answer, calls = _run(bundle.folder / ONNX_FILE, images=images)
    tensors, expected = torch_tensors(bundle, images=images)
    got = np.asarray(answer["logits"], dtype=np.float32)
    operators, first_deviation = compared(calls, tensors=tensors)
    return TvmInsight(
        version=answer["version"],
        latency_ms=answer["latency_ms"],
        probability_difference=float(np.abs(softmax(got) - softmax(expected)).max()),
        operators=operators,
        first_deviation=first_deviation,
    )


def compared(
    calls: Sequence[Call], *, tensors: Sequence[Floats]
) -> tuple[tuple[OperatorTime, ...], str]:
    """Kernels with their differences from torch, and the first that deviates.

    A tensor that is not torch's, while one computed later is, is one that only TVM has: a
    half of an operator of torch's. What is wrong stays wrong down to the logits.
    """
    found = [closest(call.output, tensors=tensors) for call in calls]
    agrees = [pair is not None and pair[1] <= TOLERANCE for pair in found]
    last = max((n for n, agreed in enumerate(agrees) if agreed), default=-1)
    deviating = [n for n in range(last + 1, len(calls)) if found[n] is not None]
    counted = [
        pair[0] if pair and (agrees[n] or n > last) else None for n, pair in enumerate(found)
    ]
    first = _call_name(calls, position=deviating[0]) if deviating else ""
    return _by_kernel(calls, differences=counted), first


def closest(output: Floats, *, tensors: Sequence[Floats]) -> tuple[float, float] | None:
    """The difference from the most similar of tensors of that shape, as such and as a share.

    Axes of length one do not count, and channels may come last. None: no tensor of that shape.
    """
    if output.size <= 1:
        return None
    layouts = [np.squeeze(output)]
    if output.ndim == 4:
        layouts.append(np.squeeze(output.transpose(0, 3, 1, 2)))
    pairs = [
        _difference(layout, np.squeeze(tensor))
        for tensor in tensors
        for layout in layouts
        if layout.shape == np.squeeze(tensor).shape
    ]
    return min(pairs, key=lambda pair: pair[1]) if pairs else None


def _difference(got: Floats, expected: Floats) -> tuple[float, float]:
    if not np.isfinite(got).all():
        return float("inf"), float("inf")
    largest = float(np.abs(got - expected).max())
    scale = float(np.abs(expected).max())
    return largest, largest / scale if scale else (0.0 if largest == 0 else float("inf"))


def _call_name(calls: Sequence[Call], *, position: int) -> str:
    name = calls[position].name
    same = [n for n, call in enumerate(calls) if call.name == name]
    if len(same) == 1:
        return name
    return f"{name}, call {same.index(position) + 1} of {len(same)}"


def _by_kernel(
    calls: Sequence[Call], *, differences: Sequence[float | None]
) -> tuple[OperatorTime, ...]:
    positions: dict[str, list[int]] = {}
    for position, call in enumerate(calls):
        positions.setdefault(call.name, []).append(position)
    return tuple(
        OperatorTime(
            name=name,
            calls=len(where),
            ms=sum(calls[n].ms for n in where),
            shape=calls[where[0]].output.shape,
            difference=max((d for n in where if (d := differences[n]) is not None), default=None),
        )
        for name, where in positions.items()
    )


def _python() -> Path:
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _CHECKOUT / ".venv-tvm" / "bin" / "python"
    if python.is_file():
        return python
    if named:
        raise TvmError(f"{PYTHON_VARIABLE} names {named!r}, which is no file")
    raise TvmError("TVM is not installed: run `make tvm`")


def _run(network: Path, *, images: Floats) -> tuple[Mapping[str, Any], list[Call]]:
    python = _python()
    with TemporaryDirectory(prefix="darkroom-tvm-") as scratch:
        pictures, tensors = Path(scratch) / "images.npy", Path(scratch) / "tensors.npz"
        np.save(pictures, images)
        command: list[str | Path] = [python, "-I", _PROGRAM, network, pictures, tensors]
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TvmError(f"TVM failed: {error}") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise TvmError(f"TVM failed: {lines[-1]}")
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        with np.load(tensors, allow_pickle=False) as arrays:
            outputs = [arrays[str(n)] for n in range(len(arrays.files))]
    pairs = zip(answer["operators"], outputs, strict=True)
    return answer, [Call(timed["name"], timed["ms"], output) for timed, output in pairs]
