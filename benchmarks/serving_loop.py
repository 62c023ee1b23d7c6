"""The engine's own speed: decode, run the network, name the class, one image after another.

    python -m benchmarks.serving_loop BUNDLE --plan plan.json --seconds 4 --threads 1

No HTTP, no queue, no batches: what a server can be measured against. JSON to standard output.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.load import Outcome
from darkroom.models.prediction import Predictor

_WARM_UP_SECONDS = 0.5


def loop_rate(bundle: Path, *, plan: Path, seconds: float, threads: int, processes: int) -> float:
    """Images a second of so many loops side by side, each a process with so many threads."""
    command = [sys.executable, "-m", "benchmarks.serving_loop", str(bundle), "--plan", str(plan)]
    command += ["--seconds", str(seconds), "--threads", str(threads)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("the plain loop failed")
    return sum(float(json.loads(output)["rate"]) for output in outputs)


def _classify(predictor: Predictor) -> Callable[[bytes], object]:
    def classify(image: bytes) -> object:
        batch = np.expand_dims(predictor.prepare(image), 0)
        return predictor.top_k(predictor.probabilities(batch)[0], k=5)

    return classify


def _run(classify: Callable[[bytes], object], *, images: list[bytes], seconds: float) -> Outcome:
    outcome = Outcome()
    started = time.perf_counter()
    for image in itertools.cycle(images):
        before = time.perf_counter()
        if before - started >= seconds:
            break
        classify(image)
        outcome.latencies.append(time.perf_counter() - before)
        outcome.statuses["200"] += 1
    outcome.seconds = time.perf_counter() - started
    return outcome


def main() -> None:
    """Loop, and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    requests = json.loads(options.plan.read_text())["requests"]
    images = [Path(request["file"]).read_bytes() for request in requests]
    classify = _classify(Predictor.load(options.bundle, threads=options.threads))
    _run(classify, images=images, seconds=_WARM_UP_SECONDS)
    print(json.dumps(_run(classify, images=images, seconds=options.seconds).summary()))


if __name__ == "__main__":
    main()
