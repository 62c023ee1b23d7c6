"""Every command that README and docs show: its options, targets and programs have to exist."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from run import cli

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]

FOREIGN = ("aws", "docker", "export", "mlflow", "source", "zenml")
"""Programs that are not ours."""


@dataclass(frozen=True)
class Documented:
    page: str
    command: str

    @property
    def program(self) -> str:
        return shlex.split(self.command, comments=True)[0]

    def __str__(self) -> str:
        return f"{self.page}: {self.command}"


def _documented() -> list[Documented]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.S):
            for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.M):
                joined = re.sub(r"\s*\\\n\s*", " ", command)
                found += [Documented(page.name, part.strip()) for part in _parts(joined)]
    return found


def _parts(line: str) -> list[str]:
    """Split a line at `;` and `&&` outside quotes, without its comment."""
    words = shlex.shlex(line, posix=False, punctuation_chars=";&")
    words.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in words:
        if word in {";", "&&"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return [" ".join(part) for part in parts if part]


COMMANDS = _documented()
OURS = [c for c in COMMANDS if c.command.startswith("python run.py")]


def test_every_page_is_seen() -> None:
    assert {"README.md", "serving.md", "sagemaker.md"} <= {c.page for c in COMMANDS}
    assert len(OURS) > 30


@pytest.mark.parametrize("documented", OURS, ids=str)
def test_its_options_exist(documented: Documented) -> None:
    words = shlex.split(documented.command.split(" > ")[0].split(" | ")[0])[2:]
    words = [word for word in words if not word.startswith("$")]
    at = next((at for at, word in enumerate(words) if word in cli.commands), len(words))
    click.Command("run.py", params=cli.params).make_context("run.py", words[:at])
    for name in words[at : at + 1]:
        cli.commands[name].make_context(name, words[at + 1 :])


@pytest.mark.parametrize(
    "documented", [c for c in COMMANDS if " -m benchmarks." in c.command], ids=str
)
def test_the_benchmark_has_its_options(documented: Documented) -> None:
    words = shlex.split(documented.command)
    source = (CHECKOUT / "benchmarks" / (words[2].removeprefix("benchmarks.") + ".py")).read_text()
    assert [word for word in words[3:] if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.mark.parametrize("documented", [c for c in COMMANDS if c.program == "make"], ids=str)
def test_the_make_target_exists(documented: Documented) -> None:
    target = shlex.split(documented.command)[1]
    assert re.search(rf"^{target}:", (CHECKOUT / "Makefile").read_text("utf-8"), re.M)


def test_no_other_program_is_shown() -> None:
    known = ("python", "make", "curl", "serve", ".venv/bin/uv", "train", *FOREIGN)
    others = {c.command for c in COMMANDS if c.program not in known and "=" not in c.program}
    assert others == set()
