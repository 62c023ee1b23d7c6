"""One engine in a process of its own: `python -m darkroom.compilation.child BUNDLE ENGINE …`.

So its memory is its own, a crash is one row of the report, and engines can take turns: the
child loads its network, says so, and then runs what it is told on standard input.

    in    {"run": [batch sizes]}            out   {"times": {"1": [ms, …], …}}
    in    {"probabilities": "images.npy"}   out   {"probabilities": [[…], …]}
"""

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from darkroom.base.processes import give_back_freed
from darkroom.models.bundle import read_metadata
from darkroom.models.engine import EXTRAS, Engine, EngineName, Floats
from darkroom.models.engines import is_installed, load_engine
from darkroom.models.prediction import softmax

_WARM_UP = 2
_SECONDS = 0.25
"""Of one turn of one batch size."""
_FEWEST, _MOST = 3, 200
_PACKAGES: dict[EngineName, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "torch": "torch",
}


def main() -> None:
    """Load, then answer until standard input ends."""
    options = _parser().parse_args()
    engine, loaded = _load(options.bundle, name=options.engine, threads=options.threads)
    size = read_metadata(options.bundle).preprocessing.image_size
    _say(loaded)
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            _say({"times": {str(n): _times(engine, batch=n, size=size) for n in order["run"]}})
            continue
        images = np.load(order["probabilities"], allow_pickle=False)
        rows = [softmax(engine.run(batch)) for batch in _batches(images)]
        _say({"probabilities": np.concatenate(rows).tolist()})


def _load(bundle: Path, *, name: EngineName, threads: int) -> tuple[Engine, dict[str, Any]]:
    """The engine, and what loading it took; importing its package is not counted."""
    if is_installed(name):
        __import__(_PACKAGES[name])
    metadata = read_metadata(bundle)
    before = _resident_bytes()
    started = time.perf_counter()
    engine = load_engine(name, folder=bundle, metadata=metadata, threads=threads)
    seconds = time.perf_counter() - started
    side = metadata.preprocessing.image_size
    for batch in (1, 8):
        engine.run(np.zeros((batch, 3, side, side), dtype=np.float32))
    gc.collect()
    give_back_freed()
    return engine, {
        "version": version(_PACKAGES[name]),
        "load_ms": seconds * 1e3,
        "memory_mb": (_resident_bytes() - before) / 1e6,
    }


def _times(engine: Engine, *, batch: int, size: int) -> list[float]:
    """Milliseconds of runs of one batch size, for about a quarter of a second."""
    images = np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32)
    for _ in range(_WARM_UP):
        engine.run(images)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _FEWEST or (time.perf_counter() < end and len(times) < _MOST):
        started = time.perf_counter()
        engine.run(images)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def _batches(images: Floats) -> Iterator[Floats]:
    for start in range(0, len(images), 8):
        yield np.ascontiguousarray(images[start : start + 8])


def _resident_bytes() -> int:
    """Of this process; where /proc is missing, the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run one engine, told by standard input.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("engine", choices=list(EXTRAS))
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
