"""Requests to AWS compared with files, and with botocore's description of the API.

Delete a file of tests/golden and run its test twice to write it anew; read what changed.
"""

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from checkout import TESTS
from darkroom.backends.sagemaker import request_rules

_FOLDER = TESTS / "golden"


def assert_golden(request: dict[str, Any], *, operation: str, name: str) -> None:
    """The request is valid, and what tests/golden/<name>.json says."""
    service, _, method = operation.partition(":")
    assert problems(request, service=service, operation=method) == []
    path = _FOLDER / f"{name}.json"
    text = json.dumps(request, indent=1, sort_keys=True) + "\n"
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"{path.name} was written; read it, and run again")
    assert json.loads(text) == json.loads(path.read_text())


def problems(request: dict[str, Any], *, service: str, operation: str) -> list[str]:
    """What AWS would say against a request: names, types, lengths, patterns, cross-field rules."""
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        return [report.generate_report()]
    rules = request_rules.problems(operation, request) if service == "sagemaker" else []
    return _beyond(request, shape=shape, path=operation) + [str(problem) for problem in rules]


def _beyond(value: Any, *, shape: Shape, path: str) -> list[str]:
    """What the service checks and botocore does not."""
    if isinstance(shape, StructureShape):
        return [
            problem
            for key, item in value.items()
            for problem in _beyond(item, shape=shape.members[key], path=f"{path}.{key}")
        ]
    if isinstance(shape, ListShape):
        return _more(len(value), shape=shape, path=path) + [
            problem
            for index, item in enumerate(value)
            for problem in _beyond(item, shape=shape.member, path=f"{path}[{index}]")
        ]
    if isinstance(shape, MapShape):
        return [p for k, v in value.items() for p in _beyond(v, shape=shape.value, path=path + k)]
    if isinstance(shape, StringShape):
        return _text_problems(value, shape=shape, path=path)
    return _more(value, shape=shape, path=path) if shape.type_name == "integer" else []


def _more(value: int, *, shape: Shape, path: str) -> list[str]:
    largest = shape.metadata.get("max")
    return [f"{path}: {value} is more than {largest}"] if largest and value > largest else []


def _text_problems(value: str, *, shape: StringShape, path: str) -> list[str]:
    found = _more(len(value), shape=shape, path=path)
    if shape.enum and value not in shape.enum:
        found.append(f"{path}: {value!r} is none of {shape.enum}")
    pattern = shape.metadata.get("pattern", "")
    is_pythons = not re.search(r"\\p\{|\\uD", pattern)  # Java's classes and code points
    if pattern and is_pythons and not re.fullmatch(pattern, value):
        found.append(f"{path}: {value!r} does not match {pattern}")
    return found
