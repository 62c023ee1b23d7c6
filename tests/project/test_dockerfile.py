"""The images: what their Dockerfiles say, and that what the full one installs is enough to work."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.config import Hyperparameters
from darkroom.training.hyperparameters import to_strings
from image_files import CHECKOUT, DOCKERFILES, final_stage, installed, instructions, versions
from pictures import write_image_folder

IMAGE_LOCK = CHECKOUT / "requirements-image.lock"
HOSTING_LOCK = CHECKOUT / "requirements-hosting.lock"
FULL_LOCK = CHECKOUT / "requirements.lock"
TVM_LOCK = CHECKOUT / "requirements-tvm.lock"

TEST_PACKAGES = {"pytest", "moto", "hypothesis", "coverage", "mypy", "ruff", "cfn-lint", "uv"}
COMPILERS = {"cmake", "ninja", "cython", "pybind11", "ziglang", "meson", "scikit-build"}

each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES.values(), ids=DOCKERFILES)
each_lock = pytest.mark.parametrize("lock", [IMAGE_LOCK, HOSTING_LOCK], ids=["full", "hosting"])


@each_dockerfile
def test_the_linter_finds_nothing(dockerfile: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([linter, str(dockerfile)], capture_output=True, text=True, check=False)
    assert found.stdout + found.stderr == ""


@each_dockerfile
def test_every_stage_starts_from_an_exact_version(dockerfile: Path) -> None:
    bases = [rest.split()[0] for word, rest in instructions(dockerfile) if word == "FROM"]
    assert bases == ["${BASE}", "${BASE}"]
    (base,) = [rest for word, rest in instructions(dockerfile) if rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)


@each_dockerfile
def test_the_image_runs_as_somebody_without_rights(dockerfile: Path) -> None:
    assert [rest for word, rest in final_stage(dockerfile) if word == "USER"] == ["1000"]


def test_who_runs_the_full_image_may_write_where_programs_do() -> None:
    final = final_stage(DOCKERFILES["full"])
    (setup,) = [rest for word, rest in final if word == "RUN"]
    assert "chown -R darkroom:darkroom /app /opt/ml" in setup
    assert [rest for word, rest in final if word == "WORKDIR"] == ["/app"]


@each_dockerfile
def test_sagemakers_words_start_the_programs_because_there_is_no_entry_point(
    dockerfile: Path,
) -> None:
    assert "ENTRYPOINT" not in {word for word, _ in instructions(dockerfile)}


def test_the_hosting_image_serves_without_a_word_and_without_a_shell() -> None:
    given = [rest for word, rest in instructions(DOCKERFILES["hosting"]) if word == "CMD"]
    assert [json.loads(rest) for rest in given] == [["serve"]]
    assert "CMD" not in {word for word, _ in instructions(DOCKERFILES["full"])}


@each_dockerfile
def test_sagemaker_learns_that_it_hosts_many_models_on_a_port_of_its_choice(
    dockerfile: Path,
) -> None:
    (labels,) = [rest for word, rest in final_stage(dockerfile) if word == "LABEL"]
    for capability in ("multi-models", "accept-bind-to-port"):
        assert f'com.amazonaws.sagemaker.capabilities.{capability}="true"' in labels


@each_dockerfile
def test_nothing_is_compiled_and_no_system_package_is_added(dockerfile: Path) -> None:
    runs = " ".join(rest for word, rest in instructions(dockerfile) if word == "RUN")
    assert "--no-build " in runs
    assert "--require-hashes" in runs
    assert "--require-build-hashes" in runs
    assert not re.search(r"apt|gcc|g\+\+|make |curl|wget", runs)


@pytest.mark.parametrize(
    ("image", "locks"),
    [
        ("full", ["requirements-image.lock"]),
        ("hosting", ["requirements-hosting.lock", "requirements-image.lock"]),
    ],
)
def test_only_what_is_needed_is_copied_and_the_context_holds_it(
    image: str, locks: list[str]
) -> None:
    copied = [
        source
        for word, rest in instructions(DOCKERFILES[image])
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.replace("${REQUIREMENTS}", "requirements-image.lock").split()[:-1]
    ]
    assert sorted(copied) == ["LICENSE", "README.md", "darkroom", "pyproject.toml", *locks]
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in copied:
        assert (CHECKOUT / source).exists()
        assert f"!{source.replace('image.lock', 'image*.lock')}" in ignored


def test_zenml_sends_the_builder_the_same_files_and_no_environment() -> None:
    from zenml.image_builders import BuildContext

    files = {name.partition("/")[0] for name in BuildContext(root=str(CHECKOUT)).get_files()}
    locks = {"requirements-hosting.lock", "requirements-image.lock"}
    expected = {"LICENSE", "README.md", "darkroom", "pyproject.toml"} | locks
    assert files - {"requirements-image-cpu.lock"} == expected


@each_dockerfile
def test_the_dockerfiles_uv_is_the_locked_one(dockerfile: Path) -> None:
    text, locked = dockerfile.read_text(), FULL_LOCK.read_text()
    assert f"uv=={versions(FULL_LOCK)['uv']}" in text
    entry = locked[locked.index("\nuv==") :].split("\n\n")[0]
    entry = entry.split("\n    # ")[0]
    hashes = re.findall(r"--hash=(sha256:[0-9a-f]{64})", text)
    assert len(hashes) == 3
    assert [each for each in hashes if each not in entry] == []


def test_the_hosting_image_says_whether_it_is_healthy() -> None:
    (check,) = [
        rest for word, rest in instructions(DOCKERFILES["hosting"]) if word == "HEALTHCHECK"
    ]
    assert "/ping" in check


@each_lock
def test_the_image_has_the_versions_that_are_tested(lock: Path) -> None:
    image, tested = versions(lock), versions(FULL_LOCK)
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}


def test_the_full_image_does_everything_and_the_hosting_image_only_serves() -> None:
    everything = {"torch", "zenml", "mlflow", "sagemaker", "boto3"}
    assert everything | {"onnxruntime"} <= set(versions(IMAGE_LOCK))
    assert "onnxruntime" in versions(HOSTING_LOCK)
    assert set(versions(HOSTING_LOCK)) & everything == set()


@each_lock
def test_the_image_has_neither_test_packages_nor_compilers(lock: Path) -> None:
    assert set(versions(lock)) & (TEST_PACKAGES | COMPILERS) == set()


def test_the_locks_name_no_index() -> None:
    for lock in (IMAGE_LOCK, HOSTING_LOCK, FULL_LOCK, TVM_LOCK):
        lines = lock.read_text().splitlines()
        assert [line for line in lines if "://" in line or line.startswith("-")] == []


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """bin/ of an environment installed as the Dockerfile does it."""
    yield from installed(IMAGE_LOCK, root=tmp_path_factory.mktemp("image"), exact=False)


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
        "darkroom.backends.sagemaker.session",
        "darkroom.tracking.runs",
        "darkroom.training.loop",
    ]
    price = (
        "from darkroom.backends.sagemaker.costs.prices import hourly_price\n"
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
