"""What botocore's model of a service says against a request.

botocore itself, before it sends one, looks at names, types and lower bounds; patterns,
choices and upper bounds are left to the service, and looked at here.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

_NOT_PYTHONS = re.compile(r"\\p\{|\\u[0-9A-F]{4}|\[:")
"""Character classes of Java's that Python's patterns lack."""


@cache
def service_model(service: str) -> ServiceModel:
    """All operations and shapes of a service; reading them takes a while."""
    return botocore.session.get_session().get_service_model(service)


def model_problems(request: dict[str, Any], *, service: str, operation: str) -> list[str]:
    """Members that are unknown, missing, of a wrong type or of a value that is not allowed."""
    shape = service_model(service).operation_model(operation).input_shape
    if shape is None:
        return []
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        return [f"{operation}: {line}" for line in report.generate_report().splitlines()]
    return list(_problems(request, shape=shape, path=operation))


def _problems(value: Any, *, shape: Shape, path: str) -> Iterator[str]:  # noqa: ANN401
    if isinstance(shape, StructureShape):
        for name, item in value.items():
            yield from _problems(item, shape=shape.members[name], path=f"{path}.{name}")
    elif isinstance(shape, ListShape):
        yield from _too_much(len(value), unit=" items", shape=shape, path=path)
        for item in value:
            yield from _problems(item, shape=shape.member, path=path)
    elif isinstance(shape, MapShape):
        yield from _too_much(len(value), unit=" entries", shape=shape, path=path)
        for name, item in value.items():
            yield from _problems(name, shape=shape.key, path=path)
            yield from _problems(item, shape=shape.value, path=f"{path}.{name}")
    elif isinstance(shape, StringShape):
        yield from _text_problems(value, shape=shape, path=path)
    elif shape.type_name in ("integer", "long"):
        yield from _too_much(value, unit="", shape=shape, path=path)


def _too_much(value: int, *, unit: str, shape: Shape, path: str) -> Iterator[str]:
    most = shape.metadata.get("max")
    if most is not None and value > most:
        yield f"{path}: {value}{unit} is more than {most}"


def _text_problems(value: str, *, shape: StringShape, path: str) -> Iterator[str]:
    yield from _too_much(len(value), unit=" characters", shape=shape, path=path)
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not among the {len(shape.enum)} values that AWS knows"
    pattern = str(shape.metadata.get("pattern", ""))
    if pattern and not _NOT_PYTHONS.search(pattern) and not re.fullmatch(pattern, value):
        yield f"{path}: {value!r} does not match {pattern}"
