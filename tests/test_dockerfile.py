"""The image: what its Dockerfile says, and that what it installs is enough to work."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.config import Hyperparameters
from darkroom.training.hyperparameters import to_strings
from pictures import write_image_folder

CHECKOUT = Path(__file__).resolve().parent.parent
DOCKERFILE = CHECKOUT / "infrastructure" / "Dockerfile"
IMAGE_LOCK = CHECKOUT / "requirements-image.lock"
FULL_LOCK = CHECKOUT / "requirements.lock"

TEST_PACKAGES = {"pytest", "moto", "hypothesis", "coverage", "mypy", "ruff", "cfn-lint", "uv"}
COMPILERS = {"cmake", "ninja", "cython", "pybind11", "ziglang", "meson", "scikit-build"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, comments left out and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for line in lines if line for word, _, rest in [line.partition(" ")]]


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,-]+\])?==([^\s;]+)", lock.read_text(), re.M))


def test_the_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert found.stdout + found.stderr == ""


def test_every_stage_starts_from_an_exact_version() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base)


def test_the_image_runs_as_somebody_without_rights_who_may_write_where_programs_do() -> None:
    last = max(number for number, (word, _) in enumerate(instructions()) if word == "FROM")
    final = instructions()[last:]
    assert [rest for word, rest in final if word == "USER"] == ["1000"]
    (setup,) = [rest for word, rest in final if word == "RUN"]
    assert "chown -R darkroom:darkroom /app /opt/ml" in setup
    assert [rest for word, rest in final if word == "WORKDIR"] == ["/app"]


def test_sagemakers_words_start_the_programs_because_there_is_no_entry_point() -> None:
    assert {"ENTRYPOINT", "CMD"} & {word for word, _ in instructions()} == set()


def test_nothing_is_compiled_and_no_system_package_is_added() -> None:
    runs = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert "--no-build " in runs
    assert "--require-hashes" in runs
    assert not re.search(r"apt|gcc|g\+\+|make |curl|wget", runs)


def test_only_what_is_needed_is_copied_and_the_context_holds_it() -> None:
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.replace("${REQUIREMENTS}", "requirements-image.lock").split()[:-1]
    ]
    assert sorted(copied) == [
        "LICENSE",
        "README.md",
        "darkroom",
        "pyproject.toml",
        "requirements-image.lock",
    ]
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in copied:
        assert (CHECKOUT / source).exists()
        assert f"!{source.replace('image.lock', 'image*.lock')}" in ignored


def test_zenml_sends_the_builder_the_same_files_and_no_environment() -> None:
    from zenml.image_builders import BuildContext

    files = {name.partition("/")[0] for name in BuildContext(root=str(CHECKOUT)).get_files()}
    expected = {"LICENSE", "README.md", "darkroom", "pyproject.toml", "requirements-image.lock"}
    assert files - {"requirements-image-cpu.lock"} == expected


def test_the_dockerfiles_uv_is_the_locked_one() -> None:
    assert f"uv=={versions(FULL_LOCK)['uv']}" in DOCKERFILE.read_text()


def test_the_image_has_the_versions_that_are_tested() -> None:
    image, tested = versions(IMAGE_LOCK), versions(FULL_LOCK)
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    assert {"torch", "zenml", "mlflow", "sagemaker", "boto3", "onnxruntime"} <= set(image)


def test_the_image_has_neither_test_packages_nor_compilers() -> None:
    assert set(versions(IMAGE_LOCK)) & (TEST_PACKAGES | COMPILERS) == set()


def test_the_locks_name_no_index() -> None:
    for lock in (IMAGE_LOCK, FULL_LOCK):
        lines = lock.read_text().splitlines()
        assert [line for line in lines if "://" in line or line.startswith("-")] == []


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Iterator[Path]:
    """bin/ of an environment installed as the Dockerfile does it, from uv's cache alone."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not installed beside this Python")
    root = tmp_path_factory.mktemp("image")
    context = root / "context"
    context.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, context)
    bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "darkroom", context / "darkroom", ignore=bytecode)
    environment = root / "environment"
    setup = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(setup, check=True)
    variables = {**os.environ, "VIRTUAL_ENV": str(environment)}
    packages = ["sync", "--offline", "--require-hashes", "--no-build", str(IMAGE_LOCK)]
    done = subprocess.run(
        [uv, "pip", *packages], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        shutil.rmtree(root)
        pytest.skip(f"uv's cache does not hold the image's packages: {done.stderr[-300:]}")
    ours = ["install", "--offline", "--no-deps", "--no-build-isolation", str(context)]
    subprocess.run([uv, "pip", *ours], env=variables, check=True, capture_output=True)
    yield environment / "bin"
    shutil.rmtree(root)


def bare(base: Path, **variables: str) -> dict[str, str]:
    """The environment of a container: nothing of this machine's user."""
    return {"SAGEMAKER_BASE_DIR": str(base), "HOME": str(base), "PATH": os.defpath, **variables}


@pytest.mark.slow
def test_the_images_requirements_suffice_to_train_and_to_serve(image: Path, tmp_path) -> None:
    write_image_folder(tmp_path / "input" / "data", splits=("train", "validation"), per_class=8)
    hyperparameters = Hyperparameters(
        architecture="squeezenet1_1",
        weights="none",
        image_size=32,
        epochs=1,
        batch_size=8,
        warmup_epochs=0,
        augmentation="none",
    )
    config = tmp_path / "input" / "config"
    config.mkdir()
    strings = json.dumps(to_strings(hyperparameters))
    (config / "hyperparameters.json").write_text(strings)
    trained = subprocess.run(
        [image / "train", "train"],
        env=bare(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "model" / "model.onnx").is_file()
    with subprocess.Popen(
        [image / "serve", "serve"],
        env=bare(tmp_path, SAGEMAKER_BIND_TO_PORT="0"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:
        try:
            assert status(ping_address(serving)) == 200
        finally:
            serving.terminate()
    assert serving.returncode == 0


def ping_address(serving: "subprocess.Popen[str]") -> str:
    assert serving.stdout
    found = re.search(r"http://\S+:(\d+)", serving.stdout.readline())
    assert found
    return f"http://127.0.0.1:{found[1]}/ping"


def status(address: str) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.status
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.slow
def test_the_images_requirements_suffice_to_orchestrate(image: Path, tmp_path) -> None:
    modules = [
        "zenml.entrypoints.entrypoint",
        "zenml.integrations.aws.orchestrators.sagemaker_orchestrator",
        "zenml.integrations.aws.orchestrators.sagemaker_orchestrator_entrypoint_config",
        "zenml.integrations.aws.container_registries",
        "zenml.integrations.s3.artifact_stores.s3_artifact_store",
        "zenml.integrations.mlflow.experiment_trackers",
        "sagemaker_mlflow",
        "darkroom.backends.sagemaker.clients",
        "darkroom.tracking.runs",
        "darkroom.training.loop",
    ]
    price = (
        "from darkroom.backends.sagemaker.prices import hourly_price\n"
        "assert hourly_price('ml.m5.large', region='us-east-1', kind='hosting')\n"
    )
    program = "".join(f"import {module}\n" for module in modules) + price
    done = subprocess.run(
        [image / "python", "-I", "-c", program],
        env=bare(tmp_path, SAGEMAKER_SUPPRESS_V2_WARNING="1", ZENML_ANALYTICS_OPT_IN="false"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_images_packages_hold_no_tools_of_ours(image: Path) -> None:
    programs = {path.name for path in image.iterdir()}
    assert {"train", "serve"} <= programs
    assert programs & {"pytest", "mypy", "ruff", "moto_server", "uv", "pip", "cmake"} == set()
