"""Executions of SageMaker pipelines: their steps as jobs, in the order of their needs.

Steps that need nothing of each other run side by side. When one fails, no other is begun;
those that run are waited for, and the execution has failed.
"""

import json
import re
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any

from rehearsal.emulator.errors import AwsError, invalid, not_executed, not_found
from rehearsal.emulator.operations import Answer, Request, awaited, cut, is_in_time, operation
from rehearsal.emulator.state import State, now
from rehearsal.emulator.validation import check_request
from rehearsal.jobs import processing, training
from rehearsal.jobs.container import unknown_image
from rehearsal.jobs.processing import ProcessingJob
from rehearsal.jobs.training_job import TrainingJob

# --- pipeline definition ---
# A SageMaker pipeline's JSON definition: its steps, their order, values known only later.
#
# {"Get": "Parameters.<name>"}                          a parameter of the execution
# {"Get": "Execution.PipelineExecutionArn"}             also PipelineName, PipelineExecutionId
# and StartDateTime
# {"Get": "Steps.<step>.ModelArtifacts.S3ModelArtifacts"}   from a step's Describe answer
# {"Std:Join": {"On": "/", "Values": […]}}              texts put together

EXECUTED = ("Training", "Processing")
_PART = re.compile(r"([^.\[\]]+)|\[['\"]?([^\]'\"]+)['\"]?\]")
_GET = "Get"
_JOIN = "Std:Join"


def parse(text: str) -> dict[str, Any]:
    """The definition, checked.

    Raises:
        AwsError: ValidationException, with what is wrong.
    """
    try:
        definition = json.loads(text)
        steps = definition["Steps"]
        names = [step["Name"] for step in steps]
    except (ValueError, KeyError, TypeError) as error:
        raise invalid(f"Invalid pipeline definition: {error!r}") from error
    for name in {name for name in names if names.count(name) > 1}:
        raise invalid(f"Invalid pipeline definition: the step name {name!r} is there twice")
    for step in steps:
        for other in dependencies(step):
            if other not in names:
                raise invalid(f"step {step['Name']!r} depends on {other!r}, which is no step")
    _check_order(steps)
    found: dict[str, Any] = definition
    return found


def check_executed(
    definition: Mapping[str, Any], *, parameters: Mapping[str, Any], state: State
) -> None:
    """Refuse steps that the rehearsal cannot run.

    Raises:
        AwsError: NotExecutedInRehearsal.
    """
    others = sorted({s["Type"] for s in definition["Steps"] if s["Type"] not in EXECUTED})
    if others:
        raise not_executed(
            "this pipeline", why=f"only steps of {' and '.join(EXECUTED)} are run, not {others}"
        )
    images = {_image(step["Arguments"], parameters=parameters) for step in definition["Steps"]}
    unknown = [why for uri in sorted(images) if uri and (why := unknown_image(uri, state=state))]
    if unknown:
        raise not_executed("this pipeline", why="; ".join(unknown))


def dependencies(step: Mapping[str, Any]) -> set[str]:
    """The steps that must have succeeded first: named, or needed for a value."""
    needed = {path.split(".")[1] for path in _gets(step) if path.startswith("Steps.")}
    return needed | set(step.get("DependsOn", ()))


def resolve(value: Any, *, get: Callable[[str], Any]) -> Any:  # noqa: ANN401  JSON
    """Replace all Get and Std:Join in a step's arguments.

    Args:
        get: the value of a path such as "Parameters.x".
    """
    if isinstance(value, Mapping):
        if set(value) == {_GET}:
            return get(value[_GET])
        if set(value) == {_JOIN}:
            join = value[_JOIN]
            return join["On"].join(str(resolve(part, get=get)) for part in join["Values"])
        return {name: resolve(member, get=get) for name, member in value.items()}
    if isinstance(value, list):
        return [resolve(member, get=get) for member in value]
    return value


