"""timm's train.py as a yardstick: installed for the time of a benchmark, run, and read.

Nothing of timm is part of this project or of its environment.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_LAST_BATCH = re.compile(r"Train: \d+ \[.*\(100%\)\].*\([\d.]+s, +([\d.]+)/s\)")
"""The mean rate over an epoch: its clock runs from before the first batch is loaded."""


def install(train: Path, *, folder: Path) -> None:
    """Put what train.py imports into `folder`.

    timm itself comes from beside train.py if it lies there (a checkout), else from the
    package index. torch and torchvision are this environment's.
    """
    _pip_install("huggingface_hub", folder=folder)
    if not (train.parent / "timm").is_dir():
        _pip_install("timm", "--no-deps", folder=folder)


def run(
    train: Path,
    *,
    packages: Path,
    data: Path,
    scratch: Path,
    options: Sequence[str],
) -> list[float]:
    """Train and return images a second, decoding included, by epoch."""
    command = [
        *(sys.executable, str(train.resolve()), "--data-dir", str(data)),
        *("--device", "cpu", "--output", str(scratch), "--log-interval", "100000"),
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": str(packages), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=scratch, env=environment, check=False, capture_output=True, text=True
    )
    rates = [float(rate) for rate in _LAST_BATCH.findall(done.stdout + done.stderr)]
    if done.returncode or not rates:
        sys.exit(f"timm's training failed: {' '.join(command)}\n{done.stderr[-3000:]}")
    return rates


def version(train: Path, *, packages: Path) -> str:
    """Of the timm that train.py imports."""
    path = os.pathsep.join([str(train.parent.resolve()), str(packages)])
    command = [sys.executable, "-c", "import timm; print(timm.__version__)"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _pip_install(*arguments: str, folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--target", str(folder), *arguments]
    subprocess.run(command, check=True)
