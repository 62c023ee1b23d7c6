"""What AWS would refuse, refused here, before anything is done."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from darkroom.backends.sagemaker.request_rules import problems
from rehearsal.emulator.errors import AwsError, invalid
from rehearsal.emulator.members import check_members
from rehearsal.emulator.operations import operation_named
from rehearsal.emulator.state import State

# --- shapes ---
# Requests against botocore's service model, with the wording of AWS's answers.
#
# botocore itself checks only required members, types and minima before it sends; patterns,
# enumerations, maxima and nested unknown members are checked by AWS alone, and so here.

_KINDS: dict[str, tuple[type, ...]] = {
    "structure": (Mapping,),
    "map": (Mapping,),
    "list": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float, str),
}
_UNICODE = {
    "\\p{L}": "a-zA-Z\u00aa-\u1fff\u2c00-\uffef",
    "\\p{Alnum}": "a-zA-Z0-9",
    "\\p{M}": "\u0300-\u036f",
    "\\p{N}": "0-9",
    "\\p{Z}": " \u00a0\u2000-\u200a",
    "\\p{S}": "$+<=>^`|~",
    "\\p{P}": "!-#%-*,-/:;?@\\[-\\]_{}",
}
"""Python's `re` knows no Unicode classes: what of them tells mistakes from names."""

Shape = Any
Problems = Iterator[str]


def check_shape(service: str, operation: str, request: Mapping[str, Any]) -> None:
    """Compare a request with what the service model says.

    Args:
        service: botocore's name, such as "sagemaker".

    Raises:
        AwsError: ValidationException with all problems; SerializationException for types;
            UnknownOperationException.
    """
    model = _service(service)
    if operation not in model.operation_names:
        raise AwsError("UnknownOperationException", f"there is no operation {operation!r}")
    shape = model.operation_model(operation).input_shape
    problems = list(_structure(shape, request, place="")) if shape else []
    if problems:
        errors = "error" if len(problems) == 1 else "errors"
        text = "; ".join(problems)
        raise invalid(f"{len(problems)} validation {errors} detected: {text}")


@cache
def _service(name: str) -> Any:  # noqa: ANN401  botocore has no types here
    import botocore.session

    return botocore.session.Session().get_service_model(name)


def _check(shape: Shape, value: object, *, place: str) -> Problems:
    kinds = _KINDS.get(shape.type_name)
    if kinds and (not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,))):
        raise AwsError(
            "SerializationException",
            f"{place}: {type(value).__name__} can not be converted to {shape.type_name}",
        )
    check: Callable[..., Problems] | None = _CHECKS.get(shape.type_name)
    if check is not None:
        yield from check(shape, value, place=place)


def _structure(shape: Shape, value: Mapping[str, Any], *, place: str) -> Problems:
    for name in shape.required_members:
        if value.get(name) is None:
            yield _failed(None, _below(place, name), "Member must not be null")
    for name, member in value.items():
        if name not in shape.members:
            known = ", ".join(shape.members)
            yield _failed(member, _below(place, name), f"Member is unknown; known are {known}")
        elif member is not None:
            yield from _check(shape.members[name], member, place=_below(place, name))


def _list(shape: Shape, value: list[Any], *, place: str) -> Problems:
    yield from _length(shape, value, place=place)
    for number, member in enumerate(value, 1):
        yield from _check(shape.member, member, place=f"{place}.{number}.member")


def _map(shape: Shape, value: Mapping[str, Any], *, place: str) -> Problems:
    yield from _length(shape, value, place=place)
    for key, member in value.items():
        for kind, part, tested in (("key", shape.key, key), ("value", shape.value, member)):
            for problem in _check(part, tested, place=place):
                constraint = problem.partition("constraint: ")[2]
                text = f"Map {kind} must satisfy constraint: [{constraint}]"
                yield _failed(dict(value), place, text)


def _string(shape: Shape, value: str, *, place: str) -> Problems:
    yield from _length(shape, value, place=place)
    pattern = shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        text = f"Member must satisfy regular expression pattern: {pattern}"
        yield _failed(value, place, text)
    if shape.enum and value not in shape.enum:
        text = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        yield _failed(value, place, text)


def _number(shape: Shape, value: float, *, place: str) -> Problems:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and value < low:
        yield _failed(value, place, f"Member must have value greater than or equal to {low}")
    if high is not None and value > high:
        yield _failed(value, place, f"Member must have value less than or equal to {high}")


def _length(shape: Shape, value: Any, *, place: str) -> Problems:  # noqa: ANN401
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and len(value) < low:
        yield _failed(value, place, f"Member must have length greater than or equal to {low}")
    if high is not None and len(value) > high:
        yield _failed(value, place, f"Member must have length less than or equal to {high}")


_CHECKS: dict[str, Callable[..., Problems]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _number,
    "long": _number,
    "float": _number,
    "double": _number,
}


def _failed(value: object, place: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{place}' failed to satisfy constraint: {constraint}"


def _below(place: str, name: str) -> str:
    own = name[:1].lower() + name[1:]
    return f"{place}.{own}" if place else own


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


@cache
def _compiled(pattern: str) -> "re.Pattern[str] | None":
    """None where Java's expression means nothing to Python; then AWS alone can check it."""
    for java, python in _UNICODE.items():
        pattern = pattern.replace(java, python)
    # A few patterns of the model end in a group and its length, as `…*)${1,256}`.
    pattern = re.sub(r"\$\{1,\d+\}$", "", pattern)
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return None


# --- validation ---

_TARGETS = ("S3OutputPath", "DestinationS3Uri")
_TARGET_HOLDERS = ("CheckpointConfig",)


def check_request(operation: str, request: Mapping[str, Any], *, state: State) -> None:
    """Check a SageMaker request: the service model, AWS's further rules, our members, buckets.

    Raises:
        AwsError: with AWS's code and wording; where several rules are broken, all are told.
    """
    check_shape("sagemaker", operation, request)
    found = problems(operation, request)
    if found:
        raise AwsError(found[0].code, "; ".join(problem.message for problem in found))
    if operation_named(operation):
        check_members(operation, request, state=state)
    if operation.startswith("Create"):
        _check_buckets(request, state=state)


def _check_buckets(request: Mapping[str, Any], *, state: State) -> None:
    """Where results shall go there must be a bucket; missing inputs fail the job instead."""
    for uri in _targets(request):
        bucket = uri.removeprefix("s3://").partition("/")[0]
        if not _exists(bucket, state=state):
            raise invalid(f"Could not access S3 bucket {bucket!r} of {uri!r}: it does not exist")


def _exists(bucket: str, *, state: State) -> bool:
    from botocore.exceptions import ClientError

    try:
        state.clients["s3"].head_bucket(Bucket=bucket)
    except ClientError:
        return False
    return True


def _targets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            if name in _TARGETS and isinstance(member, str):
                yield member
            elif name in _TARGET_HOLDERS and isinstance(member, Mapping):
                yield from (uri for key, uri in member.items() if key == "S3Uri")
            else:
                yield from _targets(member)
