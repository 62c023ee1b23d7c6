"""SageMaker's operations on executions of pipelines; moto keeps the pipelines themselves."""

import json
import secrets
import threading
from typing import Any

from rehearsal.emulator.errors import not_found
from rehearsal.emulator.listing import cut, is_in_time
from rehearsal.emulator.operations import Answer, Request, awaited, operation
from rehearsal.emulator.state import State
from rehearsal.jobs import pipeline_definition, pipelines
from rehearsal.jobs.pipelines import PipelineExecution, Step
from rehearsal.jobs.training_job import TrainingJob

_PAGE = {"MaxResults": 100}


@operation("CreatePipeline")
def create_pipeline(request: Request, *, state: State) -> None:
    """Check the definition; moto keeps it."""
    if "PipelineDefinition" in request:
        pipeline_definition.parse(request["PipelineDefinition"])


@operation("UpdatePipeline")
def update_pipeline(request: Request, *, state: State) -> None:
    """Check the definition; moto keeps it."""
    create_pipeline(request, state=state)


@operation("StartPipelineExecution")
def start_pipeline_execution(request: Request, *, state: State) -> Answer:
    """Begin an execution."""
    name = request["PipelineName"].rpartition("/")[2]
    kept = _kept_pipeline(name, state=state)
    definition = pipeline_definition.parse(kept["PipelineDefinition"])
    parameters = _parameters(definition, request)
    pipeline_definition.check_executed(definition, parameters=parameters, state=state)
    parallel = request.get("ParallelismConfiguration") or kept.get("ParallelismConfiguration") or {}
    execution = PipelineExecution(
        pipeline=name,
        arn=state.arn("pipeline", f"{name}/execution/{secrets.token_hex(6)}"),
        definition=definition,
        request=request,
        parameters=parameters,
        parallel=parallel.get("MaxParallelExecutionSteps", 0),
    )
    pipelines.launch(execution, state=state)
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
    pipelines.stop(execution, state=state)
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
