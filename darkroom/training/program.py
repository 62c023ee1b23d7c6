"""The `train` program: a training job by SageMaker's contract, below /opt/ml.

    input/config/   hyperparameters.json, resourceconfig.json, inputdataconfig.json
    input/data/     channels: training_channels.py
    checkpoints/    what a job that was stopped goes on from, and the recording under way
    model/          the bundle's files
    output/         history.json after each epoch; failure, with the reason, on an error
    output/data/    history.json and the recording once more: SageMaker keeps what lies here
                    as output.tar.gz

Decoded images and unpacked shards lie in /tmp/darkroom: SageMaker mounts a job's volume there,
and at the folders above, but not at /opt/ml itself. Locally they lie below the base folder.

Another base folder by $SAGEMAKER_BASE_DIR. Exit codes: 0 done, 1 failed, 2 the user's
mistake, 143 stopped by SIGTERM. Metrics are printed as `name=value`, a line an epoch.
"""

import argparse
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from darkroom.errors import DarkroomError, UserError
from darkroom.training.job_folders import WEIGHTS_CHANNEL, Job

if TYPE_CHECKING:
    from darkroom.config import Hyperparameters
    from darkroom.config.debugging import Debugging
    from darkroom.dataset import Dataset
    from darkroom.rules.findings import Finding
    from darkroom.training.channels import TrainingData
    from darkroom.training.hosts import Hosts
    from darkroom.training.loop import TrainingResult

STOPPED = 128 + signal.SIGTERM
_LOST = "another process of this training failed, on this host or another: its reason is there"


@dataclass(frozen=True)
class Order:
    """What the job is asked to do."""

    hyperparameters: "Hyperparameters"
    data: "TrainingData"
    hosts: "Hosts"
    debugging: "Debugging"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training job. Returns the exit code."""
    _parser().parse_args(arguments)
    job = Job.of_environment()
    signal.signal(signal.SIGTERM, _stop)
    try:
        _run(job)
    except DarkroomError as error:
        _record_failure(job, reason=str(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        _record_unexpected(job, error=error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train",
        description="Train a classifier as a SageMaker training job does: everything it reads "
        "and writes lies below /opt/ml, or below $SAGEMAKER_BASE_DIR.",
    )
    parser.add_argument(
        "word",
        nargs="?",
        choices=["train"],
        help="ignored; SageMaker starts a container with it",
    )
    return parser


def _run(job: Job) -> None:
    from darkroom.serving.parent_watch import end_with_parent
    from darkroom.training.torchrun import in_training_process, run_processes

    end_with_parent()
    in_process = in_training_process()
    if not in_process:
        job.failure.unlink(missing_ok=True)
    order = read_job(job)
    processes = order.hyperparameters.processes
    if (processes > 1 or order.hosts.several) and not in_process:
        run_processes(processes, hosts=order.hosts, failure=job.failure)
        job.model.mkdir(parents=True, exist_ok=True)  # expected of every host
    else:
        _train(job, order=order)


def read_job(job: Job) -> "Order":
    """What to train, on what, and where.

    Raises:
        UserError: settings, hyperparameters or channels are unusable.
    """
    from darkroom.training.channels import check_inputs, read_channels, read_settings
    from darkroom.training.hosts import Hosts
    from darkroom.training.hyperparameters import debugging_from, from_strings

    hosts = Hosts.of_job(read_settings(job.config / "resourceconfig.json"))
    inputs = read_settings(job.config / "inputdataconfig.json")
    check_inputs(inputs)
    settings = read_settings(job.config / "hyperparameters.json")
    strings = {name: str(value) for name, value in settings.items()}
    hyperparameters = _with_weights(from_strings(strings), channel=job.data / WEIGHTS_CHANNEL)
    data = read_channels(job.data, seed=hyperparameters.seed, store=job.cache, inputs=inputs)
    return Order(hyperparameters, data=data, hosts=hosts, debugging=debugging_from(strings))


def _with_weights(hyperparameters: "Hyperparameters", *, channel: Path) -> "Hyperparameters":
    """Initial weights from S3 lie in a channel: one file, or a bundle's."""
    if not hyperparameters.weights.startswith("s3://"):
        return hyperparameters
    files = list(channel.iterdir()) if channel.is_dir() else []
    if not files:
        raise UserError(
            f"the hyperparameter 'weights' is {hyperparameters.weights!r}, but the channel "
            f"{WEIGHTS_CHANNEL!r} that should hold it is missing or empty"
        )
    return hyperparameters.replace(weights=str(files[0] if len(files) == 1 else channel))