def follow(path: str, *, start: Any) -> Any:  # noqa: ANN401  JSON
    """The member of an answer that a path leads to, as `A.B['C'].D[0]`.

    Raises:
        AwsError: there is none.
    """
    for name, index in _PART.findall(path):
        key = name or index
        try:
            start = start[int(key)] if isinstance(start, Sequence) else start[key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise invalid(f"the pipeline's value {path!r} does not exist: no {key!r}") from error
    return start


def _image(arguments: Mapping[str, Any], *, parameters: Mapping[str, Any]) -> str:
    """The image of a step, where it is known before the steps run; else empty."""
    named = arguments.get("AlgorithmSpecification", {}).get("TrainingImage")
    named = named or arguments.get("AppSpecification", {}).get("ImageUri")
    if isinstance(named, Mapping) and str(named.get(_GET, "")).startswith("Parameters."):
        named = parameters.get(str(named[_GET]).partition(".")[2])
    return named if isinstance(named, str) else ""


def _gets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if set(value) == {_GET}:
            yield str(value[_GET])
        for member in value.values():
            yield from _gets(member)
    elif isinstance(value, list):
        for member in value:
            yield from _gets(member)


def _check_order(steps: Sequence[Mapping[str, Any]]) -> None:
    waiting = {step["Name"]: dependencies(step) for step in steps}
    while waiting:
        ready = {name for name, needed in waiting.items() if not needed & set(waiting)}
        if not ready:
            raise invalid(f"Invalid pipeline definition: {sorted(waiting)} wait for each other")
        for name in ready:
            del waiting[name]


# --- pipelines ---

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
    ready = [n for n, s in waiting.items() if dependencies(s) <= succeeded]
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
    from rehearsal.jobs.processing import check_processing_request
    from rehearsal.jobs.request_checks import check_training_request

    arguments = resolve(
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
    from rehearsal.jobs.processing import describe
    from rehearsal.jobs.training_job import describe as describe_training

    root, _, rest = path.partition(".")
    if root == "Steps":
        name, _, rest = rest.partition(".")
        job = execution.steps[name].job
        if isinstance(job, TrainingJob):
            return follow(rest, start=describe_training(job, state=state))
        if job is not None:
            return follow(rest, start=describe(job, state=state))
    known = {
        "Parameters": execution.parameters,
        "Execution": {
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionId": execution.id,
            "PipelineName": execution.pipeline,
            "StartDateTime": execution.created.isoformat(),
        },
    }
    return follow(path, start=known)


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


# --- pipeline operations ---
# SageMaker's operations on executions of pipelines; moto keeps the pipelines themselves.

_PAGE = {"MaxResults": 100}


@operation("CreatePipeline")
def create_pipeline(request: Request, *, state: State) -> None:
    """Check the definition; moto keeps it."""
    if "PipelineDefinition" in request:
        parse(request["PipelineDefinition"])


@operation("UpdatePipeline")
def update_pipeline(request: Request, *, state: State) -> None:
    """Check the definition; moto keeps it."""
    create_pipeline(request, state=state)


@operation("StartPipelineExecution")
def start_pipeline_execution(request: Request, *, state: State) -> Answer:
    """Begin an execution."""
    name = request["PipelineName"].rpartition("/")[2]
    kept = _kept_pipeline(name, state=state)
    definition = parse(kept["PipelineDefinition"])
    parameters = _parameters(definition, request)
    check_executed(definition, parameters=parameters, state=state)
    parallel = request.get("ParallelismConfiguration") or kept.get("ParallelismConfiguration") or {}
    execution = PipelineExecution(
        pipeline=name,
        arn=state.arn("pipeline", f"{name}/execution/{secrets.token_hex(6)}"),
        definition=definition,
        request=request,
        parameters=parameters,
        parallel=parallel.get("MaxParallelExecutionSteps", 0),
    )
    launch(execution, state=state)
    return {"PipelineExecutionArn": execution.arn}


@operation("DescribePipelineExecution")
def describe_pipeline_execution(request: Request, *, state: State) -> Answer:
    """The state of an execution."""
    execution = _execution(request, state=state)
    answer = {"PipelineArn": state.arn("pipeline", execution.pipeline), **_row(execution)}
    if execution.failure:
        answer["FailureReason"] = execution.failure
    return answer | {"CreationTime": execution.created, "LastModifiedTime": execution.modified}


@awaited("DescribePipelineExecution")
def execution_end(request: Request, *, state: State) -> threading.Event:
    """What waiters wait for."""
    return _execution(request, state=state).done


@operation("ListPipelineExecutionSteps")
def list_pipeline_execution_steps(request: Request, *, state: State) -> Answer:
    """The steps that were begun, the last first."""
    execution = _execution(request, state=state)
    rows = [_step_row(step) for step in execution.steps.values()]
    if request.get("SortOrder", "Descending") == "Descending":
        rows.reverse()
    return cut(rows, request={**_PAGE, **request}, key="PipelineExecutionSteps")


@operation("ListPipelineExecutions")
def list_pipeline_executions(request: Request, *, state: State) -> Answer:
    """All executions of a pipeline."""
    name = request["PipelineName"].rpartition("/")[2]
    _kept_pipeline(name, state=state)
    found = [e for e in state.kept(PipelineExecution).values() if e.pipeline == name]
    found = [
        e
        for e in found
        if is_in_time({"Start": e.created}, request, field="Start", prefix="Created")
    ]
    by = {"PipelineExecutionArn": lambda e: e.arn}.get(request.get("SortBy", ""))
    found.sort(key=by or (lambda e: e.created))
    if request.get("SortOrder", "Descending") == "Descending":
        found.reverse()
    rows = [_row(e) | {"StartTime": e.created} for e in found]
    return cut(rows, request={**_PAGE, **request}, key="PipelineExecutionSummaries")


@operation("StopPipelineExecution")
def stop_pipeline_execution(request: Request, *, state: State) -> Answer:
    """Ask an execution to end."""
    execution = _execution(request, state=state)
    stop(execution, state=state)
    return {"PipelineExecutionArn": execution.arn}


@operation("DescribePipelineDefinitionForExecution")
def describe_definition(request: Request, *, state: State) -> Answer:
    """The definition that an execution runs."""
    execution = _execution(request, state=state)
    text = json.dumps(execution.definition)
    return {"PipelineDefinition": text, "CreationTime": execution.created}


def _row(execution: PipelineExecution) -> dict[str, Any]:
    row = {
        "PipelineExecutionArn": execution.arn,
        "PipelineExecutionStatus": execution.status,
    }
    for member in ("PipelineExecutionDisplayName", "PipelineExecutionDescription"):
        if member in execution.request:
            row[member] = execution.request[member]
    return row


def _step_row(step: Step) -> dict[str, Any]:
    row: dict[str, Any] = {"StepName": step.name, "StepStatus": step.status}
    later = {"StartTime": step.started, "EndTime": step.ended, "FailureReason": step.failure}
    row |= {name: value for name, value in later.items() if value}
    if step.job is not None:
        kind = "TrainingJob" if isinstance(step.job, TrainingJob) else "ProcessingJob"
        row["Metadata"] = {kind: {"Arn": step.job.arn}}
    return row


def _parameters(definition: Request, request: Request) -> dict[str, Any]:
    standard = {
        p["Name"]: p["DefaultValue"]
        for p in definition.get("Parameters", ())
        if "DefaultValue" in p
    }
    return standard | {p["Name"]: p["Value"] for p in request.get("PipelineParameters", ())}


def _kept_pipeline(name: str, *, state: State) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = state.clients["sagemaker"].describe_pipeline(PipelineName=name)
    except ClientError as error:
        arn = state.arn("pipeline", name)
        raise not_found(f"Pipeline '{arn}' does not exist.") from error
    return answer


def _execution(request: Request, *, state: State) -> PipelineExecution:
    arn = request["PipelineExecutionArn"]
    execution = state.kept(PipelineExecution).get(arn)
    if execution is None:
        raise not_found(f"Pipeline execution {arn!r} does not exist.")
    return execution
