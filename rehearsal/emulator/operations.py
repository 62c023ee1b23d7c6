"""The registry of what the emulator does itself.

SageMaker operations, by name. The request is checked already, against botocore's service
model and `request_rules`; timestamps in the answer are aware datetimes:

    @operation("DescribeTrainingJob")
    def describe_training_job(request: Request, *, state: State) -> Answer: …

Anything else by method and path, such as sagemaker-runtime's REST calls; names in the path
arrive as keyword arguments:

    @route("POST", "/endpoints/(?P<endpoint>[^/]+)/invocations")
    def invoke(call: werkzeug.Request, *, state: State, endpoint: str) -> werkzeug.Response: …

Both may raise AwsError. An operation that answers None leaves the request to moto. A module
is found when it is listed in MODULES.
"""

import importlib
import re
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
)

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Operation = Callable[..., Answer | None]
Route = Callable[..., Response]

_OPERATIONS: dict[str, Operation] = {}
_ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def operation(name: str) -> Callable[[Operation], Operation]:
    """Register a function as a SageMaker operation."""

    def register(function: Operation) -> Operation:
        _OPERATIONS[name] = function
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
