"""FilterLogEvents as CloudWatch answers it; moto knows neither prefixes nor its order."""

from collections.abc import Mapping
from typing import Any

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State

FILTER_LOG_EVENTS = "Logs_20140328.FilterLogEvents"
_NO_STREAM = ":"
"""No stream can be named so; moto takes an empty list of names for all streams."""


def named_streams(request: Mapping[str, Any], *, state: State) -> dict[str, Any]:
    """The same request with the streams by name, and in CloudWatch's order.

    Raises:
        AwsError: streams are asked for by name and by prefix.
    """
    # Events of several streams always come in the order of their times.
    completed = {**request, "interleaved": True}
    prefix = completed.pop("logStreamNamePrefix", None)
    if prefix is None:
        return completed
    if completed.get("logStreamNames"):
        raise AwsError(
            "InvalidParameterException",
            "logStreamNamePrefix and logStreamNames cannot both be given.",
        )
    names = _stream_names(str(completed.get("logGroupName", "")), state=state)
    chosen = [name for name in names if name.startswith(prefix)]
    return {**completed, "logStreamNames": chosen or [_NO_STREAM]}


def _stream_names(group: str, *, state: State) -> list[str]:
    from moto.logs.models import logs_backends

    groups = logs_backends[state.settings.account][state.settings.region].groups
    return list(groups[group].streams) if group in groups else []
