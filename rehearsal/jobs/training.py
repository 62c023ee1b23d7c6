"""Running a training job: channels, containers, checkpoints, artifacts.

    job = launch(request, state=state)     as CreateTrainingJob; also for the jobs of a tuning
    job.done.wait(); job.status; job.metrics; job.failure
    stop(job)                              SIGTERM, SIGKILL after the grace

`request` is that of CreateTrainingJob, checked.
"""

import contextlib
import os
import shutil
import stat
import tarfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from rehearsal.emulator.errors import in_use
from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.jobs import container as containers
from rehearsal.jobs import job_files, storage
from rehearsal.jobs.channels import (
    REASON_CHARACTERS,
    CheckpointMirror,
    JobFailure,
    algorithm_error,
    below_ml,
    fetch_channel,
    hosts_file,
    local_folder,
    write_training_folder,
)
from rehearsal.jobs.container import Container, RunningContainer, remove_copies
from rehearsal.jobs.job_files import read_text
from rehearsal.jobs.logs import LogStream
from rehearsal.jobs.training_job import ENDED, MetricReader, TrainingJob

# --- warm pools ---
# Machines that stay for the next job: KeepAlivePeriodInSeconds.
#
# A job reuses the pool of an ended one that had the same machines, role and network; only
# the simulated start-up becomes shorter.

_SAME = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")


def open_pool(job: TrainingJob) -> None:
    """A job has ended: its machines stay for a while, where it asked for that."""
    if job.resources.get("KeepAlivePeriodInSeconds"):
        job.warm_pool = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}


def reuse_pool(job: TrainingJob, *, state: State) -> None:
    """A job starts: it takes the machines of a pool that fits."""
    if not job.resources.get("KeepAlivePeriodInSeconds"):
        return
    with state.lock:
        pool = next(_fitting(job, state=state), None)
        if pool is not None:
            pool.warm_pool |= {"Status": "Reused", "ReusedByJob": job.name}
            job.reused_pool = True
        job.warm_pool = {"Status": "InUse"}


def refresh_pools(state: State) -> None:
    """End the pools whose time is over, and count what the others cost."""
    with state.lock:
        for job in state.kept(TrainingJob).values():
            if job.warm_pool.get("Status") == "Available" and job.ended is not None:
                kept = job.resources["KeepAlivePeriodInSeconds"]
                passed = min(kept, int((now() - job.ended).total_seconds()))
                job.warm_pool["ResourceRetainedBillableTimeInSeconds"] = passed
                if passed >= kept:
                    job.warm_pool["Status"] = "Terminated"


def _fitting(job: TrainingJob, *, state: State) -> Iterator[TrainingJob]:
    refresh_pools(state)
    for other in state.kept(TrainingJob).values():
        if other.warm_pool.get("Status") == "Available" and _key(other) == _key(job):
            yield other


def _key(job: TrainingJob) -> Any:  # noqa: ANN401
    machines = [job.resources.get(name) for name in _SAME]
    return [*machines, job.request["RoleArn"], job.request.get("VpcConfig")]


# --- archives ---
# What a training job leaves behind: model.tar.gz and output.tar.gz on S3.

_LEVEL = 1
"""Of compression: weights hardly shrink, and AWS's choice of level is not known."""


def store(
    roots: Sequence[Path], folder: str, *, uri: str, name: str, packed: bool, state: State
) -> str:
    """Upload the files of all hosts' folders as one archive, or one by one; the place.

    Where hosts wrote the same file, the first host's is taken.

    Args:
        roots: /opt/ml of each host.
        folder: below it.
        uri: s3://…/<job>/output.
        name: "model" or "output".
    """
    if not packed:
        for root in reversed(roots):
            storage.upload_folder(root, folder, uri=f"{uri}/{name}", state=state)
        return f"{uri}/{name}/"
    with TemporaryFile() as archive:
        _pack(roots, folder, archive=archive)
        archive.seek(0)
        storage.upload(archive, uri=f"{uri}/{name}.tar.gz", state=state)
    return f"{uri}/{name}.tar.gz"


def is_empty(roots: Sequence[Path], folder: str) -> bool:
    """Whether no host has written anything."""
    return not any(entry.is_file for root in roots for entry in job_files.entries(root, folder))


