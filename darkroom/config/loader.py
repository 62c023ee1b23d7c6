"""From a YAML file and the command line to a validated `Config`. Imports no torch."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from darkroom.base.errors import UserError
from darkroom.base.values import digest_of
from darkroom.config import Config
from darkroom.config.consistency import consistency_problems
from darkroom.config.problems import describe_problems, place_of, shown
from darkroom.config.tuning import FloatRange

# --- yaml reading ---
# YAML as people mean it: 1e-3 is a number, `off` and `no` are words, keys occur once.
#
# PyYAML follows YAML 1.1, where `1e-3` is text, `off` is false, `1:30` is 90 and a repeated
# key silently wins. Here plain scalars follow the core schema of YAML 1.2
# (https://yaml.org/spec/1.2.2/#103-core-schema), and repeated keys are errors.

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


# --- loading ---


class ConfigurationError(UserError):
    """Values that are none.

    Args:
        readable: the configuration without them, in which there may be further problems; None:
            too little is left.
    """

    def __init__(self, problems: Sequence[str], *, readable: Config | None) -> None:
        super().__init__(problems)
        self.readable = readable


def load_config(
    path: Path | None, *, overrides: Sequence[str] = (), data: str | None = None
) -> Config:
    """Read a configuration, override values in it, and validate the whole.

    Args:
        path: the YAML file; None: all defaults.
        overrides: `key.path=value` strings, the value in YAML; later ones win.
        data: replaces `data.source`.

    Raises:
        UserError: every problem that was found, one line each.
    """
    content = {} if path is None else _read(path)
    assignments = [*overrides, *([] if data is None else [f"data.source={json.dumps(data)}"])]
    problems = [problem for text in assignments if (problem := _override(content, text))]
    try:
        # Strict, since true is no number and '10' is text; as JSON, since lists are tuples there.
        config = Config.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        raise ConfigurationError(
            [*problems, *describe_problems(error)], readable=_readable(content, error=error)
        ) from error
    else:
        problems += consistency_problems(config)
    if problems:
        raise UserError(problems)
    return config


def _readable(content: dict[str, Any], *, error: ValidationError) -> Config | None:
    """What is left of a configuration without the values that are wrong."""
    left = json.loads(json.dumps(content, default=str))
    for detail in error.errors(include_url=False):
        node, path = left, place_of(detail)
        while len(path) > 1 and isinstance(node, dict) and isinstance(node.get(path[0]), dict):
            node = node[path.pop(0)]
        if isinstance(node, dict):
            node.pop(path[0], None)
    try:
        return Config.model_validate_json(json.dumps(left), strict=True)
    except ValidationError:
        return None


def overridden_keys(overrides: Sequence[str]) -> list[str]:
    """The keys, as dotted paths, that `key.path=value` strings set."""
    return [text.partition("=")[0].strip() for text in overrides]


def config_digest(config: Config) -> str:
    """SHA-256 of the resolved configuration, independent of how it was written."""
    return digest_of(config.model_dump(mode="json"))


def to_yaml(config: Config) -> str:
    """The resolved configuration as a YAML that `load_config` reads back."""
    return format_yaml(config.model_dump(mode="json"))


def _read(path: Path) -> dict[str, Any]:
    content = parse_yaml(_text(path), origin=str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds {shown(content)}; a configuration is a mapping of the sections "
            f"{', '.join(Config.model_fields)}"
        )
    # A section whose keys are all commented out reads as null: its defaults are meant.
    return {
        str(key): {} if value is None and key in Config.model_fields else value
        for key, value in content.items()
    }


def _text(path: Path) -> str:
    try:
        if _never_ends(path):
            raise UserError(f"{str(path)!r}: neither a file nor the output of a command")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{str(path)!r}: no such configuration file{_nearby(path)}") from error
    except IsADirectoryError as error:
        raise UserError(
            f"{str(path)!r}: a folder; a configuration is a YAML file{_nearby(path / '_')}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r}: not a text file in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise UserError(f"{str(path)!r}: cannot be read: {error.strerror}") from error


def _never_ends(path: Path) -> bool:
    """Whether reading it may wait for ever, or fill the memory.

    A shell's `<(command)` is a pipe under /dev or /proc, at whose other end somebody writes.
    """
    if path.is_fifo():
        return not path.is_relative_to("/dev") and not path.is_relative_to("/proc")
    return path.is_char_device() or path.is_block_device() or path.is_socket()


def _nearby(path: Path) -> str:
    """The configurations that lie where one was looked for."""
    found = sorted(file.name for file in path.parent.glob("*.y*ml"))
    return f"; {str(path.parent)!r} holds {', '.join(found)}" if found else ""


def _override(content: dict[str, Any], text: str) -> str | None:
    """Set one value in `content`; returns the problem where that is impossible."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return f"--set {text!r}: not of the form key.path=value, such as training.epochs=5"
    try:
        section = _section_at(content, parts[:-1])
        section[parts[-1]] = parse_yaml(value, origin=f"--set {text!r}")
        if parts[:-2] == _SEARCH_SPACE:
            _of_one_kind(section, by=parts[-1])
    except _NotASectionError as error:
        return f"--set {text!r}: {error}"
    except UserError as error:
        return str(error)
    return None


_SEARCH_SPACE = ["tuning", "search_space"]


def _of_one_kind(dimension: dict[str, Any], *, by: str) -> None:
    """Let choices take the place of a range, and a range that of choices."""
    kinds = {"choices"}, {*FloatRange.model_fields}
    for this, other in (kinds, kinds[::-1]):
        for key in other if by in this else ():
            dimension.pop(key, None)


class _NotASectionError(Exception):
    """The path to a value leads through something that has no keys."""


def _section_at(content: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The mapping at `path`. What the file does not mention starts from its default."""
    node: dict[str, Any] = content
    default: Any = Config().model_dump(mode="json")
    for depth, part in enumerate(path, start=1):
        default = default.get(part) if isinstance(default, dict) else None
        if node.get(part) is None:
            node[part] = default if part not in node and isinstance(default, dict) else {}
        if not isinstance(node[part], dict):
            raise _NotASectionError(
                f"{'.'.join(path[:depth])} is {shown(node[part])}, which has no keys"
            )
        node = node[part]
    return node
