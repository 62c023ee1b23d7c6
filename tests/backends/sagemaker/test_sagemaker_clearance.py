"""What is removed goes in an order that AWS accepts, and pipelines are stopped before: AWS deletes
none of which something runs."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker import cleanup
from darkroom.backends.sagemaker.cleanup import Selection, find, remove
from darkroom.backends.sagemaker.resources import Resource, ResourceKind
from darkroom.base.errors import DarkroomError, UserError

PIPELINE = Resource("pipeline", name="digits-1", arn="arn")


class Pipelines:
    """SageMaker with one pipeline, whose execution is seen in these states."""

    def __init__(self, *states: str, refusal: str = "") -> None:
        self._states, self._refusal = iter(states), refusal
        self.calls: list[str] = []

    def get_paginator(self, operation: str) -> "Pipelines":
        assert operation == "list_pipeline_executions"
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        state = next(self._states)
        one = {"PipelineExecutionArn": "execution", "PipelineExecutionStatus": state}
        yield {"PipelineExecutionSummaries": [one]}

    def stop_pipeline_execution(self, **_: str) -> None:
        self.calls.append("stop")

    def delete_pipeline(self, **_: str) -> None:
        self.calls.append("delete")
        if self._refusal:
            raise ClientError({"Error": {"Code": self._refusal}}, "DeletePipeline")


def removed(service: Pipelines) -> list[str]:
    clients: Any = SimpleNamespace(sagemaker=service)
    remove(PIPELINE, clients=clients, pause=lambda seconds: service.calls.append("wait"))
    return service.calls


def test_an_execution_is_stopped_and_waited_for() -> None:
    service = Pipelines("Executing", "Stopping", "Stopping", "Stopped")
    assert removed(service) == ["stop", "wait", "wait", "delete"]


def test_one_that_has_ended_is_not_stopped() -> None:
    assert removed(Pipelines("Succeeded", "Succeeded")) == ["delete"]


def test_a_pipeline_that_is_gone_is_fine() -> None:
    assert removed(Pipelines("Failed", "Failed", refusal="ResourceNotFound")) == ["delete"]


def test_a_pipeline_that_aws_does_not_delete_is_told() -> None:
    with pytest.raises(DarkroomError, match=r"pipeline 'digits-1'.*DeletePipeline"):
        removed(Pipelines("Failed", "Failed", refusal="ValidationException"))


ORDER: tuple[ResourceKind, ...] = (
    "training job",
    "tuning job",
    "processing job",
    "transform job",
    "pipeline",
    "endpoint",
    "endpoint configuration",
    "model",
    "alarm",
)
"""What uses others goes before them: a job that still runs could make what is already gone anew, an
endpoint needs its configuration, and that its model."""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thing of each kind by each of two runs."""

    def tagged(kind: ResourceKind, **_: Any) -> list[Resource]:
        return [
            Resource(kind, name=f"{kind} {run}", arn=run, tags=tags)
            for run in ("1", "2")
            for tags in [{"darkroom:run": run, "darkroom:endpoint": f"endpoint {run}"}]
        ]

    monkeypatch.setattr(cleanup, "tagged", tagged)


def kinds(selection: Selection) -> list[str]:
    return [f"{thing.kind} {thing.arn}" for thing in find(selection, clients=cast("Any", None))]


@pytest.mark.usefixtures("account")
def test_what_uses_others_goes_before_them() -> None:
    everything = kinds(Selection(everything=True))
    assert everything == [f"{kind} {run}" for kind in ORDER for run in ("1", "2")]
    assert kinds(Selection(run="2")) == [f"{kind} 2" for kind in ORDER]


@pytest.mark.usefixtures("account")
def test_by_an_endpoints_name_no_job_goes() -> None:
    served = ORDER[ORDER.index("endpoint") :]
    assert kinds(Selection(name="endpoint 1")) == [f"{kind} 1" for kind in served]
    assert kinds(Selection(name="endpoint 3")) == []


@pytest.mark.usefixtures("account")
def test_nothing_that_serves_is_expired_without_a_time() -> None:
    assert kinds(Selection(expired=True)) == []


def belonging(kind: ResourceKind, *, run: str, endpoint: str) -> Resource:
    name = f"{kind} of {endpoint or 'nothing'} by {run}"
    return Resource(
        kind, name=name, arn=name, tags={"darkroom:run": run, "darkroom:endpoint": endpoint}
    )


@pytest.mark.parametrize(
    ("selection", "models"),
    [
        (Selection(run="1"), ["gone by 1", "nothing by 1"]),
        (Selection(name="live"), ["live by 1", "live by 3"]),
        (Selection(name="gone"), ["gone by 1", "gone by 2"]),
        (
            Selection(everything=True),
            ["live by 1", "live by 3", "gone by 1", "gone by 2", "nothing by 1"],
        ),
        (Selection(expired=True), []),
    ],
)
def test_what_belongs_to_an_endpoint_shares_its_fate(
    monkeypatch: pytest.MonkeyPatch, selection: Selection, models: list[str]
) -> None:
    """One endpoint lives, of run 3; run 1 made its first model. Another is gone already."""
    owners = [("live", "1"), ("live", "3"), ("gone", "1"), ("gone", "2"), ("", "1")]
    things = {
        "endpoint": [Resource("endpoint", name="live", arn="", tags={"darkroom:run": "3"})],
        "model": [belonging("model", run=run, endpoint=of) for of, run in owners],
    }
    monkeypatch.setattr(cleanup, "tagged", lambda kind, **_: things.get(kind, []))
    found = find(selection, clients=cast("Any", None))
    expected = [f"model of {name}" for name in models]
    assert [thing.name for thing in found if thing.kind == "model"] == expected


@pytest.mark.parametrize(
    ("kind", "code", "is_fine"),
    [
        ("training job", "ValidationException", True),
        ("training job", "ResourceNotFound", True),
        ("training job", "AccessDeniedException", False),
        ("pipeline", "ValidationException", False),
    ],
)
def test_a_job_that_has_ended_needs_no_stop(kind: ResourceKind, code: str, is_fine: bool) -> None:
    def refuse(**_: str) -> None:
        raise ClientError({"Error": {"Code": code, "Message": code}}, "Stop")

    service = Pipelines("Failed", "Failed", refusal=code)
    vars(service)["stop_training_job"] = refuse
    thing = Resource(kind, name="one", arn="arn")
    clients: Any = SimpleNamespace(sagemaker=service)
    expected = nullcontext() if is_fine else pytest.raises((DarkroomError, UserError))
    with expected:
        remove(thing, clients=clients, pause=lambda seconds: None)
