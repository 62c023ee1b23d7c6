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
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.processes import parent_environment
from darkroom.training.channels import WEIGHTS_CHANNEL, JobPaths

if TYPE_CHECKING:
    from darkroom.config import Hyperparameters
    from darkroom.config.debugging import Debugging
    from darkroom.data.dataset import Dataset
    from darkroom.telemetry.findings import Finding
    from darkroom.training.channels import TrainingData
    from darkroom.training.loop import TrainingResult


# --- hosts ---
# The machines of one training job, by SageMaker's resourceconfig.json.

_PORT = 29500
_SECONDS_TO_APPEAR = 600


@dataclass(frozen=True)
class Hosts:
    """All hosts of the job, and which of them this is."""

    names: tuple[str, ...] = ("localhost",)
    """Every host has the same order; the first leads."""
    current: str = "localhost"
    interface: str = ""
    """Network interface by which they reach each other; empty: left to be found."""

    @classmethod
    def of_job(cls, resources: Mapping[str, object]) -> Self:
        """The hosts by the content of resourceconfig.json; one where it says nothing.

        Raises:
            UserError: it names hosts, but not which of them this is.
        """
        names, current = resources.get("hosts"), resources.get("current_host")
        if not isinstance(names, list) or len(names) < 2:
            return cls()
        if current not in names or len(set(names)) != len(names):
            raise UserError(
                f"resourceconfig.json has the hosts {names} and the current_host {current!r}: "
                "it must be one of them, and each must be named once"
            )
        interface = resources.get("network_interface_name") or ""
        return cls(tuple(map(str, names)), current=str(current), interface=str(interface))

    @property
    def several(self) -> bool:
        """Whether the training spans more than this machine."""
        return len(self.names) > 1

    @property
    def position(self) -> int:
        """This host's number; 0 leads."""
        return self.names.index(self.current)

    @property
    def port(self) -> int:
        """Of the first host, where all meet; $MASTER_PORT, as torchrun has it, or 29500."""
        return int(os.environ.get("MASTER_PORT", _PORT))

    def environment(self) -> dict[str, str]:
        """Variables that tell gloo and NCCL which network to use."""
        if not (self.several and self.interface):
            return {}
        return {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}

    def wait_for_names(self, *, seconds: float = _SECONDS_TO_APPEAR) -> None:
        """Wait until every host's name leads to an address: they do not start all at once.

        Raises:
            DarkroomError: some still do not.
        """
        deadline = time.monotonic() + seconds
        while missing := [name for name in self.names if self.several and not _is_known(name)]:
            if time.monotonic() >= deadline:
                raise DarkroomError(
                    f"no address was found for the hosts {missing} of this job in "
                    f"{seconds:g} s: they did not start, or the network keeps them apart"
                )
            time.sleep(1)


