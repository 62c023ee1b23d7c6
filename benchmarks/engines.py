"""Engines side by side: `python -m benchmarks.engines`; minutes, by --rounds.

Untrained networks with ten classes at 224 px, measured as `run.py compile` does, with one thread
and with all cores. torch is eager with channels last, as Darkroom runs it; a line of its own has
torch's default layout. Prints tables in Markdown. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.photographs import dataset_of, select
from benchmarks.serving_models import write_bundle
from darkroom.compilation.measurement import machine, measure
from darkroom.compilation.results import CompilationReport, TvmInsight, generated_images
from darkroom.compilation.tvm import TvmError, insight
from darkroom.config.sections import CompilationConfig
from darkroom.models.bundle import read_bundle
from darkroom.models.prediction import available_cores

ARCHITECTURES = ("resnet18", "mobilenet_v2", "mobilenet_v3_small")
_HEADER = """
| network | threads | engine | 1 image, ms | × torch | images/s, best batch | differs by |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Export, measure, print."""
    options = _parser().parse_args()
    print(machine(), _HEADER, sep="\n")
    with TemporaryDirectory(prefix="darkroom-engines-") as scratch:
        dataset = dataset_of(select(options.data, images=64, scratch=Path(scratch)))
        for architecture in options.architectures:
            folder = Path(scratch) / architecture
            write_bundle(architecture, dataset=dataset, folder=folder)
            for line in _measured(folder, rounds=options.rounds):
                print(line, flush=True)


def _measured(folder: Path, *, rounds: int) -> Iterator[str]:
    bundle = read_bundle(folder)
    images = generated_images(bundle.metadata.preprocessing.image_size, count=32)
    for threads in sorted({1, available_cores()}):
        config = CompilationConfig(
            engines=("onnxruntime", "openvino", "openvino-bf16", "torch"),
            maximum_probability_difference=1,
            minimum_top1_agreement=0,
            threads=threads,
            rounds=rounds,
        )
        report = measure(bundle, images=images, config=config)
        yield from _rows(report)
        yield _plain(folder, report=report)
    try:
        yield _inside(insight(bundle, images=images), report=report)
    except TvmError as error:
        print(error, file=sys.stderr)


def _rows(report: CompilationReport) -> Iterator[str]:
    for result in report.results:
        found = result.measurement
        if found is None:
            cells = (report.architecture, report.threads, result.engine, result.problem)
            yield f"| {' | '.join(map(str, cells))} | | | |"
            continue
        yield _row(
            report,
            engine=result.engine,
            ms=found.latency_ms,
            rest=(
                f"{max(found.images_per_second.values()):.0f}",
                f"{found.probability_difference:.1e}",
            ),
        )


def _row(
    report: CompilationReport, *, engine: str, ms: float, rest: tuple[str, str] = ("", "")
) -> str:
    torch = report.result("torch").measurement
    ratio = f"{torch.latency_ms / ms:.2f}" if torch else ""
    cells = (report.architecture, report.threads, engine, f"{ms:.2f}", ratio, *rest)
    return f"| {' | '.join(map(str, cells))} |"


def _inside(found: TvmInsight, *, report: CompilationReport) -> str:
    return _row(
        report,
        engine=f"TVM {found.version}, untuned",
        ms=found.latency_ms,
        rest=("", f"{found.probability_difference:.1e}"),
    )


def _plain(folder: Path, *, report: CompilationReport) -> str:
    """torch in its default layout, in a process of its own too."""
    command = [sys.executable, "-m", "benchmarks.engines", "--plain", str(folder)]
    options = {**os.environ, "DARKROOM_THREADS": str(report.threads)}
    done = subprocess.run(command, env=options, capture_output=True, text=True, check=True)
    return _row(report, engine="torch, default layout", ms=json.loads(done.stdout))


def _time_plain(folder: Path) -> float:
    """Milliseconds of one image."""
    import torch

    from darkroom.models.bundle import WEIGHTS_FILE
    from darkroom.models.network import build_model, load_weights

    torch.set_num_threads(int(os.environ["DARKROOM_THREADS"]))
    metadata = read_bundle(folder).metadata
    size = metadata.preprocessing.image_size
    network = build_model(
        metadata.architecture, classes=len(metadata.classes), image_size=size, seed=0
    ).eval()
    load_weights(network, folder / WEIGHTS_FILE)
    image = torch.from_numpy(np.zeros((1, 3, size, size), dtype=np.float32))
    times = []
    with torch.inference_mode():
        for _ in range(60):
            started = time.perf_counter()
            network(image)
            times.append((time.perf_counter() - started) * 1e3)
    return median(times[10:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Engines side by side.")
    data = Path("../shared/data/clothing-small.tar")
    parser.add_argument(
        "--data", type=Path, default=data, help="folder or tar with train/<class>/*.jpg"
    )
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    if plain := _parser().parse_args().plain:
        print(_time_plain(plain))
    else:
        main()
