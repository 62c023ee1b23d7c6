"""Executions of SageMaker pipelines: their steps as jobs, in the order of their needs.

Steps that need nothing of each other run side by side. When one fails, no other is begun;
those that run are waited for, and the execution has failed.
"""

import secrets
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State, now
from rehearsal.emulator.validation import check_request
from rehearsal.jobs import pipeline_definition, processing, training
from rehearsal.jobs.processing_job import ProcessingJob
from rehearsal.jobs.training_job import TrainingJob

_SECONDS_BETWEEN_LOOKS = 0.05
_NAME_LENGTH = 63
Job = TrainingJob | ProcessingJob


@dataclass
class Step:
    """A step of one execution."""

    definition: Mapping[str, Any]
    status: str = "Starting"
    job: Job | None = None
    started: datetime | None = None
    ended: datetime | None = None
    failure: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.definition["Name"])


@dataclass
class PipelineExecution:
    """One run of a pipeline, changed by its own thread."""

    pipeline: str
    arn: str
    definition: Mapping[str, Any]
    request: Mapping[str, Any]
    parameters: Mapping[str, Any]
    parallel: int = 0
    """Steps at once; 0: all that can."""
    status: str = "Executing"
    failure: str = ""
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    steps: dict[str, Step] = field(default_factory=dict)
    """Those that were begun, in that order."""
    stop_requested: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.arn.rpartition("/")[2]


def launch(execution: PipelineExecution, *, state: State) -> None:
    """Begin an execution."""
    with state.lock:
        state.kept(PipelineExecution)[execution.arn] = execution
    state.start(lambda: _run(execution, state=state), name=f"pipeline {execution.pipeline}")


def stop(execution: PipelineExecution, *, state: State) -> None:
    """Ask an execution and its jobs to end."""
    with state.lock:
        if execution.status == "Executing":
            execution.status = "Stopping"
        execution.stop_requested.set()
        running = [step.job for step in execution.steps.values() if step.job is not None]
    for job in running:
        _stop_job(job, state=state)


def _run(execution: PipelineExecution, *, state: State) -> None:
    try:
        _execute(execution, state=state)
    except Exception as error:
        traceback.print_exc()
        execution.failure = f"a mistake of the rehearsal's: {error!r}"
    with state.lock:
        execution.modified = now()
        if execution.stop_requested.is_set():
            execution.status = "Stopped"
        else:
            execution.status = "Failed" if execution.failure else "Succeeded"
        execution.done.set()


def _execute(execution: PipelineExecution, *, state: State) -> None:
    waiting = {step["Name"]: step for step in execution.definition["Steps"]}
    while True:
        for step in execution.steps.values():
            _look(step, execution=execution, state=state)
        running = [s for s in execution.steps.values() if s.ended is None]
        ends = bool(execution.failure) or execution.stop_requested.is_set()
        if not running and (ends or not waiting):
            return
        if not ends:
            for name in _ready(waiting, execution, running=len(running)):
                _begin(waiting.pop(name), execution=execution, state=state)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _ready(
    waiting: Mapping[str, Mapping[str, Any]], execution: PipelineExecution, *, running: int
) -> list[str]:
    succeeded = {name for name, s in execution.steps.items() if s.status == "Succeeded"}
    ready = [n for n, s in waiting.items() if pipeline_definition.dependencies(s) <= succeeded]
    return ready[: max(0, execution.parallel - running)] if execution.parallel else ready


def _begin(definition: Mapping[str, Any], *, execution: PipelineExecution, state: State) -> None:
    step = Step(definition, started=now())
    execution.steps[step.name] = step
    try:
        step.job = _launch_job(step, execution=execution, state=state)
        step.status = "Executing"
        if execution.stop_requested.is_set():  # `stop` may have come before there was a job
            _stop_job(step.job, state=state)
    except AwsError as error:
        _end(step, status="Failed", failure=f"ClientError: {error}", execution=execution)


def _launch_job(step: Step, *, execution: PipelineExecution, state: State) -> Job:
    """Start a step's job, by the checks that its Create operation makes."""
    from rehearsal.jobs.processing_operations import check_processing_request
    from rehearsal.jobs.request_checks import check_training_request

    arguments = pipeline_definition.resolve(
        step.definition["Arguments"], get=lambda path: _value(path, execution, state=state)
    )
    kind = step.definition["Type"]
    request = {f"{kind}JobName": _job_name(step, execution), **arguments}
    check_request(f"Create{kind}Job", request, state=state)
    if kind == "Processing":
        check_processing_request(request, state=state)
        return processing.launch(request, state=state)
    check_training_request(request, state=state)
    return training.launch(request, state=state)


def _job_name(step: Step, execution: PipelineExecution) -> str:
    head, tail = f"pipelines-{execution.id}-", f"-{secrets.token_hex(5)}"
    room = _NAME_LENGTH - len(head) - len(tail)
    clean = "".join(c if c.isalnum() else "-" for c in step.name)[:room].strip("-")
    return f"{head}{clean}{tail}"


def _value(path: str, execution: PipelineExecution, *, state: State) -> Any:  # noqa: ANN401
    from rehearsal.jobs.processing_operations import describe
    from rehearsal.jobs.training_job import describe as describe_training

    root, _, rest = path.partition(".")
    if root == "Steps":
        name, _, rest = rest.partition(".")
        job = execution.steps[name].job
        if isinstance(job, TrainingJob):
            return pipeline_definition.follow(rest, start=describe_training(job, state=state))
        if job is not None:
            return pipeline_definition.follow(rest, start=describe(job, state=state))
    known = {
        "Parameters": execution.parameters,
        "Execution": {
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionId": execution.id,
            "PipelineName": execution.pipeline,
            "StartDateTime": execution.created.isoformat(),
        },
    }
    return pipeline_definition.follow(path, start=known)


def _look(step: Step, *, execution: PipelineExecution, state: State) -> None:
    """See whether a step's job has ended."""
    if step.ended is None and step.job is not None and step.job.done.is_set():
        status = {"Completed": "Succeeded"}.get(step.job.status, step.job.status)
        _end(step, status=status, failure=step.job.failure, execution=execution)


def _end(step: Step, *, status: str, failure: str, execution: PipelineExecution) -> None:
    step.status, step.ended, step.failure = status, now(), failure
    if status != "Succeeded" and not execution.stop_requested.is_set():
        execution.failure = execution.failure or (
            f"Step failure: One or multiple steps failed: {step.name}"
        )


def _stop_job(job: Job, *, state: State) -> None:
    if isinstance(job, TrainingJob):
        training.stop(job, state=state)
    else:
        processing.stop(job, state=state)
