"""What containers printed last, in CloudWatch."""

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from darkroom.backends.sagemaker.clients import Clients

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
