"""The registry of what the emulator does itself.

SageMaker operations, by name. The request is checked already, against botocore's service
model and `request_rules`; timestamps in the answer are aware datetimes:

    @operation("DescribeTrainingJob")
    def describe_training_job(request: Request, *, state: State) -> Answer: …

Anything else by method and path, such as sagemaker-runtime's REST calls; names in the path
arrive as keyword arguments:

    @route("POST", "/endpoints/(?P<endpoint>[^/]+)/invocations")
    def invoke(call: werkzeug.Request, *, state: State, endpoint: str) -> werkzeug.Response: …

What an SDK's waiter asks again and again may tell the event that it waits for; then the
waiter is answered when that happens, instead of after its next pause:

    @awaited("DescribeTrainingJob")
    def training_end(request: Request, *, state: State) -> threading.Event | None: …

All may raise AwsError. An operation that answers None leaves the request to moto. A module
is found when it is listed in MODULES.
"""

import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from werkzeug.wrappers import Request as HttpRequest
from werkzeug.wrappers import Response

from rehearsal.emulator.errors import invalid

# --- operations ---

MODULES = (
    "rehearsal.emulator.control",
    "rehearsal.emulator.tags",
    "rehearsal.jobs.training_operations",
    "rehearsal.jobs.processing",
    "rehearsal.jobs.pipelines",
    "rehearsal.tuning.operations",
    "rehearsal.tuning.jobs",
    "rehearsal.hosting.model_operations",
    "rehearsal.hosting.endpoint_operations",
    "rehearsal.hosting.runtime_operations",
    "rehearsal.hosting.records",
    "rehearsal.transform.operations",
    "rehearsal.transform.operations",
    "rehearsal.registry.packages",
    "rehearsal.registry.lineage",
    "rehearsal.registry.packages",
)

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Operation = Callable[..., Answer | None]
Route = Callable[..., Response]
Awaited = Callable[..., threading.Event | None]

_OPERATIONS: dict[str, Operation] = {}
_AWAITED: dict[str, Awaited] = {}
_ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def operation(name: str) -> Callable[[Operation], Operation]:
    """Register a function as a SageMaker operation."""

    def register(function: Operation) -> Operation:
        _OPERATIONS[name] = function
        return function

    return register


def awaited(name: str) -> Callable[[Awaited], Awaited]:
    """Register a function that tells what a waiter of an operation waits for."""

    def register(function: Awaited) -> Awaited:
        _AWAITED[name] = function
        return function

    return register


def route(method: str, path: str) -> Callable[[Route], Route]:
    """Register a function for requests whose whole path matches a regular expression."""

    def register(function: Route) -> Route:
        _ROUTES.append((method, re.compile(path), function))
        return function

    return register


def operation_named(name: str) -> Operation | None:
    """The function that executes a SageMaker operation; None where we have none."""
    _load()
    return _OPERATIONS.get(name)


def event_of(name: str, request: Request, *, state: object) -> threading.Event | None:
    """What a waiter that calls this operation waits for; None where nobody knows."""
    function = _AWAITED.get(name)
    return function(request, state=state) if function else None


def answer_route(call: HttpRequest, *, state: object) -> Response | None:
    """What the route for this method and path answers; None where there is none."""
    _load()
    for method, pattern, function in _ROUTES:
        if method == call.method and (match := pattern.fullmatch(call.path)):
            return function(call, state=state, **match.groupdict())
    return None


@cache
def _load() -> None:
    for module in MODULES:
        importlib.import_module(module)


# --- listing ---
# What all List operations have in common: filters, order, pages.

_PAGE = 100
_STANDARD_ORDER = "Descending"


def page(rows: Sequence[Mapping[str, Any]], *, request: Request, key: str, kind: str) -> Answer:
    """The rows that the request asks for.

    Args:
        rows: with <kind>Name, CreationTime, LastModifiedTime, <kind>Status.
        key: name of the list in the answer.
        kind: such as "TrainingJob".
    """
    chosen = [row for row in rows if _matches(row, request, kind=kind)]
    field = {"Name": f"{kind}Name", "Status": f"{kind}Status"}.get(
        request.get("SortBy", "CreationTime"), "CreationTime"
    )
    descending = request.get("SortOrder", _STANDARD_ORDER) == "Descending"
    chosen.sort(key=lambda row: row.get(field, ""), reverse=descending)
    return cut(chosen, request=request, key=key)


def cut(rows: Sequence[Mapping[str, Any]], *, request: Request, key: str) -> Answer:
    """One page of rows that are in order already."""
    start = _start(request.get("NextToken", "0"))
    end = start + int(request.get("MaxResults", _PAGE))
    answer: dict[str, Any] = {key: list(rows[start:end])}
    if end < len(rows):
        answer["NextToken"] = str(end)
    return answer


def _start(token: str) -> int:
    if not token.isdecimal():
        raise invalid(f"Invalid NextToken: {token!r}")
    return int(token)


def _matches(row: Mapping[str, Any], request: Request, *, kind: str) -> bool:
    name, status = str(row.get(f"{kind}Name", "")), row.get(f"{kind}Status")
    return (
        request.get("NameContains", "").lower() in name.lower()
        and request.get("StatusEquals", status) == status
        and is_in_time(row, request, field="CreationTime")
        and is_in_time(row, request, field="LastModifiedTime")
    )


def is_in_time(row: Mapping[str, Any], request: Request, *, field: str, prefix: str = "") -> bool:
    """Whether a moment of a row lies between those of <prefix>After and <prefix>Before.

    Args:
        field: of the row, and the prefix where none is given.
    """
    prefix = prefix or field
    moment = row.get(field)
    after, before = request.get(f"{prefix}After"), request.get(f"{prefix}Before")
    if not isinstance(moment, datetime):
        return True
    return (after is None or moment >= _moment(after)) and (
        before is None or moment <= _moment(before)
    )


def _moment(value: float) -> datetime:
    """Timestamps travel as seconds since 1970."""
    return datetime.fromtimestamp(value, UTC)
