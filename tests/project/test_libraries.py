"""Which libraries which folders may know (the table in the README), read from every file."""

import os
from pathlib import Path

import pytest

from checkout import CHECKOUT
from source_code import FILES, ROOTS, imports, within

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


def imported_names(path: Path) -> list[str]:
    return [name for _, name in imports(path)]


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


def test_the_core_does_not_know_the_backends() -> None:
    core = [p for p in FILES if not {"backends", "tracking"} & {*p.relative_to(CHECKOUT).parts}]
    wired = {"capture.py"}  # a server's own wiring: S3 only where it is asked for
    wrong = {
        path.name
        for path in core
        if path.is_relative_to(CHECKOUT / "darkroom")
        and any(within(name, "darkroom.backends") for name in imported_names(path))
    }
    assert wrong - wired == set()


def test_pipelines_know_no_backend_and_nobody_knows_the_command_lines_door() -> None:
    pipelines = [path for path in FILES if path.is_relative_to(CHECKOUT / "pipelines")]
    names = [name for path in pipelines for name in imported_names(path)]
    assert names
    assert [name for name in names if within(name, "darkroom.backends")] == []
    assert [p.name for p in FILES for name in imported_names(p) if within(name, "run")] == []


def test_the_guard_sees_all_files() -> None:
    walked = [
        Path(folder, file)
        for package in ROOTS
        for folder, _, files in os.walk(CHECKOUT / package)
        for file in files
        if file.endswith(".py")
    ]
    assert sorted(walked) == FILES


def test_no_step_imports_another() -> None:
    allowed = {
        "steps.cache_policy.depends_on",
        "steps.reuse.reuse_only_what_is_whole",
        "steps.chosen_backend.chosen_backend",
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
