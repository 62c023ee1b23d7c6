"""Processing jobs: any program, its inputs copied in and its outputs copied out.

job = launch(request, state=state); job.done.wait(); job.status
"""

import json
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal.emulator.errors import in_use
from rehearsal.emulator.state import State, now
from rehearsal.jobs import container as containers
from rehearsal.jobs import storage
from rehearsal.jobs.channels import fetch_channel
from rehearsal.jobs.checkpoints import CheckpointMirror, below_ml
from rehearsal.jobs.container import Container, RunningContainer
from rehearsal.jobs.failures import JobFailure, algorithm_error
from rehearsal.jobs.job_files import read_text
from rehearsal.jobs.logs import LogStream
from rehearsal.jobs.opt_ml import NETWORK_INTERFACE
from rehearsal.jobs.processing_job import ENDED, ProcessingJob

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
