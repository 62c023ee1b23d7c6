"""A SageMaker pipeline's JSON definition: its steps, their order, values known only later.

{"Get": "Parameters.<name>"}                          a parameter of the execution
{"Get": "Execution.PipelineExecutionArn"}             and PipelineName, PipelineExecutionId,
                                                      StartDateTime
{"Get": "Steps.<step>.ModelArtifacts.S3ModelArtifacts"}   from a step's Describe answer
{"Std:Join": {"On": "/", "Values": […]}}              texts put together
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rehearsal.emulator.errors import invalid, not_executed
from rehearsal.emulator.state import State
from rehearsal.jobs.container import unknown_image

EXECUTED = ("Training", "Processing")
_PART = re.compile(r"([^.\[\]]+)|\[['\"]?([^\]'\"]+)['\"]?\]")
_GET = "Get"
_JOIN = "Std:Join"


def parse(text: str) -> dict[str, Any]:
    """The definition, checked.

    Raises:
        AwsError: ValidationException, with what is wrong.
    """
    try:
        definition = json.loads(text)
        steps = definition["Steps"]
        names = [step["Name"] for step in steps]
    except (ValueError, KeyError, TypeError) as error:
        raise invalid(f"Invalid pipeline definition: {error!r}") from error
    for name in {name for name in names if names.count(name) > 1}:
        raise invalid(f"Invalid pipeline definition: the step name {name!r} is there twice")
    for step in steps:
        for other in dependencies(step):
            if other not in names:
                raise invalid(f"step {step['Name']!r} depends on {other!r}, which is no step")
    _check_order(steps)
    found: dict[str, Any] = definition
    return found


def check_executed(
    definition: Mapping[str, Any], *, parameters: Mapping[str, Any], state: State
) -> None:
    """Refuse steps that the rehearsal cannot run.

    Raises:
        AwsError: NotExecutedInRehearsal.
    """
    others = sorted({s["Type"] for s in definition["Steps"] if s["Type"] not in EXECUTED})
    if others:
        raise not_executed(
            "this pipeline", why=f"only steps of {' and '.join(EXECUTED)} are run, not {others}"
        )
    images = {_image(step["Arguments"], parameters=parameters) for step in definition["Steps"]}
    unknown = [why for uri in sorted(images) if uri and (why := unknown_image(uri, state=state))]
    if unknown:
        raise not_executed("this pipeline", why="; ".join(unknown))


def dependencies(step: Mapping[str, Any]) -> set[str]:
    """The steps that must have succeeded first: named, or needed for a value."""
    needed = {path.split(".")[1] for path in _gets(step) if path.startswith("Steps.")}
    return needed | set(step.get("DependsOn", ()))


def resolve(value: Any, *, get: Callable[[str], Any]) -> Any:  # noqa: ANN401  JSON
    """Replace all Get and Std:Join in a step's arguments.

    Args:
        get: the value of a path such as "Parameters.x".
    """
    if isinstance(value, Mapping):
        if set(value) == {_GET}:
            return get(value[_GET])
        if set(value) == {_JOIN}:
            join = value[_JOIN]
            return join["On"].join(str(resolve(part, get=get)) for part in join["Values"])
        return {name: resolve(member, get=get) for name, member in value.items()}
    if isinstance(value, list):
        return [resolve(member, get=get) for member in value]
    return value


def follow(path: str, *, start: Any) -> Any:  # noqa: ANN401  JSON
    """The member of an answer that a path leads to, as `A.B['C'].D[0]`.

    Raises:
        AwsError: there is none.
    """
    for name, index in _PART.findall(path):
        key = name or index
        try:
            start = start[int(key)] if isinstance(start, Sequence) else start[key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise invalid(f"the pipeline's value {path!r} does not exist: no {key!r}") from error
    return start


def _image(arguments: Mapping[str, Any], *, parameters: Mapping[str, Any]) -> str:
    """The image of a step, where it is known before the steps run; else empty."""
    named = arguments.get("AlgorithmSpecification", {}).get("TrainingImage")
    named = named or arguments.get("AppSpecification", {}).get("ImageUri")
    if isinstance(named, Mapping) and str(named.get(_GET, "")).startswith("Parameters."):
        named = parameters.get(str(named[_GET]).partition(".")[2])
    return named if isinstance(named, str) else ""


def _gets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if set(value) == {_GET}:
            yield str(value[_GET])
        for member in value.values():
            yield from _gets(member)
    elif isinstance(value, list):
        for member in value:
            yield from _gets(member)


def _check_order(steps: Sequence[Mapping[str, Any]]) -> None:
    waiting = {step["Name"]: dependencies(step) for step in steps}
    while waiting:
        ready = {name for name, needed in waiting.items() if not needed & set(waiting)}
        if not ready:
            raise invalid(f"Invalid pipeline definition: {sorted(waiting)} wait for each other")
        for name in ready:
            del waiting[name]
