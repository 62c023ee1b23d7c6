"""Processing jobs: any program, its inputs copied in and its outputs copied out.

job = launch(request, state=state); job.done.wait(); job.status
"""

import json
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from rehearsal.emulator.errors import in_use, invalid, not_executed
from rehearsal.emulator.operations import Answer, Request, awaited, operation, page
from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.jobs import container as containers
from rehearsal.jobs import storage
from rehearsal.jobs.channels import (
    NETWORK_INTERFACE,
    CheckpointMirror,
    JobFailure,
    algorithm_error,
    below_ml,
    fetch_channel,
)
from rehearsal.jobs.container import Container, RunningContainer, unknown_image
from rehearsal.jobs.job_files import read_text
from rehearsal.jobs.logs import LogStream

# --- processing job ---
# A processing job as it is remembered, and as the records show it.

ENDED = ("Completed", "Failed", "Stopped")


@dataclass
class ProcessingJob:
    """One processing job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    folder: Path
    created: datetime = field(default_factory=now)
    status: str = "InProgress"
    started: datetime | None = None
    ended: datetime | None = None
    failure: str = ""
    exit_message: str = ""
    stop_requested: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.request["ProcessingJobName"])

    @property
    def cluster(self) -> Mapping[str, Any]:
        """Its machines."""
        found: Mapping[str, Any] = self.request["ProcessingResources"]["ClusterConfig"]
        return found

    @property
    def hosts(self) -> list[str]:
        """Names of its machines."""
        return [f"algo-{number}" for number in range(1, self.cluster.get("InstanceCount", 1) + 1)]


@recorded
def processing_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(ProcessingJob).values():
        until = job.ended or now()
        yield Record(
            kind="processing-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.started,
            ended=job.ended,
            instance_type=job.cluster.get("InstanceType", ""),
            instance_count=len(job.hosts),
            startup_seconds=STARTUP_SECONDS["processing-job"],
            executed_seconds=(until - job.started).total_seconds() if job.started else 0,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
        )


# --- processing ---

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
_SECONDS_BETWEEN_LOOKS = 0.05
_MESSAGE_CHARACTERS = 1024


def launch(request: Mapping[str, Any], *, state: State) -> ProcessingJob:
    """Create a processing job and start it.

    Raises:
        AwsError: ResourceInUse, where the name was used before.
    """
    name = request["ProcessingJobName"]
    arn = state.arn("processing-job", name)
    with state.lock:
        jobs = state.kept(ProcessingJob)
        if name in jobs:
            raise in_use(f"Job name must be unique within an AWS account and region: {arn}")
        folder = state.settings.folder / "processing" / name
        job = jobs[name] = ProcessingJob(request, arn=arn, folder=folder)
        state.tags(arn).update({tag["Key"]: tag["Value"] for tag in request.get("Tags", ())})
    state.start(lambda: _run(job, state=state), name=f"processing {name}")
    return job


def stop(job: ProcessingJob, *, state: State) -> None:
    """Ask a job to end; harmless where it has ended."""
    with state.lock:
        if job.status not in ENDED:
            job.status = "Stopping"
            job.stop_requested.set()


def _run(job: ProcessingJob, *, state: State) -> None:
    status, failure = "Failed", ""
    try:
        with state.job_slots, containers.cluster(len(job.hosts), state=state):
            status = _Machines(job, state=state).run()
    except JobFailure as error:
        failure = str(error)
    except Exception as error:
        if not state.ending.is_set():
            traceback.print_exc()
        failure = f"InternalServerError: the rehearsal failed, not the job: {error!r}"
    with state.lock:
        job.ended, job.failure, job.status = now(), failure[:_MESSAGE_CHARACTERS], status
        job.done.set()


class _Machines:
    """The machines of one job."""

    def __init__(self, job: ProcessingJob, *, state: State) -> None:
        self._job = job
        self._state = state
        self._containers = [self._container(host) for host in job.hosts]
        self._running: list[RunningContainer] = []
        self._logs: list[LogStream] = []

    def run(self) -> str:
        """Inputs, programs, outputs; the final status."""
        job = self._job
        job.started = now()
        self._prepare()
        mirrors = self._continuous_outputs()
        try:
            status = self._execute()
        finally:
            self._clean_up()
            for mirror in mirrors:
                mirror.finish()
        self._upload()
        for container in self._containers:
            containers.remove_copies(container, keep=("config", "output"))
        return status

    def _prepare(self) -> None:
        for container in self._containers:
            config = container.ml / "config"
            config.mkdir(parents=True, exist_ok=True)
            _write(config / "processingjobconfig.json", _configuration(self._job))
            _write(config / "resourceconfig.json", self._resources(container))
            for output in self._outputs():
                _inside(output["S3Output"]["LocalPath"], container).mkdir(
                    parents=True, exist_ok=True
                )
        for source in self._job.request.get("ProcessingInputs", ()):
            _fetch(source["S3Input"], self._containers, self._job, self._state)

    def _execute(self) -> str:
        epoch = int(time.time())
        for container in self._containers:
            name = f"{self._job.name}/{container.hostname}-{epoch}"
            path = self._job.folder / f"{container.hostname}.log"
            log = LogStream(group=LOG_GROUP, stream=name, path=path, state=self._state)
            self._logs.append(log)
            beside = self._running[0] if self._running else None
            running = containers.start(
                container, state=self._state, on_line=log.write, held=True, beside=beside
            )
            self._running.append(running)
        containers.begin_together(self._running)
        return self._watch()

    def _watch(self) -> str:
        condition = self._job.request.get("StoppingCondition", {})
        deadline = time.monotonic() + condition.get("MaxRuntimeInSeconds", 86_400)
        while True:
            codes = [running.exit_code for running in self._running]
            if any(codes):
                raise JobFailure(self._failure())
            if all(code == 0 for code in codes):
                self._job.exit_message = self._message()
                return "Completed"
            if self._job.stop_requested.wait(_SECONDS_BETWEEN_LOOKS):
                return self._terminate()
            if time.monotonic() > deadline:
                self._terminate()
                return "Stopped"

    def _terminate(self) -> str:
        deadline = time.monotonic() + self._state.settings.stop_grace_seconds
        for running in self._running:
            running.terminate()
        for running in self._running:
            if running.wait(timeout=max(0, deadline - time.monotonic())) is None:
                running.kill()
        return "Stopped"

    def _failure(self) -> str:
        code = next(running.exit_code for running in self._running if running.exit_code) or 1
        self._job.exit_message = self._message()
        return algorithm_error(self._message() or "See job logs for more information", code=code)

    def _message(self) -> str:
        for container in self._containers:
            text = read_text(container.ml, "output/message", characters=_MESSAGE_CHARACTERS)
            if text:
                return text
        return ""

    def _clean_up(self) -> None:
        for running in self._running:
            running.kill()
            running.wait(timeout=10)
            self._state.processes.remove(running)
        for log in self._logs:
            log.close()
        for container in self._containers:
            containers.remove_scratch(container)

    def _upload(self) -> None:
        for output in self._outputs():
            target = output["S3Output"]
            if target.get("S3UploadMode", "EndOfJob") == "EndOfJob":
                for container in reversed(self._containers):
                    folder = below_ml(target["LocalPath"])
                    storage.upload_folder(
                        container.ml, folder, uri=target["S3Uri"], state=self._state
                    )

    def _say(self, line: str) -> None:
        """A line of ours in the job's log."""
        for log in self._logs[:1]:
            log.write(line)

    def _continuous_outputs(self) -> list[CheckpointMirror]:
        mirrors = []
        for output in self._outputs():
            target = output["S3Output"]
            if target.get("S3UploadMode") == "Continuous":
                for container in self._containers:
                    mirror = CheckpointMirror(
                        container.ml,
                        below_ml(target["LocalPath"]),
                        uri=target["S3Uri"],
                        say=self._say,
                        state=self._state,
                    )
                    mirror.start()
                    mirrors.append(mirror)
        return mirrors

    def _outputs(self) -> list[Mapping[str, Any]]:
        outputs: list[Mapping[str, Any]] = self._job.request.get("ProcessingOutputConfig", {}).get(
            "Outputs", []
        )
        return outputs

    def _container(self, host: str) -> Container:
        job, specification = self._job, self._job.request["AppSpecification"]
        entrypoint = specification.get("ContainerEntrypoint", ())
        dies = self._state.faults.dead_container(job.name)
        isolated = bool(job.request.get("NetworkConfig", {}).get("EnableNetworkIsolation"))
        environment = {
            "PROCESSING_JOB_NAME": job.name,
            "PROCESSING_JOB_ARN": job.arn,
            **job.request.get("Environment", {}),
        }
        return Container(
            folder=job.folder / host,
            command=("sh", "-c", "exit 1")
            if dies
            else (*entrypoint, *specification.get("ContainerArguments", ())),
            environment=environment,
            image=containers.image_folder(specification["ImageUri"], state=self._state),
            hostname=host,
            hosts={name: f"127.0.0.{n}" for n, name in enumerate(job.hosts, 1)},
            reaches=containers.reachable(environment, isolated=isolated, state=self._state),
        )

    def _resources(self, container: Container) -> dict[str, Any]:
        return {
            "current_host": container.hostname,
            "hosts": self._job.hosts,
            "network_interface_name": NETWORK_INTERFACE,
        }


