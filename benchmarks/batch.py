"""How fast a batch is, beside a plain loop over the same files.

    python -m benchmarks.batch --data PHOTOGRAPHS --model BUNDLE

`run.py batch` as a whole, its classifying alone, and loops that do nothing but decode and run
the network: one image at a time on one thread, and 32 at a time on all cores. Contenders take
turns; medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from darkroom.batch.predicting import predict_all
from darkroom.batch.selecting import images_in_folder
from darkroom.prediction import Predictor
from darkroom.sources.image_folder import is_image_name

CHECKOUT = Path(__file__).resolve().parent.parent
_BATCH = 32


def main() -> None:
    """Print images a second of each contender."""
    options = _parser().parse_args()
    files = sorted(p for p in options.data.rglob("*") if is_image_name(p.name))
    contenders: dict[str, Callable[[], None]] = {
        "run.py batch, start-up included": lambda: _command(options.data, model=options.model),
        "its classifying alone": lambda: _classify(options.data, model=options.model),
        "loop, 1 image, 1 thread": lambda: _loop(files, model=options.model, batch=1, threads=1),
        "loop, 32 images, all cores": lambda: _loop(files, model=options.model, batch=_BATCH),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:34} {len(files) / median:8.1f} images/s  {median:6.1f} s")


def _command(data: Path, *, model: Path) -> None:
    with TemporaryDirectory() as scratch:
        out = str(Path(scratch) / "rows.parquet")
        command = [sys.executable, str(CHECKOUT / "run.py"), "batch", str(data), "--out", out]
        subprocess.run(
            [*command, "--model", str(model)],
            env={**os.environ, "DARKROOM_HOME": scratch},
            check=True,
            capture_output=True,
        )


def _classify(data: Path, *, model: Path) -> None:
    predictor = Predictor.load(model)
    images = images_in_folder(data, split="all", classes=predictor.classes, source=str(data))
    with TemporaryDirectory() as scratch:
        predict_all(images, predictor=predictor, top_k=5, folder=Path(scratch))


def _loop(files: Sequence[Path], *, model: Path, batch: int, threads: int | None = None) -> None:
    predictor = Predictor.load(model, threads=threads)
    for start in range(0, len(files), batch):
        arrays = [predictor.prepare(file) for file in files[start : start + batch]]
        predictor.probabilities(np.stack(arrays))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A batch beside a plain loop.")
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--model", type=Path, required=True, help="bundle")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
