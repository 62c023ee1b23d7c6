"""What orchestration costs: the start of run.py, and a run whose components do next to nothing.

    python -m benchmarks.orchestration

Start-up: from the start of the process to the start of the first component, of runs whose
results are all cached. Overhead: the time of a warm, uncached pipeline run less the sum of
its components' times, on a handful of tiny pictures. Medians; JSON on standard output.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIG = """
model: {architecture: squeezenet1_1, weights: none, image_size: 32}
training: {epochs: 1, batch_size: 8, warmup_epochs: 0}
tuning: {trials: 1, search_space: {batch_size: null, epochs: null, weight_decay: null}}
deployment: {gate_threshold: 0.0, check_images: 2}
evaluation: {bootstrap_samples: 100, grid_images: 2}
tracking: {system_metrics: false}
"""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="darkroom-orchestration-") as scratch:
        folder = Path(scratch)
        os.environ["DARKROOM_HOME"] = str(folder / "home")
        _write_pictures(folder / "images")
        (folder / "tiny.yaml").write_text(CONFIG)
        startups = [_startup(folder) for _ in range(rounds + 1)][1:]
        overheads = _overheads(folder, rounds=rounds)
    result = {
        "cores": os.cpu_count(),
        "startup_seconds": _spread(startups),
        "warm_overhead_seconds": _spread(overheads),
    }
    print(json.dumps(result, indent=1))


def _startup(folder: Path) -> float:
    summary = folder / "summary.json"
    command = [sys.executable, str(CHECKOUT / "run.py"), "--config", str(folder / "tiny.yaml")]
    command += ["--data", str(folder / "images"), "--summary", str(summary)]
    subprocess.run(command, check=True, capture_output=True)
    return float(json.loads(summary.read_text())["timings"]["setup"])


def _overheads(folder: Path, *, rounds: int) -> list[float]:
    from stacks.environment import prepare_environment

    prepare_environment()
    from darkroom.backends.storage.ingestion import source_version
    from darkroom.config.loader import load_config
    from stacks.loader import use_stack

    use_stack("local")
    from pipelines.training import training_pipeline

    config = load_config(folder / "tiny.yaml", data=str(folder / "images"))
    version = source_version(config.data.source, config=config.data)
    overheads = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        run = training_pipeline.with_options(enable_cache=False)(
            config=config, source_version=version
        )
        wall = time.perf_counter() - started
        steps = run.steps.values()
        overheads.append(wall - sum((s.end_time - s.start_time).total_seconds() for s in steps))
    return overheads[1:]


def _write_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (root / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "lowest": round(min(values), 2),
        "highest": round(max(values), 2),
    }


if __name__ == "__main__":
    main()