def _configuration(job: ProcessingJob) -> dict[str, Any]:
    """processingjobconfig.json: the request and the job's ARN."""
    return {"ProcessingJobArn": job.arn, **job.request}


def _fetch(
    source: Mapping[str, Any],
    machines: list[Container],
    job: ProcessingJob,
    state: State,
) -> None:
    channel = {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", **source}},
        "CompressionType": source.get("S3CompressionType", "None"),
    }
    folders = [_inside(source["LocalPath"], container) for container in machines]
    fetch_channel(channel, folders=folders, role=job.request["RoleArn"], state=state)


def _inside(place: str, container: Container) -> Path:
    return container.ml / below_ml(place)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, default=str), encoding="utf-8")


# --- processing operations ---
# SageMaker's operations on processing jobs.

_AWS_IMAGES = {
    "clarify": "SageMaker Clarify runs in AWS's own image",
    "model-monitor": "SageMaker Model Monitor runs in AWS's own image",
    "debugger": "SageMaker Debugger's rules run in AWS's own image",
    "data-wrangler": "Data Wrangler runs in AWS's own image",
}
_ML = "/opt/ml"
_SHOWN = (
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingJobName",
    "ProcessingResources",
    "StoppingCondition",
    "AppSpecification",
    "Environment",
    "NetworkConfig",
    "RoleArn",
    "ExperimentConfig",
)


