"""Who may import whom (the table in the README), read from the source of every file."""

import ast
import os
from functools import cache
from pathlib import Path

import pytest

from checkout import CHECKOUT

OURS = ("commands", "darkroom", "materializers", "pipelines", "rehearsal", "stacks", "steps")

FORBIDDEN: dict[str, tuple[str, ...]] = {
    "darkroom": ("zenml", "boto3", "botocore", "mlflow", "run", *set(OURS) - {"darkroom"}),
    "darkroom/backends": ("zenml", "mlflow", "run", *set(OURS) - {"darkroom"}),
    "darkroom/tracking": ("zenml", "boto3", "botocore", "run", *set(OURS) - {"darkroom"}),
    "steps": ("boto3", "botocore", "mlflow", "sagemaker", "torch", "pipelines", "commands", "run"),
    "pipelines": ("boto3", "botocore", "mlflow", "torch", "darkroom.backends", "commands", "run"),
    "materializers": ("boto3", "botocore", "mlflow", "torch", "steps", "pipelines", "commands"),
    "stacks": ("boto3", "botocore", "mlflow", "torch", "steps", "pipelines", "commands"),
    "commands": ("boto3", "botocore", "mlflow", "torch"),
    "rehearsal": (
        *("zenml", "mlflow", "torch", "run"),
        *set(OURS) - {"darkroom", "rehearsal", "stacks"},
        *("stacks.loader", "stacks.managed_mlflow", "stacks.orchestration"),
    ),
}
"""The longest folder that a file lies in decides."""

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


def test_a_file_imports_only_what_its_layer_may() -> None:
    wrong = [
        f"{relative} imports {name}"
        for path in FILES
        for relative in [path.relative_to(CHECKOUT).as_posix()]
        for layer in [max((f for f in FORBIDDEN if relative.startswith(f + "/")), key=len)]
        for name in imported_names(path)
        if any(within(name, forbidden) for forbidden in FORBIDDEN[layer])
    ]
    assert wrong == []


def test_the_core_does_not_know_the_backends() -> None:
    core = [p for p in FILES if not {"backends", "tracking"} & {*p.relative_to(CHECKOUT).parts}]
    wired = {"capturing.py"}  # a server's own wiring: S3 only where it is asked for
    wrong = {
        path.name
        for path in core
        if path.is_relative_to(CHECKOUT / "darkroom")
        and any(within(name, "darkroom.backends") for name in imported_names(path))
    }
    assert wrong - wired == set()


def test_no_step_imports_another() -> None:
    allowed = {
        "steps.cache_policy",
        "steps.cache_policy.depends_on",
        "steps.reuse",
        "steps.reuse.reuse_only_what_is_whole",
        "steps.chosen_backend",
        "steps.chosen_backend.chosen_backend",
        "steps.training_report",
        "steps.training_report.leave_report",
        "steps.training_report.report_on",
    }
    wrong = {
        path.name: name
        for path in (CHECKOUT / "steps").glob("*.py")
        for name in imported_names(path)
        if within(name, "steps") and name not in allowed
    }
    assert wrong == {}


def test_the_guard_sees_all_files() -> None:
    seen = [path.relative_to(CHECKOUT).as_posix() for path in FILES]
    assert {path.partition("/")[0] for path in seen} == set(OURS)
    assert [f for f in FORBIDDEN if not any(path.startswith(f"{f}/") for path in seen)] == []
    walked = [
        Path(folder, file)
        for package in OURS
        for folder, _, files in os.walk(CHECKOUT / package)
        for file in files
        if file.endswith(".py")
    ]
    assert sorted(walked) == FILES


@pytest.mark.parametrize(
    "file",
    ["config/__init__", "config/loading", "dataset", "errors", "files", "progress", "images"],
)
def test_light_modules_import_nothing_heavy(file: str) -> None:
    heavy = ("torch", "torchvision", "sklearn", "matplotlib", "onnxruntime", "scipy", "requests")
    names = imported_names(CHECKOUT / "darkroom" / f"{file}.py")
    assert [name for name in names for package in heavy if within(name, package)] == []
