"""A training job on this machine: the `train` program over a base folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.dataset import Dataset
from darkroom.errors import DarkroomError, UserError
from darkroom.files import write_text
from darkroom.progress import SILENT, Progress
from darkroom.serving.parent_watch import parent_environment
from darkroom.training.channels import MANIFEST_FILE
from darkroom.training.history import EpochMetrics
from darkroom.training.hyperparameters import debugging_strings, to_strings
from darkroom.training.job_folders import Job

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 35  # torchrun gives its processes 30
_LOG_FILE = "train.log"


def run_job(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    debugging: Debugging,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = SILENT,
) -> tuple[list[EpochMetrics], int, Path]:
    """Run the `train` program below `folder`, and relay its epochs while it runs.

    Returns:
        The history, the number of the best epoch, and the folder of the bundle.

    Raises:
        UserError, DarkroomError: the job failed; the message is its own.
    """
    job = Job.at(folder.resolve())
    strings = to_strings(hyperparameters) | debugging_strings(debugging)
    _prepare(job, dataset=dataset, strings=strings, cache=cache)
    history: list[EpochMetrics] = []
    with (
        progress.task("train", total=hyperparameters.epochs) as task,
        _process(job) as process,
    ):
        running = True
        while running:
            running = process.poll() is None
            for epoch in _epochs(job)[len(history) :]:
                history.append(epoch)
                task.advance(
                    detail=epoch.headline(
                        epochs=hyperparameters.epochs, objective=hyperparameters.objective
                    )
                )
                if on_epoch:
                    on_epoch(epoch)
            time.sleep(_SECONDS_BETWEEN_LOOKS if running else 0)
    _check(job, code=process.returncode)
    return history, json.loads(job.history.read_text())["best_epoch"], job.model


def _prepare(job: Job, *, dataset: Dataset, strings: dict[str, str], cache: Path) -> None:
    job.history.unlink(missing_ok=True)  # written anew, from the checkpoint's first epoch on
    write_text(job.config / "hyperparameters.json", json.dumps(strings))
    dataset = replace(dataset, root=dataset.root.resolve())
    write_text(job.data / "training" / MANIFEST_FILE, dataset.to_json())
    cache.mkdir(parents=True, exist_ok=True)
    if not job.cache.exists():
        job.cache.symlink_to(cache.resolve())


@contextmanager
def _process(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """The program, stopped with all its processes when the block ends before it does."""
    with (job.base / _LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "darkroom.training.program"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **parent_environment(), "SAGEMAKER_BASE_DIR": str(job.base)},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _epochs(job: Job) -> list[EpochMetrics]:
    if not job.history.is_file():
        return []
    epochs = json.loads(job.history.read_text(encoding="utf-8"))["epochs"]
    return [EpochMetrics.model_validate(epoch) for epoch in epochs]


def _check(job: Job, *, code: int) -> None:
    if code == 0:
        return
    if job.failure.is_file():
        reason = job.failure.read_text(encoding="utf-8")
    else:
        reason = f"the training program ended with code {code}; its log is {job.base / _LOG_FILE}"
    raise UserError(reason) if code == UserError.exit_code else DarkroomError(reason)
