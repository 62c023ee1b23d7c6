"""YAML as people mean it: 1e-3 is a number, `off` and `no` are words, keys occur once.

PyYAML follows YAML 1.1, where `1e-3` is text, `off` is false, `1:30` is 90 and a repeated
key silently wins. Here plain scalars follow the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema), and repeated keys are errors.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from darkroom.errors import UserError

_FIRST_CHARACTERS: dict[str, list[str | None]] = {
    "null": ["~", "n", "N", None],
    "bool": list("tTfF"),
    "int": list("-+0123456789"),
    "float": list("-+.0123456789"),
}
_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    """Reads plain scalars by the core schema; collects repeated keys."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
        first_lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in first_lines:
                first = first_lines[key.value]
                self.repeated.append(
                    f"line {line}: the key {key.value!r} was given before, on line {first}"
                )
            first_lines.setdefault(key.value, line)
        return super().construct_mapping(node, deep=True)

    def construct_list(self, node: yaml.SequenceNode) -> list[Any]:
        return super().construct_sequence(node, deep=True)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = node.value.lower()
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        # 1e3 epochs are 1000 epochs; without an exponent, digits may exceed a float's.
        return int(number) if number.is_integer() and "e" in text else _exact(text, number)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would otherwise read as something else."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}


def _exact(text: str, number: float) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else number


for _kind, _pattern in _PATTERNS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _FIRST_CHARACTERS[_kind]
        )
_CONSTRUCTORS: dict[str, Callable[[_Loader, Any], object]] = {
    "int": _Loader.construct_number,
    "float": _Loader.construct_number,
    # Built at once and not in two steps as PyYAML does: a node that contains itself is refused.
    "map": _Loader.construct_mapping,
    "seq": _Loader.construct_list,
}
for _kind, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _constructor)


def parse_yaml(text: str, *, origin: str) -> object:
    """The content of a YAML text, only of plain types.

    Args:
        origin: what the text is, for messages: a file's name or an option.

    Raises:
        UserError: not YAML (with line and column), or keys that occur twice.
    """
    try:
        loader = _Loader(text)
        content: object = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {_described(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error
    if loader.repeated:
        raise UserError([f"{origin}, {problem}" for problem in loader.repeated])
    return content


def format_yaml(content: object) -> str:
    """YAML that `parse_yaml` reads back as `content`, in its order of keys."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    return text


def _described(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "unknown problem"
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
