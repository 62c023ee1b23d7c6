"""What recording and profiling cost a training: time and megabytes, beside smdebug's own hook.

    python -m benchmarks.recording_cost --data FOLDER_OR_TAR

Trainings of resnet18 and mobilenet_v3_small at 128 pixels, in batches of 32, on the CPU:
unrecorded; recorded and judged as a run of Darkroom is by default; recorded into Parquet; and
unrecorded, with smdebug's hook registered on the network in its own default configuration. The
contenders take turns, each in a process of its own; images are decoded beforehand. Ratios are
of whole trainings, `train()` from its call to its return, within a round; their median counts.
smdebug's defaults keep the losses of every 500th step, so that they write next to nothing.

JSON goes to standard output, a table to standard error. FOLDER_OR_TAR holds
train/<class>/*.jpg.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks.machine import cpu_name
from benchmarks.photographs import dataset_of, select
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging, RecordingConfig

ARCHITECTURES = ("resnet18", "mobilenet_v3_small")
CONTENDERS: dict[str, Debugging] = {
    "unrecorded": NO_DEBUGGING,
    "Darkroom's defaults": Debugging(),
    "into Parquet": Debugging(recording=RecordingConfig(backend="torch")),
    "smdebug's hook, its defaults": NO_DEBUGGING,
}
_SMDEBUG = "smdebug's hook, its defaults"


def main() -> None:
    """Run the rounds, or, as a child process, one training."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_run_one(arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="darkroom-recording-") as scratch:
        arguments.scratch = Path(scratch)
        arguments.data = select(arguments.data, images=arguments.images, scratch=Path(scratch))
        measured = {
            name: _compete(arguments, architecture=name) for name in arguments.architectures
        }
    print(_table(measured), file=sys.stderr)
    settings = {name: getattr(arguments, name) for name in ("images", "epochs", "rounds")}
    print(json.dumps(_machine() | settings | {"measured": measured}, indent=1))


def _compete(arguments: argparse.Namespace, *, architecture: str) -> dict[str, list[Any]]:
    results: dict[str, list[Any]] = {name: [] for name in CONTENDERS}
    _in_process("unrecorded", architecture=architecture, arguments=arguments, epochs=1)
    for number in range(arguments.rounds):
        names = list(CONTENDERS)
        for name in names if number % 2 == 0 else reversed(names):
            result = _in_process(
                name, architecture=architecture, arguments=arguments, epochs=arguments.epochs
            )
            results[name].append(result)
            shown = f"{result['seconds']:.1f} s, {result['megabytes']:.1f} MB"
            print(f"{architecture}, round {number + 1}, {name}: {shown}", file=sys.stderr)
    return results


def _in_process(
    contender: str, *, architecture: str, arguments: argparse.Namespace, epochs: int
) -> Any:
    command = [
        *(sys.executable, "-m", "benchmarks.recording_cost", "--one", contender),
        *("--architecture", architecture, "--data", str(arguments.data)),
        *("--scratch", str(arguments.scratch), "--epochs", str(epochs)),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _run_one(arguments: argparse.Namespace) -> dict[str, float]:
    from darkroom.training.loop import train

    dataset = dataset_of(arguments.data)
    with (
        tempfile.TemporaryDirectory(dir=arguments.scratch) as folder,
        _hooked(arguments.one, Path(folder)),
    ):
        started = time.perf_counter()
        train(
            dataset,
            hyperparameters=Hyperparameters(
                architecture=arguments.architecture,
                weights="none",
                image_size=128,
                batch_size=32,
                epochs=arguments.epochs,
                warmup_epochs=0.5,
            ),
            folder=Path(folder, "run"),
            cache=arguments.scratch / "cache",
            debugging=CONTENDERS[arguments.one],
        )
        seconds = time.perf_counter() - started
        written = [*Path(folder, "run", "recording").rglob("*"), *Path(folder, "hook").rglob("*")]
        size = sum(path.stat().st_size for path in written if path.is_file())
    return {"seconds": seconds, "megabytes": size / 1e6}


@contextmanager
def _hooked(contender: str, folder: Path) -> Any:
    """Register smdebug's own hook on the network, where that is the contender."""
    if contender != _SMDEBUG:
        yield
        return
    from darkroom.debugging.rules.custom import quiet_smdebug
    from darkroom.training import loop

    with quiet_smdebug():
        import smdebug.pytorch as smd
    build = loop.build_model

    def hooked(*positional: Any, **options: Any) -> Any:
        model = build(*positional, **options)
        hook = smd.Hook(out_dir=str(folder / "hook"))
        hook.set_mode(smd.modes.TRAIN)
        hook.register_module(model)
        return model

    with mock.patch.object(loop, "build_model", hooked):
        yield


def _table(measured: dict[str, dict[str, list[Any]]]) -> str:
    lines = ["| network | recording | slower by | MB written |", "|---|---|---:|---:|"]
    for architecture, results in measured.items():
        base = [one["seconds"] for one in results["unrecorded"]]
        for name, runs in results.items():
            more = [one["seconds"] / plain - 1 for one, plain in zip(runs, base, strict=True)]
            slower = f"{median(more):+.1%} ({min(more):+.1%} to {max(more):+.1%})"
            size = median(one["megabytes"] for one in runs)
            lines.append(f"| {architecture} | {name} | {slower} | {size:.1f} |")
    return "\n".join(lines)


def _machine() -> dict[str, object]:
    import os

    import torch

    return {"cpu": cpu_name(), "cores": os.cpu_count(), "torch": torch.__version__}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER_OR_TAR")
    parser.add_argument("--images", type=int, default=3000, help="to train on (default: 3000)")
    parser.add_argument("--epochs", type=int, default=3, help="of each run (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
