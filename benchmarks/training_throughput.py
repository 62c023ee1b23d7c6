"""How many images a second training takes in: Darkroom, timm's train.py, and a bare loop.

    python -m benchmarks.training_throughput --data FOLDER_OR_TAR --timm-train TRAIN_PY

resnet18 at 128 pixels in batches of 32 on the CPU, decoding included. The contenders take
turns, each in a process of its own, for several rounds, so that whatever else the machine
does hits all alike. JSON goes to standard output, a table to standard error.

Darkroom starts with an empty cache: its first epoch decodes every photograph, the later
ones none. timm decodes in every epoch. The rates are the programs' own, over the training
part of an epoch: loading and decoding included, start-up of the process and validation not.

FOLDER_OR_TAR holds train/<class>/*.jpg. `train.py` is timm's; timm is installed into a
temporary folder, unless a checkout's lies beside train.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import harmonic_mean, median
from typing import Any

import torch

from benchmarks import timm_training
from benchmarks.bare_loop import bare_loop
from benchmarks.machine import cpu_name
from benchmarks.photographs import class_names, dataset_of, select
from darkroom.config import Hyperparameters
from darkroom.models.network import build_model
from darkroom.training.learner import autocast_type

ARCHITECTURE, IMAGE_SIZE, BATCH_SIZE = "resnet18", 128, 32
TIMM_BEST = ("--channels-last", "--amp", "--amp-dtype", "bfloat16")

_COLUMNS = ("first_epoch", "last_epoch", "all_epochs", "best_epoch")

Rates = dict[str, list[list[float]]]
"""Images a second, by contender, round and epoch."""


def main() -> None:
    """Run the rounds, or, as a child process, one contender."""
    arguments = _arguments()
    if arguments.contender:
        child = {"darkroom": _train_darkroom, "bare loop": _run_bare_loop}
        print(json.dumps(child[arguments.contender](arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="darkroom-throughput-") as scratch:
        folder = Path(scratch)
        arguments.data = select(arguments.data, images=arguments.images, scratch=folder)
        report = _machine() | _settings(arguments) | _summary(_compete(arguments, scratch=folder))
    print(_table(report), file=sys.stderr)
    print(json.dumps(report, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER_OR_TAR")
    parser.add_argument("--timm-train", type=Path, metavar="TRAIN_PY", help="timm's train.py")
    parser.add_argument("--images", type=int, default=800, help="to train on (default: 800)")
    parser.add_argument("--epochs", type=int, default=2, help="of each run (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def _compete(arguments: argparse.Namespace, *, scratch: Path) -> Rates:
    contenders = _contenders(arguments, scratch=scratch)
    rates: Rates = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name, run in contenders.items():
            rates[name].append(run())
            shown = ", ".join(f"{rate:.0f}" for rate in rates[name][-1])
            print(f"round {number + 1}, {name}: {shown} images/s by epoch", file=sys.stderr)
    return rates


def _contenders(
    arguments: argparse.Namespace, *, scratch: Path
) -> dict[str, Callable[[], list[float]]]:
    contenders: dict[str, Callable[[], list[float]]] = {
        "darkroom": lambda: _in_process("darkroom", arguments),
        "bare loop": lambda: _in_process("bare loop", arguments),
    }
    if not arguments.timm_train:
        return contenders
    packages = scratch / "packages"
    timm_training.install(arguments.timm_train, folder=packages)

    def timm(*options: str) -> Callable[[], list[float]]:
        settings = (
            *("--model", ARCHITECTURE, "--img-size", str(IMAGE_SIZE), "-b", str(BATCH_SIZE)),
            *("--num-classes", str(len(class_names(arguments.data))), "--warmup-epochs", "0"),
            *("--epochs", str(arguments.epochs), *options),
        )
        return lambda: timm_training.run(
            arguments.timm_train,
            packages=packages,
            data=arguments.data,
            scratch=scratch,
            options=settings,
        )

    return contenders | {
        "timm, defaults": timm(),
        "timm, best flags": timm(*TIMM_BEST),
        "timm, best flags, 2 workers": timm(*TIMM_BEST, "-j", "2"),
    }


def _in_process(contender: str, arguments: argparse.Namespace) -> list[float]:
    command = [
        *(sys.executable, "-m", "benchmarks.training_throughput", "--contender", contender),
        *("--data", str(arguments.data), "--epochs", str(arguments.epochs)),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rates: list[float] = json.loads(done.stdout)
    return rates


def _train_darkroom(arguments: argparse.Namespace) -> list[float]:
    """With an empty cache: the first epoch decodes every image."""
    from darkroom.training.loop import train

    with tempfile.TemporaryDirectory(prefix="darkroom-throughput-") as scratch:
        result = train(
            dataset_of(arguments.data),
            hyperparameters=_hyperparameters(arguments.epochs),
            folder=Path(scratch, "run"),
            cache=Path(scratch, "cache"),
        )
    return [epoch.images_per_second for epoch in result.history]


def _run_bare_loop(arguments: argparse.Namespace) -> list[float]:
    return bare_loop(
        images=len(dataset_of(arguments.data).split("train")),
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        classes=len(class_names(arguments.data)),
        epochs=arguments.epochs,
        bfloat16=_precision() is torch.bfloat16,
    )


def _hyperparameters(epochs: int) -> Hyperparameters:
    return Hyperparameters(
        architecture=ARCHITECTURE,
        weights="none",
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        epochs=epochs,
    )


def _precision() -> torch.dtype | None:
    return autocast_type(
        build_model(ARCHITECTURE, classes=2, seed=0),
        image_size=IMAGE_SIZE,
        device=torch.device("cpu"),
        mixed_precision="auto",
    )


def _machine() -> dict[str, object]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(_precision() or torch.float32).removeprefix("torch."),
    }


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "architecture": ARCHITECTURE,
        "image_size": IMAGE_SIZE,
        "batch_size": BATCH_SIZE,
        "images": len(dataset_of(arguments.data).split("train")),
        "epochs": arguments.epochs,
        "rounds": arguments.rounds,
    }


def _summary(rates: Rates) -> dict[str, object]:
    """Medians over the rounds, and the best epoch of any, which nothing disturbed.

    Ratios are medians of the ratios within a round, and the ratio of the best epochs.
    """
    medians = {
        name: {
            "first_epoch": median(epochs[0] for epochs in rounds),
            "last_epoch": median(epochs[-1] for epochs in rounds),
            "all_epochs": median(harmonic_mean(epochs) for epochs in rounds),
            "best_epoch": _best(rounds),
        }
        for name, rounds in rates.items()
    }
    ratios = {
        f"darkroom / {name}": {
            "last_epoch": _ratio(rates, name, of=lambda epochs: epochs[-1]),
            "all_epochs": _ratio(rates, name, of=harmonic_mean),
            "best_epoch": _best(rates["darkroom"]) / _best(rates[name]),
        }
        for name in rates
        if name != "darkroom"
    }
    return {"images_per_second": medians, "ratios": ratios, "rounds_by_contender": rates}


def _ratio(rates: Rates, name: str, *, of: Callable[[list[float]], float]) -> float:
    pairs = zip(rates["darkroom"], rates[name], strict=True)
    return median(of(own) / of(other) for own, other in pairs)


def _best(rounds: list[list[float]]) -> float:
    return max(rate for epochs in rounds for rate in epochs)


def _table(report: dict[str, Any]) -> str:
    lines = [
        "",
        f"{report['cpu']}, {report['threads']} threads, {report['precision']}; "
        f"{report['images']} photographs, {report['epochs']} epochs, {report['rounds']} rounds",
        f"{'images/s, decoding included':40}" + "".join(f"{name:>12}" for name in _COLUMNS),
    ]
    for name, values in (report["images_per_second"] | report["ratios"]).items():
        digits = 2 if "/" in name else 1
        cells = [f"{values[c]:12.{digits}f}" if c in values else " " * 12 for c in _COLUMNS]
        lines.append(f"{name:40}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