def _pack(roots: Sequence[Path], folder: str, *, archive: BinaryIO) -> None:
    """Links are packed as links; pipes, sockets and devices are left out."""
    written: set[str] = set()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=_LEVEL) as tar:
        for root in roots:
            for entry in job_files.entries(root, folder):
                if entry.path not in written:
                    written.add(entry.path)
                    _add(entry, root=root, folder=folder, tar=tar)


def _add(entry: job_files.Entry, *, root: Path, folder: str, tar: tarfile.TarFile) -> None:
    if entry.is_file:
        with (
            suppress(FileNotFoundError),
            job_files.opened(root, f"{folder}/{entry.path}") as file,
        ):
            tar.addfile(tar.gettarinfo(arcname=entry.path, fileobj=file), file)
        return
    member = tarfile.TarInfo(entry.path)
    member.mode = stat.S_IMODE(entry.status.st_mode)
    member.mtime = int(entry.status.st_mtime)
    member.uid, member.gid = entry.status.st_uid, entry.status.st_gid
    if entry.link:
        member.type, member.linkname = tarfile.SYMTYPE, os.fspath(entry.link)
    elif stat.S_ISDIR(entry.status.st_mode):
        member.type = tarfile.DIRTYPE
    else:
        return
    tar.addfile(member)


# --- training metrics ---
# A training job's metrics in CloudWatch, where SageMaker's consoles and SDKs look for them.

NAMESPACE = "/aws/sagemaker/TrainingJobs"
_AT_ONCE = 500
"""PutMetricData takes 1,000 values."""


def publish(job: TrainingJob, *, state: State) -> None:
    """Send all values that were seen in the log of this attempt."""
    dimensions = [{"Name": "TrainingJobName", "Value": job.name}]
    values = [
        {"MetricName": m.name, "Value": m.value, "Timestamp": m.time, "Dimensions": dimensions}
        for m in job.metrics[job.metrics_sent :]
    ]
    job.metrics_sent += len(values)
    # When the emulator ends, nobody takes them, and nobody will look.
    with contextlib.suppress(Exception):
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            state.clients["cloudwatch"].put_metric_data(Namespace=NAMESPACE, MetricData=part)


# --- training records ---
# What training jobs leave in the emulator's records.


@recorded
def training_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(TrainingJob).values():
        until = job.ended or now()
        yield Record(
            kind="training-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.training_started,
            ended=job.ended,
            instance_type=job.instances[0][1],
            instance_count=len(job.instances),
            startup_seconds=_startup(job),
            executed_seconds=_seconds(job, until=until),
            spot=job.is_spot,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
            details={"interruptions": job.interruptions, "tuning_job": job.tuning_job_arn},
        )


def note_gaps(job: TrainingJob, *, state: State) -> None:
    """Say what a job asks for and does not get here."""
    for text in _gaps(job, state=state):
        state.log.not_covered(text)


def _gaps(job: TrainingJob, *, state: State) -> Iterator[str]:
    from rehearsal.jobs.container import is_sandboxed

    modes = [job.request["AlgorithmSpecification"]["TrainingInputMode"]]
    modes += [channel.get("InputMode") for channel in job.request.get("InputDataConfig", ())]
    if "FastFile" in modes:
        yield "FastFile: the data are copied before the start, as with File"
    sandboxed = is_sandboxed(state)
    if not sandboxed:
        yield "sandbox: jobs are plain processes here, they could see the user's files"
    if job.request.get("EnableNetworkIsolation") and not sandboxed:
        yield "network isolation of training jobs"


def _startup(job: TrainingJob) -> float:
    kind = "warm-training-job" if job.reused_pool else "training-job"
    return STARTUP_SECONDS[kind] * (1 + job.interruptions)


def _seconds(job: TrainingJob, *, until: Any) -> float:  # noqa: ANN401
    return (until - job.training_started).total_seconds() if job.training_started else 0


# --- attempt ---
# One attempt at a training job: all its machines, from the download to the last exit.
#
# A job has one; a spot job has another after each interruption, on machines that hold nothing
# but what lies on S3.

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_SECONDS_BETWEEN_LOOKS = 0.05
_UPLOADED = {
    "DebugHookConfig": ("/opt/ml/output/tensors", "debug-output"),
    "TensorBoardOutputConfig": ("/opt/ml/output/tensorboard", "tensorboard-output"),
}
"""Where programs leave these files, and what their place on S3 is called below the job's name:
as SageMaker's SDK looks for them (Estimator.latest_job_debugger_artifacts_path)."""


