"""Pipelines are stopped before they are deleted: AWS deletes none of which something runs."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.clearance import remove
from darkroom.backends.sagemaker.tagged import Thing
from darkroom.errors import DarkroomError

PIPELINE = Thing("pipeline", name="digits-1", arn="arn")


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