def _train(job: Job, *, order: "Order") -> None:
    from darkroom.training.history import EpochMetrics, write_history
    from darkroom.training.loop import train
    from darkroom.training.torchrun import is_first_process

    hyperparameters, dataset = order.hyperparameters, order.data.dataset
    history: list[EpochMetrics] = []

    def note(epoch: EpochMetrics) -> None:
        history.append(epoch)
        for file in (job.history, job.kept_history):
            write_history(file, history, objective=hyperparameters.objective)
        print(epoch.log_line(), flush=True)

    result = train(
        dataset,
        hyperparameters=hyperparameters,
        folder=job.checkpoints,
        cache=job.cache,
        held=order.data.held,
        on_epoch=note,
        debugging=order.debugging,
        on_finding=lambda finding: print(finding.headline, flush=True),
        on_hang=partial(_leave_hanging, job),
    )
    if is_first_process():
        if result.stopped_by:
            print(f"stopped by a rule: {result.stopped_by.in_words}", flush=True)
        _keep_recording(job)
        _deliver(job, result=result, hyperparameters=hyperparameters, dataset=dataset)
        # Last: who follows the log may take this line for the end.
        print(result.history[result.best_epoch - 1].kept_line(), flush=True)


def _leave_hanging(job: Job, finding: "Finding") -> None:
    """End the process, from beside the thread that hangs; the reason is left."""
    _keep_recording(job)
    _record_failure(
        job,
        reason=f"the training was ended by a rule: {finding.in_words}; it hangs in code that "
        "cannot be interrupted, so its process ended",
    )
    os._exit(1)


def _keep_recording(job: Job) -> None:
    """Copy the recording to where it outlives a job whose checkpoints do not."""
    if job.recording.is_dir():
        shutil.copytree(job.recording, job.kept_recording, dirs_exist_ok=True)


def _deliver(
    job: Job,
    *,
    result: "TrainingResult",
    hyperparameters: "Hyperparameters",
    dataset: "Dataset",
) -> None:
    """Pack the bundle, and move its files where the job's model is expected.

    In a container the model folder is there already and may be a mount, so it cannot be
    replaced; the metadata come last, and without them there is no bundle.
    """
    from darkroom.model.bundle import METADATA_FILE, ONNX_FILE, WEIGHTS_FILE
    from darkroom.model.export import pack_bundle

    job.model.mkdir(parents=True, exist_ok=True)
    (job.model / METADATA_FILE).unlink(missing_ok=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.scratch, prefix=".packing-") as scratch:
        packed = Path(scratch, "model")
        pack_bundle(
            result.model,
            dataset=dataset,
            hyperparameters=hyperparameters,
            preprocessing=result.preprocessing,
            metrics=result.metrics,
            folder=packed,
        )
        for name in (WEIGHTS_FILE, ONNX_FILE, METADATA_FILE):
            shutil.move(packed / name, job.model / name)


def _record_failure(job: Job, *, reason: str) -> None:
    from darkroom.files import write_text

    host = _host_among_others(job)
    if not reason.startswith(host):
        reason = f"{host}{reason}"
    print(f"train: {reason}", file=sys.stderr)
    try:
        write_text(job.failure, reason)
    except OSError as error:
        print(f"train: the reason cannot be written: {error}", file=sys.stderr)


def _record_unexpected(job: Job, *, error: Exception) -> None:
    """A process that only lost another does not replace the reason that this one gave."""
    if "torch" in sys.modules:
        from darkroom.training.distributed import is_lost_connection

        if is_lost_connection(error):
            if not job.failure.exists():
                _record_failure(job, reason=f"{_LOST} ({error})")
            return
    _record_failure(job, reason=f"{type(error).__name__}: {error}")


def _host_among_others(job: Job) -> str:
    """The start of a message from one host of several; empty where there is one."""
    from darkroom.training.channels import read_settings
    from darkroom.training.hosts import Hosts

    try:
        hosts = Hosts.of_job(read_settings(job.config / "resourceconfig.json"))
    except DarkroomError:
        return ""
    return f"host {hosts.current!r}: " if hosts.several else ""


def _stop(signum: int, frame: object) -> None:
    """End in an orderly way; the last checkpoint is whole, and the next start goes on."""
    raise SystemExit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