class Outcome(Enum):
    """How an attempt ended; the values are secondary statuses."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    NEVER_STARTED = "Starting"
    INTERRUPTED = "Interrupted"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"


class Attempt:
    """The machines of a job, each a container with a folder of its own."""

    def __init__(self, job: TrainingJob, *, state: State) -> None:
        self._job = job
        self._state = state
        self.reason = ""
        """Why it failed."""
        self.containers = [self._container(host) for host, _ in job.instances]
        self._restored = self._checkpoint_mirrors()
        self._mirrors = [*self._restored, *self._output_mirrors()]
        self._reader = MetricReader(
            job.request["AlgorithmSpecification"].get("MetricDefinitions", ())
        )
        self._logs: list[LogStream] = []
        self._running: list[RunningContainer] = []

    def run(self) -> Outcome:
        """Download, train, wait for the end.

        Raises:
            JobFailure: the data cannot be downloaded.
        """
        if self._job.stop_requested.is_set():
            return Outcome.NEVER_STARTED
        with containers.cluster(len(self.containers), state=self._state):
            return self._run()

    def _run(self) -> Outcome:
        job = self._job
        started = time.monotonic()
        job.training_started = job.training_started or now()
        try:
            self._prepare()
            if job.stop_requested.is_set():
                return Outcome.STOPPED
            self._start()
            return self._watch(started)
        finally:
            self._clean_up()
            job.billed_seconds += time.monotonic() - started

    def _prepare(self) -> None:
        job = self._job
        self._enter("Downloading", message="Downloading input data")
        for (host, _), container in zip(job.instances, self.containers, strict=True):
            write_training_folder(container.ml, job=job, host=host)
        for mirror in self._restored:
            mirror.restore()
        data = [container.ml / "input" / "data" for container in self.containers]
        for channel in job.request.get("InputDataConfig", ()):
            folders = [folder / channel["ChannelName"] for folder in data]
            role = job.request["RoleArn"]
            fetch_channel(channel, folders=folders, role=role, state=self._state)

    def _start(self) -> None:
        self._enter("Training", message="Training image download completed. Training in progress.")
        epoch = int(time.time())
        for container in self.containers:
            log = LogStream(
                group=LOG_GROUP,
                stream=f"{self._job.name}/{container.hostname}-{epoch}",
                path=self._job.folder / f"{container.hostname}.log",
                state=self._state,
            )
            self._logs.append(log)
            running = containers.start(
                container,
                state=self._state,
                on_line=self._writer(log),
                held=True,
                beside=self._running[0] if self._running else None,
            )
            self._running.append(running)
        for mirror in self._mirrors:
            mirror.start()
        containers.begin_together(self._running)

    def _writer(self, log: LogStream) -> containers.OnLine:
        def write(line: str) -> None:
            log.write(line)
            self._job.metrics.extend(self._reader.read(line))

        return write

    def _watch(self, started: float) -> Outcome:
        """Wait until all have ended, one has failed, or something asks for the end."""
        condition = self._job.request["StoppingCondition"]
        limit = condition.get("MaxRuntimeInSeconds", 86_400)
        while True:
            codes = [running.exit_code for running in self._running]
            if any(codes):
                return self._failed()
            if all(code == 0 for code in codes):
                return Outcome.COMPLETED
            passed = time.monotonic() - started
            if self._job.stop_requested.wait(_SECONDS_BETWEEN_LOOKS):
                return self._terminate(Outcome.STOPPED)
            if passed > limit:
                return self._terminate(Outcome.MAX_RUNTIME)
            if self._waited_too_long():
                return self._terminate(Outcome.MAX_WAIT)
            if self._loses_machine(passed):
                self._enter("Interrupted", message="Training job interrupted: no spot capacity")
                return self._terminate(Outcome.INTERRUPTED)

    def _loses_machine(self, passed: float) -> bool:
        if not self._job.is_spot:
            return False
        return self._state.faults.spot_interruption(self._job.name, seconds=passed)

    def _waited_too_long(self) -> bool:
        wait = self._job.request["StoppingCondition"].get("MaxWaitTimeInSeconds")
        return bool(wait) and (now() - self._job.created).total_seconds() > wait

    def _terminate(self, outcome: Outcome) -> Outcome:
        """SIGTERM to all; SIGKILL to those that are left after the grace."""
        deadline = time.monotonic() + self._state.settings.stop_grace_seconds
        for running in self._running:
            running.terminate()
        for running in self._running:
            if running.wait(timeout=max(0, deadline - time.monotonic())) is None:
                running.kill()
        return outcome

    def _failed(self) -> Outcome:
        for container, running in zip(self.containers, self._running, strict=True):
            if code := running.exit_code:
                running.wait()
                self.reason = algorithm_error(
                    read_text(container.ml, "output/failure", characters=REASON_CHARACTERS),
                    code=code,
                )
                return Outcome.FAILED
        return Outcome.FAILED

    def _clean_up(self) -> None:
        """Nothing runs any more; all it wrote is where it belongs."""
        for running, container in zip(self._running, self.containers, strict=False):
            running.kill()
            code = running.wait(timeout=10)
            self._job.exit_codes[container.hostname] = -1 if code is None else code
            self._state.processes.remove(running)
        for mirror in self._mirrors:
            mirror.finish()
        publish(self._job, state=self._state)
        for log in self._logs:
            log.close()
        for container in self.containers:
            containers.remove_scratch(container)

    def _enter(self, status: str, *, message: str) -> None:
        with self._state.lock:
            if self._job.status == "InProgress":
                self._job.enter(status, message=message)

    def _container(self, host: str) -> Container:
        job, state = self._job, self._state
        specification = job.request["AlgorithmSpecification"]
        dies = state.faults.dead_container(job.name)
        own = {"TRAINING_JOB_NAME": job.name, "TRAINING_JOB_ARN": job.arn}
        environment = {**own, **job.request.get("Environment", {})}
        isolated = bool(job.request.get("EnableNetworkIsolation"))
        return Container(
            folder=job.folder / host,
            command=("sh", "-c", "exit 1") if dies else _command(specification),
            environment=environment,
            image=containers.image_folder(specification.get("TrainingImage", ""), state=state),
            hostname=host,
            hosts=hosts_file(job),
            reaches=containers.reachable(environment, isolated=isolated, state=state),
        )

    def _say(self, line: str) -> None:
        """A line of ours in the job's log."""
        for log in self._logs[:1]:
            log.write(line)

    def _checkpoint_mirrors(self) -> list[CheckpointMirror]:
        config = self._job.request.get("CheckpointConfig")
        return self._mirrors_of(local_folder(config), uri=config["S3Uri"]) if config else []

    def _output_mirrors(self) -> list[CheckpointMirror]:
        """What SageMaker uploads for its Debugger and for TensorBoard, while the job runs."""
        mirrors = []
        for member, (folder, name) in _UPLOADED.items():
            if config := self._job.request.get(member):
                uri = f"{config['S3OutputPath'].rstrip('/')}/{self._job.name}/{name}"
                mirrors += self._mirrors_of(below_ml(config.get("LocalPath", folder)), uri=uri)
        return mirrors

    def _mirrors_of(self, folder: str, *, uri: str) -> list[CheckpointMirror]:
        return [
            CheckpointMirror(container.ml, folder, uri=uri, say=self._say, state=self._state)
            for container in self.containers
        ]


