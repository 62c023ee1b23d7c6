"""Writes docs/configuration.md from the docstrings and types of darkroom/config/.

python docs/configuration_reference.py
"""

import json
from pathlib import Path
from typing import Any

from darkroom.config import Config

TARGET = Path(__file__).resolve().parent / "configuration.md"

_HEAD = """# Configuration

One YAML, of these sections; a key that is left out has its default. `--set section.key=value`
overrides one value. The whole is validated before anything runs, and all errors are reported
at once. Settings that nothing reads on the chosen stack, or beside the others that were made, are
named by `run.py check` and at the start of a run. This page is written by `make docs` from
`darkroom/config/`.
"""
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}


def reference() -> str:
    """The page."""
    schema = Config.model_json_schema()
    parts = [_HEAD]
    nested: list[str] = []
    for section, field in Config.model_fields.items():
        section_schema = _resolve(field.annotation.__name__, schema)
        parts += _section(section, section_schema=section_schema)
        nested += _sections_named(section_schema)
    # Grows while it is walked: sections have sections.
    for name in nested:
        section_schema = _resolve(name, schema)
        parts += _section(name, section_schema=section_schema)
        nested += [deeper for deeper in _sections_named(section_schema) if deeper not in nested]
    return "\n".join(parts)


def _sections_named(section_schema: dict[str, Any]) -> list[str]:
    """The sections that a section's keys hold, each once."""
    options = [
        option for field in section_schema["properties"].values() for option in _alternatives(field)
    ]
    names = [option["$ref"].rsplit("/", 1)[-1] for option in options if "$ref" in option]
    return list(dict.fromkeys(names))


def _alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The kinds of value that a key takes."""
    kinds = field.get("anyOf") or field.get("oneOf")
    return [one for kind in kinds for one in _alternatives(kind)] if kinds else [field]


def _resolve(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][name]


def _section(title: str, *, section_schema: dict[str, Any]) -> list[str]:
    rows = [_row(key, value) for key, value in section_schema["properties"].items()]
    head = "| key | values | default | meaning |\n|---|---|---|---|"
    description = section_schema.get("description", "")
    return [f"\n## `{title}`\n\n{description}\n\n{head}", *rows]


def _row(key: str, field: dict[str, Any]) -> str:
    default = json.dumps(field["default"], ensure_ascii=False) if "default" in field else "required"
    meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
    return f"| `{key}` | {_values(field)} | `{default}` | {meaning} |"


def _values(field: dict[str, Any]) -> str:
    """Type and limits, such as `integer ≥ 1`."""
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    alternatives = _alternatives(field)
    if len(alternatives) > 1:
        return " or ".join(map(_values, alternatives))
    if "$ref" in field:
        return f"`{field['$ref'].rsplit('/', 1)[-1]}`"
    limits = " ".join(f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field)
    return f"{field.get('type', 'any')} {limits}".strip()


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
