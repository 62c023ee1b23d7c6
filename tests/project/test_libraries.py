"""Which libraries which folders may know (the table in the README), read from every file."""

import ast
from functools import cache
from pathlib import Path

import pytest

from checkout import CHECKOUT

OURS = ("commands", "darkroom", "materializers", "pipelines", "rehearsal", "stacks", "steps")

KNOWN_IN = {
    "zenml": ("commands", "materializers", "pipelines", "stacks", "steps"),
    "mlflow": ("darkroom/tracking",),
    "boto3": ("darkroom/backends", "rehearsal"),
    "botocore": ("darkroom/backends", "rehearsal"),
    "moto": ("rehearsal",),
    "torch": ("darkroom",),
    "torchvision": ("darkroom",),
    "sagemaker": (),  # ZenML alone uses it
}

FILES = sorted(path for folder in OURS for path in (CHECKOUT / folder).rglob("*.py"))


@cache
def imported_names(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("library", KNOWN_IN)
def test_a_library_is_known_where_the_table_says(library: str) -> None:
    users = {
        path.relative_to(CHECKOUT).as_posix()
        for path in FILES
        if any(within(name, library) for name in imported_names(path))
    }
    folders = KNOWN_IN[library]
    assert [user for user in sorted(users) if not user.startswith(folders or "nowhere")] == []
    assert all(any(user.startswith(folder) for user in users) for folder in folders)


def test_the_readmes_table_is_this_one() -> None:
    text = (CHECKOUT / "README.md").read_text()
    for library, folders in KNOWN_IN.items():
        if folders and library not in ("botocore", "torchvision"):
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {library} |")]
            assert [f"`{folder}/`" in row for folder in folders] == [True] * len(folders)


def test_no_step_imports_another() -> None:
    components = {path.stem for path in FILES if "@step" in path.read_text(encoding="utf-8")}
    wrong = {
        path.name: name
        for path in (CHECKOUT / "steps").glob("*.py")
        for name in imported_names(path)
        if any(within(name, f"steps.{component}") for component in components)
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "file",
    [
        *("config/__init__", "config/loader", "data/dataset", "base/errors", "base/files"),
        *("base/progress", "images"),
    ],
)
def test_light_modules_import_nothing_heavy(file: str) -> None:
    heavy = ("torch", "torchvision", "sklearn", "matplotlib", "onnxruntime", "scipy", "requests")
    names = imported_names(CHECKOUT / "darkroom" / f"{file}.py")
    assert [name for name in names for package in heavy if within(name, package)] == []
