"""Write tests/golden/public_surface.txt: `python -m checks.public_surface`.

The file names all that users and their programs may rely on. A test compares it with the code,
so that nothing of it changes unnoticed: a change to it shows in the diff of the file.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from commands.exits import INTERRUPTED
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Config
from darkroom.runs.summary import Summary
from darkroom.serving.settings import PREFIX, ServingSettings
from run import cli

CHECKOUT = Path(__file__).resolve().parent.parent
TARGET = CHECKOUT / "tests" / "golden" / "public_surface.txt"


def public_surface() -> str:
    """Describe the public surface, one line an item."""
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    scripts = pyproject["project"]["scripts"]
    sections = {
        "programs": [f"{name} = {target}" for name, target in sorted(scripts.items())],
        "commands": list(_commands()),
        "exit codes": [
            "0 done",
            f"{DarkroomError.exit_code} failed",
            f"{UserError.exit_code} the input has to change",
            f"{INTERRUPTED} interrupted",
        ],
        "configuration": list(_fields(Config, prefix="")),
        "serving": list(_fields(ServingSettings, prefix=PREFIX)),
        "summary": list(_fields(Summary, prefix="")),
    }
    return "".join(f"# {title}\n" + "\n".join(lines) + "\n\n" for title, lines in sections.items())


def _commands() -> Iterator[str]:
    yield from _parameters("run.py", cli)
    for name, command in sorted(cli.commands.items()):
        yield from _parameters(f"run.py {name}", command)


def _parameters(title: str, command: click.Command) -> Iterator[str]:
    yield title
    for parameter in command.params:
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
        kind = parameter.type.name
        if isinstance(parameter.type, click.Choice):
            kind = "|".join(parameter.type.choices)
        marks = [
            mark
            for mark, is_so in (
                ("required", parameter.required),
                ("repeatable", getattr(parameter, "multiple", False) or parameter.nargs == -1),
            )
            if is_so
        ]
        yield " ".join([f"{title}: {names}", "flag" if _is_flag(parameter) else kind, *marks])


def _is_flag(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.is_flag


def _fields(model: type[BaseModel], *, prefix: str) -> Iterator[str]:
    """List keys with types, limits and defaults, sections flattened."""
    schema = model.model_json_schema()
    yield from _keys(schema, definitions=schema.get("$defs", {}), prefix=prefix)


def _keys(schema: dict[str, Any], *, definitions: dict[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", ())
    for key, value in schema.get("properties", {}).items():
        shown = {name: part for name, part in value.items() if name not in _WORDS}
        is_needed = " required" if key in required else ""
        yield f"{prefix}{key}{is_needed} {json.dumps(shown, sort_keys=True)}"
        for name in _references(value):
            yield from _keys(definitions[name], definitions=definitions, prefix=f"{prefix}{key}.")


def _references(value: object) -> Iterator[str]:
    """Name the sections that a key's schema refers to, at any depth."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield str(value["$ref"]).rsplit("/", 1)[-1]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


_WORDS = frozenset({"title", "description"})

if __name__ == "__main__":
    TARGET.write_text(public_surface(), encoding="utf-8")
