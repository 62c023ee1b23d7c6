"""Logs of jobs in CloudWatch, and the metrics in their lines."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from darkroom.backends.sagemaker.session import Clients, is_missing
from darkroom.telemetry.epochs import LOGGED, EpochMetrics, kept_values

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import GetLogEventsRequestTypeDef, OutputLogEventTypeDef


# --- metric lines ---
# Metrics out of log lines: SageMaker's definitions of them, and our own reading.

_NUMBER = r"([-+0-9.eE]+)"


class MetricDefinition(TypedDict):
    """As boto3 takes it."""

    Name: str
    Regex: str


def metric_definitions() -> list[MetricDefinition]:
    """By which SageMaker finds in a log what EpochMetrics.log_line prints."""
    return [MetricDefinition(Name=name, Regex=rf"\b{re.escape(name)}={_NUMBER}") for name in LOGGED]


class EpochReader:
    """Epochs from the lines of one job: each once and in order.

    A job that was interrupted prints the epochs before the interruption again.
    """

    def __init__(self) -> None:
        self.history: list[EpochMetrics] = []
        self.kept: dict[str, float] = {}
        """Validation metrics of the epoch whose weights were kept; empty until it is known."""

    def read(self, lines: Iterable[str]) -> Iterator[EpochMetrics]:
        """The epochs that are new."""
        for line in lines:
            if values := kept_values(line):
                self.kept = values
            elif epoch := EpochMetrics.from_log_line(line):
                yield from self.add([epoch])

    def add(self, epochs: Iterable[EpochMetrics]) -> Iterator[EpochMetrics]:
        """Those of some epochs that are new."""
        for epoch in epochs:
            if not self.history or epoch.epoch > self.history[-1].epoch:
                self.history.append(epoch)
                yield epoch


# --- container log ---
# What containers printed last, in CloudWatch.

ENDPOINTS = "/aws/sagemaker/Endpoints/"
"""A log group for each endpoint; its name follows."""
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
"""One log group, whose streams begin with the job's name."""

_LINES_SHOWN = 20
_STREAMS_SHOWN = 4


def last_lines(group: str, *, clients: Clients, stream: str = "") -> str:
    """The last lines of a log group, as far as they can be had.

    Args:
        stream: what the streams' names begin with; empty: the streams written to last.
    """
    try:
        lines = [
            line
            for name in _streams(group, clients=clients, stream=stream)
            for line in _lines(group, clients=clients, stream=name)
        ]
    except (ClientError, BotoCoreError):  # whoever asks has a reason that is worth more
        lines = []
    return "\n".join(lines[-_LINES_SHOWN:]) or f"(nothing in the log group {group})"


def _streams(group: str, *, clients: Clients, stream: str) -> list[str]:
    """Names, those written to last at the end."""
    if stream:
        found = clients.logs.describe_log_streams(
            logGroupName=group, logStreamNamePrefix=stream, limit=_STREAMS_SHOWN
        )
        return [one["logStreamName"] for one in found["logStreams"]]
    found = clients.logs.describe_log_streams(
        logGroupName=group, orderBy="LastEventTime", descending=True, limit=_STREAMS_SHOWN
    )
    return [one["logStreamName"] for one in reversed(found["logStreams"])]


def _lines(group: str, *, clients: Clients, stream: str) -> Iterator[str]:
    answer = clients.logs.get_log_events(
        logGroupName=group, logStreamName=stream, limit=_LINES_SHOWN
    )
    return (event["message"].rstrip() for event in answer["events"])


# --- job logs ---

GROUP = "/aws/sagemaker/TrainingJobs"
_LINES_KEPT = 20
_EMPTY_PAGES = 5


class JobLog:
    """What the machines of a job print: each line once, by time.

    Each start of each machine has a stream of its own; they appear late, and more of them
    after an interruption.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self._tokens: dict[str, str | None] = {}
        """How far each stream was read."""
        self._arrived: list[OutputLogEventTypeDef] = []
        self._last: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def last_lines(self) -> list[str]:
        """The newest of the lines that were read."""
        return list(self._last)

    def new_lines(self, clients: Clients) -> list[str]:
        """The lines that came since the last call; none while there is no log.

        When it raises, what was read until then is returned by the next call.

        Raises:
            ClientError, BotoCoreError: as boto3.
        """
        for stream in self._streams(clients):
            self._read(stream, clients=clients)
        events, self._arrived = self._arrived, []
        events.sort(key=lambda event: event.get("timestamp", 0))
        lines = [line for event in events for line in event.get("message", "").splitlines()]
        self._last.extend(lines)
        return lines

    def _streams(self, clients: Clients) -> list[str]:
        pages = clients.logs.get_paginator("describe_log_streams").paginate(
            logGroupName=GROUP, logStreamNamePrefix=f"{self._job}/"
        )
        try:
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if is_missing(error):  # the group, before the account's first job
                return []
            raise

    def _read(self, stream: str, *, clients: Clients) -> None:
        """Read on, page by page, until the token stays the same; pages between may be empty."""
        empty = 0
        while empty < _EMPTY_PAGES:
            token = self._tokens.get(stream)
            request: GetLogEventsRequestTypeDef = {
                "logGroupName": GROUP,
                "logStreamName": stream,
                "startFromHead": True,
            }
            if token:
                request["nextToken"] = token
            page = clients.logs.get_log_events(**request)
            self._arrived += page["events"]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:
                return
            empty = 0 if page["events"] else empty + 1
