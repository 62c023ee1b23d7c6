"""The log of a training job, read from CloudWatch while it is written."""

from collections import deque
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.clients import Clients

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import GetLogEventsRequestTypeDef, OutputLogEventTypeDef

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
