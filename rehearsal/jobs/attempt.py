"""One attempt at a training job: all its machines, from the download to the last exit.

A job has one; a spot job has another after each interruption, on machines that hold nothing
but what lies on S3.
"""

import time
from collections.abc import Mapping
from enum import Enum
from typing import Any

from rehearsal.emulator.state import State, now
from rehearsal.jobs import container as containers
from rehearsal.jobs.channels import fetch_channel
from rehearsal.jobs.checkpoints import CheckpointMirror, below_ml, local_folder
from rehearsal.jobs.container import Container, RunningContainer
from rehearsal.jobs.failures import REASON_CHARACTERS, algorithm_error
from rehearsal.jobs.job_files import read_text
from rehearsal.jobs.logs import LogStream
from rehearsal.jobs.metrics import MetricReader
from rehearsal.jobs.opt_ml import hosts_file, write_training_folder
from rehearsal.jobs.training_job import TrainingJob
from rehearsal.jobs.training_metrics import publish

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
