"""Logs that come late, in pieces, from several machines; and the epochs in them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.jobs.follower import job_failure
from darkroom.backends.sagemaker.jobs.logs import EpochReader, JobLog
from darkroom.base.errors import DarkroomError, UserError
from darkroom.telemetry.epochs import EpochMetrics


class Logs:
    """CloudWatch's logs, two lines a page, as far as they have been written."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[int, str]]] | None = None
        self.fails_at: str | None = None

    def get_paginator(self, operation: str) -> Any:
        assert operation == "describe_log_streams"
        return SimpleNamespace(paginate=self._describe)

    def _describe(self, **request: str) -> Iterator[Any]:
        if self.streams is None:
            code = {"Error": {"Code": "ResourceNotFoundException", "Message": "no group"}}
            raise ClientError(code, "DescribeLogStreams")
        for name in self.streams:
            if name.startswith(request["logStreamNamePrefix"]):
                yield {"logStreams": [{"logStreamName": name}]}

    def get_log_events(self, **request: Any) -> Any:
        assert request["startFromHead"]
        stream = request["logStreamName"]
        if stream == self.fails_at:
            self.fails_at = None
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "GetLogEvents")
        assert self.streams is not None
        start = int(request.get("nextToken", "0"))
        page = self.streams[stream][start : start + 2]
        events = [{"timestamp": time, "message": text} for time, text in page]
        return {"events": events, "nextForwardToken": str(start + len(page))}


@pytest.fixture
def logs() -> Logs:
    return Logs()


@pytest.fixture
def clients(logs: Logs) -> Any:
    return SimpleNamespace(logs=logs)


def test_a_log_that_is_not_there_yet_is_empty(logs: Logs, clients: Any) -> None:
    log = JobLog("job-1")
    assert log.new_lines(clients) == []
    logs.streams = {}
    assert log.new_lines(clients) == []


def test_each_line_is_read_once_over_pages_and_late_streams(logs: Logs, clients: Any) -> None:
    log = JobLog("job-1")
    logs.streams = {"job-1/algo-1-1": [(n, f"line {n}") for n in range(5)]}
    assert log.new_lines(clients) == [f"line {n}" for n in range(5)]
    assert log.new_lines(clients) == []
    logs.streams["job-1/algo-1-1"].append((7, "line 7"))
    logs.streams["job-1/algo-2-1"] = [(6, "line 6"), (8, "line 8")]
    assert log.new_lines(clients) == ["line 6", "line 7", "line 8"]
    assert log.last_lines[-1] == "line 8"


def test_another_jobs_log_is_not_read(logs: Logs, clients: Any) -> None:
    logs.streams = {"job-10/algo-1-1": [(1, "of another")]}
    assert JobLog("job-1").new_lines(clients) == []


def test_what_was_read_before_a_failure_is_not_lost(logs: Logs, clients: Any) -> None:
    log = JobLog("j")
    logs.streams = {"j/algo-1-1": [(1, "one"), (2, "two")], "j/algo-2-1": [(3, "three")]}
    logs.fails_at = "j/algo-2-1"
    with pytest.raises(ClientError):
        log.new_lines(clients)
    assert log.new_lines(clients) == ["one", "two", "three"]


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        learning_rate=0.1,
        train_loss=0.5,
        train_accuracy=0.5,
        validation={"f1_macro": number / 8},
        images_per_second=8,
        seconds=2,
    )


def test_each_epoch_is_told_once_and_in_order_though_a_resumed_job_repeats_them() -> None:
    reader = EpochReader()
    first = ["starting", epoch(1).log_line(), epoch(2).log_line(), "interrupted"]
    resumed = [epoch(n).log_line() for n in (1, 2, 3)]
    assert list(reader.read(first)) == [epoch(1), epoch(2)]
    assert list(reader.read([*resumed, epoch(3).kept_line()])) == [epoch(3)]
    assert reader.kept == {"f1_macro": 3 / 8}
    assert list(reader.add([epoch(n) for n in range(1, 5)])) == [epoch(4)]
    assert reader.history == [epoch(n) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("state", "reason", "kind", "message"),
    [
        ("Failed", "AlgorithmError: out of memory, exit code: 1", DarkroomError, "out of memory."),
        ("Failed", "AlgorithmError: , exit code: 137", DarkroomError, "exit code: 137."),
        ("Failed", "AlgorithmError: no images, exit code: 2", UserError, "no images."),
        ("Failed", "ClientError: Data download failed", UserError, "Data download failed."),
        ("Failed", "CapacityError: none left", DarkroomError, "none left. Run the same command"),
        ("Failed", "", DarkroomError, "SageMaker gives no reason."),
        ("MaxRuntimeExceeded", "", DarkroomError, "Raise sagemaker.training.max_runtime_seconds"),
        ("MaxWaitTimeExceeded", "", DarkroomError, "Raise sagemaker.training.max_wait_seconds"),
        ("Stopped", "", DarkroomError, "was stopped. The same command goes on"),
    ],
)
def test_a_failure_says_what_happened_and_what_to_do(
    state: str, reason: str, kind: type[DarkroomError], message: str
) -> None:
    status = "Failed" if state == "Failed" else "Stopped"
    error = job_failure("j", status=status, detail=state, reason=reason, log=["last"])
    assert type(error) is kind
    assert message in str(error)
    assert str(error).startswith("training job 'j' ")
    assert str(error).endswith("The last lines of its log:\n  last")