@operation("CreateProcessingJob")
def create_processing_job(request: Request, *, state: State) -> Answer:
    """Start a processing job."""
    check_processing_request(request, state=state)
    return {"ProcessingJobArn": launch(request, state=state).arn}


@operation("DescribeProcessingJob")
def describe_processing_job(request: Request, *, state: State) -> Answer:
    """All of one job."""
    return describe(_job(request, state=state), state=state)


def describe(job: ProcessingJob, *, state: State) -> dict[str, Any]:
    """The answer of DescribeProcessingJob."""
    with state.lock:
        found: dict[str, Any] = {
            "ProcessingJobArn": job.arn,
            "ProcessingJobStatus": job.status,
            "CreationTime": job.created,
            "LastModifiedTime": job.ended or job.started or job.created,
            **{name: job.request[name] for name in _SHOWN if name in job.request},
        }
        later = {
            "ProcessingStartTime": job.started,
            "ProcessingEndTime": job.ended,
            "FailureReason": job.failure,
            "ExitMessage": job.exit_message,
        }
    return found | {name: value for name, value in later.items() if value}


@awaited("DescribeProcessingJob")
def processing_end(request: Request, *, state: State) -> threading.Event:
    """What waiters wait for."""
    return _job(request, state=state).done


@operation("StopProcessingJob")
def stop_processing_job(request: Request, *, state: State) -> Answer:
    """Ask a job to end."""
    job = _job(request, state=state)
    if job.status in ENDED:
        raise invalid(f"The request was rejected because the job is in status {job.status}.")
    stop(job, state=state)
    return {}


@operation("ListProcessingJobs")
def list_processing_jobs(request: Request, *, state: State) -> Answer:
    """The jobs that the filters leave."""
    with state.lock:
        rows = [_row(job) for job in state.kept(ProcessingJob).values()]
    return page(rows, request=request, key="ProcessingJobSummaries", kind="ProcessingJob")


def check_processing_request(request: Request, *, state: State) -> None:
    """Refuse what AWS would do and the rehearsal cannot.

    Raises:
        AwsError: NotExecutedInRehearsal, with all reasons.
    """
    reasons = list(_reasons(request, state=state))
    if reasons:
        raise not_executed("this processing job", why="; ".join(reasons))


def _reasons(request: Request, *, state: State) -> Iterator[str]:
    specification = request["AppSpecification"]
    image = specification["ImageUri"]
    if why := unknown_image(image, state=state):
        repository = image.rpartition("/")[2]
        of_aws = next((told for part, told in _AWS_IMAGES.items() if part in repository), "")
        yield of_aws or why
        if of_aws:
            return  # whatever else it asks for
    if not specification.get("ContainerEntrypoint"):
        yield "the image's own entrypoint is not known here: name ContainerEntrypoint"
    for source in request.get("ProcessingInputs", ()):
        if "S3Input" not in source:
            yield f"input {source['InputName']!r}: only S3Input is read"
        elif source["S3Input"].get("S3InputMode", "File") != "File":
            yield f"input {source['InputName']!r}: Pipe mode; use File"
    for output in request.get("ProcessingOutputConfig", {}).get("Outputs", ()):
        if "S3Output" not in output:
            yield f"output {output['OutputName']!r}: only S3Output is written"
    for place in _outside_paths(request):
        yield f"the LocalPath {place!r} is not below /opt/ml"


def _outside_paths(request: Request) -> Iterator[str]:
    """LocalPaths of inputs and outputs that are not below /opt/ml."""
    parts = [i.get("S3Input", {}) for i in request.get("ProcessingInputs", ())]
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", ())
    parts += [o.get("S3Output", {}) for o in outputs]
    for part in parts:
        place = part.get("LocalPath", f"{_ML}/")
        if not place.startswith(f"{_ML}/") or ".." in Path(place).parts:
            yield place


def _row(job: ProcessingJob) -> dict[str, Any]:
    row = {
        "ProcessingJobName": job.name,
        "ProcessingJobArn": job.arn,
        "CreationTime": job.created,
        "LastModifiedTime": job.ended or job.created,
        "ProcessingJobStatus": job.status,
    }
    later = {"ProcessingEndTime": job.ended, "FailureReason": job.failure}
    return row | {name: value for name, value in later.items() if value}


def _job(request: Request, *, state: State) -> ProcessingJob:
    job = state.kept(ProcessingJob).get(request["ProcessingJobName"])
    if job is None:
        raise invalid("Could not find requested job")
    return job