def _is_known(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror:
        return False
    return True


# --- torchrun ---
# Several training processes, on one machine or several, started and watched by torchrun.

_PROGRAM = "darkroom.training.program"
_LOOPBACK = "127.0.0.1"


def in_training_process() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


def run_processes(count: int, *, hosts: Hosts, failure: Path) -> None:
    """Run the `train` program `count` times on each host, side by side, as one training.

    Args:
        failure: where a process of this host that fails writes why.

    Raises:
        UserError: a process found a mistake of the user's.
        DarkroomError: a process failed otherwise, or another host cannot be found.
        SystemExit: the program was asked to stop.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.update(parent_environment() | hosts.environment())
    # torchrun would give each process one thread, and warn.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    hosts.wait_for_names()
    try:
        run(parse_args(_arguments(count, hosts=hosts)))  # type: ignore[no-untyped-call]
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        raise _failure(rank, code=first.exitcode, reason=failure) from error
    except DistError as error:
        raise DarkroomError(f"the hosts {hosts.names} did not find each other: {error}") from error


def _arguments(count: int, *, hosts: Hosts) -> list[str]:
    several = [f"--nnodes={len(hosts.names)}", f"--node-rank={hosts.position}"]
    return [
        *(several if hosts.several else []),
        f"--nproc-per-node={count}",
        f"--master-addr={hosts.names[0] if hosts.several else _LOOPBACK}",
        f"--master-port={hosts.port if hosts.several else _free_port()}",
        "--module",
        _PROGRAM,
    ]


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _failure(rank: int, *, code: int, reason: Path) -> DarkroomError:
    if reason.is_file():
        text = reason.read_text(encoding="utf-8")
    elif code < 0:
        text = f"training process {rank} was ended by signal {-code}; is the memory used up?"
    else:
        text = f"training process {rank} ended with exit code {code}"
    return UserError(text) if code == UserError.exit_code else DarkroomError(text)


# --- program ---

STOPPED = 128 + signal.SIGTERM
_LOST = "another process of this training failed, on this host or another: its reason is there"


@dataclass(frozen=True)
class TrainingJobSpec:
    """What the job is asked to do."""

    hyperparameters: "Hyperparameters"
    data: "TrainingData"
    hosts: "Hosts"
    debugging: "Debugging"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training job. Returns the exit code."""
    _parser().parse_args(arguments)
    job = JobPaths.of_environment()
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


def _run(job: JobPaths) -> None:
    from darkroom.base.processes import end_with_parent

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


def read_job(job: JobPaths) -> "TrainingJobSpec":
    """What to train, on what, and where.

    Raises:
        UserError: settings, hyperparameters or channels are unusable.
    """
    from darkroom.training.channels import check_inputs, read_channels, read_settings
    from darkroom.training.hyperparameters import debugging_from, from_strings

    hosts = Hosts.of_job(read_settings(job.config / "resourceconfig.json"))
    inputs = read_settings(job.config / "inputdataconfig.json")
    check_inputs(inputs)
    settings = read_settings(job.config / "hyperparameters.json")
    strings = {name: str(value) for name, value in settings.items()}
    hyperparameters = _with_weights(from_strings(strings), channel=job.data / WEIGHTS_CHANNEL)
    data = read_channels(job.data, seed=hyperparameters.seed, store=job.cache, inputs=inputs)
    return TrainingJobSpec(
        hyperparameters, data=data, hosts=hosts, debugging=debugging_from(strings)
    )


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


def _train(job: JobPaths, *, order: "TrainingJobSpec") -> None:
    from darkroom.telemetry.epochs import EpochMetrics, write_history
    from darkroom.training.loop import train

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


def _leave_hanging(job: JobPaths, finding: "Finding") -> None:
    """End the process, from beside the thread that hangs; the reason is left."""
    _keep_recording(job)
    _record_failure(
        job,
        reason=f"the training was ended by a rule: {finding.in_words}; it hangs in code that "
        "cannot be interrupted, so its process ended",
    )
    os._exit(1)


def _keep_recording(job: JobPaths) -> None:
    """Copy the recording to where it outlives a job whose checkpoints do not."""
    if job.recording.is_dir():
        shutil.copytree(job.recording, job.kept_recording, dirs_exist_ok=True)


def _deliver(
    job: JobPaths,
    *,
    result: "TrainingResult",
    hyperparameters: "Hyperparameters",
    dataset: "Dataset",
) -> None:
    """Pack the bundle, and move its files where the job's model is expected.

    In a container the model folder is there already and may be a mount, so it cannot be
    replaced; the metadata come last, and without them there is no bundle.
    """
    from darkroom.models.bundle import METADATA_FILE, ONNX_FILE, WEIGHTS_FILE
    from darkroom.models.export import pack_bundle

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


def _record_failure(job: JobPaths, *, reason: str) -> None:
    from darkroom.base.files import write_text

    host = _host_among_others(job)
    if not reason.startswith(host):
        reason = f"{host}{reason}"
    print(f"train: {reason}", file=sys.stderr)
    try:
        write_text(job.failure, reason)
    except OSError as error:
        print(f"train: the reason cannot be written: {error}", file=sys.stderr)


def _record_unexpected(job: JobPaths, *, error: Exception) -> None:
    """A process that only lost another does not replace the reason that this one gave."""
    if "torch" in sys.modules:
        from darkroom.training.distributed import is_lost_connection

        if is_lost_connection(error):
            if not job.failure.exists():
                _record_failure(job, reason=f"{_LOST} ({error})")
            return
    _record_failure(job, reason=f"{type(error).__name__}: {error}")


def _host_among_others(job: JobPaths) -> str:
    """The start of a message from one host of several; empty where there is one."""
    from darkroom.training.channels import read_settings

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
