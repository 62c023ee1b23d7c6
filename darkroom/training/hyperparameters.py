"""Hyperparameters as SageMaker carries them: strings, both ways.

`from_strings(to_strings(h)) == h` for every valid `h`.
"""

import json
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from darkroom.base.errors import UserError
from darkroom.base.values import did_you_mean
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging

DEBUGGING = "debugging"
"""The hyperparameter that says how a training is recorded and judged."""
_ADDED_BY_SAGEMAKER = ("_tuning_objective_metric", "sagemaker_")
_SCRIPT = "sagemaker_program"
_SCRIPT_REFUSED = (
    "the hyperparameter 'sagemaker_program' names a script, {script!r}, and this image trains "
    "Darkroom's models alone: use an image that runs scripts (SageMaker's framework containers), "
    "or leave the script out"
)


def to_strings(hyperparameters: Hyperparameters) -> dict[str, str]:
    """Every hyperparameter by name, as text that `from_strings` reads back unchanged."""
    return {name: encoded(value) for name, value in hyperparameters.model_dump().items()}


def debugging_strings(debugging: Debugging) -> dict[str, str]:
    """How a job is to be recorded and judged, as one hyperparameter: JSON, defaults left out."""
    return {DEBUGGING: debugging.model_dump_json(exclude_defaults=True)}


def debugging_from(strings: Mapping[str, str]) -> Debugging:
    """What `debugging_strings` wrote; a job that is not told records nothing.

    Raises:
        UserError: it is invalid.
    """
    if DEBUGGING not in strings:
        return NO_DEBUGGING
    try:
        return Debugging.model_validate_json(_decode(strings[DEBUGGING]))
    except ValidationError as error:
        raise UserError([_invalid_debugging(detail) for detail in error.errors()]) from error


def from_strings(strings: Mapping[str, str]) -> Hyperparameters:
    """Parse hyperparameters; missing ones take their defaults.

    Values may be JSON-quoted, as SageMaker's tuner and SDK write them. Names that
    SageMaker adds on its own account are left out.

    Raises:
        UserError: unknown names and invalid values, all of them, and a script to be run.
    """
    given = {
        name: value
        for name, value in strings.items()
        if name != DEBUGGING and not name.startswith(_ADDED_BY_SAGEMAKER)
    }
    known = Hyperparameters.model_fields
    script = _decode(strings.get(_SCRIPT, ""))
    problems = [_SCRIPT_REFUSED.format(script=script)] if script else []
    problems += [_unknown(name) for name in given if name not in known]
    values = {name: _decode(value) for name, value in given.items() if name in known}
    try:
        hyperparameters = Hyperparameters.model_validate(values)
    except ValidationError as error:
        raise UserError([*problems, *(_invalid(detail) for detail in error.errors())]) from error
    if problems:
        raise UserError(problems)
    return hyperparameters


def encoded(value: int | float | str | bool) -> str:
    """One value as text, a number with all its digits."""
    return value if isinstance(value, str) else json.dumps(value)


def _decode(value: str) -> str:
    """Take off JSON quotes; pydantic parses the rest by the field's type."""
    if isinstance(value, str) and value.startswith('"'):
        try:
            unquoted = json.loads(value)
        except ValueError:
            return value
        return unquoted if isinstance(unquoted, str) else value
    return value


def _unknown(name: str) -> str:
    known = list(Hyperparameters.model_fields)
    hint = did_you_mean(name, among=known) or f"known are {', '.join(known)}"
    return f"unknown hyperparameter {name!r}: {hint.rstrip()}"


def _invalid(detail: ErrorDetails) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return f"the hyperparameters contradict each other: {message}"
    return f"hyperparameter {str(detail['loc'][0])!r} is {detail['input']!r}: {message}"


def _invalid_debugging(detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    return f"hyperparameter {DEBUGGING!r}: {place or 'the value'}: {detail['msg']}"
