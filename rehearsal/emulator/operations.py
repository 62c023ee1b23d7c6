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
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from werkzeug.wrappers import Request as HttpRequest
from werkzeug.wrappers import Response

MODULES = (
    "rehearsal.emulator.control",
    "rehearsal.emulator.tag_operations",
    "rehearsal.jobs.training_operations",
    "rehearsal.jobs.processing_operations",
    "rehearsal.jobs.pipeline_operations",
    "rehearsal.tuning.operations",
    "rehearsal.tuning.job_records",
    "rehearsal.hosting.model_operations",
    "rehearsal.hosting.endpoint_operations",
    "rehearsal.hosting.runtime_operations",
    "rehearsal.hosting.records",
    "rehearsal.transform.operations",
    "rehearsal.transform.job_records",
    "rehearsal.registry.package_operations",
    "rehearsal.registry.lineage",
    "rehearsal.registry.search",
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