def _command(specification: Mapping[str, Any]) -> tuple[str, ...]:
    """What the container runs: `train train`, where the request names nothing else."""
    entrypoint = specification.get("ContainerEntrypoint")
    arguments = specification.get("ContainerArguments", () if entrypoint else ("train",))
    return (*(entrypoint or ("train",)), *arguments)


# --- training ---


def launch(request: Mapping[str, Any], *, state: State, tuning_job_arn: str = "") -> TrainingJob:
    """Create a training job and start it.

    Raises:
        AwsError: ResourceInUse, where the name was used before.
    """
    name = request["TrainingJobName"]
    arn = state.arn("training-job", name)
    with state.lock:
        jobs = state.kept(TrainingJob)
        if name in jobs:
            raise in_use(
                "Training job names must be unique within an AWS account and region. A training "
                f"job with this name already exists ({arn})"
            )
        folder = state.settings.folder / "jobs" / name
        job = TrainingJob(request, arn=arn, folder=folder, tuning_job_arn=tuning_job_arn)
        job.enter("Starting", message="Starting the training job")
        jobs[name] = job
        state.tags(arn).update({tag["Key"]: tag["Value"] for tag in request.get("Tags", ())})
    note_gaps(job, state=state)
    reuse_pool(job, state=state)
    state.start(lambda: _run(job, state=state), name=f"training {name}")
    return job


