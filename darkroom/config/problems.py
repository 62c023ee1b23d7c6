"""Wording what is wrong with a configuration, so that a person can mend it in one go."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from darkroom.base.values import did_you_mean, near_miss
from darkroom.config import Config
from darkroom.config.sections import ARCHITECTURES
from darkroom.config.tuning import AS_CHOICES, AS_RANGE

Schema = Mapping[str, Any]

_TYPICAL_ARCHITECTURES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny")
_MAX_VALUE = 80
_NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a mapping of keys to values",
}
_BOUNDS = {
    "exclusiveMinimum": "greater than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}


def describe_problems(error: ValidationError) -> list[str]:
    """One line for each problem: key, value, what is wrong, what is allowed."""
    schema = Config.model_json_schema()
    details = error.errors(include_url=False)
    return [_describe(detail, schema=schema) for detail in details if not _follows(detail)]


def _follows(detail: ErrorDetails) -> bool:
    """Whether it is but a consequence: pydantic counts the valid items of a list alone."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def place_of(detail: ErrorDetails) -> list[str | int]:
    """Keys and positions down to the value that a problem is about."""
    return [part for part in detail["loc"] if part not in (AS_RANGE, AS_CHOICES)]


def shown(value: object) -> str:
    """A value as the user may have written it, shortened."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def allowed_values(path: Sequence[str]) -> str:
    """The limits that the configuration sets for a key, in words; '' where there are none."""
    return _limits(schema_at(path, schema=Config.model_json_schema()))


def _describe(detail: ErrorDetails, *, schema: Schema) -> str:
    path = [str(part) for part in place_of(detail)]
    key = ".".join(path)
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return f"{key}: unknown key; {_known_key(path, schema=schema)}"
    expected = schema_at(path, schema=schema)
    if detail["type"] == "missing":
        return f"{key}: missing; needed is {_described_type(expected)}"
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
    return f"{key}: {shown(detail['input'])} {_fault(detail, expected=expected)}"


def _fault(detail: ErrorDetails, *, expected: Schema) -> str:
    value = detail["input"]
    if detail["loc"] == ("model", "architecture") and isinstance(value, str):
        return _unknown_architecture(value)
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    choices = expected.get("enum")
    if choices:
        return f"is not one of the choices; {_suggestion(value, choices=choices)}"
    if _has_type(value, expected["type"]):
        wrong = "is out of range" if isinstance(value, int | float) else "is not allowed"
        return f"{wrong}; allowed: {_limits(expected) or detail['msg']}"
    wrong, limits = f"is not {_described_type(expected)}", _limits(expected)
    if _is_text(expected) and isinstance(value, int | float | date):  # YAML saw more in it
        return f'{wrong}; in quotes it is one: "{shown(value)}"'
    if isinstance(value, str) and _is_number(value) and expected["type"] in ("integer", "number"):
        what = "underscores" if "_" in value else "quotes"
        return f"{wrong}; without {what} it is a number"
    if isinstance(value, list) and "choices" in expected.get("properties", ()):
        return f"{wrong}; values to choose from are {{choices: {shown(value)}}}"
    return f"{wrong}; allowed: {limits}" if limits else wrong


def _is_text(expected: Schema) -> bool:
    """Whether text is wanted, or a list of it, for which one text may stand."""
    wanted = expected.get("items", expected) if expected["type"] == "array" else expected
    return wanted.get("type") == "string"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_type(value: object, name: str) -> bool:
    """Whether a value of YAML has a type of JSON Schema."""
    types: dict[str, type | tuple[type, ...]] = {
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "string": str,
        "array": (list, tuple),
        "object": dict,
    }
    is_number_slot = name in ("integer", "number")
    return isinstance(value, types[name]) and not (is_number_slot and isinstance(value, bool))


def _limits(expected: Schema) -> str:
    limits = [f"{words} {expected[key]:.15g}" for key, words in _BOUNDS.items() if key in expected]
    if expected.get("minLength"):
        limits.append("text that is not empty")
    if expected.get("minItems"):
        limits.append(f"at least {expected['minItems']} item")
    if "pattern" in expected:
        limits.append(f"text that matches {expected['pattern']}")
    return ", ".join(limits)


def _described_type(expected: Schema) -> str:
    noun = _NOUNS[expected["type"]]
    if expected["type"] == "array" and "items" in expected:
        noun += f" whose items are each {_NOUNS[expected['items']['type']]}"
    if "properties" in expected:
        noun = f"a mapping (keys: {', '.join(expected['properties'])})"
    return f"{noun} or null" if expected.get("nullable") else noun


def _unknown_architecture(name: str) -> str:
    allowed = f"allowed: any of {len(ARCHITECTURES)}, such as {', '.join(_TYPICAL_ARCHITECTURES)}"
    hint = did_you_mean(name, among=ARCHITECTURES).rstrip() or allowed
    return f"is not one of torchvision's classification architectures; {hint}"


def _suggestion(value: object, *, choices: Sequence[str]) -> str:
    hint = did_you_mean(value, among=choices) if isinstance(value, str) else ""
    return f"{hint}allowed: {', '.join(repr(choice) for choice in choices)}"


def _known_key(path: Sequence[str], *, schema: Schema) -> str:
    """What to write instead of an unknown key: a near miss here, or the same key elsewhere."""
    *section, name = path
    here = list(schema_at(section, schema=schema).get("properties", {}))
    everywhere = _sections_by_key(schema)
    if name in everywhere:
        return f"did you mean {everywhere[name]}.{name}?"
    match = near_miss(name, among=here)
    if match:
        return f"did you mean {match!r}?"
    elsewhere = near_miss(name, among=everywhere)
    if elsewhere:
        return f"did you mean {everywhere[elsewhere]}.{elsewhere}?"
    return f"allowed here: {', '.join(here)}"


def _sections_by_key(schema: Schema) -> dict[str, str]:
    """Each key below a top-level section; the first section that has it."""
    found: dict[str, str] = {}
    for section in schema["properties"]:
        for key in schema_at([section], schema=schema)["properties"]:
            found.setdefault(key, section)
    return found


def schema_at(path: Sequence[str], *, schema: Schema) -> Schema:
    """The part of Config's JSON Schema that describes a key; 'nullable' where null is allowed."""
    node = schema
    for part in path:
        if "properties" in node:
            child = node["properties"].get(part, {"type": "object"})
        else:
            child = node.get("additionalProperties") or node.get("items") or {"type": "object"}
        node = _resolved(child if isinstance(child, Mapping) else {}, schema=schema)
    return node


def _resolved(node: Schema, *, schema: Schema) -> Schema:
    """Follow a reference; take the one alternative that is not null; join kinds of one section."""
    if "anyOf" in node:
        alternative = next(option for option in node["anyOf"] if option.get("type") != "null")
        return {**_resolved(alternative, schema=schema), "nullable": True}
    if "oneOf" in node:
        kinds = [_resolved(option, schema=schema) for option in node["oneOf"]]
        properties = {key: value for kind in kinds for key, value in kind["properties"].items()}
        return {"type": "object", "properties": properties}
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema=schema)
    return node
