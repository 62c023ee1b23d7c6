"""How fast a batch is, beside a plain loop over the same files.

    python -m benchmarks.batch --data PHOTOGRAPHS --model BUNDLE

PHOTOGRAPHS is a folder, or a tar archive of one. `run.py batch` as a whole, its classifying
alone, and loops that do nothing but decode and run the network: 1 or 32 images at a time, the
network on one thread or on all cores. Contenders take turns; medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from darkroom.batch.prediction import predict_all
from darkroom.batch.selection import images_in_folder
from darkroom.data.image_folder import is_image_name
from darkroom.models.prediction import Predictor

CHECKOUT = Path(__file__).resolve().parent.parent
COMMAND = "run.py batch, start-up included"
_BATCH = 32


def main() -> None:
    """Print images a second of each contender."""
    options = _parser().parse_args()
    with TemporaryDirectory() as scratch, TemporaryDirectory() as home:
        data = _folder(options.data, scratch=Path(scratch))
        files = sorted(p for p in data.rglob("*") if is_image_name(p.name))
        contenders = _contenders(data, files=files, model=options.model, home=Path(home))
        contenders[COMMAND]()  # its first run makes databases
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                started = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - started)
    print(f"{len(files):,} photographs, {options.rounds} rounds, {os.cpu_count()} cores")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:34} {len(files) / median:8.1f} images/s  {median:6.1f} s")


def _folder(data: Path, *, scratch: Path) -> Path:
    if data.is_dir():
        return data
    with tarfile.open(data) as tar:
        tar.extractall(scratch, filter="data")
    return scratch


def _contenders(
    data: Path, *, files: Sequence[Path], model: Path, home: Path
) -> dict[str, Callable[[], None]]:
    loops = {
        f"loop, {batch} at a time, {'1 thread' if threads else 'all cores'}": partial(
            _loop, files, model=model, batch=batch, threads=threads
        )
        for batch in (1, _BATCH)
        for threads in (1, None)
    }
    return {
        COMMAND: lambda: _command(data, model=model, home=home),
        "its classifying alone": lambda: _classify(data, model=model),
        **loops,
    }


def _command(data: Path, *, model: Path, home: Path) -> None:
    out = str(home / "rows.parquet")
    command = [sys.executable, str(CHECKOUT / "run.py"), "batch", str(data), "--out", out]
    subprocess.run(
        [*command, "--model", str(model)],
        env={**os.environ, "DARKROOM_HOME": str(home)},
        check=True,
        capture_output=True,
    )


def _classify(data: Path, *, model: Path) -> None:
    predictor = Predictor.load(model)
    images = images_in_folder(data, split="all", classes=predictor.classes, source=str(data))
    with TemporaryDirectory() as scratch:
        predict_all(images, predictor=predictor, top_k=5, folder=Path(scratch))


def _loop(files: Sequence[Path], *, model: Path, batch: int, threads: int | None) -> None:
    predictor = Predictor.load(model, threads=threads)
    for start in range(0, len(files), batch):
        arrays = [predictor.prepare(file) for file in files[start : start + batch]]
        predictor.probabilities(np.stack(arrays))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A batch beside a plain loop.")
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs, or a tar")
    parser.add_argument("--model", type=Path, required=True, help="bundle")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