def stop(job: TrainingJob, *, state: State) -> None:
    """Ask a job to end; harmless where it has ended."""
    with state.lock:
        if job.status not in ENDED:
            job.status = "Stopping"
            job.enter("Stopping", message="Stopping the training job")
            job.stop_requested.set()


def _run(job: TrainingJob, *, state: State) -> None:
    """A job's thread."""
    try:
        with _slot(job, state=state):
            _attempts(job, state=state)
    except JobFailure as failure:
        _finish(job, "Failed", message="Training job failed", failure=str(failure), state=state)
    except Exception as error:
        if not state.ending.is_set():
            traceback.print_exc()
        reason = f"InternalServerError: the rehearsal failed, not the job: {error!r}"
        _finish(job, "Failed", message="Training job failed", failure=reason, state=state)


@contextlib.contextmanager
def _slot(job: TrainingJob, *, state: State) -> Iterator[None]:
    """Wait for one of the places that --jobs-at-once leaves; a job may be stopped meanwhile."""
    while not state.job_slots.acquire(timeout=0.2):
        if job.stop_requested.is_set() or state.ending.is_set():
            break
    else:
        try:
            yield
        finally:
            state.job_slots.release()
        return
    yield


def _attempts(job: TrainingJob, *, state: State) -> None:
    """Train, and again after each interruption of a spot machine."""
    if reason := state.faults.capacity(job.name):
        raise JobFailure(reason)
    while True:
        attempt = Attempt(job, state=state)
        outcome = attempt.run()
        if outcome is not Outcome.INTERRUPTED:
            break
        job.interruptions += 1
        job.enter("Restarting", message="Restarting the training job after an interruption")
        # The next machine holds nothing but what lies on S3; the logs are ours.
        for container in attempt.containers:
            shutil.rmtree(container.folder, ignore_errors=True)
    try:
        _conclude(job, outcome=outcome, attempt=attempt, state=state)
    finally:
        for container in attempt.containers:
            remove_copies(container, keep=("input/config", "output"))


def _conclude(job: TrainingJob, *, outcome: Outcome, attempt: Attempt, state: State) -> None:
    if outcome is Outcome.NEVER_STARTED:
        _finish(job, "Stopped", message="Training job stopped", state=state)
        return
    if outcome is Outcome.FAILED:
        raise JobFailure(attempt.reason)
    with state.lock:
        if job.status == "InProgress":
            job.enter("Uploading", message="Uploading generated training model")
    _store_results(job, attempt=attempt, state=state)
    if outcome is Outcome.COMPLETED:
        _finish(job, "Completed", message="Training job completed", state=state)
    elif outcome is Outcome.STOPPED:
        _finish(job, "Stopped", message="Training job stopped", state=state)
    else:
        message = "Training job runtime exceeded MaxRuntimeInSeconds provided"
        _finish(job, "Stopped", secondary=outcome.value, message=message, state=state)


def _store_results(job: TrainingJob, *, attempt: Attempt, state: State) -> None:
    output = job.request["OutputDataConfig"]
    packed = output.get("CompressionType", "GZIP") == "GZIP"
    uri = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
    roots = [container.ml for container in attempt.containers]
    try:
        job.artifacts = store(roots, "model", uri=uri, name="model", packed=packed, state=state)
        if not is_empty(roots, "output/data"):
            store(roots, "output/data", uri=uri, name="output", packed=packed, state=state)
    except Exception as error:
        raise JobFailure(f"ClientError: Artifact upload failed: {error}") from error


def _finish(
    job: TrainingJob,
    status: str,
    *,
    message: str,
    state: State,
    secondary: str = "",
    failure: str = "",
) -> None:
    with state.lock:
        if status != "Failed":
            open_pool(job)
        else:
            job.warm_pool = {}
        job.finish(status, secondary=secondary, message=message, failure=failure)
